"""The parts of mpgls plan: its options, and the cost of each command."""

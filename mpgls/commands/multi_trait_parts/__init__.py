"""The parts of mpgls multi-trait beside its algorithm: its options, and its plan."""

"""The parts of mpgls export: what a store of each kind gives."""

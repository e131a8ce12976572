"""The steps of mpgls multi-trait."""

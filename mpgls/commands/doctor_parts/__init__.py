"""The probes of mpgls doctor."""

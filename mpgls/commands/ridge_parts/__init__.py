"""The steps of mpgls ridge."""

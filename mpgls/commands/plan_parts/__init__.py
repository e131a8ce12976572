"""Costs behind mpgls plan."""

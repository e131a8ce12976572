"""Rates and costs behind mpgls plan."""

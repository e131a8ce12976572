"""The version of mpgls, for everybody."""

__version__ = "0.1.0"

"""The stages of mpgls low-rank."""

"""What to know about a trait beside its results, as bits of one byte."""

from __future__ import annotations

from enum import IntFlag


class Flag(IntFlag):
    """Bits of a trait's flags; a trait with one of `NOT_ANALYSED` has no results."""

    CONSTANT = 1
    ALL_MISSING = 2
    COLLINEAR = 4
    TOO_FEW = 8
    IMPUTED = 16
    BOUNDARY = 32
    RANGE = 64
    UNIDENTIFIED = 128


NOT_ANALYSED = Flag.CONSTANT | Flag.ALL_MISSING | Flag.COLLINEAR | Flag.TOO_FEW | Flag.RANGE

FLAG_TEXT = {
    Flag.CONSTANT: "constant",
    Flag.ALL_MISSING: "all missing",
    Flag.COLLINEAR: "collinear with covariates",
    Flag.TOO_FEW: "too few samples",
    Flag.IMPUTED: "approximate (imputed)",
    Flag.BOUNDARY: "h2 at boundary",
    Flag.RANGE: "beyond the range of numbers: another unit",
    Flag.UNIDENTIFIED: "h2 not identified",
}


def flag_text(flags: int) -> str:
    """The flags in words, separated by semicolons; empty without any."""
    return ";".join(text for flag, text in FLAG_TEXT.items() if flags & flag)

"""Names of chromosomes: which of them mean the same one.

The canonical form has no case, no leading ``chr`` and no leading zeros, and numbers for X, Y, XY and MT, as PLINK has
them: chr01 and 1 are the same chromosome, and X and 23. Where one file has both X and 23, as those of cattle have, it
means two chromosomes, so a name that is written the same goes before one that only means the same. Messages show a
name as the user wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mpgls.errors import InputError

_NUMBERS = {"X": "23", "Y": "24", "XY": "25", "PAR": "25", "PAR1": "25", "PAR2": "25", "MT": "26", "M": "26"}
_SHOWN = 10


def plain_chromosome(chromosome: str) -> str:
    """A chromosome's name without case, without a leading ``chr`` and without leading zeros."""
    name = chromosome.strip().upper().removeprefix("CHR")
    return re.sub(r"^0+(?=[0-9A-Z])", "", name)


def canonical_chromosome(chromosome: str) -> str:
    """The form in which names are compared: the plain one, with the numbers 23 to 26 for X, Y, XY (PAR) and MT (M)."""
    plain = plain_chromosome(chromosome)
    return _NUMBERS.get(plain, plain)


def is_autosome(chromosome: str, letters: bool) -> bool:
    """Whether a chromosome is an autosome: 1, 2, ... or 2L, and neither X, Y, XY and MT nor unplaced (0) or a contig.

    With ``letters`` the file has an X by this name, as those of cattle have, so that 23 to 26 are autosomes.
    """
    plain = plain_chromosome(chromosome)
    return re.fullmatch(r"[1-9]\d*[A-Z]?", plain) is not None and (letters or plain not in _NUMBERS.values())


def is_sexed(chromosome: str, letters: bool) -> bool:
    """Whether a chromosome is X, Y, XY or MT. ``letters`` as in `is_autosome`: 23 to 26 are none of them then."""
    plain = plain_chromosome(chromosome)
    return plain in _NUMBERS or (not letters and plain in _NUMBERS.values())


def spellings(plain: str) -> tuple[str, ...]:
    """All plain names that mean the same chromosome as ``plain``, itself first."""
    number = _NUMBERS.get(plain, plain)
    return tuple(dict.fromkeys([plain, number, *(letters for letters, same in _NUMBERS.items() if same == number)]))


def positions_of(chromosome: str, labels: Sequence[str]) -> list[int]:
    """Where ``labels`` mean ``chromosome``: those written the same if there are any, else those that mean the same."""
    plain = plain_chromosome(chromosome)
    same = [k for k, label in enumerate(labels) if plain_chromosome(label) == plain]
    if same:
        return same
    canonical = canonical_chromosome(chromosome)
    return [k for k, label in enumerate(labels) if canonical_chromosome(label) == canonical]


def check_left_out(tested: Sequence[str], present: Sequence[str], source: str) -> tuple[str, ...]:
    """Whether the chromosomes ``tested`` can be left out of ``source``, which has SNPs of the chromosomes ``present``.

    Returns a warning, to be logged, if some are not there: nothing is left out for them. Raises InputError when none
    is, since the two files then name chromosomes otherwise, or have no business with each other.
    """
    absent = [label for label in tested if not positions_of(label, present)]
    if tested and len(absent) == len(tested):
        raise InputError(
            f"{source} has no SNP of any tested chromosome, so nothing can be left out: the tested ones are "
            f"{_some(tested)}, those of {source} are {_some(present)}; where that is meant, scan without --loco "
            "(low-rank: with --no-loco)"
        )
    if not absent:
        return ()
    noun, them = ("chromosome", "it") if len(absent) == 1 else ("chromosomes", "them")
    return (f"{source} has no SNP of {noun} {_some(absent)}: nothing is left out for {them}",)


def _some(labels: Iterable[str]) -> str:
    shown = list(labels)
    return ", ".join(shown[:_SHOWN]) + (f", ... ({len(shown)} in all)" if len(shown) > _SHOWN else "") or "none"

"""The sex of samples: of a .fam's fifth column, or of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mpgls.errors import InputError
from mpgls.study.sample_ids import SampleId
from mpgls.study.tables import SampleTable
from mpgls.study.text import PathLike

UNKNOWN, MALE, FEMALE = 0, 1, 2
_CODES = {"1": MALE, "M": MALE, "MALE": MALE, "2": FEMALE, "F": FEMALE, "FEMALE": FEMALE}
_NONE = frozenset({"0", "", "NA", "NAN", "U", "UNKNOWN", "-9"})


def sex_codes(texts: Iterable[str]) -> np.ndarray:
    """int8 (n,): 1 or M is male, 2 or F female, and anything else unknown, as PLINK has it."""
    return np.array([_CODES.get(text.upper(), UNKNOWN) for text in texts], dtype=np.int8)


def read_sexes(path: PathLike, ids: Sequence[SampleId]) -> np.ndarray:
    """int8 (n,): the sex of the samples ``ids``, from a table FID IID SEX or IID SEX; unknown where it has none.

    Further columns are not read. Raises InputError, naming the line, for what is no sex and for a sample that occurs
    twice; for a table that has none of the samples; StorageError for an unreadable file.
    """
    table = SampleTable(path, known=ids, wanted="SEX")
    found: dict[SampleId, str] = {}
    for number, sample, fields in table:
        text = fields[table.first].upper()
        if text not in _CODES and text not in _NONE:
            raise InputError(
                f"{table.path}, line {number}: {fields[table.first]!r} is no sex: write 1 or M, 2 or F, or 0"
            )
        found[sample] = text
    if not any(sample in found for sample in ids):
        raise InputError(f"{table.path} has none of the genotypes' samples")
    return sex_codes(found.get(sample, "") for sample in ids)

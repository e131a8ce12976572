"""The samples of a .bgen, in an Oxford .sample beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.errors import InputError
from mpgls.study.fam import Samples
from mpgls.study.sample_ids import NO_FAMILY, OncePerSample, SampleId
from mpgls.study.sexes import sex_codes
from mpgls.study.text import TextLines


def read_sample(path: str) -> Samples:
    """FID, IID and sex: columns ID_1, ID_2 and sex of an Oxford .sample, after its two lines of header.

    Raises InputError for another header, a line of less than two fields, or a sample that is there twice; StorageError.
    """
    lines = iter(TextLines(path, remarks=False))
    names = next(lines, (1, ""))[1].split()
    kinds = next(lines, (2, ""))[1].split()
    if names[:1] not in (["ID_1"], ["ID"]) or kinds[:1] != ["0"]:
        raise InputError(f"{path} is not a .sample: its first line begins with ID_1 ID_2, and its second with 0 0")
    both, once, sexes = names[1:2] == ["ID_2"], OncePerSample(path), list[str]()
    lower = [name.lower() for name in names]
    of_sex = lower.index("sex") if "sex" in lower else None
    for number, line in lines:
        fields = line.split()
        if len(fields) < 1 + both:
            raise InputError(f"{path}, line {number} has no ID_2")
        sexes.append("" if of_sex is None or len(fields) <= of_sex else fields[of_sex])
        once.add((fields[0], fields[1]) if both else (NO_FAMILY, fields[0]), number)
    if not once.line_of:
        raise InputError(f"{path} lists no sample")
    return samples_without_trait(list(once.line_of), sexes, path)


def samples_without_trait(ids: list[SampleId], sexes: Sequence[str], path: str, *notes: str) -> Samples:
    """Samples of a file that has no phenotype."""
    fid, iid = (np.array(names) for names in zip(*ids, strict=True))
    missing = np.full(len(ids), np.nan)
    return Samples(fid, iid, missing, path, None, notes, "no phenotype", sex_codes(sexes))

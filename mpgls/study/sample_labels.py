"""A label of each sample, such as its family or site: the third column of a table FID IID LABEL."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.errors import InputError
from mpgls.study.tables import PathLike, SampleId, _numbered_lines, show_sample

BY_FAMILY = "fid"
"""In place of a file: the family ID is the label."""


def sample_labels(path: PathLike, ids: Sequence[SampleId]) -> np.ndarray:
    """int64 (len(ids),): samples of the same label have the same number.

    ``path`` is a table whose header begins FID IID NAME (further columns are ignored), or ``fid``. Raises InputError
    for a sample of ``ids`` without a label or with two, naming it, and StorageError for an unreadable file.
    """
    name = str(path)
    labels = [fid for fid, _ in ids] if name == BY_FAMILY else _from_table(name, ids)
    return np.unique(np.array(labels, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)


def _from_table(path: str, ids: Sequence[SampleId]) -> list[str]:
    found: dict[SampleId, str] = {}
    lines = _numbered_lines(path)
    number, line = next(lines, (1, ""))
    if line.removeprefix("#").split()[:2] != ["FID", "IID"] or len(line.split()) < 3:
        raise InputError(f"{path}, line {number}: expected a header 'FID IID NAME', found {line[:60]!r}")
    for number, line in lines:
        fields = line.split()
        if len(fields) < 3:
            raise InputError(f"{path}, line {number}: expected FID, IID and a label, found {line[:60]!r}")
        sample = (fields[0], fields[1])
        if found.setdefault(sample, fields[2]) != fields[2]:
            raise InputError(f"{path}, line {number}: sample {show_sample(sample)} has two labels")
    missing = [sample for sample in ids if found.get(sample, "NA") == "NA"]
    if missing:
        raise InputError(
            f"{path} has no label for {len(missing):,} of {len(ids):,} analysed samples, such as "
            f"{show_sample(missing[0])}"
        )
    return [found[sample] for sample in ids]

"""A label of each sample, such as its family or site: the third column of a table FID IID LABEL."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.errors import InputError
from mpgls.study.sample_ids import NO_FAMILY, SampleId, show_sample
from mpgls.study.tables import SampleTable
from mpgls.study.text import PathLike

BY_FAMILY = "fid"
"""In place of a file: the family ID is the label."""


def sample_labels(path: PathLike, ids: Sequence[SampleId]) -> np.ndarray:
    """int64 (len(ids),): samples of the same label have the same number, as exchangeability blocks need it.

    ``path`` is a table whose header begins FID IID NAME, or IID NAME (further columns are ignored), or ``fid``. The
    samples of FID 0, which is no family, may then change places with one another. Raises InputError for a sample of
    ``ids`` without a label or with two, naming it, and StorageError for an unreadable file.
    """
    name = str(path)
    return _numbered([fid for fid, _ in ids] if name == BY_FAMILY else _from_table(name, ids))


def sample_groups(path: PathLike, ids: Sequence[SampleId]) -> np.ndarray:
    """int64 (len(ids),): samples that must stay together have the same number.

    As `sample_labels`, but each sample of FID 0 is a group of its own: PLINK has 0 where there is no family.
    """
    if str(path) != BY_FAMILY:
        return sample_labels(path, ids)
    return _numbered([iid if fid == NO_FAMILY else (fid,) for fid, iid in ids])


def family_note(path: PathLike, ids: Sequence[SampleId], alone: bool) -> str | None:
    """What the log says of samples of FID 0 where families are groups (``alone``) or blocks; None if there are none."""
    without = sum(fid == NO_FAMILY for fid, _ in ids) if str(path) == BY_FAMILY else 0
    if not without:
        return None
    how = "each is a group of its own" if alone else "they may change places with one another"
    return f"{without:,} of {len(ids):,} samples have FID 0, which is no family: {how}"


def _numbered(labels: Sequence[object]) -> np.ndarray:
    """int64 (len(labels),): the same number for the same label, ascending in the order of the labels as text."""
    number = {label: k for k, label in enumerate(sorted(dict.fromkeys(labels), key=str))}
    return np.array([number[label] for label in labels], dtype=np.int64)


def _from_table(path: str, ids: Sequence[SampleId]) -> list[str]:
    table = SampleTable(path, known=ids, who=None, wanted="NAME")
    found: dict[SampleId, str] = {}
    for number, sample, fields in table:
        if found.setdefault(sample, fields[table.first]) != fields[table.first]:
            raise InputError(f"{path}, line {number}: sample {show_sample(sample)} has two labels")
    missing = [sample for sample in ids if found.get(sample, "NA") in ("NA", "")]
    if missing:
        raise InputError(
            f"{path} has no label for {len(missing):,} of {len(ids):,} analysed samples, such as "
            f"{show_sample(missing[0])}"
        )
    return [found[sample] for sample in ids]

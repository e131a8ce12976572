"""Who is who: samples by FID and IID, in lists of them and in the first columns of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mpgls.errors import InputError
from mpgls.study.text import PathLike, TextRows

SampleId = tuple[str, str]
NO_FAMILY = "0"
"""The FID of a sample without family, as PLINK has it: two samples with it are of no common family."""
FAMILIES_TAKEN = "all have FID 0: FID is that of the genotypes' sample with the same IID"
"""What the log says of IDs that `with_families` changed."""


@dataclass(frozen=True)
class IdList:
    """The samples of a list in its order, repetitions included, and what the log says of the file."""

    path: str
    ids: list[SampleId] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for the log."""
        return "; ".join([f"{self.path}: {len(self.ids):,} samples listed", *self.notes])


class SampleColumns:
    """Where the lines of a file have FID and IID. ``first`` is the column after them; ``note`` says what was done.

    ``header`` begins with FID and IID, or with IID alone: the FID is then that of the sample of ``known`` that has this
    IID, and 0 where there is none. Messages call a line a ``row``. Raises InputError for another header.
    """

    def __init__(
        self, path: str, header: Sequence[str], line: int, known: Sequence[SampleId] | None = None, row: str = "line"
    ) -> None:
        self._path, self._alone, self._row = path, header[0] == "IID", row
        if (self._alone and "FID" in header) or (not self._alone and list(header[:2]) != ["FID", "IID"]):
            raise InputError(
                f"{path}, line {line}: the header must begin with FID and IID, or with IID where there is no FID; "
                f"it begins with {' '.join(header[:3])}"
            )
        self.first = 1 if self._alone else 2
        self._families: dict[str, str | None] = {}
        if self._alone:
            for fid, iid in known or ():
                self._families[iid] = None if self._families.get(iid, fid) != fid else fid
            of_known = "that of the genotypes' sample with the same IID" if known else NO_FAMILY
            self.note = f"no column FID: FID is {of_known}"
        else:
            self.note = "columns FID and IID"

    def sample(self, number: int, fields: Sequence[str]) -> SampleId:
        """The sample of line ``number``. Raises InputError for an ID that is empty, has a blank or several families."""
        fid, iid = (NO_FAMILY, fields[0]) if self._alone else (fields[0], fields[1])
        if not fid or not iid:
            raise InputError(f"{self._path}, {self._row} {number}: the FID or the IID is empty")
        if " " in fid or " " in iid:
            wrong = iid if " " in iid else fid
            raise InputError(
                f"{self._path}, {self._row} {number}: the ID {wrong!r} has a blank in it, which no .fam can have"
            )
        if not self._alone:
            return fid, iid
        family = self._families.get(iid, NO_FAMILY)
        if family is None:
            raise InputError(
                f"{self._path}, {self._row} {number}: the file has no FID, and several families of the genotypes "
                f"have an IID {iid!r}: add a column FID"
            )
        return family, iid


def read_ids(path: PathLike, known: Sequence[SampleId] | None = None, remarks: bool = True) -> IdList:
    """The samples of a list, one a line: FID and IID, or IID alone. Further fields are not used, so a .fam will do.

    A header begins with #FID, #IID, FID or IID. Without one, lines of a single field are IIDs. ``known`` are samples
    that give an IID its FID. Repetitions are kept: they are harmless in a list to keep or remove, and `index_ids`
    refuses them where they are not. Without ``remarks`` every line but a header is a sample.

    Raises InputError for a line with another number of fields than the first, and StorageError for an unreadable file.
    """
    rows = TextRows(path, least=2, remarks=remarks)
    header = rows.header or (["FID", "IID"] if rows.width != 1 else ["IID"])
    columns = SampleColumns(rows.path, header, rows.line, known)
    ids = [columns.sample(number, fields) for number, fields in rows]
    notes = (("header: " if rows.header else "no header: ") + columns.note, *rows.lines.notes)
    return IdList(rows.path, ids, notes)


@dataclass(frozen=True)
class SampleFilter:
    """The lists of samples to keep and to remove; None where there is none."""

    keep: IdList | None = None
    remove: IdList | None = None

    @classmethod
    def read(cls, keep: PathLike | None, remove: PathLike | None, known: Sequence[SampleId]) -> SampleFilter:
        """Read the files ``keep`` and ``remove``; ``known`` and what is raised are as in `read_ids`."""
        return cls(*(None if path is None else read_ids(path, known) for path in (keep, remove)))

    def summaries(self) -> list[str]:
        """A line for the log of each list."""
        return [one.summary for one in (self.keep, self.remove) if one is not None]

    def rows(self, ids: Sequence[SampleId], dropped: Sequence[SampleId] = ()) -> np.ndarray:
        """int64, ascending: where in ``ids`` the samples are that the lists leave and that are not ``dropped``."""
        keep = None if self.keep is None else set(self.keep.ids)
        drop = set(dropped) if self.remove is None else {*self.remove.ids, *dropped}
        left = [k for k, sample in enumerate(ids) if (keep is None or sample in keep) and sample not in drop]
        return np.array(left, dtype=np.int64)


def with_families(ids: Sequence[SampleId], known: Sequence[SampleId]) -> list[SampleId]:
    """``ids`` with the FIDs of ``known`` where all of theirs are 0, as in a file that was made of people without FID.

    An IID that ``known`` lacks, or has in several families, keeps FID 0.
    """
    if any(fid != NO_FAMILY for fid, _ in ids):
        return list(ids)
    families: dict[str, str] = {}
    for fid, iid in known:
        families[iid] = fid if families.get(iid, fid) == fid else NO_FAMILY
    return [(families.get(iid, NO_FAMILY), iid) for _, iid in ids]


def index_ids(ids: Sequence[SampleId], source: str) -> dict[SampleId, int]:
    """Position of each (FID, IID) in ``ids``; InputError, naming ``source``, if a sample occurs twice."""
    index = {sample: position for position, sample in enumerate(ids)}
    if len(index) < len(ids):
        first: dict[SampleId, int] = {}
        for position, sample in enumerate(ids):
            if sample in first:
                raise InputError(
                    f"{source} lists sample {show_sample(sample)} twice "
                    f"(entries {first[sample] + 1} and {position + 1})"
                )
            first[sample] = position
    return index


def show_sample(sample: SampleId) -> str:
    """A sample as messages show it: its FID and IID in quotes."""
    return f"'{sample[0]} {sample[1]}'"


class OncePerSample:
    """Remembers the line of each sample. Raises InputError, naming both lines, for a second one."""

    def __init__(self, path: PathLike, who: str = "sample") -> None:
        self._path, self._who = os.fspath(path), who
        self.line_of: dict[SampleId, int] = {}

    def add(self, sample: SampleId, number: int) -> None:
        """Sample ``sample`` stands in line ``number``."""
        if self.line_of.setdefault(sample, number) != number:
            raise InputError(
                f"{self._path}: {self._who} {show_sample(sample)} occurs twice, in lines {self.line_of[sample]} and "
                f"{number}"
            )

"""The samples of a PLINK .fam, and its phenotype, which is only looked at where it is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mpgls.errors import InputError
from mpgls.study.missing import USUAL, codes_note, is_case_control, take_codes
from mpgls.study.sample_ids import SampleColumns, SampleId
from mpgls.study.sexes import sex_codes
from mpgls.study.text import PathLike, TextRows

_MISSING = frozenset({"na", "nan"})
_NOT_PHENOTYPES = frozenset({"FID", "IID", "SID", "PAT", "MAT", "SEX"})
_COLUMNS = ("FID", "IID", "PAT", "MAT", "SEX", "PHENO1")


@dataclass(frozen=True, eq=False)
class Samples:
    """The n samples of a .fam, in its order.

    ``column`` (n,) float64 is the phenotype, NaN where it is missing, and ``fault`` what is wrong with it, if anything
    is; ``notes`` say how the file was understood and ``phenotype_note`` how its phenotype was.
    """

    fid: np.ndarray
    """(n,) str: family."""
    iid: np.ndarray
    """(n,) str: individual within the family."""
    column: np.ndarray
    path: str = ""
    fault: str | None = None
    notes: tuple[str, ...] = ()
    phenotype_note: str = ""
    sex: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int8))
    """(n,) int8: 1 male, 2 female, 0 unknown."""

    def ids(self) -> list[SampleId]:
        """(FID, IID) of every sample."""
        return list(zip(self.fid.tolist(), self.iid.tolist(), strict=True))

    @property
    def phenotype(self) -> np.ndarray:
        """(n,) float64: the sixth column, NaN where it is missing. Raises InputError where it holds text."""
        if self.fault is not None:
            raise InputError(self.fault)
        return self.column

    @property
    def summary(self) -> str:
        """One line for the log: how the file was understood, its phenotype apart."""
        return "; ".join([f"{self.path}: {self.iid.size:,} samples", *self.notes])


def read_fam(path: PathLike, missing_codes: Sequence[float] = ()) -> Samples:
    """Read a .fam; columns after the sixth, where GEMMA keeps more phenotypes, are left out.

    A first line that begins with #FID, #IID, FID or IID is a header, as PLINK 2 knows it: the phenotype is then the
    first column that is none of FID, IID, SID, PAT, MAT and SEX, if there is one.

    -9, NA and nan are missing phenotypes, and so are the numbers ``missing_codes``. A column that has 2s and nothing
    but 1, 2, 0 and -9 is case/control, as PLINK has it: 0 is missing there.

    Raises
    ------
    StorageError : the file cannot be read.
    InputError : no sample, a line of less than six fields or of another number than the first, a sample listed twice
        (with both lines). Text as phenotype is raised by `Samples.phenotype`, so where it is used.
    """
    rows = TextRows(path, least=len(_COLUMNS), remarks=False)
    header = rows.header or _COLUMNS
    if rows.header is None and 0 < rows.width < len(_COLUMNS):
        raise InputError(f"{rows.path}, line {rows.line} has {rows.width} fields, not 6 or more")
    columns = SampleColumns(rows.path, header, rows.line)
    at = next((k for k, name in enumerate(header) if name not in _NOT_PHENOTYPES), None)
    phenotype = _Phenotype(rows.path, header, at)
    sex_at, sexes = (header.index("SEX") if "SEX" in header else None), []
    line_of: dict[SampleId, int] = {}
    for number, fields in rows:
        sample = columns.sample(number, fields)
        if line_of.setdefault(sample, number) != number:
            raise InputError(
                f"{rows.path} lists sample {sample[0]} {sample[1]} twice, on lines {line_of[sample]} and {number}"
            )
        phenotype.add(number, fields)
        sexes.append("" if sex_at is None else fields[sex_at])
    if not line_of:
        raise InputError(f"{rows.path} lists no sample")
    fid, iid = zip(*line_of, strict=True)
    values, note = phenotype.finish(missing_codes)
    notes = ((f"header: {columns.note}",) if rows.header else ()) + rows.lines.notes
    return Samples(np.array(fid), np.array(iid), values, rows.path, phenotype.fault, notes, note, sex_codes(sexes))


@dataclass
class _Phenotype:
    """Gathers the column ``at`` of a .fam (None: there is none); ``fault`` is the first value that is no number."""

    path: str
    header: Sequence[str]
    at: int | None
    values: list[float] = field(default_factory=list)
    fault: str | None = None

    def add(self, number: int, fields: Sequence[str]) -> None:
        text = "nan" if self.at is None else fields[self.at]
        value = _number(text)
        if value is None and self.fault is None:
            self.fault = (
                f"{self.path}, line {number}: the phenotype (column {(self.at or 0) + 1}) is {text!r}, not a number"
            )
        self.values.append(math.nan if value is None else value)

    def finish(self, missing_codes: Sequence[float]) -> tuple[np.ndarray, str]:
        """The values, NaN where they are missing, and what the log says of them."""
        values = np.array(self.values)
        if self.at is None or self.fault is not None:
            return values, "no phenotype" if self.fault is None else "its phenotype holds text"
        coded = take_codes(values, missing_codes)
        kind = "phenotype: numbers"
        if is_case_control(values):
            zeros = take_codes(values, [0.0])
            kind = f"phenotype: case/control, {int((values == 2).sum()):,} of 2, {int((values == 1).sum()):,} of 1"
            kind += f", and {zeros:,} of 0, which are missing" if zeros else ""
        usual = take_codes(values, [USUAL])
        missing = int(np.isnan(values).sum())
        kind += f"; {missing:,} missing" + (f", {usual:,} of them -9" if usual else "")
        return values, "; ".join([kind, *([codes_note(coded, missing_codes)] if missing_codes else [])])


def _number(text: str) -> float | None:
    """The finite number that ``text`` spells, NaN where it says that it is missing, None where it is neither."""
    try:
        value = float(text)
    except ValueError:
        return math.nan if text.lower() in _MISSING else None
    if math.isfinite(value) and "_" not in text:
        return value
    return math.nan if text.lower() in _MISSING else None

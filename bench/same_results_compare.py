"""How ``same_results.py`` reads tables and decides whether two of them say the same.

Rules for a number, the first that holds; which one it was is counted:

- ``identical``: the same number, or missing in both;
- ``relative``: apart by at most the tolerance (1e-12) of the larger of the two;
- ``last digit``: apart by at most one unit of the last digit that is kept, where that is coarser than the tolerance: P
  and MIN_P have 11 digits, EAF has 10, a float32 has 24 bits;
- ``column``: apart by at most a tenth of the tolerance of the largest magnitude in the column (of HDF5 and images: in
  the dataset), because a value far below it is what two larger ones have left of each other. Not for p values.

Columns whose recorded cells are not all numbers, or all whole numbers, are compared exactly as text. Whole numbers of
HDF5, images and manifests are compared exactly, too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from same_results_inputs import read_nifti

MISSING = ("NA", "nan", "NaN", "")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf", re.ASCII)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
P_VALUES = re.compile(r"(.*[_.])?P|P_.*|MIN_P|FWE_P_.*")
DIGITS = {"P": 11, "MIN_P": 11, "EAF": 10}
"""Significant digits of the columns that are written with fewer than the tolerance asks for."""
TABLES = (".tsv", ".txt", ".fam", ".bim", ".id")
STORES = ("mpgls-results", "mpgls-dense", "mpgls-low-rank-counts", "mpgls-gram", "mpgls-low-rank-nulls")
"""Formats of HDF5 files that a later version may lay out anew; their numbers are in the tables made from them."""
LAYOUT = (
    "version",
    "block",
    "strip",
    "format",
    "fingerprint",
    "made_from",
    "kinship",
    "mask",
    "solver",
    "bfile",
    "bim_rows",
    "token",
)
NOT_RESULTS = frozenset({
    "command_line", "ranks", "nodes", "threads", "gemm_gflops", "versions", "memory", "timings", "seconds", "plan",
    "inputs", "fingerprint", "made_from", "files", "gflop_per_permutation", "evaluations_single", "evaluations_double",
    "seconds_unnamed",
    # measured rounding errors
    "residual", "orthogonality", "mixed_check_beta", "mixed_check_se",
})  # fmt: skip
"""Keys of a manifest that say how a run went, not what it found."""


@dataclass
class Column:
    """Values of one name: ``numbers``, or ``text``. ``digits``: significant digits that are kept, 0: all."""

    numbers: np.ndarray | None = None
    text: list[str] | None = None
    digits: int = 0
    p_values: bool = False

    @property
    def size(self) -> int:
        return len(self.text or []) if self.numbers is None else int(self.numbers.size)


@dataclass
class Verdict:
    """What comparisons found: how many values by rule, the worst of each, and sentences about what differs."""

    tables: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    different: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def differs(self, where: str, detail: str) -> None:
        """Note a difference: ``where`` once in the list, the detail for people."""
        if where not in self.different:
            self.different.append(where)
        self.details.append(f"{where}: {detail}")

    def count(self, rule: str, apart: np.ndarray) -> None:
        """Values that ``rule`` passed, and how far ``apart`` they are in its measure."""
        if apart.size:
            self.rules[rule] += apart.size
            self.worst[rule] = max(self.worst.get(rule, 0.0), float(apart.max()))


# -- reading ------------------------------------------------------------------------------------------------------


def is_table(path: Path) -> bool:
    """Whether a file has numbers that are compared; stores and stages have not, nor plots and logs."""
    if path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            return file.attrs.get("format") not in STORES
    return path.name.endswith((*TABLES, ".json", ".nii.gz", ".bin", ".bed"))


def read(path: Path) -> dict[str, Column]:
    """The columns of a table, the datasets of an HDF5 file, the numbers of an image, the leaves of a manifest."""
    if path.suffix == ".h5":
        return dict(_hdf5(path))
    if path.name.endswith(".nii.gz"):
        return {name: _array(values) for name, values in read_nifti(path).items()}
    if path.suffix == ".bin":
        return {"values": _array(np.fromfile(path, dtype="<f4"))}
    if path.suffix == ".json":
        facts = json.loads(path.read_text(encoding="utf-8"))
        return dict(_leaves("", facts, NOT_RESULTS if "command" in facts else frozenset()))  # a plan has no command
    if path.suffix == ".bed":
        return {"bytes": _array(np.fromfile(path, dtype=np.uint8))}
    return _table(path)


def _table(path: Path) -> dict[str, Column]:
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix != ".tsv":  # no header
        lines = [[str(k) for k in range(len(lines[0]))], *lines] if lines else []
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    return {name: _column(name, [row[k] for row in rows]) for k, name in enumerate(header)}


def _column(name: str, cells: list[str]) -> Column:
    given = [cell for cell in cells if cell not in MISSING]
    if all(WHOLE.fullmatch(cell) for cell in given) or not all(NUMBER.fullmatch(cell) for cell in given):
        return Column(text=cells)
    # longdouble: P goes down to 1e-4932
    numbers = np.array([np.longdouble("nan" if cell in MISSING else cell) for cell in cells], dtype=np.longdouble)
    return Column(numbers, digits=DIGITS.get(name, 0), p_values=P_VALUES.fullmatch(name) is not None)


def _array(values: np.ndarray) -> Column:
    values = np.asarray(values)
    if values.dtype.kind in "OSU":
        return Column(text=[v.decode() if isinstance(v, bytes) else str(v) for v in values.ravel()])
    return Column(values, digits=7 if values.dtype == np.float32 else 0)


def _hdf5(path: Path) -> Iterator[tuple[str, Column]]:
    with h5py.File(path, "r") as file:
        objects: list[tuple[str, Any]] = [("", file)]
        file.visititems(lambda name, item: objects.append((name, item)))
        for name, item in objects:
            for key, value in item.attrs.items():
                if key not in LAYOUT:
                    yield f"{name}@{key}", _array(value)
            if isinstance(item, h5py.Dataset) and name != "token":
                for part, values in _fields(item[()]):
                    yield name + part, _array(values)


def _fields(values: Any) -> Iterator[tuple[str, np.ndarray]]:
    values = np.asarray(values)
    if values.dtype.names is None:
        yield "", values
    else:
        yield from ((f".{name}", values[name]) for name in values.dtype.names)


def _leaves(at: str, value: Any, skipped: frozenset[str]) -> Iterator[tuple[str, Column]]:
    """Numbers and texts of JSON, each by its way there, without the keys ``skipped``."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key not in skipped:
                yield from _leaves(f"{at}/{key}", below, skipped)
    elif isinstance(value, list):
        for k, below in enumerate(value):
            yield from _leaves(f"{at}/{k}", below, skipped)
    elif isinstance(value, float):
        yield at, _array(np.array([value]))
    else:
        yield at, Column(text=[json.dumps(value)])


# -- comparing ----------------------------------------------------------------------------------------------------


def compare_files(where: str, old: Path, new: Path, tolerance: float, bytewise: bool, verdict: Verdict) -> None:
    """Compare one file with what was recorded. What a later version adds is no difference; what is gone is one."""
    verdict.tables += 1
    if bytewise and old.read_bytes() != new.read_bytes():
        verdict.differs(where, "the bytes differ")
    recorded, found = read(old), read(new)
    for name, column in recorded.items():
        if name in found:
            compare_columns(f"{where}: {name}", column, _like(column, found[name]), tolerance, verdict)
        else:
            verdict.differs(f"{where}: {name}", "is gone")


def _like(old: Column, new: Column) -> Column:
    """``new`` as text if ``old`` is: only what was recorded decides how a column is read."""
    if old.text is None or new.text is not None or new.numbers is None:
        return new
    return Column(text=[repr(float(v)) for v in new.numbers.ravel()])


def compare_columns(where: str, old: Column, new: Column, tolerance: float, verdict: Verdict) -> None:
    """Compare the values of one name."""
    if old.text is not None or old.numbers is None:
        _compare_text(where, old.text or [], new.text or [], verdict)
        return
    if new.numbers is None or old.numbers.shape != new.numbers.shape:
        verdict.differs(where, f"{_shape(old)} values recorded, {_shape(new)} now")
        return
    a, b = (np.atleast_1d(x).astype(np.longdouble).ravel() for x in (old.numbers, new.numbers))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    verdict.count("identical", np.zeros(int(same.sum())))
    rest = np.flatnonzero(~same)
    if rest.size == 0:
        return
    finite = np.isfinite(a[rest]) & np.isfinite(b[rest])
    apart = np.where(finite, abs(a[rest] - b[rest]), np.inf)
    larger = np.maximum(abs(a[rest]), abs(b[rest]))
    relative = np.where(finite, apart / np.where(finite, larger, 1), 1)  # a number that is missing is wholly different
    whole = old.numbers.dtype.kind in "iub"
    left = np.ones(rest.size, bool)
    if not whole:
        left = _pass(verdict, "relative", relative, relative <= tolerance, left)
    if old.digits:
        left = _pass(verdict, "last digit", relative, apart <= 1.001 * last_digit(larger, old), left)
    largest = abs(a[np.isfinite(a)]).max(initial=0)
    if not (whole or old.p_values) and largest > 0:
        left = _pass(verdict, "column", apart / largest, apart <= 0.1 * tolerance * largest, left)
    if left.any():
        verdict.count("different", relative[left])
        worst = rest[left][relative[left].argmax()]
        told = f"{left.sum():,} of {a.size:,} values, up to {float(relative[left].max()):.3g} relative"
        verdict.differs(where, f"{told}; element {worst} was {a[worst]!s} and is {b[worst]!s}")


def last_digit(magnitude: np.ndarray, column: Column) -> np.ndarray:
    """One unit of the last digit that ``column`` keeps of such numbers."""
    if column.numbers is not None and column.numbers.dtype == np.float32:
        return np.spacing(magnitude.astype(np.float32)).astype(np.longdouble)
    exponent = np.floor(np.log10(np.where(magnitude > 0, magnitude, 1)))
    return np.longdouble(10) ** (exponent - column.digits + 1)


def _pass(verdict: Verdict, rule: str, apart: np.ndarray, good: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Count the values that are ``left`` and ``good`` under ``rule``; returns those that are left after it."""
    verdict.count(rule, apart[left & good])
    return left & ~good


def _compare_text(where: str, old: list[str], new: list[str], verdict: Verdict) -> None:
    if len(old) != len(new):
        verdict.differs(where, f"{len(old):,} values recorded, {len(new):,} now")
        return
    wrong = [k for k, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    verdict.rules["identical"] += len(old) - len(wrong)
    if wrong:
        verdict.rules["different"] += len(wrong)
        verdict.differs(
            where, f"{len(wrong):,} of {len(old):,} texts: {old[wrong[0]]!r} was recorded, now {new[wrong[0]]!r}"
        )


def _shape(column: Column) -> str:
    return str(np.shape(column.numbers)) if column.numbers is not None else f"{column.size:,} texts of"

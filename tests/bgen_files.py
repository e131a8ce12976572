"""BGEN files for tests, written by the package bgen; nothing of mpgls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

NEEDS_BGEN = "the package bgen is not installed, which writes the files of these tests"


def probabilities(second: np.ndarray) -> np.ndarray:
    """P(no copy, one, two) of the second allele for dosages (n,), NaN where missing: two neighbouring numbers share."""
    known = np.nan_to_num(second)
    one = np.where(known <= 1, known, 2 - known)
    two = np.where(known <= 1, 0, known - 1)
    made = np.column_stack([1 - one - two, one, two])
    made[np.isnan(second)] = np.nan
    return made


def write_bgen(
    path: str | Path,
    bim: Sequence[str],
    fam: Sequence[str],
    second: np.ndarray,
    bits: int = 8,
    packed: str | None = "zlib",
) -> None:
    """A .bgen of the lines of a .bim, whose A1 becomes the second allele, with dosages (n, m) of it, and a .sample."""
    bgen = pytest.importorskip("bgen", reason=NEEDS_BGEN)
    with bgen.BgenWriter(str(path), second.shape[0], compression=packed) as writer:
        for line, column in zip(bim, second.T, strict=True):
            chrom, name, _, pos, a1, a2 = line.split()
            writer.add_variant("", name, chrom, int(pos), [a2, a1], probabilities(column), bit_depth=bits)
    people = [" ".join([*line.split()[:2], "0", line.split()[4]]) for line in fam]
    Path(path).with_suffix(".sample").write_text("\n".join(["ID_1 ID_2 missing sex", "0 0 0 D", *people]) + "\n")
    Path(f"{path}.bgi").unlink(missing_ok=True)

"""PLINK 2 files for tests, written by pgenlib; nothing of mpgls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

NEEDS_PGENLIB = "pgenlib is not installed: pip install 'mpgls[pgen]'"


def write_pgen(
    prefix: str | Path, bim: Sequence[str], fam: Sequence[str], alt: np.ndarray, exact: bool = True, step: int = 3
) -> None:
    """``prefix``.pgen, .pvar and .psam of the lines of a .bim and a .fam, whose A1 becomes ALT.

    ``alt`` (n, m) are copies or dosages of ALT, NaN where missing; unless ``exact``, every ``step``-th SNP is written
    with dosages and the others with hard calls.
    """
    pgenlib = pytest.importorskip("pgenlib", reason=NEEDS_PGENLIB)
    n, m = alt.shape
    name = str(prefix).encode()
    with pgenlib.PgenWriter(name + b".pgen", n, variant_ct=m, nonref_flags=False, dosage_present=not exact) as writer:
        for k, column in enumerate(alt.T):
            if exact or k % step:
                writer.append_biallelic(np.nan_to_num(column, nan=-9).astype(np.int8))
            else:
                writer.append_dosages(np.nan_to_num(column, nan=-9).astype(np.float32))
    rows = [line.split() for line in bim]
    table = ["##fileformat=VCFv4.2", "##source=a test", "#CHROM\tPOS\tID\tREF\tALT\tINFO"]
    table += ["\t".join([row[0], row[3], row[1], row[5], row[4], "PR"]) for row in rows]
    Path(f"{prefix}.pvar").write_text("\n".join(table) + "\n")
    people = ["\t".join(line.split()[:2] + line.split()[4:6]) for line in fam]
    Path(f"{prefix}.psam").write_text("\n".join(["#FID\tIID\tSEX\tPHENO1", *people]) + "\n")

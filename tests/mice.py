"""The mice of GEMMA's example, and what GEMMA and FaST-LMM make of them (see tests/data/README.md)."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ranks import FEW

from mpgls.run.launcher import launched_size

PLACES = (Path("/usr/share/doc/gemma/example"), Path(__file__).resolve().parents[1] / ".mice")
"""Of Debian's package gemma-doc, and of jobs/mouse_data.py."""
EXAMPLE = next((place for place in PLACES if (place / "mouse_hs1940.bed.gz").exists()), PLACES[-1])
DATA = Path(__file__).resolve().parent / "data"

"""Real data show whether the numbers are right; what more ranks change is shown on small data."""
needs_mice = pytest.mark.skipif(
    launched_size() > FEW or not (EXAMPLE / "mouse_hs1940.bed.gz").exists(),
    reason=f"more than {FEW} ranks, or the mouse data are not here: python3 jobs/mouse_data.py",
)
"""Real data show whether the numbers are right; what more ranks change is shown on small data."""


def unpack_mice(prefix: str | Path) -> None:
    """The PLINK files of all mice; the trait of the .fam is CD8."""
    for suffix in ("bed", "bim", "fam"):
        packed = (EXAMPLE / f"mouse_hs1940.{suffix}.gz").read_bytes()
        Path(f"{prefix}.{suffix}").write_bytes(gzip.decompress(packed))


def write_snps_of_gemma(path: str | Path) -> None:
    """The list of the SNPs that GEMMA makes its kinship of."""
    Path(path).write_bytes(gzip.decompress((DATA / "mouse_gemma_snps.txt.gz").read_bytes()))


def read_reference(name: str) -> dict[str, np.ndarray]:
    """Committed results of FaST-LMM or GEMMA: names of SNPs, chromosomes and alleles as text, the rest as floats."""
    lines = gzip.decompress((DATA / name).read_bytes()).decode().splitlines()
    header, *rows = [line.split("\t") for line in lines]
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    text = ("SNP", "Chr", "CHR", "allele1")
    return {name: np.array(values, dtype=None if name in text else float) for name, values in columns.items()}


def places(snps: np.ndarray, among: np.ndarray) -> list[int]:
    """Where each of ``snps`` stands ``among`` others."""
    where = {name: k for k, name in enumerate(among)}
    return [where[name] for name in snps]

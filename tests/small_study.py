"""Small studies for tests: files written and read with NumPy and h5py only.

Nothing of mpgls reads the files here, so what a test expects never comes from the code that it tests.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DOSAGE_OF_CODE = np.array([2.0, np.nan, 1.0, 0.0])


@dataclass(frozen=True)
class PlinkFiles:
    """A PLINK fileset in memory: ``dosages`` (n, m) copies of A1, NaN where missing."""

    ids: list[tuple[str, str]]
    phenotype: np.ndarray
    snps: np.ndarray
    chromosomes: np.ndarray
    dosages: np.ndarray

    def centred(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Dosages of the samples ``rows`` minus their mean, 0 where missing."""
        part = self.dosages[rows]
        observed = np.isfinite(part)
        total = np.where(observed, part, 0.0).sum(axis=0)
        return np.where(observed, part - total / np.maximum(observed.sum(axis=0), 1), 0.0)

    def frequency(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Frequency of A1 among the observed genotypes of ``rows``."""
        return np.nanmean(self.dosages[rows], axis=0) / 2

    def missing(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Share of missing genotypes of each SNP among ``rows``."""
        return np.isnan(self.dosages[rows]).mean(axis=0)


@dataclass(frozen=True)
class SimulatedStudy:
    """Files of ``mpgls simulate`` in ``folder``: genotypes ``bfile`` and what they hold, traits and covariates."""

    folder: Path
    bfile: str
    pheno: str
    covar: str
    plink: PlinkFiles

    def trait(self, name: str = "trait1") -> np.ndarray:
        return read_table(self.pheno)[name]

    def design(self, covariates: bool = True) -> np.ndarray:
        """X_L: the intercept, and the covariates."""
        extra = list(read_table(self.covar).values()) if covariates else []
        return np.column_stack([np.ones(len(self.plink.ids)), *extra])


def on_root(comm: Any, action: Callable[[], object]) -> None:
    """Let rank 0 change files while the others wait. Collective over ``comm``."""
    comm.Barrier()  # nobody still reads them
    if comm.rank == 0:
        action()
    comm.Barrier()


def read_plink(prefix: str | Path) -> PlinkFiles:
    fam = [line.split() for line in Path(f"{prefix}.fam").read_text().splitlines()]
    bim = [line.split() for line in Path(f"{prefix}.bim").read_text().splitlines()]
    packed = np.fromfile(f"{prefix}.bed", dtype=np.uint8)[3:].reshape(len(bim), -1)
    codes = (packed[:, :, None] >> np.array([0, 2, 4, 6], dtype=np.uint8)) & 3
    dosages = DOSAGE_OF_CODE[codes.reshape(len(bim), -1)[:, : len(fam)].T]
    phenotype = np.array([np.nan if row[5] in ("-9", "NA") else float(row[5]) for row in fam])
    ids = [(row[0], row[1]) for row in fam]
    return PlinkFiles(ids, phenotype, np.array([row[1] for row in bim]), np.array([row[0] for row in bim]), dosages)


def write_genotypes(prefix: str | Path, dosages: np.ndarray) -> None:
    """Replace the genotypes of the fileset ``prefix``: ``dosages`` (n, m), NaN where missing."""
    n, m = dosages.shape
    codes = np.zeros((m, -(-n // 4) * 4), dtype=np.uint8)
    codes[:, :n] = np.where(np.isnan(dosages), 1, np.select([dosages == 2, dosages == 1], [0, 2], 3)).T
    quads = codes.reshape(m, -1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8)
    Path(f"{prefix}.bed").write_bytes(b"\x6c\x1b\x01" + np.bitwise_or.reduce(quads, axis=2).tobytes())


def relabel_chromosomes(prefix: str | Path, labels: Sequence[str]) -> None:
    """Give each SNP of ``prefix.bim`` the chromosome that ``labels`` has for it."""
    rows = [line.split() for line in Path(f"{prefix}.bim").read_text().splitlines()]
    write_lines(f"{prefix}.bim", ["\t".join([label, *row[1:]]) for label, row in zip(labels, rows, strict=True)])


@dataclass(frozen=True)
class SnpsWithoutEstimate:
    """Genotypes of which some SNPs cannot be tested where ``covariate`` is fitted; ``notes`` says why, by SNP."""

    dosages: np.ndarray
    covariate: np.ndarray
    notes: dict[int, str]

    @classmethod
    def among(cls, dosages: np.ndarray) -> SnpsWithoutEstimate:
        """``dosages`` (n, m > 101) with the first, the last and two other SNPs replaced."""
        n, m = dosages.shape
        dosages = dosages.copy()
        dosages[:, 0] = np.nan
        dosages[:, 6] = np.where(np.isnan(dosages[:, 6]), np.nan, 1.0)
        dosages[:, 100] = np.random.default_rng(2).integers(0, 3, n)
        dosages[:, m - 1] = 2.0
        notes = {
            0: "all genotypes missing",
            6: "monomorphic",
            100: "collinear with the covariates",
            m - 1: "monomorphic",
        }
        return cls(dosages, 3 - dosages[:, 100], notes)

    def assert_noted(self, results: dict[str, np.ndarray], columns: Sequence[str]) -> np.ndarray:
        """Only these SNPs have a note and no numbers in ``columns`` of a table; returns which SNPs have an estimate."""
        assert {k: note for k, note in enumerate(results["NOTE"]) if note != "."} == self.notes
        estimated = results["NOTE"] == "."
        for name in columns:
            assert np.isnan(results[name][~estimated]).all() and np.isfinite(results[name][estimated]).all()
        return estimated


def read_table(path: str | Path) -> dict[str, np.ndarray]:
    """A table with header ``FID IID name ...``: one float column for each name, in file order, NaN where it has NA."""
    header, *rows = [line.split() for line in Path(path).read_text().splitlines()]
    return {name: _floats([row[k] for row in rows]) for k, name in enumerate(header) if k > 1}


def _floats(texts: list[str]) -> np.ndarray:
    return np.array([np.nan if text == "NA" else float(text) for text in texts])


def write_table(path: str | Path, ids: list[tuple[str, str]], columns: dict[str, np.ndarray]) -> str:
    """The counterpart of `read_table`; NaN is written as NA. Returns the path."""
    lines = ["\t".join(["FID", "IID", *columns])]
    for k, (fid, iid) in enumerate(ids):
        values = [values[k] for values in columns.values()]
        lines.append("\t".join([fid, iid, *("NA" if np.isnan(v) else repr(float(v)) for v in values)]))
    Path(path).write_text("\n".join(lines) + "\n")
    return str(path)


def write_lines(path: str | Path, lines: list[str] | list[tuple[str, str]]) -> str:
    """One name, or one FID and IID, a line. Returns the path."""
    Path(path).write_text("".join((line if isinstance(line, str) else " ".join(line)) + "\n" for line in lines))
    return str(path)


def read_kinship(path: str | Path) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return np.array(file["kinship"])


def write_kinship(path: str | Path, ids: list[tuple[str, str]], K: np.ndarray) -> str:
    """mpgls HDF5, by h5py alone. Returns the path."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "mpgls-kinship", "version": 1, "method": "centered", "snps": 1})
        file.create_dataset("kinship", data=np.asarray(K, dtype="<f8"))
        for name, column in zip(("fid", "iid"), zip(*ids, strict=True), strict=True):
            file.create_dataset(name, data=list(column), dtype=h5py.string_dtype("utf-8"))
    return str(path)


@contextlib.contextmanager
def unchecked(path: str | Path) -> Iterator[Any]:
    """A kinship or voxel matrix, to be changed by h5py: it then counts as one of the version without checksums."""
    import h5py

    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 1
        yield file


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a tab-separated table, each by column."""
    header, *rows = [line.split("\t") for line in Path(path).read_text().splitlines()]
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_columns(path: str | Path) -> dict[str, list[str]]:
    """The columns of a tab-separated table, as text."""
    header, *rows = [line.split("\t") for line in Path(path).read_text().splitlines()]
    return {name: [row[k] for row in rows] for k, name in enumerate(header)}


def read_results(prefix: str | Path, trait: str) -> dict[str, np.ndarray]:
    """The columns of ``prefix.trait.tsv``: BETA, SE, ... as floats (NaN for NA), ID and NOTE as text."""
    text = ("CHR", "ID", "EA", "NEA", "NOTE")
    columns = read_columns(f"{prefix}.{trait}.tsv")
    return {name: np.array(values) if name in text else _floats(values) for name, values in columns.items()}


def read_facts(prefix: str | Path, trait: str | None = None) -> dict:
    """The manifest of a run, or what it says of one trait."""
    manifest = json.loads(Path(f"{prefix}.json").read_text())
    return manifest if trait is None else manifest["traits"][trait]


def assert_left_alone(prefix: str | Path, again: Callable[[], object]) -> None:
    """``again`` finds the run of ``prefix`` complete: it says so in the log and writes no manifest."""
    manifest = Path(f"{prefix}.json")
    before = manifest.stat().st_mtime_ns
    again()
    assert manifest.stat().st_mtime_ns == before
    assert "nothing is left to do" in Path(f"{prefix}.log").read_text()

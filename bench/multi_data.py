"""What the multi-trait benchmarks share: kinships, eigendecompositions, traits, and whole runs of the program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Finished, mpirun

RANKS = 2
CAUSAL_SHARE = 0.03
"""Share of a trait's variance that its one strong SNP explains; every tenth trait has one."""

SCAN_PHASES = ("read (waiting)", "decode", "rotate SNPs", "scratch", "tiles", "epilogue", "join ranks")
"""The phases of a run that go on for every block of SNPs, and joining what the ranks kept."""

_POLYGENIC = 500
_TRAITS = 1000


class Run(NamedTuple):
    """A finished run: wall seconds of the process, its manifest, and its output."""

    seconds: float
    manifest: dict[str, Any]
    output: str

    def phases(self, names: Sequence[str] = SCAN_PHASES) -> float:
        """Seconds of the named phases, each on the rank that took longest over it."""
        timings = self.manifest["timings"]
        return float(sum(timings[name]["seconds"] for name in names if name in timings))

    @property
    def peak_rss(self) -> float:
        """Bytes of the largest rank."""
        return float(self.manifest["memory"]["peak_rss_max"])


def mpgls(out: Path, command: str, *arguments: str | Path, ranks: int = RANKS) -> Run:
    """Run a command, on two ranks unless told otherwise; ``out`` is the prefix of its results."""
    done: Finished = mpirun(ranks, "-m", "mpgls", command, *arguments, "--out", out)
    return Run(done.seconds, json.loads(Path(f"{out}.json").read_text(encoding="utf-8")), done.output)


def kinship(prefix: Path) -> Path:
    """The kinship of the samples of ``prefix``, made once."""
    out = prefix.with_name(f"{prefix.name}-K")
    if not Path(f"{out}.json").exists():
        mpgls(out, "kinship", "--bfile", prefix)
    return Path(f"{out}.h5")


def eigenbasis(prefix: Path) -> Path:
    """Its eigendecomposition, made once."""
    out = prefix.with_name(f"{prefix.name}-E")
    if not Path(f"{out}.json").exists():
        mpgls(out, "eigen", "--grm", kinship(prefix))
    return Path(f"{out}.h5")


def traits(prefix: Path, count: int) -> Path:
    """An HDF5 file of ``count`` traits over the samples of ``prefix``, made once.

    h2 is uniform between 0.1 and 0.8, over SNPs all along the genome; every tenth trait has one SNP that explains 3%.
    """
    import h5py

    path = prefix.with_name(f"{prefix.name}-T{count}.h5")
    if path.exists():
        return path
    G, ids = _some_genotypes(prefix)
    rng = np.random.default_rng(1)
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as file:
        file.create_dataset("names", data=[f"T{j + 1}" for j in range(count)], dtype=h5py.string_dtype())
        file.create_dataset("samples", data=np.array(ids, dtype=object), dtype=h5py.string_dtype())
        values = file.create_dataset("traits", (count, len(ids)), dtype=np.float32)
        for start in range(0, count, _TRAITS):
            t = min(_TRAITS, count - start)
            h2 = rng.uniform(0.1, 0.8, (t, 1))
            Y = np.sqrt(h2 / len(G)) * (rng.standard_normal((t, len(G))) @ G)
            Y += np.sqrt(1.0 - h2) * rng.standard_normal(Y.shape)
            Y[::10] += np.sqrt(CAUSAL_SHARE) * G[rng.integers(0, len(G), len(Y[::10]))]
            values[start : start + t] = Y
    part.rename(path)
    return path


def _some_genotypes(prefix: Path) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Standardised dosages (k, n) of SNPs spread over all, and the samples' IDs."""
    from mpgls.study.genotypes import Decoder
    from mpgls.study.plink import open_fileset

    fileset = open_fileset(str(prefix))
    bed = fileset.bed
    which = np.linspace(0, bed.m - 1, min(_POLYGENIC, bed.m)).astype(np.int64)
    packed = np.memmap(bed.path, dtype=np.uint8, mode="r", offset=bed.HEADER, shape=(bed.m, bed.snp_bytes))[which]
    X = np.empty((bed.n, which.size), order="F")
    stats = Decoder(bed.n, [np.arange(bed.n)], np.float64).decode(packed, [X])
    varies = stats.variance > 0
    return np.ascontiguousarray((X[:, varies] / np.sqrt(stats.variance[varies])).T), fileset.samples.ids()

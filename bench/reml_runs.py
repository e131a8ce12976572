"""REML of ``mpgls single-trait``, whole runs: its float64 factorisations against GEMM on the same ranks.

The kinship is that of all simulated SNPs, made once. A run tests the SNPs of one small chromosome only, so it is little
more than its null model. Operations, seconds and the number of factorisations come from the run's own manifest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mpgls
from mpgls.mpi import on_root

if TYPE_CHECKING:
    from mpi4py import MPI
    from streamed_scan import GemmRate

CHROMOSOME = "22"
PHASE = "REML, double"


@dataclass
class RemlRuns:
    """Runs on the ranks of ``comm`` with the simulated data of ``prefix``, in turns with products of ``gemm``."""

    comm: MPI.Comm
    prefix: Path
    gemm: GemmRate
    shares: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    factorisations: list[int] = field(default_factory=list)

    def make_kinship(self) -> None:
        """The kinship, if it is not there. Collective."""
        out = self.file("kinship")
        if not on_root(self.comm, lambda: Path(f"{out}.h5").exists()):
            mpgls.kinship(bfile=self.prefix, out=out, comm=self.comm)

    def file(self, name: str) -> Path:
        """A prefix of a run beside the data."""
        return Path(f"{self.prefix}.{name}")

    def measure(self) -> None:
        """GEMM, a run, GEMM. Collective."""
        before = self.gemm.measure()
        run = mpgls.single_trait(
            bfile=self.prefix, grm=f"{self.file('kinship')}.h5", chr=CHROMOSOME, no_plots=True,
            out=self.file(f"reml-{self.comm.size}"), comm=self.comm,
        )  # fmt: skip
        phase = on_root(self.comm, lambda: run.manifest["timings"][PHASE])
        after = self.gemm.measure()
        self.rates.append(phase["gflop"] / phase["seconds"])
        self.shares.append(2 * self.rates[-1] / (before + after))
        self.factorisations.append(on_root(self.comm, lambda: _factorisations(run.manifest)))

    def figures(self) -> dict[str, Any]:
        """The keys of the JSON: medians of the runs; the rate in GFLOP/s is that of all ranks."""
        return {
            "reml_share_double": float(np.median(self.shares)),
            "reml_gflops_double": float(np.median(self.rates)),
            "reml_factorisations_double": max(self.factorisations),
        }


def _factorisations(manifest: dict[str, Any]) -> int:
    """In float64, of the one trait."""
    (trait,) = manifest["traits"].values()
    return int(trait["evaluations_double"])

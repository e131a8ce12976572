"""Whole commands of mpgls for the strong-scaling benchmark: the seconds of their long phases, from the manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mpgls
from mpgls.mpi import on_root

if TYPE_CHECKING:
    from mpi4py import MPI

PHASES = {
    "kinship": ("kinship", ("decode", "product")),
    "reml": ("single-trait", ("REML, single", "REML, double")),
    "eigen": ("eigen", ("eigendecomposition",)),
    "tiles": ("multi-trait", ("rotate SNPs", "tiles", "epilogue")),
}
"""What is measured: the command, and its phases that are counted together."""


def measure_commands(comm: MPI.Comm, scratch: Path, n: int, m: int, traits: int) -> dict[str, float]:
    """Seconds of each of PHASES on the slowest rank, for n samples, m SNPs and ``traits`` (of REML: one). Collective.

    The data are made once, on the ranks that there are.
    """
    study = scratch / f"scaling-{n}x{m}x{traits}"
    if not on_root(comm, lambda: Path(f"{study}.bed").exists()):
        mpgls.simulate(samples=n, snps=m, traits=traits, out=study, comm=comm)
    out = {name: scratch / f"scaling-{name}-{comm.size}" for name, _ in PHASES.values()}
    data: dict[str, Any] = {"bfile": study, "pheno": f"{study}.pheno.tsv", "no_plots": True}
    mpgls.kinship(bfile=study, out=out["kinship"], comm=comm)
    grm = f"{out['kinship']}.h5"
    mpgls.eigen(grm=grm, out=out["eigen"], comm=comm)
    mpgls.single_trait(**data, pheno_name=("trait1",), grm=grm, out=out["single-trait"], comm=comm)
    mpgls.multi_trait(**data, eigen=f"{out['eigen']}.h5", out=out["multi-trait"], comm=comm)
    return on_root(comm, lambda: {key: _seconds(out[name], phases) for key, (name, phases) in PHASES.items()})


def _seconds(out: Path, phases: tuple[str, ...]) -> float:
    """Of ``phases`` together, from the manifest of the run with prefix ``out``."""
    timings = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))["timings"]
    return sum(timings[name]["seconds"] for name in phases if name in timings)

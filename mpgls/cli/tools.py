"""Commands around the scans: export, simulate, doctor."""

from __future__ import annotations

import argparse
from typing import Any

from mpgls.cli.options import (
    add_command,
)


def export(commands: Any) -> None:
    """Declare ``mpgls export``."""
    parser = add_command(
        commands,
        "export",
        "one trait of a result store as a table",
        "mpgls export all.h5 --trait CD8 --out cd8",
        _export_config,
    )
    parser.add_argument("store", metavar="STORE", help="PREFIX.h5 of multi-trait --dense or of single-trait")
    parser.add_argument("--trait", nargs="+", default=(), metavar="NAME", help="traits; needed if there are several")
    parser.add_argument("--bfile", metavar="PREFIX", help="PLINK files, if they are no longer where the run found them")
    parser.add_argument("--out", required=True, metavar="PREFIX", help="prefix of the tables")


def _export_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.common.session import RunOptions
    from mpgls.commands.export import ExportConfig

    options = RunOptions(given.out, command_line=("mpgls", *argv))
    return ExportConfig(options, given.store, tuple(given.trait), given.bfile)


def simulate(commands: Any) -> None:
    """Declare ``mpgls simulate``."""
    parser = add_command(
        commands,
        "simulate",
        "PLINK genotypes with families and linkage, and traits with a polygenic background",
        "mpirun -n 4 mpgls simulate --samples 4000 --snps 20000 --seed 1 --out sim",
        _simulate_config,
    )
    parser.add_argument("--samples", type=int, required=True, metavar="N", help="number of samples")
    parser.add_argument("--snps", type=int, required=True, metavar="M", help="number of SNPs")
    parser.add_argument("--out", required=True, metavar="PREFIX", help="prefix of all output files")
    parser.add_argument("--traits", type=int, default=1, metavar="T", help="number of traits (1)")
    parser.add_argument("--h2", type=float, default=0.5, metavar="X", help="heritability of every trait (0.5)")
    parser.add_argument("--chromosomes", type=int, default=22, metavar="C", help="number of chromosomes (22)")
    parser.add_argument(
        "--families", type=int, default=4, metavar="SIZE", help="members of a family, parents first (4)"
    )
    parser.add_argument("--founders", type=int, default=64, metavar="F", help="ancestral haplotypes (64)")
    parser.add_argument("--missing", type=float, default=0.0, metavar="SHARE", help="share of missing genotypes (0)")
    parser.add_argument("--causal", type=int, default=10, metavar="C", help="causal SNPs of each trait (10)")
    parser.add_argument("--causal-share", type=float, default=0.2, metavar="S", help="their share of h2 (0.2)")
    parser.add_argument("--covariates", type=int, default=2, metavar="Q", help="columns of the covariate table (2)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed makes the same bytes (1)")


def _simulate_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.simulate import SimulateConfig

    names = (
        "samples", "snps", "out", "traits", "h2", "chromosomes", "founders", "missing",
        "causal", "causal_share", "covariates", "seed",
    )  # fmt: skip
    return SimulateConfig(family_size=given.families, **{name: getattr(given, name) for name in names})


def doctor(commands: Any) -> None:
    """Declare ``mpgls doctor``."""
    parser = add_command(
        commands,
        "doctor",
        "what this installation consists of, how fast it is, and what is wrong with it",
        "mpirun -n 4 mpgls doctor --directory /scratch --json rates.json",
        _doctor_config,
    )
    parser.add_argument("--directory", default=".", metavar="DIR", help="filesystem whose rates are measured")
    parser.add_argument(
        "--threads", type=int, metavar="T", help="BLAS threads a rank; default: cores / ranks of the node"
    )
    parser.add_argument("--json", metavar="FILE", help="write the same facts as JSON")
    parser.add_argument("--full", action="store_true", help="measure longer, and list every rank")


def _doctor_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.doctor import DoctorConfig

    return DoctorConfig(given.directory, given.threads, given.json, given.full)

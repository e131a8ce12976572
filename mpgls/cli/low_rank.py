"""The low-rank mixed model and its cost model."""

from __future__ import annotations

import argparse
from typing import Any

from mpgls.cli.options import (
    add_command,
    genotype_options,
    model_options,
    pheno_options,
    run_options,
    run_options_of,
    study_options_of,
    team_options,
    team_size,
)


def low_rank(commands: Any) -> None:
    """Declare ``mpgls low-rank``."""
    parser = add_command(
        commands,
        "low-rank",
        "mixed-model scan with a kinship of K similarity SNPs, for up to millions of samples",
        "mpirun -n 4 mpgls low-rank --bfile cohort --pheno traits.tsv --similarity-count 50000 --out lr",
        _low_rank_config,
    )
    genotype_options(parser)
    pheno_options(parser)
    group = parser.add_argument_group("similarity SNPs (one of the first three)")
    group.add_argument("--similarity-snps", metavar="FILE", help="these SNPs (IDs separated by white space)")
    group.add_argument("--similarity-every", type=int, metavar="K", help="every K-th SNP")
    group.add_argument("--similarity-count", type=int, metavar="K", help="K SNPs at equal distances in the .bim")
    group.add_argument(
        "--similarity-bfile", metavar="PREFIX", help="PLINK files that they are taken from; default: --bfile"
    )
    group.add_argument(
        "--no-loco", action="store_true", help="do not leave out the similarity SNPs of a SNP's chromosome"
    )
    model = model_options(parser)
    model.add_argument(
        "--h2-file",
        metavar="FILE",
        help="table with columns TRAIT, CHR (not with --no-loco) and H2; what it does not have is estimated",
    )
    model.add_argument(
        "--form", choices=("auto", "low-rank", "dense"), default="auto",
        help="auto: n x n matrices where there are as many similarity SNPs as samples, otherwise K x K",
    )  # fmt: skip
    run_options(parser)
    parser.add_argument("--stage", type=int, metavar="0|1|2|4", help="compute this stage only; default: all of them")
    team_options(parser)


def _low_rank_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.low_rank_parts.config import LowRankConfig

    names = ("similarity_bfile", "similarity_snps", "similarity_every", "similarity_count", "stage", "h2", "h2_file")
    return LowRankConfig(
        run_options_of(given, argv),
        study_options_of(given),
        **{name: getattr(given, name) for name in (*names, "precision", "test", "form", "block_size")},
        loco=not given.no_loco,
        team_size=team_size(given.team_size),
        plots=not given.no_plots,
    )


def plan(commands: Any) -> None:
    """Declare ``mpgls plan``."""
    parser = add_command(
        commands,
        "plan",
        "what a run would cost in operations, bytes, memory and hours, before it is started",
        "mpgls plan low-rank --samples 1000000 --snps 1000000 --similarity-count 50000 --ranks 64 --rates rates.json",
        _plan_config,
    )
    parser.add_argument("what", choices=("low-rank",), metavar="low-rank", help="the command whose run is planned")
    study = parser.add_argument_group("study")
    study.add_argument("--samples", type=int, required=True, metavar="N", help="number of samples")
    study.add_argument("--snps", type=int, required=True, metavar="M", help="number of tested SNPs")
    study.add_argument("--similarity-count", type=int, required=True, metavar="K", help="number of similarity SNPs")
    study.add_argument("--chromosomes", type=int, default=22, metavar="C", help="chromosomes left out in turn (22)")
    study.add_argument("--traits", type=int, default=1, metavar="T", help="number of traits (1)")
    study.add_argument("--covariates", type=int, default=3, metavar="Q", help="covariates beside the intercept (3)")
    study.add_argument(
        "--precision", choices=("double", "mixed"), default="mixed",
        help="mixed streams the large products and solves in single precision; the default here",
    )  # fmt: skip
    machine = parser.add_argument_group("machine")
    machine.add_argument("--ranks", type=int, required=True, metavar="P", help="number of ranks")
    machine.add_argument("--ranks-per-node", type=int, metavar="R", help="ranks of a node; default: all on one")
    machine.add_argument("--memory", type=float, metavar="GIB", help="memory a rank may use; default: no limit")
    machine.add_argument(
        "--rates",
        metavar="FILE",
        help="rates that mpgls doctor --json FILE measured there; default: measured here, now",
    )
    parser.add_argument("--json", metavar="FILE", help="write the plan as JSON as well")


def _plan_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.plan import PlanConfig
    from mpgls.commands.plan_parts.low_rank import LowRankProblem

    problem = LowRankProblem(
        given.samples, given.snps, given.similarity_count, given.chromosomes, given.traits, given.covariates + 1,
        given.precision == "mixed",
    )  # fmt: skip
    return PlanConfig(problem, given.ranks, given.ranks_per_node, given.memory, given.rates, given.json)

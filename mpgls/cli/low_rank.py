"""The low-rank mixed model."""

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

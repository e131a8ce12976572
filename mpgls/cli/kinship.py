"""Commands that make a kinship or decompose it."""

from __future__ import annotations

import argparse
from typing import Any

from mpgls.cli.options import (
    add_command,
    genotype_options,
    run_options,
    run_options_of,
    study_options_of,
)


def kinship(commands: Any) -> None:
    """Declare ``mpgls kinship``."""
    parser = add_command(
        commands,
        "kinship",
        "relationship matrix of all samples from their genotypes",
        "mpirun -n 4 mpgls kinship --bfile mice --maf 0.01 --out mice_K",
        _kinship_config,
    )
    genotype_options(parser)
    parser.add_argument(
        "--method",
        choices=("centered", "standardized"),
        default="centered",
        help="SNPs centred (GEMMA -gk 1, the default), or also divided by their standard deviation (-gk 2, GCTA)",
    )
    parser.add_argument("--grm-bin", action="store_true", help="write GCTA's .grm.bin, .grm.N.bin and .grm.id as well")
    parser.add_argument(
        "--loco",
        action="store_true",
        help="keep each chromosome's sum as well, for scans that leave one chromosome out",
    )
    run_options(parser, resume=False)


def _kinship_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.kinship import KinshipConfig

    return KinshipConfig(
        run_options_of(given, argv),
        study_options_of(given),
        given.method,
        given.grm_bin,
        given.loco,
        given.block_size,
    )

"""Commands that scan SNPs with an exact mixed model."""

from __future__ import annotations

import argparse
from typing import Any

from mpgls.cli.options import (
    add_command,
    eigen_option,
    eigensolver_options,
    genotype_options,
    h2_file_option,
    loco_option,
    model_options,
    pcs_option,
    run_options,
    run_options_of,
    study_options_of,
    team_options,
    team_size,
    trait_options,
)


def multi_trait(commands: Any) -> None:
    """Declare ``mpgls multi-trait``."""
    parser = add_command(
        commands,
        "multi-trait",
        "mixed-model scan of many traits on every SNP, from one eigendecomposition",
        "mpirun -n 4 mpgls multi-trait --bfile mice --pheno traits.tsv --grm mice_K.h5 --out all",
        _multi_trait_config,
    )
    genotype_options(parser)
    trait_options(parser, many=True)
    eigen_option(parser)
    loco_option(parser)
    model = model_options(parser)
    h2_file_option(model)
    model.add_argument(
        "--missing", choices=("by-mask", "complete", "impute"), default="by-mask",
        help="by-mask: exact, traits grouped by their samples; complete: samples with all traits; impute: approximate",
    )  # fmt: skip
    pcs_option(model)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--p-threshold", type=float, default=5e-8, metavar="P", help="pairs with p at most P are written (5e-8)"
    )
    output.add_argument("--dense", action="store_true", help="keep every effect and standard error, in PREFIX.h5")
    eigensolver_options(parser)
    run_options(parser)
    parser.add_argument("--trait-block", type=int, metavar="T", help="traits of a tile; default: chosen by the plan")
    parser.add_argument(
        "--pass-traits",
        type=int,
        metavar="T",
        help="traits of one pass over the SNPs, at most; default: as memory allows",
    )
    parser.add_argument("--scratch", metavar="DIR", help="directory for rotated SNPs; default: beside the output")
    team_options(parser)


def _multi_trait_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.multi_trait_parts.config import MultiTraitConfig

    names = (
        "eigen",
        "h2",
        "h2_file",
        "missing",
        "precision",
        "test",
        "p_threshold",
        "dense",
        "pcs",
        "loco",
        "block_size",
    )
    return MultiTraitConfig(
        run_options_of(given, argv),
        study_options_of(given),
        **{name: getattr(given, name) for name in (*names, "trait_block", "pass_traits", "slepc_options", "scratch")},
        team_size=team_size(given.team_size),
        solver=given.eigensolver,
        plots=not given.no_plots,
    )

"""Commands that make a kinship or decompose it."""

from __future__ import annotations

import argparse
from typing import Any

from mpgls.cli.options import (
    add_command,
    center_option,
    eigensolver_options,
    run_options,
    run_options_of,
)


def eigen(commands: Any) -> None:
    """Declare ``mpgls eigen``."""
    parser = add_command(
        commands,
        "eigen",
        "eigendecomposition of a kinship, once, for many later scans",
        "mpirun -n 4 mpgls eigen --grm mice_K.h5 --out mice_E",
        _eigen_config,
    )
    parser.add_argument("--grm", required=True, metavar="FILE", help="kinship, in any of the formats of single-trait")
    parser.add_argument("--grm-id", metavar="FILE", help="a .fam with the samples of a GEMMA kinship, in its order")
    parser.add_argument("--keep", metavar="FILE", help="only these samples (FID IID a line)")
    parser.add_argument("--remove", metavar="FILE", help="without these samples")
    center_option(parser)
    parser.add_argument("--eigenpairs", type=int, metavar="K", help="only the K leading pairs, also as covariate table")
    eigensolver_options(parser)
    run_options(parser, blocks=False, resume=False)


def _eigen_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.eigen import EigenConfig

    return EigenConfig(
        run_options_of(given, argv),
        grm=given.grm,
        grm_id=given.grm_id,
        keep=given.keep,
        remove=given.remove,
        center_grm=given.center_grm,
        solver=given.eigensolver,
        slepc_options=given.slepc_options,
        eigenpairs=given.eigenpairs,
    )

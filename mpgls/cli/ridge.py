"""Prediction by ridge regression."""

from __future__ import annotations

import argparse
from typing import Any

from mpgls.cli.options import (
    add_command,
    genotype_options,
    run_options,
    run_options_of,
    study_options_of,
    trait_options,
)
from mpgls.errors import UsageError


def ridge(commands: Any) -> None:
    """Declare ``mpgls ridge``."""
    parser = add_command(
        commands,
        "ridge",
        "prediction of many targets by all SNPs together: nested cross-validation and permutations",
        "mpirun -n 4 mpgls ridge --bfile mice --pheno traits.tsv --permutations 1000 --out prediction",
        _ridge_config,
    )
    genotype_options(parser)
    trait_options(parser)
    _parcel_options(parser)
    _model_options(parser)
    _fold_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--save-predictions", action="store_true", help="predictions out of fold, in PREFIX.predictions.h5"
    )
    output.add_argument(
        "--save-weights", type=int, default=0, metavar="K", help="weights of all SNPs for the K targets predicted best"
    )
    output.add_argument("--no-plots", action="store_true", help="do not draw plots")
    run_options(parser)


def _parcel_options(parser: Any) -> None:
    group = parser.add_argument_group("parcels of images as targets, instead of --pheno")
    group.add_argument("--parcels", type=int, metavar="K", help="mean signals of K parcels, by Ward's clustering")
    group.add_argument("--voxels", metavar="FILE", help="voxel matrix made by mpgls vgwas-extract")
    group.add_argument("--images", metavar="FILE", help="images of all people, as for mpgls vgwas-extract")
    group.add_argument("--image-ids", metavar="FILE", help="people of a 4-D image, in its order")
    group.add_argument("--mask", metavar="FILE", help="voxels that are analysed")


def _model_options(parser: Any) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--alphas", type=float, nargs="+", metavar="A", help="penalties, relative to the kernel's mean diagonal"
    )
    group.add_argument(
        "--alpha-count", type=int, metavar="K", help="K penalties from 0.1 to 1000, evenly on a log scale (5)"
    )
    group.add_argument(
        "--alpha-choice", choices=("target", "shared"), default="target",
        help="the penalty of an outer fold: chosen for each target (the default) or once for all",
    )  # fmt: skip
    group.add_argument(
        "--standardize", choices=("all", "fold"), default="all",
        help="SNPs standardised over all samples, or over each training set (a kernel for each: slow)",
    )  # fmt: skip
    group.add_argument(
        "--precision", choices=("double", "mixed"), default="double",
        help="mixed applies the operators, made in double precision, in single precision",
    )  # fmt: skip


def _fold_options(parser: Any) -> None:
    group = parser.add_argument_group("folds and permutations")
    group.add_argument(
        "--outer-folds", type=int, default=10, metavar="F", help="folds that measure the prediction (10)"
    )
    group.add_argument("--inner-folds", type=int, default=5, metavar="F", help="folds that choose the penalty (5)")
    group.add_argument(
        "--groups", metavar="FILE|fid", help="table FID IID GROUP, or the family IDs: a group stays in one fold"
    )
    group.add_argument("--folds-file", metavar="FILE", help="folds to use, such as PREFIX.folds.tsv of another run")
    group.add_argument("--permutations", type=int, default=1000, metavar="P", help="permutations of the samples (1000)")
    group.add_argument("--seed", type=int, default=1, metavar="S", help="of the folds and the permutations (1)")
    group.add_argument(
        "--blocks", metavar="FILE|fid", help="table FID IID BLOCK, or the family IDs: samples move within a block only"
    )


def _ridge_config(given: argparse.Namespace, argv: tuple[str, ...]) -> Any:
    from mpgls.commands.ridge_parts.config import FoldOptions, ImageOptions, RidgeConfig

    names = (
        "alpha_choice", "standardize", "permutations", "seed", "blocks", "precision", "save_predictions",
        "save_weights", "block_size",
    )  # fmt: skip
    chosen: dict[str, Any] = {name: getattr(given, name) for name in names}
    if (alphas := _alphas(given)) is not None:
        chosen["alphas"] = alphas
    return RidgeConfig(
        run_options_of(given, argv),
        study_options_of(given),
        folds=FoldOptions(given.outer_folds, given.inner_folds, given.groups, given.folds_file),
        image=ImageOptions(given.parcels, given.voxels, given.images, given.image_ids, given.mask),
        plots=not given.no_plots,
        **chosen,
    )


def _alphas(given: argparse.Namespace) -> tuple[float, ...] | None:
    """The penalties asked for, None for the default ones. Raises UsageError."""
    import numpy as np

    from mpgls.commands.ridge_parts.config import ALPHAS

    if given.alphas is not None and given.alpha_count is not None:
        raise UsageError("give either --alphas or --alpha-count")
    if given.alpha_count is None:
        return None if given.alphas is None else tuple(given.alphas)
    if given.alpha_count < 2:
        raise UsageError(f"--alpha-count must be at least 2, not {given.alpha_count}")
    return tuple(np.geomspace(*ALPHAS, given.alpha_count).tolist())

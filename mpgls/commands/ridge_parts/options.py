"""The options of mpgls ridge that are its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mpgls.errors import UsageError
from mpgls.run.device_options import DeviceOptions
from mpgls.run.genotype_options import GenotypeOptions
from mpgls.run.option_groups import POSITIVE, BlockOptions, CheckpointOptions, PlotOptions, PrecisionOptions
from mpgls.run.options import Check, Options, at_least, flag, option, the_file
from mpgls.run.study_options import KinshipOptions, ManyTraitOptions, RintOptions, VoxelOptions
from mpgls.study.sample_labels import BY_FAMILY

ALPHAS = (0.1, 1000.0)
"""The smallest and the largest penalty of a grid that --alpha-count makes."""
COUNT = 5
"""Penalties of the default grid."""
MOST = 2**63 - 1
WHOLE = Check("from 0 to 2^63 - 1", lambda value: 0 <= value <= MOST)
PARCELS, MODEL, FOLDS = "parcels of images as targets, instead of --pheno", "model", "folds and permutations"


EVERY = "all"
"""What --weights alone stands for."""


def target_count(text: str) -> int:
    """How many targets have weights. Raises UsageError."""
    if text == EVERY:
        return MOST
    if not text.isdigit():
        raise UsageError(f"--weights must be {EVERY} or a number of targets, not {text!r}")
    return int(text)


def label_files(value: str) -> Iterable[str]:
    """The table of labels that an option names, none where the family is the label."""
    return [] if value == BY_FAMILY else [value]


@dataclass(frozen=True, kw_only=True)
class ParcelOptions(VoxelOptions):
    """Parcels as targets: a voxel matrix, or images and a mask to make it of."""

    parcels: int | None = option(
        None, "mean signals of K parcels, by Ward's clustering", group=PARCELS, metavar="K", check=at_least(1)
    )

    def check(self) -> None:
        super().check()
        if self.images is not None and self.voxels is not None:
            raise UsageError("give either --voxels or --images and --mask")
        if (self.voxels is None and self.images is None) != (self.parcels is None):
            raise UsageError("--parcels needs --voxels, or --images and --mask, and they need --parcels")


@dataclass(frozen=True, kw_only=True)
class PenaltyOptions(PrecisionOptions):
    """The penalties, relative to the kernel's mean diagonal, and how they are computed."""

    alphas: tuple[float, ...] = option(
        (), "penalties, relative to the kernel's mean diagonal", group=MODEL, metavar="A", check=POSITIVE
    )
    alpha_count: int | None = option(
        None,
        f"K penalties from {ALPHAS[0]:g} to {ALPHAS[1]:g}, evenly on a log scale ({COUNT})",
        group=MODEL,
        metavar="K",
        check=at_least(2),
    )
    alpha_choice: str = option(
        "target",
        "the penalty of an outer fold: chosen for each target (the default) or once for all",
        group=MODEL,
        choices=("target", "shared"),
    )
    standardize: str = option(
        "all",
        "SNPs standardised over all samples, or over each training set (a kernel for each: slow)",
        group=MODEL,
        choices=("all", "fold"),
    )

    def check(self) -> None:
        super().check()
        if self.alphas and self.alpha_count is not None:
            raise UsageError("give either --alphas or --alpha-count")
        if len(set(self.alphas)) < len(self.alphas):
            raise UsageError("--alphas names a penalty twice")

    @property
    def penalties(self) -> tuple[float, ...]:
        """Those asked for."""
        return self.alphas or tuple(np.geomspace(*ALPHAS, self.alpha_count or COUNT).tolist())

    @property
    def one_for_all(self) -> bool:
        """Whether all targets have the same penalty."""
        return self.alpha_choice == "shared"

    @property
    def by_fold(self) -> bool:
        """Whether every training set has a kernel of its own."""
        return self.standardize == "fold"


@dataclass(frozen=True, kw_only=True)
class FoldOptions(Options):
    """How samples are dealt to folds, and exchanged."""

    outer_folds: int = option(10, "folds that measure the prediction (10)", group=FOLDS, metavar="F", check=at_least(2))
    inner_folds: int = option(5, "folds that choose the penalty (5)", group=FOLDS, metavar="F", check=at_least(2))
    groups: str | None = option(
        None,
        "table FID IID GROUP, or the family IDs: a group stays in one fold",
        group=FOLDS,
        metavar="FILE|fid",
        reads=label_files,
    )
    folds_file: str | None = option(
        None, "folds to use, such as PREFIX.folds.tsv of another run", group=FOLDS, metavar="FILE", reads=the_file
    )
    permutations: int = option(1000, "permutations of the samples (1000)", group=FOLDS, metavar="P", check=WHOLE)
    seed: int = option(1, "of the folds and the permutations (1)", group=FOLDS, metavar="S", check=WHOLE)
    blocks: str | None = option(
        None,
        "table FID IID BLOCK, or the family IDs: samples move within a block only",
        group=FOLDS,
        metavar="FILE|fid",
        reads=label_files,
    )

    def check(self) -> None:
        super().check()
        if self.folds_file is not None and self.groups is not None:
            raise UsageError("give either --groups or --folds-file: the file says which samples stay together")


@dataclass(frozen=True, kw_only=True)
class Ridge(
    GenotypeOptions, ManyTraitOptions, RintOptions, KinshipOptions, ParcelOptions, PenaltyOptions, FoldOptions,
    BlockOptions, PlotOptions, DeviceOptions, CheckpointOptions,
):  # fmt: skip
    """Options of ``mpgls ridge``. ``penalties`` are relative to the kernel's mean diagonal."""

    command = "ridge"
    summary = "prediction of many targets by all SNPs together: nested cross-validation and permutations"
    example = "mpirun -n 4 mpgls ridge --bfile mice --pheno traits.tsv --permutations 1000 --out prediction"

    save_predictions: bool = flag("predictions out of fold, in PREFIX.predictions.h5", group="output")
    weights: int = option(
        0,
        "weights of all SNPs in the model of all samples, for mpgls score: for every target, or the K predicted best",
        group="output",
        metavar="K",
        parse=target_count,
        bare=EVERY,
        check=WHOLE,
    )

    def check(self) -> None:
        super().check()
        if self.pheno is not None and self.parcels is not None:
            raise UsageError("targets are either --pheno FILE or --parcels K, not both")
        if self.pheno is None and self.parcels is None:
            raise UsageError("ridge needs targets: either --pheno FILE, or --parcels K with --voxels or --images")
        if self.dry_run and self.parcels is not None:
            raise UsageError("--dry-run needs targets that are there: --parcels makes them of the images")
        if self.grm is not None and (self.by_fold or self.weights):
            raise UsageError("--standardize fold and --weights need the kernel of the genotypes: leave --grm out")
        if self.center_grm:
            raise UsageError("--center-grm changes nothing here, because the intercept is not penalised: leave it out")

"""The options of mpgls ridge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpgls.commands.common.inputs import StudyOptions
from mpgls.commands.common.session import RunOptions
from mpgls.errors import UsageError
from mpgls.study.sample_labels import BY_FAMILY

ALPHAS = (0.1, 1000.0)
"""The smallest and the largest penalty of a default grid."""


@dataclass(frozen=True)
class FoldOptions:
    """How samples are dealt to folds; ``groups`` and ``file`` are tables."""

    outer: int = 10
    inner: int = 5
    groups: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        for name, count in (("--outer-folds", self.outer), ("--inner-folds", self.inner)):
            if count < 2:
                raise UsageError(f"{name} must be at least 2, not {count}")
        if self.file is not None and self.groups is not None:
            raise UsageError("give either --groups or --folds-file: the file says which samples stay together")


@dataclass(frozen=True)
class ImageOptions:
    """Parcels as targets: a voxel matrix, or images and a mask to make it of."""

    parcels: int | None = None
    voxels: str | None = None
    images: str | None = None
    image_ids: str | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        if (self.images is None) != (self.mask is None):
            raise UsageError("--images and --mask need each other")
        if self.images is not None and self.voxels is not None:
            raise UsageError("give either --voxels or --images and --mask")
        if (self.voxels is None and self.images is None) != (self.parcels is None):
            raise UsageError("--parcels needs --voxels, or --images and --mask, and they need --parcels")
        if self.image_ids is not None and self.images is None:
            raise UsageError("--image-ids needs --images")
        if self.parcels is not None and self.parcels < 1:
            raise UsageError(f"--parcels must be at least 1, not {self.parcels}")

    def files(self) -> list[str]:
        """The files that the command line names."""
        return [name for name in (self.voxels, self.images, self.image_ids, self.mask) if name is not None]


@dataclass(frozen=True)
class RidgeConfig:
    """Options of ``mpgls ridge``. ``alphas`` are penalties relative to the kernel's mean diagonal."""

    run: RunOptions
    study: StudyOptions
    alphas: tuple[float, ...] = tuple(np.geomspace(*ALPHAS, 5).tolist())
    alpha_choice: str = "target"
    standardize: str = "all"
    folds: FoldOptions = field(default_factory=FoldOptions)
    image: ImageOptions = field(default_factory=ImageOptions)
    permutations: int = 1000
    seed: int = 1
    blocks: str | None = None
    precision: str = "double"
    save_predictions: bool = False
    save_weights: int = 0
    block_size: int | None = None
    plots: bool = True

    def __post_init__(self) -> None:
        if self.study.pheno is not None and self.image.parcels is not None:
            raise UsageError("targets are either --pheno FILE or --parcels K, not both")
        if self.study.pheno is None and self.image.parcels is None:
            raise UsageError("ridge needs targets: either --pheno FILE, or --parcels K with --voxels or --images")
        if not self.alphas:
            raise UsageError("--alphas needs at least one penalty")
        for alpha in self.alphas:
            if not 0 < alpha < np.inf:
                raise UsageError(f"every penalty of --alphas must be a positive number, not {alpha:g}")
        if len(set(self.alphas)) < len(self.alphas):
            raise UsageError("--alphas names a penalty twice")
        if self.study.grm is not None and (self.standardize == "fold" or self.save_weights):
            raise UsageError("--standardize fold and --save-weights need the kernel of the genotypes: leave --grm out")
        if self.study.center_grm:
            raise UsageError("--center-grm changes nothing here, because the intercept is not penalised: leave it out")
        if self.permutations < 0 or self.seed < 0:
            raise UsageError("--permutations and --seed must not be negative")
        if not self.permutations < 2**63 > self.seed:
            raise UsageError("--permutations and --seed must be below 2^63")
        if self.save_weights < 0:
            raise UsageError(f"--save-weights must not be negative, not {self.save_weights}")
        if self.block_size is not None and self.block_size < 1:
            raise UsageError(f"--block-size must be at least 1, not {self.block_size}")

    @property
    def dtype(self) -> type:
        """Element type of the targets and of the operators that are applied to them."""
        return np.float64 if self.precision == "double" else np.float32

    def determines_results(self) -> dict[str, Any]:
        """The options that a resumed run must share."""
        left_out = ("run", "save_weights", "plots")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def inputs(self) -> list[str]:
        """Files that the command reads."""
        kernel = [] if self.study.grm is None else [self.study.grm]
        return [*self.study.files(), *self.image.files(), *kernel, *self.tables()]

    def tables(self) -> list[str]:
        """Those that say which samples stay together, or are exchanged."""
        named = (self.folds.file, self.folds.groups, self.blocks)
        return [name for name in named if name is not None and name != BY_FAMILY]

"""The options of mpgls vgwas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.commands.common.inputs import StudyOptions
from mpgls.commands.common.session import RunOptions
from mpgls.errors import UsageError
from mpgls.model.clusters import CONNECTIVITIES

PRECISIONS = {"double": np.float64, "mixed": np.float32}
TAILS = ("none", "gpd")


@dataclass(frozen=True)
class VgwasConfig:
    """Options of ``mpgls vgwas``. The voxels are ``voxels``, or ``images`` and ``mask``, or the traits of ``study``."""

    run: RunOptions
    study: StudyOptions
    voxels: str | None = None
    images: str | None = None
    image_ids: str | None = None
    mask: str | None = None
    coordinates: str | None = None
    blocks: str | None = None
    blocks_file: str | None = None
    sparsity_threshold: float = 1e-4
    permutations: int = 1000
    first_permutation: int = 1
    seed: int = 1
    connectivity: int = 6
    tfce_step: float = 0.1
    tail: str = "none"
    precision: str = "mixed"
    maps: int = 0
    block_size: int | None = None
    voxel_chunk: int | None = None
    team_size: int | None = None
    plots: bool = True

    def __post_init__(self) -> None:
        self._check_voxels()
        if self.blocks_file is not None and self.blocks is None:
            raise UsageError("--blocks-file needs --blocks, the column to read")
        if self.blocks is not None and self.blocks_file is None and self.study.covar is None:
            raise UsageError("--blocks needs the table with its column: --covar or --blocks-file")
        if not 0 < self.sparsity_threshold <= 1:
            raise UsageError(f"--sparsity-threshold must be above 0 and at most 1, not {self.sparsity_threshold}")
        for name, least in (("permutations", 0), ("first_permutation", 1), ("seed", 0), ("maps", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(self, name)}")
        if max(self.seed, self.first_permutation + self.permutations) >= 2**63:
            raise UsageError("--seed and the last permutation must be below 2^63")
        if self.adds and self.permutations == 0:
            raise UsageError("--first-permutation adds permutations, so --permutations must be at least 1")
        for name in ("block_size", "voxel_chunk"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")
        if self.connectivity not in CONNECTIVITIES:
            raise UsageError(f"--connectivity must be 6, 18 or 26, not {self.connectivity}")
        if not self.tfce_step > 0:
            raise UsageError(f"--tfce-step must be above 0, not {self.tfce_step}")
        if self.precision not in PRECISIONS or self.tail not in TAILS:
            raise UsageError(f"there is no --precision {self.precision} or no --tail {self.tail}")

    def _check_voxels(self) -> None:
        given = [name for name in ("voxels", "images") if getattr(self, name) is not None]
        given += ["pheno"] if self.study.pheno is not None else []
        if len(given) != 1:
            raise UsageError("vgwas needs voxels: one of --voxels FILE, --images LIST with --mask, or --pheno FILE")
        if (self.images is None) != (self.mask is None):
            raise UsageError("--images and --mask go together")
        if self.image_ids is not None and self.images is None:
            raise UsageError("--image-ids needs --images")
        if self.coordinates is not None and self.study.pheno is None:
            raise UsageError("--coordinates belongs to --pheno: voxels and images have their own")
        if self.maps and self.study.pheno is not None:
            raise UsageError("--maps needs images or a voxel matrix: traits have no grid to draw them on")

    @property
    def dtype(self) -> type:
        """Element type of the residuals in the products."""
        return PRECISIONS[self.precision]

    @property
    def indices(self) -> range:
        """The permutations of this run; the first run of an output has index 0, the data as they are, as well."""
        first = self.first_permutation
        return range(first if self.adds else 0, first + self.permutations)

    @property
    def adds(self) -> bool:
        """Whether the run adds permutations to a finished one."""
        return self.first_permutation > 1

    def determines_results(self) -> dict[str, Any]:
        """The options that all permutations of one output share."""
        names = (
            "study", "voxels", "images", "image_ids", "mask", "coordinates", "blocks", "blocks_file",
            "sparsity_threshold", "seed", "connectivity", "tfce_step", "precision",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def more_files(self) -> list[str]:
        """Input files beside those of ``study``."""
        named = (self.voxels, self.images, self.image_ids, self.mask, self.coordinates, self.blocks_file)
        return [name for name in named if name is not None]

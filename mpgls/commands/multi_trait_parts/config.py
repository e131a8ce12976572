"""The options of mpgls multi-trait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.commands.common.inputs import StudyOptions
from mpgls.commands.common.session import RunOptions
from mpgls.errors import UsageError
from mpgls.study.trait_matrix import POLICIES


@dataclass(frozen=True)
class MultiTraitConfig:
    """Options of ``mpgls multi-trait``."""

    run: RunOptions
    study: StudyOptions
    eigen: str | None = None
    h2: float | None = None
    h2_file: str | None = None
    missing: str = "by-mask"
    precision: str = "double"
    test: str = "t"
    p_threshold: float = 5e-8
    dense: bool = False
    pcs: int = 0
    loco: bool = False
    block_size: int | None = None
    trait_block: int | None = None
    pass_traits: int | None = None
    team_size: int | None = None
    solver: str = "auto"
    slepc_options: str = ""
    scratch: str | None = None
    plots: bool = True

    def __post_init__(self) -> None:
        if self.study.pheno is None:
            raise UsageError("multi-trait needs traits: --pheno FILE")
        if (self.study.grm is None) == (self.eigen is None):
            raise UsageError("multi-trait needs either a kinship, --grm, or its eigendecomposition, --eigen")
        if self.loco and self.eigen is not None:
            raise UsageError(
                "--loco decomposes a kinship for each chromosome: give --grm, made with --loco, not --eigen"
            )
        if self.missing not in POLICIES:
            raise UsageError(f"--missing must be one of {', '.join(POLICIES)}, not {self.missing}")
        if self.h2 is not None and not 0 <= self.h2 < 1:
            raise UsageError(f"--h2 must be at least 0 and below 1, not {self.h2}")
        if self.h2 is not None and self.h2_file is not None:
            raise UsageError("give either --h2 or --h2-file")
        if not 0 < self.p_threshold <= 1:
            raise UsageError(f"--p-threshold must be above 0 and at most 1, not {self.p_threshold}")
        sizes = {"--block-size": self.block_size, "--trait-block": self.trait_block, "--pass-traits": self.pass_traits}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if self.pcs < 0:
            raise UsageError(f"--pcs must not be negative, not {self.pcs}")

    @property
    def dtype(self) -> type:
        """Element type of rotated SNPs and traits."""
        return np.float64 if self.precision == "double" else np.float32

    def determines_results(self) -> dict[str, Any]:
        """The options that a resumed run must share."""
        names = (
            "study",
            "eigen",
            "h2",
            "h2_file",
            "missing",
            "precision",
            "test",
            "p_threshold",
            "dense",
            "pcs",
            "solver",
            "loco",
        )
        return {name: getattr(self, name) for name in names}

    def inputs(self) -> list[str]:
        """Files that the command reads, beside those of the kinship."""
        return [*self.study.files(), *(name for name in (self.study.grm, self.eigen, self.h2_file) if name)]

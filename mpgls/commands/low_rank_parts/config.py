"""Options of ``mpgls low-rank``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpgls.commands.common.inputs import StudyOptions
from mpgls.commands.common.session import RunOptions
from mpgls.errors import UsageError

STAGES = (0, 1, 2, 4)
"""[Ludicrous]' numbers; its stage 3, the files of U, is not needed."""


@dataclass(frozen=True)
class LowRankConfig:
    """Options of ``mpgls low-rank``; exactly one of ``similarity_snps``, ``_every`` and ``_count`` is given."""

    run: RunOptions
    study: StudyOptions
    similarity_bfile: str | None = None
    similarity_snps: str | None = None
    similarity_every: int | None = None
    similarity_count: int | None = None
    loco: bool = True
    stage: int | None = None
    h2: float | None = None
    h2_file: str | None = None
    precision: str = "double"
    test: str = "t"
    form: str = "auto"
    block_size: int | None = None
    team_size: int | None = None
    plots: bool = True

    def __post_init__(self) -> None:
        ways = (self.similarity_snps, self.similarity_every, self.similarity_count)
        if sum(way is not None for way in ways) != 1:
            raise UsageError(
                "low-rank needs one of --similarity-snps, --similarity-every and --similarity-count: "
                "the SNPs that measure similarity"
            )
        for name in ("similarity_every", "similarity_count", "block_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if self.stage is not None and self.stage not in STAGES:
            raise UsageError(f"--stage must be one of {', '.join(map(str, STAGES))}, not {self.stage}")
        if self.h2 is not None and not 0 <= self.h2 < 1:
            raise UsageError(f"--h2 must be at least 0 and below 1, not {self.h2}")
        if self.h2 is not None and self.h2_file is not None:
            raise UsageError("--h2 and --h2-file exclude each other")
        if self.run.resume and self.stage not in (None, 4):
            raise UsageError(f"--resume is for stage 4: what is there of stage {self.stage} is always used")

    @property
    def dtype(self) -> type:
        """Element type of the large products."""
        return np.float64 if self.precision == "double" else np.float32

    @property
    def similarity_prefix(self) -> str:
        """The PLINK files with the similarity SNPs."""
        return self.similarity_bfile or self.study.bfile

    def has_stage(self, stage: int) -> bool:
        """Whether this run may compute ``stage``; otherwise its output must be there."""
        return self.stage is None or self.stage == stage

    def is_dense(self, n: int, K: int) -> bool:
        """Whether n x n matrices are used: asked for, or cheaper because there are as many SNPs as samples."""
        return self.form == "dense" or (self.form == "auto" and n <= K)

    def run_options(self) -> RunOptions:
        """Those of the run: a single early stage keeps a log and a manifest of its own."""
        if self.stage in (None, 4):
            return self.run
        return replace(self.run, out=f"{self.run.out}.stage{self.stage}")

    def inputs(self) -> list[str]:
        """Every file that the run reads."""
        genotypes = [f"{self.similarity_prefix}.{suffix}" for suffix in ("bed", "bim", "fam")]
        return [*self.study.files(), *genotypes, *filter(None, (self.similarity_snps, self.h2_file))]

    def determines_similarity(self) -> dict[str, Any]:
        """The options that G depends on."""
        names = ("similarity_snps", "similarity_every", "similarity_count", "precision")
        snps = self.study.snps
        filters = {"extract": snps.extract, "exclude": snps.exclude, "maf": snps.maf, "geno": snps.geno}
        return {name: getattr(self, name) for name in names} | filters | {"bp": snps.exclude_negative_bp}

    def determines_results(self) -> dict[str, Any]:
        """The options that a resumed run must share."""
        names = ("h2", "h2_file", "loco", "test", "study", "form")
        return self.determines_similarity() | {name: getattr(self, name) for name in names}

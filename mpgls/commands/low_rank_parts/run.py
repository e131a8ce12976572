"""What all stages of a low-rank run have in common, and how a stage's output is found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from mpgls.commands.common.inputs import Study
from mpgls.commands.common.session import Session
from mpgls.commands.low_rank_parts.config import LowRankConfig
from mpgls.commands.low_rank_parts.inputs import SampleSet, SimilarityInput
from mpgls.commands.low_rank_parts.plan import LowRankPlan
from mpgls.errors import InputError
from mpgls.la.grid import ProcessGrid
from mpgls.stream.store import fingerprint
from mpgls.study.chromosomes import Chromosomes

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """What all stages of a run have in common; ``given`` (parts, all traits) is h2 where the user gave it, or NaN."""

    config: LowRankConfig
    study: Study
    similarity: SimilarityInput
    chromosomes: Chromosomes
    given: np.ndarray
    plan: LowRankPlan
    grid: ProcessGrid
    session: Session

    def given_h2(self, samples: SampleSet) -> np.ndarray:
        """h2 (parts, T) of the set's traits where the user gave one, NaN where it is to be estimated."""
        traits = list(self.study.cohorts)
        return self.given[:, [traits.index(name) for name in samples.traits]]

    def path(self, samples: SampleSet, stage: int) -> Path:
        """The output of an early stage."""
        return Path(f"{self.config.run.out}{samples.suffix}.stage{stage}.h5")

    def mark(self, samples: SampleSet, stage: int) -> str:
        """The fingerprint of what the output of an early stage was made from."""
        parts = {
            "genotypes": self.similarity.identities,
            "snps": self.similarity.snps.index.tolist(),
            "samples": samples.similarity_rows.tolist(),
            "options": self.config.determines_similarity(),
        }
        if stage == 2:
            tested = {"labels": self.chromosomes.labels, "loco": self.config.loco}
            file = [one for one in self.study.identities if one["path"] == self.config.h2_file]
            h2 = {"h2": self.config.h2, "h2_file": file}
            parts |= {
                "F": fingerprint({"F": samples.F_rep.tolist()}),
                "traits": samples.traits,
                "tested": tested,
                "h2": h2,
            }
        return fingerprint(parts)

    def made(self, stage: int, found: T | None, path: Path, make: Callable[[], T]) -> T:
        """What a stage's file holds, or what ``make`` computes when this run may compute that stage. Collective."""
        if found is not None:
            self.session.log.info(f"stage {stage}: taken from {path}")
            return found
        if not self.config.has_stage(stage):
            raise InputError(
                f"stage {self.config.stage} needs {path}, which is not there, not complete, or was made from other "
                f"inputs or options: run --stage {stage} first"
            )
        return make()

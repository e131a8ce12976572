"""The early stages of a low-rank run: each hands its output to the next in a file, and is found again there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mpgls.engine.gram import GramFile, create_gram, find_gram, make_gram
from mpgls.engine.low_rank_inputs import SampleSet, SimilarityInput
from mpgls.engine.low_rank_nulls import Products, SimilarityPart, StoredGram, estimate_all
from mpgls.engine.similarity import PackedSnps, Similarity, count_snps, usable
from mpgls.errors import InputError
from mpgls.la.grid import ProcessGrid
from mpgls.model import null_record
from mpgls.run.genotype_options import SOURCES
from mpgls.run.ledger import State
from mpgls.run.world import World
from mpgls.stream.mark import Mark
from mpgls.study.filters import SnpFilter
from mpgls.study.snp_stats import SnpStats

T = TypeVar("T")
STAGES = (0, 1, 2, 4)
"""[Ludicrous]' numbers; its stage 3, the files of U, is not needed."""
FILES_OF_STAGES = (".stage[012].h5", ".set[0-9]*.stage[012].h5")
"""Endings of the files of all sets of samples."""
OF_GENOTYPES = tuple(flag.replace("--", "--similarity-") for flag in SOURCES)
OF_SIMILARITY = (*SOURCES, *OF_GENOTYPES, "--similarity-snps", "--extract", "--exclude", "--sex")
"""Options whose files say what G is."""


@dataclass(frozen=True)
class Stages:
    """Makes the stages that may be computed, ``wanted`` alone or all (None), and finds the others in files.

    ``out`` is the prefix of these files; ``of_similarity`` says what G is made from. Its methods are collective.
    """

    world: World
    out: str
    wanted: int | None
    of_similarity: Mark

    def path(self, samples: SampleSet, stage: int) -> Path:
        """The output of an early stage."""
        return Path(f"{self.out}{samples.suffix}.stage{stage}.h5")

    def mark(self, samples: SampleSet, **facts: Any) -> Mark:
        """What the output of an early stage is made from."""
        return self.of_similarity.narrowed(samples=samples.similarity_rows.tolist(), **facts)

    def made(self, stage: int, found: T | None, path: Path, make: Callable[[], T]) -> T:
        """What a stage's file holds, or what ``make`` computes when this run may compute that stage."""
        if found is not None:
            self.world.log.info(f"stage {stage}: taken from {path}")
            return found
        if self.wanted not in (None, stage):
            raise InputError(
                f"stage {self.wanted} needs {path}, which is not there, not complete, or was made from other "
                f"inputs or options: run --stage {stage} first"
            )
        return make()

    def count(self, samples: SampleSet, packed: PackedSnps, snps: SnpFilter) -> tuple[np.ndarray, SnpStats]:
        """Stage 0: which similarity SNPs (K,) vary and pass the filters, and the counts of those."""
        world, state = self.world, State(self.path(samples, 0), self.mark(samples))

        def make() -> dict[str, np.ndarray]:
            with world.phase("stage 0"):
                stats = count_snps(packed, samples.similarity_rows, world.comm)
                kept = usable(stats, snps if packed.bed.dosages else replace(snps, info=0.0), world.log)
                found = {"kept": kept, "n_obs": stats.n_obs, "a1_sum": stats.a1_sum, "sum_sq": stats.sum_sq}
                world.on_root(lambda: state.save({}, found))
                return found

        saved = world.on_root(lambda: state.load_same(world.log.warn))
        found = self.made(0, None if saved is None else saved.arrays, state.path, make)
        kept = found["kept"].astype(bool)
        n_obs, a1_sum, sum_sq = (found[name][kept] for name in ("n_obs", "a1_sum", "sum_sq"))
        return kept, SnpStats(n_obs, a1_sum, sum_sq, samples.rows.size)

    def multiply(self, samples: SampleSet, G: Similarity, strip: int, grid: ProcessGrid) -> GramFile:
        """Stage 1: G'G, in its file."""
        world, path, mark = self.world, self.path(samples, 1), self.mark(samples)
        found = find_gram(path, mark, world)

        def make() -> GramFile:
            file = found or world.on_root(lambda: create_gram(path, mark, G.K, strip, world.log))
            return make_gram(G, file, mark, grid, world)

        return self.made(1, found if found and found.done.all() else None, path, make)

    def estimate(
        self,
        samples: SampleSet,
        gram: StoredGram,
        products: Products,
        parts: list[SimilarityPart],
        given: np.ndarray,
        team_size: int,
    ) -> np.ndarray:
        """Stage 2: the null records (parts, T), h2 as ``given`` (parts, T) where that is not NaN."""
        world = self.world
        tested = {"labels": [part.label for part in parts], "traits": samples.traits}
        h2 = given.tolist()
        mark = self.mark(samples, tested=tested, given=h2, F=samples.F_rep.tolist())
        state = State(self.path(samples, 2), mark)
        saved = world.on_root(lambda: state.load_same(world.log.warn))
        nulls = null_record.unknown(*given.shape) if saved is None else saved.arrays["nulls"]
        known = nulls["source"] != null_record.Source.UNKNOWN
        if known.any() and not known.all():
            world.log.info(f"stage 2: {int(known.sum())} of {known.size} null models are in {state.path}")
        complete = nulls if known.all() else None

        def make() -> np.ndarray:
            fresh = ~np.isnan(given) & ~known
            nulls["h2"][fresh], nulls["source"][fresh] = given[fresh], null_record.Source.GIVEN
            estimate_all(gram, products, parts, nulls, team_size, world, lambda n: state.save({}, {"nulls": n}))
            return nulls

        return self.made(2, complete, state.path, make)


def similarity_mark(
    similarity: SimilarityInput, options: Mapping[str, Any], identities: Sequence[Mapping[str, Any]]
) -> Mark:
    """What G is made from: the SNPs, the ``options`` that count, and of the input files' ``identities`` its own."""
    own = [one for one in identities if one["option"] in OF_SIMILARITY]
    if any(one["option"] in OF_GENOTYPES for one in own):
        own = [one for one in own if one["option"] not in SOURCES]
    files = [[one["size"], one["sha256"]] for one in own]
    snps = similarity.snps.index.tolist()
    return Mark({"command": "low-rank", "options": options, "inputs": {"files": files}, "snps": snps})

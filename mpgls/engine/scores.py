"""Predicted values of people from the weights of SNPs: S = (X - 1 c')W, SNPs streamed and dealt to ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.model.gls import Note
from mpgls.run.plan import NARROWEST, WIDEST, Machine, Plan, first_that_fits
from mpgls.run.world import World
from mpgls.study.count_filters import Dropped, dropped_by
from mpgls.study.genotypes import Decoder
from mpgls.study.weight_matches import ScoredSnps


@dataclass(frozen=True)
class ScorePlan(Plan):
    """SNPs of a ``block``."""

    block: int


def plan_scores(machine: Machine, n: int, snps: ScoredSnps, snp_bytes: int, block: int | None) -> ScorePlan:
    """The widest block that fits, or ``block``. Raises MemoryPlanError."""
    k, t = snps.values.shape
    fixed = machine.base + 24 * n * t + 8 * k * (t + 2) + (16 << 20)

    def candidates() -> Iterator[ScorePlan]:
        width = block or WIDEST
        while True:
            yield ScorePlan({"scores": fixed + (8 * n + 4 * snp_bytes) * width}, width)
            if block or width <= NARROWEST:
                return
            width //= 2

    return first_that_fits(machine, candidates())


def score(genotypes: GenotypeBlocks, snps: ScoredSnps, world: World) -> np.ndarray:
    """The values (n, t) of the people of ``genotypes``, on every rank; missing genotypes add nothing. Collective.

    ``genotypes`` are those of ``snps.rows``; SNPs that its filters drop add nothing either. Raises StorageError, or
    Stopped after a signal, on all ranks.
    """
    n, dropped = genotypes.rows.size, Dropped()
    blocks = genotypes.cut()[world.rank :: world.size]
    stream = genotypes.dealt(blocks, world)
    decoder = Decoder(genotypes.bed.n, [genotypes.rows], np.float64, genotypes.bed.males)
    X_block = np.empty((n, min(genotypes.width, snps.rows.size)), order="F")
    S = np.zeros((n, snps.values.shape[1]))
    progress, done = world.progress("scores", stream.snps, "SNPs"), 0
    with world.together():
        for k, packed in stream:
            X, block = X_block[:, : len(packed)], blocks[k]
            with world.phase("decode", nbytes=packed.size):
                stats = decoder.decode(packed, [X], shift=snps.center[block])  # x - c, 0 where missing
                notes = dropped_by(stats, genotypes.filters)
                dropped.add(notes)
            with world.phase("products", flop=2.0 * X.size * S.shape[1]):
                S += X @ np.where((notes == Note.OK)[:, None], snps.values[block], 0.0)
            done += len(packed)
            progress.at(done)
            if world.stop.requested:
                break
    world.raise_if_stopped()
    with world.phase("join ranks"):
        S_rep = np.empty_like(S)
        world.comm.Allreduce(S, S_rep)
        world.comm.Allreduce(dropped.counts.copy(), dropped.counts)
    if dropped.text:
        world.log.info(f"scores: {dropped.text}")
    return S_rep

"""h2 of every trait without each chromosome in the low-rank model, chromosomes dealt to teams of ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.device.card import Card
from mpgls.engine.gram import GramFile
from mpgls.engine.low_rank import LowRankDesign, SimilarityGram
from mpgls.engine.parts import ScanPart
from mpgls.engine.similarity import Similarity
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import Team, split_teams
from mpgls.model import null_record
from mpgls.run.log import Log
from mpgls.run.world import World


@dataclass(frozen=True, eq=False)
class SimilarityPart(ScanPart):
    """SNPs that share a similarity: ``kept`` (K,) bool the similarity SNPs of their model, ``runs`` the same as slices.

    ``scale`` is s, the mean diagonal of G_c G_c'.
    """

    kept: np.ndarray
    runs: list[slice]
    scale: float


@dataclass(frozen=True, eq=False)
class Products:
    """F = [X_L | y_1 ... y_T] (n, q+T) and everything that REML needs of it beside G'G, the same on every rank.

    ``FF_rep`` = F'F, ``GF_rep`` = G'F (K, q+T), ``q`` covariates with the intercept.
    """

    F_rep: np.ndarray
    q: int
    FF_rep: np.ndarray
    GF_rep: np.ndarray

    @classmethod
    def of(cls, F_rep: np.ndarray, q: int, G: Similarity, world: World) -> Products:
        """From F (n, q+T), the same on every rank. Collective."""
        with world.phase("G'F"):
            return cls(F_rep, q, F_rep.T @ F_rep, G.project(F_rep, world.comm))  # F'F, G'F

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.F_rep)

    def columns(self, trait: int) -> list[int]:
        """Those of F that are [X_L | y] of one trait."""
        return [*range(self.q), self.q + trait]

    def design(self, trait: int, part: SimilarityPart) -> LowRankDesign:
        """[X_L | y] of one trait without one part."""
        columns = self.columns(trait)
        return LowRankDesign(self.FF_rep[np.ix_(columns, columns)], self.GF_rep[:, columns] * part.kept[:, None])


@dataclass(frozen=True)
class StoredGram:
    """G'G of ``n`` samples in its ``file``; its factors are made on the ``card`` of rank 0, None: on the grid.

    ``stays``: G'G may stay on the card.
    """

    file: GramFile
    n: int
    card: Card | None
    stays: bool

    def load(self, grid: ProcessGrid, world: World) -> SimilarityGram:
        """G'G to the grid, once for all parts. Collective over the grid."""
        with world.phase("load G'G"):
            return SimilarityGram.of(self.file.load(grid), self.n, world.of(grid.comm), self.card, self.stays)


def estimate_all(
    gram: StoredGram,
    products: Products,
    parts: Sequence[SimilarityPart],
    nulls: np.ndarray,
    team_size: int,
    world: World,
    save: Callable[[np.ndarray], None],
) -> None:
    """REML of every part and trait of which ``nulls`` (parts, T) know nothing yet; the records are filled in.

    In each round every team takes one part; after it ``save`` keeps the records, on one rank. Collective. Raises
    Stopped, on all ranks, when a signal asked for it.
    """
    left = np.flatnonzero((nulls["source"] == null_record.Source.UNKNOWN).any(axis=1)).tolist()
    with split_teams(world.comm, team_size) as team, ProcessGrid(team.comm) as grid:
        quiet = dataclasses.replace(world.of(grid.comm), log=Log.silent())
        GG = gram.load(grid, world) if left else None
        for start in range(0, len(left), team.count):
            of_round = left[start : start + team.count]
            mine = of_round[team.index] if team.index < len(of_round) else None
            found = nulls[:0]
            with world.together():
                if mine is not None and GG is not None:
                    found = _estimate_part(GG, products, parts[mine], nulls[mine], quiet)
            _join(nulls, mine, found, team, world)
            world.on_root(lambda: save(nulls))
            for c in of_round:
                shown = ", ".join("NA" if np.isnan(h2) else f"{h2:.6f}" for h2 in nulls["h2"][c, :3]) + (
                    " ..." if nulls.shape[1] > 3 else ""
                )
                world.log.info(f"{parts[c].of('stage 2')}: h2 {shown}")
    world.on_root(lambda: save(nulls))


def _estimate_part(
    GG: SimilarityGram, products: Products, part: SimilarityPart, known: np.ndarray, world: World
) -> np.ndarray:
    """The records (T,) of one part, those that are not ``known`` by REML. Collective over the team's grid."""
    V = GG.covariance(part.kept, part.scale, world)
    records = known.copy()
    for trait in np.flatnonzero(known["source"] == null_record.Source.UNKNOWN):
        found = V.maximise(products.design(int(trait), part), world)
        records[trait] = null_record.estimated(found)
        records["log_likelihood"][trait] = found.log_likelihood
    return records


def _join(nulls: np.ndarray, mine: int | None, found: np.ndarray, team: Team, world: World) -> None:
    """Every team's records into every rank's. Collective."""
    for theirs in world.comm.allgather((mine, found) if team.comm.rank == 0 and mine is not None else None):
        if theirs is not None:
            nulls[theirs[0]] = theirs[1]

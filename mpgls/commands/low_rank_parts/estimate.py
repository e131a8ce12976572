"""Stage 2 of the low-rank model: h2 of every trait without each chromosome, chromosomes dealt to teams of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.common.session import Session
from mpgls.commands.low_rank_parts.gram import GramFile
from mpgls.commands.low_rank_parts.null import LowRankCovariance, LowRankNull
from mpgls.commands.mixed_model.loco import ScanPart
from mpgls.commands.mixed_model.null_figures import given_estimate, reml_estimate
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import Team, split_teams
from mpgls.mpi import agree, on_root
from mpgls.stream.stage_file import load_stage, save_stage

if TYPE_CHECKING:
    from mpi4py import MPI


STAGE_2 = "mpgls-low-rank-nulls"


@dataclass(frozen=True, eq=False)
class NullTable:
    """Estimates of each trait (first axis) without each part (second axis); ``done`` where there is one.

    ``h2_se`` and ``log_likelihood`` are NaN where h2 was given; ``boundary``: h2 is at an end of its range.
    """

    h2: np.ndarray
    h2_se: np.ndarray
    log_likelihood: np.ndarray
    boundary: np.ndarray
    done: np.ndarray

    @classmethod
    def empty(cls, traits: int, parts: int) -> NullTable:
        """Nothing is done."""
        numbers = [np.full((traits, parts), np.nan) for _ in range(3)]
        return cls(*numbers, *(np.zeros((traits, parts), dtype=bool) for _ in range(2)))

    @classmethod
    def load(cls, path: Path, mark: str) -> NullTable | None:
        """The table that an earlier run with the same inputs left, complete or not."""
        arrays = load_stage(path, STAGE_2, mark)
        return None if arrays is None else cls(**arrays)

    def estimate(self, trait: int, part: int) -> dict[str, Any]:
        """What is known of h2 of one trait and part."""
        at = trait, part
        if np.isnan(self.log_likelihood[at]):
            return given_estimate(self.h2[at])
        return reml_estimate(self.h2[at], self.h2_se[at], self.boundary[at])

    def save(self, path: Path, mark: str) -> None:
        """Replace the file. Call on one rank."""
        save_stage(path, STAGE_2, mark, asdict(self))


@dataclass(frozen=True, eq=False)
class SimilarityPart(ScanPart):
    """SNPs that share a similarity: ``kept`` (K,) bool the similarity SNPs of their model, ``runs`` the same as slices.

    ``scale`` is s, the mean diagonal of G_c G_c'.
    """

    kept: np.ndarray
    runs: list[slice]
    scale: float


@dataclass(frozen=True)
class Products:
    """Everything that REML needs beside G'G, for F = [X_L | y_1 ... y_T] over n samples, the same on every rank.

    ``FF_rep`` = F'F, ``C_rep`` = G'F (K, q+T), ``q`` covariates with the intercept.
    """

    n: int
    q: int
    FF_rep: np.ndarray
    C_rep: np.ndarray

    def null(self, covariance: LowRankCovariance, trait: int, part: SimilarityPart) -> LowRankNull:
        """The null model of one trait without one part."""
        columns = [*range(self.q), self.q + trait]
        C_rep = self.C_rep[:, columns] * part.kept[:, None]
        return LowRankNull(covariance, self.FF_rep[np.ix_(columns, columns)], C_rep)


def estimate_all(
    gram: GramFile,
    products: Products,
    parts: Sequence[SimilarityPart],
    known: np.ndarray,
    path: Path,
    mark: str,
    team_size: int,
    session: Session,
) -> NullTable:
    """REML of every trait and part that ``path`` does not have yet; ``known`` (T, parts) are given h2, NaN elsewhere.

    In each round every team takes one part; after it the estimates are saved. Collective. Raises Stopped, on all ranks,
    when a signal asked for it.
    """
    comm, log = session.comm, session.log
    table = on_root(comm, lambda: NullTable.load(path, mark)) or NullTable.empty(*known.shape)
    if table.done.any():
        log.info(f"stage 2: {int(table.done.sum())} of {table.done.size} null models are in {path}")
    given = ~np.isnan(known) & ~table.done
    table.h2[given], table.done[given] = known[given], True
    left = [c for c in range(len(parts)) if not table.done[:, c].all()]
    team = split_teams(comm, team_size)
    with ProcessGrid(team.comm) as grid:
        covariance = load_covariance(gram, products.n, grid, session) if left else None
        for start in range(0, len(left), team.count):
            mine = left[start + team.index] if start + team.index < len(left) else None
            found, error = [], None
            try:
                if mine is not None and covariance is not None:
                    found = _estimate_part(covariance, products, parts[mine], mine, table, session)
            except Exception as caught:
                error = caught
            agree(comm, error)
            _join(table, found, team, comm)
            on_root(comm, lambda: table.save(path, mark))
            for c in left[start : start + team.count]:
                shown = ", ".join(f"{h2:.6f}" for h2 in table.h2[:3, c]) + (" ..." if len(table.h2) > 3 else "")
                log.info(f"{parts[c].of('stage 2')}: h2 {shown}")
    team.comm.Free()
    on_root(comm, lambda: table.save(path, mark))
    return table


Found = list[tuple[int, int, float, float, float, bool]]
"""(trait, part, h2, its standard error, log-likelihood, at the boundary)."""


def load_covariance(gram: GramFile, n: int, grid: ProcessGrid, session: Session) -> LowRankCovariance:
    """G'G from its file to the grid, once for all parts. Collective over the grid."""
    with session.timings.phase("load G'G"):
        return LowRankCovariance(gram.load(grid), n, session.timings)


def _estimate_part(
    covariance: LowRankCovariance,
    products: Products,
    part: SimilarityPart,
    number: int,
    table: NullTable,
    session: Session,
) -> Found:
    """The traits of one part that are not done. Collective over the team's grid."""
    covariance.use(part.kept, part.scale)
    found = []
    for trait in np.flatnonzero(~table.done[:, number]):
        result = products.null(covariance, int(trait), part).maximise(session.stop)
        found.append((int(trait), number, result.h2, result.h2_se, result.log_likelihood, result.at_boundary))
    return found


def _join(table: NullTable, found: Found, team: Team, comm: MPI.Comm) -> None:
    """Every team's estimates into every rank's table. Collective."""
    for theirs in comm.allgather(found if team.comm.rank == 0 else []):
        for trait, c, *numbers in theirs:
            table.h2[trait, c], table.h2_se[trait, c], table.log_likelihood[trait, c] = numbers[:3]
            table.boundary[trait, c], table.done[trait, c] = numbers[3], True

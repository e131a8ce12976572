"""V(h2) = h2 Phi + (1-h2) I, whatever Phi is held as, and what whitens with it.

A `Covariance` is asked for points of the REML likelihood, and for a `Whitener` at one h2: the operator L^-1 of V = L L'
(or D^-1/2 Z' in an eigenbasis). The whitener gives the sums of the null model, whitens a few columns, and is handed to
teams of ranks, whose `TeamOperator` whitens the stream of SNPs. Neither remembers an h2 that someone chose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from mpgls.la.layout import Block
from mpgls.la.teams import Team, TeamOperator
from mpgls.model.gls import NullSums
from mpgls.model.reml import RemlPoint, RemlResult
from mpgls.model.reml_start import StartSums
from mpgls.run.world import World


class Whitener(Protocol):
    """L^-1 of V(h2) = L L'. It is valid until its covariance makes another point or whitener."""

    triangle: bool
    """Whether L^-1 is zero above its diagonal."""

    def sums(self, F_rep: np.ndarray) -> NullSums:
        """S_TL, b_T, y~'y~ and log|V| for F = [X_L | y] as ``Covariance.design`` made it. Collective."""

    def columns(self, C_rep: np.ndarray) -> np.ndarray:
        """C~ = L^-1 C (n, k), float64 on every rank, of a few columns as ``design`` made them. Collective."""

    def adjoint(self, C_tilde_rep: np.ndarray) -> np.ndarray:
        """L^-T C~, float64 on every rank, of a few whitened columns (n, k), in the order of the samples. Collective."""

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """X~ = L^-1 X on every team, for blocks of ``width`` SNPs a rank. Collective."""

    def row_blocks(self, wanted: Sequence[Sequence[Block]]) -> Iterator[np.ndarray]:
        """Of the blocks of L^-1 that each rank wants, this rank's, one after the other; zero above a diagonal.

        Float64, of the host or of this rank's card. Collective, to be iterated to its end.
        """

    def flop_of_hold(self, team: Team) -> float:
        """Floating-point operations of a rank in `hold`."""


class Covariance(Protocol):
    """V(h2) over n samples."""

    n: int

    def design(self, F_rep: np.ndarray) -> np.ndarray:
        """A few columns (n, k), the same on every rank, in the basis that this covariance works in. Collective."""

    def maximise(self, F_rep: np.ndarray, world: World) -> RemlResult:
        """REML over h2 for F = [X_L | y] as ``design`` made it; h2 is NaN where Phi leaves it unidentified. Collective.

        Raises Stopped, on all ranks, when a signal asked for it between two evaluations.
        """

    def at(self, h2: float) -> Whitener:
        """The whitener at one h2. Collective. Raises NumericalError where V is not positive definite."""


class PointwiseCovariance(Protocol):
    """A covariance of which one point of the likelihood costs a factorisation."""

    n: int
    tolerance: float

    def start(self, F: Any) -> StartSums:
        """What REML needs at h2 = 0 of F = [X_L | y] as this covariance sees it. Collective."""

    def point(self, h2: float, F: Any, dtype: type) -> RemlPoint:
        """The REML log-likelihood and its derivatives at ``h2`` > 0. Collective.

        F = [X_L | y] as this covariance sees it; `reml.FAILED` where there is no factor.
        """


def log_det_gram(X_L: np.ndarray) -> float:
    """log|X_L'X_L| for covariates (n, q)."""
    return float(np.linalg.slogdet(X_L.T @ X_L)[1])

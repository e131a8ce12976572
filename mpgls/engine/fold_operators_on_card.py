"""The operators of all folds for some penalties on the card of each rank, and what takes tiles of permutations there.

Every rank makes all of them on its own card, from the kernel that its node shares. Those of a kernel for each fold are
made by the ranks, and copied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from mpgls.device.card import PRODUCTS, Card
from mpgls.device.fold_errors import Batch, FoldErrors
from mpgls.device.fold_operators import leave_out, residual_operator, smoothers
from mpgls.engine.fold_operators import FoldProblem, PenaltyOperators
from mpgls.engine.permutation_tiles import TileScanner
from mpgls.engine.permutations_on_card import TileScannerOnCard
from mpgls.engine.ridge_plan import PenaltyPlan
from mpgls.errors import NumericalError
from mpgls.model.folds import NestedFolds
from mpgls.model.kernel_ridge import FOLD_IS_LOST, Direct, Kind, LeaveOut
from mpgls.run.world import World


class PenaltyOperatorsOnCard(PenaltyOperators):
    """`PenaltyOperators` that are `FoldErrors` of ``card``."""

    def __init__(
        self, card: Card, problem: FoldProblem, alphas: tuple[float, ...], kinds: list[Kind], world: World
    ) -> None:
        super().__init__(problem, alphas, kinds, world)
        self.card = card

    @property
    def multiplications(self) -> int:
        """Multiplications for one target and the penalties that are held."""
        return sum(self.kinds[a].size(self.problem.folds) for a in self._group)

    def _build(self, alphas: tuple[float, ...], kinds: list[Kind]) -> None:
        """On the card. Collective."""
        if self.problem.kernel_of_fold is not None:
            super()._build(alphas, kinds)
            with self.world.together(), self.card.lane(PRODUCTS):
                made = [copied(self.card, one, self.problem.folds) for one in self._operators]
            self.close()
            self._operators = made
            return
        for alpha, kind in zip(alphas, kinds, strict=True):
            with self.world.phase("fold operators"), self.world.together(stop=True), self.card.lane(PRODUCTS):
                self._operators.append(self._made(alpha, kind))

    def _made(self, alpha: float, kind: Kind) -> FoldErrors:
        """From K of the node. Raises NumericalError."""
        card, xp, folds, dtype = self.card, self.card.xp, self.problem.folds, self.problem.dtype
        lost = f"the kernel with penalty {alpha:g} is not positive definite"
        try:
            K = xp.asarray(self.problem.K_node.array.T)  # symmetric, and in one piece
            card.settle()  # K is not on the host twice
            D = residual_operator(card, K, xp.asarray(self.problem.C_rep), alpha)
            del K
            lost = FOLD_IS_LOST
            of_outer = [(fold.test, fold.inner) for fold in folds.outer]
            if kind is LeaveOut:
                made = empty_errors(card, kind, folds, dtype, D.astype(dtype, copy=False))
                matrices = leave_out(card, D, of_outer)
            else:
                made = empty_errors(card, kind, folds, dtype)
                matrices = smoothers(card, D, of_outer, kind.rows(folds))
            for k, A in matrices:
                made.put(k, A)
            return made
        except np.linalg.LinAlgError:
            raise NumericalError(lost) from None


def copied(card: Card, operators: LeaveOut | Direct, folds: NestedFolds) -> FoldErrors:
    """The operators of a penalty that the ranks have made, on the card; in the lane of products."""
    if isinstance(operators, Direct):
        D, matrices = None, operators.A
    else:
        D, matrices = card.xp.asarray(operators.D), [*operators.N, *(M for of_fold in operators.M for M in of_fold)]
    made = empty_errors(card, type(operators), folds, matrices[0].dtype.type, D)
    for k, A in enumerate(matrices):
        made.put(k, A)
    return made


def empty_errors(card: Card, kind: Kind, folds: NestedFolds, dtype: type, D: Any = None) -> FoldErrors:
    """``D``, and zeros in place of the matrices of all folds; in the lane of products."""
    rows, outer = kind.rows(folds), len(folds.outer)
    sides = (folds.tests[:outer], rows[:outer]), (folds.tests[outer:], rows[outer:])
    return FoldErrors(D, *(Batch(card, *side, dtype, folds.n, kind is Direct) for side in sides))


def penalty_operators(
    card: Card | None, problem: FoldProblem, alphas: tuple[float, ...], kinds: list[Kind], world: World
) -> PenaltyOperators:
    """Of the ranks, or of their cards."""
    if card is None:
        return PenaltyOperators(problem, alphas, kinds, world)
    return PenaltyOperatorsOnCard(card, problem, alphas, kinds, world)


def tile_scanner(card: Card | None, plan: PenaltyPlan) -> Callable[..., TileScanner]:
    """What makes a `TileScanner` of the rank, or of its card by ``plan``."""
    if card is None or plan.on_card is None:
        return TileScanner
    return functools.partial(TileScannerOnCard, card, plan.on_card.work)

"""The operators of all folds for some penalties, built by the ranks of each node in memory that they share.

    D_alpha = alpha (V^-1 - V^-1 C (C'V^-1 C)^-1 C'V^-1),   V = K + alpha I     (model/kernel_ridge.py)

The tiles of V^-1 are dealt to the ranks of a node, then the outer folds; with a kernel for each fold, the penalties.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from mpgls.errors import NumericalError
from mpgls.la.scalapack import NotPositiveDefinite
from mpgls.la.shared import SharedArray
from mpgls.la.shared_inverse import invert
from mpgls.model.folds import NestedFolds
from mpgls.model.kernel_ridge import (
    Direct,
    Kind,
    LeaveOut,
    fitted_root,
    largest_eigenvalue,
    leave_out_is_safe,
    residual_columns,
    residual_operator,
    smallest_penalty,
    strips,
)
from mpgls.run.log import duration
from mpgls.run.world import World


@dataclass(frozen=True, eq=False)
class FoldProblem:
    """Ridge regression in every one of ``folds``: the kernel K (n, n) and covariates C (n, q) with the intercept.

    ``dtype`` is that of the operators. Where SNPs are standardised over each training set, ``kernel_of_fold(k)`` fills
    ``K_node`` with the kernel of training set k, and is collective.
    """

    K_node: SharedArray
    C_rep: np.ndarray
    folds: NestedFolds
    dtype: type
    kernel_of_fold: Callable[[int], None] | None = None

    def largest_eigenvalue(self, world: World) -> float:
        """The largest eigenvalue of K beside the covariates. Collective."""
        return world.on_root(lambda: largest_eigenvalue(self.K_node.array, self.C_rep))

    def kinds(self, alphas: tuple[float, ...], largest: float) -> list[Kind]:
        """How each penalty is computed: leave-out where rounding allows it and all folds share a kernel.

        Raises NumericalError, the same on all ranks, for a penalty that rounding leaves nothing of.
        """
        if min(alphas) < (least := smallest_penalty(largest)):
            raise NumericalError(
                f"the penalty {min(alphas):g} is lost in rounding beside the kernel's largest eigenvalue, "
                f"{largest:.4g}: give penalties of at least {least:.1e}"
            )
        shared = self.kernel_of_fold is None
        return [LeaveOut if shared and leave_out_is_safe(largest, alpha, self.dtype) else Direct for alpha in alphas]


class PenaltyOperators:
    """Holds the operators of one group of penalties at a time; a single group is built once.

    ``kinds`` says how each of ``alphas`` is computed. `hold` and `close`, which the end of a ``with`` block calls, are
    collective.
    """

    def __init__(self, problem: FoldProblem, alphas: tuple[float, ...], kinds: list[Kind], world: World) -> None:
        self.problem, self.alphas, self.kinds, self.world = problem, alphas, kinds, world
        self._group = range(0)
        self._flat_node: list[SharedArray] = []
        self._operators: list[Any] = []

    def hold(self, group: range) -> list[Any]:
        """The operators of the penalties ``group``, in place of those held: LeaveOut or Direct. Collective.

        Raises NumericalError where a matrix has no inverse, MemoryPlanError where shared memory has no room, and
        Stopped after a signal, on all ranks.
        """
        if group != self._group:
            self.close()
            self._group, start = group, time.perf_counter()
            self._build(self.alphas[group.start : group.stop], self.kinds[group.start : group.stop])
            named = ", ".join(f"{alpha:g}" for alpha in self.alphas[group.start : group.stop])
            self.world.log.info(f"operators: penalties {named} in {duration(time.perf_counter() - start)}")
        return self._operators

    @property
    def multiplications(self) -> int:
        """Multiplications for one target and the penalties that are held."""
        return sum(flat_node.array.size for flat_node in self._flat_node)

    def close(self) -> None:
        """Give the memory back. Collective."""
        self._operators.clear()
        while self._flat_node:
            self._flat_node.pop().close()

    def __enter__(self) -> PenaltyOperators:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # after a failure of this rank alone the others do not come here: giving back would wait for them
        if error is None:
            self.close()

    # -- building -----------------------------------------------------------------------------------------------------

    def _build(self, alphas: tuple[float, ...], kinds: list[Kind]) -> None:
        folds, node = self.problem.folds, self.problem.K_node.comm
        for kind in kinds:
            flat_node = SharedArray(node, (kind.size(folds),), self.problem.dtype, "operators")
            self._flat_node.append(flat_node)
            self._operators.append(kind(folds, flat_node.array))
        if self.problem.kernel_of_fold is None:
            self._build_from_one_kernel(alphas)
        else:
            self._build_fold_by_fold(alphas, self.problem.kernel_of_fold)

    def _build_from_one_kernel(self, alphas: tuple[float, ...]) -> None:
        """From D for each penalty: its tiles, then the folds, are dealt to the node's ranks."""
        K_node, world = self.problem.K_node, self.world
        D_node = SharedArray(K_node.comm, K_node.array.shape, np.float64, "inverse")
        n, node = D_node.array.shape[0], K_node.comm
        for alpha, operators in zip(alphas, self._operators, strict=True):
            with world.phase("invert", flop=float(n) ** 3 / node.size):
                self._residual_operator(D_node, alpha)
            with world.phase("fold operators"):
                self._on_all_ranks(functools.partial(self._build_folds, operators, D_node.array))
        D_node.close()

    def _residual_operator(self, D_node: SharedArray, alpha: float) -> None:
        """D = alpha (V^-1 - F'F), V = K + alpha I. Collective over the node."""
        D, mine = D_node.array, strips(D_node.array.shape[0])[D_node.comm.rank :: D_node.comm.size]
        for columns in mine:
            D[:, columns] = self.problem.K_node.array[:, columns]
            D[range(columns.start, columns.stop), range(columns.start, columns.stop)] += alpha
        try:
            invert(D_node)
        except NotPositiveDefinite as error:
            raise NumericalError(f"the kernel with penalty {alpha:g} has no inverse: {error}") from None
        F = fitted_root(D, self.problem.C_rep)
        D_node.fence()
        for columns in mine:
            residual_columns(D, F, alpha, columns)
        D_node.fence()
        self.world.raise_if_stopped()

    def _build_folds(self, operators: LeaveOut | Direct, D: np.ndarray) -> None:
        node = self.problem.K_node.comm
        for o in range(node.rank, len(self.problem.folds.outer), node.size):
            operators.build(D, o)

    def _build_fold_by_fold(self, alphas: tuple[float, ...], kernel_of_fold: Callable[[int], None]) -> None:
        """Direct operators from one kernel for each training set; penalties are dealt to the node's ranks."""
        K_node, node = self.problem.K_node, self.problem.K_node.comm
        V = np.empty(K_node.array.shape, order="F")

        def build(k: int) -> None:
            for a in range(node.rank, len(alphas), node.size):
                operators = self._operators[a]
                assert isinstance(operators, Direct)
                V[...] = K_node.array
                residual_operator(V, self.problem.C_rep, alphas[a])
                operators.build_fold(V, k)

        for k in range(len(self.problem.folds.tests)):
            kernel_of_fold(k)
            with self.world.phase("fold operators"):
                self._on_all_ranks(functools.partial(build, k))

    def _on_all_ranks(self, work: Callable[[], object]) -> None:
        """``work`` on this rank; all ranks raise what one of them raised, or that the run is to stop."""
        with self.world.together(stop=True), self.world.clock.alone():
            work()
        self.problem.K_node.fence()

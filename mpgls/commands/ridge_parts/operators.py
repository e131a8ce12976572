"""The operators of all folds for some penalties, built by the ranks of each node in memory that they share."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from mpgls.commands.common.session import Session
from mpgls.errors import NumericalError
from mpgls.la.scalapack import NotPositiveDefinite
from mpgls.la.shared import SharedArray
from mpgls.la.shared_inverse import invert
from mpgls.model.folds import NestedFolds
from mpgls.model.kernel_ridge import (
    Direct,
    LeaveOut,
    fitted_root,
    leave_out_is_safe,
    residual_columns,
    residual_operator,
    smallest_penalty,
    strips,
)
from mpgls.mpi import agree

Kind = type[LeaveOut] | type[Direct]


def kinds(alphas: tuple[float, ...], largest: float, dtype: type, by_fold: bool) -> list[Kind]:
    """How each penalty is computed: leave-out where rounding allows it and all folds share a kernel.

    Raises NumericalError, the same on all ranks, for a penalty that rounding leaves nothing of.
    """
    if min(alphas) < (least := smallest_penalty(largest)):
        raise NumericalError(
            f"the penalty {min(alphas):g} is lost in rounding beside the kernel's largest eigenvalue, {largest:.4g}: "
            f"give penalties of at least {least:.1e}"
        )
    return [LeaveOut if not by_fold and leave_out_is_safe(largest, alpha, dtype) else Direct for alpha in alphas]


class HeldOperators:
    """Operators of the penalties ``alphas``, of these ``kinds``. Creating and closing it are collective."""

    def __init__(
        self, alphas: tuple[float, ...], kinds: list[Kind], folds: NestedFolds, dtype: type, session: Session,
        K: SharedArray, C: np.ndarray,
    ) -> None:  # fmt: skip
        self.alphas, self.folds, self.session, self.C, self.K = alphas, folds, session, C, K
        node = K.comm
        self._memory = [SharedArray(node, (kind.size(folds),), dtype, "operators") for kind in kinds]
        self.each = [kind(folds, memory.array) for kind, memory in zip(kinds, self._memory, strict=True)]

    def build(self) -> None:
        """Fill the operators from one kernel for all folds; tiles of D, then folds, are dealt to the node's ranks."""
        node, timings = self.K.comm, self.session.timings
        D = SharedArray(node, self.K.array.shape, np.float64, "inverse")
        for alpha, operators in zip(self.alphas, self.each, strict=True):
            with timings.phase("invert", flop=float(D.array.shape[0]) ** 3 / node.size):
                self._residual_operator(D, alpha)
            with timings.phase("fold operators"):
                self._together(functools.partial(self._build_folds, operators, D.array))
        D.close()

    def _residual_operator(self, D: SharedArray, alpha: float) -> None:
        """D = alpha (V^-1 - F'F), V = K + alpha I. Collective over the node."""
        mine = strips(D.array.shape[0])[D.comm.rank :: D.comm.size]
        for columns in mine:
            D.array[:, columns] = self.K.array[:, columns]
            D.array[range(columns.start, columns.stop), range(columns.start, columns.stop)] += alpha
        try:
            invert(D)
        except NotPositiveDefinite as error:
            raise NumericalError(f"the kernel with penalty {alpha:g} has no inverse: {error}") from None
        F = fitted_root(D.array, self.C)
        D.fence()
        for columns in mine:
            residual_columns(D.array, F, alpha, columns)
        D.fence()
        agree(self.session.comm, self.session.stop.problem())

    def _build_folds(self, operators: LeaveOut | Direct, D: np.ndarray) -> None:
        for o in range(self.K.comm.rank, len(self.folds.outer), self.K.comm.size):
            operators.build(D, o)

    def build_by_fold(self, kernel_of: Callable[[int], None]) -> None:
        """Fill direct operators fold by fold: ``kernel_of(k)`` makes K for training set k; penalties dealt to ranks."""
        node, timings = self.K.comm, self.session.timings
        V = np.empty(self.K.array.shape, order="F")
        for k in range(len(self.folds.tests)):
            kernel_of(k)

            def work(k: int = k) -> None:
                for a in range(node.rank, len(self.alphas), node.size):
                    operators = self.each[a]
                    assert isinstance(operators, Direct)
                    V[...] = self.K.array
                    residual_operator(V, self.C, self.alphas[a])
                    operators.build_fold(V, k)

            with timings.phase("fold operators"):
                self._together(work)

    def _together(self, work: Callable[[], object]) -> None:
        """``work`` on this rank; all ranks raise what one of them raised, or that the run is to stop."""
        error: BaseException | None = None
        try:
            work()
        except Exception as caught:
            error = caught
        agree(self.session.comm, error or self.session.stop.problem())
        self.K.fence()

    @property
    def multiplications(self) -> int:
        """Multiplications for one target and all penalties."""
        return sum(memory.array.size for memory in self._memory)

    def close(self) -> None:
        """Give the memory back. Collective."""
        self.each.clear()
        for memory in self._memory:
            memory.close()

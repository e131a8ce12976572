"""A `Card` without a GPU that forgives no more than one: `strict_cupy` on `strict_lanes`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import strict_cupy
import strict_lanes

from mpgls.device.card import NumpyCard


class StrictCard(NumpyCard):
    """In place of `mpgls.device.cuda.CudaCard`."""

    xp = strict_cupy

    def lane(self, name: str) -> AbstractContextManager[Any]:
        """A lane of its own."""
        return strict_lanes.lane(name)

    def mark(self) -> Any:
        """What the lane has come to."""
        return strict_lanes.mark()

    def follow(self, mark: Any) -> None:
        """The lane waits."""
        strict_lanes.follow(mark)

    def wait(self, mark: Any) -> None:
        """The host waits."""
        strict_lanes.wait(mark)

    def settle(self) -> None:
        """The host waits for everything."""
        strict_lanes.settle()

    def copy_in(self, values: np.ndarray, into: Any) -> None:
        """As an array of CuPy is set."""
        into.set(values)
        strict_lanes.copy_in(values)

    def copy_out(self, values: Any, into: np.ndarray) -> None:
        """As from an array of CuPy: the host has the numbers after it has waited."""
        values.get(out=into, blocking=False)
        strict_lanes.copy_out(into, into)

    def to_host(self, values: Any) -> np.ndarray:
        """A copy."""
        return strict_cupy.asnumpy(values)

    def cholesky(self, A: Any) -> Any:
        """As CuPy does: numbers that are none, and no error."""
        return strict_cupy.linalg.cholesky(A)

    def solve_triangular(self, L: Any, B: Any, transposed: bool = False) -> Any:
        """As `cupyx.scipy.linalg.solve_triangular` does: in place, of columns that lie so."""
        solved = strict_cupy.asarray(super().solve_triangular(L.get(), B.get(order="F"), transposed))
        if not B.flags.f_contiguous:
            return solved
        B[...] = solved
        return B

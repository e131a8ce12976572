"""What a rank computes on: an array module, how much of its memory may be used, and two lanes of work.

Work of one lane goes on in its order; lanes go on beside each other, and beside the host. A mark is a place in a lane
that the other lane, or the host, can wait for. `NumpyCard` is the same without a card: everything is done at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

COPIES, PRODUCTS = "copies", "products"
"""The two lanes."""


class Card(Protocol):
    """A GPU, or NumPy in its place."""

    xp: Any
    """The array module: `numpy` or `cupy`."""
    name: str
    limit: int
    """Bytes of its memory that may be used."""

    def lane(self, name: str) -> AbstractContextManager[Any]:
        """What the body asks of ``xp`` is done in this lane."""

    def mark(self) -> Any:
        """The place that the lane of the body has reached."""

    def follow(self, mark: Any) -> None:
        """The lane of the body goes on when another has come to ``mark``; None: at once."""

    def wait(self, mark: Any) -> None:
        """The host goes on when a lane has come to ``mark``."""

    def settle(self) -> None:
        """The host goes on when the card has done everything; memory that copies to it went through is free again."""

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Memory of the host, zeros, that is copied beside other work."""

    def copy_in(self, values: np.ndarray, into: Any) -> None:
        """Begin to copy ``values``, of `host_array`, in the lane of the body."""

    def copy_out(self, values: Any, into: np.ndarray) -> None:
        """Begin to copy ``values`` of the card ``into`` a `host_array`, in the lane of the body."""

    def to_host(self, values: Any) -> np.ndarray:
        """``values`` of the card, when they are there."""

    def cholesky(self, A: Any) -> Any:
        """L (b, b) of A = L L', zero above its diagonal. Raises LinAlgError where there is none."""

    def solve_triangular(self, L: Any, B: Any, transposed: bool = False) -> Any:
        """L^-1 B, or L^-T B, for a lower triangle L (b, b) and columns B (b, k), which may be overwritten."""


class NumpyCard:
    """NumPy in place of a card: for tests, and for comparing."""

    xp: Any = np
    name = "no card: NumPy in its place"

    def __init__(self, limit: int = 2**40) -> None:
        self.limit = limit

    @contextlib.contextmanager
    def lane(self, name: str) -> Iterator[None]:
        """Nothing goes on beside anything."""
        yield

    def mark(self) -> None:
        """There is nothing to wait for."""

    def follow(self, mark: Any) -> None:
        """There is nothing to wait for."""

    def wait(self, mark: Any) -> None:
        """There is nothing to wait for."""

    def settle(self) -> None:
        """There is nothing to wait for."""

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Zeros."""
        return np.zeros(shape, dtype=dtype)

    def copy_in(self, values: np.ndarray, into: np.ndarray) -> None:
        """Copy."""
        into[...] = values

    def copy_out(self, values: np.ndarray, into: np.ndarray) -> None:
        """Copy."""
        into[...] = values

    def to_host(self, values: np.ndarray) -> np.ndarray:
        """As they are."""
        return values

    def cholesky(self, A: np.ndarray) -> np.ndarray:
        """LAPACK's."""
        return np.linalg.cholesky(A)

    def solve_triangular(self, L: np.ndarray, B: np.ndarray, transposed: bool = False) -> np.ndarray:
        """LAPACK's."""
        from scipy.linalg import solve_triangular

        solved: np.ndarray = solve_triangular(
            L, B, trans=int(transposed), lower=True, overwrite_b=True, check_finite=False
        )
        return solved

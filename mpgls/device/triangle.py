"""A lower triangle on a card: its Cholesky factor, the inverse of that, and solves, in half the bytes of a square.

The triangle lies in panels of `WIDTH` columns, each from its diagonal downwards. Every operation is a product of
panels, or of a diagonal block (Higham, Accuracy and Stability of Numerical Algorithms, 2002, chapters 10 and 14):

    factor    for each panel j:  P_j -= sum_(k<j) L_k L_k,j',   L_jj = chol(P_jj),   L_ij = P_ij L_jj^-T
    inverse   for each j, the last first:  W_jj = L_jj^-1,   W_ij = -(sum_k W_ik L_kj) W_jj
    solve     for each j:  X_j := L_jj^-1 X_j,   X_i -= L_ij X_j
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mpgls.device.card import Card
from mpgls.la.layout import Block
from mpgls.la.scalapack import NotPositiveDefinite

WIDTH = 1024
"""Columns of a panel."""


def panel_columns(n: int) -> list[range]:
    """The columns of each panel of an n x n triangle."""
    return [range(start, min(start + WIDTH, n)) for start in range(0, n, WIDTH)]


def triangle_size(n: int) -> int:
    """Numbers of an n x n triangle, whose diagonal blocks are whole."""
    return sum((n - cols.start) * len(cols) for cols in panel_columns(n))


def bytes_of_triangles(n: int, count: int) -> int:
    """Bytes of so many n x n triangles in float64, and of three panels beside them while one is made."""
    return 8 * (count * triangle_size(n) + 3 * n * min(WIDTH, n))


class Panel(NamedTuple):
    """Columns ``cols`` of a triangle, from row ``cols.start`` on: ``top`` (b, b) and what is ``below`` it (any, b)."""

    cols: range
    whole: Any
    top: Any
    below: Any


class Triangle:
    """An n x n lower triangle in ``memory`` (`triangle_size`,) of ``card``, or a symmetric matrix by its lower part.

    A symmetric matrix has its diagonal blocks whole; a factor and its inverse have zeros above their diagonal. Its
    methods are to be called in the lane of products.
    """

    def __init__(self, card: Card, n: int, memory: Any) -> None:
        self.card, self.n, self.memory = card, n, memory
        self.panels, start = [], 0
        for cols in panel_columns(n):
            rows, b = n - cols.start, len(cols)
            whole = memory[start : start + rows * b].reshape(rows, b)
            self.panels.append(Panel(cols, whole, whole[:b], whole[b:]))
            start += rows * b

    @classmethod
    def empty(cls, card: Card, n: int, dtype: Any = np.float64) -> Triangle:
        """In new memory."""
        return cls(card, n, card.xp.empty(triangle_size(n), dtype=dtype))

    # -- symmetric ----------------------------------------------------------------------------------------------------

    def fill(self, A: Triangle, a: float, b: float, kept: Any) -> None:
        """This := a A + b I for symmetric A; rows and columns of A with ``kept`` (n,) zero, not one, are left out."""
        xp = self.card.xp
        for panel, of_A in zip(self.panels, A.panels, strict=True):
            top = panel.top
            panel.whole[...] = float(a) * _chosen(of_A, kept)
            top += float(b) * xp.eye(len(panel.cols), dtype=top.dtype)

    def product(self, C: Any, kept: Any) -> tuple[Any, float]:
        """A C (n, k) for this symmetric A and few columns C (n, k), and the sum of the squares of A; as in `fill`."""
        total, square = self.card.xp.zeros_like(C), 0.0
        for panel in self.panels:
            b, here = len(panel.cols), _rows(panel.cols)
            P = _chosen(panel, kept)
            total[panel.cols.start :] += P @ C[here]
            square += float((P[:b] ** 2).sum())
            if len(panel.below):
                total[here] += P[b:].T @ C[panel.cols.stop :]
                square += 2.0 * float((P[b:] ** 2).sum())
        return total, square

    # -- its factor ---------------------------------------------------------------------------------------------------

    def factorise(self) -> None:
        """This symmetric matrix := its Cholesky factor L. Raises NotPositiveDefinite where there is none."""
        for j, panel in enumerate(self.panels):
            P = panel.whole
            for left in self.panels[:j]:
                first = panel.cols.start - left.cols.start
                P -= left.whole[first:] @ left.whole[first : first + len(panel.cols)].T
            panel.top[...] = self._block_factor(panel)
            if len(panel.below):
                panel.below[...] = self.card.solve_triangular(panel.top, panel.below.T).T

    def _block_factor(self, panel: Panel) -> Any:
        try:
            L = self.card.cholesky(panel.top)
            positive = bool((self.card.xp.diagonal(L) > 0).all())  # false where it is not a number
        except np.linalg.LinAlgError:
            positive = False
        if not positive:
            raise NotPositiveDefinite(
                f"a leading minor of order {panel.cols.stop} (of {self.n}) or less is not positive definite"
            )
        return L

    def log_det(self) -> float:
        """log|L L'| = 2 sum log diag(L) of this factor."""
        diagonal = [self.card.to_host(self.card.xp.diagonal(panel.top)) for panel in self.panels]
        return 2.0 * float(np.log(np.concatenate(diagonal).astype(np.float64)).sum())

    def solve(self, X: Any) -> None:
        """X := L^-1 X for few columns X (n, k)."""
        for panel in self.panels:
            here = _rows(panel.cols)
            X[here] = self.card.solve_triangular(panel.top, X[here])
            if len(panel.below):
                X[panel.cols.stop :] -= panel.below @ X[here]

    def solve_transposed(self, X: Any) -> None:
        """X := L^-T X for few columns X (n, k)."""
        for panel in reversed(self.panels):
            here = _rows(panel.cols)
            if len(panel.below):
                X[here] -= panel.below.T @ X[panel.cols.stop :]
            X[here] = self.card.solve_triangular(panel.top, X[here], transposed=True)

    # -- the inverse of its factor ------------------------------------------------------------------------------------

    def invert(self) -> None:
        """This factor L := W = L^-1."""
        xp = self.card.xp
        for j, panel in reversed(list(enumerate(self.panels))):
            b = len(panel.cols)
            W_jj = self.card.solve_triangular(panel.top, xp.eye(b, dtype=panel.top.dtype))
            below = xp.zeros_like(panel.below)
            for right in self.panels[j + 1 :]:  # their columns are those of W by now
                first = right.cols.start - panel.cols.stop
                of_rows = below[first:]
                of_rows -= right.whole @ panel.below[first : first + len(right.cols)]
            panel.top[...] = W_jj
            if len(below):
                panel.below[...] = below @ W_jj

    def multiply(self, C: Any) -> Any:
        """W C (n, k) for few columns C (n, k)."""
        total = self.card.xp.zeros_like(C)
        for panel in self.panels:
            total[panel.cols.start :] += panel.whole @ C[_rows(panel.cols)]
        return total

    def multiply_transposed(self, C: Any) -> Any:
        """W'C (n, k) for few columns C (n, k)."""
        xp = self.card.xp
        return xp.concatenate([panel.whole.T @ C[panel.cols.start :] for panel in self.panels])

    def block(self, wanted: Block) -> Any:
        """Some rows and columns, zero above the diagonal."""
        (rows, cols), xp = wanted, self.card.xp
        found = xp.zeros((len(rows), len(cols)), dtype=self.memory.dtype)
        for panel in self._from(cols):
            first, last = max(cols.start, panel.cols.start), min(cols.stop, panel.cols.stop)
            top = max(rows.start, panel.cols.start)
            if first < last and top < rows.stop:
                part = panel.whole[top - panel.cols.start : rows.stop - panel.cols.start]
                part = part[:, first - panel.cols.start : last - panel.cols.start]
                found[top - rows.start :, first - cols.start : last - cols.start] = part
        return found

    def _from(self, cols: range) -> Iterator[Panel]:
        """The panels that have some of these columns."""
        return (panel for panel in self.panels if panel.cols.start < cols.stop and panel.cols.stop > cols.start)


def _rows(cols: range) -> slice:
    return slice(cols.start, cols.stop)


def _chosen(panel: Panel, kept: Any) -> Any:
    """The panel with zeros where a row or a column is not kept; as it is where ``kept`` is None."""
    if kept is None:
        return panel.whole
    return panel.whole * kept[panel.cols.start :, None] * kept[_rows(panel.cols)]

"""The inverse of a positive definite matrix in a node's shared memory, by tiles that are dealt to the node's ranks.

A sweep of each block of rows and columns k in turn, in the lower triangle (Gauss-Jordan; Goodnight, American
Statistician 33, 1979):

    S = A_kk^-1,   P = A_:k,   Q = P S
    A_ij -= Q_i P_j'    for i, j other than k
    A_ik  = Q_i,        A_kk = -S

After the last sweep A holds -A^-1. It is n^3 operations, as many as dpotrf and dpotri take, but nearly all of them are
products of tiles, and no tile depends on how many ranks there are: neither do the bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mpgls.la.scalapack import NotPositiveDefinite
from mpgls.la.shared import SharedArray

BLOCK = 512
"""Rows and columns of a sweep."""
ROWS = 1024
"""Rows of a tile, so that a product is still in the cache when it is subtracted."""


def invert(A_node: SharedArray) -> None:
    """Overwrite the symmetric positive definite ``A_node`` (n, n), float64, by its inverse. Collective over the node.

    Only the lower triangle is read. Raises NotPositiveDefinite, on all ranks; it is then of no use.
    """
    from scipy.linalg import lapack

    n, node = A_node.array.shape[0], A_node.comm
    P_node, Q_node = (SharedArray(node, (n, min(BLOCK, n)), np.float64, "panel") for _ in range(2))
    A_node.fence()
    try:
        for k in _blocks(n, BLOCK):
            width = k.stop - k.start
            # every rank makes S for itself: nothing has to be sent, and all see alike whether there is one
            L, info = lapack.dpotrf(A_node.array[k, k], lower=1, clean=1)
            if info:
                order = k.start + info
                raise NotPositiveDefinite(f"the leading minor of order {order} (of {n}) is not positive definite")
            S = lapack.dpotri(L, lower=1)[0]
            S += np.tril(S, -1).T
            _make_panels(A_node, P_node.array[:, :width], Q_node.array[:, :width], S, k)
            A_node.fence()
            _update(A_node, P_node.array[:, :width], Q_node.array[:, :width], S, k)
            A_node.fence()
        _negate_and_mirror(A_node)
        A_node.fence()
    finally:
        P_node.close()
        Q_node.close()


def _blocks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _mine(A_node: SharedArray, blocks: list[slice]) -> list[slice]:
    return blocks[A_node.comm.rank :: A_node.comm.size]


def _make_panels(A_node: SharedArray, P: np.ndarray, Q: np.ndarray, S: np.ndarray, k: slice) -> None:
    """This rank's rows of P = A_:k, zero in rows k, and of Q = P S."""
    for rows in _mine(A_node, _blocks(A_node.array.shape[0], BLOCK)):
        if rows == k:
            P[rows] = 0.0
        else:
            P[rows] = A_node.array[rows, k] if rows.start > k.start else A_node.array[k, rows].T
        Q[rows] = P[rows] @ S


def _update(A_node: SharedArray, P: np.ndarray, Q: np.ndarray, S: np.ndarray, k: slice) -> None:
    """This rank's tiles of the lower triangle after the sweep of k."""
    n = A_node.array.shape[0]
    work: np.ndarray = np.empty(min(ROWS, n) * min(BLOCK, n))
    for columns in _mine(A_node, _blocks(n, BLOCK)):
        if columns == k:
            A_node.array[k.stop :, k] = Q[k.stop :]
            A_node.array[k, k] = -S
            continue
        if columns.start < k.start:
            A_node.array[k, columns] = Q[columns].T
        for rows in _below(columns, k, n):
            shape = rows.stop - rows.start, columns.stop - columns.start
            product = work[: shape[0] * shape[1]].reshape(shape, order="F")
            A_node.array[rows, columns] -= np.matmul(Q[rows], P[columns].T, out=product)


def _below(columns: slice, k: slice, n: int) -> Iterator[slice]:
    """The rows of a block of columns from its diagonal down, in tiles, without rows k."""
    for first, last in ((columns.start, k.start), (max(columns.start, k.stop), n)):
        for start in range(first, last, ROWS):
            yield slice(start, min(start + ROWS, last))


def _negate_and_mirror(A_node: SharedArray) -> None:
    for columns in _mine(A_node, _blocks(A_node.array.shape[0], BLOCK)):
        below = A_node.array[columns.stop :, columns]
        np.negative(below, out=below)
        A_node.array[columns, columns.stop :] = below.T
        square = -np.tril(A_node.array[columns, columns])
        A_node.array[columns, columns] = square + np.tril(square, -1).T

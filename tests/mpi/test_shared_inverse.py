"""The inverse of a matrix in shared memory: scaled residuals, and the same bits on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.la import shared_inverse
from mpgls.la.scalapack import NotPositiveDefinite
from mpgls.la.shared import SharedArray, split_node
from mpgls.la.shared_inverse import invert


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several sweeps, of several tiles each, neither dividing the other."""
    monkeypatch.setattr(shared_inverse, "BLOCK", 16)
    monkeypatch.setattr(shared_inverse, "ROWS", 23)


def covariance(n, condition):
    """Positive definite (n, n) with eigenvalues from 1/condition to 1."""
    Q = np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))[0]
    return (Q * np.geomspace(1.0 / condition, 1.0, n)) @ Q.T


def inverse_of(comm, A):
    """A^-1 by the ranks of ``comm``, which are on one node."""
    node = split_node(comm)
    shared = SharedArray(node, A.shape, np.float64)
    if node.rank == 0:
        shared.array[...] = np.tril(A)  # the upper triangle is not read
    invert(shared)
    found = shared.array.copy()
    shared.fence()
    shared.close()
    node.Free()
    return found


@pytest.mark.parametrize("condition", [10.0, 1e6])
@pytest.mark.parametrize("n", [1, 7, 16, 17, 101, 160])
def test_scaled_residual_and_bits(comm, n, condition):
    from mpi4py import MPI

    A = covariance(n, condition)
    X = inverse_of(comm, A)
    size = np.linalg.norm(A, 1) * np.linalg.norm(X, 1)
    # a sweep multiplies by an explicit inverse, which costs up to a root of the condition beside Cholesky's residual
    bound = max(1.0, 0.1 * np.sqrt(condition)) * n * np.finfo(float).eps * size
    assert np.linalg.norm(np.eye(n) - A @ X, 1) < bound
    np.testing.assert_array_equal(X, X.T)
    np.testing.assert_array_equal(X, inverse_of(MPI.COMM_SELF, A))


@pytest.mark.parametrize("order", [1, 16, 17, 60])
def test_a_matrix_without_an_inverse_is_refused_by_all_ranks(comm, order):
    A = covariance(60, 10.0)
    A[order - 1, order - 1] = -1.0
    with pytest.raises(NotPositiveDefinite, match=f"order {order} "):
        inverse_of(comm, A)

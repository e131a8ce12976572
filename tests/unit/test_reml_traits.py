"""REML by real factors, float32 and float64, of 200 simulated traits against the eigenbasis of the kinship."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parents[1]))
import oracle

from mpgls.engine.cholesky import CholeskyCovariance
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.model.reml import UPPER
from mpgls.run.log import Log
from mpgls.run.world import World

N, TRAITS = 71, 200
TOLERANCE = 1e-7


@pytest.fixture(scope="module")
def kinship():
    """Families of unequal sizes and some structure, in an order that hides them."""
    rng = np.random.default_rng(7)
    family = rng.integers(0, 16, N)
    Z = 0.7 * rng.standard_normal((16, 300))[family] + 0.7 * rng.standard_normal((N, 300))
    return oracle.scaled(Z @ Z.T)


@pytest.fixture(scope="module")
def covariance(kinship):
    with ProcessGrid(MPI.COMM_SELF) as grid:
        Phi_grid = GridMatrix.square(grid, N, 8)
        Phi_grid.local[...] = kinship
        yield CholeskyCovariance(Phi_grid, World(MPI.COMM_SELF, Log.silent()))


class Eigenbasis:
    """The REML score in the eigenbasis of U'Phi U, U a basis of what the covariates leave."""

    def __init__(self, Phi, X):
        Q = np.linalg.qr(X, mode="complete")[0][:, X.shape[1] :]
        self.mu, vectors = np.linalg.eigh(Q.T @ Phi @ Q)
        self.rotate = vectors.T @ Q.T

    def score(self, h2, z2):
        d = 1 - h2 + h2 * self.mu
        D = (self.mu - 1) / d
        return 0.5 * (z2.size * np.sum(D * z2 / d) / np.sum(z2 / d) - np.sum(D))

    def value(self, h2, z2):
        d = 1 - h2 + h2 * self.mu
        return -0.5 * (z2.size * np.log(np.sum(z2 / d)) + np.sum(np.log(d)))

    def optimum(self, y):
        z2 = (self.rotate @ y) ** 2
        h2 = np.append(np.linspace(0.0, 0.999, 200), UPPER)
        k = int(np.argmax([self.value(at, z2) for at in h2]))
        low, high = h2[max(k - 1, 0)], h2[min(k + 1, h2.size - 1)]
        if k == 0 and self.score(0.0, z2) <= 0.0:
            return 0.0
        for _ in range(50):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.score(middle, z2) > 0 else (low, middle)
        return high if high == UPPER else 0.5 * (low + high)


def test_200_traits_have_the_h2_of_the_eigenbasis(kinship, covariance):
    rng = np.random.default_rng(11)
    X = np.column_stack([np.ones(N), rng.standard_normal((N, 2))])
    basis = Eigenbasis(kinship, X)
    lam, Z = np.linalg.eigh(kinship)
    interior, ends = 0, {0.0: 0, UPPER: 0}
    for h2 in rng.uniform(0.0, 1.0, TRAITS):
        y = Z @ (np.sqrt(h2 * np.maximum(lam, 0) + 1 - h2) * rng.standard_normal(N))
        expected = basis.optimum(y)
        found = covariance.maximise(np.column_stack([X, y]), covariance.world)
        assert abs(found.h2 - expected) < TOLERANCE
        assert found.at_boundary == (expected in ends)
        if found.at_boundary:
            ends[expected] += 1
        else:
            interior += 1
            assert found.evaluations_double <= 5
    assert interior > TRAITS // 2 and min(ends.values()) > 0  # the traits try all three

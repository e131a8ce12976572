"""Null models on this machine's card: rates of the panelled Cholesky factor and its inverse, and seconds of REML.

The kinship is that of made-up SNPs, so REML has an optimum inside its range. V z = L (L'z) and L^-1 z by both ways are
checked on a few columns z; with --quick the h2 of the card is compared with that of the process grid.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from gpu_parts import seconds_of

from mpgls.device.card import PRODUCTS, Card
from mpgls.device.triangle import Triangle, panel_columns
from mpgls.engine.cholesky import CholeskyCovariance
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.model import reml
from mpgls.run.world import World

N, SNPS, QUICK_N = 20_000, 4_096, 203
TOLERATED = 1e-9


def measure(card: Card, quick: bool) -> dict[str, float | str]:
    """Operations a second of factor and inverse, in double and in single precision, and seconds of REML.

    Raises ValueError where a factor, its inverse or h2 is wrong.
    """
    from mpi4py import MPI

    n = QUICK_N if quick else N
    Phi, F = made_up(card, n)
    found: dict[str, float | str] = {"cholesky_n": float(n)}
    with card.lane(PRODUCTS):
        A = on_card(card, Phi)
        for name, dtype in (("", np.float64), ("_single", np.float32)):
            for key, seconds in rates(card, A, dtype).items():
                found[f"{key}_flops_per_s{name}"] = 0.0 if quick else n**3 / 3 / seconds
        del A
    with ProcessGrid(MPI.COMM_SELF) as grid:
        Phi_grid = GridMatrix.square(grid, n, 128)
        Phi_grid.local[...] = Phi
        del Phi
        start = time.perf_counter()
        of_card = estimate(Phi_grid, F, card)
        found["reml_seconds_card"] = 0.0 if quick else time.perf_counter() - start
        found["reml_factorisations"] = float(of_card.evaluations_single + of_card.evaluations_double)
        if quick and abs(of_card.h2 - estimate(Phi_grid, F, None).h2) > 2 * reml.TOLERANCE:
            raise ValueError(f"h2 is {of_card.h2} on the card and not on the grid")
    return found


def made_up(card: Card, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A kinship (n, n) of mean diagonal 1, and [1 | y] (n, 2) with half of the variance of y from it."""
    rng = np.random.default_rng(11)
    X = rng.standard_normal((n, SNPS), dtype=np.float32)
    with card.lane(PRODUCTS):
        on_card = card.xp.asarray(X).astype(np.float64)
        Phi = card.to_host(on_card @ on_card.T / SNPS)
    Phi /= Phi.diagonal().mean()
    y = X @ rng.standard_normal(SNPS) / np.sqrt(SNPS) + rng.standard_normal(n)
    return Phi, np.column_stack([np.ones(n), y])


def on_card(card: Card, Phi: np.ndarray) -> Triangle:
    """The triangle of a matrix of the host."""
    A = Triangle.empty(card, len(Phi))
    for panel, cols in zip(A.panels, panel_columns(len(Phi)), strict=True):
        panel.whole[...] = card.xp.asarray(np.ascontiguousarray(Phi[cols.start :, cols.start : cols.stop]))
    return A


def rates(card: Card, A: Triangle, dtype: Any) -> dict[str, float]:
    """Seconds of the factor of A / 2 + I / 2 and of its inverse, which are checked."""
    z = card.xp.asarray(np.random.default_rng(3).standard_normal((A.n, 4)))
    L = Triangle.empty(card, A.n, dtype)

    def fill() -> None:
        L.fill(A, 0.5, 0.5, None)

    seconds = {"cholesky": seconds_of(card, L.factorise, fill)}
    right = card.to_host(A.product(z, None)[0] * 0.5 + z * 0.5)
    columns, exact = z.astype(dtype), TOLERATED if dtype == np.float64 else 1e-3
    check("L L'z", card.to_host(L.multiply(L.multiply_transposed(columns))), right, exact)
    solved = columns.copy()
    L.solve(solved)

    def factor() -> None:
        fill()
        L.factorise()

    seconds["inverse"] = seconds_of(card, L.invert, factor)
    check("L^-1 z", card.to_host(L.multiply(columns)), card.to_host(solved), exact)
    return seconds


def check(what: str, found: np.ndarray, expected: np.ndarray, tolerated: float) -> None:
    """ValueError where they differ by more, relative to the largest number."""
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error < tolerated:
        raise ValueError(f"{what} is wrong by {error:.1e}")


def estimate(Phi_grid: GridMatrix, F: np.ndarray, card: Card | None) -> reml.RemlResult:
    """REML of [1 | y] on one rank, with its card or without; the copy of Phi to the card is part of it."""
    world = World(Phi_grid.grid.comm)
    return CholeskyCovariance(Phi_grid, world, card=card).maximise(F, world)

"""Distributed dense linear algebra: residuals under ScaLAPACK's thresholds on many grids, and exact redistribution."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from mpgls.errors import MemoryPlanError
from mpgls.la import eigen, redistribute, row_operator, scalapack
from mpgls.la.grid import ProcessGrid
from mpgls.la.hold import hold_basis, hold_factor
from mpgls.la.layout import Block, BlockCyclic, FoldedRows, GridLayout, Slabs, blocks_of_triangle, grid_shape
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import ColumnsToGrid, GridToBlocks, GridToColumns, PanelsToGrid, submatrix
from mpgls.la.row_operator import RowOperator
from mpgls.la.shared_operator import SharedFactor
from mpgls.la.teams import Team, split_teams

EPS = {np.float64: np.finfo(np.float64).eps, np.float32: np.finfo(np.float32).eps}
THRESHOLD = 30.0


def shapes(comm):
    """Every grid shape of this many ranks."""
    return [(r, comm.size // r) for r in range(1, comm.size + 1) if comm.size % r == 0]


def fill(A: GridMatrix, whole: np.ndarray) -> GridMatrix:
    """Put this process's part of a replicated matrix into A."""
    A.local[...] = whole[np.ix_(A.row_indices, A.col_indices)]
    return A


def collect(A: GridMatrix) -> np.ndarray:
    """The whole matrix on every rank."""
    whole = np.zeros(A.shape, dtype=A.dtype)
    for rows, cols, local in A.grid.comm.allgather((A.row_indices, A.col_indices, A.local)):
        whole[np.ix_(rows, cols)] = local
    return whole


def spd(n, seed=1):
    """A well-conditioned covariance-like matrix."""
    G = np.random.default_rng(seed).standard_normal((n, 2 * n))
    return G @ G.T / (2 * n) + 0.1 * np.eye(n)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n, block", [(1, 3), (7, 16), (53, 5), (101, 8), (128, 32)])
def test_cholesky_and_solve_residuals(comm, n, block, dtype):
    A = spd(n)
    B = np.random.default_rng(2).standard_normal((n, 11))
    for shape in shapes(comm):
        with ProcessGrid(comm, shape) as grid:
            L_grid = fill(GridMatrix.square(grid, n, block, dtype), A)
            scalapack.potrf(L_grid)
            L = np.tril(collect(L_grid).astype(np.float64))
            residual = np.linalg.norm(A - L @ L.T, 1) / (n * EPS[dtype] * np.linalg.norm(A, 1))
            assert residual < THRESHOLD
            layout = GridLayout.of((n, 11), (block, 3), grid.shape)
            B_grid = fill(GridMatrix(grid, layout, dtype), B)
            scalapack.trsm(L_grid, B_grid)
            X = collect(B_grid).astype(np.float64)
            scale = n * EPS[dtype] * np.linalg.norm(L, 1) * np.linalg.norm(X, 1)
            assert np.linalg.norm(L @ X - B, 1) / scale < THRESHOLD


@pytest.mark.parametrize("trans_b", [False, True])
def test_gemm_and_transposed_addition(comm, trans_b):
    n, block = 37, 4
    rng = np.random.default_rng(3)
    A, B = rng.standard_normal((n, n)), rng.standard_normal((n, n))
    for shape in shapes(comm):
        with ProcessGrid(comm, shape) as grid:
            A_grid, B_grid, C_grid = (fill(GridMatrix.square(grid, n, block), M) for M in (A, B, A))
            scalapack.gemm(A_grid, B_grid, C_grid, trans_b=trans_b)
            expected = A @ (B.T if trans_b else B)
            assert np.abs(collect(C_grid) - expected).max() < 1e-12 * n
            fill(C_grid, B)
            scalapack.add_transpose(A_grid, C_grid)
            np.testing.assert_array_equal(collect(C_grid), B + A.T)


def test_not_positive_definite_names_the_minor_on_every_rank(comm):
    A = np.eye(23)
    A[12, 12] = -1.0
    with ProcessGrid(comm) as grid:
        A_grid = fill(GridMatrix.square(grid, 23, 4), A)
        with pytest.raises(scalapack.NotPositiveDefinite, match="order 13 "):
            scalapack.potrf(A_grid)


@pytest.mark.parametrize("n, block, width", [(1, 1, 1), (13, 4, 5), (47, 5, 3), (64, 16, 100)])
def test_columns_to_grid_and_back(comm, n, block, width):
    A = np.random.default_rng(4).standard_normal((n, n))
    for shape in shapes(comm):
        with ProcessGrid(comm, shape) as grid:
            A_grid = GridMatrix.square(grid, n, block)
            slabs = Slabs(n, width, comm.size)
            to_grid, to_columns = ColumnsToGrid(slabs, A_grid), GridToColumns(A_grid, slabs)
            for round_ in range(slabs.rounds):
                to_grid.run(round_, np.asfortranarray(A[:, slabs.columns(round_, comm.rank)]), A_grid)
            np.testing.assert_array_equal(collect(A_grid), A)
            for round_ in range(slabs.rounds):
                X_cols = to_columns.run(round_, A_grid)
                np.testing.assert_array_equal(X_cols, A[:, slabs.columns(round_, comm.rank)])


def test_columns_to_grid_with_a_permutation_that_drops_columns(comm):
    n, rng = 29, np.random.default_rng(5)
    A = rng.standard_normal((n, n))
    keep = rng.permutation(n)[:17]
    target = np.full(n, -1)
    target[keep] = np.arange(17)
    with ProcessGrid(comm) as grid:
        A_grid = GridMatrix.square(grid, 17, 3)
        slabs = Slabs(n, 4, comm.size)
        plan = ColumnsToGrid(slabs, A_grid, target)
        for round_ in range(slabs.rounds):
            plan.run(round_, np.asfortranarray(A[np.ix_(keep, slabs.columns(round_, comm.rank))]), A_grid)
        np.testing.assert_array_equal(collect(A_grid), A[np.ix_(keep, keep)])


@pytest.mark.parametrize("count", [1, 6, 31])
def test_submatrix(comm, count):
    n, rng = 31, np.random.default_rng(6)
    A = rng.standard_normal((n, n))
    index = np.sort(rng.permutation(n)[:count])
    with ProcessGrid(comm) as grid:
        part = submatrix(fill(GridMatrix.square(grid, n, 4), A), index, 4)
        np.testing.assert_array_equal(collect(part), A[np.ix_(index, index)])


@pytest.mark.parametrize("n, block, width", [(3, 4, 1), (41, 4, 3), (64, 8, 7)])
def test_panels_become_the_block_of_the_process_column(comm, n, block, width):
    for shape in shapes(comm):
        with ProcessGrid(comm, shape) as grid:
            rows = BlockCyclic(n, block, shape[0])
            plan = PanelsToGrid(grid, rows, width, np.float64)

            def columns_of(rank, n=n, width=width):
                return np.arange(n)[:, None] * 1000.0 + rank * 10 + np.arange(width)

            for r, panel in enumerate(plan.panels):
                panel[...] = columns_of(comm.rank)[rows.indices(r)]
            X = plan.run()
            for k in range(shape[0]):
                sender = k * shape[1] + grid.col
                expected = columns_of(sender)[rows.indices(grid.row)]
                np.testing.assert_array_equal(X[:, k * width : (k + 1) * width], expected)


def bring(operator, X):
    """X, this rank's columns, to the panels of the team that are made of it."""
    for sources, panels in operator.exchange(np.ascontiguousarray(X.T)):
        for rows, panel in zip(operator.row_panels, panels, strict=True):
            panel[...] = sources.T[rows]


@pytest.mark.parametrize("solver", ["inverse", "grid"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n, block", [(2, 8), (5, 8), (67, 6), (601, 16)])
def test_every_team_solves_what_a_dense_solve_gives(comm, n, block, dtype, solver):
    from scipy.linalg import solve_triangular

    A, width = spd(n), 3
    L = np.linalg.cholesky(A)
    for shape in shapes(comm):
        with ProcessGrid(comm, shape) as world:
            L_grid = fill(GridMatrix.square(world, n, block), A)
            scalapack.potrf(L_grid)
            for size in range(1, comm.size + 1):
                X = np.random.default_rng(100 + comm.rank).standard_normal((n, width - comm.rank % 2))
                with split_teams(comm, size, solver) as team, hold_factor(L_grid, team, width, dtype) as factor:
                    for attempt in range(2):  # the second block meets what the first one left
                        bring(factor, X + attempt)
                        X_tilde = factor.apply().astype(np.float64)
                        got = factor.sum_over_rows(np.einsum("ij,ij->j", X_tilde, X_tilde)[None, :])
                        expected = (solve_triangular(L, X + attempt, lower=True) ** 2).sum(axis=0)
                        np.testing.assert_allclose(got[0, : X.shape[1]], expected, rtol=200 * n * EPS[dtype])


@pytest.mark.parametrize("solver", ["inverse", "grid"])
@pytest.mark.parametrize("n, block", [(2, 8), (5, 8), (67, 6), (601, 16)])
def test_every_team_rotates_into_the_same_basis(comm, n, block, solver):
    Z, width = np.linalg.qr(spd(n))[0], 3
    for shape in shapes(comm):
        with ProcessGrid(comm, shape) as world:
            Z_grid = fill(GridMatrix.square(world, n, block), Z)
            for size in range(1, comm.size + 1):
                X = np.random.default_rng(100 + comm.rank).standard_normal((n, width))
                with split_teams(comm, size, solver) as team, hold_basis(Z_grid, team, width, np.float64) as basis:
                    bring(basis, X)
                    weights = np.arange(1.0, n + 1)
                    got = basis.sum_over_rows(weights[basis.rows][None, :] @ basis.apply())
                    np.testing.assert_allclose(got[0], weights @ Z.T @ X, rtol=1e-12, atol=1e-11 * n)


@pytest.mark.parametrize("ranks_per_node", [1, 2, 3])
def test_what_columns_are_made_of_reaches_every_node(comm, ranks_per_node, monkeypatch):
    """Nodes are simulated by splitting the ranks of this machine; blocks are of different widths, one is empty."""
    monkeypatch.setattr(row_operator, "split_node", lambda team_comm: team_comm.Split(team_comm.rank // ranks_per_node))
    n, width = 43, 4
    A = spd(n)
    with ProcessGrid(comm) as world:
        team = Team(0, 1, comm)
        with RowOperator(fill(GridMatrix.square(world, n, 4), A), team, width, np.float64) as operator:
            for step in range(3):
                blocks = [np.full((n, (r + step) % (width + 1)), r + 1.0) for r in range(comm.size)]
                bring(operator, blocks[comm.rank])
                X_tilde = operator.apply()
                for r, X in enumerate(blocks):
                    mine = X_tilde[:, r * width : r * width + X.shape[1]]
                    np.testing.assert_allclose(mine, (A @ X)[operator.rows], rtol=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n, block", [(2, 4), (37, 5)])
def test_blocks_of_a_grid_matrix_reach_who_wants_them(comm, n, block, transposed, monkeypatch):
    monkeypatch.setattr(redistribute, "DEALT_BYTES", 8 * 37 * 3)  # several rounds
    A = np.random.default_rng(5).standard_normal((n, n))
    whole = A.T if transposed else A
    wanted = [[Block(range(r % n, n), range(n // (r + 1))), Block(range(0), range(n))] for r in range(comm.size)]
    wanted[0] = [Block(range(n // 2), range(n)), Block(range(n // 2, n), range(n // 3, n))]
    for shape in shapes(comm):
        with ProcessGrid(comm, shape) as grid:
            A_grid = fill(GridMatrix.square(grid, n, block), A)
            got = GridToBlocks(A_grid, wanted, transposed).run(np.float32)
            for (rows, cols), W in zip(wanted[comm.rank], got, strict=True):
                np.testing.assert_array_equal(W, whole[rows.start : rows.stop, cols.start : cols.stop].astype("f4"))


@pytest.mark.parametrize("n, parts, smallest", [(1, 1, 4), (3, 4, 1), (100, 3, 7), (4000, 16, 64)])
def test_blocks_cover_the_triangle_once_and_weigh_the_same(n, parts, smallest):
    covered, weights = np.zeros((n, n), dtype="i1"), []
    for part in range(parts):
        intervals = FoldedRows(n, parts).intervals(part)
        weights.append(sum(row + 1 for rows in intervals for row in rows))
        for rows, cols in itertools.chain(*(blocks_of_triangle(each, smallest) for each in intervals)):
            assert cols.stop <= rows.start or (rows == cols and len(rows) <= smallest)
            covered[rows.start : rows.stop, cols.start : cols.stop] += 1
    np.testing.assert_array_equal(np.tril(covered), np.tri(n, dtype="i1"))
    assert max(weights) - min(weights) <= 2 * n


@pytest.mark.parametrize("n, block", [(1, 4), (37, 5), (64, 8)])
def test_divide_and_conquer_eigendecomposition(comm, n, block):
    A = spd(n)
    for shape in shapes(comm):
        with ProcessGrid(comm, shape) as grid:
            Z_grid = GridMatrix.square(grid, n, block)
            lam = scalapack.syevd(fill(GridMatrix.square(grid, n, block), A), Z_grid)
            Z, eps = collect(Z_grid), np.finfo(np.float64).eps
            assert np.linalg.norm(A @ Z - Z * lam, 1) / (n * eps * np.linalg.norm(A, 1)) < THRESHOLD
            assert np.linalg.norm(Z.T @ Z - np.eye(n), 1) / (n * eps) < THRESHOLD
            np.testing.assert_allclose(lam, np.linalg.eigvalsh(A), rtol=1e-11)


def test_the_same_decomposition_has_the_same_bytes(comm):
    """Sums are added up in an order that does not depend on which rank is early; ranks are delayed at random."""
    n, A = 201, spd(201)
    found = []
    for attempt in range(3):
        time.sleep(0.01 * np.random.default_rng([attempt, comm.rank]).random())
        with ProcessGrid(comm) as grid:
            A_grid = fill(GridMatrix.square(grid, n, 16), A)
            Z_grid = GridMatrix(grid, A_grid.layout, np.float64)
            lam = scalapack.syevd(A_grid, Z_grid)
            L_grid = fill(GridMatrix.square(grid, n, 16), A)
            scalapack.potrf(L_grid)
            found.append([lam.tobytes(), Z_grid.local.tobytes(), L_grid.local.tobytes()])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("solver", ["auto", "scalapack", "slepc"])
@pytest.mark.parametrize("n, block", [(3, 4), (53, 6)])
def test_eigensolvers_agree(comm, n, block, solver):
    if solver == "slepc":
        pytest.importorskip("slepc4py")
    A = spd(n)
    for shape in shapes(comm):
        with ProcessGrid(comm, shape) as grid:
            pairs = eigen.eigh(fill(GridMatrix.square(grid, n, block), A), solver)
            Z = collect(pairs.Z_grid)
            np.testing.assert_allclose(pairs.lam, np.linalg.eigvalsh(A), rtol=1e-11)
            np.testing.assert_allclose(Z @ np.diag(pairs.lam) @ Z.T, A, atol=1e-12 * n)
            assert pairs.residual < 30 and pairs.orthogonality < 30


def test_leading_eigenpairs(comm):
    pytest.importorskip("slepc4py")
    A = spd(61)
    with ProcessGrid(comm) as grid:
        lam, Z = eigen.leading_eigenpairs(fill(GridMatrix.square(grid, 61, 6), A), 4)
        np.testing.assert_allclose(lam, np.linalg.eigvalsh(A)[::-1][:4], rtol=1e-10)
        np.testing.assert_allclose(A @ Z, Z * lam, atol=1e-9)


@pytest.mark.parametrize("ranks_per_node", [1, 2, 3])
def test_every_node_gets_the_whole_factor(comm, ranks_per_node):
    """Nodes are simulated by splitting the ranks of this machine."""
    n = 43
    node = comm.Split(comm.rank // ranks_per_node)
    with ProcessGrid(comm) as world:
        L_grid = fill(GridMatrix.square(world, n, 4), spd(n))
        scalapack.potrf(L_grid)
        factor = SharedFactor(L_grid, node, 2, np.float64)
        L = np.tril(collect(L_grid))
        np.testing.assert_array_equal(np.tril(factor._A), L)
        factor.close()
    node.Free()


def test_two_hundred_grids_can_be_made_and_closed(comm):
    for _, shape in itertools.product(range(200), [grid_shape(comm.size)]):
        ProcessGrid(comm, shape).close()


def test_a_local_block_beyond_32_bits_is_refused_with_enough_ranks():
    with pytest.raises(MemoryPlanError, match="at least 5 ranks"):
        scalapack.check_local_block((100_000, 100_000), (100_000, 50_000), 2)

"""Symmetric eigendecompositions on the process grid: ScaLAPACK's divide and conquer, or SLEPc behind one interface.

The only file that knows petsc4py and slepc4py; both are imported when a SLEPc solver is really used. A MATSCALAPACK is
laid out exactly as the grid matrix (same grid height, same blocks), so local blocks are handed over without a message,
and eigenvectors come out of SLEPc's basis as one local dense block.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.errors import NumericalError, UsageError
from mpgls.la import scalapack
from mpgls.la.layout import Slabs
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import ColumnsToGrid

if TYPE_CHECKING:
    from mpi4py import MPI

SOLVERS = ("auto", "slepc", "scalapack")
PREFIX = "mpgls_"
"""Options prefix of mpgls' PETSc and SLEPc objects."""
THRESHOLD = 30.0
"""Largest scaled residual that is taken for rounding (ScaLAPACK's own tests use the same)."""


@dataclass(frozen=True)
class Eigenpairs:
    """A = Z diag(lam) Z': lam (n,) ascending, ``Z_grid`` n x n [MC,MR], and how they were found."""

    lam: np.ndarray
    Z_grid: GridMatrix
    how: str
    residual: float
    orthogonality: float


def eigh(A_grid: GridMatrix, solver: str = "auto", slepc_options: str = "") -> Eigenpairs:
    """All eigenpairs of the symmetric ``A_grid`` (n x n, square blocks), which may be destroyed. Collective.

    ``auto`` takes SLEPc's ELPA where SLEPc was built with it, otherwise ScaLAPACK's p?syevd: SLEPc's own ``scalapack``
    solver calls p?syev, which is several times slower. A grid of some of the ranks takes p?syevd. Random probes check
    the residual and the orthogonality.
    Raises NumericalError when a check fails or the solver does not converge, UsageError without slepc4py.
    """
    probes = np.random.default_rng(7).standard_normal((A_grid.shape[0], 4))
    images = multiply(A_grid, probes)
    norm = math.sqrt(sum_of_squares(A_grid))
    asks = solver == "slepc" or (solver == "auto" and _is_of_all_ranks(A_grid))
    elpa = asks and _has_elpa(A_grid.grid.comm, required=solver == "slepc")
    if solver != "slepc" and not elpa:
        Z_grid = GridMatrix(A_grid.grid, A_grid.layout, A_grid.dtype.type)
        lam = scalapack.syevd(A_grid, Z_grid)
        how = "ScaLAPACK p?syevd" + (" (this SLEPc has no ELPA, its scalapack is p?syev)" if asks else "")
    else:
        kind = "elpa" if elpa else "scalapack"
        lam, Z_grid = _slepc_full(A_grid, kind, slepc_options)
        how = f"SLEPc EPS {kind}"
    residual, orthogonality = _check(lam, Z_grid, probes, images, norm)
    if not max(residual, orthogonality) < THRESHOLD:
        raise NumericalError(
            f"the eigendecomposition by {how} is wrong: scaled residual {residual:.3g}, "
            f"orthogonality {orthogonality:.3g}"
        )
    return Eigenpairs(lam, Z_grid, how, residual, orthogonality)


def leading_eigenpairs(
    A_grid: GridMatrix, k: int, slepc_options: str = "", restarted: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues (k,), descending, and their eigenvectors (n, k) on every rank, by Krylov-Schur.

    ``restarted`` is called whenever the solver goes on from the best part of its basis. Collective.
    Raises NumericalError when fewer than k pairs converge, UsageError without slepc4py.
    """
    PETSc, SLEPc = _libraries(
        slepc_options,
        "mpgls eigen without --eigenpairs does without, and --eigen with --pcs takes the leading pairs from its file",
    )
    comm, n = A_grid.grid.comm, A_grid.shape[0]
    matrix, slabs = _to_petsc(PETSc, A_grid)
    eps = _solver(SLEPc, matrix, "krylovschur", comm)
    eps.setDimensions(k)
    eps.setWhichEigenpairs(SLEPc.EPS.Which.LARGEST_REAL)
    eps.setTolerances(1e-12, 500)
    _take_options(PETSc, eps, slepc_options)
    eps.setMonitor(lambda *_: restarted())
    eps.solve()
    if eps.getConverged() < k:
        raise NumericalError(f"Krylov-Schur found {eps.getConverged()} of {k} leading eigenpairs")
    lam = np.array([eps.getEigenvalue(i).real for i in range(k)])
    rows = slabs.columns(0, comm.rank)
    mine, vector = np.zeros((n, k)), matrix.createVecLeft()
    for i in range(k):
        eps.getEigenvector(i, vector)
        mine[rows.start : rows.stop, i] = vector.getArray()
    Z_rep = np.empty_like(mine)
    comm.Allreduce(mine, Z_rep)
    eps.destroy()
    matrix.destroy()
    # a sign that does not depend on the run: the largest component is positive
    largest = np.abs(Z_rep).argmax(axis=0)
    return lam, Z_rep * np.sign(Z_rep[largest, np.arange(k)])


def multiply(A_grid: GridMatrix, V_rep: np.ndarray, transposed: bool = False) -> np.ndarray:
    """A V, or A'V, for a few replicated columns V (n, c); the result is on every rank. Collective."""
    rows, cols, local = A_grid.row_indices, A_grid.col_indices, A_grid.local
    if transposed:
        rows, cols, local = cols, rows, local.T
    mine = np.zeros((A_grid.shape[1 if transposed else 0], V_rep.shape[1]))
    mine[rows] = local @ V_rep[cols]
    product = np.empty_like(mine)
    A_grid.grid.comm.Allreduce(mine, product)
    return product


def _check(
    lam: np.ndarray, Z_grid: GridMatrix, probes: np.ndarray, images: np.ndarray, norm: float
) -> tuple[float, float]:
    """Scaled |A V - Z lam Z'V| and |Z'Z V - V| for random V: A itself is gone by now, its products were kept."""
    n, eps = lam.size, float(np.finfo(Z_grid.dtype).eps)
    coefficients = multiply(Z_grid, probes, transposed=True)
    back = multiply(Z_grid, lam[:, None] * coefficients)
    again = multiply(Z_grid, multiply(Z_grid, probes), transposed=True)
    size = float(np.linalg.norm(probes))
    residual = float(np.linalg.norm(images - back)) / (math.sqrt(n) * eps * norm * size)
    orthogonality = float(np.linalg.norm(again - probes)) / (math.sqrt(n) * eps * size)
    return residual, orthogonality


def sum_of_squares(A_grid: GridMatrix) -> float:
    """|A|_F^2. Collective."""
    return float(A_grid.grid.comm.allreduce(np.einsum("ij,ij->j", A_grid.local, A_grid.local).sum()))


# -- SLEPc --------------------------------------------------------------------------------------------------------


def _libraries(slepc_options: str = "", instead: str = "--eigensolver scalapack does without it") -> tuple[Any, Any]:
    """petsc4py.PETSc and slepc4py.SLEPc, initialised. Without them raises UsageError, with what to do ``instead``."""
    try:
        import slepc4py

        slepc4py.init([])
        from petsc4py import PETSc
        from slepc4py import SLEPc
    except ImportError as error:
        raise UsageError(
            f"this needs SLEPc, but slepc4py cannot be imported ({error}): docs/cluster.md says how to get it; "
            f"{instead}"
        ) from None
    options = PETSc.Options()
    for name, value in split_options(slepc_options):
        options.setValue(PREFIX + name, value)
    return PETSc, SLEPc


def split_options(text: str) -> list[tuple[str, str]]:
    """``-name value -flag`` as pairs; a flag's value is empty. Raises UsageError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--slepc-options {text!r}: {error}") from None
    pairs: list[tuple[str, str]] = []
    for word in words:
        if re.match(r"-+[A-Za-z]", word):  # not a negative number
            pairs.append((word.lstrip("-"), ""))
        elif pairs and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0], word)
        else:
            raise UsageError(f"--slepc-options {text!r}: {word!r} follows no option")
    return pairs


def _is_of_all_ranks(A_grid: GridMatrix) -> bool:
    """PETSc begins and ends on all ranks together, and does not end where some had a communicator of their own."""
    from mpi4py import MPI

    return A_grid.grid.size == MPI.COMM_WORLD.size


def _has_elpa(comm: MPI.Comm, required: bool) -> bool:
    """Whether SLEPc was built with ELPA; False, too, where SLEPc is absent and not ``required``."""
    try:
        PETSc, SLEPc = _libraries()
    except UsageError:
        if required:
            raise
        return False
    eps = SLEPc.EPS().create(comm=comm)
    PETSc.Sys.pushErrorHandler("ignore")
    try:
        eps.setType("elpa")
    except PETSc.Error:
        return False
    finally:
        PETSc.Sys.popErrorHandler()
        eps.destroy()
    return True


def _to_petsc(PETSc: Any, A_grid: GridMatrix) -> tuple[Any, Slabs]:
    """A MATSCALAPACK with the grid matrix's own layout; every rank sets its own block and sends nothing."""
    grid, n, block = A_grid.grid, A_grid.shape[0], A_grid.layout.rows.block
    options = PETSc.Options()
    options.setValue("mat_scalapack_grid_height", grid.shape[0])  # PETSc reads these two without a prefix
    options.setValue("mat_scalapack_block_sizes", f"{block},{block}")
    slabs = Slabs(n, -(-n // grid.size), grid.size)
    local = len(slabs.columns(0, grid.comm.rank))
    matrix = PETSc.Mat().create(comm=grid.comm)
    matrix.setSizes(((local, n), (local, n)))
    matrix.setType("scalapack")
    matrix.setFromOptions()
    matrix.setUp()
    rows, cols = (np.asarray(index_set.getIndices()) for index_set in matrix.getOwnershipIS())
    if not (np.array_equal(rows, A_grid.row_indices) and np.array_equal(cols, A_grid.col_indices)):
        raise NumericalError("PETSc laid its ScaLAPACK matrix out differently from the process grid")
    if A_grid.local.size:
        matrix.setValues(rows.astype(np.int32), cols.astype(np.int32), np.ascontiguousarray(A_grid.local))
    matrix.assemblyBegin()
    matrix.assemblyEnd()
    return matrix, slabs


def _solver(SLEPc: Any, matrix: Any, kind: str, comm: MPI.Comm) -> Any:
    eps = SLEPc.EPS().create(comm=comm)
    eps.setOptionsPrefix(PREFIX)
    eps.setOperators(matrix)
    eps.setProblemType(SLEPc.EPS.ProblemType.HEP)
    eps.setType(kind)
    return eps


def _take_options(PETSc: Any, eps: Any, slepc_options: str) -> None:
    """Let the user's options into the solver. Raises UsageError with what PETSc says of a bad value."""
    try:
        eps.setFromOptions()
    except PETSc.Error as error:
        for name, _ in split_options(slepc_options):
            PETSc.Options().delValue(PREFIX + name)
        reason = str(error).splitlines()[-1].partition("] ")[2]
        raise UsageError(f"--slepc-options {slepc_options!r}: {reason}") from None


def _slepc_full(A_grid: GridMatrix, kind: str, slepc_options: str) -> tuple[np.ndarray, GridMatrix]:
    """All eigenpairs by SLEPc: its basis, dealt in whole rows, goes back to the grid as one slab a rank."""
    PETSc, SLEPc = _libraries(slepc_options)
    comm, n = A_grid.grid.comm, A_grid.shape[0]
    matrix, slabs = _to_petsc(PETSc, A_grid)
    eps = _solver(SLEPc, matrix, kind, comm)
    eps.setDimensions(n)
    eps.setWhichEigenpairs(SLEPc.EPS.Which.SMALLEST_REAL)  # ascending, the order in which the basis is stored
    _take_options(PETSc, eps, slepc_options)
    eps.solve()
    if eps.getConverged() < n:
        raise NumericalError(f"SLEPc {kind} found {eps.getConverged()} of {n} eigenpairs")
    lam = np.array([eps.getEigenvalue(i).real for i in range(n)])
    basis = eps.getBV().createMat()
    Z_rows = basis.getDenseArray()[:, :n]  # (rows of this rank, n): columns of Z' in a slab
    Zt_grid = GridMatrix(A_grid.grid, A_grid.layout, A_grid.dtype.type)
    ColumnsToGrid(slabs, Zt_grid).run(0, np.asfortranarray(Z_rows.T), Zt_grid)
    for thing in (basis, eps, matrix):
        thing.destroy()
    Z_grid = GridMatrix(A_grid.grid, A_grid.layout, A_grid.dtype.type)
    scalapack.add_transpose(Zt_grid, Z_grid)
    return lam, Z_grid

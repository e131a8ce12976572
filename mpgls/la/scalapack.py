"""ScaLAPACK and BLACS by ctypes: the only foreign functions of mpgls.

Every routine takes matrices of mpgls.la.matrix (a descriptor and a Fortran-ordered local block), picks the single or
double precision routine by their dtype, and turns ``info`` into an exception with a sentence.
`mpgls.la.libraries` says where the library may lie.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mpgls.errors import MemoryPlanError, MpglsError, NumericalError, UsageError
from mpgls.la.layout import GridLayout
from mpgls.la.libraries import Candidate, candidates, mpi_libraries

if TYPE_CHECKING:
    from mpi4py import MPI

LARGEST_LOCAL_BLOCK = 2**31 - 1
TOPOLOGIES_REPEATABLE = 15
"""What blacs_set sets for sums in an order that does not depend on arrival."""

_Scalar = type[ctypes.c_double] | type[ctypes.c_float]
_PREFIX: dict[np.dtype, tuple[str, _Scalar]] = {
    np.dtype(np.float64): ("d", ctypes.c_double),
    np.dtype(np.float32): ("s", ctypes.c_float),
}


class Grid(Protocol):
    """What a routine asks of a process grid."""

    @property
    def context(self) -> int:
        """The handle of its BLACS context."""

    @property
    def comm(self) -> MPI.Comm:
        """Its processes."""

    @property
    def size(self) -> int:
        """Their number."""

    @property
    def shape(self) -> tuple[int, int]:
        """(p_r, p_c)."""


class Matrix(Protocol):
    """What a routine asks of a matrix in [MC,MR] distribution, such as `mpgls.la.matrix.GridMatrix`."""

    @property
    def grid(self) -> Grid:
        """The process grid."""

    @property
    def layout(self) -> GridLayout:
        """Which process owns which element."""

    @property
    def local(self) -> np.ndarray:
        """This process's block, Fortran-ordered."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the whole."""

    @property
    def dtype(self) -> np.dtype:
        """Of the elements."""

    @property
    def descriptor(self) -> np.ndarray:
        """ScaLAPACK's array descriptor."""


class NotPositiveDefinite(NumericalError):
    """The Cholesky factorisation met a leading minor that is not positive definite."""


@functools.cache
def _libraries() -> tuple[ctypes.CDLL, ...]:
    """ScaLAPACK and the libraries under it, loaded; ScaLAPACK is the first.

    Raises UsageError where there is none, or where the one that was found brings an MPI of its own.
    """
    from mpi4py import MPI

    running, failures = _running_mpi(), []
    for candidate in candidates(MPI.get_vendor()[0]):
        try:
            found = _load((*running, *candidate))
        except OSError as error:
            failures.append(f"{candidate[-1]} ({error})")
            continue
        if second := [path for path in _mpi_libraries() if path not in running]:
            raise UsageError(
                f"{candidate[-1]} was built for the MPI library {second[0]}, but mpi4py runs with {running[0]}: "
                "set MPGLS_SCALAPACK to a ScaLAPACK of the running MPI (docs/cluster.md)"
            )
        _show_mkl_to_threadpoolctl()
        return found
    raise UsageError(
        f"ScaLAPACK was not found; tried {'; '.join(failures)}. Set MPGLS_SCALAPACK to its library or directory, or "
        'get the wheels of one: pip install "mpgls[wheels]"'
    )


def _load(names: Candidate) -> tuple[ctypes.CDLL, ...]:
    """Load libraries in this order, the last one first in the result. Raises OSError where one is no ScaLAPACK."""
    loaded = tuple(reversed([_open(name) for name in names]))
    if not hasattr(loaded[0], "pdpotrf_"):
        raise OSError("it has no pdpotrf_")
    return loaded


def _open(name: str) -> ctypes.CDLL:
    """dlopen(RTLD_LAZY | RTLD_GLOBAL), because the layers of MKL need one another; ctypes alone adds RTLD_NOW."""
    system = ctypes.CDLL(None)
    system.dlopen.restype, system.dlerror.restype = ctypes.c_void_p, ctypes.c_char_p
    handle = system.dlopen(os.fsencode(name), os.RTLD_LAZY | os.RTLD_GLOBAL)
    if not handle:
        raise OSError(os.fsdecode(system.dlerror()))
    return ctypes.CDLL(name, handle=handle)


@functools.cache
def _running_mpi() -> tuple[str, ...]:
    """The MPI library of mpi4py: what is loaded before ScaLAPACK is looked for the first time."""
    return tuple(_mpi_libraries())


def _mpi_libraries() -> list[str]:
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return mpi_libraries(maps)


def _show_mkl_to_threadpoolctl() -> None:
    """threadpoolctl knows MKL as libmkl_rt only; from now on it reports and limits MKL's layers as well."""
    import threadpoolctl

    class LayeredMkl(threadpoolctl.MKLController):
        filename_prefixes = ("libmkl_intel_lp64",)
        check_symbols = ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads_Local", "MKL_Get_Version_String")

    threadpoolctl.register(LayeredMkl)


def library_path() -> str:
    """The file that ScaLAPACK was loaded from."""
    name = os.path.basename(_libraries()[0]._name)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        found = [line.split()[-1] for line in maps if name in os.path.basename(line.split()[-1])]
    return found[0] if found else name


@functools.cache
def _routine(name: str) -> Callable[..., Any]:
    """A Fortran subroutine, from whichever library has it: MKL keeps BLACS, BLAS and ScaLAPACK apart."""
    routine = next(getattr(library, name) for library in _libraries() if hasattr(library, name))
    routine.restype = None
    return routine


def _arguments(values: tuple[object, ...]) -> list[object]:
    """Fortran passes everything by reference: characters, integers, scalars of the matrix type, arrays."""
    out: list[object] = []
    for value in values:
        if isinstance(value, str):
            out.append(ctypes.c_char_p(value.encode()))
        elif isinstance(value, bool | int | np.integer):
            out.append(ctypes.byref(ctypes.c_int(int(value))))
        elif isinstance(value, np.ndarray):
            out.append(value.ctypes.data_as(ctypes.c_void_p))
        else:
            out.append(value)
    return out


def _call(name: str, *values: object) -> None:
    _routine(name)(*_arguments(values))


def _typed(dtype: np.dtype, stem: str) -> tuple[str, _Scalar]:
    prefix, scalar = _PREFIX[np.dtype(dtype)]
    return f"p{prefix}{stem}_", scalar


def _scalar(kind: _Scalar, value: float) -> object:
    return ctypes.byref(kind(value))


# -- BLACS contexts ----------------------------------------------------------------------------------------------


def grid_init(comm_handle: int, p_r: int, p_c: int) -> int:
    """A BLACS context for the communicator with Fortran handle ``comm_handle``, ranks in row-major order."""
    context = ctypes.c_int(comm_handle)
    _call("blacs_gridinit_", ctypes.byref(context), "R", p_r, p_c)
    # BLACS else adds up what arrives first: the same command would give other last digits in the next run
    _call("blacs_set_", context.value, TOPOLOGIES_REPEATABLE, 1)
    return context.value


def grid_exit(context: int) -> None:
    """Free a context and its communicators. blacs_exit is never called: it would finalise MPI."""
    _call("blacs_gridexit_", context)


def check_local_block(shape: tuple[int, int], local_shape: tuple[int, int], ranks: int) -> None:
    """Refuse a local block that LP64 ScaLAPACK cannot index (offsets are 32-bit integers).

    Raises MemoryPlanError with the number of ranks that would do.
    """
    if local_shape[0] * local_shape[1] > LARGEST_LOCAL_BLOCK:
        enough = ranks
        while shape[0] * shape[1] / enough > 0.95 * LARGEST_LOCAL_BLOCK:
            enough += 1
        raise MemoryPlanError(
            f"a {shape[0]} x {shape[1]} matrix on {ranks} ranks has local blocks of {local_shape[0]} x "
            f"{local_shape[1]} elements, more than ScaLAPACK's 32-bit offsets can address: use at least {enough} ranks"
        )


# -- linear algebra ----------------------------------------------------------------------------------------------


def potrf(A_grid: Matrix) -> None:
    """A = L L', in place: the lower triangle of ``A_grid`` (n x n, [MC,MR]) becomes L. Collective over the grid.

    Raises NotPositiveDefinite, on all ranks, with the order of the leading minor that failed.
    """
    name, _ = _typed(A_grid.dtype, "potrf")
    info = ctypes.c_int(0)
    n = A_grid.shape[0]
    if A_grid.grid.size == 1:  # LAPACK's own is faster than ScaLAPACK's on one process
        info.value = _local_potrf(A_grid.local)
    else:
        _call(name, "L", n, A_grid.local, 1, 1, A_grid.descriptor, ctypes.byref(info))
    if info.value > 0:
        raise NotPositiveDefinite(f"the leading minor of order {info.value} (of {n}) is not positive definite")
    _check_info(name, info.value)


def _local_potrf(A: np.ndarray) -> int:
    """Cholesky in place of a whole matrix; returns LAPACK's info."""
    from scipy.linalg import lapack

    L, info = (lapack.dpotrf if A.dtype == np.float64 else lapack.spotrf)(A, lower=1, clean=0, overwrite_a=1)
    if not np.shares_memory(L, A):
        A[...] = L
    return int(info)


def trtri(L_grid: Matrix) -> None:
    """L := L^-1, in place: the lower triangle of ``L_grid`` (n x n, [MC,MR]), a Cholesky factor. Collective."""
    name, _ = _typed(L_grid.dtype, "trtri")
    info = ctypes.c_int(0)
    _call(name, "L", "N", L_grid.shape[0], L_grid.local, 1, 1, L_grid.descriptor, ctypes.byref(info))
    _check_info(name, info.value)


def trsm(L_grid: Matrix, B_grid: Matrix, transposed: bool = False) -> None:
    """B := L^-1 B, or L^-T B, in place; L n x n lower [MC,MR], B n x k [MC,MR], the same row blocks. Collective."""
    name, scalar = _typed(L_grid.dtype, "trsm")
    n, k = B_grid.shape
    one = _scalar(scalar, 1.0)
    _call(
        name, "L", "L", "T" if transposed else "N", "N", n, k, one,
        L_grid.local, 1, 1, L_grid.descriptor,
        B_grid.local, 1, 1, B_grid.descriptor,
    )  # fmt: skip


def gemm(A_grid: Matrix, B_grid: Matrix, C_grid: Matrix, trans_a: bool = False, trans_b: bool = False) -> None:
    """C := A B, with A' for ``trans_a`` and B' for ``trans_b``; all [MC,MR]. Collective."""
    name, scalar = _typed(A_grid.dtype, "gemm")
    (m, n), k = C_grid.shape, A_grid.shape[0 if trans_a else 1]
    _call(
        name, "T" if trans_a else "N", "T" if trans_b else "N", m, n, k, _scalar(scalar, 1.0),
        A_grid.local, 1, 1, A_grid.descriptor,
        B_grid.local, 1, 1, B_grid.descriptor, _scalar(scalar, 0.0),
        C_grid.local, 1, 1, C_grid.descriptor,
    )  # fmt: skip


def add_product(C: np.ndarray, A: np.ndarray, B: np.ndarray, alpha: float = 1.0) -> None:
    """C := C + alpha A B on local arrays by the BLAS under ScaLAPACK: column-major views with any leading dimension.

    NumPy's product would need a temporary array and another pass over C.
    """
    (m, n), k = C.shape, A.shape[1]
    if not (m and n and k):
        return
    prefix, scalar = _PREFIX[C.dtype]
    leading = [_leading_dimension(M) for M in (A, B, C)]
    factor, one = _scalar(scalar, alpha), _scalar(scalar, 1.0)
    _call(f"{prefix}gemm_", "N", "N", m, n, k, factor, A, leading[0], B, leading[1], one, C, leading[2])


def _leading_dimension(M: np.ndarray) -> int:
    """Elements from one column to the next. Raises ValueError for anything but a column-major view."""
    item = M.itemsize
    if M.shape[0] > 1 and M.strides[0] != item:
        raise ValueError("the BLAS needs column-major arrays")
    return max(1, M.shape[0], M.strides[1] // item if M.shape[1] > 1 else 1)


def syevd(A_grid: Matrix, Z_grid: Matrix) -> np.ndarray:
    """A = Z diag(lam) Z' by divide and conquer (p?syevd); returns lam (n,), ascending, float64. Collective.

    Only the lower triangle of ``A_grid`` (n x n, square blocks) is read, and it is destroyed; ``Z_grid`` has the same
    layout and receives the eigenvectors. Raises NumericalError when an eigenvalue does not converge.
    """
    name, _ = _typed(A_grid.dtype, "syevd")
    n, nb = A_grid.shape[0], A_grid.layout.rows.block
    (np_, nq), p_c = A_grid.layout.local_shape(0, 0), A_grid.grid.shape[1]
    # the documented minimum and, for matrices smaller than a block, what p?ormtr wants beside it
    tridiagonal = 3 * n + max(nb * (np_ + 1), 3 * nb)
    lwork = max(1 + 6 * n + 2 * np_ * nq, tridiagonal) + 2 * n + (np_ + nq + nb) * nb
    if lwork > LARGEST_LOCAL_BLOCK:
        raise MemoryPlanError(
            f"the eigendecomposition's workspace of {lwork} numbers a rank exceeds 32 bits: use more ranks"
        )
    liwork = 7 * n + 8 * p_c + 2
    lam = np.empty(n, dtype=A_grid.dtype)
    work, iwork = np.empty(lwork, dtype=A_grid.dtype), np.empty(liwork, dtype=np.int32)
    info = ctypes.c_int(0)
    _call(
        name, "V", "L", n, A_grid.local, 1, 1, A_grid.descriptor, lam,
        Z_grid.local, 1, 1, Z_grid.descriptor, work, lwork, iwork, liwork, ctypes.byref(info),
    )  # fmt: skip
    if info.value > 0:
        raise NumericalError(f"the eigendecomposition did not converge (p?syevd info {info.value})")
    _check_info(name, info.value)
    A_grid.grid.comm.Bcast(lam, root=0)  # ranks that own no part of a small matrix are left without them
    return lam.astype(np.float64)


def add_transpose(A_grid: Matrix, C_grid: Matrix) -> None:
    """C := C + A', both n x n [MC,MR]; A and C are different matrices. Collective."""
    name, scalar = _typed(A_grid.dtype, "geadd")
    m, n = C_grid.shape
    one = _scalar(scalar, 1.0)
    _call(
        name, "T", m, n, one, A_grid.local, 1, 1, A_grid.descriptor, one, C_grid.local, 1, 1, C_grid.descriptor
    )  # fmt: skip


def copy_between_grids(
    shape: tuple[int, int],
    dtype: np.dtype,
    source: Matrix | None,
    target: Matrix | None,
    world_context: int,
) -> None:
    """Copy a matrix from one grid to another (p?gemr2d). Collective over ``world_context``, which holds both grids.

    A rank that is outside one of the two grids passes None for that side.
    """
    name, _ = _typed(dtype, "gemr2d")
    nowhere = np.array([1, -1, *shape, 1, 1, 0, 0, 1], dtype=np.int32)
    empty = np.empty(1, dtype=dtype)
    sides: list[object] = []
    for side in (source, target):
        sides += [empty if side is None else side.local, 1, 1, nowhere if side is None else side.descriptor]
    _call(name, *shape, *sides, world_context)


def _check_info(name: str, info: int) -> None:
    if info < 0:
        raise MpglsError(f"{name} refused its argument {-info}: this is a fault in mpgls")

"""CuPy's cuBLAS and kernels in memory of the host, beside `strict_cupy`: what only runs on a GPU otherwise.

cuBLAS is one function, written from its manual. A kernel is compiled as C++, and its threads run one after the other.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import strict_cupy
from strict_card import StrictCard

HANDLE = 77
C_TYPES = {
    "bool": np.bool_, "signed char": np.int8, "unsigned char": np.uint8, "int": np.int32, "unsigned": np.uint32,
    "long long": np.int64, "unsigned long long": np.uint64, "float": np.float32, "double": np.float64,
    "unsigned short": np.float16,
}  # fmt: skip
"""Of the parameters of kernels; float16 goes as its bits."""
COMPILER = shutil.which("g++")
LAUNCHER = """
struct Place { unsigned x, y, z; };
static Place blockIdx, threadIdx, blockDim, gridDim;
#define __global__
static unsigned long long atomicAdd(unsigned long long* at, unsigned long long by)
{
    unsigned long long was = *at;
    *at += by;
    return was;
}
static unsigned atomicAdd(unsigned* at, unsigned by)
{
    unsigned was = *at;
    *at += by;
    return was;
}
#define fabsf __builtin_fabsf
%(source)s
extern "C" void launch(const unsigned* sizes, %(parameters)s)
{
    gridDim = {sizes[0], sizes[1], sizes[2]}; blockDim = {sizes[3], sizes[4], sizes[5]};
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)
    for (threadIdx.z = 0; threadIdx.z < blockDim.z; threadIdx.z++)
    for (threadIdx.y = 0; threadIdx.y < blockDim.y; threadIdx.y++)
    for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++)
        %(name)s(%(arguments)s);
}
"""


def gemm_ex(
    handle, transa, transb, m, n, k, alpha, A, a_type, lda, B, b_type, ldb, beta, C, c_type, ldc, compute, algo
):
    """C = alpha op(A) op(B) + beta C, matrices by columns (cuBLAS Library, cublasGemmEx)."""
    kinds = {0: np.float32, 1: np.float64, 2: np.float16, 3: np.int8, 10: np.int32}
    assert (a_type, b_type, c_type, compute) in {(1, 1, 1, 70), (2, 2, 0, 68), (3, 3, 10, 72)}
    assert algo == -1 and handle == HANDLE
    if a_type == 3:  # what its integer matrix units need (cuBLAS Library, cublasLtMatmul, regular data ordering)
        assert all(size % 4 == 0 for size in (lda, ldb, ldc, A, B, C, m, k)) and (transa, transb) == (1, 0)
    # what it refuses with CUBLAS_STATUS_INVALID_VALUE; its sizes are int
    assert min(m, n, k) > 0 and max(m, n, k, lda, ldb, ldc) < 2**31
    assert lda >= (k if transa else m) and ldb >= (n if transb else k) and ldc >= m
    of_sums = kinds[c_type]
    item = np.dtype(of_sums).itemsize
    factor, kept = (np.frombuffer((ctypes.c_char * item).from_address(x), dtype=of_sums)[0] for x in (alpha, beta))
    assert a_type != 3 or (factor in (0, 1) and kept in (0, 1))
    left = by_columns(A, kinds[a_type], *((k, m) if transa else (m, k)), lda)
    right = by_columns(B, kinds[b_type], *((n, k) if transb else (k, n)), ldb)
    left, right = (left.T if transa else left), (right.T if transb else right)
    into = by_columns(C, of_sums, m, n, ldc)
    product = factor * (left.astype(np.float64) @ right.astype(np.float64))
    into[...] = product + kept * into if kept else product


def by_columns(address, kind, rows, cols, leading):
    """A Fortran-ordered matrix at an address: element (i, j) lies i + j leading numbers behind it."""
    size = (leading * (cols - 1) + rows) * np.dtype(kind).itemsize
    memory = np.frombuffer((ctypes.c_char * size).from_address(address), dtype=kind)
    return np.lib.stride_tricks.as_strided(memory, (rows, cols), (memory.itemsize, leading * memory.itemsize))


class RawKernel:
    """A kernel of CuPy that is compiled as C++."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        self._launch, parameters = _compiled(code, name), _parameters(code, name)
        self._writes = ["*" in one and "const" not in one for one in parameters]
        self._strides = sum("stride" in one for one in parameters)
        number = re.search(r"typedef ([\w ]+) T;", code)[1]
        self._types = [
            C_TYPES[re.sub(r"\bconst\b|\*|\w+\s*$", "", one).strip().replace("T", number)] for one in parameters
        ]

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        """Arrays go as their addresses, numbers of NumPy as they are."""
        found, in_pieces = [], 0
        for one, written, kind in zip(args, self._writes, self._types, strict=True):
            assert one.dtype == kind, f"a kernel that takes {kind} is given {one.dtype}"
            if isinstance(one, strict_cupy.ndarray):
                assert one.ndim == 0 or one.size == 0 or one.strides[-1] == one.itemsize or one.shape[-1] == 1
                in_pieces += not one.flags.c_contiguous
                one.storage.write() if written else one.storage.read()
                found.append(ctypes.c_void_p(one.data.ptr))
            else:
                assert isinstance(one, np.generic), "CuPy takes numbers of a known size"
                found.append(np.ctypeslib.as_ctypes_type(one.dtype)(one.item()))
        assert in_pieces <= self._strides, "a kernel that is told no stride takes its rows one after the other"
        sizes = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
        # CUDA refuses empty grids, and those beyond its limits (CUDA C++ Programming Guide, compute capabilities)
        assert min(sizes) > 0 and sizes[0] < 2**31 and max(sizes[1:3]) < 2**16 and np.prod(sizes[3:6]) <= 1024
        self._launch(sizes, *found)


def _parameters(code: str, name: str) -> list[str]:
    return re.search(rf'extern "C" __global__ void {name}\((.*?)\)\s*\{{', code, re.DOTALL)[1].split(",")


@functools.cache
def _compiled(code: str, name: str) -> Any:
    parameters = _parameters(code, name)
    arguments = ", ".join(re.findall(r"(\w+)\s*$", one)[0] for one in parameters)
    text = LAUNCHER % {"source": code, "parameters": ",".join(parameters), "arguments": arguments, "name": name}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cpp"
        path.write_text(text)
        library = path.with_suffix(".so")
        # no contraction of products and sums, as with --fmad=false
        words = [
            COMPILER,
            "-O0",
            "-ffp-contract=off",
            "-Wall",
            "-Werror",
            "-Wno-unused-function",
            "-shared",
            "-fPIC",
            "-o",
            library,
            path,
        ]
        subprocess.run(words, check=True)
        return ctypes.CDLL(str(library)).launch


class _Module:
    """`strict_cupy` with what it lacks of CuPy."""

    RawKernel = RawKernel
    cuda = SimpleNamespace(cublas=SimpleNamespace(gemmEx=gemm_ex), Device=lambda: SimpleNamespace(cublas_handle=HANDLE))

    def __getattr__(self, name: str) -> Any:
        return getattr(strict_cupy, name)


cupy = _Module()


class EmulatedCard(StrictCard):
    """A card whose products and kernels are those of a GPU."""

    xp = cupy


def card_of(ranks: int, limit: int | None) -> StrictCard:
    """For whole commands: one rank alone has kernels and cuBLAS, several have array operations in their place."""
    return (EmulatedCard if COMPILER and ranks == 1 else StrictCard)(limit or 2**40)

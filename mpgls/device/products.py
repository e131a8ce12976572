"""Products of low-precision matrices that are exact, or summed in float32: what the matrix units of a GPU are for.

    integer_product:  int8 times int8, summed in int32
    half_product:     float16 times float16, summed in float32
    double_product:   float64, without a copy of columns whose leading numbers alone are multiplied

All are A G' for A (r, k) and G (B, k), rows of k neighbours in memory: of the orders that cuBLAS takes, the one that
its integer matrix units need. `cupy.matmul` would not do: its result has the type of what is multiplied, so int8 sums
wrap around at 128 and float16 sums are rounded to 11 bits. cublasGemmEx gives the sums as they are
(NVIDIA, cuBLAS Library, cublasGemmEx: CUBLAS_COMPUTE_32I of CUDA_R_8I into CUDA_R_32I, with rows that begin at
multiples of 4 bytes, CUBLAS_COMPUTE_32F of CUDA_R_16F into CUDA_R_32F, and CUBLAS_COMPUTE_64F of CUDA_R_64F into the
same). Its integer units also need B and k to be multiples of 4 (cublasLtMatmul, regular data ordering): callers round
both up.

With NumPy in place of CuPy the integers are the same, and the float32 sums have the same terms in another order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpgls.device import kernels

ALIGNED = 16
"""Numbers of a row, and rows of the columns, are multiples of it: whole memory accesses for the matrix units."""
COPIES = 2
"""The largest size of a count of alleles less a whole number."""
INT8 = 128
"""The largest size of an int8."""
R_32F, R_64F, R_16F, R_8I, R_32I = 0, 1, 2, 3, 10
"""cudaDataType_t."""
COMPUTE_32F, COMPUTE_64F, COMPUTE_32I = 68, 70, 72
"""cublasComputeType_t."""
INTEGERS = (np.int32, R_8I, R_32I, COMPUTE_32I)
OP_N, OP_T, GEMM_DEFAULT = 0, 1, -1


def has_cublas(xp: Any) -> bool:
    """Whether the array module is CuPy, and not what stands in for it where there is no GPU."""
    return hasattr(xp, "cuda")


def aligned(count: int) -> int:
    """The next multiple of `ALIGNED`."""
    return -(-count // ALIGNED) * ALIGNED


def most_terms(largest: int) -> int:
    """Products of an int8 and an integer of at most ``largest`` that int32 adds up without overflow."""
    return (2**31 - 1) // (INT8 * largest) // ALIGNED * ALIGNED


def integer_product(xp: Any, A: Any, G: Any, largest: int) -> Any:
    """A G' for int8 ``A`` (r, k) and ``G`` (B, k) of at most ``largest`` in size: exact, as float64 (r, B).

    Panels of k are added up in float64, so that no int32 overflows.
    """
    k, step = A.shape[1], most_terms(largest)
    total = _int32_product(xp, A[:, :step], G[:, :step]).astype(np.float64)
    for start in range(step, k, step):
        total += _int32_product(xp, A[:, start : start + step], G[:, start : start + step])
    return total


def add_integer_product(xp: Any, S: Any, A: Any, G: Any, largest: int) -> None:
    """S += A G' as in `integer_product`, for float64 ``S`` (r, at most B) of its first columns."""
    if has_cublas(xp) and A.shape[1] <= most_terms(largest):
        kernels.added(xp, _gemm(xp, A, G, INTEGERS), S)
    else:
        S += integer_product(xp, A, G, largest)[:, : S.shape[1]]


def half_product(xp: Any, A: Any, G: Any, factor: float = 1.0, onto: Any = None) -> Any:
    """``factor`` A G' for float16 ``A`` (r, k) and ``G`` (B, k), summed in float32: float32 (r, B).

    It is added to ``onto``, where that is given.
    """
    if has_cublas(xp):
        return _gemm(xp, A, G, (np.float32, R_16F, R_32F, COMPUTE_32F), onto, factor)
    # a product of two float16 has 22 bits: float32 holds it
    product = A.astype(np.float32) @ G.astype(np.float32).T
    product *= np.float32(factor)
    if onto is not None:
        product += onto
    return product


def double_product(xp: Any, A: Any, G: Any) -> Any:
    """A G' for float64 ``A`` (r, k) and ``G`` (B, k).

    CuPy would copy, and turn round, a G of rows that are not one after the other in memory.
    """
    return _gemm(xp, A, G, (np.float64, R_64F, R_64F, COMPUTE_64F)) if has_cublas(xp) else A @ G.T


def digit_products(xp: Any, parts: Any, G: Any, worth: Any) -> Any:
    """sum_p ``worth``_p A_p G' for int8 ``parts`` A (P, r, k), counts ``G`` (B, k) and float64 ``worth`` (P,).

    Each product is exact; they are added in float64 in the order of p: (r, B).
    """
    P, r, k = parts.shape
    if has_cublas(xp) and k <= most_terms(COPIES):
        sums = xp.empty((P, r, G.shape[0]), dtype=np.int32)
        for part, into in zip(parts, sums, strict=True):
            _gemm(xp, part, G, INTEGERS, into, 1, 0)
        return kernels.joined(xp, sums, worth)
    total = xp.zeros((r, G.shape[0]))
    for p in range(P):
        total += integer_product(xp, parts[p], G, COPIES) * worth[p]
    return total


def _int32_product(xp: Any, A: Any, G: Any) -> Any:
    if has_cublas(xp):
        return _gemm(xp, A, G, INTEGERS)
    exact = A.astype(np.float64) @ G.astype(np.float64).T
    return exact.astype(np.int64).astype(np.int32)  # wraps around as int32 sums do


def _gemm(
    cupy: Any, A: Any, G: Any, types: tuple[type, int, int, int], into: Any = None, factor: float = 1, kept: int = 1
) -> Any:
    """``factor`` A G' by cuBLAS on the current stream; ``types`` of the result, for NumPy, the factors, it, the sums.

    Added to ``kept``, 0 or 1, times ``into``, where that is given.
    """
    (r, k), B = A.shape, G.shape[0]
    dtype, factors, result, compute = types
    if into is None:
        into, kept = cupy.empty((r, B), dtype=dtype), 0
    if not into.size:  # which cuBLAS refuses
        return into
    alpha: np.ndarray = np.full(1, factor, dtype=dtype)
    beta: np.ndarray = np.full(1, kept, dtype=dtype)
    # cuBLAS counts by columns: it sees G' and A' and makes into' = (G')' A'
    cupy.cuda.cublas.gemmEx(
        cupy.cuda.Device().cublas_handle, OP_T, OP_N, B, r, k, alpha.ctypes.data,
        G.data.ptr, factors, G.strides[0] // G.itemsize, A.data.ptr, factors, A.strides[0] // A.itemsize,
        beta.ctypes.data, into.data.ptr, result, B, compute, GEMM_DEFAULT,
    )  # fmt: skip
    return into

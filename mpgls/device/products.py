"""Products of low-precision matrices that are exact, or summed in float32: what the matrix units of a GPU are for.

    integer_product:  int8 times int8, summed in int32
    half_product:     float16 times float16, summed in float32

Both are A G' for A (r, k) and G (B, k), rows of k neighbours in memory: of the orders that cuBLAS takes, the one that
its integer matrix units need. `cupy.matmul` would not do: its result has the type of what is multiplied, so int8 sums
wrap around at 128 and float16 sums are rounded to 11 bits. cublasGemmEx gives the sums as they are
(NVIDIA, cuBLAS Library, cublasGemmEx: CUBLAS_COMPUTE_32I of CUDA_R_8I into CUDA_R_32I, with rows that begin at
multiples of 4 bytes, and CUBLAS_COMPUTE_32F of CUDA_R_16F into CUDA_R_32F).

With NumPy in place of CuPy the integers are the same, and the float32 sums have the same terms in another order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ALIGNED = 16
"""Numbers of a row, and rows of the columns, are multiples of it: whole memory accesses for the matrix units."""
INT8 = 128
"""The largest size of an int8."""
R_32F, R_16F, R_8I, R_32I = 0, 2, 3, 10
"""cudaDataType_t."""
COMPUTE_32F, COMPUTE_32I = 68, 72
"""cublasComputeType_t."""
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


def half_product(xp: Any, A: Any, G: Any) -> Any:
    """A G' for float16 ``A`` (r, k) and ``G`` (B, k), summed in float32: float32 (r, B)."""
    if not has_cublas(xp):
        # a product of two float16 has 22 bits: float32 holds it
        return A.astype(np.float32) @ G.astype(np.float32).T
    return _gemm(xp, A, G, np.float32, (R_16F, R_32F, COMPUTE_32F))


def _int32_product(xp: Any, A: Any, G: Any) -> Any:
    if not has_cublas(xp):
        exact = A.astype(np.float64) @ G.astype(np.float64).T
        return exact.astype(np.int64).astype(np.int32)  # wraps around as int32 sums do
    return _gemm(xp, A, G, np.int32, (R_8I, R_32I, COMPUTE_32I))


def _gemm(cupy: Any, A: Any, G: Any, dtype: type, types: tuple[int, int, int]) -> Any:
    """A G' by cuBLAS on the current stream; ``types`` of the factors, of the result, and of the sums."""
    (r, k), B = A.shape, G.shape[0]
    factor, result, compute = types
    out = cupy.empty((r, B), dtype=dtype)
    one: np.ndarray = np.ones(1, dtype=dtype)
    zero: np.ndarray = np.zeros(1, dtype=dtype)
    # cuBLAS counts by columns: it sees G' and A' and makes out' = (G')' A'
    cupy.cuda.cublas.gemmEx(
        cupy.cuda.Device().cublas_handle, OP_T, OP_N, B, r, k,
        one.ctypes.data, G.data.ptr, factor, G.strides[0] // G.itemsize, A.data.ptr, factor, A.strides[0] // A.itemsize,
        zero.ctypes.data, out.data.ptr, result, B, compute, GEMM_DEFAULT,
    )  # fmt: skip
    return out

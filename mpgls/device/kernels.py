"""Short kernels where operations on whole arrays would move far more memory than the products do. CuPy only.

    decode         packed genotypes to columns: a table of four numbers a SNP, samples in any order
    panel_sums     F~'X~ and x~'x~ of a panel of X~ = s o P - (W 1) d', read once
    joined         sum_p P_p w_p of the int32 products of digits
    tile           x = R^2/d of a tile of traits, counted in bins, and the largest; d = B D
    added          S += P of an int32 product
    beyond         the places of a tile's numbers that reach the bound of their column, in no order

Each does what an expression of array operations says where there is no GPU (`mpgls.device.decoder`, `operator`,
`products`, `threshold`), with the same bits: multiplications and additions are not contracted.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

THREADS = 128
FOLDED = 32
"""At most as many rows of partial sums of a panel are left by `panel_sums`."""
AT_ONCE = 4
"""Sums of a thread."""
ROWS = 16
"""Rows of a tile that a thread of `beyond` looks at."""
MOST_ROWS = 65_535
"""Of a grid of blocks in its second direction."""
TYPES = {"f": "float", "d": "double", "b": "signed char", "e": "unsigned short"}
"""By the character of a dtype; float16 is moved only, as its bits."""

DECODE = r"""
extern "C" __global__ void decode(
    const unsigned char* packed, const long long stride, const T* tables, const int* of_snp, const int* rows,
    const int in_order, const int n, const int width, const int B, T* out)
{
    struct alignas(4 * sizeof(T)) Four { T value[4]; };
    const int first = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (first >= width) return;
    for (int b = blockIdx.y; b < B; b += gridDim.y) {
        const unsigned char* bytes = packed + b * stride;
        const T* table = tables + 4 * of_snp[b];
        Four four;
        for (int i = 0; i < 4; i++) {
            const int j = first + i;
            four.value[i] = 0;
            if (j < n) {
                const int s = in_order ? j : rows[j];
                four.value[i] = table[(bytes[s >> 2] >> (2 * (s & 3))) & 3];
            }
        }
        *(Four*)(out + (long long)b * width + first) = four;
    }
}
"""

PANEL_SUMS = r"""
extern "C" __global__ void panel_sums(
    const T* P, const double* scale, const double* W_one, const double* d, const double* F,
    const int r, const int B, const int k, const int levels, double* out)
{
    // numbers of rows that are left after each halving
    int left[16];
    left[0] = r;
    for (int t = 0; t < levels; t++) left[t + 1] = (left[t] + 1) / 2;
    const int i = blockIdx.y, j = blockIdx.x * blockDim.x + threadIdx.x, first = 4 * blockIdx.z;
    if (j >= B) return;
    const double of_snp = d[j];
    double waiting[16][4];
    for (int leaf = 0; leaf < (1 << levels); leaf++) {
        // the row of this leaf, unless a half has none: then zeros are added in its place
        int row = i;
        bool there = true;
        for (int t = levels; t > 0; t--)
            if (leaf >> (t - 1) & 1) {
                row += left[t];
                there = there && row < left[t - 1];
            }
        double sum[4] = {0, 0, 0, 0};
        if (there) {
            const T x = P[(long long)row * B + j] * (T)scale[row] - (T)(W_one[row] * of_snp);
            for (int s = 0; s < 4; s++)
                if (first + s <= k) sum[s] = (first + s < k ? F[row * k + first + s] : (double)x) * x;
        }
        int t = 0;
        for (; leaf >> t & 1; t++)
            for (int s = 0; s < 4; s++) sum[s] = waiting[t][s] + sum[s];
        for (int s = 0; s < 4; s++) waiting[t][s] = sum[s];
    }
    for (int s = 0; s < 4; s++)
        if (first + s <= k) out[((long long)i * (k + 1) + first + s) * B + j] = waiting[levels][s];
}
"""

JOINED = r"""
extern "C" __global__ void joined(
    const int* P, const double* worth, const int parts, const long long size, double* out)
{
    for (long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x; e < size;
         e += (long long)gridDim.x * blockDim.x) {
        double total = 0;
        for (int p = 0; p < parts; p++) total += P[p * size + e] * worth[p];
        out[e] = total;
    }
}
"""

TILE = r"""
extern "C" __global__ void tile(
    const T* R, const long long stride, const T* B, const T* D, const bool* no_row, const bool* no_column,
    const int k, const int nodes, const T whole, const int shift, const int base, const int count,
    T* top, int* at, unsigned* counts)
{
    const int i = blockIdx.x, first = threadIdx.x, threads = blockDim.x;
    union { float number; int bits; } of;
    T largest = -1;
    int where = 0;
    for (int j = first; j < k; j += threads) {
        if (no_row[i] || no_column[j]) continue;
        T d = 0;
        for (int r = 0; r < nodes; r++) d += B[i * nodes + r] * D[(long long)r * k + j];
        const T one = R[i * stride + j];
        T x = one * one / d;
        if (x >= whole) x = 1;
        if (x > largest) {
            largest = x;
            where = j;
        }
        of.number = (float)x;
        int code = (of.bits >> shift) - base;
        code = code < 0 ? 0 : code < count ? code : count - 1;
        atomicAdd(counts + (long long)i * (count + 1) + code, 1u);
    }
    top[i * threads + first] = largest;
    at[i * threads + first] = where;
}
"""

ADDED = r"""
extern "C" __global__ void added(
    const int* P, const long long width, const int rows, const int cols, const long long stride, double* S)
{
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= cols) return;
    for (int i = blockIdx.y; i < rows; i += gridDim.y) S[i * stride + j] += P[i * width + j];
}
"""

BEYOND = r"""
extern "C" __global__ void beyond(
    const T* tile, const T* bound, const int r, const int width, const long long first, const long long stride,
    const unsigned long long room, long long* places, unsigned long long* count)
{
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    const T least = bound[column];
    for (int row = blockIdx.y; row < r; row += gridDim.y) {
        if (fabsf(tile[(long long)row * width + column]) >= least) {
            const unsigned long long at = atomicAdd(count, 1ULL);
            if (at < room) places[at] = first + row * stride + column;
        }
    }
}
"""

SOURCES = {
    "decode": DECODE,
    "panel_sums": PANEL_SUMS,
    "joined": JOINED,
    "added": ADDED,
    "tile": TILE,
    "beyond": BEYOND,
}


def source(name: str, dtype: Any) -> str:
    """The text of a kernel on numbers of a type."""
    return f"typedef {TYPES[np.dtype(dtype).char]} T;\n{SOURCES[name]}"


@functools.cache
def _kernel(cupy: Any, name: str, dtype: Any) -> Any:
    return cupy.RawKernel(source(name, dtype), name, options=("--fmad=false",))


def decode(cupy: Any, packed: Any, tables: Any, of_snp: Any, rows: Any, n: int, width: int) -> Any:
    """Columns (B, width), zeros from ``n`` on: element (b, j) is tables[of_snp[b]][code of sample rows[j]].

    ``packed`` (B, any) uint8, ``tables`` (any, 4), ``of_snp`` (B,) int32, ``rows`` (n,) int32, None for 0, 1, ...
    """
    B = packed.shape[0]
    out = cupy.empty((B, width), dtype=tables.dtype)
    grid = (-(-width // (4 * THREADS)), min(B, MOST_ROWS))
    args = (
        packed, np.int64(packed.strides[0]), tables, of_snp, of_snp if rows is None else rows,
        np.int32(rows is None), np.int32(n), np.int32(width), np.int32(B), out,
    )  # fmt: skip
    if out.size:  # CUDA refuses an empty grid, which a rank without people of a kinship asks for
        _kernel(cupy, "decode", tables.dtype)(grid, (THREADS,), args)
    return out


def halvings(r: int) -> tuple[int, int]:
    """How often r rows are halved until at most `FOLDED` are left, and how many are."""
    levels = 0
    while r > FOLDED:
        r, levels = (r + 1) // 2, levels + 1
    return levels, r


def panel_sums(cupy: Any, P: Any, scale: Any, W_one: Any, d: Any, F: Any) -> Any:
    """Sums of f x and, last, x x over rows i, i + r', ... of X~, in the order of `ordered_sums`: (r', (k+1) B).

    ``P`` (r, B) float32 or float64, ``scale`` and ``W_one`` (r,), ``d`` (B,), ``F`` (r, k).
    """
    (r, B), k = P.shape, F.shape[1]
    levels, rows = halvings(r)
    out = cupy.empty((rows, (k + 1) * B))
    grid = (-(-B // THREADS), rows, -(-(k + 1) // AT_ONCE))
    args = (P, scale, W_one, d, F, np.int32(r), np.int32(B), np.int32(k), np.int32(levels), out)
    _kernel(cupy, "panel_sums", P.dtype)(grid, (THREADS,), args)
    return out


def joined(cupy: Any, P: Any, worth: Any) -> Any:
    """sum_p P_p worth_p, float64 (r, B), of int32 ``P`` (parts, r, B), in the order of p."""
    out = cupy.empty(P.shape[1:])
    grid = (min(-(-out.size // THREADS), 2**16),)
    args = (P, worth, np.int32(P.shape[0]), np.int64(out.size), out)
    _kernel(cupy, "joined", np.float64)(grid, (THREADS,), args)
    return out


def tile(
    cupy: Any, R: Any, B: Any, D: Any, no_row: Any, no_column: Any, counts: Any, bins: tuple[int, int, int, float]
) -> tuple[Any, Any]:
    """As `mpgls.device.tiles.count_tile`: the largest x of each row among every `THREADS`-th column, and where it is.

    Both (t, THREADS), for ``R`` (t, k), contiguous ``B`` (t, nodes), ``D`` (nodes, k) and ``counts``.
    """
    (t, k), nodes, (shift, base, count, whole) = R.shape, D.shape[0], bins
    top, at = cupy.empty((t, THREADS), dtype=R.dtype), cupy.empty((t, THREADS), dtype=np.int32)
    args = (
        R, np.int64(R.strides[0] // R.itemsize), B, D, no_row, no_column, np.int32(k), np.int32(nodes),
        R.dtype.type(whole), np.int32(shift), np.int32(base), np.int32(count), top, at, counts,
    )  # fmt: skip
    _kernel(cupy, "tile", R.dtype)((t,), (THREADS,), args)
    return top, at


def added(cupy: Any, P: Any, S: Any) -> None:
    """S += the first columns of ``P``: int32 (r, any) and float64 ``S`` (r, B), rows of neighbours."""
    rows, cols = S.shape
    grid = (-(-cols // THREADS), min(rows, MOST_ROWS))
    width, stride = np.int64(P.shape[1]), np.int64(S.strides[0] // S.itemsize)
    _kernel(cupy, "added", np.float64)(grid, (THREADS,), (P, width, np.int32(rows), np.int32(cols), stride, S))


def beyond(cupy: Any, tile: Any, bound: Any, first: int, stride: int, places: Any, count: Any) -> None:
    """Append first + i stride + j to ``places`` (any,) where |tile_ij| >= bound_j, and add to ``count`` (1,) uint64.

    ``tile`` (r, width) and ``bound`` (width,) float32, ``places`` int64. What ``places`` has no room for is counted.
    """
    r, width = tile.shape
    grid = (-(-width // THREADS), min(-(-r // ROWS), MOST_ROWS))
    sizes = (np.int32(r), np.int32(width), np.int64(first), np.int64(stride), np.uint64(places.size))
    _kernel(cupy, "beyond", tile.dtype)(grid, (THREADS,), (tile, bound, *sizes, places, count))

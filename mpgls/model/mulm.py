"""Mass-univariate linear models: every SNP against every voxel, given confounds, under one permutation of the samples.

With Z_w an orthonormal basis of the confounds (the intercept is one of them), R_X and R_Y the residuals of SNPs and
voxels on it, each scaled to length 1, and P a permutation (Freedman and Lane, J. Bus. Econ. Stat. 1, 1983):

    beta    = R_X' P R_Y = (P'R_X)' R_Y                              one matrix product, a tile at a time
    Gamma^2 = column sums of (Z_w' P R_Y)^2                          what the permutation brings back into Z
    F       = (n - r - 1) beta^2 / (1 - Gamma^2 - beta^2),   t = sign(beta) sqrt(F)

(Da Mota et al., "Machine learning patterns for neuroimaging-genetic studies in the cloud", 2014, Algorithm 2.1). The
samples of R_X and Z_w are permuted rather than those of the many voxels. F >= F_0 is the same as

    beta^2 >= F_0 (1 - Gamma^2) / (n - r - 1 + F_0),

one comparison for each element of a tile while it is in cache. A little below this bound an element is a *candidate*;
its score is then computed anew, in an order of summation that depends on neither tiles nor blocks, and decides. So
what is found, and every digit of it, is the same however the work was divided.

SNPs and voxels are rows here, samples are columns, so that a SNP or a voxel is contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mpgls.model.deviations import deviations
from mpgls.model.gls import COMPLETE, complete_share
from mpgls.model.pvalues import log10_p_t

TILE_BYTES = 8 << 20
"""A tile of beta: the larger, the less the product spends on packing its operands; still in the cache."""
STRIP = 1 << 16
"""Elements of a tile that are compared at a time, in buffers that stay in the second-level cache."""
TOGETHER = 512
"""Nominated pairs that a thread scores at a time."""
TILE_SNPS = 1024
"""SNPs of a tile at most; packing them for the product is shared by the voxels of the tile."""

_PANEL_BYTES = 1 << 20
# length^2 left of a SNP, of a voxel, beside the confounds, relative to what it was
COLLINEAR_SNP, CONSTANT_VOXEL = 1e-10, 1e-20
# rounding of a product of unit vectors of length n: a few sqrt(n) units (Higham and Mary, SISC 41, 2019)
_ROUNDING = 4.0


def whiten(Z: np.ndarray) -> np.ndarray:
    """Z_w: orthonormal rows (r, n) that span the columns of the confounds ``Z`` (n, r), of full column rank."""
    return np.ascontiguousarray(np.linalg.qr(np.asarray(Z, dtype=np.float64))[0].T)


def unit_residuals(values: np.ndarray, Z_w: np.ndarray, out: np.ndarray, tolerance: float) -> np.ndarray:
    """Residuals of the rows of ``values`` (k, n) on Z_w (r, n), scaled to length 1, into ``out`` (k, n).

    Returns their lengths before scaling, float64 (k,). Z_w spans the intercept, so a row counts by its deviations: one
    of which no more than the share ``tolerance`` of their square is left gets zeros and the length 0. Each row's result
    depends on that row alone, bit for bit.
    """
    k, n = values.shape
    lengths = np.zeros(k)
    step = max(1, _PANEL_BYTES // (8 * max(1, n)))
    for start in range(0, k, step):
        rows = slice(start, min(start + step, k))
        panel, size, _ = deviations(np.ascontiguousarray(values[rows], dtype=np.float64), axis=1)
        before = np.einsum("kn,kn->k", panel, panel)
        # R = A - A Z_w' Z_w, by sums along the samples only: a BLAS sums in an order that depends on the shape
        panel -= np.einsum("kr,rn->kn", np.einsum("kn,rn->kr", panel, Z_w), Z_w)
        after = np.einsum("kn,kn->k", panel, panel)
        left = after > tolerance * before
        own = np.where(left, np.sqrt(after), 0.0)
        scale = np.divide(1.0, own, out=np.zeros(len(panel)), where=left)
        lengths[rows] = own * size[:, 0]
        np.multiply(panel, scale[:, None], out=out[rows], casting="same_kind")
    return lengths


@dataclass(frozen=True)
class Score:
    """From beta and Gamma^2 to t and p with ``df`` = n - r - 1, and the bound that ``p_threshold`` puts on beta."""

    df: int
    p_threshold: float

    @cached_property
    def t_threshold(self) -> float:
        """The |t| whose two-sided p value is the threshold."""
        wanted = -np.log10(self.p_threshold)
        low, high = 0.0, 1.0
        while log10_p_t(high, self.df) < wanted:
            high *= 2.0
        for _ in range(200):
            middle = 0.5 * (low + high)
            if middle in (low, high):
                break
            low, high = (middle, high) if log10_p_t(middle, self.df) < wanted else (low, middle)
        return high if wanted > 0 else 0.0

    @property
    def share(self) -> float:
        """The square of the |beta| at which p is the threshold, without confounds."""
        F_0 = self.t_threshold**2
        return float(F_0 / (self.df + F_0))

    def bound(self, gamma2: np.ndarray) -> np.ndarray:
        """The |beta| at which p is the threshold."""
        return np.sqrt(self.share * np.maximum(1.0 - gamma2, 0.0))

    def t(self, beta: np.ndarray, gamma2: np.ndarray, complete: float = COMPLETE["double"]) -> np.ndarray:
        """t = sign(beta) sqrt(df beta^2 / (1 - Gamma^2 - beta^2)).

        Infinite where the SNP leaves no more than the share ``complete`` of what Z leaves.
        """
        there = 1.0 - gamma2
        left = there - np.square(beta)
        left[left <= complete * there] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            t = beta * np.sqrt(self.df / left)
        return np.where(beta == 0.0, 0.0, t)

    def log10_p(self, t: np.ndarray) -> np.ndarray:
        """-log10 of the two-sided p value of t."""
        return log10_p_t(t, self.df)


@dataclass(frozen=True)
class Entries:
    """Pairs beyond the threshold: positions of SNP and voxel, beta (a correlation) and t, each (k,)."""

    snp: np.ndarray
    voxel: np.ndarray
    beta: np.ndarray
    t: np.ndarray

    def __len__(self) -> int:
        return self.snp.size


class Pairs(NamedTuple):
    """Positions of ``snp`` and ``voxel``, each (k,)."""

    snp: np.ndarray
    voxel: np.ndarray


class SnpBlock:
    """B SNPs beside the confounds, [Z_w; R_X] (r + B, n), with their samples in the order of a permutation.

    ``X`` (B, n) float64 are centred dosages. ``lengths`` (B,) are those of the residuals before scaling, 0 for a SNP
    that the confounds explain.
    """

    def __init__(self, X: np.ndarray, Z_w: np.ndarray, dtype: type) -> None:
        self.r = len(Z_w)
        self._ZX: np.ndarray = np.empty((self.r + len(X), X.shape[1]), dtype=dtype)
        self._ZX[: self.r] = Z_w
        self.lengths = unit_residuals(X, Z_w, self._ZX[self.r :], COLLINEAR_SNP)
        self._permuted = np.empty_like(self._ZX)

    @property
    def rows(self) -> np.ndarray:
        """[Z_w; R_X] in the order of the samples."""
        return self._ZX

    def permuted(self, permutation: np.ndarray, snps: np.ndarray | None = None) -> np.ndarray:
        """[P'Z_w; P'R_X] for the ``permutation`` (n,) that puts sample k in the place of sample permutation[k].

        Of all SNPs, or of these ``snps``. Valid until the next call.
        """
        if snps is None:
            return np.take(self._ZX, permutation, axis=1, out=self._permuted, mode="clip")
        some = self._ZX[np.concatenate([np.arange(self.r), self.r + snps])]
        return np.take(some, permutation, axis=1, out=self._permuted[: len(some)], mode="clip")


class TileScan:
    """Looks for entries beyond the threshold, a tile at a time; holds the memory of one tile.

    ``tile_snps`` and ``tile_bytes`` change the speed and nothing else.
    """

    def __init__(
        self, score: Score, r: int, n: int, dtype: type, tile_snps: int = TILE_SNPS, tile_bytes: int = TILE_BYTES
    ) -> None:
        self.score, self.r, self.n = score, r, n
        self.snps, item = tile_snps, np.dtype(dtype).itemsize
        self.elements = max(tile_bytes // item, r + tile_snps)
        self._tile: np.ndarray = np.empty(self.elements, dtype=dtype)
        self._strip: np.ndarray = np.empty(STRIP, dtype=dtype)
        self._mask = np.empty(STRIP, dtype=bool)
        self._complete = complete_share(dtype)
        self._slack = _ROUNDING * np.sqrt(n) * float(np.finfo(dtype).eps)

    def entries(self, snps: SnpBlock, permutation: np.ndarray, R_Y: np.ndarray, testable: np.ndarray) -> Entries:
        """The entries of ``snps`` and voxels ``R_Y`` (v, n) beyond the threshold under a ``permutation``, in no order.

        ``testable`` (v,) bool: the other voxels, and SNPs of length 0, have none.
        """
        ZX = snps.permuted(permutation)
        snp, voxel = self.candidates(ZX, R_Y, testable)
        return self._decided(snps, snp, voxel, rescore(ZX, self.r, R_Y, snp, voxel))

    def scored(
        self, snps: SnpBlock, permutation: np.ndarray, R_Y: np.ndarray, pairs: Pairs, pool: Executor | None = None
    ) -> Entries:
        """As `entries`, among ``pairs`` that were nominated by other means; those of a ``pool`` in its threads."""
        some, at = np.unique(pairs.snp, return_inverse=True)
        ZX = snps.permuted(permutation, some)

        def score(part: slice) -> tuple[np.ndarray, np.ndarray]:
            return rescore(ZX, self.r, R_Y, at[part], pairs.voxel[part])

        parts = [slice(start, start + TOGETHER) for start in range(0, max(1, at.size), TOGETHER)]
        scores = list(map(score, parts) if pool is None else pool.map(score, parts))
        beta, gamma2 = (np.concatenate(one) for one in zip(*scores, strict=True))
        return self._decided(snps, *pairs, (beta, gamma2))

    def _decided(
        self, snps: SnpBlock, snp: np.ndarray, voxel: np.ndarray, scores: tuple[np.ndarray, np.ndarray]
    ) -> Entries:
        """The candidates whose ``scores``, beta and Gamma^2, are beyond the threshold."""
        beta, gamma2 = scores
        kept = (np.abs(beta) >= self.score.bound(gamma2)) & (snps.lengths[snp] > 0)
        beta, gamma2 = beta[kept], gamma2[kept]
        return Entries(snp[kept], voxel[kept], beta, self.score.t(beta, gamma2, self._complete))

    def candidates(self, ZX: np.ndarray, R_Y: np.ndarray, testable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(SNP, voxel), int32 (k,) each, whose |beta| may be beyond the bound; ``ZX`` (r + B, n) are permuted."""
        snps, voxels = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        width = _even(min(self.elements // min(self.r + self.snps, len(ZX)), STRIP))
        for first in range(0, len(R_Y), width):
            Y = R_Y[first : first + width]
            bound = np.zeros(0)
            for rows in self._row_tiles(len(ZX)):
                T = self._tile[: (rows.stop - rows.start) * len(Y)].reshape(-1, len(Y))
                np.matmul(ZX[rows], Y.T, out=T)  # [Gamma; beta] = [P'Z_w; P'R_X] R_Y'
                if rows.start == 0:
                    Gamma, T = T[: self.r], T[self.r :]
                    bound = self.score.bound(np.einsum("rv,rv->v", Gamma, Gamma)) - self._slack
                    bound[~testable[first : first + width]] = np.inf
                snp, voxel = self._beyond(T, bound)
                snps.append((snp + max(rows.start - self.r, 0)).astype(np.int32))
                voxels.append((voxel + first).astype(np.int32))
        return np.concatenate(snps), np.concatenate(voxels)

    def _row_tiles(self, rows: int) -> Iterator[slice]:
        """Tiles of the rows of [Z_w; R_X], Z_w in the first."""
        yield slice(0, min(self.r + self.snps, rows))
        for start in range(self.r + self.snps, rows, self.snps):
            yield slice(start, min(start + self.snps, rows))

    def _beyond(self, beta: np.ndarray, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the tile ``beta`` (B, w) where |beta| >= bound (w,)."""
        # the smallest bound of the tile first: comparing with one number is several times as fast as with a row
        width, least = beta.shape[1], bound.min().astype(beta.dtype)
        step = max(1, self._strip.size // width)
        places, sizes = [np.empty(0, np.int64)], [np.empty(0, beta.dtype)]
        for first in range(0, len(beta), step):
            rows = beta[first : first + step]
            size, mask = self._strip[: rows.size], self._mask[: rows.size]
            np.abs(rows.reshape(-1), out=size)
            found = np.flatnonzero(np.greater_equal(size, least, out=mask))
            places.append(found + first * width)
            sizes.append(size[found])
        snp, voxel = np.divmod(np.concatenate(places), width)
        kept = np.concatenate(sizes) >= bound[voxel]
        return snp[kept], voxel[kept]


def _even(width: int) -> int:
    """A width that the product's kernels like."""
    return max(1, width - width % 64 if width > 64 else width)


def rescore(
    ZX: np.ndarray, r: int, R_Y: np.ndarray, snp: np.ndarray, voxel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """beta, summed in float64, and Gamma^2 of the pairs (``snp``, ``voxel``): float64 (k,) each.

    The order of summation is that of the samples, whichever pairs come together.
    """
    beta, gamma2 = np.empty(snp.size), np.empty(snp.size)
    n = ZX.shape[1]
    step = max(1, _PANEL_BYTES // (8 * n))
    Z = ZX[:r]
    for start in range(0, snp.size, step):
        part = slice(start, start + step)
        Y = R_Y[voxel[part]]
        beta[part] = np.multiply(ZX[r + snp[part]], Y, dtype=np.float64).sum(axis=1)
        gamma = np.einsum("kn,rn->kr", Y, Z)
        gamma2[part] = np.einsum("kr,kr->k", gamma, gamma)
    return beta, gamma2

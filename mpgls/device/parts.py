"""A float64 matrix as a sum of low-precision parts, and its products with genotypes, which are small integers.

    W_ij = s_i sum_p u_p A_p,ij        X_kj = sum_q v_q B_q,kj        W X' = s o sum_pq u_p v_q A_p B_q'

Three precisions are such sums:

    double   one float64 part: an ordinary product
    mixed    two float16 parts of W, u = 1, 1/2048, products summed in float32: 22 bits of W
    exact    seven int8 parts of W, u = 256^p, products summed in int32: 55 bits of W, and no rounding in a sum

s_i is a power of two that lets the largest number of row i fill its parts (Ootomo and Yokota, Int. J. High Perform.
Comput. Appl. 36, 2022, for float16; Ozaki et al., Numerical Algorithms 59, 2012, and Ootomo, Ozaki, Yokota, Int. J.
High Perform. Comput. Appl. 38, 2024, for integers). Counts of alleles are one part. A dosage has two float16 parts, or
five int8 parts of its multiple of 2^-37.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.device.products import INT8, aligned, digit_products, double_product, half_product, integer_product

SECOND = 2048.0
"""What a second float16 part is multiplied by: float16 has 11 bits."""
HALF_TOP = 14
"""The largest number of a row is below 2^14 in float16, whose largest is 65,504."""
DIGITS, BASE = 7, 256
"""int8 parts of W, and what each is worth more than the one before."""
TOP = 54
"""The largest number of a row is below 2^54: then the top digit is at most 64."""
DOSAGE_DIGITS, DOSAGE_BITS = 5, 37
"""int8 parts of a dosage, of at most 2 in size, in units of 2^-37."""
LOWEST = 3
"""Products of parts that are worth less than 256^3, 2^-60 of the largest, are left out."""
STRIP = 256
"""Columns of any numbers that are split together."""


@dataclass(frozen=True, eq=False)
class Columns:
    """B columns of genotypes on the card, as ``parts``, each (B, k), and what each is worth."""

    parts: Sequence[Any]
    counts: bool
    """Whether they are whole numbers of at most 2 in size, one part."""

    def leading(self, k: int) -> Columns:
        """The first ``k`` numbers of each column."""
        return Columns([part[:, :k] for part in self.parts], self.counts)


class Double:
    """One float64 part."""

    name = "double"
    text = "float64"
    kind: np.dtype = np.dtype(np.float64)
    """Of a part."""
    sums: np.dtype = np.dtype(np.float64)
    """Of a product."""
    count = 1
    """Parts of W."""
    dosage_count = 1
    """Parts of a dosage."""

    def split(self, xp: Any, W: Any) -> tuple[Any, Any]:
        """The parts (count, r, k) of W (r, k), and the scale (r,) of each row."""
        return W[None].astype(self.kind), xp.ones(W.shape[0])

    def split_dosages(self, xp: Any, x: Any) -> list[Any]:
        """The parts of float64 dosages (B, k) less a whole number."""
        return [x]

    def split_columns(self, xp: Any, H: Any) -> tuple[Columns, Any]:
        """Columns of any numbers H (k, B), float64, in parts, and the scale of each: of B, or more, columns."""
        k, B = H.shape
        X = xp.zeros((aligned(B), aligned(k)))
        X[:B, :k] = H.T
        parts, scale = self.split(xp, X)
        return Columns(list(parts), False), scale

    def product(self, xp: Any, parts: Any, X: Columns) -> Any:
        """sum_pq u_p v_q A_p B_q' (r, B), before the rows are scaled."""
        return double_product(xp, parts[0], X.parts[0])

    def join(self, X: Columns) -> Any:
        """The numbers that parts of columns stand for, float64."""
        return X.parts[0].astype(np.float64)


class Mixed(Double):
    """Two float16 parts."""

    name = "mixed"
    text = "two float16 parts"
    kind = np.dtype(np.float16)
    sums = np.dtype(np.float32)
    count = 2
    dosage_count = 2

    def split(self, xp: Any, W: Any) -> tuple[Any, Any]:
        """Each part holds 11 bits: of W, and of what the first leaves, times 2048."""
        scale = _row_scale(xp, W, HALF_TOP)
        return xp.stack(_two_halves(W / scale[:, None])), scale

    def split_dosages(self, xp: Any, x: Any) -> list[Any]:
        """A high and a low part."""
        return _two_halves(x)

    def product(self, xp: Any, parts: Any, X: Columns) -> Any:
        """float32; the product of two low parts, 2^-24 of the whole, is left out."""
        low = half_product(xp, parts[1], X.parts[0], 1 / SECOND)
        if not X.counts:
            low = half_product(xp, parts[0], X.parts[1], 1 / SECOND, low)
        return half_product(xp, parts[0], X.parts[0], 1.0, low)


class Exact(Double):
    """Seven int8 parts."""

    name = "exact"
    text = "seven int8 parts"
    kind = np.dtype(np.int8)
    count = DIGITS
    dosage_count = DOSAGE_DIGITS

    def split(self, xp: Any, W: Any) -> tuple[Any, Any]:
        """The digits of W in base 256, from -128 to 127, the lowest first."""
        scale = _row_scale(xp, W, TOP)
        return xp.stack(digits(xp, W / scale[:, None], DIGITS)), scale

    def split_columns(self, xp: Any, H: Any) -> tuple[Columns, Any]:
        """As digits of dosages are, in units of 2^-37."""
        X, scale = super().split_columns(xp, H)
        return X, scale * 2.0**DOSAGE_BITS

    def split_dosages(self, xp: Any, x: Any) -> list[Any]:
        """The digits of its multiple of 2^-37."""
        return digits(xp, x * 2.0**DOSAGE_BITS, DOSAGE_DIGITS)

    def join(self, X: Columns) -> Any:
        """Whole numbers, or digits of multiples of 2^-37."""
        if X.counts:
            return X.parts[0].astype(np.float64)
        return sum(part * (2.0**-DOSAGE_BITS * float(BASE) ** q) for q, part in enumerate(X.parts))

    def product(self, xp: Any, parts: Any, X: Columns) -> Any:
        """Exact sums of each worth, added up in float64 from the lowest to the highest."""
        if X.counts:
            return digit_products(xp, parts, X.parts[0], xp.asarray(float(BASE) ** np.arange(len(parts))))
        total = xp.zeros((parts.shape[1], X.parts[0].shape[0]))
        for power in range(LOWEST, len(parts) + len(X.parts) - 1):
            pairs = [(p, power - p) for p in range(len(parts)) if 0 <= power - p < len(X.parts)]
            of_power = sum(integer_product(xp, parts[p], X.parts[q], INT8) for p, q in pairs)
            total += of_power * (2.0**-DOSAGE_BITS * float(BASE) ** power)
        return total


def split_in_strips(xp: Any, precision: Double, H: Any) -> tuple[Columns, Any]:
    """`Double.split_columns` of H (k, B) a few columns at a time: what the split takes beside the parts is little."""
    k, B = H.shape
    parts = xp.empty((precision.count, aligned(B), aligned(k)), dtype=precision.kind)
    scale = xp.empty(aligned(B))
    for start in range(0, B, STRIP):
        X, of_strip = precision.split_columns(xp, H[:, start : start + STRIP])
        strip = slice(start, start + of_strip.size)
        scale[strip] = of_strip
        for whole, part in zip(parts, X.parts, strict=True):
            whole[strip] = part
    return Columns(list(parts), False), scale


PRECISIONS: dict[str, Double] = {one.name: one for one in (Double(), Mixed(), Exact())}
"""By the name of --precision."""


def _row_scale(xp: Any, W: Any, top: int) -> Any:
    """Powers of two (r,) that bring the largest number of each row into [2^(top-1), 2^top); 1 for rows of zeros."""
    largest = xp.abs(W).max(axis=1)
    exponent = xp.frexp(largest)[1]
    return xp.where(largest > 0, xp.ldexp(xp.ones(W.shape[0]), exponent - top), 1.0)


def _two_halves(W: Any) -> list[Any]:
    first = W.astype(np.float16)
    return [first, ((W - first) * SECOND).astype(np.float16)]


def digits(xp: Any, W: Any, count: int) -> list[Any]:
    """Whole numbers W in base 256, ``count`` digits from -128 to 127, the lowest first."""
    left, found = xp.rint(W).astype(np.int64), []
    for _ in range(count):
        digit = ((left + INT8) & (BASE - 1)) - INT8
        found.append(digit.astype(np.int8))
        left = (left - digit) >> 8
    return found

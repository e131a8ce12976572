"""Products of centred genotypes with one another: exact integers, and corrections of rank one in float64.

With u = a + d m, where a = x - c is 0 and m is 1 where x is missing and d = mean - c, a centred SNP is u - d 1 and
u'1 = n d. So of two SNPs k and x

    centred_k' centred_x = a_k'a_x + d_x a_k'm_x + d_k m_k'a_x + d_k d_x m_k'm_x  -  n d_k d_x

Counts of alleles are one int8 part, dosages five of their multiple of 2^-37 (`mpgls.device.parts`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mpgls.device.card import Card
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.parts import BASE, DOSAGE_BITS, Columns
from mpgls.device.products import COPIES, INT8, aligned, integer_product


class Counted(NamedTuple):
    """B SNPs on a card: ``a`` in parts (B, k) and ``d`` (B,); ``m`` of the SNPs ``gaps`` (g,), None where g = 0.

    Rows of ``a`` and ``m`` beyond B and g, up to whole memory accesses, mean nothing.
    """

    a: Columns
    d: Any
    gaps: Any
    m: Columns | None


def counted(card: Card, decoder: DeviceDecoder, packed: Any, mean: np.ndarray, gaps: np.ndarray) -> Counted:
    """Of B SNPs of packed genotypes, or dosages, ``packed`` (B or more, any) with these means; ``gaps`` (g,) have
    missing ones.
    """
    xp, short = card.xp, aligned(mean.size) - mean.size
    c = np.rint(mean)
    at = np.pad(np.arange(mean.size), (0, short), mode="edge")
    decode = decoder.dosages if packed.dtype == np.float32 else decoder.genotypes
    a = decode(packed[xp.asarray(at)], xp.asarray(np.pad(c, (0, short))))
    m = None
    if gaps.size:
        of_gaps = np.pad(gaps, (0, aligned(gaps.size) - gaps.size), mode="edge")
        m = decoder.missing(packed[xp.asarray(of_gaps)])
    return Counted(a, xp.asarray(mean - c), xp.asarray(gaps), m)


def centred_product(xp: Any, left: Counted, right: Counted, n: int) -> Any:
    """The products of ``left`` and ``right`` SNPs over n samples: float64 (B_left, B_right)."""
    B = right.d.size

    def product(A: Columns, G: Columns, rows: int, cols: int) -> Any:
        return _product_of_parts(xp, [part[:rows] for part in A.parts], G, A.counts)[:, :cols]

    P = product(left.a, right.a, left.d.size, B)
    if right.m is not None:
        P[:, right.gaps] += product(left.a, right.m, left.d.size, right.gaps.size) * right.d[right.gaps]
    if left.m is not None:
        of_gaps = left.d[left.gaps][:, None]
        P[left.gaps] += product(left.m, right.a, left.gaps.size, B) * of_gaps
        if right.m is not None:
            both = product(left.m, right.m, left.gaps.size, right.gaps.size)
            P[left.gaps[:, None], right.gaps] += both * of_gaps * right.d[right.gaps]
    P -= left.d[:, None] * (n * right.d)
    return P


def _product_of_parts(xp: Any, A: list[Any], G: Columns, of_counts: bool) -> Any:
    """A G' of whole numbers, ``of_counts``, or of digits of dosages, and columns of either; lowest digits first."""
    dosages = (not of_counts) + (not G.counts)
    largest = COPIES if G.counts else INT8
    total: Any = 0.0
    for power in range(len(A) + len(G.parts) - 1):
        pairs = [(p, power - p) for p in range(len(A)) if 0 <= power - p < len(G.parts)]
        of_power = sum(integer_product(xp, A[p], G.parts[q], largest) for p, q in pairs)
        total = of_power * (float(BASE) ** power * 2.0 ** (-DOSAGE_BITS * dosages)) + total
    return total

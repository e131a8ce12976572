"""Products of centred genotype counts with one another: exact integers, and corrections of rank one in float64.

With u = a + d m, where a = x - c is 0 and m is 1 where x is missing and d = mean - c, a centred SNP is u - d 1 and
u'1 = n d. So of two SNPs k and x

    centred_k' centred_x = a_k'a_x + d_x a_k'm_x + d_k m_k'a_x + d_k d_x m_k'm_x  -  n d_k d_x
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mpgls.device.card import Card
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.products import COPIES, aligned, integer_product


class Counted(NamedTuple):
    """B SNPs on a card: ``a`` int8 (B, k) and ``d`` (B,); ``m`` int8 of the SNPs ``gaps`` (g,), None where g = 0.

    Rows of ``a`` and ``m`` beyond B and g, up to whole memory accesses, mean nothing.
    """

    a: Any
    d: Any
    gaps: Any
    m: Any


def counted(card: Card, decoder: DeviceDecoder, packed: Any, mean: np.ndarray, gaps: np.ndarray) -> Counted:
    """Of B SNPs of packed genotypes ``packed`` (B or more, any) with these means; ``gaps`` (g,) have missing ones."""
    xp, short = card.xp, aligned(mean.size) - mean.size
    c = np.rint(mean)
    at = np.pad(np.arange(mean.size), (0, short), mode="edge")
    a = decoder.genotypes(packed[xp.asarray(at)], xp.asarray(np.pad(c, (0, short)))).parts[0]
    m = None
    if gaps.size:
        of_gaps = np.pad(gaps, (0, aligned(gaps.size) - gaps.size), mode="edge")
        m = decoder.missing(packed[xp.asarray(of_gaps)]).parts[0]
    return Counted(a, xp.asarray(mean - c), xp.asarray(gaps), m)


def centred_product(xp: Any, left: Counted, right: Counted, n: int) -> Any:
    """The products of ``left`` and ``right`` SNPs over n samples: float64 (B_left, B_right)."""
    B = right.d.size

    def product(A: Any, G: Any, rows: int, cols: int) -> Any:
        return integer_product(xp, A[:rows], G, COPIES)[:, :cols]

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

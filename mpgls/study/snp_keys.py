"""A number for each SNP, by which two files are found to hold the same one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mpgls.study.chromosome_names import canonical_chromosome
from mpgls.study.variants import VariantRows, Variants

_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


def snp_keys(variants: Variants) -> np.ndarray:
    """uint64 (B,): the 64-bit FNV-1a hash of canonical chromosome, position and ID: equal SNPs have equal keys."""
    canonical = {name: canonical_chromosome(name) for name in dict.fromkeys(variants.chrom)}
    text = [
        f"{canonical[chrom]} {pos} {name}".encode()
        for chrom, pos, name in zip(variants.chrom, variants.pos.tolist(), variants.id, strict=True)
    ]
    if not text:
        return np.empty(0, dtype=np.uint64)
    padded = np.array(text)
    letters = np.ascontiguousarray(padded.view(np.uint8).reshape(len(text), -1).T)
    keys = np.full(len(text), _BASIS)
    for column in letters.astype(np.uint64):
        np.multiply(keys ^ column, _PRIME, out=keys, where=column != 0)
    return keys


def are_among(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(B,) bool: which of ``keys`` (B,) are among the ascending ``known`` ones, of which there is at least one."""
    at = np.searchsorted(known, keys)
    return known[np.minimum(at, known.size - 1)] == keys


def keys_of(variants: VariantRows, index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The keys of the .bim rows ``index`` (m,), ascending, in batches: (position of the first one, keys)."""
    first = 0
    for start, batch in variants.batches():
        rows = index[slice(*np.searchsorted(index, [start, start + len(batch)]))] - start
        yield first, snp_keys(batch)[rows]
        first += rows.size

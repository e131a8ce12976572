"""Bit tricks on packed genotypes: transposing, random bits, codes of .bed bytes, their alleles and their order."""

from __future__ import annotations

import numpy as np


def transpose_bits(words: np.ndarray) -> None:
    """Transpose each 8 x 8 bit matrix of ``words`` (uint64, row i in byte i, column j in bit j) in place.

    Three rounds of swaps: single bits, 2 x 2 and 4 x 4 blocks (Warren, Hacker's Delight, section 7-3).
    """
    scratch = np.empty_like(words)
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        np.right_shift(words, np.uint64(shift), out=scratch)
        scratch ^= words
        scratch &= np.uint64(mask)
        words ^= scratch
        scratch <<= np.uint64(shift)
        words ^= scratch


def bernoulli_bits(rng: np.random.Generator, share: float, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes of independent bits that are one with probability ``share``, rounded to a multiple of 2^-16.

    Binary digits of ``share`` from the least significant: or with random bits for a one, and for a zero.
    """
    steps = min(max(round(share * 65536), 0), 65535)
    words = -(-int(np.prod(shape)) // 8)
    bits = np.zeros(words, dtype=np.uint64)
    for digit in range(16):
        if not bits.any() and not steps >> digit & 1:
            continue
        drawn = rng.integers(0, 2**64, size=words, dtype=np.uint64)
        bits = bits | drawn if steps >> digit & 1 else bits & drawn
    return bits.view(np.uint8)[: int(np.prod(shape))].reshape(shape)


def codes_of(packed: np.ndarray, samples: int) -> np.ndarray:
    """The codes, uint8 (B, samples), of the .bed rows ``packed`` (B, snp_bytes)."""
    codes = packed[:, :, None] >> np.array([0, 2, 4, 6], dtype=np.uint8) & np.uint8(3)
    return codes.reshape(packed.shape[0], -1)[:, :samples]


def pack_codes(codes: np.ndarray) -> np.ndarray:
    """.bed rows (B, w) of codes, uint8 (B, 4 w) with zeros after the last sample."""
    words = np.ascontiguousarray(codes).view("<u4")
    # four bytes with two bits each, side by side in the highest byte of the product: no sum of two bits overlaps
    return (words * np.uint32(0x01041040) >> np.uint32(24)).astype(np.uint8)


def pack_alt_counts(counts: np.ndarray) -> np.ndarray:
    """.bed rows (B, w), with ALT as A1, of copies of ALT: int8 (B, 4 w), negative where missing, 2 after the last."""
    packed = pack_codes(counts.view(np.uint8) & np.uint8(3))  # -9, pgenlib's missing, ends in the bits of 3
    low, high = packed & np.uint8(0x55), packed >> np.uint8(1) & np.uint8(0x55)
    # 0, 1, 2 copies and missing are the codes 11, 10, 00 and 01
    return ~(high << np.uint8(1) | high ^ low)


def in_order(packed: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The .bed rows ``packed`` with sample ``order[i]`` at place i."""
    codes = np.zeros((packed.shape[0], 4 * packed.shape[1]), dtype=np.uint8)
    np.take(codes_of(packed, order.size), order, axis=1, out=codes[:, : order.size], mode="clip")
    return pack_codes(codes)


def _count_table() -> np.ndarray:
    """For each .bed byte: copies of A1 in the low half and missing genotypes in the high half of a uint64."""
    codes = np.arange(256)[:, None] >> np.array([0, 2, 4, 6]) & 3
    copies = np.array([2, 0, 1, 0])[codes].sum(axis=1)
    return (copies + ((codes == 1).sum(axis=1) << 32)).astype(np.uint64)


_COUNTS = _count_table()


def count_alleles(packed: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """A1 copies and non-missing genotypes of each row of ``packed`` (B, snp_bytes), padded with 00; both (B,) int64."""
    sums = np.array([np.take(_COUNTS, row, mode="clip").sum() for row in packed], dtype=np.uint64)
    padding = 4 * packed.shape[1] - samples
    copies = (sums & np.uint64(0xFFFFFFFF)).astype(np.int64) - 2 * padding
    return copies, samples - (sums >> np.uint64(32)).astype(np.int64)


def swap_alleles(packed: np.ndarray, samples: int) -> np.ndarray:
    """The same genotypes with A1 and A2 exchanged: codes 00 and 11 change places; padding stays 00."""
    alike = ~(packed ^ (packed >> 1)) & np.uint8(0x55)
    swapped = packed ^ (alike * np.uint8(3))
    if samples % 4:
        swapped[:, -1] &= np.uint8((1 << 2 * (samples % 4)) - 1)
    return swapped

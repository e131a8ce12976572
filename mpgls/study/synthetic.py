"""Synthetic genotypes with relatedness and linkage, made block by block in the 2-bit form of a PLINK .bed.

The model, from old to young:

* ``founders`` ancestral haplotypes. In each window of a chromosome they stand in a random circular order, and the
  carriers of an A1 allele are an arc of that order, so that SNPs of a window are in linkage disequilibrium as clades of
  one genealogy are. The number of carriers c follows the folded neutral spectrum, 1/c + 1/(founders - c).
* The two haplotypes of every founder sample are mosaics: one change of ancestor a window, at a random place.
* Children inherit one gamete of each parent, with a Poisson number of crossovers, one Morgan a chromosome.

Everything random comes from a Philox stream keyed by (seed, kind) with (chromosome or block, index) in the counter,
so any process makes any block, and the bytes do not depend on who does. Haplotypes change ancestor between groups of
eight SNPs only: one byte holds one haplotype over a group, a group costs one table look-up a haplotype, and eight
bytes, the two code bits of four samples, become the .bed bytes of eight SNPs by transposing an 8 x 8 bit matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.study.packed_bits import bernoulli_bits, count_alleles, swap_alleles, transpose_bits
from mpgls.study.synthetic_haplotypes import GROUP, MISSING, SITES, Chromosome, Families, Recipe, Walk, stream

CHUNK_BYTES = 1 << 16  # haplotype bytes worked on at a time: they stay in the second-level cache
SAME_BRANCH = 0.3  # share of SNPs that have the carriers of the SNP before
POLYGENIC_SNPS = 50_000
ALLELES = ("A\tG", "G\tA", "C\tT", "T\tC", "A\tC", "C\tA", "G\tT", "T\tG")


@dataclass(frozen=True)
class Block:
    """SNPs ``start`` to ``stop``: .bed bytes (stop - start, snp_bytes) uint8 and the lines of the .bim."""

    start: int
    stop: int
    packed: np.ndarray
    bim: bytes


class BlockMaker:
    """Makes blocks of a recipe in any order, and sums up what the traits need from the blocks that it made.

    ``polygenic`` (factors, n) int64: integer genetic values, exact, so partial sums of several makers add up to the
    same values in any order. ``dosages`` (pool, n) uint8: A1 copies of the causal SNPs, zero where another maker has
    them.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.families = Families.of(recipe.samples, recipe.family_size)
        self.polygenic = np.zeros((recipe.factors, recipe.samples), dtype=np.int64)
        self.dosages = np.zeros((recipe.causal.size, recipe.samples), dtype=np.uint8)
        self._chromosome: Chromosome | None = None
        copies = np.arange(1, recipe.founders // 2 + 1)
        spectrum = np.cumsum(1.0 / copies + 1.0 / (recipe.founders - copies))
        self._spectrum = spectrum / spectrum[-1]
        share = np.arange(recipe.founders // 2 + 1) / recipe.founders
        # effects per allele grow as 1/sqrt(2 f (1 - f)), so that every SNP explains the same share of variance
        self._weight = np.rint(256 / np.sqrt(np.maximum(2 * share * (1 - share), 1e-9))).astype(np.int64)
        total = -(-recipe.snps // GROUP)
        self._stride = max(1, -(-total * GROUP // POLYGENIC_SNPS))
        padded = 4 * recipe.snp_bytes
        self._chunk = max(1, CHUNK_BYTES // padded)
        # padding samples are two copies of A1, code 00, as PLINK pads
        self._hap = np.full((2, self._chunk, padded), 0xFF, dtype=np.uint8)
        self._founder_bytes = np.empty(2 * self.families.founders, dtype=np.uint8)

    def make(self, index: int) -> Block:
        """Block ``index`` of ``recipe.blocks``."""
        number, start, stop = self.recipe.blocks[index]
        if self._chromosome is None or self._chromosome.number != number:
            self._chromosome = Chromosome(self.recipe, self.families, number)
        chromosome = self._chromosome
        rng = stream(self.recipe.seed, SITES, index)
        low, groups = (start - chromosome.first) // GROUP, -(-(stop - start) // GROUP)
        carriers, copies = self._carriers(chromosome, low, groups, rng)
        tables = np.packbits(carriers, axis=1, bitorder="little").reshape(groups, -1)
        values = self._group_values(carriers, copies, rng)
        packed = np.empty((groups * GROUP, self.recipe.snp_bytes), dtype=np.uint8)
        lost = stream(self.recipe.seed, MISSING, index)
        walk = Walk(chromosome, low)
        for at in range(0, groups, self._chunk):
            count = min(self._chunk, groups - at)
            for k in range(count):
                if at + k:
                    walk.advance()
                self._haplotype_bytes(walk, tables[at + k], k)
                if (start // GROUP + at + k) % self._stride == 0:
                    self._add_polygenic(walk, values[at + k])
            self._collect_dosages(start + at * GROUP, min(stop, start + (at + count) * GROUP))
            self._pack(count, lost, packed[at * GROUP : (at + count) * GROUP])
        packed = packed[: stop - start]
        self._orient(packed, start, rng)
        return Block(start, stop, packed, self._bim(chromosome, start, stop, rng))

    def _carriers(
        self, chromosome: Chromosome, low: int, groups: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(groups, 8, founders) bool: which ancestors carry A1; and the number of carriers, (groups, 8)."""
        founders = self.recipe.founders
        copies = 1 + np.searchsorted(self._spectrum, rng.random((groups, GROUP)), side="right")
        copies = np.minimum(copies, founders // 2)
        begin = rng.integers(0, founders, size=(groups, GROUP)).astype(np.int16)
        # mutations on the branch of the SNP before: the same carriers while the order is the same
        own = np.where(rng.random(copies.size) < SAME_BRANCH, 0, np.arange(copies.size))
        branch = np.maximum.accumulate(own).reshape(copies.shape)
        copies, begin = copies.reshape(-1)[branch], begin.reshape(-1)[branch]
        windows = (low + np.arange(groups)) // chromosome.window
        orders = np.stack([chromosome.order(w) for w in range(windows[0], windows[-1] + 1)]).astype(np.int16)
        distance = orders[windows - windows[0]][:, None, :] - begin[:, :, None]
        distance += (distance < 0) * np.int16(founders)
        return distance < copies[:, :, None].astype(np.int16), copies

    def _group_values(self, carriers: np.ndarray, copies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(groups, factors, founders) int64: polygenic value of each ancestor over each group."""
        drawn = rng.integers(-1000, 1001, size=(*copies.shape, self.recipe.factors))
        effects = drawn * self._weight[copies][:, :, None]
        values = np.zeros((copies.shape[0], self.recipe.factors, self.recipe.founders), dtype=np.int64)
        for k in range(GROUP):
            values += effects[:, k, :, None] * carriers[:, k, None, :]
        return values

    def _haplotype_bytes(self, walk: Walk, table: np.ndarray, row: int) -> None:
        """Row ``row`` of the chunk: the bytes of all samples' haplotypes in the walk's group."""
        n = self.recipe.samples
        np.take(table, walk.current, out=self._founder_bytes, mode="clip")
        for k in (0, 1):
            np.take(self._founder_bytes, walk.sources[k], out=self._hap[k, row, :n], mode="clip")

    def _add_polygenic(self, walk: Walk, values: np.ndarray) -> None:
        for total, one in zip(self.polygenic, values, strict=True):
            of_founders = np.take(one, walk.current, mode="clip")
            for k in (0, 1):
                total += np.take(of_founders, walk.sources[k], mode="clip")

    def _collect_dosages(self, start: int, stop: int) -> None:
        """A1 copies of the causal SNPs between ``start`` and ``stop``, the SNPs of the chunk."""
        low, high = np.searchsorted(self.recipe.causal, [start, stop])
        for k in range(low, high):
            row, bit = divmod(int(self.recipe.causal[k]) - start, GROUP)
            bits = (self._hap[:, row, : self.recipe.samples] >> np.uint8(bit)) & np.uint8(1)
            self.dosages[k] = bits[0] + bits[1]

    def _pack(self, count: int, lost: np.random.Generator, out: np.ndarray) -> None:
        """The .bed rows of the chunk's first ``count`` groups into ``out`` (8 count, snp_bytes)."""
        first, second = self._hap[0, :count], self._hap[1, :count]
        # codes: 00 two copies of A1, 10 one, 11 none; so high = not (a and b), low = not (a or b); missing is 01
        high, low = ~(first & second), ~(first | second)
        if self.recipe.missing > 0:
            mask = bernoulli_bits(lost, self.recipe.missing, high.shape)
            mask[:, self.recipe.samples :] = 0
            high &= ~mask
            low |= mask
        pairs = high.astype("<u2")
        pairs <<= np.uint16(8)
        pairs |= low
        words = pairs.view("<u8")
        transpose_bits(words)
        out.reshape(count, GROUP, -1)[:] = words.view(np.uint8).reshape(count, -1, GROUP).transpose(0, 2, 1)

    def _orient(self, packed: np.ndarray, start: int, rng: np.random.Generator) -> None:
        """Make A1 the rarer allele of each row, and give rows without any carrier one heterozygous sample."""
        n = self.recipe.samples
        copies, observed = count_alleles(packed, n)
        flipped = np.flatnonzero(copies > observed)
        packed[flipped] = swap_alleles(packed[flipped], n)
        copies[flipped] = 2 * observed[flipped] - copies[flipped]
        empty = np.flatnonzero(copies == 0)
        chosen = rng.integers(0, n, size=len(packed))[empty]
        shift = (2 * (chosen % 4)).astype(np.uint8)
        bytes_ = packed[empty, chosen // 4]
        packed[empty, chosen // 4] = (bytes_ & ~(np.uint8(3) << shift)) | (np.uint8(2) << shift)
        low, high = np.searchsorted(self.recipe.causal, [start, start + len(packed)])
        for k, row in enumerate(self.recipe.causal[low:high] - start, start=low):
            if row in flipped:
                self.dosages[k] = 2 - self.dosages[k]
            if row in empty:
                self.dosages[k, chosen[np.searchsorted(empty, row)]] = 1

    def _bim(self, chromosome: Chromosome, start: int, stop: int, rng: np.random.Generator) -> bytes:
        positions = chromosome.positions(start, stop, rng).tolist()
        alleles = rng.integers(0, len(ALLELES), size=stop - start).tolist()
        name = chromosome.number + 1
        lines = [
            f"{name}\trs{j}\t0\t{position}\t{ALLELES[pair]}\n"
            for j, position, pair in zip(range(start + 1, stop + 1), positions, alleles, strict=True)
        ]
        return "".join(lines).encode("ascii")

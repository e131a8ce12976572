"""Whose haplotype is whose in synthetic samples: random streams, families, crossovers and ancestral mosaics.

See mpgls.study.synthetic for the model. Everything is a function of the recipe, the chromosome and the window, so any
process can start in the middle of a chromosome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

GROUP = 8  # SNPs that share one byte of a haplotype
BLOCK_BYTES = 8 << 20  # packed genotypes of one block
BLOCK_SNPS = (256, 4096)  # fewest (unless memory wants less) and most SNPs of one block
WINDOWS = 50  # linkage windows of a long chromosome
CHROMOSOME_BP = 100_000_000  # one Morgan

MOSAIC, ORDER, GAMETES, SITES, MISSING, CAUSAL, TRAITS, NOISE, COVARIATES, SEXES = range(10)


def stream(seed: int, kind: int, first: int = 0, second: int = 0) -> np.random.Generator:
    """The random stream of one purpose (``kind``) and place; streams of different arguments never overlap."""
    key = np.array([seed, kind], dtype=np.uint64)
    counter = np.array([0, 0, first, second], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@dataclass(frozen=True)
class Recipe:
    """What to simulate; two equal recipes give the same bytes.

    ``samples`` n and ``snps`` m; ``family_size`` members of a family (two founders, then their children; 1 and 2 mean
    unrelated samples); ``founders`` ancestral haplotypes (4 to 256); ``missing`` share of genotypes lost at random
    (in steps of 2^-16); ``factors`` polygenic backgrounds; ``pool`` SNPs with a large effect on some trait.
    """

    samples: int
    snps: int
    chromosomes: int = 22
    family_size: int = 4
    founders: int = 64
    missing: float = 0.0
    factors: int = 1
    pool: int = 10
    seed: int = 1

    @property
    def snp_bytes(self) -> int:
        """Bytes of one SNP in the .bed."""
        return (self.samples + 3) // 4

    @cached_property
    def starts(self) -> np.ndarray:
        """(chromosomes + 1,) first SNP of each chromosome, then m: an even split."""
        return np.arange(self.chromosomes + 1, dtype=np.int64) * self.snps // self.chromosomes

    @cached_property
    def blocks(self) -> list[tuple[int, int, int]]:
        """(chromosome from 0, first SNP, last SNP + 1) of each block; whole groups within one chromosome."""
        wanted = min(max(BLOCK_SNPS[0], self.snps // 512), BLOCK_SNPS[1])  # enough blocks for many ranks
        size = max(GROUP, min(wanted, BLOCK_BYTES // self.snp_bytes) // GROUP * GROUP)
        return [
            (c, start, min(start + size, int(self.starts[c + 1])))
            for c in range(self.chromosomes)
            for start in range(int(self.starts[c]), int(self.starts[c + 1]), size)
        ]

    @cached_property
    def causal(self) -> np.ndarray:
        """(pool,) ascending positions of the SNPs with large effects."""
        rng = stream(self.seed, CAUSAL)
        return np.sort(rng.choice(self.snps, size=min(self.pool, self.snps), replace=False)).astype(np.int64)


@dataclass(frozen=True)
class Families:
    """Who descends from whom: family, member of it, founder number or -1, parents' samples or -1; all (n,)."""

    family: np.ndarray
    member: np.ndarray
    founder: np.ndarray
    father: np.ndarray
    mother: np.ndarray

    @classmethod
    def of(cls, samples: int, family_size: int) -> Families:
        """The families of ``samples`` samples; the last one may be incomplete."""
        who = np.arange(samples, dtype=np.int64)
        family, member = who // family_size, who % family_size
        born = member >= 2
        founder = np.where(born, -1, np.cumsum(~born) - 1)
        first = family * family_size
        return cls(family, member, founder, np.where(born, first, -1), np.where(born, first + 1, -1))

    @property
    def founders(self) -> int:
        """Number of founder samples."""
        return int(np.count_nonzero(self.founder >= 0))

    def sexes(self, seed: int) -> np.ndarray:
        """(n,) 1 male, 2 female: parents by their part, everybody else at random."""
        drawn = stream(seed, SEXES).integers(1, 3, size=self.member.size)
        parents = np.zeros(self.member.size, dtype=bool)
        parents[self.father[self.father >= 0]] = True
        parents[self.mother[self.mother >= 0]] = True
        return np.where(parents, self.member + 1, drawn)


class Chromosome:
    """Which founder haplotype each sample's haplotype copies, and which ancestor each founder haplotype copies."""

    def __init__(self, recipe: Recipe, families: Families, number: int) -> None:
        self.number, self._recipe = number, recipe
        self.first = int(recipe.starts[number])
        self.snps = int(recipe.starts[number + 1]) - self.first
        self.groups = -(-self.snps // GROUP)
        self.window = min(max(2, -(-self.groups // WINDOWS)), 60_000)
        self._haplotypes = 2 * families.founders
        rng = stream(recipe.seed, GAMETES, number)
        self._base = self._gametes(families, rng)
        self._at, self._who = self._crossovers(families, rng)

    def _gametes(self, families: Families, rng: np.random.Generator) -> np.ndarray:
        """(2, n) founder haplotype that each sample's two haplotypes copy at the start of the chromosome."""
        start = rng.integers(0, 2, size=(2, families.member.size))
        own = families.founder >= 0
        parents = [families.founder[np.maximum(one, 0)] for one in (families.father, families.mother)]
        rows = [np.where(own, 2 * families.founder + k, 2 * parents[k] + start[k]) for k in (0, 1)]
        return np.ascontiguousarray(rows, dtype=np.intp)

    def _crossovers(self, families: Families, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Groups at which a gamete changes to its parent's other haplotype (ascending), and which gamete does."""
        n = families.member.size
        child = np.flatnonzero(families.founder < 0)
        gametes = np.concatenate([child, n + child])
        who = np.repeat(gametes, rng.poisson(1.0, size=gametes.size))
        if self.groups < 2:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        at = rng.integers(1, self.groups, size=who.size)
        events, times = np.unique(at * (2 * n) + who, return_counts=True)
        events = events[times % 2 == 1]
        return events // (2 * n), events % (2 * n)

    def sources(self, group: int) -> np.ndarray:
        """(2, n) founder haplotypes that the samples copy in ``group``."""
        past = self._who[: np.searchsorted(self._at, group, side="right")]
        turned = np.bincount(past, minlength=self._base.size) & 1
        return self._base ^ turned.reshape(self._base.shape)

    def turns(self, group: int) -> np.ndarray:
        """Gametes (indices into the flattened sources) that cross over on entering ``group``."""
        low, high = np.searchsorted(self._at, [group, group + 1])
        return self._who[low:high]

    def ancestors(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Ancestor that each founder haplotype changes to in ``window`` (from -1), and the group within it where."""
        rng = stream(self._recipe.seed, MOSAIC, self.number, window + 1)
        ancestor = rng.integers(0, self._recipe.founders, size=self._haplotypes, dtype=np.uint8)
        place = rng.integers(0, self.window, size=self._haplotypes, dtype=np.uint16)
        return ancestor.astype(np.intp), place

    def order(self, window: int) -> np.ndarray:
        """(founders,) place of each ancestor in the circular order of ``window``."""
        return stream(self._recipe.seed, ORDER, self.number, window).permutation(self._recipe.founders)

    def positions(self, start: int, stop: int, rng: np.random.Generator) -> np.ndarray:
        """Base-pair positions of SNPs ``start`` to ``stop``, strictly increasing along the chromosome."""
        length = max(CHROMOSOME_BP, self.snps)
        cell = np.arange(start - self.first, stop - self.first, dtype=np.int64) * length // self.snps
        return 1 + cell + rng.integers(0, length // self.snps, size=stop - start)


@dataclass
class Walk:
    """The state of the haplotypes while a block is walked through group by group."""

    chromosome: Chromosome
    group: int
    sources: np.ndarray = field(init=False)
    current: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.sources = self.chromosome.sources(self.group)
        window, offset = divmod(self.group, self.chromosome.window)
        before, _ = self.chromosome.ancestors(window - 1)
        self._fresh, self._place = self.chromosome.ancestors(window)
        self.current = np.where(self._place <= offset, self._fresh, before)

    def advance(self) -> None:
        """Enter the next group."""
        self.group += 1
        offset = self.group % self.chromosome.window
        if offset == 0:
            self._fresh, self._place = self.chromosome.ancestors(self.group // self.chromosome.window)
        np.copyto(self.current, self._fresh, where=self._place == offset)
        self.sources.reshape(-1)[self.chromosome.turns(self.group)] ^= 1

"""Synthetic studies: the same bytes from any maker, valid PLINK rows, relatedness, linkage and traits as asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mpgls.study.packed_bits import bernoulli_bits, count_alleles, swap_alleles, transpose_bits
from mpgls.study.synthetic import BlockMaker
from mpgls.study.synthetic_haplotypes import Chromosome, Families, Recipe, Walk, stream
from mpgls.study.synthetic_traits import Traits, covariates, factors_for, pool_for

A1_COPIES = np.array([2, -1, 1, 0])  # by .bed code; -1 is missing


def decode(packed: np.ndarray, samples: int) -> np.ndarray:
    """(B, n) copies of A1, -1 where missing: one genotype at a time, as the format's description says."""
    codes = packed[:, :, None] >> np.array([0, 2, 4, 6], dtype=np.uint8) & 3
    return A1_COPIES[codes.reshape(len(packed), -1)][:, :samples]


def make(recipe: Recipe) -> tuple[np.ndarray, BlockMaker, list[str]]:
    """All genotypes (m, n), the maker that made them, and the lines of the .bim."""
    maker = BlockMaker(recipe)
    blocks = [maker.make(k) for k in range(len(recipe.blocks))]
    lines = b"".join(block.bim for block in blocks).decode().splitlines()
    return decode(np.concatenate([block.packed for block in blocks]), recipe.samples), maker, lines


@pytest.mark.parametrize(("samples", "snps", "chromosomes"), [(2, 1, 1), (5, 23, 3), (101, 1003, 7), (6, 10, 10)])
def test_blocks_cover_every_snp_once_within_chromosomes(samples, snps, chromosomes):
    recipe = Recipe(samples, snps, chromosomes=chromosomes)
    covered = [j for _, start, stop in recipe.blocks for j in range(start, stop)]
    assert covered == list(range(snps))
    for chromosome, start, stop in recipe.blocks:
        assert recipe.starts[chromosome] <= start < stop <= recipe.starts[chromosome + 1]
        assert (start - recipe.starts[chromosome]) % 8 == 0


def test_any_maker_makes_the_same_block():
    recipe = Recipe(61, 3001, chromosomes=2, missing=0.05, factors=3, pool=7, seed=9)
    one = BlockMaker(recipe)
    whole = [one.make(k) for k in range(len(recipe.blocks))]
    assert len(whole) > 4
    parts = [BlockMaker(recipe) for _ in range(3)]
    for k in reversed(range(len(recipe.blocks))):
        block = parts[k % 3].make(k)
        assert block.bim == whole[k].bim
        np.testing.assert_array_equal(block.packed, whole[k].packed)
    np.testing.assert_array_equal(sum(part.polygenic for part in parts), one.polygenic)
    np.testing.assert_array_equal(sum(part.dosages for part in parts), one.dosages)


def test_a_walk_may_start_anywhere_in_a_chromosome():
    recipe = Recipe(50, 2000, chromosomes=1, family_size=5, seed=3)
    chromosome = Chromosome(recipe, Families.of(50, 5), 0)
    walk = Walk(chromosome, 0)
    begin = walk.sources.copy()
    for group in range(250):
        jump = Walk(chromosome, group)
        np.testing.assert_array_equal(jump.sources, walk.sources)
        np.testing.assert_array_equal(jump.current, walk.current)
        if group < 249:
            walk.advance()
    assert 0 < np.count_nonzero(walk.sources != begin) < 2 * 30  # of the gametes of 30 children


def test_another_seed_gives_other_genotypes():
    first, _, _ = make(Recipe(40, 500, seed=1))
    second, _, _ = make(Recipe(40, 500, seed=2))
    assert 0.3 < np.mean(first == second) < 0.9


@pytest.mark.parametrize("samples", [2, 3, 4, 5, 63, 130])
def test_a1_is_the_rarer_allele_and_every_snp_has_a_carrier(samples):
    genotypes, _, _ = make(Recipe(samples, 777, chromosomes=3, missing=0.1))
    observed = (genotypes >= 0).sum(axis=1)
    copies = np.where(genotypes > 0, genotypes, 0).sum(axis=1)
    assert (copies > 0).all()
    assert (copies <= np.maximum(observed, 1)).all()


def test_padding_bits_are_zero():
    recipe = Recipe(9, 100, missing=0.3)
    maker = BlockMaker(recipe)
    for k in range(len(recipe.blocks)):
        assert (maker.make(k).packed[:, -1] >> 2 == 0).all()


@pytest.mark.parametrize("missing", [0.0, 0.013, 0.25, 0.6])
def test_missing_share(missing):
    genotypes, _, _ = make(Recipe(211, 3000, missing=missing))
    deviation = np.sqrt(missing * (1 - missing) / genotypes.size)
    assert abs(np.mean(genotypes < 0) - missing) <= 5 * deviation + 2**-16


def test_missing_genotypes_leave_the_others_alone():
    full, _, _ = make(Recipe(200, 800, seed=5))
    lossy, _, _ = make(Recipe(200, 800, seed=5, missing=0.02))
    seen = lossy >= 0
    same_orientation = np.array([np.array_equal(a[s], b[s]) for a, b, s in zip(full, lossy, seen, strict=True)])
    swapped = np.array([np.array_equal(2 - a[s], b[s]) for a, b, s in zip(full, lossy, seen, strict=True)])
    assert np.mean(same_orientation) > 0.95
    assert np.mean(same_orientation | swapped) > 0.99


def test_positions_increase_and_lines_are_well_formed():
    recipe = Recipe(4, 2003, chromosomes=3)
    _, _, lines = make(recipe)
    rows = [line.split("\t") for line in lines]
    assert {len(row) for row in rows} == {6}
    assert [row[1] for row in rows] == [f"rs{j + 1}" for j in range(2003)]
    assert all(row[4] != row[5] and {row[4], row[5]} <= set("ACGT") for row in rows)
    for chromosome, group in itertools.groupby(rows, key=lambda row: row[0]):
        positions = np.array([int(row[3]) for row in group])
        assert positions[0] >= 1 and (np.diff(positions) > 0).all() and chromosome in {"1", "2", "3"}
        assert abs(len(positions) - 2003 / 3) < 1


def test_children_inherit_one_haplotype_of_each_parent():
    genotypes, maker, _ = make(Recipe(120, 4000, family_size=4, seed=11))
    families = maker.families
    child = np.flatnonzero(families.father >= 0)
    for i in child:
        dad, mum = genotypes[:, families.father[i]], genotypes[:, families.mother[i]]
        least, most = (dad == 2).astype(int) + (mum == 2), (dad > 0).astype(int) + (mum > 0)
        impossible = (genotypes[:, i] < least) | (genotypes[:, i] > most)
        # SNPs that nobody carried get one made-up carrier
        assert impossible.sum() <= np.sum(genotypes.sum(axis=1) == 1)


def test_relatedness():
    genotypes, _, _ = make(Recipe(400, 8000, family_size=4, seed=4))
    x = genotypes - genotypes.mean(axis=1, keepdims=True)
    x /= x.std(axis=1, keepdims=True)
    kinship = x.T @ x / len(x)
    kinship /= np.diag(kinship).mean()
    first = np.arange(0, 400, 4)
    assert abs(kinship[first, first + 1].mean()) < 0.02
    assert abs(kinship[first, first + 2].mean() - 0.5) < 0.03
    assert abs(kinship[first + 2, first + 3].mean() - 0.5) < 0.03
    # siblings share by chance of crossovers, parents and children half of everything
    assert kinship[first + 2, first + 3].std() > 1.2 * kinship[first, first + 2].std()
    assert abs(kinship[0, 4:].mean()) < 0.02


def test_linkage_decays_with_distance():
    genotypes, _, _ = make(Recipe(500, 4000, chromosomes=1, family_size=1))
    x = genotypes - genotypes.mean(axis=1, keepdims=True)
    x /= x.std(axis=1, keepdims=True)
    near, middle, far = (np.mean(np.mean(x[:-d] * x[d:], axis=1) ** 2) for d in (1, 20, 800))
    assert near > 0.2
    assert 0.01 < middle < 0.8 * near
    assert far < 0.006  # 1/n and a little for unlinked SNPs


def test_allele_frequencies_are_skewed_to_rare():
    genotypes, _, _ = make(Recipe(300, 5000))
    frequency = genotypes.mean(axis=1) / 2
    assert np.mean(frequency < 0.1) > 1.5 * np.mean(frequency > 0.3)
    assert np.mean(frequency > 0.3) > 0.1


@pytest.mark.parametrize(("samples", "size", "founders"), [(7, 1, 7), (7, 2, 7), (7, 4, 4), (9, 4, 5), (10, 4, 6)])
def test_families(samples, size, founders):
    families = Families.of(samples, size)
    assert families.founders == founders
    child = families.father >= 0
    assert (families.family[families.father[child]] == families.family[child]).all()
    assert (families.founder[child] == -1).all()
    sexes = families.sexes(1)
    assert (sexes[families.father[child]] == 1).all() and (sexes[families.mother[child]] == 2).all()
    assert set(sexes.tolist()) <= {1, 2}


def traits_of(recipe: Recipe, maker: BlockMaker, traits: int, h2: float, causal: int, share: float) -> Traits:
    return Traits(recipe, maker.polygenic, maker.dosages, traits, h2, causal, share)


def values(traits: Traits) -> np.ndarray:
    return np.concatenate([slab for _, slab in traits.slabs()])


@pytest.mark.parametrize("traits", [1, 3, 11])
def test_causal_effects_are_per_copy_of_a1(traits):
    recipe = Recipe(301, 900, pool=pool_for(traits, 4), factors=factors_for(traits), seed=6)
    genotypes, maker, _ = make(recipe)
    result = traits_of(recipe, maker, traits, h2=1.0, causal=4, share=1.0)
    expected = np.zeros((301, traits))
    for j, snp, effect in result.causal_rows():
        expected[:, j] += effect * (genotypes[snp] - genotypes[snp].mean())
    np.testing.assert_allclose(values(result), expected, atol=1e-12)
    np.testing.assert_allclose(expected.var(axis=0), 1.0, rtol=1e-12)
    assert len(list(result.causal_rows())) == 4 * traits


@pytest.mark.parametrize("samples", [9, 301])
def test_dosages_are_those_of_the_file_where_it_has_them(samples):
    # with few samples many alleles change places and many SNPs get a made-up carrier
    recipe = Recipe(samples, 900, pool=900, missing=0.2, seed=6)
    genotypes, maker, _ = make(recipe)
    seen = genotypes >= 0
    assert not seen.all() and maker.dosages.max() == 2
    np.testing.assert_array_equal(maker.dosages[seen], genotypes[seen])


def test_polygenic_values_follow_the_genotypes():
    recipe = Recipe(160, 64, chromosomes=1, pool=0, seed=8)
    genotypes, maker, _ = make(recipe)
    y = maker.polygenic[0].astype(float)
    x = np.column_stack([np.ones(160), genotypes.T])
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert y.std() > 0
    assert residual.std() < 0.02 * y.std()  # SNPs without a carrier have a made-up one


@pytest.mark.parametrize(("h2", "causal", "share"), [(0.0, 5, 0.2), (0.4, 0, 0.2), (0.7, 5, 0.5)])
def test_variance_components(h2, causal, share):
    recipe = Recipe(6000, 400, pool=pool_for(2, causal), factors=2)
    _, maker, _ = make(recipe)
    result = traits_of(recipe, maker, 2, h2, causal, share)
    genetic = np.concatenate([result._genetic(start, stop) for start, stop in result._slabs()])
    np.testing.assert_allclose(genetic.var(axis=0), h2, rtol=1e-9, atol=1e-12)
    assert np.abs(values(result).var(axis=0) - 1).max() < 0.1
    assert np.abs((values(result) - genetic).var(axis=0) - (1 - h2)).max() < 0.06
    if h2 and causal:
        large = np.zeros((6000, 2))
        for start, stop in result._slabs():
            large[start:stop] = result._sum(result._centred(start, stop), result.effects)
        ratio = large.var(axis=0) / h2
        assert np.abs(ratio - share).max() < 0.12


def test_covariates():
    recipe = Recipe(500, 10)
    families = Families.of(500, 4)
    table = covariates(recipe, families, 4)
    assert table.shape == (500, 4)
    np.testing.assert_array_equal(table[:, 0], families.sexes(recipe.seed) - 1)
    assert table[:, 1].min() >= 18 and table[:, 1].max() <= 75
    np.testing.assert_array_equal(covariates(recipe, families, 1), table[:, :1])


def test_streams_of_different_places_differ():
    places = [(1, 2, 3, 4), (2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 3), (1, 2, 3, 5)]
    drawn = [tuple(stream(*place).integers(0, 2**63, size=4)) for place in places]
    assert len(set(drawn)) == len(places)
    assert tuple(stream(1, 2, 3, 4).integers(0, 2**63, size=4)) == drawn[0]


def test_transpose_bits():
    words = np.random.default_rng(1).integers(0, 2**64, size=13, dtype=np.uint64)
    bits = np.unpackbits(words.view(np.uint8).reshape(13, 8), axis=1, bitorder="little").reshape(13, 8, 8)
    transpose_bits(words)
    after = np.unpackbits(words.view(np.uint8).reshape(13, 8), axis=1, bitorder="little").reshape(13, 8, 8)
    np.testing.assert_array_equal(after, bits.transpose(0, 2, 1))


@pytest.mark.parametrize("share", [0.0, 2.0**-16, 0.1, 0.5, 0.999])
def test_bernoulli_bits(share):
    bits = bernoulli_bits(np.random.default_rng(2), share, (1001, 103))
    assert bits.shape == (1001, 103)
    total = 8 * bits.size
    assert abs(np.unpackbits(bits).mean() - share) <= 5 * np.sqrt(share * (1 - share) / total) + 2**-16


@pytest.mark.parametrize("samples", [1, 4, 7, 30])
def test_counting_and_swapping_alleles(samples):
    packed = np.random.default_rng(3).integers(0, 256, size=(17, (samples + 3) // 4), dtype=np.uint8)
    if samples % 4:
        packed[:, -1] &= (1 << 2 * (samples % 4)) - 1
    genotypes = decode(packed, samples)
    copies, observed = count_alleles(packed, samples)
    np.testing.assert_array_equal(copies, np.where(genotypes > 0, genotypes, 0).sum(axis=1))
    np.testing.assert_array_equal(observed, (genotypes >= 0).sum(axis=1))
    swapped = swap_alleles(packed, samples)
    np.testing.assert_array_equal(decode(swapped, samples), np.where(genotypes < 0, -1, 2 - genotypes))
    np.testing.assert_array_equal(swap_alleles(swapped, samples), packed)

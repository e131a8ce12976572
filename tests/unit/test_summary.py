from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.stats import chi2

from mpgls.model.gls import Note
from mpgls.report import pixels, summary
from mpgls.report.pixels import UNPLACED, PixelMap, chromosome_key
from mpgls.report.summary import Summary, reduce_summary
from mpgls.stream.store import RECORD_DTYPE
from mpgls.study.plink import Variants


def make_study(m: int, seed: int = 0, inflation: float = 1.0) -> tuple[Variants, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    chrom = np.sort(rng.integers(1, 6, m))
    pos = rng.integers(1, 10**8, m)
    pos[rng.random(m) < 0.02] = -9
    ids = [f"rs{k}" for k in range(m)]
    variants = Variants([f"chr{c}" for c in chrom], ids, pos.astype(np.int64), ["A"] * m, ["G"] * m)
    records = np.zeros(m, RECORD_DTYPE)
    records["beta"], records["se"], records["eaf"], records["n"] = rng.standard_normal(m), 1.0, 0.3, 99
    records["note"][rng.random(m) < 0.01] = Note.MONOMORPHIC
    z_squared = inflation * rng.standard_normal(m) ** 2
    log10p = -chi2.logsf(z_squared, 1) / np.log(10)
    log10p[records["note"] != 0] = np.nan
    return variants, records, log10p


def rows_of(study: tuple, rows: slice | np.ndarray) -> tuple:
    v, records, log10p = study
    picked = np.arange(len(v.id))[rows]
    pick = [[column[k] for k in picked] for column in (v.chrom, v.id, v.a1, v.a2)]
    return Variants(pick[0], pick[1], v.pos[rows], pick[2], pick[3]), records[rows], log10p[rows]


def batched(study: tuple, size: int) -> Summary:
    result = Summary()
    for start in range(0, len(study[1]), size):
        result.add(*rows_of(study, slice(start, start + size)))
    return result


def picture(result: Summary) -> tuple:
    """All that a reader can see of a summary."""
    dots = [(name, *(a.tolist() for a in result.pixels.points(name))) for name in result.pixels.chromosomes()]
    points = [a.tolist() for a in result.qq_points()]
    return (
        result.tested, dict(result.counts), result.top_hits, result.chromosome_hits, result.smallest.tolist(),
        result.lambda_gc(), points, dots, result.pixels.counts, result.pixels.extent, result.pixels.shift,
    )  # fmt: skip


def test_counts_and_best_snps():
    study = make_study(3001)
    result = batched(study, 3001)
    _, records, log10p = study
    assert result.counts == {0: int((records["note"] == 0).sum()), 1: int((records["note"] == 1).sum())}
    assert result.tested == np.isfinite(log10p).sum()
    best = np.argsort(-np.where(np.isnan(log10p), -1, log10p))[:20]
    assert [hit.id for hit in result.top_hits] == [f"rs{k}" for k in best]
    assert result.top_hits[0].beta == records["beta"][best[0]] and result.top_hits[0].log10p == log10p[best[0]]
    np.testing.assert_array_equal(result.smallest, np.sort(log10p[np.isfinite(log10p)])[::-1][:1000])


def test_best_of_each_chromosome():
    study = make_study(1003)
    variants, _, log10p = study
    hits = {hit.chrom: hit for hit in batched(study, 100).chromosome_hits if hit.pos > 0}
    for name in set(variants.chrom):
        own = [k for k in range(1003) if variants.chrom[k] == name and variants.pos[k] > 0 and log10p[k] >= 0]
        assert hits[name].id == variants.id[max(own, key=lambda k: log10p[k])]


@pytest.mark.parametrize("limits", [(10**6, 1 << 20), (700, 1 << 20), (700, 300)])
def test_any_dealing_and_merging_gives_the_same_summary(monkeypatch, limits):
    monkeypatch.setattr(summary, "EXACT_LIMIT", limits[0])
    monkeypatch.setattr(pixels, "PIXEL_LIMIT", limits[1])
    study = make_study(2003)
    study[2][10:40] = 5.25  # equal p values
    whole = picture(batched(study, 2003))
    assert picture(batched(study, 97)) == whole
    order = np.random.default_rng(5).permutation(2003)
    parts = [Summary() for _ in range(4)]
    for k in range(3):
        parts[k].add(*rows_of(study, order[k::3]))
    merged = pickle.loads(pickle.dumps(parts[3])).merge(parts[2]).merge(pickle.loads(pickle.dumps(parts[0])))
    assert picture(pickle.loads(pickle.dumps(parts[1].merge(merged)))) == whole


def test_merging_exact_into_histogram(monkeypatch):
    monkeypatch.setattr(summary, "EXACT_LIMIT", 700)
    study = make_study(1003)
    large, small = Summary(), Summary()
    large.add(*rows_of(study, slice(0, 900)))
    small.add(*rows_of(study, slice(900, 1003)))
    assert small.exact and not large.exact
    whole = picture(batched(study, 1003))
    assert picture(pickle.loads(pickle.dumps(small)).merge(pickle.loads(pickle.dumps(large)))) == whole
    assert picture(large.merge(small)) == whole


@pytest.mark.parametrize("inflation", [0.3, 1.0, 1.07, 2.0])
def test_lambda_gc_is_exact_for_few_and_right_to_1e4_for_many(monkeypatch, inflation):
    study = make_study(30_001, inflation=inflation)
    used = study[2][np.isfinite(study[2])]
    truth = np.median(chi2.isf(10.0**-used, 1)) / chi2.ppf(0.5, 1)
    assert batched(study, 7777).lambda_gc() == pytest.approx(truth, rel=1e-8)
    monkeypatch.setattr(summary, "EXACT_LIMIT", 1000)
    assert abs(batched(study, 7777).lambda_gc() - truth) < 1e-4


def test_qq_points_match_the_sorted_p_values(monkeypatch):
    study = make_study(20_011, inflation=9.0)
    used = np.sort(study[2][np.isfinite(study[2])])[::-1]
    expected = -np.log10((np.arange(used.size) + 0.5) / used.size)
    for limit in (10**6, 1000):
        monkeypatch.setattr(summary, "EXACT_LIMIT", limit)
        x, y = batched(study, 20_011).qq_points()
        np.testing.assert_array_equal(y[:1000], used[:1000])
        np.testing.assert_allclose(x[:1000], expected[:1000], atol=1e-12)
        assert (np.diff(x) <= 0).all() and 1000 < x.size <= used.size
        # within a bin of the true curve
        np.testing.assert_allclose(y, np.interp(-x, -expected, used), atol=0.02)


def test_extreme_p_values_and_ties():
    variants, records, log10p = make_study(101)
    records["note"] = 0
    log10p[:] = 0.0
    log10p[7], log10p[8] = np.inf, 5000.0
    result = Summary(top=3)
    result.add(variants, records, log10p)
    assert [hit.log10p for hit in result.top_hits[:2]] == [np.inf, 5000.0]
    assert result.lambda_gc() == 0.0 and result.smallest[0] == np.inf


def test_nothing_tested():
    variants, records, log10p = make_study(5)
    records["note"] = Note.ALL_MISSING
    result = Summary()
    result.add(variants, records, log10p * np.nan)
    result.merge(Summary())
    assert result.tested == 0 and result.counts == {2: 5} and result.top_hits == []
    assert np.isnan(result.lambda_gc()) and result.qq_points()[0].size == 0 and result.pixels.chromosomes() == []


def test_memory_and_pickle_stay_bounded(monkeypatch):
    monkeypatch.setattr(summary, "EXACT_LIMIT", 10_000)
    monkeypatch.setattr(pixels, "PIXEL_LIMIT", 6000)
    result = Summary()
    sizes = []
    for seed in range(6):
        result.add(*make_study(20_000, seed))
        sizes.append(len(pickle.dumps(result)))
    assert result.pixels.size() <= 6000 and result.pixels.shift > 0
    assert sizes[-1] < 2 * sizes[0]


def test_pixels_hold_every_snp_at_its_place():
    variants, records, log10p = make_study(500)
    result = Summary()
    result.add(variants, records, log10p)
    low, high = result.pixels.extent["chr2"]
    own = [k for k in range(500) if variants.chrom[k] == "chr2" and variants.pos[k] > 0 and log10p[k] >= 0]
    x, y = result.pixels.points("chr2")
    assert (low, high) == (min(variants.pos[own]), max(variants.pos[own]))
    assert sorted(x.tolist()) == sorted(variants.pos[own].tolist())
    for k in own:
        assert np.abs(y[x == variants.pos[k]] - log10p[k]).min() <= 1 / 128
    assert result.pixels.counts[UNPLACED] == ((variants.pos < 0) & np.isfinite(log10p)).sum()


def test_chromosome_zero_has_no_place():
    variants = Variants(["0", "1", "0"], ["a", "b", "c"], np.array([5, 6, 0]), ["A"] * 3, ["C"] * 3)
    found = PixelMap()
    placed = dict(found.add(variants, np.array([0, 2]), np.array([1.0, 2.0])))
    assert placed[UNPLACED].tolist() == [0, 1] and found.chromosomes() == [UNPLACED]
    assert found.points(UNPLACED)[0].max() < 256 and PixelMap.column_of("a") in found.points(UNPLACED)[0]


def test_natural_order_of_chromosomes():
    names = ["MT", "10", "X", "chr2", "scaffold_10", "1", UNPLACED, "Y", "scaffold_2", "22", "XY"]
    ordered = ["1", "chr2", "10", "22", "X", "Y", "XY", "MT", "scaffold_2", "scaffold_10", UNPLACED]
    assert sorted(names, key=chromosome_key) == ordered


def test_reduce_summary_merges_with_the_communicator():
    class TwoRanks:
        def reduce(self, value, op, root):
            assert root == 0
            return op(value, batched(make_study(50, 1), 50))

    merged = reduce_summary(TwoRanks(), batched(make_study(70, 2), 70))
    assert sum(merged.counts.values()) == 120

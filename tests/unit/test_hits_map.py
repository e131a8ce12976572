from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mpgls.errors import StorageError
from mpgls.model.histograms import Bins, Statistic
from mpgls.model.hits import HIT_DTYPE
from mpgls.report import hits_map as module
from mpgls.report.hits_map import (
    best_of_each_pixel,
    genome_of,
    hits_map,
    pooled_qq,
    qq_points,
    trait_spread,
)
from mpgls.report.pixels import UNPLACED
from mpgls.report.plots import lay_out
from mpgls.study.plink import VariantTable

PNG = b"\x89PNG\r\n\x1a\n"
CHROMOSOMES = ("1", "2", "chrX", "0")


def make_bim(path: Path, m: int = 200) -> VariantTable:
    rows = [(CHROMOSOMES[4 * k // m], 1000 * k + 1) for k in range(m)]
    path.write_text("".join(f"{chrom}\trs{k}\t0\t{pos}\tA\tC\n" for k, (chrom, pos) in enumerate(rows)))
    return VariantTable.open(path)


def make_hits(trait: list[int], row: list[int], log10p: list[float]) -> np.ndarray:
    hits = np.zeros(len(trait), HIT_DTYPE)
    hits["trait"], hits["row"], hits["log10p"] = trait, row, log10p
    return hits


def drawn(monkeypatch, tmp_path, hits, traits):
    """The axes of a map after drawing."""
    held = []
    original = module._heading
    monkeypatch.setattr(module, "_heading", lambda axes, *rest: (held.append(axes), original(axes, *rest))[1])
    variants = make_bim(tmp_path / "g.bim")
    hits_map(tmp_path / "m.png", "Hits", hits, traits, variants, genome_of(variants, np.arange(200)), 5e-8)
    return held[0]


@pytest.mark.parametrize("t", [1, 6, 49, 20_000])
@pytest.mark.parametrize("count", [0, 1, 500])
@pytest.mark.filterwarnings("error")
def test_maps_are_complete_png_files(monkeypatch, tmp_path, t, count):
    rng = np.random.default_rng(t)
    log10p = 7.3 + rng.exponential(20, count)
    log10p[:1] = np.inf
    hits = make_hits(np.sort(rng.integers(0, t, count)), rng.integers(0, 200, count), log10p)
    drawn(monkeypatch, tmp_path, hits, [f"trait$_{j}" for j in range(t)])
    data = (tmp_path / "m.png").read_bytes()
    assert data.startswith(PNG) and data.rstrip().endswith(b"IEND\xaeB`\x82")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.bim", "m.png"]


def test_dots_are_where_the_hits_are_and_the_best_is_on_top(monkeypatch, tmp_path):
    hits = make_hits([0, 1, 1, 2], [0, 60, 120, 199], [30.0, 10.0, 20.0, 8.0])
    axes = drawn(monkeypatch, tmp_path, hits, ["a", "b", "c"])
    (dots,) = axes.collections[-1:]
    x, y = np.asarray(dots.get_offsets()).T
    np.testing.assert_array_equal(dots.get_array(), [8.0, 10.0, 20.0, 30.0])
    assert y.tolist() == [2, 1, 1, 0]
    strips = {strip.chrom: strip for strip in lay_out(genome_of(make_bim(tmp_path / "g.bim"), np.arange(200)))}
    for name, value in zip(("1", "chrX", "2", UNPLACED), (x[3], x[2], x[1], x[0]), strict=True):
        assert strips[name].left <= value <= strips[name].left + strips[name].width
    assert x[3] == strips["1"].left, "the first SNP is at the left end of its chromosome"
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first trait is at the top"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]


@pytest.mark.parametrize("t", [6, 48, 49, 20_000])
def test_labels_stay_inside_and_apart(monkeypatch, tmp_path, t):
    names = [f"a_trait_with_a_rather_long_name_{j}" for j in range(t)]
    axes = drawn(monkeypatch, tmp_path, make_hits([t - 1], [0], [9.0]), names)
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(boxes) == t if t <= 48 else 3 < len(boxes) < 12
    assert all(box.x0 >= 0 for box in boxes)
    assert all(a.y0 > b.y1 - 1 for a, b in pairwise(boxes))
    if t > 48:
        assert axes.get_yticklabels()[-1].get_text() == f"{round(axes.get_yticks()[-1]) + 1:,}"


def test_one_dot_a_pixel(monkeypatch, tmp_path):
    shown = best_of_each_pixel(np.array([1.0, 1, 2, 1]), np.array([0.0, 0, 0, 1]), np.array([5.0, 9.0, 7.0, 6.0]))
    assert shown.tolist() == [3, 2, 1]
    rng = np.random.default_rng(0)
    hits = make_hits(np.zeros(5000, int), rng.integers(0, 3, 5000), 8 + rng.random(5000))
    axes = drawn(monkeypatch, tmp_path, hits, [f"t{j}" for j in range(20_000)])
    assert len(axes.collections[-1].get_offsets()) <= 3


def test_genome_is_that_of_the_selected_snps_and_merges(tmp_path, monkeypatch):
    variants = make_bim(tmp_path / "g.bim")
    index = np.array([3, 40, 60, 120, 130, 199])
    whole = genome_of(variants, index)
    assert whole.extent == {"1": (3001, 40001), "2": (60001, 60001), "chrX": (120001, 130001)}
    assert whole.counts[UNPLACED] == 1 and whole.chromosomes() == ["1", "2", "chrX", UNPLACED]
    parts = [genome_of(variants, index[:3]), genome_of(variants, index[3:3]), genome_of(variants, index[3:])]
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].extent == whole.extent and parts[0].counts == whole.counts


def make_group(n: int, t: int, m: int, scale: float = 1.0, seed: int = 0) -> tuple[Bins, np.ndarray, np.ndarray]:
    """Bins, counts (t, bins) and the -log10 p values (t, m) of null tests whose chi-square is inflated."""
    statistic = Statistic.of(n, 2)
    bins = Bins(statistic)
    square = scale * np.random.default_rng(seed).standard_normal((t, m)) ** 2
    x = square / (square + statistic.df)
    counts = np.stack([np.bincount(row, minlength=bins.count) for row in bins.of(x)])
    return bins, counts, statistic.log10_p(x)


def test_pooled_points_are_those_of_all_p_values():
    groups = [make_group(500, 3, 4000, seed=1), make_group(90, 2, 3000, 1.3, seed=2)]
    expected, observed, tested = qq_points([(bins, counts) for bins, counts, _ in groups])
    values = np.sort(np.concatenate([p.ravel() for *_, p in groups]))[::-1]
    assert tested == values.size == 18_000
    assert (np.diff(expected) <= 0).all() and (np.diff(observed) <= 0).all()
    exact = np.interp(-expected, np.log10((np.arange(tested) + 0.5) / tested), values)
    # a bin is 1/64 of an octave of x, but all p above 0.97 share one; in the last ones there are one or two tests
    far = expected > 3.3
    np.testing.assert_allclose(observed[~far], exact[~far], rtol=0.02, atol=0.013)
    np.testing.assert_allclose(observed[far], exact[far], rtol=0.1)


def test_inflation_is_seen_in_the_spread():
    plain, inflated = make_group(800, 40, 5000, seed=3), make_group(800, 40, 5000, 2.0, seed=4)
    grid, low, high = trait_spread([plain[:2], inflated[:2]])
    k = int(np.searchsorted(grid, 2.0))
    assert low[k] == pytest.approx(grid[k], abs=0.15) and high[k] == pytest.approx(2 * grid[k], rel=0.2)
    assert grid[0] == 0 and grid[-1] == pytest.approx(np.log10(10_000))


def test_spread_takes_a_part_of_many_traits_and_leaves_out_empty_ones(monkeypatch):
    monkeypatch.setattr(module, "SPREAD_TRAITS", 10)
    bins, counts, _ = make_group(300, 35, 500)
    counts[::2] = 0
    grid, low, high = trait_spread([(bins, counts)])
    assert np.isfinite(low).all() and (low <= high).all() and grid.size == low.size
    assert trait_spread([(bins, 0 * counts)])[0].size == 0 and trait_spread([])[0].size == 0


@pytest.mark.parametrize("t", [0, 1, 5])
@pytest.mark.filterwarnings("error")
def test_qq_plots_are_complete_png_files(tmp_path, t):
    bins, counts, _ = make_group(300, 5, 400)
    counts[t:] = 0
    pooled_qq(tmp_path / "q.png", "All traits", [(bins, counts)])
    data = (tmp_path / "q.png").read_bytes()
    assert data.startswith(PNG) and data.rstrip().endswith(b"IEND\xaeB`\x82")


def test_unwritable_pictures_are_storage_errors(tmp_path):
    variants = make_bim(tmp_path / "g.bim")
    genome = genome_of(variants, np.arange(5))
    with pytest.raises(StorageError, match="cannot write the plot"):
        hits_map(tmp_path / "no" / "m.png", "Hits", make_hits([], [], []), ["a"], variants, genome, 0.05)
    with pytest.raises(StorageError, match="cannot write the plot"):
        pooled_qq(tmp_path / "no" / "q.png", "All", [])

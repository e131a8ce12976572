from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import beta

from mpgls.errors import StorageError
from mpgls.report import plots
from mpgls.report.figure import draw_all
from mpgls.report.pixels import UNPLACED
from mpgls.report.plots import lay_out, manhattan, null_band, qq, thin_labels, thresholds
from mpgls.report.summary import Summary
from mpgls.stream.store import RECORD_DTYPE
from mpgls.study.plink import Variants

PNG = b"\x89PNG\r\n\x1a\n"


def make_summary(chroms: list[str], pos: list[int], log10p: list[float], note: int = 0) -> Summary:
    m = len(chroms)
    records = np.zeros(m, RECORD_DTYPE)
    records["se"], records["note"] = 1.0, note
    variants = Variants(chroms, [f"rs${k}_{k}" for k in range(m)], np.array(pos, np.int64), ["A"] * m, ["C"] * m)
    result = Summary()
    result.add(variants, records, np.array(log10p))
    return result


def random_summary(m: int = 400) -> Summary:
    rng = np.random.default_rng(1)
    chroms = [["1", "2", "X", "MT"][k] for k in rng.integers(0, 4, m)]
    log10p = rng.exponential(0.43, m)
    log10p[:3] = 30.0, 450.0, 9.0
    return make_summary(chroms, rng.integers(1, 10**7, m).tolist(), log10p.tolist())


CASES = {
    "several chromosomes": random_summary,
    "one chromosome": lambda: make_summary(["chr6"] * 5, [10**6 * k for k in range(1, 6)], [1, 2, 3, 4, 5.0]),
    "one SNP": lambda: make_summary(["1"], [5], [0.3]),
    "no positions": lambda: make_summary(["1", "2"], [-9, 0], [0.3, 1.0]),
    "infinite": lambda: make_summary(["1", "2", "3"], [1, 2, 3], [np.inf, 1.0, 0.0]),
    "nothing tested": lambda: make_summary(["1", "2"], [1, 2], [np.nan, np.nan], note=1),
    "empty": Summary,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("draw", [manhattan, qq])
@pytest.mark.filterwarnings("error")
def test_plots_are_complete_png_files(tmp_path, case, draw):
    path = tmp_path / "p.png"
    draw(CASES[case](), path, "CD8")
    data = path.read_bytes()
    assert data.startswith(PNG) and data.rstrip().endswith(b"IEND\xaeB`\x82")
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


@pytest.mark.parametrize("draw", [manhattan, qq])
def test_unwritable_plot_is_a_storage_error(tmp_path, draw):
    with pytest.raises(StorageError, match="cannot write the plot"):
        draw(random_summary(), tmp_path / "absent" / "p.png", "CD8")


def drawn(monkeypatch, summary: Summary, tmp_path, draw=manhattan):
    """The axes of a plot after drawing."""
    held = []
    original = plots._heading
    monkeypatch.setattr(plots, "_heading", lambda axes, *rest: (held.append(axes), original(axes, *rest))[1])
    draw(summary, tmp_path / "p.png", "CD8")
    return held[0]


def test_names_are_at_the_best_snps_and_never_overlap(monkeypatch, tmp_path):
    chroms = [str(1 + k % 20) for k in range(200)]
    heights = [20.0 + 0.01 * k if k >= 180 else 0.1 for k in range(200)]
    summary = make_summary(chroms, [1000 + k for k in range(200)], heights)
    axes = drawn(monkeypatch, summary, tmp_path)
    names = [text for text in axes.texts if text.get_text().startswith("rs")]
    assert 1 <= len(names) <= 5
    best = {hit.id.replace("$", r"\$") for hit in summary.chromosome_hits[:5]}
    assert {text.get_text() for text in names} <= best
    boxes = [text.get_window_extent() for text in names]
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_chromosome_labels_never_overlap(monkeypatch, tmp_path):
    chroms = [f"scaffold_{k}" for k in range(150)]
    axes = drawn(monkeypatch, make_summary(chroms, list(range(1, 151)), [0.5] * 150), tmp_path)
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert 3 < len(boxes) < 60
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert axes.get_xticklabels()[-1].get_text() == "scaffold_149"


def test_every_human_chromosome_is_labelled(monkeypatch, tmp_path):
    names = [*map(str, range(1, 23)), "X"]
    lengths = [
        248,
        242,
        198,
        190,
        181,
        170,
        159,
        145,
        138,
        133,
        135,
        133,
        114,
        107,
        102,
        90,
        83,
        80,
        58,
        64,
        46,
        50,
        156,
    ]
    chroms = [name for name in names for _ in range(2)]
    pos = [x for length in lengths for x in (1, length * 10**6)]
    axes = drawn(monkeypatch, make_summary(chroms, pos, [0.5] * len(pos)), tmp_path)
    assert [label.get_text() for label in axes.get_xticklabels()] == names


def test_strips_are_ordered_disjoint_and_to_scale():
    summary = make_summary(["X", "2", "2", "1", "1", "3"], [7, 10, 5010, 100, 10_100, -9], [1.0] * 6)
    strips = lay_out(summary.pixels)
    assert [strip.chrom for strip in strips] == ["1", "2", "X", UNPLACED]
    assert all(a.left + a.width < b.left for a, b in pairwise(strips))
    assert (strips[0].width, strips[1].width, strips[0].first) == (10_000, 5000, 100)
    assert strips[2].width > 0


def test_thin_labels_keeps_the_last_and_the_gaps():
    assert thin_labels([0, 10, 20], [4, 4, 4], 1) == [0, 1, 2]
    assert thin_labels([0, 3, 6, 9, 12], [4] * 5, 1) == [0, 2, 4]
    assert thin_labels([0, 3, 6, 9], [4] * 4, 1) == [0, 3]
    assert thin_labels([0, 1], [4, 40], 1) == [1]
    assert thin_labels([], [], 1) == []


def test_thresholds_depend_on_the_number_of_tests():
    assert thresholds(0) == []
    (only,) = thresholds(1000)
    assert only.height == pytest.approx(-np.log10(5e-5)) and "0.05" in only.label
    few, many = thresholds(10**5), thresholds(10**8)
    assert [line.label.startswith("0.05") for line in few] == [True, False]
    assert [line.label.startswith("0.05") for line in many] == [False, True]
    assert few[1].height == pytest.approx(-np.log10(5e-8))


@pytest.mark.parametrize("tested", [1, 2, 37, 10**4])
def test_null_band_has_the_quantiles_of_the_order_statistics(tested):
    x, low, high = null_band(tested, 23)
    ranks = np.round(10.0**-x * tested + 0.5)
    np.testing.assert_allclose(low, -np.log10(beta.ppf(0.975, ranks, tested + 1 - ranks)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(high, -np.log10(beta.ppf(0.025, ranks, tested + 1 - ranks)), rtol=1e-6, atol=1e-9)
    assert (low < high).all()


def test_null_band_of_very_many_snps_is_finite_and_narrow_in_the_middle():
    x, low, high = null_band(10**8)
    assert np.isfinite([low, high]).all() and (np.diff(x) < 0).all()
    middle = np.abs(x - 2).argmin()
    assert high[middle] - low[middle] < 0.002


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, mpgls.report.plots, mpgls.report.summary; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("asked", "backend"), [("svg", "svg"), ("nonsense", "agg"), ("module://matplotlib_inline.backend_inline", "")]
)
def test_plots_are_drawn_whatever_backend_is_asked_for_and_leave_it_alone(tmp_path, asked, backend):
    code = f"""
import os, sys
from mpgls.report.plots import qq
from mpgls.report.summary import Summary
qq(Summary(), {str(tmp_path / "p.png")!r}, "y")
assert os.environ["MPLBACKEND"] == {asked!r} and "matplotlib.pyplot" not in sys.modules
import matplotlib
if {backend!r}:
    assert matplotlib.get_backend().lower() == {backend!r}, matplotlib.get_backend()
"""
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"} | {"MPLBACKEND": asked}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)


def test_a_run_does_not_end_where_matplotlib_is_missing(tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.backends.backend_agg", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    said: list[str] = []
    pictures = {tmp_path / "a.png": lambda path: qq(Summary(), path, "y"), tmp_path / "b.png": lambda path: None}
    assert draw_all(pictures, said.append) == []
    assert len(said) == 1 and "a.png is not drawn" in said[0] and "ModuleNotFoundError" in said[0]


def test_a_picture_that_cannot_be_written_is_an_error_of_the_run(tmp_path):
    with pytest.raises(StorageError, match="cannot write the plot"):
        draw_all({tmp_path / "nowhere" / "a.png": lambda path: qq(Summary(), path, "y")}, print)

"""Result stores, histograms and tables of scans that go chromosome by chromosome."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.errors import StorageError
from mpgls.model.histograms import Bins, Statistic
from mpgls.model.null_record import given
from mpgls.model.trait_records import mean_over_parts
from mpgls.report.loco_table import COLUMNS, LocoRow, write_loco
from mpgls.stream.dense_store import DenseShape, create_dense, open_dense
from mpgls.stream.histogram_file import CHUNK, Histograms
from mpgls.stream.mark import Mark
from mpgls.stream.store import StoreShape, block_edges, create_store, open_store, save_null
from mpgls.study.h2_file import read_h2_by_chromosome

EDGES = np.array([0, 4, 6, 7, 11])
INDEX = np.arange(11) * 3
MARK = Mark({"command": "test"})


def shape_of(edges, parts=1):
    return StoreShape(INDEX, 4, edges, {"y": ["intercept", "age", "sex"], "z": ["intercept"]}, parts)


def test_blocks_of_a_store_end_where_they_were_told(tmp_path):
    made = create_store(tmp_path / "o.h5", shape_of(EDGES), MARK, {})
    store = open_store(tmp_path / "o.h5", MARK)
    assert (made.blocks, store.blocks, store.block) == (4, 4, 4)
    assert [store.block_range(k) for k in range(4)] == [range(0, 4), range(4, 6), range(6, 7), range(7, 11)]
    assert store.traits[0].done.size == 4


def test_blocks_are_regular_where_no_chromosome_cuts_them(tmp_path):
    store = create_store(tmp_path / "o.h5", shape_of(block_edges(INDEX.size, 4)), MARK, {})
    assert [store.block_range(k) for k in range(store.blocks)] == [range(0, 4), range(4, 8), range(8, 11)]


def test_each_chromosome_keeps_its_null_model(tmp_path):
    store = create_store(tmp_path / "o.h5", shape_of(EDGES, parts=12), MARK, {})
    effects = np.array([np.arange(3.0), np.ones(3)])
    save_null(store.own, 0, 0, given(0.5))
    save_null(store.own, 11, 0, given(0.75))
    record = given(0.25)
    record["s2"] = 2.0
    save_null(store.own, 11, 0, record, effects)
    nulls = open_store(store.path).nulls
    h2 = np.full((12, 2), np.nan)
    h2[0, 0], h2[11, 0] = 0.5, 0.25
    np.testing.assert_array_equal(nulls.records["h2"], h2)
    np.testing.assert_array_equal(nulls.records["s2"][:, 0], [*[np.nan] * 11, 2.0])
    np.testing.assert_array_equal(nulls.effects[0][11], effects)
    assert np.isnan(nulls.effects[0][:11]).all() and np.isnan(nulls.effects[1]).all()


def test_dense_tiles_of_uneven_blocks(tmp_path):
    shape = DenseShape(INDEX, EDGES, 4, ["a", "b"], np.zeros(2), 2)
    store = create_dense(tmp_path / "o.h5", shape, MARK, {"test": "t"})
    beta = np.arange(22, dtype="f4").reshape(2, 11)
    with open(store.path, "r+b") as file:
        for k in range(store.blocks):
            columns = store.block_range(k)
            tile = np.full((2, 4), np.nan, "f4")
            tile[:, : len(columns)] = beta[:, columns]
            for name in ("beta", "se"):
                file.seek(store.tile_offset(name, k, 0))
                file.write(tile.tobytes())
            store.write_snps(0, k, *(np.array(columns) * factor for factor in (0.01, 10, 0)))
    again = open_dense(store.path)
    assert (again.blocks, again.done.shape) == (4, (1, 4))
    for start in range(12):
        for stop in range(start, 12):
            records = again.read(1, start, stop)
            np.testing.assert_array_equal(records["beta"], beta[1, start:stop])
            np.testing.assert_allclose(records["eaf"], np.arange(start, stop) * 0.01)
            np.testing.assert_array_equal(records["n"], np.arange(start, stop) * 10)


@pytest.mark.parametrize("t", [1, CHUNK, CHUNK + 3])
def test_histograms_of_chromosomes_are_added_up(tmp_path, t):
    large, small = (Bins(Statistic.of(n, 3, "t")) for n in (120, 77))
    names = [f"trait{k}" for k in range(t + 1)]
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 9, (3, t, large.count)).astype(np.uint32)
    other = rng.integers(0, 9, (3, 1, small.count)).astype(np.uint32)
    file = Histograms(tmp_path / "o.h5")
    for part in range(3):
        file.add(names[: t // 2], counts[part, : t // 2], large)
        file.add(names[t:], other[part], small)
        file.add(names[t // 2 : t], counts[part, t // 2 :], large)
    file.finish(3)
    found = {}
    for _, of_rows, rows in file.rows_of_traits():
        found |= dict(zip(of_rows, rows, strict=True))
    assert sorted(found) == sorted(names)
    for k in range(t):
        np.testing.assert_array_equal(found[names[k]], counts[:, k].sum(axis=0))
    np.testing.assert_array_equal(found[names[t]], other[:, 0].sum(axis=0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.h5"]


def test_means_are_weighted_by_tested_snps():
    h2, tested = np.array([[0.2, 0.5, np.nan], [0.6, 0.1, np.nan]]), np.array([[30, 0, 0], [10, 7, 0]])
    np.testing.assert_allclose(mean_over_parts(h2, tested), [0.3, 0.1, np.nan])
    np.testing.assert_array_equal(mean_over_parts(h2[:1], tested[:1]), h2[0])


def test_the_table_can_be_given_back(tmp_path):
    path, nan = tmp_path / "o.loco.tsv", float("nan")
    rows = [
        LocoRow("CD8", "1", 967, 901, 0.1 + 0.2, 0.05, 1.5, -1597.25),
        LocoRow("CD8", "chrX", 0, 3, 0.0, nan, 2.0, nan),
        LocoRow("flat", "1", 967, 0, nan, nan, nan, nan),
    ]
    write_loco(path, rows)
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert tuple(lines[0]) == COLUMNS
    assert lines[1] == ["CD8", "1", "967", "901", "0.30000000000000004", "0.05", "1.5", "-1597.25"]
    assert lines[2] == ["CD8", "chrX", "0", "3", "0.0", "NA", "2.0", "NA"]
    assert lines[3] == ["flat", "1", "967", "0", "NA", "NA", "NA", "NA"]
    expected = {("CD8", "1"): 0.1 + 0.2, ("CD8", "X"): 0.0, ("CD8", "23"): 0.0, ("flat", "1"): nan}
    assert read_h2_by_chromosome(path) == pytest.approx(expected, abs=0.0, rel=0.0, nan_ok=True)
    with pytest.raises(StorageError, match="cannot write"):
        write_loco(tmp_path / "absent" / "o.tsv", rows)

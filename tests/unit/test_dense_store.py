from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpgls.errors import InputError, StorageError
from mpgls.model.gls import Note
from mpgls.model.null_record import NULL_DTYPE, given, unknown
from mpgls.stream.dense_store import DenseShape, DenseStore, create_dense, open_dense, save_nulls
from mpgls.stream.hdf5 import store_format
from mpgls.stream.mark import Mark
from mpgls.stream.store import StoreShape, block_edges, create_store, open_store
from mpgls.stream.writer import UnitWriter

M, B = 11, 4
NAMES = ("z", "ä", "a/b", "y", "x")
GROUP = np.array([0, 0, 0, 1, 1])
MARK = Mark({"command": "multi-trait"})
INDEX = np.array([0, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144])


def make(path: Path) -> DenseStore:
    shape = DenseShape(INDEX, block_edges(M, B), B, NAMES, GROUP, parts=3)
    return create_dense(path, shape, MARK, {"test": "t", "bfile": "/data/g"})


def fill(store: DenseStore, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Write every tile as ranks do; returns beta and se (t, m)."""
    rng = np.random.default_rng(seed)
    t = len(store.names)
    beta, se = rng.standard_normal((t, M)).astype("f4"), rng.uniform(0.1, 1, (t, M)).astype("f4")
    writer = UnitWriter(store.path)
    for first, stop in ((0, 2), (2, 3), (3, 5)):
        for k in range(store.blocks):
            parts = []
            for name, values in (("beta", beta), ("se", se)):
                tile = np.full((stop - first, B), np.nan, "f4")
                tile[:, : len(store.block_range(k))] = values[first:stop, store.block_range(k)]
                parts.append((store.tile_offset(name, k, first), tile))
            writer.write(parts, store.sum_offset(k, first))
    writer.close()
    for group in (0, 1):
        for k in range(store.blocks):
            x = np.array(store.block_range(k))
            store.write_snps(group, k, x / 100 + group, x + 1000 * group, np.where(x == 6, Note.MONOMORPHIC, 0))
    return beta, se


def test_hdf5_and_offsets_say_the_same(tmp_path):
    store = make(tmp_path / "o.h5")
    beta, se = fill(store)
    with h5py.File(store.path) as file:
        assert file["beta"].shape == file["se"].shape == (3, 5, B) and file["beta"].dtype == np.float32
        assert file["beta"].chunks is None
        for name, values in (("beta", beta), ("se", se)):
            whole = file[name][...].transpose(1, 0, 2).reshape(5, -1)
            np.testing.assert_array_equal(whole[:, :M], values)
            assert np.isnan(whole[:, M:]).all()
        assert file["sums"][...].all() and file["sums"].shape == (3, 5)
        np.testing.assert_array_equal(file["eaf"], np.arange(M) / 100 + np.array([[0], [1]]))
        np.testing.assert_array_equal(file["n"], np.arange(M) + np.array([[0], [1000]]))
        assert file["note"][...].sum() == 2 * Note.MONOMORPHIC and file["note"][1, 6] == Note.MONOMORPHIC
        assert file["names"].asstr()[...].tolist() == list(NAMES)
    np.testing.assert_array_equal(store.index, INDEX)


def test_one_trait_is_read_as_records(tmp_path):
    store = make(tmp_path / "o.h5")
    beta, se = fill(store)
    store = pickle.loads(pickle.dumps(open_dense(store.path, MARK)))
    for trait in range(5):
        for start, stop in ((0, M), (3, 9), (4, 8), (10, 11), (5, 5)):
            records = store.read(trait, start, stop)
            np.testing.assert_array_equal(records["beta"].astype("f4"), beta[trait, start:stop])
            np.testing.assert_array_equal(records["se"].astype("f4"), se[trait, start:stop])
            np.testing.assert_array_equal(records["n"], np.arange(start, stop) + 1000 * GROUP[trait])
            np.testing.assert_array_equal(records["eaf"], np.arange(start, stop) / 100 + GROUP[trait])
            assert (records["note"] == Note.MONOMORPHIC).tolist() == [k == 6 for k in range(start, stop)]
    values = store.read(2, 0, M)["beta"]
    assert max(len(repr(float(abs(v)))) for v in values) <= 13, "no digits that float32 does not have"


def test_a_new_store_is_not_done_and_knows_its_traits(tmp_path):
    store = make(tmp_path / "o.h5")
    assert store.sums.shape == (3, 5) and not store.sums.any()
    assert store.names == NAMES and store.test == "t" and store.attributes["bfile"] == "/data/g"
    assert store.trait("a/b") == 2 and np.isnan(store.nulls["h2"]).all() and store.df(2) == 0
    assert not store.is_tested(2)
    with pytest.raises(InputError, match="no trait 'w'; its traits are z, ä"):
        store.trait("w")
    writer = UnitWriter(store.path)
    writer.write(
        [(store.tile_offset(name, 2, 1), np.ones((2, B), "f4")) for name in ("beta", "se")], store.sum_offset(2, 1)
    )
    writer.close()
    store = open_dense(store.path)
    assert [store.done_of(j).tolist() for j in range(5)] == [[0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(("test", "df"), [("t", 90), ("wald", 91)])
def test_null_models_are_kept_without_moving_anything(tmp_path, test, df):
    shape = DenseShape(INDEX, block_edges(M, B), B, NAMES, GROUP, parts=3)
    store = create_dense(tmp_path / "o.h5", shape, MARK, {"test": test})
    beta, _ = fill(store)
    nulls = unknown(2)
    nulls["h2"], nulls["s2"], nulls["df"] = (0.25, 0.5), (1.0, np.nan), 90
    save_nulls(store, 0, 3, nulls)
    again = open_dense(store.path)
    assert again.offsets == store.offsets and again.nulls.shape == (3, 5)
    for name in nulls.dtype.names:
        np.testing.assert_array_equal(again.nulls[name][0, 3:], nulls[name])
    assert np.isnan(again.nulls["h2"][1:]).all() and np.isnan(again.nulls["h2"][0, :3]).all()
    assert [again.df(j) for j in range(5)] == [0, 0, 0, df, df]
    assert [again.is_tested(j) for j in range(5)] == [False, False, False, True, False]
    np.testing.assert_array_equal(again.read(4, 0, M)["beta"].astype("f4"), beta[4])


def test_many_traits_are_sparse_until_written(tmp_path):
    names = [f"t{k}" for k in range(20_000)]
    shape = DenseShape(np.arange(900), block_edges(900, 256), 256, names, np.zeros(20_000))
    store = create_dense(tmp_path / "o.h5", shape, MARK, {"test": "wald"})
    assert store.path.stat().st_size > 2 * 20_000 * 1024 * 4
    assert store.tile_offset("beta", 3, 19_999) + 256 * 4 <= store.path.stat().st_size
    assert store.trait("t19999") == 19_999


@pytest.mark.parametrize("name", ["beta", "se", "eaf", "n", "note", "sums", "snp_sums"])
def test_a_flipped_bit_is_seen(tmp_path, name):
    store = make(tmp_path / "o.h5")
    fill(store)
    flip(store.path, store.offsets[name])  # of the first trait and its group, block 0
    store = open_dense(store.path, MARK)
    with pytest.raises(StorageError, match="block 0 of trait 'z' is not what was written"):
        store.read(0, 0, M)
    store.read(0, B, M)
    store.read(4, 0, M)


def test_damaged_null_models_and_lists_are_refused(tmp_path):
    store = make(tmp_path / "o.h5")
    save_nulls(store, 0, 3, given(0.5)[None])
    flip(store.path, store.offsets["nulls"] + 3 * NULL_DTYPE.itemsize)
    with pytest.raises(InputError, match=r"o\.h5 is damaged: its null models"):
        open_dense(store.path)
    store = make(tmp_path / "p.h5")
    flip(store.path, store.offsets["index"])
    with pytest.raises(InputError, match=r"p\.h5 is damaged: its list of SNPs"):
        open_dense(store.path)


def flip(path: Path, offset: int) -> None:
    """One bit of the file becomes another."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_a_store_of_other_inputs_or_kind_is_refused(tmp_path):
    store = make(tmp_path / "o.h5")
    with pytest.raises(InputError, match="other inputs or options"):
        open_dense(store.path, Mark({"command": "another"}))
    with pytest.raises(InputError, match="not a result store"):
        open_store(store.path)
    shape = StoreShape(INDEX, B, block_edges(M, B), {"x": ["intercept"]}, 1)
    single = create_store(tmp_path / "s.h5", shape, MARK, {"bfile": "/g"})
    assert single.attributes["bfile"] == "/g" and open_store(single.path, MARK).block == B
    with pytest.raises(InputError, match="not a result store"):
        open_dense(single.path)
    assert store_format(store.path) == "mpgls-dense" and store_format(single.path) == "mpgls-results"


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(StorageError, match="no result store"):
        open_dense(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("nothing")
    with pytest.raises(InputError, match="not an HDF5 file"):
        open_dense(tmp_path / "text.h5")
    with pytest.raises(StorageError, match="cannot write"):
        make(tmp_path / "absent" / "o.h5")
    store = make(tmp_path / "o.h5")
    with open(store.path, "r+b") as file:
        file.truncate(store.tile_offset("beta", 1, 0))
    with pytest.raises(StorageError, match="ended early"):
        store.read(4, 0, M)

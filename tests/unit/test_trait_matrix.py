from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study import trait_matrix
from mpgls.study.trait_matrix import (
    group_by_mask,
    group_traits,
    impute,
    open_traits,
    select_names,
)

NAMES = ("IL-2", "CD8", "1-2", "a:b", "b")


def make_values(n: int = 7, t: int = 5) -> np.ndarray:
    """t x n with gaps: traits 0 and 3 miss samples 1 and 4; trait 2 misses all; trait 4 is constant."""
    values = np.random.default_rng(3).standard_normal((t, n))
    values[[0, 3], 1] = values[[0, 3], 4] = values[2] = np.nan
    values[4] = 2.5
    return values


def write_text(path: Path, values: np.ndarray, names=NAMES) -> Path:
    lines = ["FID IID " + " ".join(names)]
    for i, column in enumerate(values.T):
        lines.append(" ".join([f"f{i}", f"i{i}", *("NA" if np.isnan(v) else repr(float(v)) for v in column)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_hdf5(path: Path, values: np.ndarray, names=NAMES, samples=None, dtype="f8") -> Path:
    n = values.shape[1]
    with h5py.File(path, "w") as file:
        file.create_dataset("traits", data=values.astype(dtype), chunks=(2, 3))
        file["names"] = np.array(names, dtype=h5py.string_dtype())
        pairs = [[f"f{i}", f"i{i}"] for i in range(n)] if samples is None else samples
        file["samples"] = np.array(pairs, dtype=h5py.string_dtype())
    return path


@pytest.fixture(params=["text", "hdf5", "hdf5 with joined IDs", "hdf5 with bytes"])
def matrix_path(request, tmp_path) -> Path:
    values = make_values()
    if request.param == "text":
        return write_text(tmp_path / "t.tsv", values)
    if request.param == "hdf5":
        return write_hdf5(tmp_path / "t.h5", values)
    joined = [f"f{i} i{i}" for i in range(values.shape[1])]
    path = write_hdf5(tmp_path / "t.h5", values, samples=joined)
    if request.param == "hdf5 with bytes":
        with h5py.File(path, "a") as file:
            del file["samples"], file["names"]
            file["samples"], file["names"] = np.array(joined, "S"), np.array(NAMES, "S")
    return path


def test_both_forms_give_the_same_matrix(matrix_path):
    matrix = pickle.loads(pickle.dumps(open_traits(matrix_path)))
    assert matrix.names == NAMES and matrix.ids == [(f"f{i}", f"i{i}") for i in range(7)]
    values = make_values()
    for positions in ([0, 1, 2, 3, 4], [3], [4, 0, 1, 3], []):
        got = matrix.read(positions)
        assert got.shape == (len(positions), 7) and got.dtype == np.float64 and got.flags.c_contiguous
        np.testing.assert_array_equal(got, values[positions])


def test_wanted_traits_come_in_the_order_asked_for(matrix_path):
    matrix = open_traits(matrix_path, ["b", "1-2", "IL-2:CD8"])
    assert matrix.names == ("b", "1-2", "IL-2", "CD8")
    np.testing.assert_array_equal(matrix.read([0, 2, 3]), make_values()[[4, 0, 1]])


@pytest.mark.parametrize(
    ("wanted", "positions"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["all"], [0, 1, 2, 3, 4]),
        (["1-2"], [2]),  # a name goes before a range
        (["2-4"], [1, 2, 3]),
        (["5-5", "IL-2"], [4, 0]),
        (["a:b"], [3]),
        (["CD8:a:b"], [1, 2, 3]),
        (["a:b:b"], [3, 4]),
        (["CD8,b"], [1, 4]),
        (["IL-2:CD8,4-5,"], [0, 1, 3, 4]),
    ],
)
def test_names_and_ranges(wanted, positions):
    assert select_names(NAMES, wanted) == positions


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (["CD4"], "no trait 'CD4'; its traits are IL-2, CD8"),
        (["0-2"], "no range of the 5 traits"),
        (["3-6"], "no range of the 5 traits"),
        (["4-3"], "no range of the 5 traits"),
        (["CD8:IL-2"], "'IL-2' comes before 'CD8'"),
        (["2-3", "CD8"], "'CD8' of the trait file is asked for twice"),
        (["all", "CD8"], "no trait 'all'"),
    ],
)
def test_names_that_cannot_be(wanted, complaint):
    with pytest.raises(UsageError, match=complaint):
        select_names(NAMES, wanted)


def test_many_names_are_not_all_listed():
    with pytest.raises(UsageError, match=r"t9, \.\.\. \(1000 in all\)$"):
        select_names([f"t{k}" for k in range(1000)], ["x"])


def test_hdf5_is_read_by_the_row(tmp_path, monkeypatch):
    """Only what is asked for: a second handle counts the rows."""
    values = np.arange(60.0).reshape(12, 5)
    path = write_hdf5(tmp_path / "t.h5", values, names=[f"t{k}" for k in range(12)], dtype="i4")
    matrix = open_traits(path, ["3-12"])
    rows: list[int] = []
    original = h5py.Dataset.read_direct

    def counted(self, dest, source_sel=None, dest_sel=None):
        rows.extend(range(12)[source_sel])
        original(self, dest, source_sel, dest_sel)

    monkeypatch.setattr(h5py.Dataset, "read_direct", counted)
    np.testing.assert_array_equal(matrix.read([9, 1, 2, 3]), values[[11, 3, 4, 5]])
    assert rows == [11, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: f.pop("names"), "no dataset /names"),
        (lambda f: f["names"].__setitem__(1, "IL-2"), "'IL-2' twice \\(entries 1 and 2\\)"),
        (lambda f: f["names"].__setitem__(1, "a b"), "trait 2 of /names"),
        (lambda f: f["samples"].__setitem__((2, 1), "i0") or f["samples"].__setitem__((2, 0), "f0"), "twice"),
        (lambda f: (f.pop("samples"), f.update_samples(["f0 i0"] * 7)), "twice"),
        (lambda f: (f.pop("samples"), f.update_samples(["f0"] * 7)), "entry 1 of /samples is 'f0'"),
        (lambda f: (f.pop("samples"), f.update_samples([["f", "i"]])), "5 x 7, but there are 5 names and 1 samples"),
        (lambda f: (f.pop("names"), f.__setitem__("names", np.arange(5))), "/names does not hold strings"),
    ],
)
def test_malformed_hdf5(tmp_path, change, complaint):
    path = write_hdf5(tmp_path / "t.h5", make_values())

    class File(h5py.File):
        def update_samples(self, texts):
            self["samples"] = np.array(texts, dtype=h5py.string_dtype())

    with File(path, "a") as file:
        change(file)
    with pytest.raises(InputError, match=complaint):
        open_traits(path)


def test_infinite_value_is_named(tmp_path):
    values = make_values()
    values[1, 3] = -np.inf
    matrix = open_traits(write_hdf5(tmp_path / "t.h5", values), ["2-5"])
    matrix.read([1, 2])
    with pytest.raises(InputError, match="trait 'CD8' of sample 'f3 i3' is -inf"):
        matrix.read([3, 0])


@pytest.mark.parametrize("form", [write_text, write_hdf5])
def test_codes_of_missing_values(tmp_path, form):
    values = np.array([[1.0, -9.0, 3.0, -9.0], [0.0, 1.0, 2.0, 0.0], [5.0, 0.0, 7.0, 8.0]])
    path = form(tmp_path / "t", values, names=("y", "sex", "z"))
    matrix = open_traits(path)
    np.testing.assert_array_equal(matrix.read([0, 1, 2]), values)
    assert "2 values of column 'y' are -9 and are read as numbers" in matrix.warnings[0]
    assert "2 values of column 'sex' are 0" in matrix.warnings[1]
    matrix = pickle.loads(pickle.dumps(open_traits(path, missing_codes=[-9, 0])))
    values[(values == -9) | (values == 0)] = np.nan
    np.testing.assert_array_equal(matrix.read([2, 0, 1]), values[[2, 0, 1]])
    assert matrix.warnings == () and "5 values of -9 and 0 are missing" in matrix.summary
    groups = group_by_mask(matrix, np.arange(4))
    assert [group.samples.tolist() for group in groups] == [[0, 2], [1, 2], [0, 2, 3]]


def test_codes_are_looked_for_in_the_first_block_of_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(trait_matrix, "BLOCK_BYTES", 2 * 4 * 8)
    path = write_hdf5(tmp_path / "t.h5", np.full((3, 4), -9.0), names=("a", "b", "c"))
    assert "8 values of 2 columns ('a', 'b') are -9" in open_traits(path).warnings[0]
    summary = open_traits(path, missing_codes=(-9.0,)).summary
    assert "8 values of -9 are missing (--missing-code) among the first 2 traits" in summary


def test_traits_of_people_without_fid(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("#IID y z\ni1 1 2\ni0 3 4\n")
    matrix = open_traits(path, ["z,y"], known=[("f0", "i0"), ("f1", "i1")])
    assert matrix.names == ("z", "y") and matrix.ids == [("f1", "i1"), ("f0", "i0")]
    np.testing.assert_array_equal(matrix.read([0, 1]), [[2, 4], [1, 3]])


def test_absent_file(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        open_traits(tmp_path / "none.tsv")


@pytest.mark.parametrize("block_bytes", [1, 200, 1 << 20])
def test_groups_by_mask(matrix_path, monkeypatch, block_bytes):
    monkeypatch.setattr(trait_matrix, "BLOCK_BYTES", block_bytes)
    kept = np.array([0, 1, 2, 5, 6])  # without sample 4; sample 1 is still missing in two traits
    groups = group_by_mask(open_traits(matrix_path), kept)
    assert [group.traits.tolist() for group in groups] == [[0, 3], [1, 4], [2]]
    assert [group.samples.tolist() for group in groups] == [[0, 2, 3, 4], [0, 1, 2, 3, 4], []]
    assert [group.constant.tolist() for group in groups] == [[False, False], [False, True], [False]]
    assert all(not group.missing.any() for group in groups)


def test_traits_differ_by_mask_only_on_kept_samples(tmp_path):
    matrix = open_traits(write_text(tmp_path / "t.tsv", make_values()), ["IL-2", "CD8", "a:b"])
    groups = group_by_mask(matrix, np.array([0, 2, 3, 5]))
    assert [group.traits.tolist() for group in groups] == [[0, 1, 2]]


def test_samples_that_order_the_kept_ones_otherwise(tmp_path):
    matrix = open_traits(write_text(tmp_path / "t.tsv", make_values()), ["IL-2"])
    (group,) = group_by_mask(matrix, np.array([6, 4, 0, 1]))
    assert group.samples.tolist() == [0, 2]  # positions in the kept list: samples 6 and 0 of the file


def test_complete_and_impute_policies(tmp_path, monkeypatch):
    monkeypatch.setattr(trait_matrix, "BLOCK_BYTES", 60)
    values = make_values()
    values[1, 0] = values[1, 1]
    values[1, [0, 2, 3, 5, 6]] = 9.0  # varies only in samples that trait 0 misses
    matrix = open_traits(write_text(tmp_path / "t.tsv", values))
    kept = np.arange(7)
    first, absent = group_traits(matrix, kept, "complete")
    assert first.traits.tolist() == [0, 1, 3, 4] and first.samples.tolist() == [0, 2, 3, 5, 6]
    assert first.constant.tolist() == [False, True, False, True] and not first.missing.any()
    assert absent.traits.tolist() == [2] and absent.samples.size == 0
    first, absent = group_traits(matrix, kept, "impute")
    assert first.traits.tolist() == [0, 1, 3, 4] and first.samples.tolist() == list(range(7))
    assert first.missing.tolist() == [2, 0, 2, 0] and first.constant.tolist() == [False, False, False, True]
    assert absent.traits.tolist() == [2]
    with pytest.raises(ValueError, match="by-mask, complete, impute"):
        group_traits(matrix, kept, "drop")


def test_no_complete_sample(tmp_path):
    values = np.array([[1.0, np.nan, 2.0], [np.nan, 1.0, np.nan]])
    matrix = open_traits(write_text(tmp_path / "t.tsv", values, names=("x", "y")))
    with pytest.raises(InputError, match=r"no sample of .* has all 2 traits"):
        group_traits(matrix, np.arange(3), "complete")
    values[:] = np.nan
    matrix = open_traits(write_text(tmp_path / "t.tsv", values, names=("x", "y")))
    for policy in trait_matrix.POLICIES:
        (group,) = group_traits(matrix, np.arange(3), policy)
        assert group.traits.tolist() == [0, 1] and group.samples.size == 0


def test_imputed_values_are_those_of_the_regression():
    rng = np.random.default_rng(5)
    n, X_L = 23, np.ones((23, 3))
    X_L[:, 1], X_L[:, 2] = rng.standard_normal(n), 1e4 + rng.standard_normal(n)
    Y = rng.standard_normal((4, n)) + np.array([[0], [1e6], [0], [0]])
    Y[0, [0, 5]] = Y[1, 7:15] = Y[3] = np.nan
    filled = impute(Y, X_L)
    for j in (0, 1):
        seen = ~np.isnan(Y[j])
        fitted = X_L @ np.linalg.lstsq(X_L[seen], Y[j, seen], rcond=None)[0]
        np.testing.assert_allclose(filled[j, ~seen], fitted[~seen], rtol=1e-8)
        np.testing.assert_array_equal(filled[j, seen], Y[j, seen])
    np.testing.assert_array_equal(filled[2], Y[2])
    assert np.isnan(filled[3]).all() and np.isnan(Y[0, 0])


def test_imputation_with_an_intercept_is_the_mean_and_survives_a_covariate_that_does_not_vary():
    Y = np.array([[1.0, 2.0, 6.0, np.nan, np.nan]])
    np.testing.assert_allclose(impute(Y, np.ones((5, 1)))[0, 3:], 3.0)
    X_L = np.column_stack([np.ones(5), [0.0, 0, 0, 1, 2]])
    assert np.isfinite(impute(Y, X_L)).all()

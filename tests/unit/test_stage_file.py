"""Outputs of stages: whole or not there, and taken only by who made them of the same inputs."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from mpgls.errors import StorageError
from mpgls.stream.stage_file import load_stage, save_stage

KIND, MARK = "mpgls-test", "a" * 64
ARRAYS = {
    "kept": np.array([True, False, True]),
    "counts": np.array([5, 7], dtype=np.int32),
    "h2": np.array([[0.25, np.nan]]),
    "none": np.empty(0),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.stage0.h5"


def test_what_is_saved_is_loaded(path):
    save_stage(path, KIND, MARK, ARRAYS)
    found = load_stage(path, KIND, MARK)
    assert set(found) == set(ARRAYS)
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype and found[name].shape == values.shape
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_format_is_written_down(path):
    save_stage(path, KIND, MARK, ARRAYS)
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"format": KIND, "version": 1, "fingerprint": MARK}


def test_saving_replaces_the_whole_file(path):
    save_stage(path, KIND, MARK, ARRAYS)
    save_stage(path, KIND, "b" * 64, {"other": np.ones(2)})
    assert load_stage(path, KIND, MARK) is None
    assert list(load_stage(path, KIND, "b" * 64)) == ["other"]


@pytest.mark.parametrize(("kind", "mark"), [("mpgls-other", MARK), (KIND, "b" * 64)])
def test_of_another_kind_or_other_inputs(path, kind, mark):
    save_stage(path, KIND, MARK, ARRAYS)
    assert load_stage(path, kind, mark) is None


def test_not_there_or_no_file_of_ours(path):
    assert load_stage(path, KIND, MARK) is None
    path.write_bytes(b"text")
    assert load_stage(path, KIND, MARK) is None
    save_stage(path, KIND, MARK, ARRAYS)
    path.write_bytes(path.read_bytes()[:-600])
    assert load_stage(path, KIND, MARK) is None


def test_half_written_leaves_the_old_one(path, monkeypatch):
    save_stage(path, KIND, MARK, ARRAYS)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*out\.stage0\.h5: No space left"):
        save_stage(path, KIND, "b" * 64, {"other": np.ones(2)})
    assert set(load_stage(path, KIND, MARK)) == set(ARRAYS)


def test_no_directory(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        save_stage(tmp_path / "none" / "x.h5", KIND, MARK, ARRAYS)

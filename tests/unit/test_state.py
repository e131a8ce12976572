"""What a run has done so far, in a file that is replaced whole: found by who made it of the same inputs only."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from mpgls.errors import InputError, StorageError
from mpgls.run.ledger import State
from mpgls.stream.mark import Mark

MARK, OTHER = (Mark({"command": "test", "options": {"--h2": h2}}) for h2 in (0.5, 0.25))
FACTS = {"rounds": 3, "name": "Größe", "h2": 0.1 + 0.2, "none": None, "list": [1, [2]]}
ARRAYS = {
    "kept": np.array([True, False, True]),
    "counts": np.array([5, 7], dtype=np.int32),
    "h2": np.array([[0.25, np.nan]]),
    "none": np.empty(0),
    "records": np.array([(1, 0.5)], dtype=[("n", "<i4"), ("beta", "<f8")]),
}


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "out.progress", MARK)


def load_same(state):
    """What is taken without a refusal; what is said is not looked at."""
    return state.load_same(lambda text: None)


def other(state):
    """The same file, for a run of other options."""
    return State(state.path, OTHER)


@pytest.mark.parametrize("load", [State.load, load_same])
def test_what_is_saved_is_loaded(state, load):
    state.save(FACTS, ARRAYS)
    found = load(state)
    assert found.facts == FACTS and set(found.arrays) == set(ARRAYS)
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], values)
        assert found.arrays[name].dtype == values.dtype and found.arrays[name].shape == values.shape
    assert [file.name for file in state.path.parent.iterdir()] == [state.path.name]


def test_the_format_is_written_down(state):
    state.save({"rounds": 3}, ARRAYS)
    with h5py.File(state.path) as file:
        attributes = dict(file.attrs)
    assert attributes.pop("sum") > 0
    assert attributes == {"format": "mpgls-state", "version": 2, "made_from": MARK.text, "facts": '{"rounds": 3}'}


def test_saving_replaces_the_whole_file(state):
    state.save(FACTS, ARRAYS)
    other(state).save({}, {"other": np.ones(2)})
    assert load_same(state) is None
    found = other(state).load()
    assert found.facts == {} and list(found.arrays) == ["other"]


def test_of_other_options_it_is_refused_or_not_taken(state):
    state.save(FACTS, ARRAYS)
    with pytest.raises(InputError, match=r"out\.progress was made from other .*\(--h2 was 0.5, now it is 0.25\)"):
        other(state).load()
    assert load_same(other(state)) is None


@pytest.mark.parametrize("name", ["kept", "counts", "records"])
def test_a_flipped_bit_is_seen(state, name):
    state.save(FACTS, ARRAYS)
    with h5py.File(state.path) as file:
        offset = file[name].id.get_offset()
    data = bytearray(state.path.read_bytes())
    data[offset] ^= 1
    state.path.write_bytes(data)
    with pytest.raises(InputError, match=r"out\.progress is damaged: it is not what was written"):
        state.load()
    said: list[str] = []
    assert state.load_same(said.append) is None
    assert said == [f"{state.path} is damaged, or of another version of mpgls, and is made again"]


@pytest.mark.parametrize("load", [State.load, load_same])
def test_not_there(state, load):
    assert load(state) is None


def test_no_file_of_ours_is_refused_or_not_taken(state):
    with h5py.File(state.path, "w") as file:
        file.attrs["format"] = "mpgls-kinship"
    with pytest.raises(InputError, match=r"out\.progress is not a progress file of this version of mpgls"):
        state.load()
    assert load_same(state) is None


@pytest.mark.parametrize("damage", ["text", "truncated"])
def test_a_damaged_file_names_itself_or_is_not_taken(state, damage):
    state.save(FACTS, ARRAYS)
    state.path.write_bytes(b"text" if damage == "text" else state.path.read_bytes()[:-600])
    with pytest.raises((InputError, StorageError), match=r"out\.progress"):
        state.load()
    assert load_same(state) is None


def test_half_written_leaves_the_old_one(state, monkeypatch):
    state.save(FACTS, ARRAYS)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*out\.progress: No space left"):
        state.save({}, {"other": np.ones(2)})
    assert state.load().facts == FACTS
    assert [file.name for file in state.path.parent.iterdir()] == [state.path.name]


def test_no_directory(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        State(tmp_path / "none" / "x", MARK).save({}, ARRAYS)


def test_nothing_that_is_read_back_is_code(state):
    """A file of ours can be looked at without running anything: HDF5 numbers and JSON text."""
    with pytest.raises(TypeError):
        state.save({"world": object()}, {})
    with pytest.raises(TypeError):
        state.save({}, {"objects": np.array([object()])})
    assert not state.path.exists()

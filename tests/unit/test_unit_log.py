"""The log of finished units: what comes back, what a torn end costs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpgls.engine.voxel_units import ENTRY_DTYPE, Unit, UnitResult, Unpermuted
from mpgls.errors import InputError, StorageError
from mpgls.model.clusters import RECORD_DTYPE
from mpgls.stream.mark import Mark
from mpgls.stream.unit_log import MAGIC, UnitLog, finished_units, rank_path, remove_unit_logs

SIZES = {"block": 7, "permutations": 3}
MARK = Mark({"command": "vgwas", "options": {"--seed": 1}})


def results() -> dict[Unit, UnitResult]:
    """Units with data of every type that is kept, and one without."""
    rng = np.random.default_rng(1)
    records, entries = np.zeros(7, RECORD_DTYPE), np.zeros(5, ENTRY_DTYPE)
    records["t"], records["n"] = rng.standard_normal(7), 3
    entries["voxel"], entries["beta"] = np.arange(5), np.nan
    maxima = {"log10p": rng.random(3), "tfce": np.array([np.inf, 0.0, -0.0])}
    return {
        Unit(0, 7, 0, 3): UnitResult(maxima, np.array([4, 9], np.int32), Unpermuted(records, entries)),
        Unit(0, 7, 3, 6): UnitResult(maxima, np.empty(0, np.int32)),
    }


def written(folder: Path) -> str:
    prefix = str(folder / "o")
    for rank, (unit, result) in enumerate(results().items()):
        log = UnitLog(rank_path(prefix, rank), 0.0)
        log.open(MARK, SIZES)
        log.append(tuple(unit), result.arrays())
        log.close()
    return prefix


def same(found: UnitResult, expected: UnitResult) -> None:
    one, other = found.arrays(), expected.arrays()
    assert list(one) == list(other)
    for name, values in one.items():
        assert values.dtype == other[name].dtype and values.shape == other[name].shape
        assert values.tobytes() == other[name].tobytes()


def test_results_come_back_to_the_last_bit(tmp_path: Path) -> None:
    done = finished_units(written(tmp_path), MARK)
    assert done is not None and done.sizes == SIZES and set(done.places) == set(results())
    for unit, result in results().items():
        same(UnitResult.of(done.read(tuple(unit))), result)


def test_other_inputs_or_options_are_refused(tmp_path: Path) -> None:
    other = Mark({"command": "vgwas", "options": {"--seed": 2}})
    with pytest.raises(InputError, match=r"--seed was 1, now it is 2"):
        finished_units(written(tmp_path), other)


@pytest.mark.parametrize("lost", [1, 20, 100])
def test_a_torn_end_costs_its_unit_only(tmp_path: Path, lost: int) -> None:
    prefix = str(tmp_path / "o")
    log = UnitLog(rank_path(prefix, 0), 1e9)
    log.open(MARK, SIZES)
    (one, first), (other, second) = results().items()
    log.append(tuple(one), first.arrays())
    log.append(tuple(other), second.arrays())
    log.close()
    path = rank_path(prefix, 0)
    path.write_bytes(path.read_bytes()[:-lost])
    log.open(MARK, SIZES)
    log.append((1, 2), {"a": np.arange(6, dtype=np.int16).reshape(2, 3)})
    log.close()
    done = finished_units(prefix, MARK)
    assert done is not None and set(done.places) == {one, (1, 2)}
    same(UnitResult.of(done.read(tuple(one))), first)
    np.testing.assert_array_equal(done.read((1, 2))["a"], [[0, 1, 2], [3, 4, 5]])


def test_a_changed_byte_ends_what_is_done(tmp_path: Path) -> None:
    prefix = written(tmp_path)
    path = rank_path(prefix, 0)
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    done = finished_units(prefix, MARK)
    assert done is not None and set(done.places) == {Unit(0, 7, 3, 6)}
    (note,) = done.notes
    assert note.startswith(f"{path}: its last ") and note.endswith(
        " bytes are unfinished or damaged units, and are made again"
    )


def test_a_byte_that_changes_after_it_was_found_is_refused(tmp_path: Path) -> None:
    prefix = written(tmp_path)
    done, path = finished_units(prefix, MARK), rank_path(prefix, 0)
    assert done is not None and done.notes == ()
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"o\.units\.00000 is damaged: run the same command with --resume"):
        done.read((0, 7, 0, 3))


def test_logs_of_another_version_are_refused_by_name(tmp_path: Path) -> None:
    prefix = written(tmp_path)
    path = rank_path(prefix, 0)
    path.write_bytes(path.read_bytes().replace(MAGIC, b"mpgls-units-1\n"))
    with pytest.raises(InputError, match=r"o\.units\.00000 is not a log of this version"):
        finished_units(prefix, MARK)


def test_no_log_and_removed_logs_are_none(tmp_path: Path) -> None:
    assert finished_units(str(tmp_path / "o"), MARK) is None
    prefix = written(tmp_path)
    done = finished_units(prefix, MARK)
    remove_unit_logs(prefix)
    assert finished_units(prefix, MARK) is None
    assert done is not None
    with pytest.raises(StorageError, match=r"cannot read .*o\.units"):
        done.read((0, 7, 0, 3))


def test_python_objects_are_not_written(tmp_path: Path) -> None:
    log = UnitLog(rank_path(str(tmp_path / "o"), 0), 0.0)
    log.open(MARK, SIZES)
    with pytest.raises(ValueError, match="Python objects"):
        log.append((1,), {"a": np.array([{}], dtype=object)})
    log.close()

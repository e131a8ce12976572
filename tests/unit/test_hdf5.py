"""What is said of an HDF5 file that is locked, missing, damaged or truncated: one sentence, and the right exit code."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpgls.errors import InputError, MpglsError, StorageError
from mpgls.study.hdf5 import open_hdf5, path_attribute
from mpgls.study.kinship_h5 import create_kinship_h5, finish_kinship_h5, read_keys, read_kinship_h5

PACKAGE = Path(__file__).resolve().parents[2] / "mpgls"
HOLD = "import h5py, sys; file = h5py.File(sys.argv[1], sys.argv[2]); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def kinship(tmp_path: Path) -> Path:
    path = tmp_path / "K.h5"
    ids = [(f"F{k}", f"I{k}") for k in range(7)]
    create_kinship_h5(path, ids, {"method": "centered", "snps": 3}, ["1", "2"])
    finish_kinship_h5(path, [1, 2], np.arange(3), {})
    return path


@pytest.mark.parametrize(("held", "asked", "words"), [("r+", "r", "open for writing"), ("r", "r+", "has .* open;")])
def test_a_lock_is_a_lock(kinship, held, asked, words):
    with subprocess.Popen([sys.executable, "-c", HOLD, kinship, held], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match=rf"another program .*{words}.*HDF5_USE_FILE_LOCKING=FALSE"):
            open_hdf5(kinship, asked).__enter__()
        other.communicate()
    with open_hdf5(kinship, asked) as file:
        assert file["kinship"].shape == (7, 7)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("mode", ["r", "r+", "w"])
def test_a_file_system_without_locks(kinship, monkeypatch, number, mode):
    def refuse(*_, **__):
        raise OSError(number, f"Unable to open file (unable to lock file, errno = {number}, error message = '...')")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(StorageError, match=r"K\.h5: its file system has no locks; set HDF5_USE_FILE_LOCKING=FALSE"):
        open_hdf5(kinship, mode).__enter__()


def test_what_is_missing_is_named(kinship):
    with pytest.raises(InputError, match=r"K\.h5 .*there is no 'nothing' in it"), open_hdf5(kinship) as file:
        file["nothing"]
    with pytest.raises(InputError, match=r"K\.h5 .*there is no 'nothing' in it"), open_hdf5(kinship) as file:
        file.attrs["nothing"]
    with (
        pytest.raises(InputError, match=r"K\.h5 is not a readable kinship"),
        open_hdf5(kinship, what="kinship") as file,
    ):
        file["kinship"].asstr()
    with pytest.raises(StorageError, match=r"there is no kinship .*k\.h5"):
        open_hdf5(kinship.with_name("k.h5"), what="kinship").__enter__()
    with pytest.raises(StorageError, match="it is a directory"):
        open_hdf5(kinship.parent).__enter__()


def test_a_truncated_file_tells_its_bytes(kinship):
    whole = kinship.read_bytes()
    kinship.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=rf"truncated\): it has {len(whole) - 100:,} of {len(whole):,} bytes"):
        read_kinship_h5(str(kinship))


def test_a_damaged_file_gives_a_sentence_or_is_read(kinship):
    whole, draws, told = kinship.read_bytes(), random.Random(1), 0
    for _ in range(100):
        kinship.write_bytes(whole[: draws.randrange(len(whole))])
        with pytest.raises(MpglsError):
            read_kinship_h5(str(kinship))
    for place in range(0, 800, 8):  # superblock and root group, where no text is
        kinship.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_kinship_h5(str(kinship))
            read_keys(str(kinship))
        except MpglsError as error:
            told += "K.h5" in str(error)
    assert told > 10


def test_a_path_that_is_not_utf8_is_an_attribute(tmp_path):
    with open_hdf5(tmp_path / "a.h5", "w") as file:
        file.attrs["bfile"] = path_attribute("gr\udcf6\udcdfe/größe")
    with open_hdf5(tmp_path / "a.h5") as file:
        assert file.attrs["bfile"] == "gr\udcf6\udcdfe/größe"


def test_all_of_mpgls_opens_hdf5_in_one_place():
    users = [path for path in PACKAGE.rglob("*.py") if "h5py.File(" in path.read_text("utf-8")]
    assert users == [PACKAGE / "study" / "hdf5.py"]


# -- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch):
    """From now on nothing that is written has room."""

    def fill():
        def refuse(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        for name in ("pwrite", "posix_fallocate"):
            monkeypatch.setattr(os, name, refuse)

    return fill


def test_a_new_file_on_a_full_disk(tmp_path, full):
    """HDF5 1.10 would crash where it gives back what it held of the file."""
    full()
    for _ in range(3):
        with (
            pytest.raises(StorageError, match=r"cannot write .*n\.h5: No space left on device"),
            open_hdf5(tmp_path / "n.h5", "w", libver="latest") as file,
        ):
            file["x"] = np.random.default_rng(1).random(100_000)
            file.attrs["about"] = "x" * 10_000


def test_a_file_that_grows_on_a_full_disk_is_what_it_was(kinship, full):
    before = kinship.read_bytes()
    full()
    with (
        pytest.raises(StorageError, match=r"cannot write .*K\.h5: No space left on device"),
        open_hdf5(kinship, "r+") as file,
    ):
        file["x"] = np.arange(100_000)
        file["kinship"][...] = 1.0
    assert kinship.read_bytes() == before


def test_what_is_changed_piece_by_piece_is_what_h5py_alone_would_write(tmp_path):
    """Datasets that grow by chunks, at the edges of pages and beyond them, in files opened again and again."""
    ours, theirs, draws = tmp_path / "ours.h5", tmp_path / "theirs.h5", np.random.default_rng(2)
    sizes = draws.integers(1, 30_000, 12).tolist()
    for number, size in enumerate(sizes):
        values, mode = draws.integers(0, 1 << 40, size), "r+" if number else "w"
        for file in (open_hdf5(ours, mode), h5py.File(theirs, mode)):
            with file as one:
                if not number:
                    one.create_dataset("x", (0,), np.int64, maxshape=(None,), chunks=(1000,), compression=1)
                one["x"].resize(sum(sizes[: number + 1]), axis=0)
                one["x"][-size:] = values
                one[f"whole {number}"] = values
    with h5py.File(ours) as a, h5py.File(theirs) as b:
        assert list(a) == list(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])

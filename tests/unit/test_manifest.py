from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mpgls
from mpgls.errors import StorageError
from mpgls.report.manifest import write_manifest
from mpgls.run.identity import file_identity
from mpgls.run.versions import versions

MIB = 1 << 20


class Colour(IntEnum):
    RED = 3


@dataclass
class Plan:
    ranks: int
    share: np.floating


def test_manifest_is_plain_json(tmp_path):
    path = tmp_path / "m.json"
    write_manifest(
        path,
        {
            "h2": np.float64(0.5), "n": np.int32(7), "ok": np.bool_(True), "nan": float("nan"),
            "inf": [np.inf, -np.inf],
            "array": np.array([1.5, np.nan]), "plan": Plan(2, np.float32(0.25)), "path": Path("a/b"), 3: (1, 2),
            "set": {"b", "a"}, "colour": Colour.RED, "bytes": b"abc", "name": "Größe", "none": None,
            np.int64(4): {"x": np.uint8(1)}, "scalar": np.array(2.5),
        },
    )  # fmt: skip
    text = path.read_text(encoding="utf-8")
    assert "NaN" not in text and "Infinity" not in text and '\n  "h2": 0.5,' in text and "Größe" in text
    assert json.loads(text) == {
        "h2": 0.5, "n": 7, "ok": True, "nan": None, "inf": ["inf", "-inf"], "array": [1.5, None],
        "plan": {"ranks": 2, "share": 0.25}, "path": "a/b", "3": [1, 2], "set": ["a", "b"], "colour": 3,
        "bytes": "abc", "name": "Größe", "none": None, "4": {"x": 1}, "scalar": 2.5,
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_manifest_keeps_float_digits(tmp_path):
    write_manifest(tmp_path / "m.json", {"h2": np.float64(0.6097627448019252)})
    assert json.loads((tmp_path / "m.json").read_text())["h2"] == 0.6097627448019252


def test_unwritable_manifest_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"absent/m\.json"):
        write_manifest(tmp_path / "absent" / "m.json", {})


def test_failed_rename_leaves_no_partial_file(tmp_path):
    (tmp_path / "m.json").mkdir()
    with pytest.raises(StorageError):
        write_manifest(tmp_path / "m.json", {"a": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 17])
def test_identity_of_small_files_is_the_plain_hash(tmp_path, size):
    data = np.random.default_rng(0).bytes(size)
    path = tmp_path / "x.bed"
    path.write_bytes(data)
    found = file_identity(path)
    assert found == {
        "path": str(path), "size": size, "sha256": hashlib.sha256(data).hexdigest(), "sha256_of": "whole file",
    }  # fmt: skip


def test_identity_of_large_files_samples_them(tmp_path):
    size = 64 * MIB + 5
    path = tmp_path / "x.bed"
    with open(path, "wb") as file:
        file.truncate(size)
    base = file_identity(path)
    step = size - 65536
    expected = hashlib.sha256(str(size).encode() + bytes(MIB + 64 * 65536 + MIB)).hexdigest()
    assert base["sha256"] == expected and base["sha256_of"].startswith("size, first MiB, 64 evenly")
    # the first and last byte, and one inside the 41st of the blocks, count; one between blocks does not
    inside = 40 * step // 63 + 100
    for offset, counts in [(0, True), (size - 1, True), (inside, True), (inside + 65536, False)]:
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(b"\x01")
            file.seek(offset)
            file.flush()
            assert (file_identity(path)["sha256"] != expected) is counts
            file.write(b"\x00")
    with open(path, "ab") as file:
        file.write(b"\x00")
    assert file_identity(path)["sha256"] != expected


def test_identity_of_a_missing_file(tmp_path):
    with pytest.raises(StorageError, match=r"cannot read .*nothing\.bed"):
        file_identity(tmp_path / "nothing.bed")


def test_versions_name_the_libraries():
    found = versions()
    assert found["mpgls"] == mpgls.__version__ and found["numpy"] == np.__version__
    assert found["hdf5"].count(".") == 2 and found["mpi4py"] and "mpi" not in found
    assert found["blas"] and {"path", "kernel", "threads"} <= set(found["blas"][0])
    assert versions(SimpleNamespace(size=3))["ranks"] == 3
    json.dumps(found)


def test_versions_find_petsc_on_disk_without_importing_it(tmp_path):
    package = tmp_path / "lib/python3/dist-packages/petsc4py"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '9.87.6'\nraise SystemExit('imported')\n")
    (tmp_path / "include").mkdir()
    (tmp_path / "include/petscversion.h").write_text(
        "#define PETSC_VERSION_MAJOR 9\n#define PETSC_VERSION_MINOR     87\n#define PETSC_VERSION_SUBMINOR 5\n"
    )
    code = (
        "import sys; sys.path = [p for p in sys.path if 'petsc' not in p]\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'petsc4py' else real(name)\n"
        "from mpgls.run.versions import versions; v = versions()\n"
        "print(v['petsc4py'], v['petsc'], 'petsc4py' in sys.modules, 'mpi4py.MPI' in sys.modules)"
    )
    environment = {"PETSC_DIR": str(tmp_path), "PYTHONPATH": str(Path(mpgls.__file__).parents[1]), "PATH": "/usr/bin"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["9.87.6", "9.87.5", "False", "False"]

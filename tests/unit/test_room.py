"""Room for the files of a run is looked for before the work: how much each command says it needs, and what it does."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_images import save, small_mask

import mpgls
from mpgls.errors import StorageError
from mpgls.run import job
from mpgls.run.outputs import Outputs, check_room

USAGE = namedtuple("USAGE", "total used free")
SCAN: dict[str, Any] = {"bfile": "sim", "pheno": "sim.pheno.tsv", "no_plots": True}
RUNS: dict[str, dict[str, Any]] = {
    "simulate": {"samples": 301, "snps": 2000, "traits": 3},
    "kinship": {"bfile": "sim", "loco": True, "grm_bin": True},
    "eigen": {"grm": "K.h5"},
    "single_trait": {**SCAN, "grm": "K.h5"},
    "multi_trait": {**SCAN, "grm": "K.h5", "dense": True, "p_threshold": 0.5, "pass_traits": 1, "trait_block": 1},
    "low_rank": {**SCAN, "similarity_every": 20},
    "vgwas_extract": {"images": "brain.images.tsv", "mask": "mask.nii.gz"},
    "vgwas": {"bfile": "sim", "voxels": "voxels.h5", "permutations": 5, "no_plots": True},
    "vgwas, maps": {
        "bfile": "sim", "images": "brain.images.tsv", "mask": "mask.nii.gz", "permutations": 2, "no_plots": True,
        "maps": 1,
    },
    "ridge, parcels": {
        "bfile": "sim", "images": "brain.images.tsv", "mask": "mask.nii.gz", "parcels": 50, "outer_folds": 3,
        "inner_folds": 2, "permutations": 2, "alphas": (1.0,), "no_plots": True,
    },
    "ridge": {
        **SCAN, "outer_folds": 4, "inner_folds": 3, "permutations": 2000, "save_predictions": True, "weights": 2,
    },
    "export": {"store": "dense.h5", "trait": ("trait1", "trait2")},
    "simulate_images": {"bfile": "sim", "mask": "mask.nii.gz", "causal": 3},
}  # fmt: skip
"""Runs whose files are larger than what HDF5 and headers take."""
OVERHEAD = 32_000
"""Bytes of that, at most, in a file."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    here = os.getcwd()
    os.chdir(folder)
    save(folder / "mask.nii.gz", small_mask().astype(np.uint8))
    mpgls.simulate(samples=120, snps=1500, chromosomes=3, traits=3, out="sim")
    mpgls.kinship(bfile="sim", out="K")
    mpgls.multi_trait(**RUNS["multi_trait"], out="dense")
    mpgls.simulate_images(**RUNS["simulate_images"], out="brain")
    mpgls.vgwas_extract(**RUNS["vgwas_extract"], out="voxels")
    os.chdir(here)
    return folder


@pytest.fixture(autouse=True)
def here(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder of the study, without the files of the test before."""
    monkeypatch.chdir(study)
    monkeypatch.setattr(job, "gemm_rate", lambda *_: 1.0)
    for path in study.glob("o.*"):
        (shutil.rmtree if path.is_dir() else os.unlink)(path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The files, by name, that were declared, and their bytes."""
    found: dict[str, int] = {}
    real = Outputs.check_room

    def note(self: Outputs, sizes: Mapping[str, int], resume: bool) -> None:
        found.update(sizes)
        real(self, sizes, resume)

    monkeypatch.setattr(Outputs, "check_room", note)
    return found


def run(name: str) -> Any:
    return getattr(mpgls, name.partition(",")[0])(**RUNS[name], out="o")


@pytest.mark.parametrize("name", RUNS)
def test_what_a_command_declares_is_what_its_files_take(name: str, asked: dict[str, int], study: Path) -> None:
    """The sizes of the files are the measure; those that are gone in the end, and the small ones, are left out."""
    made = run(name)
    taken = {}
    for suffix in asked:
        files = [one for path in Path().glob(f"o{suffix}") for one in (path.iterdir() if path.is_dir() else [path])]
        if files:
            taken[suffix] = sum(one.stat().st_size for one in files)
    assert taken
    for suffix, nbytes in taken.items():
        declared = asked[suffix]
        assert declared <= 1.6 * nbytes + OVERHEAD and nbytes <= 1.6 * declared + OVERHEAD, (suffix, declared, nbytes)
    rest = sum(path.stat().st_size for path in made.files if not any(fnmatch(path.name, f"o{one}") for one in asked))
    assert rest <= 0.2 * sum(taken.values()) + 2 * OVERHEAD


@pytest.mark.parametrize("name", RUNS)
def test_a_disk_without_room_is_said_before_the_work(name: str, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: USAGE(0, 0, 2000))
    with pytest.raises(StorageError) as refused:
        run(name)
    said = str(refused.value)
    assert said.startswith("cannot write o.") and f"{study} has 2,000 bytes free" in said
    assert [path.name for path in study.glob("o.*") if path.suffix != ".log"] == []


def test_what_a_run_to_resume_has_made_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = Outputs(str(tmp_path / "o"), "kinship", "", ())
    Path(f"{outputs.prefix}.h5").write_bytes(b"x" * 100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: USAGE(0, 0, 1000))
    outputs.check_room({".h5": 100_000, ".tsv": 900}, resume=True)
    with pytest.raises(StorageError, match=r"o\.h5: the files of this run take 100,900 bytes, 100,000 of them this"):
        outputs.check_room({".h5": 100_000, ".tsv": 900}, resume=False)


def test_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotated SNPs go where --scratch says."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: USAGE(0, 0, 500 if Path(path) == tmp_path else 10**9))
    with pytest.raises(StorageError, match=f"{tmp_path} has 500 bytes free"):
        mpgls.multi_trait(**RUNS["multi_trait"], scratch=str(tmp_path), out="p")
    check_room(tmp_path, {})

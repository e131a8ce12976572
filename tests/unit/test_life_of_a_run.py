"""Every command that makes files, as a program, through one life: killed at a random moment and resumed, run again
when it is complete, resumed with options that do not matter, and with one that does."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from launch import LIMIT, MPIRUN, environment, program, ranks_of, under_mpirun
from refusals import INPUT, check
from resident import mpgls, must_succeed
from small_images import SHAPE, save, small_mask

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")

NOT_COMPARED = {".json", ".log", ".png"}
"""Endings of files that say when and how fast a run was, or are drawn of the others."""


@dataclass(frozen=True)
class Case:
    """A command line without --out, and an option that changes what it makes.

    ``first`` are options that a resumed run may do without, ``later`` such that it may have. ``keeps``: the results
    are in a file that lives on, which is not resumed with others before the end either.
    """

    line: str
    matters: str
    first: str = ""
    later: str = "--memory 9 --threads 1"
    keeps: bool = False


def scan(line: str, matters: str, keeps: bool = False) -> Case:
    """A command that marks what is done, and draws."""
    return Case(f"{line} --block-size 40", matters, "--checkpoint 0 --no-plots", keeps=keeps)


CASES = {
    "simulate": Case("simulate --samples 301 --snps 6000 --chromosomes 3 --traits 2", "--seed 2", later=""),
    "kinship": Case("kinship --bfile sim --loco", "--method standardized"),
    "eigen": Case("eigen --grm K.h5", "--center-grm"),
    "grm": scan("single-trait --bfile sim --grm K.h5", "--h2 0.4", keeps=True),
    "given-eigen": scan("single-trait --bfile sim --eigen E.h5", "--test wald", keeps=True),
    "loco": scan("single-trait --bfile sim --grm K.h5 --loco", "--covar sim.covar.tsv", keeps=True),
    "multi-trait": scan(
        "multi-trait --bfile sim --pheno sim.pheno.tsv --grm K.h5 --dense --p-threshold 0.01", "--p-threshold 0.1"
    ),
    "low-rank": scan("low-rank --bfile sim --similarity-every 9", "--maf 0.1", keeps=True),
    "vgwas-extract": Case("vgwas-extract --images brain.images.tsv --mask mask.nii.gz", "--mask half.nii.gz"),
    "vgwas": scan("vgwas --bfile sim --voxels voxels.h5 --permutations 20", "--connectivity 26"),
    "ridge": scan(
        "ridge --bfile sim --pheno sim.pheno.tsv --outer-folds 4 --inner-folds 3 --permutations 20",
        "--alpha-choice shared",
        keeps=False,
    ),
    "export": Case("export dense.h5 --trait trait1 trait2", "--trait trait1 trait3", later=""),
    "simulate-images": Case("simulate-images --bfile sim --mask mask.nii.gz", "--snr 0.3"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Genotypes, traits, a kinship with its chromosomes, its eigendecomposition, a store of all effects, and images."""
    folder = tmp_path_factory.mktemp("study")
    must_succeed(0, "simulate --samples 101 --snps 900 --chromosomes 3 --traits 3 --missing 0.01 --out sim", folder)
    must_succeed(0, "kinship --bfile sim --loco --out K", folder)
    must_succeed(0, "eigen --grm K.h5 --out E", folder)
    must_succeed(0, f"{CASES['multi-trait'].line} --no-plots --out dense", folder)
    mask = small_mask().astype(np.uint8)
    save(folder / "mask.nii.gz", mask)
    mask[SHAPE[0] // 2 :] = 0
    save(folder / "half.nii.gz", mask)
    must_succeed(0, "simulate-images --bfile sim --mask mask.nii.gz --out brain", folder)
    must_succeed(0, "vgwas-extract --images brain.images.tsv --mask mask.nii.gz --out voxels", folder)
    return folder


@pytest.fixture(autouse=True)
def fresh(study: Path) -> Iterator[None]:
    """No file of a test is there in the next one."""
    yield
    for path in [*files(study, "whole"), *files(study, "out")]:
        path.unlink()


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_life(study: Path, name: str, ranks: int) -> None:
    case, started = CASES[name], 0 if ranks == 1 else ranks

    line = f"{case.line} {case.first} --out"
    must_succeed(started, f"{line} whole", study)
    kill_one(started, f"{line} out", study)
    must_succeed(started, f"{line} out --resume", study)
    assert_same(contents(study, "out"), contents(study, "whole"))

    line, left = f"{case.line} {case.later} --out out --resume", stamps(study)
    if ranks == 1:
        again = must_succeed(started, line, study)
        assert "is complete: nothing is left to do" in again.out
    else:
        if case.keeps:  # as if it had been killed just before the end
            (study / "out.json").unlink()
            left.pop("out.json")
        other = mpgls(started, f"{line} {case.matters}", study)
        check(other, INPUT, "cannot be resumed", case.matters.split()[0])
    assert stamps(study) == left


def kill_one(ranks: int, line: str, folder: Path) -> None:
    """Start the run, and kill one of its ranks at a random moment after a random line of the undisturbed run's log."""
    said = [float(line.split()[0]) for line in log_lines(folder, "whole")]
    lines = random.randint(1, len(said))
    pause = random.uniform(0, said[lines] - said[lines - 1]) if lines < len(said) else 0.0
    print(f"killed {pause:.3f} s after {lines} of {len(said)} lines")
    process = subprocess.Popen(
        under_mpirun(ranks, [*program(), *line.split()]),
        cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + LIMIT
        while len(log_lines(folder, "out")) < lines and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.002)
        time.sleep(pause)
        if ranks and process.poll() is None:
            with contextlib.suppress(OSError, IndexError):  # it has ended by itself
                os.kill(random.choice(ranks_of(process.pid)), signal.SIGKILL)
        elif not ranks:
            process.kill()  # not by its number, which may be another's by now
        process.wait(LIMIT)
    finally:
        process.kill()
        process.wait()


def log_lines(folder: Path, prefix: str) -> list[str]:
    """The lines of a run's log; none before it is there."""
    return [line for path in folder.glob(f"{prefix}*.log") for line in path.read_text().splitlines()]


def files(folder: Path, prefix: str) -> list[Path]:
    """All files of a run."""
    found = folder.rglob("*")
    return [path for path in found if path.is_file() and str(path.relative_to(folder)).startswith(f"{prefix}.")]


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """When each file of the run was last changed, and its size; but for the log, which is written to."""
    found = {path.name: path.stat() for path in files(folder, "out") if path.suffix != ".log"}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}


def contents(folder: Path, prefix: str) -> dict[str, Any]:
    """What each file of a run holds, by its name without the prefix."""
    found = {}
    for path in files(folder, prefix):
        name = str(path.relative_to(folder)).removeprefix(prefix)
        if path.suffix == ".h5":
            found |= {f"{name}:{key}": values for key, values in datasets(path).items()}
        else:
            whole = b"" if path.suffix in NOT_COMPARED else path.read_bytes()
            found[name] = whole.replace(f"{prefix}.".encode(), b".")  # lists of files name them
    return found


def datasets(path: Path) -> dict[str, Any]:
    """Every dataset and attribute of an HDF5 file but its token, which tells runs apart, and the sum over that."""
    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        found.update({f"{name}@{key}": np.asarray(value).tolist() for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            values = item[()]
            is_text = item.dtype.hasobject
            found[name] = np.asarray(values).tolist() if is_text else (item.dtype, item.shape, values.tobytes())

    with h5py.File(path, "r") as file:
        note("/", file)
        file.visititems(note)
    return {name: values for name, values in found.items() if name not in ("token", "/@token", "/@sum")}


def assert_same(resumed: dict[str, Any], whole: dict[str, Any]) -> None:
    assert resumed.keys() == whole.keys()
    differ = [name for name in whole if resumed[name] != whole[name]]
    assert not differ, f"the resumed run has other {differ}"

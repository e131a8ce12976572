"""Full disks, mutated inputs and mutated files of earlier runs, a few of each; ``bench/faults.py`` makes many.

A run may refuse what it finds, with one sentence on all ranks, or give the numbers of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from ranks import few_ranks
from small_study import on_root, write_kinship

import mpgls
from mpgls.engine.kinship_on_grid import KinshipOnGrid
from mpgls.errors import InputError, MpglsError, NumericalError, Stopped, StorageError, UsageError
from mpgls.la.grid import ProcessGrid
from mpgls.mpi import StopSignal
from mpgls.run.world import World
from mpgls.study.grm import open_kinship

pytestmark = few_ranks

SCAN: dict[str, Any] = {"bfile": "sim", "pheno": "sim.pheno.tsv", "block_size": 10, "checkpoint": 0.0, "no_plots": True}
RUNS: dict[str, dict[str, Any]] = {
    "simulate": {"samples": 301, "snps": 3000, "chromosomes": 3},
    "kinship": {"bfile": "sim", "loco": True},
    "eigen": {"grm": "K.h5"},
    "single_trait": {**SCAN, "grm": "K.h5", "pheno_name": ("trait1", "trait2")},
    "multi_trait": {**SCAN, "grm": "K.h5", "dense": True, "p_threshold": 0.1, "trait_block": 1, "pass_traits": 1},
    "low_rank": {**SCAN, "similarity_every": 6, "no_loco": True, "pheno_name": "trait1"},
    "ridge": {**SCAN, "outer_folds": 4, "inner_folds": 3, "permutations": 20},
    "export": {"store": "dense.h5", "trait": ("trait1", "trait2")},
}
KEPT = {"single_trait": (".h5", 3), "multi_trait": (".progress", 2), "low_rank": (".h5", 3), "ridge": (".progress", 1)}
"""What a run must have to go on from, and how often it has then looked for a signal."""
STOPPABLE = ("single_trait", "multi_trait", "low_rank", "ridge")


def start(name: str, out: str, comm: Any, **more: Any) -> Any:
    return getattr(mpgls, name)(**RUNS[name], **more, out=out, comm=comm)


def contents(folder: Path, prefix: str) -> dict[str, Any]:
    """What the files of a run hold, by name; not when it was, and not what tells one file from another."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob(f"{prefix}.*")):
        name = path.name.removeprefix(prefix)
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                names: list[str] = []
                file.visit(names.append)
                parts = [one for one in names if isinstance(file[one], h5py.Dataset) and one != "token"]
                found |= {f"{name}:{one}": np.asarray(file[one][()]).tolist().__repr__() for one in parts}
        elif path.suffix not in (".json", ".log", ".lock"):
            found[name] = path.read_bytes().replace(f"{prefix}.".encode(), b".")
    return found


def undisturbed(name: str, comm: Any) -> None:
    """Run it to its end, once for all tests."""
    if not has_made(f"whole-{name}", comm):
        start(name, f"whole-{name}", comm)


def has_made(prefix: str, comm: Any) -> bool:
    return bool(comm.bcast(Path(f"{prefix}.json").exists() if comm.rank == 0 else None, root=0))


def assert_same(comm: Any, name: str, folder: Path) -> None:
    """What lies under ``folder`` is what the undisturbed run made."""
    comm.Barrier()
    if comm.rank == 0:
        whole, found = contents(Path(), f"whole-{name}"), contents(folder, "out")
        assert [name for name in {**whole, **found} if whole.get(name) != found.get(name)] == []
    comm.Barrier()


@pytest.fixture(scope="module")
def study(module_comm: Any, module_folder: Path) -> Iterator[Path]:
    """Genotypes, traits, a kinship with its chromosomes, and a store of all effects; the tests run in their folder."""
    with contextlib.chdir(module_folder):
        if module_comm.rank == 0:
            mpgls.simulate(samples=60, snps=200, chromosomes=3, traits=3, missing=0.02, out="sim")
            mpgls.kinship(bfile="sim", loco=True, out="K")
        module_comm.Barrier()
        start("multi_trait", "dense", module_comm)
        yield module_folder


@pytest.fixture(autouse=True)
def clean(study: Path, comm: Any) -> Iterator[None]:
    yield
    on_root(comm, lambda: [path.unlink() for path in study.glob("out.*")])


# -- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STOPPABLE)
def test_stopped_again_and_again(comm: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal at a random look for one, and then at another; what goes on gives the bytes of one that did not stop."""
    undisturbed(name, comm)
    looks, chance = 0, random.Random(name)
    wanted = 0

    def problem(self: StopSignal) -> Stopped | None:
        nonlocal looks
        looks += 1
        return Stopped("a signal") if looks == wanted else None

    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "problem", problem)
        for turn in range(2):
            looks, wanted = 0, chance.randint(2, 9)
            with contextlib.suppress(Stopped):
                start(name, "out", comm, resume=turn > 0)
    start(name, "out", comm, resume=True)
    assert_same(comm, name, Path())


def test_a_trait_has_the_same_kinship_whatever_was_taken_before(comm: Any, study: Path) -> None:
    """A run that resumes takes other traits first."""
    rng = np.random.default_rng(3)
    Z = rng.standard_normal((31, 40))
    ids = [(f"F{k}", f"I{k}") for k in range(31)]
    on_root(comm, lambda: write_kinship("odd.h5", ids, 0.37 * Z @ Z.T))
    everyone, some = np.arange(31), np.arange(0, 31, 2)

    def taken(grid: ProcessGrid, wanted: list[np.ndarray], centered: bool) -> list[np.ndarray]:
        kinship = open_kinship("odd.h5", None)
        Phi = KinshipOnGrid(kinship, everyone, everyone, len(wanted), grid, 4, World(comm), centered)
        return [Phi.take(rows, "", to_destroy=True).local.copy() for rows in wanted]

    with ProcessGrid(comm) as grid:
        for centered in (False, True):
            found = taken(grid, [everyone, some, everyone, some], centered)
            alone = [taken(grid, [rows], centered)[0] for rows in (everyone, some)]
            for one, other in zip(found, [*alone, *alone], strict=True):
                np.testing.assert_array_equal(one, other)


# -- full disks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(comm: Any, study: Path) -> Iterator[Callable[[str], None]]:
    """A tmpfs at ``small``, which is mounted with settings, or skipped where that is not allowed."""
    folder = study / "small"
    on_root(comm, lambda: folder.mkdir(exist_ok=True))

    def mount(settings: str) -> None:
        done = 1
        if comm.rank == 0:
            command = ["mount", "-t", "tmpfs", "-o", settings, "none", str(folder)]
            done = subprocess.run(command, capture_output=True, check=False).returncode
        if comm.bcast(done, root=0):
            pytest.skip("a tmpfs cannot be mounted here")

    yield mount
    on_root(comm, lambda: subprocess.run(["umount", str(folder)], capture_output=True, check=False))


@pytest.mark.parametrize("name", ["kinship", "multi_trait", "low_rank", "export"])
def test_a_disk_that_is_too_small(comm: Any, study: Path, small: Callable[[str], None], name: str) -> None:
    """The sentence names what has no room; with room the run goes on."""
    undisturbed(name, comm)
    small("size=24k")
    with pytest.raises(StorageError, match=r"small.*(has .* bytes free|No space left on device)"):
        start(name, "small/out", comm)
    comm.Barrier()
    small("remount,size=16m")
    start(name, "small/out", comm, resume=True)
    assert_same(comm, name, study / "small")


@pytest.mark.parametrize("name", ["multi_trait", "ridge", "single_trait"])
def test_a_disk_that_fills_up(comm: Any, study: Path, small: Callable[[str], None], name: str, monkeypatch) -> None:
    """All room is gone when the plan has been made, or some blocks are done."""
    undisturbed(name, comm)
    small("size=16m")
    looks, at = 0, random.Random(name).randint(1, 3)

    def fill(self: StopSignal) -> None:
        nonlocal looks
        looks += 1
        if comm.rank == 0 and looks == at:
            with open(study / "small/ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass

    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "problem", fill)
        with pytest.raises(StorageError, match=r"small/out.*No space left on device"):
            start(name, "small/out", comm)
    on_root(comm, (study / "small/ballast").unlink)
    start(name, "small/out", comm, resume=True)
    assert_same(comm, name, study / "small")


# -- other bytes ------------------------------------------------------------------------------------------------------

REFUSALS = (InputError, NumericalError, StorageError, UsageError)
MUTATED = {"sim.bed": "kinship", "sim.bim": "single_trait", "sim.fam": "low_rank", "sim.pheno.tsv": "ridge"}


def change(path: Path, chance: random.Random) -> None:
    """Some bytes of the file."""
    data = bytearray(path.read_bytes())
    if chance.random() < 0.2:
        del data[chance.randrange(len(data)) :]
    for _ in range(chance.choice((1, 2, 8))):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


@pytest.mark.parametrize("name", MUTATED)
def test_mutated_inputs(comm: Any, study: Path, name: str) -> None:
    for seed in range(3):
        on_root(comm, lambda: shutil.copy(name, "kept"))
        on_root(comm, lambda seed=seed: change(Path(name), random.Random(f"{name} {seed}")))
        try:
            start(MUTATED[name], "out", comm)
        except MpglsError as refused:
            assert isinstance(refused, REFUSALS) and "\n" not in str(refused)
        finally:
            on_root(comm, lambda: shutil.copy("kept", name))


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("single_trait", ".h5"), ("multi_trait", ".progress"), ("multi_trait", ".h5"), ("low_rank", ".h5"),
        ("ridge", ".progress"),
    ],
)  # fmt: skip
def test_mutated_state(comm: Any, study: Path, name: str, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """--resume refuses what is not what was written, or makes it again."""
    undisturbed(name, comm)
    looks, (kept, wanted) = 0, KEPT[name]

    def problem(self: StopSignal) -> Stopped | None:
        nonlocal looks
        looks += Path(f"out{kept}").exists()
        return Stopped("a signal") if looks == wanted else None

    with monkeypatch.context() as patch:
        patch.setattr(StopSignal, "problem", problem)
        with pytest.raises(Stopped):
            start(name, "out", comm)
    on_root(comm, lambda: [shutil.copy(path, f"kept-{path.name}") for path in study.glob("out.*")])
    for seed in range(2):
        on_root(comm, lambda: [path.unlink() for path in study.glob("out.*")])
        on_root(comm, lambda: [shutil.copy(path, path.name[5:]) for path in study.glob("kept-out.*")])
        on_root(comm, lambda seed=seed: change(Path(f"out{ending}"), random.Random(f"{name} {ending} {seed}")))
        try:
            start(name, "out", comm, resume=True)
        except MpglsError as refused:
            assert isinstance(refused, REFUSALS)
        else:
            assert_same(comm, name, Path())
    on_root(comm, lambda: [path.unlink() for path in study.glob("kept-out.*")])


def test_a_changed_tile_of_a_finished_pass_is_refused(comm: Any, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits and histograms know the pass already, so it cannot be made again; unchanged the run goes on."""

    def stop(*_: Any) -> None:
        raise Stopped("a signal")

    with monkeypatch.context() as patch:
        patch.setattr("mpgls.commands.multi_trait.report", stop)
        with pytest.raises(Stopped):
            start("multi_trait", "out", comm)

    def change_tile() -> None:
        shutil.copy("out.h5", "kept.h5")
        with h5py.File("out.h5", "r+") as file:
            file["beta"][3, 1, 4] += 0.5

    on_root(comm, change_tile)
    with pytest.raises(StorageError, match=r"out\.h5 is damaged: block 3 of trait 'trait2' is not what was written"):
        start("multi_trait", "out", comm, resume=True)
    on_root(comm, lambda: shutil.move("kept.h5", "out.h5"))
    undisturbed("multi_trait", comm)
    start("multi_trait", "out", comm, resume=True)
    assert_same(comm, "multi_trait", Path())

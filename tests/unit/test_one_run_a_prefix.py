"""A prefix belongs to one run at a time, and to one command: what others have made under it is never replaced."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from launch import LIMIT, MPIRUN, environment, program, ranks_of, under_mpirun
from refusals import STORAGE, USAGE, check
from resident import mpgls, must_succeed
from small_images import save, small_mask

from mpgls.errors import StorageError, UsageError
from mpgls.model.null_record import given, unknown
from mpgls.run import prefix_lock
from mpgls.run.outputs import Outputs, maker_of
from mpgls.run.prefix_lock import PrefixLock
from mpgls.stream.dense_store import DenseShape, create_dense, save_nulls
from mpgls.stream.mark import Mark
from mpgls.stream.store import StoreShape, block_edges, create_store, save_null

# -- the lock -----------------------------------------------------------------------------------------------------


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of runs that do not wait for one another."""
    monkeypatch.setattr(prefix_lock, "PATIENCE", 0.05)
    return str(tmp_path / "o")


def test_a_second_run_says_who_has_the_prefix(prefix: str) -> None:
    """Two runs of one process, such as two cells of a notebook, too."""
    first, second = PrefixLock(prefix, "mpgls kinship --out o"), PrefixLock(prefix, "mpgls eigen --out o")
    assert first.take() is None
    with pytest.raises(StorageError) as refused:
        second.take()
    for part in (f"another run writes {prefix} (", f"process {os.getpid()} on {os.uname().nodename}", "kinship --out"):
        assert part in str(refused.value)
    first.give_back()
    assert not Path(first.path).exists()
    assert second.take() is None
    second.give_back()


def test_what_a_killed_run_left_keeps_nobody_out(prefix: str) -> None:
    Path(f"{prefix}.lock").write_text('{"does": "writes", "command": "mpgls ridge", "host": "n1", "pid": 1}')
    lock = PrefixLock(prefix, "mpgls vgwas")
    assert lock.take() is None
    assert json.loads(Path(lock.path).read_text())["command"] == "mpgls vgwas"
    lock.give_back()


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("content", [b"mine", b"{}\n", b'{"name": "x", "lockfileVersion": 3}', b"\x89HDF\r\n\x1a\n"])
def test_a_file_of_that_name_which_is_no_lock_stays(prefix: str, content: bytes, reads: bool) -> None:
    """The lock file of a package manager, such as bun.lock of `--out bun`."""
    path = Path(f"{prefix}.lock")
    path.write_bytes(content)
    lock = PrefixLock(prefix, "mpgls kinship", reads)
    with pytest.raises(UsageError, match=r"o\.lock was not made by mpgls and is not replaced: "):
        lock.take()
    lock.give_back()
    assert path.read_bytes() == content


def test_a_lock_that_a_full_disk_has_cut_is_one(prefix: str) -> None:
    for content in ('{"does": "writes", "comm', "{", ""):
        Path(f"{prefix}.lock").write_text(content)
        lock = PrefixLock(prefix, "mpgls kinship")
        assert lock.take() is None
        lock.give_back()


def test_a_run_that_removes_its_lock_is_not_taken_for_one_that_holds_it(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first removes the file after the second has opened it: the second makes a new one, which a third sees."""
    first, second, third = (PrefixLock(prefix, name) for name in ("first", "second", "third"))
    assert first.take() is None
    opened = PrefixLock._open

    def then_the_first_ends(self: PrefixLock) -> int | None:
        file = opened(self)
        first.give_back()
        return file

    monkeypatch.setattr(PrefixLock, "_open", then_the_first_ends)
    assert second.take() is None
    with pytest.raises(StorageError, match="second"):
        third.take()
    second.give_back()


def test_many_read_or_one_writes(prefix: str) -> None:
    readers = [PrefixLock(prefix, "mpgls export", reads=True) for _ in range(2)]
    writer = PrefixLock(prefix, "mpgls single-trait")
    for reader in readers:
        assert reader.take() is None
    for reader in readers:
        with pytest.raises(StorageError, match=f"another run reads {prefix}"):
            writer.take()
        reader.give_back()
    assert not Path(writer.path).exists()
    assert writer.take() is None
    with pytest.raises(StorageError, match=f"another run writes {prefix}"):
        readers[0].take()
    writer.give_back()


def test_without_locks_the_run_goes_on_and_is_warned(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    lock = PrefixLock(prefix, "mpgls kinship")
    assert "has no locks" in str(lock.take())
    lock.give_back()
    assert not Path(lock.path).exists()


# -- what may be replaced -----------------------------------------------------------------------------------------


def outputs(
    prefix: str, command: str = "kinship", inputs: tuple[str, ...] = (), until_done: tuple[str, ...] = ()
) -> Outputs:
    found = Outputs(prefix, command, "", inputs, until_done)
    found.look_back()
    return found


def test_what_a_run_has_listed_is_its_commands_own(prefix: str) -> None:
    outputs(prefix).claim([".grm.bin", ".a.tsv"])  # and then it was killed
    for suffix in (".grm.bin", ".grm.bin.partial", ".a.tsv", ".b.tsv"):
        Path(prefix + suffix).write_text("something")
    outputs(prefix).check([".grm.bin", ".a.tsv"])
    with pytest.raises(UsageError, match=r"o\.b\.tsv was not made by mpgls kinship and is not replaced"):
        outputs(prefix).check([".a.tsv", ".b.tsv"])
    with pytest.raises(UsageError, match=r"o\.a\.tsv was not made by mpgls eigen"):
        outputs(prefix, "eigen").check([".a.tsv"])


def test_the_manifest_goes_on_with_the_list(prefix: str) -> None:
    """So a table of an earlier run under the prefix stays the command's own."""
    first = outputs(prefix)
    first.claim([".a.tsv"])
    Path(f"{prefix}.a.tsv").write_text("a")
    first.finish({"command": "kinship", "files": [f"{prefix}.a.tsv"]})
    second = outputs(prefix, until_done=(".progress",))
    second.claim([".b.tsv", ".progress"])
    for suffix in (".b.tsv", ".progress"):
        Path(prefix + suffix).write_text("b")
    second.finish({"command": "kinship", "files": [f"{prefix}.b.tsv"]})
    assert json.loads(Path(f"{prefix}.json").read_text())["other_files"] == [f"{prefix}.a.tsv"]
    assert not Path(f"{prefix}.json.partial").exists()
    outputs(prefix).check([".a.tsv", ".b.tsv"])


def test_an_empty_file_has_nothing_to_lose_and_a_directory_is_no_file(prefix: str) -> None:
    Path(f"{prefix}.h5").touch()
    outputs(prefix).check([".h5"])
    Path(f"{prefix}.tsv").mkdir()
    with pytest.raises(StorageError, match="is a directory"):
        outputs(prefix).check([".tsv"])
    Path(f"{prefix}.images").mkdir()
    outputs(prefix).check([".images/"])
    Path(f"{prefix}.images/1.nii").write_text("mine")
    with pytest.raises(StorageError, match="is a directory"):
        outputs(prefix).check([".images/"])
    earlier = outputs(prefix)
    earlier.known[".images/"] = None
    earlier.write_list()
    outputs(prefix).check([".images/"])


def test_the_log_of_a_run_that_made_nothing_is_replaced(prefix: str) -> None:
    """A log of another command is refused with the manifest or the list beside it only."""
    Path(f"{prefix}.log").write_text("     0.00  mpgls eigen: 1 ranks on 1 node(s)\n")
    outputs(prefix).check([".log", ".json"])
    outputs(prefix, "eigen").claim([".h5"])
    with pytest.raises(UsageError, match=r"o\.json\.partial was made by mpgls eigen"):
        outputs(prefix).check([".log", ".json"])
    Path(f"{prefix}.json.partial").unlink()
    Path(f"{prefix}.log").write_text("my notes\n")
    with pytest.raises(UsageError, match=r"o\.log was not made by mpgls kinship"):
        outputs(prefix).check([".log"])


@pytest.mark.parametrize(
    ("content", "maker"),
    [
        (b"     0.00  mpgls low-rank: 2 ranks on 1 node(s)\n", "low-rank"),
        (b'{"command": "vgwas", "files": []}', "vgwas"),
        (b'mpgls-units-2\n{"made_from": "{\\"command\\": \\"vgwas\\"}"}\n', "vgwas"),
        (b'{"command": 3}', None),
        (b"mpgls-units-2\n", None),
        (b"\x89HDF\r\n\x1a\n and then nothing", None),
        (b"FID IID trait1\n", None),
    ],
)
def test_some_files_say_who_made_them(tmp_path: Path, content: bytes, maker: str | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert maker_of(path) == maker


def test_a_store_says_who_made_it(tmp_path: Path) -> None:
    """So does one whose list and manifest are gone."""
    shape = StoreShape(np.arange(3), 2, block_edges(3, 2), {"a": ["intercept"]})
    made = create_store(tmp_path / "o.h5", shape, Mark({"command": "low-rank"}), {})
    assert maker_of(made.path) == "low-rank"
    outputs(str(tmp_path / "o"), "low-rank").check([".h5"])
    with pytest.raises(UsageError, match=r"o\.h5 was made by mpgls low-rank and is not replaced"):
        outputs(str(tmp_path / "o"), "single-trait").check([".h5"])


def test_a_store_that_was_made_anew_is_not_the_same(tmp_path: Path) -> None:
    """Of the same inputs and options, too; whatever is read or kept, it is noticed."""
    index, mark = np.arange(3), Mark({"command": "toy"})
    shape = StoreShape(index, 2, block_edges(3, 2), {"a": ["intercept"]})
    dense = DenseShape(index, block_edges(3, 2), 2, ["a"], np.array([0]), 1)
    first, of_all = (
        (create_store(tmp_path / "o.h5", shape, mark, {}), create_dense(tmp_path / "d.h5", dense, mark, {"test": "t"}))
        for _ in range(2)
    )
    old, old_dense = first
    steps: list[Callable[[], object]] = [
        lambda: old.read(0, 0, 1),
        lambda: old.index,
        lambda: save_null(old, 0, 0, given(0.5), np.full((2, 1), np.nan)),
        lambda: old_dense.read(0, 0, 1),
        lambda: old_dense.index,
        lambda: save_nulls(old_dense, 0, 0, unknown(1)),
        lambda: old_dense.write_snps(0, 0, np.zeros(2), np.zeros(2), np.zeros(2)),
    ]
    for step in steps:
        with pytest.raises(StorageError, match="is no longer the file of this run"):
            step()
    new, new_dense = of_all
    save_null(new, 0, 0, given(0.5), np.full((2, 1), np.nan))
    assert new.index.size == new_dense.index.size == 3


# -- whole runs ---------------------------------------------------------------------------------------------------

LINES = {
    "simulate": "simulate --samples 41 --snps 60 --chromosomes 2",
    "kinship": "kinship --bfile sim --grm-bin",
    "eigen": "eigen --grm K.h5" + " --eigenpairs 2" * (importlib.util.find_spec("slepc4py") is not None),
    "single-trait": "single-trait --bfile sim --grm K.h5 --loco",
    "low-rank": "low-rank --bfile sim --similarity-every 3 --no-loco --blup",
    "low-rank, one stage": "low-rank --bfile sim --similarity-every 3 --stage 0",
    "multi-trait": "multi-trait --bfile sim --pheno sim.pheno.tsv --grm K.h5 --dense --p-threshold 0.5",
    "export": "export dense.h5 --trait trait1 trait2",
    "vgwas": "vgwas --bfile sim --images brain.images.tsv --mask mask.nii.gz --permutations 3 --maps 1",
    "vgwas-extract": "vgwas-extract --images brain.images.tsv --mask mask.nii.gz",
    "simulate-images": "simulate-images --bfile sim --mask mask.nii.gz --causal 2",
    "simulate-images, matrix": "simulate-images --bfile sim --mask mask.nii.gz --causal 2 --format h5",
    "ridge": "ridge --bfile sim --images brain.images.tsv --mask mask.nii.gz --parcels 3 --outer-folds 3 "
    "--inner-folds 2 --permutations 3 --save-predictions --weights 1",
    "score": "score --bfile sim --weights weights.tsv --pheno sim.pheno.tsv --pheno-name trait1",
}
NAMED_LATER = {"vgwas": (".mine.map.png", ".rs1.log10p.nii.gz"), "multi-trait": (".scratch.0",)}
"""Endings of files that a run may make, and that those of LINES do not leave."""
EVERY_FILE = """
import json, os, shutil, sys, unittest.mock
from matplotlib.figure import Figure
from mpgls import cli
from mpgls.run import job
from mpi4py import MPI

def save(figure, path, **_):
    open(path, "w").write("a picture")

def run(line):
    try:
        cli.parse([*line.split(), "--out", "out/o"]).run(MPI.COMM_SELF)
    except Exception as error:
        return f"{type(error).__name__} {error}"

def files():
    return sorted(os.path.relpath(os.path.join(at, name), "out") for at, _, names in os.walk("out") for name in names)

def tell(line, later):
    os.makedirs("out")
    assert run(line) is None, line
    made = files()
    again = run(line)  # over its own files
    told = {"made": made, "again": again, "same": files() == made, "foreign": {}}
    for one in [*made, "o.lock", *("o" + ending for ending in later)]:
        shutil.rmtree("out")
        os.makedirs(os.path.dirname(os.path.join("out", one)))
        with open(os.path.join("out", one), "w") as file:
            file.write("mine")
        said = run(line)
        with open(os.path.join("out", one)) as file:
            told["foreign"][one] = [said, file.read(), files() == [one] or files()]
    return told

shutil.rmtree("out", ignore_errors=True)
with unittest.mock.patch.object(Figure, "savefig", save), unittest.mock.patch.object(job, "gemm_rate", lambda *_: 1.0):
    told = tell(*json.loads(sys.argv[1]))
with open("told.json", "w") as file:
    json.dump(told, file)
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Genotypes, a kinship, a store of all effects, images, and traits of a name each."""
    folder = tmp_path_factory.mktemp("study")
    must_succeed(0, "simulate --samples 61 --snps 400 --chromosomes 2 --traits 2 --out sim", folder)
    must_succeed(0, "kinship --bfile sim --loco --out K", folder)
    must_succeed(0, f"{LINES['multi-trait']} --no-plots --out dense", folder)
    save(folder / "mask.nii.gz", small_mask().astype(np.uint8))
    must_succeed(0, "simulate-images --bfile sim --mask mask.nii.gz --causal 2 --out brain", folder)
    chrom, name, _, pos, *alleles = (folder / "sim.bim").read_text().split("\n")[0].split()
    lines = ["CHR POS ID EA NEA EAF MEAN trait1", " ".join([chrom, pos, name, *alleles, "0.5", "1", "0.25"])]
    (folder / "weights.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def fresh(study: Path) -> Iterator[Path]:
    yield study
    for path in study.glob("out.*"):
        path.unlink()


@pytest.mark.parametrize("name", LINES)
def test_no_command_replaces_a_file_that_it_did_not_make(study: Path, name: str) -> None:
    """Each file that each command makes, one at a time, as a file of the user; nothing else is made then."""
    (study / "every.py").write_text(EVERY_FILE)
    must_succeed(0, [json.dumps([LINES[name], NAMED_LATER.get(name, ())])], study, "every.py")
    told = json.loads((study / "told.json").read_text())
    assert told["again"] is None and told["same"], told
    assert len(told["made"]) > 2
    for one, (said, content, alone) in told["foreign"].items():
        shown = "out/o.images" if ".images/" in one else f"out/{one}"
        assert content == "mine", (one, said)
        assert said is not None and shown in said, (one, said)
        known_later = name in ("single-trait", "low-rank", "export") and one.endswith((".tsv", ".png"))
        assert alone is True or known_later, (one, alone)


def test_the_traits_that_simulate_made_stay(fresh: Path) -> None:
    """The .fam's trait is called pheno, and PREFIX.pheno.tsv is what simulate calls its traits."""
    before = {path: path.read_bytes() for path in fresh.glob("sim.*")}
    scan = mpgls(0, "single-trait --bfile sim --grm K.h5 --no-plots --out sim", fresh)
    check(scan, USAGE, "sim.json was made by mpgls simulate and is not replaced", "--out")
    (fresh / "out.pheno.tsv").write_text("FID IID pheno\n")
    scan = mpgls(2, "single-trait --bfile sim --grm K.h5 --no-plots --out out", fresh)
    check(scan, USAGE, "out.pheno.tsv was not made by mpgls single-trait and is not replaced", "--out")
    assert {path: path.read_bytes() for path in fresh.glob("sim.*")} == before


def test_json_of_doctor_and_plan(fresh: Path) -> None:
    (fresh / "out.json").write_text('{"mine": 1}')
    rates = Path(__file__).parents[2] / "bench" / "results" / "plan_rates.json"
    line = f"--samples 1000 --snps 1000 --similarity-count 100 --ranks 2 --rates {rates} --json out.json"
    for command in ("doctor --json out.json", f"plan low-rank {line}"):
        check(mpgls(0, command, fresh), USAGE, "out.json was not made by mpgls", "--json")
    (fresh / "out.json").unlink()
    for _ in range(2):
        must_succeed(0, f"plan low-rank {line}", fresh)


SCAN = "single-trait --bfile sim --pheno sim.pheno.tsv --grm K.h5 --no-plots --block-size 7 --checkpoint 0"
needs_mpirun = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")
CHANGED = """
import errno, fcntl, os, unittest.mock
from mpgls import __main__
from mpgls.run import prefix_lock

def none(*_):
    raise OSError(errno.ENOLCK, "No locks available")

with {patch}:
    __main__.main()
"""
IMPATIENT = "unittest.mock.patch.object(prefix_lock, 'PATIENCE', 0.05)"
WITHOUT_LOCKS = (
    "unittest.mock.patch.object(fcntl, 'flock', none), "
    "unittest.mock.patch.dict(os.environ, HDF5_USE_FILE_LOCKING='FALSE')"
)


@pytest.fixture(scope="module")
def impatient(study: Path) -> str:
    """A program that does not wait for a prefix; what it changes is as before at its end."""
    (study / "impatient.py").write_text(CHANGED.format(patch=IMPATIENT))
    return "impatient.py"


@contextlib.contextmanager
def held_up(folder: Path, ranks: int, words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A run that stands still, by SIGSTOP, as soon as its store is there, and goes on after the body."""
    process = subprocess.Popen(
        under_mpirun(ranks, words), cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + LIMIT
        while not (folder / "out.h5").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.002)
        stopped = ranks_of(process.pid) if ranks else [process.pid]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        assert process.poll() is None
        yield process
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LIMIT)
        process.kill()
        process.wait()


def refused(ranks: int, folder: Path, impatient: str) -> None:
    """Neither a run that writes under the prefix nor one that reads its store begins; they say who has it."""
    second = mpgls(ranks, f"{SCAN} --pheno-name trait2 --out out", folder, impatient)
    check(second, STORAGE, "another run writes out (process", "--pheno-name trait1 --out out", "another --out")
    table = mpgls(0, "export out.h5 --trait trait1 --out elsewhere", folder, impatient)
    check(table, STORAGE, "another run writes out (process")


def test_two_runs_at_once_with_one_prefix(fresh: Path, impatient: str) -> None:
    """An array job over traits: the second run is refused, the table of the first is what it is alone."""
    with held_up(fresh, 0, [*program(), *SCAN.split(), "--pheno-name", "trait1", "--out", "out"]) as first:
        refused(0, fresh, impatient)
    assert first.returncode == 0, first.stderr
    assert not (fresh / "out.trait2.tsv").exists() and not (fresh / "out.lock").exists()
    must_succeed(0, f"{SCAN} --pheno-name trait1 trait2 --out alone", fresh)
    must_succeed(0, f"{SCAN} --pheno-name trait2 --out out", fresh)  # one after the other both tables are there
    for name in ("trait1.tsv", "trait2.tsv"):
        assert (fresh / f"out.{name}").read_bytes() == (fresh / f"alone.{name}").read_bytes()


@needs_mpirun
def test_several_ranks_are_refused_and_a_kill_frees_the_prefix_and_its_files(fresh: Path, impatient: str) -> None:
    with held_up(fresh, 2, [*program(), *SCAN.split(), "--pheno-name", "trait1", "--out", "out"]) as first:
        refused(2, fresh, impatient)
        of_rank_0 = json.loads((fresh / "out.lock").read_text())["pid"]
        os.kill(of_rank_0, signal.SIGKILL)
    assert first.returncode != 0 and (fresh / "out.lock").exists()
    must_succeed(2, f"{SCAN} --pheno-name trait2 --out out", fresh)
    assert not (fresh / "out.lock").exists() and not (fresh / "out.json.partial").exists()


@needs_mpirun
def test_without_locks_no_run_tabulates_the_records_of_another(fresh: Path) -> None:
    (fresh / "without.py").write_text(CHANGED.format(patch=WITHOUT_LOCKS))
    must_succeed(2, f"{SCAN} --pheno-name trait2 --out alone", fresh)
    scan = [sys.executable, "without.py", *SCAN.split(), "--out", "out", "--pheno-name"]
    for _ in range(3):  # the first run may have been past its last look at the store when it was held up
        for path in fresh.glob("out.*"):
            path.unlink()
        with held_up(fresh, 2, [*scan, "trait1"]) as first:
            second = mpgls(2, [*scan[2:], "trait2"], fresh, "without.py")
            assert second.code == 0 and "has no locks" in second.out, second.err
        if first.returncode == STORAGE:
            break
    assert first.stderr is not None
    said = first.stderr.read()
    assert first.returncode == STORAGE and "out.h5 is no longer the file of this run" in said, said
    assert not (fresh / "out.trait1.tsv").exists()
    assert (fresh / "out.trait2.tsv").read_bytes() == (fresh / "alone.trait2.tsv").read_bytes()

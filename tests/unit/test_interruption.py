"""Runs that are killed or stopped by a signal, from outside: they end at once, and resume to the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import LIMIT, MPIRUN, Ended, environment, mpgls, must_succeed, program, run, under_mpirun
from refusals import INPUT, check

from mpgls.stream.store import open_store

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")

STOPPED = 75
RANKS = 2
# A mark after every block of four SNPs: some seconds, of which each block is lost or kept.
SCAN = "single-trait --bfile sim --grm K.h5 --no-plots --block-size 4 --checkpoint 0 --out out"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated study, its kinship, and the table of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("study")
    must_succeed(0, "simulate --samples 301 --snps 8003 --chromosomes 3 --seed 3 --out sim", folder)
    must_succeed(0, "kinship --bfile sim --out K", folder)
    must_succeed(RANKS, SCAN.replace("--out out", "--out whole"), folder)
    return folder


@pytest.fixture(autouse=True)
def fresh(study: Path) -> None:
    """No output of the test before."""
    for path in study.glob("out*"):
        path.unlink()


def blocks_done(folder: Path) -> int:
    """Blocks marked in the store of a run, through a copy: the run must not meet a lock."""
    copy = folder / "copy.h5"
    try:
        shutil.copy(folder / "out.h5", copy)
        return int(open_store(copy).traits[0].done.sum())
    except Exception:
        return 0  # not there yet, or just being made


def interrupted(folder: Path, number: signal.Signals, ranks: slice) -> tuple[int, str, float]:
    """Start the scan, send a signal to some ranks in the midst of it: exit code, standard error, seconds to the end."""
    command = under_mpirun(RANKS, [*program(), *SCAN.split()])
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + LIMIT
        while blocks_done(folder) < 20:
            assert process.poll() is None, "the scan was over before it could be interrupted"
            assert time.monotonic() < end
            time.sleep(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == RANKS
        start = time.monotonic()
        for child in children[ranks]:
            os.kill(int(child), number)
        _, err = process.communicate(timeout=LIMIT)
        return process.returncode, err, time.monotonic() - start
    finally:
        process.kill()
        process.wait()


def assert_resumes(folder: Path, done: int) -> None:
    """The interrupted run left no table; resumed, it has the bytes of the whole run."""
    assert not (folder / "out.pheno.tsv").exists()
    assert not (folder / "out.json").exists()
    assert 20 <= done < 2001
    resumed = must_succeed(RANKS, f"{SCAN} --resume", folder)
    assert f"resume: {done:,} of 2,001 blocks are done" in resumed.out
    assert (folder / "out.pheno.tsv").read_bytes() == (folder / "whole.pheno.tsv").read_bytes()
    assert (folder / "out.json").exists()


def test_a_killed_rank_ends_the_run_and_resumes_to_the_same_bytes(study: Path) -> None:
    code, _, seconds = interrupted(study, signal.SIGKILL, slice(1, 2))
    assert code not in (0, STOPPED)
    assert seconds < 10
    assert_resumes(study, blocks_done(study))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_the_run_in_order(study: Path, number: signal.Signals) -> None:
    code, err, seconds = interrupted(study, number, slice(None))
    assert code == STOPPED, err
    said = [line for line in err.splitlines() if line.startswith("mpgls")]
    assert said == ["mpgls single-trait: stopped by a signal; run the same command with --resume to go on"]
    assert seconds < 10
    assert_resumes(study, blocks_done(study))


DRIVER = """
import os, signal
from mpi4py import MPI
from mpgls import __main__
from {module} import {name}

def stopped(*arguments):
    if MPI.COMM_WORLD.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return original(*arguments)

original = {name}.{method}
{name}.{method} = stopped
__main__.main()
"""


@pytest.mark.parametrize(
    ("where", "command", "advice"),
    [
        (
            "mpgls.commands.mixed_model.null_model Covariance evaluate",
            SCAN,
            "run the same command with --resume to go on",
        ),
        (
            "mpgls.study.genotypes Decoder stats",
            "kinship --bfile sim --out out",
            "go on with: mpgls kinship --bfile sim --out out --resume",
        ),
    ],
)
def test_a_signal_to_one_rank_before_the_scan(study: Path, where: str, command: str, advice: str) -> None:
    module, name, method = where.split()
    (study / "driver.py").write_text(DRIVER.format(module=module, name=name, method=method))
    ended = run(3, [sys.executable, "driver.py", *command.split()], study)
    assert ended.code == STOPPED, ended.err
    assert [line.split("; ")[1] for line in ended.sentences] == [advice]
    assert not list(study.glob("out*.tsv")) + list(study.glob("out*.json"))
    assert command == SCAN or not (study / "out.h5").exists()


def test_resume_refuses_other_options_and_inputs_and_repeats_a_finished_run(study: Path) -> None:
    for path in study.glob("whole*"):
        shutil.copy(path, study / path.name.replace("whole", "out"))
    table = (study / "out.pheno.tsv").read_bytes()
    must_succeed(0, "kinship --bfile sim --method standardized --out K2", study)
    (study / "keep.txt").write_text("".join(f"F{i} F{i}_1\n" for i in range(1, 61)))
    for more, part in (
        ("--h2 0.4", "other inputs or options"),
        ("--covar sim.covar.tsv", "other inputs or options"),
        ("--keep keep.txt", "other inputs or options"),
        ("--grm K2.h5", "other inputs or options"),
        ("--block-size 8", "blocks of 4 SNPs"),
    ):
        check(mpgls(RANKS, f"{SCAN} --resume {more}", study), INPUT, "cannot be resumed", part)
    again = must_succeed(RANKS, f"{SCAN} --resume", study)
    assert "resume: 2,001 of 2,001 blocks are done" in again.out
    assert "REML" not in again.out and "load kinship" not in again.out
    assert (study / "out.pheno.tsv").read_bytes() == table


# -- low-rank: every stage keeps what it has ----------------------------------------------------------------------

LOW_RANK = "low-rank --bfile sim --similarity-every 31 --no-plots --block-size 32 --checkpoint 0 --out out"
KILLER = """
import os, signal
from mpi4py import MPI
from mpgls import __main__
from mpgls.commands.low_rank_parts import plan as plan_low_rank
import mpgls.{module} as module

plan_low_rank.STRIP = 30  # several strips
calls = 0

def killed(*arguments):
    global calls
    calls += 1
    if calls == {nth} and MPI.COMM_WORLD.rank == {rank}:
        os.kill(os.getpid(), signal.{signal})
    return original(*arguments)

owner = module{owner}
original = owner.{name}
owner.{name} = killed
__main__.main()
"""


def low_rank(folder: Path, out: str, where: str, nth: int, rank: int, number: str) -> Ended:
    """Run LOW_RANK; ``rank`` gets the signal when it calls the function ``where`` for the ``nth`` time."""
    module, owner, name = where.split()
    details = {"module": module, "owner": "" if owner == "-" else f".{owner}", "name": name, "signal": number}
    (folder / "killer.py").write_text(KILLER.format(nth=nth, rank=rank, **details))
    return run(RANKS, [sys.executable, "killer.py", *LOW_RANK.split()[:-1], out], folder)


@pytest.fixture(scope="module")
def low_rank_table(study: Path) -> bytes:
    """The table of a run that nothing interrupts."""
    whole = low_rank(study, "lr", "commands.low_rank_parts.gram - strip_product", 0, 0, "SIGKILL")
    assert whole.code == 0, whole.err
    return (study / "lr.pheno.tsv").read_bytes()


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize(
    ("where", "nth", "rank", "kept"),
    [
        ("commands.low_rank_parts.gram - strip_product", 3, 1, ("stage 0: taken from", "of 5 strips are in")),
        (
            "commands.low_rank_parts.null LowRankNull evaluate",
            13,
            0,
            ("stage 1: taken from", "stage 2: 2 of 3 null models"),
        ),
        (
            "commands.low_rank_parts.solver LowRankSolver solve",
            70,
            1,
            ("stage 2: taken from", "blocks are done in out.h5"),
        ),
    ],
)
def test_an_interrupted_stage_goes_on_to_the_same_table(
    study: Path, low_rank_table: bytes, where: str, nth: int, rank: int, kept: tuple[str, ...], number: str
) -> None:
    ended = low_rank(study, "out", where, nth, rank, number)
    if number == "SIGTERM":
        assert ended.code == STOPPED, ended.err
        how = "with --resume" if "solver" in where else "again"  # early stages need no --resume
        assert [line.split("; ")[1] for line in ended.sentences] == [f"run the same command {how} to go on"]
    else:
        assert ended.code not in (0, STOPPED)
        assert ended.seconds < 20
    assert not (study / "out.pheno.tsv").exists() and not (study / "out.json").exists()
    resumed = must_succeed(RANKS, f"{LOW_RANK} --resume", study)
    for said in kept:
        assert said in resumed.out
    done = int(resumed.out.split("resume: ")[1].split()[0])
    assert (50 < done < 252) if "solver" in where else done == 0
    assert (study / "out.pheno.tsv").read_bytes() == low_rank_table

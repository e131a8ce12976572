"""Runs that are killed or stopped by a signal in the midst of what they do: they end at once, and go on from there.

The whole life of a run, for every command, is in test_life_of_a_run.py.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import LIMIT, MPIRUN, Ended, environment, program, ranks_of, run, under_mpirun
from refusals import INPUT, check
from resident import mpgls, must_succeed

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
        started = ranks_of(process.pid)
        assert len(started) == RANKS
        start = time.monotonic()
        for rank in started[ranks]:
            os.kill(rank, number)
        _, err = process.communicate(timeout=LIMIT)
        return process.returncode, err, time.monotonic() - start
    finally:
        process.kill()
        process.wait()


def assert_resumes(folder: Path, done: int) -> None:
    """The interrupted run left no table; resumed, in its own blocks only, it has the bytes of the whole run."""
    assert not (folder / "out.pheno.tsv").exists()
    assert not (folder / "out.json").exists()
    assert 20 <= done < 2001
    other = mpgls(RANKS, f"{SCAN} --resume --block-size 8", folder)
    check(other, INPUT, "blocks of 4 SNPs", "cannot be resumed with --block-size 8")
    resumed = must_succeed(RANKS, f"{SCAN} --resume", folder)
    assert f"resume: {done:,} of 2,001 blocks are done" in resumed.out
    assert (folder / "out.pheno.tsv").read_bytes() == (folder / "whole.pheno.tsv").read_bytes()
    assert (folder / "out.json").exists()
    assert not (folder / "out.watch").exists()


def test_a_killed_rank_ends_the_run_and_resumes_to_the_same_bytes(study: Path) -> None:
    code, _, seconds = interrupted(study, signal.SIGKILL, slice(1, 2))
    assert code not in (0, STOPPED)
    assert seconds < 10
    assert_resumes(study, blocks_done(study))


def advice(line: str) -> str:
    """What a stopped run says on standard error."""
    return f"mpgls {line.split()[0]}: stopped by a signal; go on with: mpgls {line} --resume"


def test_a_signal_stops_the_run_in_order(study: Path) -> None:
    code, err, seconds = interrupted(study, signal.SIGTERM, slice(None))
    assert code == STOPPED, err
    assert [line for line in err.splitlines() if line.startswith("mpgls")] == [advice(SCAN)]
    assert seconds < 10
    assert_resumes(study, blocks_done(study))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_before_numpy_is_there_stops_the_run_in_order(study: Path, number: signal.Signals) -> None:
    """The signal comes as the first module is imported after mpgls itself; the run has begun nothing yet."""
    early = f"import os, mpgls.__main__ as m; m._open_closed_streams = lambda: os.kill(os.getpid(), {number}); m.main()"
    ended = run(RANKS, [sys.executable, "-c", early, *SCAN.split()], study)
    assert ended.code == STOPPED, ended.err
    assert ended.sentences == [advice(SCAN)]
    assert not list(study.glob("out*"))


def test_a_signal_ends_what_cannot_go_on(study: Path) -> None:
    late = "doctor.run = lambda *_: os.kill(os.getpid(), signal.SIGTERM)"
    code = f"import os, signal, mpgls.__main__ as m; from mpgls.commands import doctor; {late}; m.main()"
    assert run(0, [sys.executable, "-c", code, "doctor"], study).code == -signal.SIGTERM


def test_hours_that_are_over_stop_the_run_in_order(study: Path) -> None:
    ended = mpgls(RANKS, f"{SCAN} --max-hours 0.0001", study)
    assert ended.code == STOPPED, ended.err
    assert ended.sentences == [
        advice(f"{SCAN} --max-hours 0.0001").replace("by a signal", "before the end of --max-hours 0.0001")
    ]
    assert "stopped before the end of --max-hours" in (study / "out.log").read_text()


STANDS_STILL = """
import os, signal, time
from mpi4py import MPI
from mpgls import __main__
from mpgls.study.genotypes import Decoder

def decode(*arguments):
    if MPI.COMM_WORLD.rank == 1:
        {does}
    return original(*arguments)

original = Decoder.decode
Decoder.decode = decode
__main__.main()
"""


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("time.sleep(60)", "no rank has got on: rank 1 on {host} (in 'decode') was the first to stand still"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "rank 1 on {host}"),  # nothing is heard of it, or all wait for it
    ],
)
def test_a_rank_that_stands_still_ends_the_run(study: Path, does: str, said: str) -> None:
    """In time, though the launcher sees nothing wrong."""
    (study / "driver.py").write_text(STANDS_STILL.format(does=does))
    scan = f"{SCAN} --stall 10"
    ended = run(RANKS, [sys.executable, "driver.py", *scan.split()], study)
    assert ended.code == STOPPED, ended.err
    start, go_on = advice(scan).split("stopped by a signal")
    (sentence,) = ended.sentences
    assert sentence.startswith(f"{start}for 10 s (--stall) ") and sentence.endswith(go_on)
    assert said.format(host=os.uname().nodename) in sentence


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
    ("where", "command"),
    [
        ("mpgls.engine.cholesky CholeskyCovariance point", SCAN),
        ("mpgls.study.genotypes Decoder stats", "kinship --bfile sim --out out"),
    ],
)
def test_a_signal_to_one_rank_before_the_scan(study: Path, where: str, command: str) -> None:
    module, name, method = where.split()
    (study / "driver.py").write_text(DRIVER.format(module=module, name=name, method=method))
    ended = run(3, [sys.executable, "driver.py", *command.split()], study)
    assert ended.code == STOPPED, ended.err
    assert ended.sentences == [advice(command)]
    assert not list(study.glob("out*.tsv")) + list(study.glob("out*.json"))
    assert command == SCAN or not (study / "out.h5").exists()


# -- multi-trait: several passes ----------------------------------------------------------------------------------


def test_a_stopped_run_of_several_passes_says_the_command_that_goes_on(study: Path) -> None:
    """Its words have blanks; typed as it stands, it goes on after the passes that are done."""
    lines = [line.split("\t") for line in (study / "sim.pheno.tsv").read_text().splitlines()]
    table = [(*line[:2], *(f"{line[2]}{k if not n else ''}" for k in range(3))) for n, line in enumerate(lines)]
    (study / "out of traits.tsv").write_text("".join("\t".join(line) + "\n" for line in table))
    words = ["multi-trait", "--bfile", "sim", "--pheno", "out of traits.tsv", "--grm", "K.h5", "--no-plots"]
    words += ["--trait-block", "1", "--pass-traits", "1", "--p-threshold", "0.01", "--out"]
    whole = mpgls(RANKS, [*words, "out whole"], study)
    assert whole.code == 0, whole.err
    where = {"module": "engine.trait_ledger", "owner": ".TraitLedger", "name": "finish", "signal": "SIGTERM"}
    (study / "killer.py").write_text(KILLER.format(nth=1, rank=1, **where))
    ended = run(RANKS, [sys.executable, "killer.py", *words, "out here"], study)
    assert ended.code == STOPPED, ended.err
    (said,) = ended.sentences
    assert (
        said == f"mpgls multi-trait: stopped by a signal; go on with: mpgls {shlex.join([*words, 'out here'])} --resume"
    )
    resumed = must_succeed(RANKS, shlex.split(said.split("go on with: mpgls ")[1]), study)
    assert "resume: 1 pass(es) are done" in resumed.out
    for suffix in (".hits.tsv", ".traits.tsv"):
        assert (study / f"out here{suffix}").read_bytes() == (study / f"out whole{suffix}").read_bytes()


# -- low-rank: every stage keeps what it has ----------------------------------------------------------------------

LOW_RANK = "low-rank --bfile sim --similarity-every 31 --no-plots --block-size 32 --checkpoint 0 --out out"
KILLER = """
import os, signal
from mpi4py import MPI
from mpgls import __main__
from mpgls.engine import low_rank_plan
import mpgls.{module} as module

low_rank_plan.STRIP = 30  # several strips
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
    whole = low_rank(study, "lr", "engine.gram - strip_product", 0, 0, "SIGKILL")
    assert whole.code == 0, whole.err
    return (study / "lr.pheno.tsv").read_bytes()


@pytest.mark.parametrize(
    ("number", "where", "nth", "rank", "kept"),
    [
        ("SIGTERM", "engine.gram - strip_product", 3, 1, ("stage 0: taken from", "of 5 strips are in")),
        (
            "SIGKILL",
            "engine.low_rank LowRankCovariance point",
            11,
            0,
            ("stage 1: taken from", "stage 2: 2 of 3 null models"),
        ),
        (
            "SIGKILL",
            "engine.low_rank_scan TestedSnps sums",
            70,
            1,
            ("stage 2: taken from", "blocks are done in out.h5"),
        ),
    ],
)
def test_an_interrupted_stage_goes_on_to_the_same_table(
    study: Path, low_rank_table: bytes, number: str, where: str, nth: int, rank: int, kept: tuple[str, ...]
) -> None:
    ended = low_rank(study, "out", where, nth, rank, number)
    if number == "SIGTERM":
        assert ended.code == STOPPED, ended.err
        assert ended.sentences == [advice(LOW_RANK)]
    else:
        assert ended.code not in (0, STOPPED)
        assert ended.seconds < 20
    assert not (study / "out.pheno.tsv").exists() and not (study / "out.json").exists()
    resumed = must_succeed(RANKS, f"{LOW_RANK} --resume", study)
    for said in kept:
        assert said in resumed.out
    done = int(resumed.out.split("resume: ")[1].split()[0])
    assert (50 < done < 252) if "scan" in where else done == 0
    assert (study / "out.pheno.tsv").read_bytes() == low_rank_table

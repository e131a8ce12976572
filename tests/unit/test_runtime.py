"""Log, progress, timings, memory, threads and signals of one process."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl

from mpgls.errors import Stopped, StorageError
from mpgls.mpi import StopSignal
from mpgls.run import clock as clock_module
from mpgls.run import log
from mpgls.run.clock import Clock, begin_with_process, take_start, timing_table
from mpgls.run.hardware import (
    blas_libraries,
    gemm_rate,
    limit_threads,
    memory_of_process,
    process_age,
    resident_memory,
)
from mpgls.run.launcher import check_launcher, launched_rank, launched_size
from mpgls.run.log import Log, Progress, duration
from mpgls.run.plan import GIB, memory_for


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    time = SimpleNamespace(now=100.0)
    monkeypatch.setattr(log.time, "perf_counter", lambda: time.now)
    return time


# -- log and progress ---------------------------------------------------------------------------------------------


def test_every_line_of_a_message_has_the_time(tmp_path, capsys, clock):
    log = Log(0, tmp_path / "a.log")
    clock.now += 12.5
    log.info("one\ntwo")
    log.warn("three")
    log.close()
    expected = "    12.50  one\n    12.50  two\n    12.50  WARNING: three\n"
    assert capsys.readouterr().out == expected == (tmp_path / "a.log").read_text()


def test_other_ranks_are_silent_and_open_no_file(tmp_path, capsys):
    log = Log(1, tmp_path / "a.log")
    log.info("one")
    log.close()
    assert capsys.readouterr().out == "" and not (tmp_path / "a.log").exists()


def test_a_resumed_log_goes_on(tmp_path):
    for word in ("first", "second"):
        log = Log(0, tmp_path / "a.log", append=True)
        log.info(word)
        log.close()
    assert [line.split()[1] for line in (tmp_path / "a.log").read_text().splitlines()] == ["first", "second"]


def test_a_log_that_cannot_be_written(tmp_path):
    with pytest.raises(StorageError, match=r"no/a\.log"):
        Log(0, tmp_path / "no" / "a.log")


def test_progress_speaks_once_an_interval_with_rate_and_time_left(capsys, clock):
    progress = Progress(Log(0), "scan", 1000, "SNPs", interval=10)
    for clock.now, done in ((105.0, 100), (110.0, 200), (112.0, 300), (119.9, 390), (120.0, 400)):
        progress.at(done)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines] == [
        "scan: 200 of 1,000 SNPs (20%), 20 SNPs/s, 40 s left",
        "scan: 400 of 1,000 SNPs (40%), 20 SNPs/s, 30 s left",
    ]


@pytest.mark.parametrize(
    "seconds, text",
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (18420, "5 h 07 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


# -- timings ------------------------------------------------------------------------------------------------------


def test_phases_add_up(clock):
    timings = Clock()
    for seconds in (2.0, 3.0):
        with timings.phase("solve", flop=1e9) as phase:
            clock.now += seconds
            phase.nbytes += 10
    solve = timings.phases["solve"]
    assert (solve.seconds, solve.flop, solve.nbytes, solve.calls) == (5.0, 2e9, 20, 2)


def test_a_phase_that_fails_is_counted(clock):
    timings = Clock()
    with pytest.raises(ValueError), timings.phase("solve"):
        clock.now += 1.5
        raise ValueError
    assert timings.phases["solve"].seconds == 1.5


def test_a_second_belongs_to_one_phase(clock):
    timings = Clock(began=clock.now)
    clock.now += 1.0
    timings.name_start()
    clock.now += 0.25
    with timings.phase("scan"):
        clock.now += 2.0
        for _ in range(2):
            with timings.phase("solve"):
                clock.now += 1.5
                with timings.phase("wait"):
                    clock.now += 4.0
            clock.now += 0.5
    clock.now += 0.125
    seconds = {name: phase.seconds for name, phase in timings.phases.items()}
    assert seconds == {"start": 1.0, "scan": 3.0, "solve": 3.0, "wait": 8.0}
    assert (timings.seconds(), timings.unnamed()) == (15.375, 0.375)


def test_a_program_begins_with_its_process(monkeypatch, clock):
    monkeypatch.setattr(clock_module, "process_age", lambda: 7.5)
    begin_with_process()
    assert take_start() == 92.5  # of the first run
    clock.now += 3.0
    assert take_start() == 103.0


def test_the_age_of_a_process_is_that_of_the_kernel():
    started = float(subprocess.run(["ps", "-o", "etimes=", str(os.getpid())], capture_output=True, text=True).stdout)
    assert abs(process_age() - started) < 1.5


def test_gathering_keeps_the_slowest_and_the_fastest_rank(clock):
    here, there = Clock(), {"solve": (4.0, 3e9, 7.0), "write": (1.0, 0.0, 5.0)}
    with here.phase("solve", flop=1e9):
        clock.now += 2.0
    table = here.gather(SimpleNamespace(gather=lambda mine, root: [mine, there]))
    assert table["solve"] == {"seconds": 4.0, "seconds_smallest": 2.0, "gflop": 4.0, "bytes": 7.0}
    assert table["write"] == {"seconds": 1.0, "seconds_smallest": 0.0, "gflop": 0.0, "bytes": 5.0}
    assert here.gather(SimpleNamespace(gather=lambda mine, root: None)) == {}


def test_the_table_shows_rates_and_the_share_of_gemm():
    solve = {"seconds": 2.0, "seconds_smallest": 1.0, "gflop": 100.0, "bytes": 0.0}
    idle = {"seconds": 0.0, "seconds_smallest": 0.0, "gflop": 0.0, "bytes": 4e6}
    _, _, first, second, rest = timing_table({"solve": solve, "idle": idle}, 80.0, unnamed=0.126).splitlines()
    assert first.split() == ["solve", "2.00", "0.50", "50.0", "62%", "-"]
    assert second.split() == ["idle", "0.00", "-", "-", "-", "-"]
    assert rest.split() == ["in", "no", "phase", "0.13"]


# -- the process --------------------------------------------------------------------------------------------------


def test_memory_grows_with_what_is_touched():
    before = memory_of_process()
    with mmap.mmap(-1, 40_000_000) as pages:  # pages of its own: an array may reuse what the heap keeps resident
        pages.write(bytes(len(pages)))
        after, without_pss = memory_of_process(), resident_memory()
    assert after["rss"] - before["rss"] > 0.9 * 40_000_000
    assert after["peak_rss"] >= after["rss"] >= after["pss"] > 0
    assert without_pss["peak_rss"] == after["peak_rss"]
    assert without_pss["rss"] == pytest.approx(after["rss"], rel=0.01)


def one_rank(cores, ranks):
    """A node's communicator with ``ranks`` ranks that may use ``cores``."""
    return SimpleNamespace(size=ranks, allgather=lambda mine: [cores] * ranks)


@pytest.mark.parametrize(
    "requested, variable, ranks, threads",
    [(3, "2", 1, 3), (None, "2", 1, 2), (None, "", 1, 8), (None, "", 3, 2), (None, "", 20, 1)],
)
def test_threads_are_asked_for_set_by_the_user_or_shared_out(monkeypatch, requested, variable, ranks, threads):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    limited = []
    monkeypatch.setattr(threadpoolctl, "threadpool_limits", limited.append)
    assert limit_threads(one_rank(set(range(8)), ranks), requested) == threads
    assert limited == [threads]


def test_the_blas_of_numpy_is_listed():
    np.ones((2, 2)) @ np.ones((2, 2))
    libraries = blas_libraries()
    assert libraries and all(os.path.exists(str(entry["path"])) for entry in libraries)


def test_gemm_rate_is_positive_in_both_precisions():
    assert all(gemm_rate(dtype, n=50, repeats=1) > 0 for dtype in ("float64", "float32"))


# -- launcher and signals -----------------------------------------------------------------------------------------

LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS")
RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")


@pytest.fixture
def no_launcher(monkeypatch):
    for variable in (*LAUNCHERS, *RANKS):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


@pytest.mark.parametrize("variable", LAUNCHERS)
def test_a_launcher_of_another_mpi_is_noticed(no_launcher, variable):
    no_launcher.setenv(variable, "4")
    assert "4 ranks" in check_launcher(1) and launched_size() == 4
    assert check_launcher(4) is None


def test_one_rank_needs_no_launcher(no_launcher):
    assert check_launcher(1) is None and launched_rank() == 0 and launched_size() == 1
    no_launcher.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert check_launcher(1) is None


@pytest.mark.parametrize("variable", RANKS)
def test_the_rank_is_known_before_mpi(no_launcher, variable):
    no_launcher.setenv(variable, "3")
    assert launched_rank() == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_asks_to_stop_and_ends_nothing(number):
    before = {name: signal.getsignal(name) for name in StopSignal.SIGNALS}
    stop = StopSignal("start again")
    with stop.listening():
        assert not stop.requested and stop.problem() is None
        os.kill(os.getpid(), number)
        assert stop.requested
        problem = stop.problem()
        assert isinstance(problem, Stopped) and "start again" in str(problem)
    assert {name: signal.getsignal(name) for name in StopSignal.SIGNALS} == before


def test_the_memory_that_messages_advise_is_enough():
    for need in np.random.default_rng(1).integers(1 << 20, 1 << 31, size=500).tolist():
        assert need <= float(memory_for(need)) * GIB <= 1.02 * need + 0.01 * GIB

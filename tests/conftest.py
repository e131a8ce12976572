"""What makes a test run under ``mpirun`` trustworthy: all ranks agree on every outcome, and a run always ends.

Active with ``--with-mpi`` only, so that unit tests never initialise MPI. pytest runs once on each rank and by itself
knows nothing of the other ranks: a failure on one rank would leave the others inside a collective call, which the next
test's messages then complete. Therefore, after each phase (setup, call, teardown) of each test,

* all ranks exchange their outcomes over a communicator of their own; when one failed, the phase fails on all, and rank
  0 shows every rank's traceback;
* a rank that does not answer within MPGLS_TEST_GRACE seconds (60; 15 once a failure is known) ends the run with
  ``MPI_Abort``, after the test and the missing ranks were named;
* a test that takes longer than MPGLS_TEST_DEADLINE seconds (120; ``@pytest.mark.deadline(seconds)`` overrides) ends the
  run likewise, with the Python stacks of the rank that noticed.

Only rank 0 reports. A rank that is ended from outside prints where it was.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

GRACE = float(os.environ.get("MPGLS_TEST_GRACE", "60"))
GRACE_AFTER_FAILURE = min(GRACE, 15.0)
DEADLINE = float(os.environ.get("MPGLS_TEST_DEADLINE", "120"))
OUTCOMES = ("passed", "skipped", "failed")
HERE = Path(__file__).resolve().parent
pytest.register_assert_rewrite("refusals", "small_study")  # to explain their failures as those of a test are
_failed = pytest.StashKey[bool]()


@pytest.hookimpl(trylast=True)  # the terminal reporter is there by then
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "deadline(seconds): how long this test may take under mpirun")
    if config.getoption("--with-mpi", default=False):
        config.pluginmanager.register(Guard(config), "mpgls-mpi-guard")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test under tests/mpi runs with any number of ranks, and only with ``--with-mpi``."""
    for item in items:
        if HERE / "mpi" in item.path.parents:
            item.add_marker(pytest.mark.mpi)


@pytest.fixture
def comm(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A duplicate of COMM_WORLD for one test, freed afterwards (kept when the test failed: messages may be pending)."""
    from mpi4py import MPI

    own = MPI.COMM_WORLD.Dup()
    yield own
    if not request.node.stash.get(_failed, False):
        own.Free()


@pytest.fixture
def shared_tmp_path(comm: Any) -> Iterator[Path]:
    """A directory that all ranks of the test see; rank 0 makes it and removes it."""
    name = tempfile.mkdtemp(prefix="mpgls-test-") if comm.rank == 0 else None
    path = Path(comm.bcast(name, root=0))
    yield path
    if comm.rank == 0:
        shutil.rmtree(path, ignore_errors=True)


class Guard:
    """The hooks that are active under ``--with-mpi``."""

    def __init__(self, config: pytest.Config) -> None:
        from mpi4py import MPI

        self.config = config
        self.stderr = os.dup(2)  # the real one: while a test runs, pytest captures descriptor 2
        self.comm = MPI.COMM_WORLD.Dup()
        self.exchanges = 0
        self.collection_errors: list[str] = []
        faulthandler.register(signal.SIGTERM, file=self.stderr, all_threads=True, chain=True)
        if self.comm.rank > 0:
            reporter = config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                config.pluginmanager.unregister(reporter)

    def say(self, text: str) -> None:
        """Write to the real standard error, marked with the rank, in one piece."""
        tag = f"[rank {self.comm.rank}] "
        os.write(self.stderr, "".join(f"{tag}{line}\n" for line in text.splitlines()).encode())

    def abort(self, text: str) -> None:
        """Say why, then end every rank."""
        from mpi4py import MPI

        self.say(text)
        with contextlib.suppress(Exception):
            MPI.COMM_WORLD.Abort(1)
        os._exit(1)

    def exchange(self, code: int, what: str, own_failure: str = "") -> list[int]:
        """Every rank's ``code``, in rank order; aborts when a rank does not answer in time.

        Point-to-point messages rather than one Iallreduce, because they tell who is missing.
        """
        import numpy as np
        from mpi4py import MPI

        size, rank = self.comm.size, self.comm.rank
        if size == 1:
            return [code]
        self.exchanges += 1
        mine = np.array([self.exchanges, code], dtype=np.int64)
        theirs = np.zeros((size, 2), dtype=np.int64)
        theirs[rank] = mine
        others = [r for r in range(size) if r != rank]
        receives = [self.comm.Irecv(theirs[r], source=r) for r in others]
        sends = [self.comm.Isend(mine, dest=r) for r in others]
        start, failure_known = time.monotonic(), code == OUTCOMES.index("failed")
        while True:
            arrived = [request.Test() for request in receives]
            if all(arrived):
                break
            waited = time.monotonic() - start
            failure_known = failure_known or any(
                done and theirs[r, 1] == OUTCOMES.index("failed") for r, done in zip(others, arrived, strict=True)
            )
            if waited > (GRACE_AFTER_FAILURE if failure_known else GRACE):
                missing = ", ".join(str(r) for r, done in zip(others, arrived, strict=True) if not done)
                self.abort(
                    f"{own_failure}\n{what}: no answer from rank {missing} for {waited:.0f} s "
                    f"after rank {rank} was done with it ({OUTCOMES[code]} here); the run ends"
                )
            time.sleep(min(1e-3, waited / 10))
        MPI.Request.Waitall(sends)
        if (theirs[:, 0] != self.exchanges).any():
            self.abort(f"{what}: the ranks are not at the same test (steps {theirs[:, 0].tolist()}); the run ends")
        return [int(value) for value in theirs[:, 1]]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.collection_errors.append(report.longreprtext)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """All ranks must have collected the same tests, or the messages of different tests would meet."""
        for plugin in self.config.pluginmanager.get_plugins():
            if type(plugin).__name__ == "MPIPlugin":  # pytest-mpi: keep its markers, not its page of MPI settings
                plugin._is_testing_mpi = False
        names = "\n".join([item.nodeid for item in session.items] + ["!"] * len(self.collection_errors))
        digest = int.from_bytes(hashlib.sha256(names.encode()).digest()[:6], "big") << 2
        if len(set(self.exchange(digest, "collecting the tests"))) > 1:
            errors = "".join(f"\n{error}" for error in self.collection_errors)
            self.say(f"collected {len(session.items)} tests, and other ranks collected others{errors}")
            pytest.exit("the ranks did not collect the same tests", returncode=3)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        marker = item.get_closest_marker("deadline")
        seconds = float(marker.args[0]) if marker else DEADLINE
        timer = threading.Timer(seconds, self._too_late, (item.nodeid, seconds))
        timer.daemon = True
        timer.start()
        # The same without the interpreter's lock, should a foreign function never give it back.
        faulthandler.dump_traceback_later(seconds + 10, exit=True, file=self.stderr)
        try:
            return (yield)
        finally:
            timer.cancel()
            faulthandler.cancel_dump_traceback_later()

    def _too_late(self, name: str, seconds: float) -> None:
        self.say(f"{name}: not finished after {seconds:g} s; this rank is at")
        faulthandler.dump_traceback(file=self.stderr, all_threads=True)
        self.abort("the run ends")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report: pytest.TestReport = yield
        what = f"{item.nodeid} ({report.when})"
        own = OUTCOMES.index(report.outcome)
        codes = self.exchange(own, what, _story(report) if report.failed else "")
        if len(set(codes)) > 1 or report.failed:
            item.stash[_failed] = True
            self._fail_together(report, codes)
        return report

    def _fail_together(self, report: pytest.TestReport, codes: list[int]) -> None:
        """Make the phase a failure on this rank too, and give rank 0 every rank's story."""
        own_failed = report.failed
        stories = self.comm.gather(_story(report) if own_failed else "", root=0)
        report.outcome = "failed"
        failing = [rank for rank, code in enumerate(codes) if OUTCOMES[code] == "failed"]
        if not failing:
            states = ", ".join(f"rank {rank} {OUTCOMES[code]}" for rank, code in enumerate(codes))
            report.longrepr = f"the ranks disagree: {states}"
        elif not own_failed:
            report.longrepr = f"failed on rank {', '.join(map(str, failing))} of {len(codes)}, not on this one"
        told: dict[str, list[int]] = {}
        for rank in failing if stories else []:
            told.setdefault(stories[rank], []).append(rank)
        for story, ranks in told.items():
            if 0 not in ranks:
                report.sections.append((f"rank {', '.join(map(str, ranks))}", story))
            elif len(ranks) > 1:
                report.sections.append((f"rank {', '.join(map(str, ranks[1:]))}", "the same as on rank 0"))


def _story(report: pytest.TestReport) -> str:
    """The traceback and captured output of a failure, at most 20,000 characters."""
    parts = [report.longreprtext] + [f"--- {name} ---\n{text}" for name, text in report.sections if text]
    return "\n".join(parts)[:20_000]

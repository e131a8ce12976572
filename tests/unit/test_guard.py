"""The guard of tests/conftest.py, tried from outside: one rank fails, hangs, skips or dies; the run must end, red."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from launch import MPIRUN, run

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
LIMIT = 40.0  # seconds in which every run must end, on a busy machine too
HEAD = """
import time
import pytest
from mpi4py import MPI

rank = MPI.COMM_WORLD.rank

"""

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")


def run_on_two_ranks(folder: Path, body: str, **settings: str) -> tuple[int, str]:
    """Exit code and output of ``mpirun -n 2 pytest`` on a test file made of ``body``."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    (folder / "test_made.py").write_text(HEAD + body)
    pytest_words = ["-m", "pytest", "--with-mpi", "--color=no", "-p", "no:cacheprovider", "test_made.py"]
    ended = run(2, [sys.executable, *pytest_words], folder, **settings)
    assert ended.seconds < LIMIT
    return ended.code, ended.out + ended.err


def test_all_pass_and_only_rank_0_reports(tmp_path: Path) -> None:
    body = """
def test_sum(comm):
    assert comm.allreduce(1) == 2

def test_directory_is_shared(comm, shared_tmp_path):
    (shared_tmp_path / str(rank)).touch()
    comm.Barrier()
    assert len(list(shared_tmp_path.iterdir())) == 2
"""
    code, output = run_on_two_ranks(tmp_path, body)
    assert code == 0, output
    assert output.count("2 passed") == 1
    assert "MPI Information" not in output


def test_failure_of_rank_1_fails_everywhere_and_does_not_leak(tmp_path: Path) -> None:
    body = """
def test_one_rank(comm):
    assert rank == 0, "only the second rank is wrong"

def test_next(comm):
    assert comm.allreduce(rank) == 1
"""
    code, output = run_on_two_ranks(tmp_path, body)
    assert code != 0
    assert "1 failed, 1 passed" in output, output
    assert "failed on rank 1 of 2" in output
    assert "only the second rank is wrong" in output


def test_failure_in_setup_and_in_a_teardown(tmp_path: Path) -> None:
    body = """
@pytest.fixture
def bad_start():
    assert rank == 0, "bad start"

@pytest.fixture
def bad_end():
    yield
    assert rank == 0, "bad end"

def test_start(comm, bad_start):
    comm.Barrier()

def test_end(comm, bad_end):
    comm.Barrier()

def test_next(comm):
    comm.Barrier()
"""
    code, output = run_on_two_ranks(tmp_path, body)
    assert code != 0
    assert "2 passed, 2 errors" in output, output
    assert "bad start" in output and "bad end" in output


def test_rank_that_leaves_a_collective_ends_the_run(tmp_path: Path) -> None:
    body = """
def test_unequal(comm):
    assert rank == 0, "rank 1 does not come to the barrier"
    comm.Barrier()
"""
    code, output = run_on_two_ranks(tmp_path, body, MPGLS_TEST_GRACE="2")
    assert code != 0
    assert "test_unequal (call): no answer from rank 0" in output, output
    assert "rank 1 does not come to the barrier" in output


@pytest.mark.parametrize("hang", ["time.sleep(1000)", "comm.recv(source=0, tag=7)"])
def test_hanging_rank_ends_the_run(tmp_path: Path, hang: str) -> None:
    body = f"""
def test_hang(comm):
    if rank == 1:
        {hang}
    comm.Barrier()
"""
    code, output = run_on_two_ranks(tmp_path, body, MPGLS_TEST_DEADLINE="3")
    assert code != 0
    assert "test_hang: not finished after 3 s" in output, output
    assert "test_made.py" in output


def test_rank_that_dies_ends_the_run(tmp_path: Path) -> None:
    body = """
import os

def test_death(comm):
    if rank == 1:
        os._exit(9)
    comm.Barrier()
"""
    code, _ = run_on_two_ranks(tmp_path, body)
    assert code != 0


def test_skip_on_one_rank_only_is_a_failure(tmp_path: Path) -> None:
    body = """
def test_skip():
    if rank == 1:
        pytest.skip("not here")

def test_skip_together():
    pytest.skip("nowhere")
"""
    code, output = run_on_two_ranks(tmp_path, body)
    assert code != 0
    assert "rank 0 passed, rank 1 skipped" in output, output
    assert "1 failed, 1 skipped" in output


def test_ranks_that_collect_other_tests_are_stopped(tmp_path: Path) -> None:
    body = """
if rank == 1:
    raise ImportError("broken on rank 1")

def test_nothing():
    pass
"""
    code, output = run_on_two_ranks(tmp_path, body)
    assert code != 0
    assert "did not collect the same tests" in output, output
    assert "broken on rank 1" in output

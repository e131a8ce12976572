"""The resident ranks of the other tests end a command as the installed program does."""

from __future__ import annotations

import re
from pathlib import Path

import launch
import pytest
import resident
from launch import MPIRUN

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")

MAKE = "simulate --samples 9 --snps 20 --chromosomes 1 --out sim"
FAILS = """
from mpgls import __main__
from mpgls.cli import Command

def fail(command, comm):
    if comm.rank >= {first}:
        raise {error}
    comm.Barrier()

original = Command.run
Command.run = fail
try:
    __main__.main()
finally:
    Command.run = original
"""


@pytest.mark.parametrize("ranks", [0, 2])
@pytest.mark.parametrize(
    ("line", "code"),
    [
        (MAKE, 0),
        ("--version", 0),
        ("multiply", 2),
        (f"{MAKE} --samples 1", 2),
        ("kinship --bfile sim --chr 9 --out K", 3),
        ("kinship --bfile sim --memory 0.001 --out K", 4),
        ("kinship --bfile none --out K", 5),
    ],
)
def test_a_command_ends_as_the_program_does(tmp_path: Path, ranks: int, line: str, code: int) -> None:
    resident.must_succeed(0, MAKE, tmp_path)
    ours, program = resident.mpgls(ranks, line, tmp_path), launch.mpgls(ranks, line, tmp_path)
    assert ours.code == program.code == code
    assert shape(ours.sentences) == shape(program.sentences)
    assert ours.err == "".join(f"{sentence}\n" for sentence in ours.sentences)
    assert shape(ours.out.splitlines())[:3] == shape(program.out.splitlines())[:3]


def shape(lines: list[str]) -> list[str]:
    """The lines without what two runs differ in: seconds, sizes, and the BLAS that an earlier command has loaded."""
    return [re.sub(r" *[0-9]+\.[0-9]+|BLAS kernel.*", " #", line) for line in lines]


@pytest.mark.parametrize(
    ("error", "first", "code"),
    [("RuntimeError('surprise')", 0, 1), ("RuntimeError('surprise')", 1, 1), ("MemoryError('buffer')", 1, 4)],
)
def test_an_error_that_nobody_expects_and_one_of_one_rank_alone(
    tmp_path: Path, error: str, first: int, code: int
) -> None:
    (tmp_path / "fails.py").write_text(FAILS.format(error=error, first=first))
    for ended in (
        resident.mpgls(2, MAKE, tmp_path, script="fails.py"),
        launch.run(2, ["python", "fails.py", *MAKE.split()], tmp_path),
    ):
        assert ended.code == code
        assert len(ended.sentences) == 1
        assert ended.err.count("Traceback") == ("surprise" in error)
    resident.must_succeed(2, MAKE, tmp_path)  # on other ranks, if those have ended


def test_ranks_that_end_differently_are_told(tmp_path: Path) -> None:
    (tmp_path / "differ.py").write_text("import sys\nfrom mpi4py import MPI\nsys.exit(MPI.COMM_WORLD.rank)\n")
    with pytest.raises(AssertionError, match="the ranks end with"):
        resident.mpgls(2, "", tmp_path, script="differ.py")

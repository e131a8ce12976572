"""What a run that must fail looks like from outside: one clear sentence, its exit code, and no result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from launch import Ended
from resident import mpgls

USAGE, INPUT, MEMORY, STORAGE, NUMERICAL = 2, 3, 4, 5, 6
SECONDS = 20.0  # an idle machine needs less than two
FINISHED = ("*.tsv", "*.json", "*.png", "*.grm.bin")  # a result store, .h5, knows itself what is done
FAILS_ON_RANK_1 = """
from mpi4py import MPI
from mpgls import __main__
from mpgls.errors import NumericalError, StorageError
from mpgls.{module} import {name}

def fail(*_, **__):
    if MPI.COMM_WORLD.rank == 1:
        raise {error}
    return original(*_, **__)

original = {name}.{method}
{name}.{method} = fail
try:
    __main__.main()
finally:
    {name}.{method} = original
"""


def results(folder: Path) -> set[Path]:
    """The files in the folder that look like finished results."""
    return {path for pattern in FINISHED for path in folder.rglob(pattern)}


def check(ended: Ended, code: int, *parts: str) -> None:
    """One sentence with all ``parts``, no traceback, and the exit code."""
    assert "Traceback" not in ended.err, ended.err
    check_sentence(ended, code, *parts)


def check_sentence(ended: Ended, code: int, *parts: str) -> None:
    """One sentence with all ``parts``, the exit code, and no waiting."""
    assert len(ended.sentences) == 1, ended.err
    for part in parts:
        assert part in ended.sentences[0]
    assert ended.code == code, ended.err
    assert ended.seconds < SECONDS


def refused(folder: Path, arguments: str, code: int, *parts: str, ranks: tuple[int, ...] = (2,)) -> None:
    """The command ends alike on any number of ranks, and leaves nothing that looks finished."""
    before = results(folder)
    for n in ranks:
        check(mpgls(n, arguments, folder), code, *parts)
    assert results(folder) == before


def one_rank_fails(folder: Path, arguments: str, where: str, error: str, code: int, part: str) -> None:
    """Rank 1 of three raises ``error`` instead of calling the method ``where`` (module, class and name).

    All ranks end with one sentence; the traceback is shown, once, if nobody could expect the error.
    """
    module, name, method = where.split()
    driver = FAILS_ON_RANK_1.format(module=module, name=name, method=method, error=error)
    (folder / "driver.py").write_text(driver)
    before = results(folder)
    ended = mpgls(3, arguments, folder, script="driver.py")
    check_sentence(ended, code, part)
    unexpected = error.startswith("RuntimeError")
    assert ended.err.count("Traceback") == unexpected, ended.err
    assert ("surprise" in ended.err) == unexpected
    assert results(folder) == before


def edit_line(path: Path, number: int, change: Callable[[list[str]], list[str]]) -> None:
    """Change the fields of line ``number`` (from 1) of a text file."""
    lines = path.read_text().splitlines()
    separator = "\t" if "\t" in lines[number - 1] else " "
    lines[number - 1] = separator.join(change(lines[number - 1].split(separator)))
    path.write_text("\n".join(lines) + "\n")

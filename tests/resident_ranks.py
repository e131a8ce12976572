"""The ranks that ``resident.py`` keeps: each runs what it is asked to, one command line after the other.

    mpirun -n 2 python resident_ranks.py FOLDER

Rank r reads its tasks from the pipe FOLDER/ask.r, and says in FOLDER/done that it is ready and how each task ended. In
between it sleeps: a rank that waited inside MPI would take a core.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
from pathlib import Path

from mpi4py import MPI

from mpgls import __main__


def main() -> None:
    folder, rank = Path(sys.argv[1]), MPI.COMM_WORLD.rank
    with open(folder / "done", "w", encoding="ascii") as done, open(folder / f"ask.{rank}", encoding="utf-8") as tasks:
        print(rank, 0, file=done, flush=True)  # ready
        for line in tasks:
            task = json.loads(line)
            for descriptor, name in ((1, "out"), (2, "err")):
                file = os.open(folder / f"{name}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, descriptor)
                os.close(file)
            os.chdir(task["folder"])
            code = exit_code(task["script"], task["arguments"])
            gc.collect()  # files that a failed command held open
            sys.stdout.flush()
            sys.stderr.flush()
            print(rank, code, file=done, flush=True)


def exit_code(script: str | None, arguments: list[str]) -> int:
    """What a process would end with: the installed program, or a script that calls it."""
    sys.argv = [script or "mpgls", *arguments]
    try:
        if script is None:
            __main__.main(arguments)
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


main()

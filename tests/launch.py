"""Starting the installed ``mpgls`` program from a test, alone or under ``mpirun``, and looking at how it ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MPIRUN = shutil.which("mpirun")
LIMIT = 50.0
"""Seconds in which any run must end, on a busy machine too."""


@dataclass(frozen=True)
class Ended:
    """How a program ended: exit code, output, and the seconds that it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def sentences(self) -> list[str]:
        """What mpgls itself said on standard error, without the noise of mpirun."""
        return [line for line in self.err.splitlines() if line.startswith("mpgls")]


def environment(**settings: str) -> dict[str, str]:
    """The environment of a program that is not itself part of an MPI job, one BLAS thread a rank.

    Tests run side by side: no rank is bound to a core, and one that waits gives its core away.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PMIX_", "PMI_", "OMPI_COMM_", "PYTEST_"))}
    kept |= {"OMPI_MCA_rmaps_base_oversubscribe": "1", "OMP_NUM_THREADS": "1"}
    kept |= {"OMPI_MCA_hwloc_base_binding_policy": "none", "PRTE_MCA_hwloc_default_binding_policy": "none"}
    kept |= {"OMPI_MCA_mpi_yield_when_idle": "1"}
    if os.getuid() == 0:
        kept |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return kept | settings


def program() -> list[str]:
    """The installed console script, or the module when the tests run from a bare checkout."""
    script = Path(sys.executable).with_name("mpgls")
    return [str(script)] if script.exists() else [sys.executable, "-m", "mpgls"]


def under_mpirun(ranks: int, command: Sequence[str]) -> list[str]:
    """``command`` on so many ranks; 0 starts it without mpirun."""
    return [str(MPIRUN), "-n", str(ranks), *command] if ranks else list(command)


def ranks_of(launcher: int) -> list[int]:
    """The processes of the ranks: Open MPI's mpirun starts them itself, MPICH's by a proxy on each node."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    proxies = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text().startswith("hydra_pmi_proxy")]
    return [*(int(pid) for pid in children if pid not in proxies), *(r for pid in proxies for r in ranks_of(int(pid)))]


def run(ranks: int, command: Sequence[str], folder: Path, **settings: str) -> Ended:
    """Run a command to its end. Raises subprocess.TimeoutExpired when it hangs."""
    start = time.monotonic()
    done = subprocess.run(
        under_mpirun(ranks, command),
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - start)


def mpgls(ranks: int, arguments: str | Sequence[str], folder: Path, **settings: str) -> Ended:
    """Run ``mpgls`` with these arguments (a string is split at blanks)."""
    words = arguments.split() if isinstance(arguments, str) else list(arguments)
    return run(ranks, [*program(), *words], folder, **settings)


def must_succeed(ranks: int, arguments: str | Sequence[str], folder: Path, **settings: str) -> Ended:
    """Run ``mpgls``, which must end with exit code 0."""
    ended = mpgls(ranks, arguments, folder, **settings)
    assert ended.code == 0, ended.err
    return ended

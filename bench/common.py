"""What every benchmark shares: options, scratch data, launching under mpirun, tables, and the JSON at the end.

A benchmark that is started plainly starts the mpirun runs that it needs as child processes; one that mpirun or srun
started (see ``launched``) measures on the ranks that there are. Nothing here touches MPI before that is decided,
because a process that has initialised MPI cannot start an mpirun of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py import MPI

LAUNCHER_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "MPI_LOCALNRANKS")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LIMIT_SECONDS = 1800.0
GRACE_SECONDS = 5.0
"""For a child process to end when it is asked to."""
SIZES = {
    "samples": ("N", "samples"),
    "snps": ("M", "SNPs"),
    "traits": ("T", "traits"),
    "similarity": ("K", "similarity SNPs"),
}
"""The letter and the words of the options that ``parse_sizes`` adds."""


class BenchError(Exception):
    """A benchmark cannot go on; the message says why."""


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="a small problem: under a minute on 2 cores")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the JSON of the last line to FILE as well")
    default = os.environ.get("MPGLS_BENCH_DIR") or os.path.join(tempfile.gettempdir(), f"mpgls-bench-{os.getuid()}")
    parser.add_argument(
        "--scratch", metavar="DIR", type=Path, default=Path(default), help=f"data and results ({default})"
    )
    return parser


def parse_sizes(
    parser: argparse.ArgumentParser, full: Mapping[str, int], quick: Mapping[str, int]
) -> argparse.Namespace:
    """Parse the command line with an option for each size, which is that of ``full`` or ``quick`` unless given."""
    for name, size in full.items():
        letter, words = SIZES[name]
        parser.add_argument(f"--{name}", type=int, metavar=letter, help=f"{words} ({size}; {quick[name]} with --quick)")
    options = parser.parse_args()
    for name, size in (quick if options.quick else full).items():
        setattr(options, name, getattr(options, name) or size)
    return options


def numbers(text: str) -> list[int]:
    """An argparse type: ``1,2,4`` as a list of positive integers."""
    found = [int(part) for part in text.split(",") if part]
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected positive integers such as 1,2,4, not {text!r}")
    return found


# -- output -------------------------------------------------------------------------------------------------------


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """Print rows under a header: the first column to the left, the others to the right, floats to 4 digits."""
    text = [list(header), *([_cell(value) for value in row] for row in rows)]
    width = [max(len(row[k]) for row in text) for k in range(len(header))]
    if title:
        print(f"\n{title}")
    for number, row in enumerate(text):
        cells = [cell.rjust(w) for cell, w in zip(row[1:], width[1:], strict=True)]
        print("  ".join([row[0].ljust(width[0]), *cells]))
        if number == 0:
            print("-" * (sum(width) + 2 * (len(width) - 1)))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def finish(results: Mapping[str, Any], path: Path | None) -> None:
    """Write the results as JSON to ``path``, if given, and print them as the last line."""
    line = json.dumps(results, default=float)
    if path is not None:
        path.write_text(line + "\n", encoding="utf-8")
    print(f"\n{line}", flush=True)


# -- child processes ----------------------------------------------------------------------------------------------


def launched() -> bool:
    """Whether mpirun or srun started this process as a rank."""
    return any(name in os.environ for name in LAUNCHER_VARIABLES)


def environment(threads: int) -> dict[str, str]:
    """This environment with BLAS limited to ``threads`` and its own choice of kernels."""
    changed = {name: str(threads) for name in THREAD_VARIABLES}
    return {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"} | changed


@dataclass(frozen=True)
class Finished:
    """A child process that succeeded: what it printed, and its wall time from start to end."""

    output: str
    seconds: float


def run(
    command: Sequence[str | Path],
    env: Mapping[str, str],
    cwd: Path | None = None,
    show: bool = False,
    limit: float = LIMIT_SECONDS,
) -> Finished:
    """Run a command to its end. Raises BenchError, with the end of its output, when it fails or takes too long."""
    name = " ".join(map(str, command))
    start = time.perf_counter()
    stdout, stderr = (None, None) if show else (subprocess.PIPE, subprocess.STDOUT)
    with subprocess.Popen(list(map(str, command)), env=env, cwd=cwd, stdout=stdout, stderr=stderr, text=True) as child:
        try:
            output, _ = child.communicate(timeout=limit)
        except BaseException as error:
            child.terminate()  # not kill: mpirun ends its ranks only when it is asked to
            try:
                child.wait(timeout=GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise BenchError(f"not finished after {limit:.0f} s: {name}") from None
            raise
    if child.returncode != 0:
        raise BenchError(f"exit code {child.returncode}: {name}\n{(output or '')[-2000:]}")
    return Finished(output or "", time.perf_counter() - start)


def launcher() -> str | None:
    """The mpirun of the PATH, or the one that wheels put beside this Python."""
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), os.path.dirname(sys.executable)])
    return shutil.which("mpirun", path=folders) or shutil.which("mpiexec", path=folders)


def mpirun(
    ranks: int, *arguments: str | Path, show: bool = False, threads: int = 1, limit: float = LIMIT_SECONDS
) -> Finished:
    """Run this Python on ``ranks`` ranks of one thread each with ``arguments``; ``-m mpgls ...`` is the program."""
    program = launcher()
    if program is None:
        raise BenchError("there is no mpirun: `. jobs/env.sh` first")
    return run([program, "-n", str(ranks), sys.executable, *arguments], environment(threads), show=show, limit=limit)


def relaunch(ranks: int) -> None:
    """Run this same command line on ``ranks`` ranks, which print for themselves."""
    mpirun(ranks, *sys.argv, show=True)


def add_ranks(parser: argparse.ArgumentParser, repeats: int) -> None:
    """Options of a benchmark that measures on a number of ranks, ``repeats`` times unless told otherwise."""
    parser.add_argument("--repeats", type=int, default=repeats, metavar="K", help=f"passes of each kind ({repeats})")
    parser.add_argument("--ranks", type=int, default=2, metavar="P", help="ranks to start, unless mpirun did (2)")


def measure_on_ranks(options: argparse.Namespace, on_ranks: Callable[[argparse.Namespace], None]) -> None:
    """Call ``on_ranks`` on the ranks that there are, or start --ranks of them that do."""
    if launched():
        on_ranks(options)
    else:
        relaunch(options.ranks)


# -- data ---------------------------------------------------------------------------------------------------------


def simulated(scratch: Path, n: int, m: int, comm: MPI.Comm | None = None) -> Path:
    """The prefix of PLINK files of ``n`` samples and ``m`` SNPs with two covariates, made once.

    Collective over ``comm`` where given; without it a child process makes them.
    """
    prefix = scratch / f"sim-{n}x{m}"
    if comm is None:
        scratch.mkdir(parents=True, exist_ok=True)
        if not Path(f"{prefix}.bed").exists():
            mpirun(2, "-m", "mpgls", "simulate", "--samples", str(n), "--snps", str(m), "--out", prefix)
        return prefix
    import mpgls
    from mpgls.mpi import on_root

    on_root(comm, lambda: scratch.mkdir(parents=True, exist_ok=True))
    if not on_root(comm, lambda: Path(f"{prefix}.bed").exists()):  # the .bed comes last
        mpgls.simulate(samples=n, snps=m, out=prefix, comm=comm, verbose=True)
    return prefix


def guarded(main: Any) -> None:
    """Run ``main``; a BenchError becomes one message on stderr and exit code 1."""
    try:
        main()
    except BenchError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")

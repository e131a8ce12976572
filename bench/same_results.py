"""Did a change of the code change results? Runs of every command, recorded once and compared with those of other code.

    PYTHONPATH=/path/to/old/code python bench/same_results.py record DIR
    PYTHONPATH=/path/to/new/code python bench/same_results.py compare DIR

``record`` makes the inputs, starts ``mpgls`` on 1, 2 and 3 ranks and keeps its tables in DIR. ``compare`` repeats the
same command lines on the same inputs in a temporary folder and compares every number (``same_results_compare.py`` has
the rules). The layout of result stores and early stages may change, so only the tables made from them are compared.
Both must run on the same kind of processor, because another BLAS kernel has other last digits.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from same_results_compare import Verdict, compare_files, is_table
from same_results_inputs import MOUSE, make_inputs
from same_results_runs import Run, Step, all_runs

LIMIT_SECONDS = 300.0
STOP_SECONDS = 30.0
"""In which a run must have ended after a signal."""
TRIES = 4
"""How often a run is started to be stopped in its midst before that counts as impossible."""
STOPPED = 75
TEMPORARY = (".log", ".partial", ".parquet", ".png")
"""Outputs that are not asked for again: logs, and what depends on further packages."""


class Failure(Exception):
    """A run did not end as it must; the message says how."""


# -- starting the program -----------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """One BLAS thread a rank, and ranks that the system may move: several runs at a time share the cores."""
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("OMPI_COMM_", "PMIX_")) and k != "OPENBLAS_CORETYPE"
    }
    env |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return env | {"OMPI_MCA_hwloc_base_binding_policy": "none", "PYTHONDONTWRITEBYTECODE": "1"}


def command(ranks: int, arguments: str) -> list[str]:
    """The program under mpirun."""
    mpirun, mpgls = shutil.which("mpirun"), shutil.which("mpgls")
    if mpirun is None:
        raise Failure("there is no mpirun: `. jobs/env.sh` first")
    program = [mpgls] if mpgls else [sys.executable, "-m", "mpgls"]
    return [mpirun, "-n", str(ranks), *program, *arguments.split()]


def where_mpgls_is() -> str:
    """The folder of the package that the runs use."""
    lookup = "import mpgls, os; print(os.path.dirname(os.path.abspath(mpgls.__file__)))"
    done = subprocess.run([sys.executable, "-P", "-c", lookup], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"this Python cannot import mpgls:\n{done.stderr}")
    return done.stdout.strip()


@contextmanager
def started(ranks: int, arguments: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The running program; it is ended when the block is left before it has."""
    with subprocess.Popen(
        command(ranks, arguments),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.terminate()  # not kill: mpirun ends its ranks only when it is asked to


def run_whole(ranks: int, arguments: str, folder: Path) -> str:
    """Run ``mpgls`` to its end; returns what it printed. Raises Failure unless it succeeds."""
    with started(ranks, arguments, folder) as child:
        try:
            said, _ = child.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failure(f"not finished after {LIMIT_SECONDS:.0f} s: mpgls {arguments}") from None
    if child.returncode:
        last = "\n".join(said.splitlines()[-12:])
        raise Failure(f"exit code {child.returncode}: mpgls {arguments}\n{last}")
    return said


def run_stopped(step: Step, folder: Path, outputs: Path) -> None:
    """Start ``step``, and send its signal once its files have changed so often; sooner if that was too late.

    Raises Failure if the run cannot be stopped so.
    """
    why = ""
    for number in range(TRIES):
        shutil.rmtree(outputs)
        outputs.mkdir()
        with started(step.ranks, step.arguments, folder) as child:
            wait_for_changes(child, outputs, step.when, max(step.changes // 2**number, 1))
            ranks = ranks_of(child)
            send(step.stop, ranks if step.stop == "TERM" else ranks[-1:])
            try:
                said, _ = child.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                send("KILL", ranks_of(child))
                said, _ = child.communicate(timeout=STOP_SECONDS)
                why = f"did not end within {STOP_SECONDS:.0f} s after SIG{step.stop}"
                print(f"    {why}: mpgls {step.arguments}\n{said[-1500:]}", flush=True)
                continue
        code = child.returncode
        if code == STOPPED if step.stop == "TERM" else code not in (0, STOPPED) and ranks:
            return
        why = f"exit code {code} after SIG{step.stop} at {step.when}"
        if code:
            why = f"{why}:\n{said[-1500:]}"
            break
    raise Failure(f"could not be stopped: {why}")


def wait_for_changes(child: subprocess.Popen[str], outputs: Path, when: str, changes: int) -> None:
    """Wait until the files ``when`` have been seen to change so often (to appear counts), or the run is over."""
    seen: set[tuple[Path, int, int]] = set()
    while child.poll() is None and changes > 0:
        time.sleep(0.002)
        with suppress(FileNotFoundError):  # a file that is being replaced
            states = {(path, (stat := path.stat()).st_mtime_ns, stat.st_size) for path in outputs.glob(when)}
            if states - seen:
                seen, changes = states, changes - 1


def ranks_of(child: subprocess.Popen[str]) -> list[int]:
    """The processes that mpirun started, none once it has ended."""
    try:
        return [int(one) for one in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
    except OSError:
        return []


def send(name: str, processes: Sequence[int]) -> None:
    """Send a signal to processes, of which some may just have ended: their exit code tells."""
    for one in processes:
        with suppress(ProcessLookupError):
            os.kill(one, signal.Signals[f"SIG{name}"])


def perform(run: Run, folder: Path) -> str:
    """All steps of a run, with outputs in ``folder/NAME``; returns what a resumed step said of what was done before."""
    outputs = folder / run.name
    outputs.mkdir()
    said = ""
    for step in run.steps:
        if step.stop:
            run_stopped(step, folder, outputs)
        else:
            said = run_whole(step.ranks, step.arguments, folder)
    return next((line[line.index("resume:") :] for line in said.splitlines() if "resume:" in line), "")


def perform_all(runs: Sequence[Run], folder: Path, treat: Callable[[Run], str]) -> dict[str, str]:
    """Do the runs one after the other and ``treat`` what they wrote; returns why those failed that did."""
    failed: dict[str, str] = {}
    for run in runs:
        began = time.monotonic()
        try:
            if missing := run.needs & failed.keys():
                raise Failure(f"needs {' and '.join(sorted(missing))}, which failed")
            remark = perform(run, folder)
            told = treat(run) + (f" ({remark})" if remark else "")
        except Failure as failure:
            failed[run.name] = told = str(failure)
        print(f"{run.name:<24}{time.monotonic() - began:6.1f} s  {told}", flush=True)
    return failed


# -- record and compare -------------------------------------------------------------------------------------------


def chosen(only: Sequence[str], quick: bool) -> list[Run]:
    """The runs that the options choose, and those that they need, in order."""
    runs = {run.name: run for run in all_runs()}
    wanted = {
        name
        for name, run in runs.items()
        if (run.quick or not quick) and (not only or any(fnmatch.fnmatch(name, pattern) for pattern in only))
    }
    if not wanted:
        raise Failure(f"no run is named {' or '.join(only)}; there are {', '.join(runs)}")
    for name in reversed(runs):
        if name in wanted:
            wanted |= runs[name].needs
    return [run for name, run in runs.items() if name in wanted]


def outputs_of(folder: Path) -> list[str]:
    """Files of a run that another run must have as well."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(TEMPORARY))


def link_inputs(source: Path, folder: Path) -> None:
    """Every input under its name in the folder where the runs are started."""
    for path in source.iterdir():
        (folder / path.name).symlink_to(path.resolve())


def record(options: argparse.Namespace) -> dict[str, Any]:
    """Make the inputs and keep the tables of every run."""
    target: Path = options.directory.resolve()
    if target.exists() and any(target.iterdir()):
        raise Failure(f"{target} is not empty: a record is made once, in a new directory")
    if not (options.mice / "mouse_hs1940.bed.gz").exists():
        raise Failure(f"{options.mice} has no mouse data: install the package gemma-doc, or give its folder by --mice")
    runs = chosen(options.only, options.quick)
    (target / "inputs").mkdir(parents=True)
    make_inputs(target / "inputs", run_whole, options.mice)
    kept: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mpgls-same-") as name:
        folder = Path(name)
        link_inputs(target / "inputs", folder)

        def keep(run: Run) -> str:
            files = outputs_of(folder / run.name)
            tables = [file for file in files if is_table(folder / run.name / file)]
            for file in tables:
                (target / "runs" / run.name / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / run.name / file, target / "runs" / run.name / file)
            kept[run.name] = {"steps": [asdict(step) for step in run.steps], "files": files, "tables": tables}
            return f"{len(tables)} tables"

        failed = perform_all(runs, folder, keep)
        versions = versions_of(folder, runs)
    made = {"mpgls": where_mpgls_is(), "versions": versions, "runs": kept}
    (target / "record.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
    tables = sum(len(one["tables"]) for one in kept.values())
    return {"runs": len(kept), "tables": tables, "failed": sorted(failed)}


def versions_of(folder: Path, runs: Sequence[Run]) -> dict[str, Any]:
    """Libraries whose change has other last digits, as the first manifest names them."""
    for run in runs:
        path = folder / run.name / "out.json"
        if path.exists() and (versions := json.loads(path.read_text(encoding="utf-8")).get("versions")):
            blas = sorted([one["version"], one["kernel"]] for one in versions.get("blas", []))
            return {"blas": blas, **{key: versions.get(key) for key in ("numpy", "scipy", "mpi")}}
    return {}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Repeat the recorded runs and compare them."""
    target: Path = options.directory.resolve()
    if not (target / "record.json").exists():
        raise Failure(f"{target} has no record: make one by `same_results.py record`")
    recorded = json.loads((target / "record.json").read_text(encoding="utf-8"))
    runs = [run for run in chosen(options.only, options.quick) if run.name in recorded["runs"]]
    print(f"recorded from {recorded['mpgls']}\ncompared with  {where_mpgls_is()}", flush=True)
    verdict = Verdict()
    with tempfile.TemporaryDirectory(prefix="mpgls-same-") as name:
        folder = Path(name)
        link_inputs(target / "inputs", folder)

        def check(run: Run) -> str:
            before, identical = len(verdict.details), sum(verdict.rules.values()) - verdict.rules["identical"]
            compare_run(run, recorded["runs"][run.name], target / "runs" / run.name, folder / run.name, verdict)
            more = verdict.details[before:]
            near = sum(verdict.rules.values()) - verdict.rules["identical"] - identical
            same = f"same, {near:,} values not to the last bit" if near else "same"
            return "\n    ".join(["DIFFERENT", *more]) if more else same

        for run_name, why in perform_all(runs, folder, check).items():
            verdict.differs(run_name, why)
        versions = versions_of(folder, runs)
    if verdict.different and versions != recorded["versions"]:
        print("other libraries or another processor than recorded: differences may be theirs")
        print(f"  recorded {json.dumps(recorded['versions'])}\n  now      {json.dumps(versions)}")
    return summary(len(runs), verdict)


def compare_run(run: Run, kept: dict[str, Any], old: Path, new: Path, verdict: Verdict) -> None:
    """Compare what one run wrote, in ``new``, with its record. Raises Failure if that is of another command line."""
    if kept["steps"] != [asdict(step) for step in run.steps]:
        raise Failure("was recorded with another command line: record anew")
    for file in kept["files"]:
        if not (new / file).exists():
            verdict.differs(f"{run.name}/{file}", "was written, and is no more")
        elif file in kept["tables"]:
            compare_files(f"{run.name}/{file}", old / file, new / file, run.tolerance, run.bytewise, verdict)


def summary(runs: int, verdict: Verdict) -> dict[str, Any]:
    """The rules by which values passed, printed, and the JSON of the last line."""
    for rule in ("identical", "relative", "last digit", "column", "different"):
        worst = f", worst {verdict.worst[rule]:.3g}" if verdict.worst.get(rule) else ""
        print(f"{rule:<12}{verdict.rules[rule]:>12,} values{worst}")
    return {
        "runs": runs,
        "tables": verdict.tables,
        "values": sum(verdict.rules.values()),
        "identical": verdict.rules["identical"],
        "worst_relative": max(verdict.worst.get("relative", 0.0), verdict.worst.get("different", 0.0)),
        "by_last_digit": verdict.rules["last digit"],
        "by_column": verdict.rules["column"],
        "worst_of_column": verdict.worst.get("column", 0.0),
        "different": verdict.different,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("action", choices=("record", "compare"), help="keep the results of this code, or repeat them")
    parser.add_argument("directory", metavar="DIR", type=Path, help="where the record lies")
    parser.add_argument("--quick", action="store_true", help="some runs of every command, in under a minute")
    parser.add_argument(
        "--only", metavar="NAME", action="append", default=[], help="this run (or 'ridge-*') and its inputs"
    )
    parser.add_argument("--mice", metavar="DIR", type=Path, default=MOUSE, help=f"GEMMA's mouse data ({MOUSE})")
    options = parser.parse_args()
    try:
        result = {"record": record, "compare": compare}[options.action](options)
    except Failure as failure:
        print(f"same_results.py: {failure}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 1 if result.get("different") or result.get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())

"""bench/record.sh: one benchmark after the other, each with its record; a failure keeps the old one and is named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

RECORD = Path(__file__).resolve().parents[2] / "bench" / "record.sh"
STUB = """#!/bin/bash
echo "$@ ${OMP_NUM_THREADS-unset} ${OPENBLAS_CORETYPE-unset}" >>"$MPGLS_BENCH_DIR/calls"
[ "$1" != bench/ridge.py ] || { echo "no himalaya"; exit 3; }
"""


def record(scratch: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """record.sh with a Python that only notes how it was called."""
    python = scratch / "python"
    python.write_text(STUB)
    python.chmod(0o755)
    env = os.environ | {
        "PATH": f"{scratch}:{os.environ['PATH']}", "MPGLS_BENCH_DIR": str(scratch), "OMP_NUM_THREADS": "7",
        "OPENBLAS_CORETYPE": "Zen",
    }  # fmt: skip
    return subprocess.run(["bash", RECORD, *names], env=env, capture_output=True, text=True, timeout=60)


def test_a_benchmark_that_fails_is_named_and_the_next_one_runs(tmp_path: Path) -> None:
    done = record(tmp_path, "ridge", "teams")
    assert done.returncode == 1
    assert (tmp_path / "calls").read_text().splitlines() == [
        "bench/ridge.py --json bench/results/ridge.json unset unset",
        "bench/teams.py --json bench/results/teams.json unset unset",
    ]
    ends = [line.split(maxsplit=3) for line in done.stdout.splitlines()[-2:]]
    assert [(one[0], one[3]) for one in ends] == [("ridge", "failed with exit code 3"), ("teams", "recorded")]
    assert "no himalaya" in done.stderr


def test_a_name_that_it_does_not_know_runs_nothing(tmp_path: Path) -> None:
    done = record(tmp_path, "teams", "team")
    assert (done.returncode, done.stderr) == (2, "record.sh: team is not in its list of benchmarks\n")
    assert not (tmp_path / "calls").exists()

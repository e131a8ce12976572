"""The time that a run has: whose limit holds, and how long before it a run stops."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from mpgls.mpi import StopSignal
from mpgls.run import time_limit as limits
from mpgls.run.time_limit import TimeLimit, time_limit


@pytest.fixture
def now(monkeypatch):
    """A clock that the test sets."""
    clock = [1_000_000.0]
    monkeypatch.setattr(limits.time, "time", lambda: clock[0])
    return clock


def test_without_a_limit_there_is_none(now):
    assert time_limit(None, {}) is None
    assert time_limit(None, {"SLURM_JOB_END_TIME": "999999"}) is None  # the variable of a job that has ended


def test_the_earlier_limit_holds(now):
    slurm = {"SLURM_JOB_END_TIME": "1007200"}
    assert time_limit(None, slurm).end == 1_007_200
    assert time_limit(1.5, slurm) == TimeLimit(1_005_400.0, "--max-hours 1.5")
    assert time_limit(3.0, slurm).whose == "the job (SLURM_JOB_END_TIME)"


def test_a_run_stops_while_two_more_units_would_fit(now):
    """Units of 100 s in 10,000 s, after a first one of 3,000 s: the reserve is 60 s."""
    limit, start = TimeLimit(now[0] + 10_000, "it"), now[0]
    looks = [0, 3000, *range(3100, 10_000, 100)]
    for at in looks:
        now[0] = start + at
        if limit.reason() is not None:
            break
    assert at == 9800  # 9,800 + 60 + 2 x 100 >= 10,000, and not 9,700


def test_short_limits_keep_a_twentieth(now):
    limit, start = TimeLimit(now[0] + 100, "it"), now[0]
    for at, stops in ((0, False), (94.9, False), (95.1, True)):
        now[0] = start + at
        assert (limit.reason() is not None) == stops


def test_a_run_that_must_stop_goes_on_stopping(now):
    stop = StopSignal("go on", TimeLimit(now[0] + 100, "--max-hours 1").reason)
    assert not stop.requested
    now[0] += 99
    assert stop.requested
    now[0] -= 99
    assert str(stop.problem()) == "stopped before the end of --max-hours 1; go on"


ASKS = "from mpgls.run.time_limit import time_limit; print(time_limit(None).end)"


def test_the_time_of_torque_begins_with_its_job(tmp_path):
    """The job sleeps before it starts mpgls; PBS_WALLTIME counts from the job's start on."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    environment |= {"PBS_JOBID": "17.server", "PBS_WALLTIME": "3600"}
    start = time.time()
    job = subprocess.run(
        ["bash", "-c", 'sleep 0.5; "$0" -c "$1"; true', sys.executable, ASKS],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert start - 0.1 < float(job.stdout) - 3600 < start + 0.4

"""What bench/gpu.py does on a machine where something is missing, or does not end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

OWN = ("common", "gpu", "gpu_parts")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    import gpu

    yield gpu
    for name in OWN:
        sys.modules.pop(name)


def test_a_child_that_will_not_end_is_ended(gpu, monkeypatch) -> None:
    import common

    monkeypatch.setattr(common, "GRACE_SECONDS", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    begin = time.monotonic()
    found = gpu.attempt(
        ("rate",), 1.0, begin + 1.0, lambda limit: common.run([sys.executable, "-c", deaf], os.environ, limit=limit)
    )
    assert found["rate"].startswith("failed: not finished after 1 s: ") and time.monotonic() - begin < 20.0


def test_without_mpirun_one_rank_still_measures(gpu, monkeypatch, tmp_path: Path) -> None:
    import common

    monkeypatch.setattr(common.shutil, "which", lambda name, path=None: None)
    asked = []
    monkeypatch.setattr(gpu, "run", lambda command, env, limit: asked.append(command) or common.Finished("", 2.0))
    monkeypatch.setattr(gpu, "cores", lambda: 16)
    found = {}
    for figures in gpu.whole_commands(tmp_path, time.monotonic() + 1000):
        found |= figures
    numbers = {name for name, value in found.items() if value == 2.0}
    assert numbers == {"simulate_seconds", "kinship_seconds_gpu", "single-trait_seconds_gpu"}
    lost = {name: value for name, value in found.items() if name not in numbers}
    assert set(lost) == {"kinship_seconds_16_cores", "single-trait_seconds_16_cores"}
    assert all(value.startswith("failed: there is no mpirun") for value in lost.values())
    assert all(command[:3] == [sys.executable, "-m", "mpgls"] for command in asked)

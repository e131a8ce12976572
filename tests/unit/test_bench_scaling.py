"""bench/strong_scaling.py: ranks have equal shares of the SNPs, and the table's keys are those that it writes."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from mpgls.engine.scan_plan import ScanSizes, plan_scan
from mpgls.run.plan import Machine
from mpgls.stream.store import block_edges

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def strong_scaling(monkeypatch):
    """bench/strong_scaling.py."""
    monkeypatch.syspath_prepend(str(BENCH))
    import strong_scaling

    yield strong_scaling
    for name in ("common", "figures", "strong_scaling"):
        sys.modules.pop(name)


def test_evenness_is_the_mean_share_over_the_largest(strong_scaling) -> None:
    assert strong_scaling.evenness(np.array([10, 10, 10]), 2) == 15 / 20
    assert strong_scaling.evenness(np.array([5, 5, 4, 6]), 2) == 10 / 11


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("sizes", ["FULL", "QUICK"])
def test_every_rank_has_an_equal_share(strong_scaling, sizes: str, ranks: int) -> None:
    n, m = (getattr(strong_scaling, sizes)[key] for key in ("samples", "snps"))
    scan = ScanSizes(n=n, m=m, columns=strong_scaling.COLUMNS, snp_bytes=-(-n // 4), item=8)
    block = plan_scan(Machine(ranks, ranks, None, 0), scan, 1).block
    assert strong_scaling.evenness(np.diff(block_edges(m, block)), ranks) >= strong_scaling.EVEN


def test_one_table_of_several_runs(strong_scaling, tmp_path: Path) -> None:
    def team(size: int, solver: str, seconds: float, gemm: float) -> dict:
        return {"size": size, "solver": solver, "evenness": [1.0], "seconds": [seconds], "solve_gflops": [1.0],
                "gemm_gflops": [gemm]}  # fmt: skip

    same = {"n": 8, "m": 9, "traits": 1, "command_n": 4, "threads": 1}
    one = [team(1, "inverse", 8.0, 10.0)]
    two = [team(1, "inverse", 4.0, 20.0), team(2, "inverse", 5.0, 19.0), team(2, "grid", 10.0, 19.0)]
    runs = [
        {**same, "ranks": 1, "teams": one, "commands": [dict.fromkeys(strong_scaling.NAMES, 3.0)]},
        {**same, "ranks": 2, "teams": two, "commands": [dict.fromkeys(strong_scaling.NAMES, 2.0)]},
    ]
    out = tmp_path / "scaling.json"
    strong_scaling.report(runs, argparse.Namespace(json=out, png=tmp_path / "scaling.png", quick=True))
    made = json.loads(out.read_text())
    assert made["scan_speedup_2"] == 2.0
    assert made["scan_speedup_2_team2_inverse"] == 1.6
    assert made["scan_speedup_2_team2_grid"] == 0.8
    assert made["gemm_speedup_2_team2_grid"] == 1.9
    assert made["reml_speedup_2"] == 1.5
    assert (tmp_path / "scaling.png").stat().st_size > 1000
    assert set(re.findall(r"{strong_scaling/(\w+)}", (BENCH / "tables.md").read_text())) <= set(made)

"""The cost of vgwas and ridge on GPUs: operations are those of the formulas, and those that a run counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strict_lanes
from machine_facts import CARD_FACTS
from mpi4py import MPI
from scipy import stats
from small_study import write_table
from strict_card import StrictCard

import mpgls
from mpgls.device import cuda
from mpgls.device.nominate import half_error
from mpgls.engine.voxelwise_card_cost import nominated
from mpgls.engine.voxelwise_plan import VoxelwiseSizes

N, M, V = 60, 40, 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study with traits in place of voxels, and rates."""
    made = tmp_path_factory.mktemp("card")
    (made / "rates.json").write_text(json.dumps(CARD_FACTS))
    mpgls.simulate(samples=N, snps=M, out=made / "s", comm=MPI.COMM_SELF)
    ids = [line.split()[:2] for line in (made / "s.fam").read_text().splitlines()]
    values = np.random.default_rng(1).standard_normal((V, N))
    write_table(made / "v.tsv", ids, {f"v{k}": one for k, one in enumerate(values)})
    return made


@pytest.fixture(autouse=True)
def strict_card(monkeypatch: pytest.MonkeyPatch) -> None:
    strict_lanes.begin_anew()
    monkeypatch.setattr(cuda, "open_card", lambda rank, size, limit: StrictCard(limit or 2**40))


def seconds(folder: Path, what: str, **sizes: Any) -> dict[str, float]:
    """Of the phases that `mpgls plan` tells, with rates of round numbers."""
    given = {"rates": folder / "rates.json", "device": "gpu", "snps": 100_000, "ranks": 1}
    told = mpgls.plan(what=what, **given | sizes, comm=MPI.COMM_SELF).manifest
    assert told["device"] == "gpu"
    return {one["name"]: one["seconds"] for one in told["phases"]}


def test_a_voxelwise_search_is_half_products_and_scores(folder: Path) -> None:
    n, m, v, q = 740, 100_000, 51_792, 10
    found = seconds(folder, "vgwas", samples=n, voxels=v, permutations=100, covariates=q - 1)
    pairs = 101.0 * m * v
    tiles = 2 * n * pairs / 8e14 + pairs / 5e11
    df = n - q - 1
    t_0 = stats.t.isf(0.5e-4, df)
    beta = t_0 / np.sqrt(df + t_0**2) - half_error(n)
    share = 2 * stats.t.sf(beta * np.sqrt(df / (1 - beta**2)), df)
    scores = pairs * share * n * (3 + 0.5 * q) / 1e9
    assert found["scores"] == pytest.approx(scores, rel=1e-3) and scores > tiles
    assert found["tiles"] == 0.0  # behind the scores
    assert found["copy to the GPU"] > 4.0 * n * v / 5e10


def test_nominations_are_more_where_the_error_is_larger(folder: Path) -> None:
    sizes = VoxelwiseSizes(740, 1000, 1000, 10, 1, 1e-4, 185, 3, np.float32)
    large = VoxelwiseSizes(20_000, 1000, 1000, 10, 1, 1e-4, 185, 3, np.float32)
    assert nominated(sizes) == pytest.approx(1.13e-4, rel=0.01) and nominated(large) == pytest.approx(3e-4, rel=0.02)


def test_ridge_is_float64_products(folder: Path) -> None:
    n, t, P = 20_000, 200, 1000
    found = seconds(folder, "ridge", samples=n, traits=t, permutations=P)
    o, i = n / 10, n * 0.9 / 5
    multiplications = 5 * (n**2 + 10 * o**2 + 50 * i * (o + i))
    moved = 5 * (50 * (3 * i + o) + 3 * n)
    expected = (P + 1) * t * (2 * multiplications / 5e13 + moved / 5e11)
    assert found["permutations"] == pytest.approx(expected, rel=1e-3)
    assert "invert" not in found and 5 * 3 * n**3 / 5e13 < found["fold operators"] < 5 * 12 * n**3 / 4e13


@pytest.mark.parametrize("command, phase", [("vgwas", "tiles"), ("ridge", "permutations")])
def test_a_dry_run_tells_what_a_run_counts(folder: Path, command: str, phase: str) -> None:
    given: dict[str, Any] = {"bfile": folder / "s", "device": "gpu", "out": folder / command, "comm": MPI.COMM_SELF}
    given |= {"pheno": folder / "v.tsv", "permutations": 2, "no_plots": True}
    told = getattr(mpgls, command)(**given, dry_run=True, rates=folder / "rates.json").manifest
    counted = getattr(mpgls, command)(**given).manifest["timings"]
    phases = {one["name"]: one for one in told["phases"]}
    assert phases[phase]["flop"] == pytest.approx(counted[phase]["gflop"] * 1e9, rel=0.01)

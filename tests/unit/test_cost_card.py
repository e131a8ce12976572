"""The cost of runs on GPUs: operations and bytes are those of the formulas, and those that a run counts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strict_lanes
from machine_facts import CARD_FACTS, FACTS
from mpi4py import MPI
from strict_card import StrictCard

import mpgls
from mpgls.device import cuda
from mpgls.engine import card_probes
from mpgls.engine.card_rates import FACTS as OF_CARD
from mpgls.engine.cost_text import time_text
from mpgls.engine.rates import Rates
from mpgls.engine.tile_plan import NODES
from mpgls.errors import InputError, MemoryPlanError, UsageError
from mpgls.run.findings import Findings
from mpgls.run.world import World

N, M, CHECKED = 60, 90, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study with its kinship, and rates."""
    made = tmp_path_factory.mktemp("card")
    (made / "rates.json").write_text(json.dumps(CARD_FACTS))
    (made / "no-gpu.json").write_text(json.dumps(FACTS))
    mpgls.simulate(samples=N, snps=M, out=made / "s", comm=MPI.COMM_SELF)
    mpgls.kinship(bfile=made / "s", out=made / "K", comm=MPI.COMM_SELF)
    return made


@pytest.fixture(autouse=True)
def strict_card(monkeypatch: pytest.MonkeyPatch) -> None:
    strict_lanes.begin_anew()
    monkeypatch.setattr(cuda, "open_card", lambda rank, size, limit: StrictCard(limit or 2**40))


def plan(folder: Path, what: str, **sizes: Any) -> dict[str, Any]:
    """What `mpgls plan` tells, with rates of round numbers."""
    rates = folder / "rates.json"
    return mpgls.plan(what=what, **{"rates": rates, "device": "gpu"} | sizes, comm=MPI.COMM_SELF).manifest


def seconds(told: dict[str, Any]) -> dict[str, float]:
    return {one["name"]: one["seconds"] for one in told["phases"]}


@pytest.mark.parametrize(
    "precision, rate", [("double", 5e13), ("mixed", 8e14 / 2), ("exact", 1e15 / 7)], ids=["double", "mixed", "exact"]
)
def test_a_scan_is_products_of_parts_at_their_rate(folder: Path, precision: str, rate: float) -> None:
    n, m = 40_000, 1_000_000
    told = plan(folder, "single-trait", samples=n, snps=m, ranks=1, precision=precision)
    passes = 8 if precision == "exact" else 1  # over a product that is centred and added up
    expected = n**2 * m / rate + n * m / 4e11 + passes * n * m / 5e11
    assert seconds(told)["solve"] == pytest.approx(expected)
    assert seconds(told)["decode"] == 0.0  # behind the products
    assert told["device"] == "gpu"
    two = plan(folder, "single-trait", samples=n, snps=m, ranks=2, gpus_per_node=1, precision=precision)
    assert seconds(two)["solve"] == pytest.approx(expected / 2, rel=0.01)


def test_what_does_not_fit_is_copied_for_every_block(folder: Path) -> None:
    n, m = 60_000, 100_000
    told = plan(folder, "single-trait", samples=n, snps=m, ranks=1, gpu_memory=8.0)
    blocks = -(-m // told["plan"]["block"])
    assert told["plan"]["streamed"] > 0
    wall = seconds(told)["solve"] + seconds(told)["panels to GPUs"]
    assert wall >= told["plan"]["streamed"] * blocks / 5e10


def test_a_million_people_are_minutes_of_products(folder: Path) -> None:
    n = m = 1_000_000
    K, K_c = 50_000, 50_000 - 50_000 // 22
    told = plan(folder, "low-rank", samples=n, snps=m, similarity_count=K, ranks=1)
    scan = next(stage for stage in told["stages"] if stage["name"] == "4 scan")
    assert scan["terms"]["cross product"] == pytest.approx(2.0 * n * m * K_c / 1e15, rel=0.01)
    assert scan["terms"]["solve"] == pytest.approx(3 * K**2 * m / 8e14, rel=0.05)
    assert told["stages"][2]["terms"]["G'G"] == pytest.approx(n * K**2 / 1e15, rel=0.02)
    assert told["stages"][3]["terms"]["REML, double"] == pytest.approx(22 * 3 * K**3 / 3 / 4e13)


@pytest.mark.parametrize("precision, products", [("double", (5e13, 5e13)), ("mixed", (8e14 / 2, 8e14 / 3))])
def test_tiles_are_products_of_parts_at_their_rate(folder: Path, precision: str, products: tuple[float, float]) -> None:
    n, m, t = 20_000, 1_000_000, 10_000
    told = plan(folder, "multi-trait", samples=n, snps=m, traits=t, ranks=1, precision=precision, from_eigen=True)
    assert seconds(told)["rotate SNPs"] == pytest.approx(2 * n**2 * m / products[0], rel=0.2)
    nodes = 2 * n * m * -(-t // told["plan"]["panel"]) * NODES * 5 / 5e13  # in float64, of 4 covariates and the SNP
    epilogue = 12 * t * m / 5e11
    assert seconds(told)["tiles"] == pytest.approx(2 * n * t * m / products[1] + nodes + epilogue)


@pytest.mark.parametrize(
    "command, phase", [("single_trait", "solve"), ("kinship", "product"), ("multi_trait", "rotate SNPs")]
)
def test_a_dry_run_tells_what_a_run_counts(folder: Path, command: str, phase: str) -> None:
    given: dict[str, Any] = {"bfile": folder / "s", "device": "gpu", "out": folder / command, "comm": MPI.COMM_SELF}
    if command != "kinship":
        given |= {"pheno": f"{folder}/s.pheno.tsv", "grm": folder / "K.h5", "h2": 0.4, "no_plots": True}
    before = set(os.listdir(folder))
    told = getattr(mpgls, command)(**given, dry_run=True, rates=folder / "rates.json").manifest
    assert set(os.listdir(folder)) - before == {f"{command}.dry-run.log"}
    counted = getattr(mpgls, command)(**given).manifest["timings"]
    phases = {one["name"]: one for one in told["phases"]}
    checked = CHECKED * N**2 if phase == "solve" else 0  # tested in float64 as well
    assert phases[phase]["flop"] + checked == pytest.approx(counted[phase]["gflop"] * 1e9, rel=0.01)


def test_rates_of_a_card_are_measured_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in {"SIZE": 32, "TERMS": 64, "FACTOR": 32, "SAMPLES": 64, "SNPS": 16, "COPIED": 4096}.items():
        monkeypatch.setattr(card_probes, name, small)
    found = Findings()
    card_probes.measure_card(found, World(MPI.COMM_SELF), StrictCard(3 << 30))
    rates = Rates.of(FACTS | found.facts, "here").card
    assert rates is not None and rates.memory == 3 << 30
    assert {"gpu", *OF_CARD} == set(found.facts) and min(found.facts[name] for name in OF_CARD) > 0
    assert found.groups[0][0].startswith("GPU of each rank") and len(found.groups[0][1]) == 6


def test_rates_without_a_card(folder: Path) -> None:
    assert Rates.of(FACTS, "here").card is None
    with pytest.raises(InputError, match="has no rates of a GPU: make it anew with mpgls doctor --device gpu --json"):
        plan(folder, "kinship", samples=900, snps=900, ranks=1, rates=folder / "no-gpu.json")
    with pytest.raises(InputError, match=r"gpu_gops_int8 = 0\.0 in place of a rate"):
        Rates.of(CARD_FACTS | {"gpu_gops_int8": 0.0}, "rates.json")


@pytest.mark.parametrize(
    "given, error, sentence",
    [
        ({"what": "eigen"}, UsageError, "knows kinship, single-trait, multi-trait, low-rank, vgwas, ridge, not eigen"),
        ({"what": "kinship", "device": "cpu", "gpus_per_node": 2}, UsageError, "--gpus-per-node needs --device gpu"),
        ({"what": "kinship", "ranks_per_node": 2, "gpus_per_node": 4}, UsageError, "leave out --ranks-per-node"),
        ({"what": "single-trait", "device": "cpu", "precision": "exact"}, UsageError, "--precision exact is there"),
        ({"what": "kinship", "gpu_memory": 1.0}, MemoryPlanError, "the kinship needs .* GiB of each of 4 GPUs"),
    ],
)
def test_what_is_not_planned(folder: Path, given: dict[str, Any], error: type, sentence: str) -> None:
    snps = {} if given["what"] == "eigen" else {"snps": 9000}
    with pytest.raises(error, match=sentence):
        plan(folder, samples=40_000, ranks=4, **snps, **given)


def test_a_plan_in_words_counts_gpus(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"samples": 1000, "snps": 9000, "ranks": 8, "gpus_per_node": 4, "rates": folder / "rates.json"}
    mpgls.plan(what="kinship", device="gpu", **sizes, comm=MPI.COMM_SELF, verbose=True)
    text = capsys.readouterr().out
    assert "8 ranks on 2 nodes" in text and "GPU-hours" in text and "core-hours" not in text
    assert "a GPU a rank: products at 50 TFLOP/s double, 800 float16, 1000 int8; 64 GiB" in text
    assert np.isfinite(plan(folder, "kinship", **sizes)["seconds"])


@pytest.mark.parametrize("gpus", [1, 8])
def test_what_the_documents_predict_is_what_the_plan_says(gpus: int) -> None:
    root = Path(__file__).resolve().parents[2]
    sizes = {"samples": 1_000_000, "snps": 1_000_000, "similarity_count": 50_000, "ranks": gpus, "device": "gpu"}
    rates = root / "bench" / "results" / "rates_h100_prototypes.json"
    told = mpgls.plan(what="low-rank", **sizes, rates=rates, comm=MPI.COMM_SELF).manifest
    (row,) = (
        line for line in (root / "docs" / "gpu.md").read_text().splitlines() if line.startswith("| the whole run")
    )
    assert time_text(told["seconds"]) == row.split("|")[{1: 3, 8: 4}[gpus]].strip()

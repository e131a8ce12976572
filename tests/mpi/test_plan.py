"""``mpgls plan`` on any number of ranks: rates from doctor or measured now, and errors that all ranks raise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ranks import few_ranks

import mpgls
from mpgls.commands import options_of
from mpgls.engine.low_rank_cost import predict
from mpgls.engine.probes import processor_rates
from mpgls.engine.rates import Rates
from mpgls.errors import InputError, MemoryPlanError, StorageError
from mpgls.run.hardware import startup_seconds
from mpgls.run.options import make

pytestmark = [few_ranks, pytest.mark.usefixtures("small_probes")]
STUDY = {"samples": 40_000, "snps": 10_000, "similarity_count": 1_000, "chromosomes": 5, "traits": 2, "covariates": 2}


def plan(comm, **machine):
    return mpgls.plan(what="low-rank", **STUDY, **machine, comm=comm, verbose=True)


def measured(comm, folder) -> str:
    """A file of rates."""
    rates = str(folder / "rates.json")
    mpgls.doctor(directory=str(folder), threads=1, json=rates, comm=comm)
    return rates


def test_rates_are_the_same_on_every_rank(comm):
    rates = processor_rates(comm)
    assert comm.allgather(rates) == [rates] * comm.size
    assert all(value > 0 for name, value in rates.items() if name != "exchange_mb_per_s")
    assert (rates["exchange_mb_per_s"] > 0) == (comm.size > 1)
    assert 0 < startup_seconds(comm) < 24 * 3600


def test_the_plan_follows_from_what_doctor_measured(comm, shared_tmp_path, capfd):
    rates, out = measured(comm, shared_tmp_path), str(shared_tmp_path / "plan.json")
    capfd.readouterr()
    machine = {"ranks": 8, "ranks_per_node": 2, "memory": 2.0, "rates": rates}
    results = plan(comm, **machine, json=out)
    shown = capfd.readouterr().out
    comm.Barrier()
    facts, made = (json.loads(Path(path).read_text()) for path in (rates, out))
    assert results.manifest["seconds"] == made["seconds"] and [str(path) for path in results.files] == [out]
    options = make(options_of("plan"), {"what": "low-rank", **STUDY, **machine})
    expected = predict(options.problem, options.machine, Rates.of(facts, rates))
    assert made["seconds"] == pytest.approx(expected.seconds, rel=1e-12)
    assert [one["name"] for one in made["stages"]] == [one.name for one in expected.stages]
    assert made["source"]["ranks"] == comm.size and made["cpu_days"] == pytest.approx(expected.seconds * 8 / 86400)
    assert ("rates.json, measured on" in shown) == (comm.rank == 0)


def test_without_a_file_the_rates_are_measured_now(comm, shared_tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(shared_tmp_path)
    plan(comm, ranks=2, json="plan.json")
    comm.Barrier()
    made = json.loads((shared_tmp_path / "plan.json").read_text())
    assert "measured here, now" in made["source"]["text"] and made["source"]["ranks"] == comm.size
    assert made["rates"]["double"]["gemm"] > 0 and made["seconds"] > 0
    assert ("measured here, now" in capfd.readouterr().out) == (comm.rank == 0)
    assert [path.name for path in shared_tmp_path.iterdir()] == ["plan.json"]


def test_every_rank_hears_of_an_error(comm, shared_tmp_path):
    missing = str(shared_tmp_path / "none.json")
    with pytest.raises(StorageError, match="cannot read the rates"):
        plan(comm, ranks=2, rates=missing)
    empty = shared_tmp_path / "empty.json"
    if comm.rank == 0:
        empty.write_text("{}")
    comm.Barrier()
    with pytest.raises(InputError, match="has no rate"):
        plan(comm, ranks=2, rates=str(empty))
    rates = measured(comm, shared_tmp_path)
    with pytest.raises(MemoryPlanError, match="needs"):
        plan(comm, ranks=2, memory=0.16, rates=rates)
    with pytest.raises(StorageError, match="cannot write"):
        plan(comm, ranks=2, rates=rates, json=str(shared_tmp_path / "no" / "plan.json"))

"""The cost of every command: its work is what a run counts, its seconds follow from the rates, its files are none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machine_facts import FACTS
from mpi4py import MPI
from resident import mpgls as run_mpgls
from resident import must_succeed

import mpgls
from mpgls.engine.cost import MOST_RANKS, WORTH, PhaseCost, RunCost, busiest, seconds, sensible_ranks
from mpgls.engine.kinship_sums import STRIPS
from mpgls.engine.rates import Rates
from mpgls.errors import MemoryPlanError, UsageError
from mpgls.run.plan import Machine, Plan

RATES = Rates.of(FACTS, "rates.json")
N, M, T, V, PERMUTATIONS = 211, 1300, 3, 4, 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small study with its kinships and eigenpairs, and rates; the current directory."""
    made, before = tmp_path_factory.mktemp("cost"), os.getcwd()
    os.chdir(made)
    (made / "rates.json").write_text(json.dumps(FACTS))
    mpgls.simulate(samples=N, snps=M, traits=T, out="sim", comm=MPI.COMM_SELF)
    mpgls.kinship(bfile="sim", loco=True, out="L", comm=MPI.COMM_SELF)
    yield made
    os.chdir(before)


STUDY: dict[str, Any] = {"bfile": "sim", "pheno": "sim.pheno.tsv", "no_plots": True}
RUNS: dict[str, dict[str, Any]] = {
    "kinship": {"bfile": "sim", "loco": True, "method": "standardized"},
    "eigen": {"grm": "L.h5"},
    "single_trait": {**STUDY, "pheno_name": ("trait1", "trait2"), "grm": "L.h5", "loco": True, "chr": "1-3"},
    "multi_trait": {**STUDY, "grm": "L.h5"},
    "low_rank": {**STUDY, "pheno_name": ("trait1",), "similarity_every": 13},
    "vgwas": {**STUDY, "permutations": PERMUTATIONS},
    "ridge": {**STUDY, "permutations": PERMUTATIONS, "outer_folds": 4, "inner_folds": 3},
}
COUNTED = {
    "kinship": ("product in double",),
    "eigen": ("eigendecomposition",),
    "single_trait": ("solve",),
    "multi_trait": ("eigendecomposition", "rotate traits", "rotate SNPs"),
    "vgwas": ("tiles",),
    "ridge": ("kernel", "permutations", "invert"),
}
"""Phases whose operations a run counts."""
UNPLANNED = {"sums", "eigenpairs", "scan", "units", "join ranks", "read targets", "prediction", "end"}
"""Phases of runs that no plan has: the first four are around all others of a command, and all are small."""


@pytest.mark.parametrize("command", RUNS)
def test_a_dry_run_tells_the_work_of_the_run(command: str, folder: Path) -> None:
    """The operations of each phase are those that the run itself counts, and each phase is one of the run's own."""
    function, before = getattr(mpgls, command), set(os.listdir(folder))
    told = function(**RUNS[command], dry_run=True, rates="rates.json", out=f"{command}_o", comm=MPI.COMM_SELF)
    assert set(os.listdir(folder)) - before == {f"{command}_o.dry-run.log"}
    assert "dry run: nothing is computed" in (folder / f"{command}_o.dry-run.log").read_text()
    if command == "low_rank":  # test_cost_low_rank.py has its work
        assert told.manifest["problem"]["K"] == M // 13
        return
    counted = function(**RUNS[command], out=f"{command}_o", comm=MPI.COMM_SELF).manifest["timings"]
    phases = {one["name"]: one for one in told.manifest["phases"]}
    for name in COUNTED[command]:
        assert phases[name]["flop"] == pytest.approx(counted[name]["gflop"] * 1e9, rel=0.03), name
    assert set(COUNTED[command]) <= set(counted)
    # what is not in the timing table of a run is named as unlike its phases, or is nothing here
    unlike = {"start", "open and check", "GEMM rate", "REML, sums", "combine in team", "write", "check in double"}
    assert {name for name in phases if phases[name]["seconds"] > 0} - unlike <= set(counted)
    assert set(counted) - set(phases) <= UNPLANNED


def test_a_dry_run_leaves_a_finished_run_alone(folder: Path) -> None:
    mpgls.eigen(grm="L.h5", out="kept", comm=MPI.COMM_SELF)
    before = {path.name: path.read_bytes() for path in folder.glob("kept*")}
    for _ in range(2):
        mpgls.eigen(grm="L.h5", out="kept", dry_run=True, rates="rates.json", comm=MPI.COMM_SELF)
    after = {path.name: path.read_bytes() for path in folder.glob("kept*")}
    assert after.pop("kept.dry-run.log") and after == before


def test_on_two_ranks_one_speaks_and_all_end_well(folder: Path) -> None:
    ended = must_succeed(2, "kinship --bfile sim --out two --dry-run --rates rates.json", folder)
    assert ended.out.count("the fewest that fit: 1") == 1 and "2 ranks on 1 node" in ended.out
    assert [path.name for path in folder.glob("two*")] == ["two.dry-run.log"]


def test_a_dry_run_that_cannot_be(folder: Path) -> None:
    for words, sentence in {
        "kinship --bfile sim --rates rates.json": "--rates belongs to --dry-run: a run needs none",
        "kinship --bfile sim --dry-run --resume": "--dry-run has nothing to resume: give either --dry-run or --resume",
        "eigen --grm L.h5 --eigenpairs 3 --dry-run": "--dry-run knows what all eigenpairs cost",
        "single-trait --bfile sim --grm L.h5 --ratio snp --dry-run": "--dry-run does not know what --ratio snp costs",
        "vgwas --bfile sim --images i --mask m --dry-run": "--dry-run needs voxels that are there",
        "ridge --bfile sim --parcels 3 --voxels v --dry-run": "--dry-run needs targets that are there",
        "low-rank --bfile sim --similarity-every 2 --dry-run": "--dry-run knows the cost of K x K matrices only",
    }.items():
        ended = run_mpgls(0, f"{words} --out refused", folder)
        assert ended.code == 2 and sentence in ended.err and not list(folder.glob("refused*.h5"))


# -- mpgls plan -------------------------------------------------------------------------------------------------------

SIZES: dict[str, dict[str, Any]] = {
    "kinship": {"snps": 50_000, "loco": True},
    "eigen": {},
    "single-trait": {"snps": 50_000, "traits": 2, "loco": True, "chromosomes": 20},
    "multi-trait": {"snps": 50_000, "traits": 5000},
    "low-rank": {"snps": 50_000, "similarity_count": 2000},
    "vgwas": {"snps": 50_000, "voxels": 30_000, "permutations": 200},
    "ridge": {"snps": 50_000, "traits": 300, "permutations": 100},
}


@pytest.mark.parametrize("what", SIZES)
def test_every_command_has_a_plan(
    what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rates.json").write_text(json.dumps(FACTS))
    machine = {"ranks": 16, "ranks_per_node": 4, "memory": 6.0, "rates": "rates.json"}
    made = mpgls.plan(
        what=what, samples=12_000, **SIZES[what], **machine, json="p.json", comm=MPI.COMM_SELF, verbose=True
    )
    facts, shown = json.loads(Path("p.json").read_text()), capfd.readouterr().out
    assert facts["planned"] == what and facts["command"] == "plan" and made.manifest["seconds"] == facts["seconds"]
    parts = facts.get("phases") or facts["stages"]
    assert facts["seconds"] == pytest.approx(sum(one["seconds"] for one in parts)) and facts["seconds"] > 0
    for one in parts:
        assert any(line.startswith(one["name"]) for line in shown.split("\n"))
    assert "16 ranks on 4 nodes, 6 GiB a rank" in shown and "core-hours" in shown
    smallest, fastest = facts["smallest"], facts["fastest"]
    assert smallest["ranks"] <= 16 and smallest["ranks"] <= fastest["ranks"]
    spent = [one["ranks"] * one["seconds"] for one in (smallest, fastest)]
    assert spent[1] <= WORTH * spent[0] * (1 + 1e-9) and fastest["seconds"] <= smallest["seconds"]
    stages = facts["plan"]["stages"]
    assert all(f"{name} {size / 2**30:.2f}" in shown for name, size in stages.items())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("kinship --samples 9", "plan kinship needs --snps"),
        ("low-rank --samples 9 --snps 9", "plan low-rank needs --similarity-count"),
        ("vgwas --samples 99 --snps 9", "plan vgwas needs --voxels"),
        ("eigen --samples 9 --snps 9", "plan eigen does not depend on --snps: leave it out"),
        ("kinship --samples 9 --snps 9 --traits 2", "plan kinship does not depend on --traits: leave it out"),
        ("ridge --samples 9 --snps 9 --loco", "plan ridge does not depend on --loco: leave it out"),
        ("eigen --samples 9 --precision mixed", "plan eigen does not depend on --precision: leave it out"),
        ("single-trait --samples 4 --snps 9", "4 samples are too few for 4 covariates with the intercept"),
        ("single-trait --samples 9 --snps 9 --chromosomes 3", "--chromosomes needs --loco: otherwise none is left out"),
        ("kinship --samples 9 --snps 9 --loco", "--chromosomes must be from 1 to 9, the SNPs there are, not 22"),
        ("multi-trait --samples 9 --snps 99 --loco --from-eigen", "--loco and --from-eigen do not go together"),
        ("kinship --samples 0 --snps 9", "--samples must be at least 1, not 0"),
        ("export --samples 9", "invalid choice: 'export'"),
    ],
)
def test_sizes_that_cannot_be(words: str, sentence: str, tmp_path: Path) -> None:
    ended = run_mpgls(0, f"plan {words} --ranks 2", tmp_path)
    assert ended.code == 2 and sentence in ended.err and ended.err.count("\n") == 1


def test_a_plan_that_does_not_fit_says_what_would(folder: Path) -> None:
    ended = run_mpgls(0, "plan eigen --samples 20000 --ranks 2 --memory 2 --rates rates.json", folder)
    assert ended.code == 4 and "at least" in ended.err


# -- the arithmetic ---------------------------------------------------------------------------------------------------


def test_a_phase_is_the_sum_of_its_work() -> None:
    phase = PhaseCost(
        "p", {"double.gemm": 100e9, "single.gemm": 50e9, "count": 1e9}, read=3e9, written=1e9, sent=40e9, syncs=3,
        seconds=0.25,
    )  # fmt: skip
    # 100/50 + 50/100 + 1/2; 3/1 + 1/0.5; 40 GB over 4 ranks of 5 GB/s; 3 x 0.01
    assert seconds(phase, RATES, 4) == pytest.approx(2 + 0.5 + 0.5 + 3 + 2 + 2 + 0.03 + 0.25)
    assert seconds(phase, replace(RATES, send=0.0), 4) == pytest.approx(8.28)


def test_reading_hides_behind_the_work_that_it_is_ahead_of() -> None:
    for read, waited in ((1e9, 0.0), (5e9, 3.0)):
        phases = (PhaseCost("read", read=read, ahead_of=("solve",)), PhaseCost("solve", {"double.gemm": 100e9}))
        cost = RunCost("c", "", Machine(1, 1, None, 0), Plan({"s": 1}), "", phases)
        assert cost.seconds_by_phase(RATES) == {"start": 0.5, "read": pytest.approx(waited), "solve": 2.0}
        assert cost.seconds(RATES) == pytest.approx(2.5 + waited)


def test_the_sensible_numbers_of_ranks() -> None:
    def seconds_on(machine: Machine) -> float:
        assert machine.ranks_per_node == min(machine.ranks, 8)
        if machine.ranks < 5:
            raise MemoryPlanError("too few")
        return 100.0 / machine.ranks + 1.0

    # core-seconds are 100 + P, the fewest 105 on 5 ranks; 80 ranks take 180, 160 would take 260 > 2 x 105
    assert sensible_ranks(seconds_on, Machine(3, 8, None, 0)) == ((5, 21.0), (80, 2.25))

    def never(machine: Machine) -> float:
        raise MemoryPlanError("too few")

    assert sensible_ranks(never, Machine(1, 1, None, 0)) is None
    assert sensible_ranks(lambda at: 1e6 / at.ranks, Machine(1, 1, None, 0)) == (
        (1, 1e6),
        (MOST_RANKS, 1e6 / MOST_RANKS),
    )


@pytest.mark.parametrize(("m", "parts", "block", "ranks"), [(1000, 1, 64, 3), (1000, 7, 32, 4), (10, 1, 64, 4)])
def test_the_busiest_rank_has_the_blocks_that_are_dealt_first(m: int, parts: int, block: int, ranks: int) -> None:
    of_part = -(-m // parts)
    dealt = [0] * ranks
    for k, start in enumerate(range(0, of_part, block)):
        dealt[k % ranks] += min(block, of_part - start)
    assert busiest(m, parts, block, ranks) >= parts * max(dealt) >= m / ranks
    assert busiest(m, parts, block, ranks) <= parts * (max(dealt) + block)


def test_the_strips_of_a_kinship_are_half_of_the_square() -> None:
    """The columns of strip s of S need the rows from its first on: 1/2 + 1/(2 S) of the square."""
    rows = [N - s * N / STRIPS for s in range(STRIPS)]
    assert sum(rows) * N / STRIPS == pytest.approx(N**2 * (1 + 1 / STRIPS) / 2)


def test_from_the_command_line(folder: Path) -> None:
    """A plan of a real size: the formulas by hand, at the rates of the file."""
    ended = must_succeed(0, "plan single-trait --samples 63000 --snps 690000 --loco --ranks 16 --rates rates.json "
                         "--json p.json", folder)  # fmt: skip
    n, m, P = 63_000, 690_000, 22 / 3 * 2  # the busiest of 8 worlds of 2 ranks takes 3 of the 22 chromosomes
    found = {one["name"]: one["seconds"] for one in json.loads((folder / "p.json").read_text())["phases"]}
    # n^2 operations a SNP at the rate of the triangular solve, the blocks of a rank nearly even
    assert found["solve"] == pytest.approx(n**2 * m / P / 50e9, rel=0.05)
    # n^3/3 a factorisation, three in float64 and four in float32 for each chromosome; n is large: the final rate
    assert found["REML, double"] == pytest.approx(22 * 3 * n**3 / 3 / P / 50e9 / (1 + 400 / 1536), rel=0.05)
    assert found["REML, single"] == pytest.approx(22 * 4 * n**3 / 3 / P / 100e9 / (1 + 400 / 1536), rel=0.05)
    assert "22 chromosomes left out in turn" in ended.out and "8 worlds, of whole chromosomes" in ended.out


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="--precision must be one of auto, double, mixed"):
        mpgls.plan(what="eigen", samples=9, ranks=1, precision="half", comm=MPI.COMM_SELF)

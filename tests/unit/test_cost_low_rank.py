"""The cost model of a low-rank run: its terms are the algorithm's, its plan and memory are those of the run itself."""

from __future__ import annotations

import itertools
import json

import pytest

from mpgls import cli
from mpgls.commands.plan import BASE
from mpgls.engine.cost_text import PAPER_CPU_DAYS, Source, plan_facts, text
from mpgls.engine.low_rank_cost import COARSE, FINE, PRODUCT_SHARE, LowRankProblem, predict
from mpgls.engine.low_rank_plan import LowRankSizes, plan_low_rank
from mpgls.engine.rates import Rates, read_rates
from mpgls.errors import InputError, MemoryPlanError, StorageError, UsageError
from mpgls.run.plan import GIB, Machine

FACTS = {
    **{f"{stem}_gflops_double": 50.0 for stem in ("gemm", "potrf", "potrf_grid", "trsm")},
    **{f"{stem}_gflops_single": 100.0 for stem in ("gemm", "potrf", "potrf_grid", "trsm")},
    **{f"decode_genotypes_per_s_{precision}": 1e9 for precision in ("double", "single")},
    **{f"products_numbers_per_s_{precision}": 1e9 for precision in ("double", "single")},
    "count_genotypes_per_s": 2e9,
    "epilogue_numbers_per_s": 1e8,
    "scale_numbers_per_s": 1e9,
    "touch_mb_per_s": 2e3,
    "table_rows_per_s": 4e5,
    "exchange_mb_per_s": 5e3,
    "read_mb_per_s": 1e3,
    "write_mb_per_s": 500.0,
    "startup_seconds": 0.5,
    "sync_seconds": 0.01,
}
RATES = Rates.of(FACTS, "rates.json")
STUDY = {
    "n": 30_000, "m": 22_000, "K": 2_200, "chromosomes": 22, "T": 1, "q": 4, "mixed": True, "dosages": False,
}  # fmt: skip


BESIDE = (
    "load G'G", "REML, double", "REML, solves", "hand over factor", "check in double", "read (waiting)", "write"
)  # fmt: skip
"""Terms of the scan during which no block of tested SNPs is read ahead."""


def machine(ranks=4, here=4, gib=None):
    return Machine(ranks, here, None if gib is None else int(gib * GIB), GIB // 10)


def cost(at=None, rates=RATES, **changes):
    return predict(LowRankProblem(**{**STUDY, **changes}), at or machine(), rates)


def stage(made, start):
    return next(one for one in made.stages if one.name.startswith(start))


def test_the_operations_are_those_of_the_algorithm():
    made = cost()
    n, m, K, K_c = 30_000, 22_000, 2_200, 2_100
    # 2 n m K_c for H = G'X; m K^2 for the solve and a factor of each chromosome: SNPs left out keep a row of I
    assert stage(made, "4").flop == pytest.approx(2.0 * n * m * K_c + m * K**2 + 22 * K**3 / 3, rel=1e-12)
    assert stage(made, "2").flop == pytest.approx(22 * (COARSE + FINE) * K**3 / 3, rel=1e-12)
    # a strip has the rows from its diagonal on: between half of the square and all of it
    assert n * K**2 < stage(made, "1").flop <= 2 * n * K**2
    strips = [(first, min(made.plan.strip, K - first)) for first in range(0, K, made.plan.strip)]
    assert len(strips) > 1
    assert stage(made, "1").flop == 2.0 * n * sum((K - first) * width for first, width in strips)


def test_the_large_product_runs_at_the_rate_of_its_precision():
    mixed, double = (stage(cost(mixed=mixed), "4").terms for mixed in (True, False))
    m_of_a_rank = 22_000 / 4
    assert mixed["cross product"] == pytest.approx(
        2.0 * 30_000 * m_of_a_rank * 2_100 / (PRODUCT_SHARE * 100e9), rel=0.01
    )
    assert double["cross product"] == pytest.approx(2 * mixed["cross product"], rel=1e-12)
    assert double["REML, double"] == mixed["REML, double"]  # always in float64


def test_cost_grows_linearly_in_samples_and_snps():
    base = cost()
    for changes in ({"n": 60_000}, {"m": 44_000}):
        twice = cost(**changes)
        assert stage(twice, "4").terms["cross product"] == pytest.approx(
            2 * stage(base, "4").terms["cross product"], rel=0.01
        )
        # what depends on K alone stays
        assert stage(twice, "2").seconds == stage(base, "2").seconds
    assert cost(n=60_000).stages[2].terms["G'G"] > 1.9 * base.stages[2].terms["G'G"]


def test_traits_share_the_large_product_but_not_the_solve():
    one, five = (stage(cost(T=T), "4").terms for T in (1, 5))
    assert five["cross product"] == one["cross product"]
    assert five["solve"] == pytest.approx(5 * one["solve"])
    assert stage(cost(T=5), "2").terms["REML, double"] == pytest.approx(5 * stage(cost(), "2").terms["REML, double"])


def test_traits_whose_factors_do_not_fit_together_take_passes():
    roomy, tight = cost(T=64), cost(machine(gib=0.45), T=64)
    assert roomy.plan.traits_at_once == 64 > tight.plan.traits_at_once
    passes = -(-64 // tight.plan.traits_at_once)
    for name, times in (("cross product", passes), ("solve", 1), ("statistics", 1)):
        # blocks of another width deal out a little less evenly
        assert stage(tight, "4").terms[name] == pytest.approx(times * stage(roomy, "4").terms[name], rel=0.05), name


def test_more_ranks_are_faster_and_never_more_than_in_proportion():
    seconds = [stage(cost(machine(P, P)), "4").terms["cross product"] for P in (1, 2, 4, 8)]
    for few, many in itertools.pairwise(seconds):
        assert few / 2 <= many * (1 + 1e-12) and many < few


def test_a_chromosome_with_few_blocks_leaves_ranks_idle():
    # 10 SNPs a chromosome in blocks of 32: one rank works on them, whatever the number of ranks
    few, many = (stage(cost(machine(P, P), m=220), "4").terms["cross product"] for P in (1, 64))
    assert few == pytest.approx(many)


def test_panels_are_decoded_for_every_block_where_g_is_not_resident():
    wide, tight = cost(), cost(machine(gib=0.3))
    assert wide.plan.resident and not tight.plan.resident
    assert stage(tight, "4").terms["decode"] > 2 * stage(wide, "4").terms["decode"]
    assert max(one.memory for one in tight.stages) <= 0.3 * GIB < max(one.memory for one in wide.stages)


def test_the_plan_is_that_of_the_run():
    made = cost(machine(gib=0.5))
    sizes = LowRankSizes(
        n=30_000, K=2_200, largest_part=1_000, snp_bytes=7_500, similarity_bytes=7_500, item=4, traits=1, columns=5
    )
    plan = plan_low_rank(machine(gib=0.5), sizes)
    assert made.plan == plan
    assert stage(made, "1").memory == plan.stages["G'G"] and stage(made, "2").memory == plan.stages["REML"]
    with pytest.raises(MemoryPlanError):
        cost(machine(gib=0.15))


def test_teams_by_inverse_pay_for_inverting_every_factor():
    """K^3/3 at 0.3 of the GEMM rate in float64; on a grid the rate of GEMM does not enter."""
    study, slow = {"K": 20_000, "m": 22 * 60_000}, Rates.of(FACTS | {"gemm_gflops_double": 25.0}, "x")
    made = [cost(machine(16, 1, gib=1.1), rates, **study) for rates in (RATES, slow)]
    assert made[0].plan.solver == "inverse" and made[0].plan.team_size > 1
    one, other = (stage(each, "4").terms["hand over factor"] for each in made)
    assert other - one == pytest.approx(22 * 20_000**3 / 3 / 16 / 0.3 * (1 / 25e9 - 1 / 50e9))


def test_reading_hides_behind_computing_until_it_is_slower():
    fast, slow = (stage(cost(rates=Rates.of(FACTS | {"read_mb_per_s": mb}, "x")), "4").terms for mb in (1e3, 1.0))
    assert fast["read (waiting)"] == 0
    blocks = {name: slow[name] for name in slow if name not in BESIDE}
    assert slow["read (waiting)"] + sum(blocks.values()) == pytest.approx(22_000 * 30_000 / 4 / 1e6)
    assert all(fast[name] == slow[name] for name in blocks)


def test_one_node_sends_nothing_on_one_rank():
    assert all(one.sent == 0 for one in cost(machine(1, 1)).stages)
    assert stage(cost(), "1").sent > 0


@pytest.mark.parametrize(
    "facts, part",
    [
        ({}, "no rate gemm_gflops_double"),
        ({k: v for k, v in FACTS.items() if k != "trsm_gflops_single"}, "no rate trsm_gflops_single"),
        (FACTS | {"table_rows_per_s": 0}, "an impossible table_rows_per_s = 0"),
        (FACTS | {"read_mb_per_s": "fast"}, "an impossible read_mb_per_s = 'fast'"),
        (FACTS | {"epilogue_numbers_per_s": float("nan")}, "an impossible epilogue_numbers_per_s = nan"),
    ],
)
def test_rates_that_are_missing_or_impossible_are_named(facts, part):
    with pytest.raises(InputError, match=r"old\.json") as caught:
        Rates.of(facts, "old.json")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "changes, part",
    [
        ({"n": 0}, "--samples must be at least 1, not 0"),
        ({"K": 0}, "--similarity-count must be at least 1"),
        ({"q": 0}, "--covariates must be at least 0, not -1"),
        ({"chromosomes": 23, "K": 22}, "--chromosomes"),
        ({"n": 4}, "4 samples are too few for 4 covariates"),
    ],
)
def test_impossible_studies_are_refused(changes, part):
    with pytest.raises(UsageError) as caught:
        LowRankProblem(**{**STUDY, **changes})
    assert part in str(caught.value)


def test_dosages_take_four_bytes():
    """Where hard calls take two bits: in what is read, in blocks, and in the similarity SNPs of a node."""
    hard, soft = ({stage.name: stage for stage in one.stages} for one in (cost(), cost(dosages=True)))
    assert soft["0 similarity SNPs"].read == 16 * hard["0 similarity SNPs"].read == 4 * STUDY["n"] * STUDY["K"]
    assert soft["4 scan"].read - hard["4 scan"].read == (4 - 0.25) * STUDY["n"] * STUDY["m"]
    packed = soft["4 scan"].memory - hard["4 scan"].memory
    assert packed >= (4 - 0.25) * STUDY["n"] * STUDY["K"] / 4  # a rank's share of the similarity SNPs
    made = cli.parse(f"{LINE} --dosages".split()).options
    assert made.problem == LowRankProblem(**STUDY | {"dosages": True})


LINE = "plan low-rank --samples 30000 --snps 22000 --similarity-count 2200 --ranks 4"


def test_the_command_line():
    made = cli.parse(LINE.split()).options
    assert made.problem == LowRankProblem(**STUDY) and made.rates is None
    assert made.machine == Machine(4, 4, None, BASE)
    study = "--chromosomes 5 --traits 3 --covariates 0 --precision double"
    made = cli.parse(f"{LINE} {study} --ranks-per-node 2 --memory 1.5 --rates r --json j".split()).options
    assert made.problem == LowRankProblem(**STUDY | {"chromosomes": 5, "T": 3, "q": 1, "mixed": False})
    assert made.machine == Machine(4, 2, int(1.5 * GIB), BASE) and (made.rates, made.json) == ("r", "j")
    for wrong in ("--ranks-per-node 5", "--memory 0", "--traits 0"):
        with pytest.raises(UsageError, match=wrong.split()[0]):
            cli.parse(f"{LINE} {wrong}".split())


def test_the_text_has_every_stage_the_total_and_the_paper():
    made = cost(machine(8, 2, 4))
    lines = text(made, RATES, Source("rates.json, measured on 2 ranks", 2, 3, 1)).split("\n")
    for one in made.stages:
        assert sum(line.startswith(one.name) for line in lines) == 1
    assert any("8 ranks on 4 nodes, 4 GiB a rank" in line for line in lines)
    assert any(line.startswith("note") and "rates of 2 ranks stand for those of 8" in line for line in lines)
    core_hours = made.seconds * 8 * 3 / 3600
    assert any(f"{core_hours:,.4g} core-hours" in line for line in lines)
    assert "868 CPU-days (other sizes than these)" in lines[-1]
    same = text(cost(machine(8, 2, 4)), RATES, Source("rates.json, measured on 8 ranks", 8, 1, 4))
    assert "\nnote" not in same


def test_more_similarity_snps_than_samples_are_remarked_on():
    for n, remarked in ((3_000, False), (2_200, True)):
        lines = text(cost(n=n), RATES, Source("x", 4, 1, 1)).split("\n")
        assert any(line.startswith("note") and "n x n form" in line for line in lines) == remarked


def test_the_papers_own_sizes_are_compared():
    made = cost(machine(64, 16, 32), n=1_000_000, m=1_000_000, K=50_000)
    line = text(made, RATES, Source("x", 64, 1, 4)).split("\n")[-1]
    days = made.seconds * 64 / 86400
    assert f"predicted here: {days:,.4g}, {PAPER_CPU_DAYS / days:,.0f} times less" in line


def test_the_json_holds_what_the_text_says():
    made = cost()
    found = json.loads(json.dumps(plan_facts(made, RATES, Source("x", 4, 1, 1))))
    assert found["seconds"] == pytest.approx(sum(one["seconds"] for one in found["stages"]))
    assert found["problem"] == STUDY and found["cpu_days"] == pytest.approx(made.seconds * 4 / 86400)


def test_a_file_that_holds_no_rates_is_named(tmp_path):
    path = tmp_path / "rates.json"
    with pytest.raises(StorageError, match="cannot read the rates"):
        read_rates(str(path))
    path.write_text("{")
    with pytest.raises(InputError, match="is not the JSON of mpgls doctor"):
        read_rates(str(path))
    path.write_text("[1]")
    with pytest.raises(InputError, match="holds no object"):
        read_rates(str(path))
    path.write_text(json.dumps(FACTS))
    assert read_rates(str(path)) == FACTS

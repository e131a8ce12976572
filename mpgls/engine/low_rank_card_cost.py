"""What a low-rank run costs on GPUs, one a rank: its stages, with the large products at the rates of a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mpgls.engine.card_rates import CardRates
from mpgls.engine.low_rank_card import CardShare
from mpgls.engine.low_rank_cost import EVALUATION_PASSES, Cost, LowRankProblem, Work, plan_of, predict
from mpgls.engine.rates import PrecisionRates, Rates
from mpgls.errors import UsageError
from mpgls.run.plan import Machine

HALF_PRODUCTS = 3
"""Of two float16 parts of L_c^-1 and two of H; that of the low parts is left out."""
F_PRODUCTS = 7
"""int8 parts of the covariates and traits."""
PASSES = 4
"""Passes over a product in float64: corrections for the means, and the standard deviations."""


def predict_on_cards(problem: LowRankProblem, machine: Machine, rates: Rates, limit: int) -> Cost:
    """The cost on GPUs of ``limit`` bytes each.

    Raises MemoryPlanError where the ranks or the GPUs have no room, UsageError for dosages.
    """
    if problem.dosages:
        raise UsageError("the cost of low-rank on GPUs is known for counts of alleles only: leave out dosages")
    assert rates.card is not None
    plan = plan_of(problem, machine, limit)
    share = plan.on_card
    assert share is not None
    work = CardWork(problem, machine, plan, rates, rates.card, share)
    return Cost(problem, machine, plan, [stage() for stage in work.stages()], on_cards=True)


def predicting(problem: LowRankProblem, rates: Rates, limit: int | None) -> Callable[[Machine], Cost]:
    """What gives the cost on a machine, on its GPUs of ``limit`` bytes each if that is given."""
    if limit is None:
        return lambda machine: predict(problem, machine, rates)
    return lambda machine: predict_on_cards(problem, machine, rates, limit)


@dataclass(frozen=True)
class CardWork(Work):
    """`Work` whose large products, factors and decoding are on cards, where ``share`` lies."""

    card: CardRates
    share: CardShare

    def decoding(self, genotypes: float) -> float:
        """To int8."""
        return genotypes / self.card.decode

    def long_product(self, flop: float, numbers: float) -> float:
        """Of counts, in int8."""
        return flop / self.card.int8 + PASSES * numbers / self.card.sums

    def touching(self, numbers: float) -> float:
        """No columns are made on the host."""
        return 0.0

    def cholesky(self, rates: PrecisionRates, R: int) -> float:
        """On the card of one rank of a team."""
        if not self.share.holds_null:
            return super().cholesky(rates, R)
        return float(self.problem.K) ** 3 / 3 / self.card.potrf

    def solves(self, R: int) -> float:
        """There, beside the factor."""
        if not self.share.holds_null:
            return super().solves(R)
        return EVALUATION_PASSES * float(self.problem.K) ** 2 / self.card.sums

    def hand_over(self) -> float:
        """L_c^-1 to every card."""
        if not self.share.holds_null:
            return super().hand_over()
        nbytes, inverse = 4.0 * self.problem.K**2, float(self.problem.K) ** 3 / 3 / self.card.gemm
        return inverse + self.sending(nbytes * self.machine.ranks) + nbytes / self.card.copy

    def blocks(self, mine: float, passes: int) -> dict[str, float]:
        """G is copied anew where it does not stay on the card, and decoded anew for every block in any case."""
        p, card = self.problem, self.card
        blocks, H = mine / self.plan.block, mine * p.K
        copied = mine * p.snp_bytes + (0.0 if self.share.similarity else blocks * p.K_c * p.snp_bytes)
        decoded = 2 * mine * p.n + blocks * p.n * p.K_c  # tested SNPs are counted as well
        solved = float(p.K) ** 2 * mine
        solve = HALF_PRODUCTS * solved / card.half if p.mixed else solved / card.gemm
        F = 2.0 * F_PRODUCTS * p.n * (p.q + p.T) * mine / card.int8
        return {
            "decode": passes * (copied / card.copy + self.decoding(decoded)),
            "covariate product": passes * F,
            "cross product": passes * self.long_product(2.0 * p.n * p.K_c * mine, mine * p.K_c),
            "solve": p.T * (solve + PASSES * H / card.sums),
            "statistics": p.T * H / card.sums,
        }

    def check(self) -> float:
        """Some SNPs in double, on the ranks."""
        return super().check() if not self.share.holds_null else self.cholesky(self.rates.double, self.machine.ranks)

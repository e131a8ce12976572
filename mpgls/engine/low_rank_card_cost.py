"""What a low-rank run costs on GPUs, one a rank: its stages, with the large products at the rates of a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mpgls.engine.card_rates import CardRates
from mpgls.engine.low_rank_cost import Cost, LowRankProblem, Work, plan_of, predict
from mpgls.engine.rates import PrecisionRates, Rates
from mpgls.engine.similarity_on_card import SHARE
from mpgls.errors import UsageError
from mpgls.run.plan import GIB, Machine

HALF_PRODUCTS = 3
"""Of two float16 parts of L_c^-1 and two of H; that of the low parts is left out."""
F_PRODUCTS = 7
"""int8 parts of the covariates and traits."""
PASSES = 4
"""Passes over a product in float64: corrections for the means, and the standard deviations."""
WIDEST = 8192
"""Tested SNPs of a block: so many that decoding G anew for each costs little."""
OF_BLOCK, BYTES = 0.25, 5.0
"""Of a card's memory, as much may be a block while it is decoded, and bytes that this takes by genotype."""


def predict_on_cards(problem: LowRankProblem, machine: Machine, rates: Rates, limit: int) -> Cost:
    """The cost on GPUs of ``limit`` bytes each; blocks are as wide as --block-size should make them.

    Raises MemoryPlanError where the ranks have no room, UsageError for dosages.
    """
    if problem.dosages:
        raise UsageError("low-rank --device gpu multiplies counts of alleles: leave out --dosages")
    assert rates.card is not None
    widest = min(WIDEST, -(-problem.m_c // machine.ranks), int(OF_BLOCK * limit / (BYTES * problem.n)))
    plan = replace(plan_of(problem, machine), resident=False, team_size=1, solver="inverse", block=max(1, widest))
    plan = replace(plan, why=f"L_c^-1 whole on each GPU of {limit / GIB:.0f} GiB")
    work = CardWork(problem, machine, plan, rates, rates.card, limit)
    return Cost(problem, machine, plan, [stage() for stage in work.stages()], on_cards=True)


def predicting(problem: LowRankProblem, rates: Rates, limit: int | None) -> Callable[[Machine], Cost]:
    """What gives the cost on a machine, on its GPUs of ``limit`` bytes each if that is given."""
    if limit is None:
        return lambda machine: predict(problem, machine, rates)
    return lambda machine: predict_on_cards(problem, machine, rates, limit)


@dataclass(frozen=True)
class CardWork(Work):
    """`Work` whose large products, factors and decoding are on cards of ``limit`` bytes."""

    card: CardRates
    limit: int

    @property
    def factors_fit(self) -> bool:
        """Whether a card holds the triangles of G'G and of a factor."""
        return self.limit >= 8.0 * self.problem.K**2

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
        if not self.factors_fit:
            return super().cholesky(rates, R)
        return float(self.problem.K) ** 3 / 3 / self.card.potrf

    def hand_over(self) -> float:
        """L_c^-1 to every card."""
        if not self.factors_fit:
            return super().hand_over()
        nbytes, inverse = 4.0 * self.problem.K**2, float(self.problem.K) ** 3 / 3 / self.card.gemm
        return inverse + self.sending(nbytes * self.machine.ranks) + nbytes / self.card.copy

    def blocks(self, mine: float, passes: int) -> dict[str, float]:
        """G is copied anew where it does not stay on the card, and decoded anew for every block in any case."""
        p, card = self.problem, self.card
        blocks, H = mine / self.plan.block, mine * p.K
        copied = mine * p.snp_bytes + (blocks * p.K_c * p.snp_bytes if p.K * p.snp_bytes > SHARE * self.limit else 0.0)
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
        return super().check() if not self.factors_fit else self.cholesky(self.rates.double, self.machine.ranks)

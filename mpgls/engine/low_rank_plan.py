"""The plan of a low-rank run: what is resident, teams, strips and blocks, so that every stage fits the memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mpgls.device.card import Card
from mpgls.engine.low_rank_card import CardShare, OnCards
from mpgls.engine.similarity import PANEL
from mpgls.engine.team_solvers import Held, TeamWork, teams_text
from mpgls.la.layout import grid_shape
from mpgls.run.plan import NARROWEST, WIDEST, Machine, Plan, check_team_size, first_that_fits

STRIP = 512
"""Columns of a strip of G'G for each process column."""
WIDEST_ON_CARD = 8192
"""Tested SNPs of a block on a card: so many that decoding G anew for each costs little."""
SLACK = 32 << 20


@dataclass(frozen=True)
class LowRankSizes:
    """What a run is made of: n samples, K similarity SNPs, ``largest_part`` tested SNPs of the largest chromosome.

    Bytes of a packed SNP of the tested and of the similarity genotypes; ``item`` bytes of a streamed number;
    ``columns`` of [X_L | Y]; ``dense``: n x n matrices; ``tested`` columns of a SNP. ``of_card``: bytes of a GPU that
    each rank may use, where they are used.
    """

    n: int
    K: int
    largest_part: int
    snp_bytes: int
    similarity_bytes: int
    item: int
    traits: int
    columns: int
    dense: bool = False
    tested: int = 1
    of_card: int | None = None


@dataclass(frozen=True)
class LowRankPlan(Plan):
    """Sizes that the whole run keeps to, and ``why`` teams solve so."""

    n: int
    K: int
    grid: tuple[int, int]
    resident: bool
    strip: int
    null_team: int
    team_size: int
    solver: str
    why: str
    block: int
    traits_at_once: int
    on_card: CardShare | None = None

    def of_gram(self, card: Card | None) -> tuple[Card | None, bool]:
        """The ``card`` of this rank if null models are made on cards, and whether G'G stays there."""
        if self.on_card is None or not self.on_card.holds_null:
            return None, False
        return card, self.on_card.keeps_gram

    def text(self, machine: Machine) -> str:
        """The plan as it stands in the log."""
        p_r, p_c = self.grid
        how = "decoded once and resident on every node" if self.resident else "decoded in panels from packed genotypes"
        of_card = f"\n{self.on_card.text()}" if self.on_card else ""
        return (
            f"plan: {self.K:,} similarity SNPs, {how}; G'G on a {p_r} x {p_c} grid in strips of {self.strip}; REML on "
            f"teams of {self.null_team}, scan on {teams_text(Held(self.team_size, self.solver), self.why)}; "
            f"SNP blocks of {self.block}\n"
            f"{self.memory_text(machine)}{of_card}"
        )


def plan_low_rank(
    machine: Machine,
    sizes: LowRankSizes,
    team_size: int | None = None,
    block: int | None = None,
    solver: str = "auto",
) -> LowRankPlan:
    """Choose what makes every stage fit the machine's limit, the fastest way first; a GPU holds a whole factor.

    Raises MemoryPlanError that names what would fit, UsageError for impossible wishes.
    """
    check_team_size(team_size, machine)
    team_size = team_size if sizes.of_card is None else 1
    ways = ("more ranks", "fewer similarity SNPs")
    candidates = _that_cards_hold(_candidates(machine, sizes, team_size, block, solver))
    return first_that_fits(machine, candidates, lambda plan: f"the stage {plan.largest}", ways)


def _that_cards_hold(candidates: Iterator[LowRankPlan]) -> Iterator[LowRankPlan]:
    """Those of the candidates; all of them where there are no cards. Raises MemoryPlanError if it is none."""
    none, share = True, None
    for plan in candidates:
        share = plan.on_card
        if share is None or share.peak <= share.limit:
            none = False
            yield plan
    if none and share is not None:
        raise share.too_little()


def _candidates(
    machine: Machine, sizes: LowRankSizes, team_size: int | None, block: int | None, wish: str
) -> Iterator[LowRankPlan]:
    """Most at a loss last: a wide block, then a resident G, then few passes over the tested SNPs, then a small team."""
    p = machine.ranks
    rounds = -(-sizes.largest_part // (p * (WIDEST if sizes.of_card is None else WIDEST_ON_CARD)))
    widest = max(NARROWEST, -(-sizes.largest_part // (p * rounds)))
    widths = [block] if block else [max(NARROWEST, widest >> k) for k in range(4 if sizes.of_card is None else 8)]
    teams = sorted({*(2**k for k in range(p.bit_length())), p})
    at_once = sorted({max(1, sizes.traits >> k) for k in range(sizes.traits.bit_length())}, reverse=True)
    decoded = (True, False) if sizes.of_card is None else (False,)  # on cards G is decoded there
    null_team = {resident: _null_team(machine, sizes, resident, teams) for resident in decoded}
    wanted = [team_size] if team_size else teams
    ways = list(_work(sizes).ways(wish, wanted))
    for held, count, resident in itertools.product(ways, at_once, decoded):
        plans = (_plan(machine, sizes, resident, null_team[resident], held, width, count) for width in widths)
        yield from sorted(plans, key=_copies_gram)


def _copies_gram(plan: LowRankPlan) -> bool:
    """Whether G'G is copied to a card for each factor, which takes longer than narrower blocks do."""
    return plan.on_card is not None and not plan.on_card.keeps_gram


def _plan(
    machine: Machine, sizes: LowRankSizes, resident: bool, null_team: int, held: Held, width: int, at_once: int
) -> LowRankPlan:
    grid, why = grid_shape(machine.ranks), _work(sizes).why(held)
    strip = min(sizes.K, STRIP * grid[1])
    share = None
    if sizes.of_card is not None and not sizes.dense:
        cards = OnCards(sizes.of_card, sizes.n, sizes.K, sizes.snp_bytes, sizes.similarity_bytes, sizes.item)
        share = cards.share(width, at_once)
    plan = LowRankPlan({}, sizes.n, sizes.K, grid, resident, strip, null_team, *held, why, width, at_once, share)
    return replace(plan, stages=stages(machine, sizes, plan))


def _work(sizes: LowRankSizes) -> TeamWork:
    """Of one trait's factor: the SNPs of a chromosome through L_c^-1, or through L^-1 of the n x n form."""
    return TeamWork(sizes.n if sizes.dense else sizes.K, sizes.largest_part * sizes.tested, sizes.item)


def _null_team(machine: Machine, sizes: LowRankSizes, resident: bool, teams: list[int]) -> int:
    """The smallest team whose ranks hold G'G and its factors during REML; all ranks where none does."""
    for team in teams:
        reml = _plan(machine, sizes, resident, team, Held(1, "local"), 1, 1).stages.get("REML", 0)
        if machine.limit is None or reml <= machine.limit:
            return team
    return machine.ranks


def stages(machine: Machine, sizes: LowRankSizes, plan: LowRankPlan) -> dict[str, int]:
    """Bytes a rank of each stage."""
    n, K, item, columns, base = sizes.n, sizes.K, sizes.item, sizes.columns, machine.base
    here, (p_r, p_c) = machine.ranks_per_node, plan.grid
    work, held = _work(sizes), Held(plan.team_size, plan.solver)
    factor, X = work.operator_bytes(held, machine), work.columns_bytes(held, plan.block * sizes.tested, machine)
    G = (n * K * item if plan.resident else 0) // here + K * sizes.similarity_bytes // here + 8 * n * columns
    if sizes.dense:
        square = 8 * n * n // machine.ranks
        return {
            "null models": base + G + 4 * square + n * item * PANEL + SLACK,
            "scan": base + G + 3 * square + factor + X + plan.block * 2 * sizes.snp_bytes + SLACK,
        }
    column = n * item if plan.on_card is None else 0  # on cards they are decoded there
    decoding = column * (-(-plan.strip // p_c) + min(PANEL, K)) + 16 * (K // p_r + 1) * (plan.strip // p_c + 1)
    factor, making = factor * plan.traits_at_once, work.hand_over_bytes(held, machine)
    world = 8 * K * K // machine.ranks
    panels = 0 if plan.resident else column * PANEL
    block = plan.block * sizes.tested * (column + 2 * sizes.snp_bytes + K * (2 * item + 16)) + X + panels
    return {
        "G'G": base + G + decoding + SLACK,
        "REML": base + G + 8 * K * columns + 3 * 8 * K * K // plan.null_team + SLACK,
        "factors": base + G + factor + making + 3 * world + SLACK,
        "scan": base + G + factor + 2 * world + block + SLACK,
    }

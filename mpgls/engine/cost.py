"""What a run costs: the work of each of its phases, and the seconds that a machine's rates make of it.

A command describes its phases beside its plan of memory (scan_cost.py, kinship_cost.py, ...). Here the description
becomes seconds, core-hours, and the numbers of ranks that are sensible. Letters: P ranks, R of them in a team.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import NamedTuple

from mpgls.engine.probes import POTRF_SIZE
from mpgls.engine.rates import Rates
from mpgls.engine.team_solvers import GRID_FALLS, OF_GRID, OF_ROWS, Held
from mpgls.errors import MemoryPlanError
from mpgls.run.hardware import GEMM_REPEATS, GEMM_ROWS
from mpgls.run.plan import Machine, Plan

HALF_SPEED = 400
"""Rows a process row at which p?potrf runs at half its final rate."""
COARSE, FINE = 4, 3
"""Float32 and float64 factorisations of a usual search for h2."""
SNP_SECONDS = 5e-6
"""What a SNP takes while it is decoded, however few its samples are."""
EVALUATION_SECONDS = 0.006
"""What proposing the next h2 takes, whatever the sizes."""
SEARCH_START = 0.08
"""Loading what proposes h2, once."""
SYNCS = 3
"""Times that a block of results is made safe when it is complete: its bytes, its mark, the store's."""
LOAD_PASSES = 2
"""Passes of loading an n x n matrix from its file: placing it, and scaling it."""
OPEN_SECONDS = 0.1
PLOT_SECONDS = 0.4
"""A Manhattan and a QQ plot, or as much of other pictures, by rank 0."""
MANHATTAN_SECONDS = 0.25
"""The slower of the two, which are drawn by a rank each."""
PLOT_START = 0.4
"""Loading what draws, once."""
NUMBERS_OF_LINE = 13
"""Numbers of a table of traits that are read in the time of a row of the summary statistics."""
PROBE_FLOP = GEMM_REPEATS * 2.0 * GEMM_ROWS**3
"""Products in one precision with which a run measures GEMM before its plan."""
ROW_BYTES = 140
"""A row of the table of summary statistics."""
MOST_RANKS = 4096
"""Ranks that are looked at when the sensible number of them is sought."""
WORTH = 2.0
"""Times the fewest core-hours that the fastest sensible number of ranks may cost."""


@dataclass(frozen=True)
class PhaseCost:
    """One phase of a run, named as in its timing table.

    ``work`` of the busiest rank by the name of its rate in `Rates`: flop, genotypes, numbers, rows. ``flop`` and the
    bytes ``read``, ``written`` and ``sent`` are those of all ranks. ``syncs``: times that results are made safe;
    ``seconds``: what takes the same whatever the sizes. ``ahead_of``: the phases that its reading hides behind.
    """

    name: str
    work: Mapping[str, float] = field(default_factory=dict)
    flop: float = 0.0
    read: float = 0.0
    written: float = 0.0
    sent: float = 0.0
    syncs: float = 0.0
    seconds: float = 0.0
    ahead_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunCost:
    """The phases of a run of ``command`` on ``machine``, and the plan of memory that it keeps to.

    ``study`` says the sizes in words, ``how`` what the plan chose; ``on_cards``: each rank has a GPU.
    """

    command: str
    study: str
    machine: Machine
    plan: Plan
    how: str
    phases: tuple[PhaseCost, ...]
    on_cards: bool = False

    def seconds_by_phase(self, rates: Rates) -> dict[str, float]:
        """Wall seconds of each phase, in the order of the run."""
        alone = {phase.name: seconds(phase, rates, self.machine.ranks) for phase in self.phases}
        hidden = {phase.name: sum(alone[name] for name in phase.ahead_of) for phase in self.phases}
        return {"start": rates.startup} | {name: max(0.0, alone[name] - hidden[name]) for name in alone}

    def seconds(self, rates: Rates) -> float:
        """Wall seconds from start to end."""
        return sum(self.seconds_by_phase(rates).values())

    def total(self, what: str) -> float:
        """The sum over phases of ``flop``, ``read``, ``written`` or ``sent``."""
        return sum(getattr(phase, what) for phase in self.phases)


def seconds(phase: PhaseCost, rates: Rates, ranks: int) -> float:
    """Wall seconds of a phase: each kind of work over its rate, and bytes over the rates that move them."""
    work = sum(amount / attrgetter(name)(rates) for name, amount in phase.work.items())
    sent = phase.sent / ranks / rates.send if rates.send else 0.0
    return (
        work + phase.read / rates.read + phase.written / rates.write + sent + phase.syncs * rates.sync + phase.seconds
    )


class Timed(NamedTuple):
    """A number of ranks, and the wall seconds of a run on them."""

    ranks: int
    seconds: float


def sensible_ranks(seconds_on: Callable[[Machine], float], machine: Machine) -> tuple[Timed, Timed] | None:
    """The fewest ranks whose plan fits, and the most that are worth it; None where nothing fits.

    ``seconds_on`` a machine raises MemoryPlanError where the plan does not fit. More ranks are worth it while the
    core-hours are at most WORTH times the fewest; numbers are doubled from the smallest one on. Nodes have as many
    ranks as those of ``machine``.
    """

    def on(ranks: int) -> Timed | None:
        try:
            here = min(ranks, machine.ranks_per_node)
            return Timed(ranks, seconds_on(replace(machine, ranks=ranks, ranks_per_node=here)))
        except MemoryPlanError:
            return None

    smallest = _smallest(on)
    if smallest is None:
        return None
    fastest, fewest, ranks = smallest, smallest.seconds * smallest.ranks, 2 * smallest.ranks
    while ranks <= MOST_RANKS and (made := on(ranks)) is not None:
        fewest = min(fewest, made.seconds * ranks)
        if made.seconds * ranks > WORTH * fewest:
            break
        fastest, ranks = min(fastest, made, key=lambda one: one.seconds), 2 * ranks
    return smallest, fastest


def _smallest(on: Callable[[int], Timed | None]) -> Timed | None:
    """The fewest ranks that fit, up to MOST_RANKS: doubled first, then halved in between."""
    high = 1
    while (found := on(high)) is None:
        high *= 2
        if high > MOST_RANKS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        made = on(middle)
        low, high, found = (middle, high, found) if made is None else (low, middle, made)
    return found


# -- pieces that several commands have -------------------------------------------------------------------------------


def opening(lines: float) -> Iterator[PhaseCost]:
    """Tables of SNPs and samples of so many ``lines``, read by rank 0, and the measuring of GEMM."""
    yield PhaseCost("open and check", {"rows": lines}, seconds=OPEN_SECONDS)
    yield PhaseCost("GEMM rate", {"double.gemm": PROBE_FLOP, "single.gemm": PROBE_FLOP})


def loading(name: str, n: int, count: float, ranks: int, files: int = 1) -> PhaseCost:
    """An n x n matrix from its file, ``count`` times, each made of ``files`` of them (Phi, and a chromosome's sum)."""
    numbers = count * float(n) ** 2
    nbytes = 8 * files * numbers
    return PhaseCost(name, {"epilogue": LOAD_PASSES * numbers / ranks}, read=nbytes, sent=leaving(nbytes, ranks))


def cholesky_work(n: int, R: int, precision: str) -> dict[str, float]:
    """A factorisation of n x n on R ranks: n^3 / 3R operations of each, slower where a rank's part is small."""
    slower = (1 + HALF_SPEED * R**0.5 / n) / (1 + HALF_SPEED / POTRF_SIZE)
    return {f"{precision}.{'potrf' if R == 1 else 'potrf_grid'}": float(n) ** 3 / 3 / R * slower}


def times(count: float, work: Mapping[str, float]) -> dict[str, float]:
    """``work``, done ``count`` times."""
    return {name: count * amount for name, amount in work.items()}


def busiest(m: int, parts: int, block: int, ranks: int) -> float:
    """SNPs of the busiest rank: the blocks of each of ``parts`` equal parts of m SNPs are dealt to ranks anew."""
    of_part = -(-m // parts)
    return float(parts * min(of_part, block * -(-of_part // (block * ranks))))


def team_rate(held: Held) -> float:
    """Rate of a team's product with its operator, as a share of the GEMM rate of its ranks."""
    return {"local": 1.0, "inverse": OF_ROWS, "grid": OF_GRID / (held.team / 2) ** GRID_FALLS}[held.solver]


def dealt_to_team(held: Held, snps: float, columns: float, packed: float) -> float:
    """Bytes in which so many SNPs travel within their teams.

    On a grid each column goes to the ranks that hold its rows; rows of the inverse need all ``packed`` SNPs everywhere.
    """
    return {"local": 0.0, "inverse": packed * (held.team - 1), "grid": leaving(columns, held.team)}[held.solver] * snps


def search_seconds(evaluations: float) -> float:
    """Seconds in which the values of h2 of so many evaluations are proposed."""
    return EVALUATION_SECONDS * evaluations + (SEARCH_START if evaluations else 0.0)


def scan_plots(T: int, ranks: int) -> float:
    """Seconds of the two plots of each of T traits."""
    return PLOT_START + T * (PLOT_SECONDS if ranks == 1 else MANHATTAN_SECONDS)


def leaving(nbytes: float, ranks: int) -> float:
    """The part of ``nbytes``, spread over the ranks and dealt anew, that leaves its rank."""
    return nbytes * (ranks - 1) / ranks

"""What a low-rank run costs: operations, bytes, memory and seconds of each stage, from rates that were measured.

Letters as in low_rank.py: n samples, m tested SNPs, K similarity SNPs, K_c of them without chromosome c, T traits, q
covariates with the intercept, P ranks, teams of R ranks. A stage's seconds are a sum of terms, each the work of the
busiest rank over the rate of that work; a term has the name of its phase in the timing table of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mpgls.engine.cost import (
    COARSE,
    FINE,
    HALF_SPEED,
    LOAD_PASSES,
    OPEN_SECONDS,
    PROBE_FLOP,
    ROW_BYTES,
    SNP_SECONDS,
    SYNCS,
    scan_plots,
    search_seconds,
)  # fmt: skip
from mpgls.engine.low_rank_plan import LowRankPlan, LowRankSizes, plan_low_rank
from mpgls.engine.probes import POTRF_SIZE
from mpgls.engine.rates import PrecisionRates, Rates
from mpgls.engine.similarity import PANEL
from mpgls.engine.team_solvers import OF_INVERSION
from mpgls.errors import UsageError
from mpgls.run.plan import Machine
from mpgls.study.genotypes import bytes_per_dosages, bytes_per_snp

EVALUATION_PASSES = 2
"""Passes over G'G of an evaluation of REML beside the factorisation: scaling it, and two triangular solves."""
PRODUCT_SHARE = 0.93
"""Rate of products of long columns, D'D and D'X, over that of GEMM with square matrices."""
PROJECT_PASSES = 2
"""Passes over G of G'F: making a panel float64, and multiplying it."""
CHECKED = 32
"""SNPs that a run in mixed precision solves in double as well."""


@dataclass(frozen=True)
class LowRankProblem:
    """The sizes of a study. ``q`` counts the intercept; ``mixed``: the large products run in float32.

    ``dosages``: these are read, not hard calls.
    """

    n: int
    m: int
    K: int
    chromosomes: int = 22
    T: int = 1
    q: int = 4
    mixed: bool = True
    dosages: bool = False

    def __post_init__(self) -> None:
        for name, value in (("samples", self.n), ("snps", self.m), ("similarity-count", self.K), ("traits", self.T)):
            if value < 1:
                raise UsageError(f"--{name} must be at least 1, not {value}")
        if self.q < 1:
            raise UsageError(f"--covariates must be at least 0, not {self.q - 1}")
        if not 1 <= self.chromosomes <= min(self.m, self.K):
            raise UsageError(
                f"--chromosomes must be from 1 to {min(self.m, self.K):,}, the SNPs there are, not {self.chromosomes}"
            )
        if self.q >= self.n:
            raise UsageError(f"{self.n} samples are too few for {self.q} covariates with the intercept")

    @property
    def item(self) -> int:
        """Bytes of a streamed number."""
        return 4 if self.mixed else 8

    @property
    def snp_bytes(self) -> int:
        """Bytes of a SNP once it is read."""
        return bytes_per_dosages(self.n) if self.dosages else bytes_per_snp(self.n)

    @property
    def K_c(self) -> int:
        """Similarity SNPs without an average chromosome's."""
        return self.K - self.K // self.chromosomes if self.chromosomes > 1 else self.K

    @property
    def m_c(self) -> int:
        """Tested SNPs of an average chromosome."""
        return -(-self.m // self.chromosomes)


@dataclass(frozen=True)
class Stage:
    """One stage of the run. ``flop`` and the bytes are sums over ranks, ``memory`` is bytes of a rank.

    ``terms`` are its seconds by phase.
    """

    name: str
    flop: float
    read: float
    written: float
    sent: float
    memory: float
    terms: dict[str, float]

    @property
    def seconds(self) -> float:
        """Wall seconds."""
        return sum(self.terms.values())


@dataclass(frozen=True)
class Cost:
    """All stages, and the plan that they keep to; ``on_cards``: each rank has a GPU."""

    problem: LowRankProblem
    machine: Machine
    plan: LowRankPlan
    stages: list[Stage]
    on_cards: bool = False

    @property
    def seconds(self) -> float:
        """Wall seconds from start to end."""
        return sum(stage.seconds for stage in self.stages)


def predict(problem: LowRankProblem, machine: Machine, rates: Rates) -> Cost:
    """The cost of ``problem`` on ``machine`` with K x K matrices. Raises MemoryPlanError where it does not fit."""
    plan = plan_of(problem, machine)
    work = Work(problem, machine, plan, rates)
    return Cost(problem, machine, plan, [stage() for stage in work.stages()])


def plan_of(problem: LowRankProblem, machine: Machine, limit: int | None = None) -> LowRankPlan:
    """The plan of a run on ranks, or on a GPU of ``limit`` bytes each. Raises MemoryPlanError where it does not fit."""
    sizes = LowRankSizes(
        n=problem.n,
        K=problem.K,
        largest_part=problem.m_c,
        snp_bytes=problem.snp_bytes,
        similarity_bytes=problem.snp_bytes,
        item=problem.item,
        traits=problem.T,
        columns=problem.q + problem.T,
        of_card=limit,
    )
    return plan_low_rank(machine, sizes)


@dataclass(frozen=True)
class Work:
    """The stages of low_rank.py, each with its terms."""

    problem: LowRankProblem
    machine: Machine
    plan: LowRankPlan
    rates: Rates

    @property
    def streamed(self) -> PrecisionRates:
        """The rates of the large products and solves."""
        return self.rates.single if self.problem.mixed else self.rates.double

    @property
    def nodes(self) -> int:
        """Nodes of the machine."""
        return -(-self.machine.ranks // self.machine.ranks_per_node)

    def stages(self) -> list[Callable[[], Stage]]:
        """In the order of the run."""
        return [self.start, self.similarity, self.gram, self.null, self.scan, self.report]

    def start(self) -> Stage:
        """Start of the processes, the tables of SNPs and samples that rank 0 reads, and the measuring of GEMM."""
        lines = self.problem.m + 3.0 * self.problem.n  # .bim; .fam, traits, covariates
        terms = {
            "start": self.rates.startup,
            "open and check": OPEN_SECONDS + lines / self.rates.rows,
            "GEMM rate": sum(PROBE_FLOP / each.gemm for each in (self.rates.double, self.rates.single)),
        }
        return Stage("start", 0.0, 0.0, 0.0, 0.0, self.machine.base, terms)

    def similarity(self) -> Stage:
        """Stage 0: G packed once a node and counted; decoded once a node where it stays; G'F."""
        p, P, here = self.problem, self.machine.ranks, self.machine.ranks_per_node
        genotypes = float(p.n) * p.K
        read = self.nodes * p.K * float(p.snp_bytes)
        decoded = genotypes / here if self.plan.resident else genotypes / P
        terms = {
            "read similarity SNPs": read / self.rates.read,
            "stage 0": genotypes / P / self.rates.count,
            "decode G": decoded / self.streamed.decode + self.touching(decoded if self.plan.resident else 0.0),
            "G'F": genotypes / P * PROJECT_PASSES / self.rates.double.products,
        }
        return Stage(
            "0 similarity SNPs", 2.0 * genotypes * (p.q + p.T), read, 0.0, 0.0, self.plan.stages["scan"], terms
        )

    def gram(self) -> Stage:
        """Stage 1: G'G, rows from the diagonal on of each strip of columns."""
        p, P, (p_r, p_c) = self.problem, self.machine.ranks, self.plan.grid
        strips = [(first, min(self.plan.strip, p.K - first)) for first in range(0, p.K, self.plan.strip)]
        entries = sum(float(p.K - first) * width for first, width in strips)
        decoded = sum(p.n * ((p.K - first) / p_r + width / p_c) for first, width in strips)
        panel = min(PANEL, p.K / p_r)
        flop = 2.0 * p.n * entries
        terms = {
            "decode": self.decoding(decoded) + self.touching(p.n * (p.K / p_c + len(strips) * panel)),
            "G'G": self.long_product(flop / P, entries / P),
            "write G'G": 8.0 * entries / self.rates.write + self.sending(8.0 * entries) + len(strips) * self.safe(),
        }
        return Stage("1 G'G", flop, 0.0, 8.0 * p.K**2, self.sent(8.0 * entries), self.plan.stages["G'G"], terms)

    def decoding(self, genotypes: float) -> float:
        """Seconds in which a rank decodes so many."""
        return genotypes / self.streamed.decode

    def long_product(self, flop: float, numbers: float) -> float:
        """Seconds of so many operations of a rank in products of long columns, which put ``numbers`` right."""
        return flop / (PRODUCT_SHARE * self.streamed.gemm) + numbers / self.rates.epilogue

    def null(self) -> Stage:
        """Stage 2: REML for each chromosome and trait, chromosomes dealt to teams of R ranks."""
        p, R = self.problem, self.plan.null_team
        teams = min(max(1, self.machine.ranks // R), p.chromosomes)
        models = -(-p.chromosomes // teams) * p.T
        terms = {
            "load G'G": self.load(teams, R),
            "REML, single": models * COARSE * self.cholesky(self.rates.single, R),
            "REML, double": models * FINE * self.cholesky(self.rates.double, R),
            "REML, sums": models * (COARSE + FINE) * self.solves(R),
            "REML, search": search_seconds(models * (COARSE + FINE)),
        }
        flop = p.chromosomes * p.T * (COARSE + FINE) * p.K**3 / 3
        read = teams * 8.0 * p.K**2
        return Stage("2 REML", flop, read, 0.0, self.sent(read, R), self.plan.stages["REML"], terms)

    def scan(self) -> Stage:
        """Stage 4: for each chromosome its factors, then its blocks of tested SNPs."""
        p, P, B = self.problem, self.machine.ranks, self.plan.block
        models, passes = p.chromosomes * p.T, -(-p.T // self.plan.traits_at_once)
        # the busiest rank's SNPs: the blocks of each chromosome are dealt anew
        mine = float(p.chromosomes * min(p.m_c, B * -(-p.m_c // (B * P))))
        blocks = self.blocks(mine, passes)
        read = passes * p.m * float(p.snp_bytes)
        terms = {
            "load G'G": self.load(1, P),
            "REML, double": models * self.cholesky(self.rates.double, P),
            "REML, sums": models * self.solves(P),
            "hand over factor": models * self.hand_over(),
            "read (waiting)": max(0.0, read / self.rates.read - sum(blocks.values())),  # the next block is read ahead
            **blocks,
            "write": models * self.safe(),
        }
        if p.mixed:
            terms["check in double"] = self.check()
        matrix = float(p.K) ** 2
        factorisations = models * (2 if self.plan.solver == "inverse" else 1)
        flop = p.m * (2.0 * p.n * p.K_c * passes + p.T * matrix) + factorisations * matrix * p.K / 3
        memory = max(self.plan.stages["factors"], self.plan.stages["scan"])
        sent = self.sent(8.0 * matrix) + models * self.sent(p.item * matrix * self.copies())
        return Stage("4 scan", flop, read + 8.0 * matrix, 32.0 * p.m * p.T, sent, memory, terms)

    def blocks(self, mine: float, passes: int) -> dict[str, float]:
        """What ``mine`` tested SNPs cost a rank, each taken ``passes`` times."""
        p, R = self.problem, self.plan.team_size
        decoded = mine * p.n + (0.0 if self.plan.resident else mine / self.plan.block * p.n * p.K_c)
        H = mine * p.K
        new = p.chromosomes * p.n * min(self.plan.block, p.m_c)
        moved = self.sending(p.item * H * R, R)  # a team of several ranks deals the rows of H to them
        return {
            "decode": passes * (decoded / self.streamed.decode + mine * p.n / self.rates.count + SNP_SECONDS * mine)
            + self.touching(new),
            "covariate product": passes * mine * p.n / self.streamed.products,
            "cross product": passes * 2.0 * p.n * p.K_c * mine / (PRODUCT_SHARE * self.streamed.gemm),
            "scale products": passes * H / self.rates.epilogue,
            "solve": p.T * (p.K * H / self.streamed.trsm + H / self.rates.scale + moved),
            "statistics": p.T * H / self.streamed.products,
        }

    def report(self) -> Stage:
        """Tables by all ranks, plots by a rank each."""
        p = self.problem
        rows = float(p.m) * p.T
        terms = {"tables": rows / self.machine.ranks / self.rates.rows, "plots": scan_plots(p.T, self.machine.ranks)}
        return Stage("tables, plots", 0.0, 32.0 * rows, ROW_BYTES * rows, 0.0, self.machine.base, terms)

    def check(self) -> float:
        """Seconds of solving some SNPs in double: G decoded once more, their products, one factor."""
        p, P, double = self.problem, self.machine.ranks, self.rates.double
        genotypes = float(p.n) * p.K / P
        return genotypes / double.decode + 2 * CHECKED * genotypes / double.gemm + self.cholesky(double, P)

    def touching(self, numbers: float) -> float:
        """Seconds that memory for so many streamed numbers costs when it is first written."""
        return self.problem.item * numbers / self.rates.touch

    def safe(self) -> float:
        """Seconds until what was written is on disk and marked as done."""
        return SYNCS * self.rates.sync

    def cholesky(self, rates: PrecisionRates, R: int) -> float:
        """Seconds of one factorisation on R ranks: slow where a rank's part is small."""
        K, rate = self.problem.K, rates.potrf if R == 1 else rates.potrf_grid
        slower = (1 + HALF_SPEED * R**0.5 / K) / (1 + HALF_SPEED / POTRF_SIZE)
        return K**3 / 3 / R / rate * slower

    def solves(self, R: int) -> float:
        """Seconds of an evaluation of REML on R ranks beside the factorisation."""
        return EVALUATION_PASSES * float(self.problem.K) ** 2 / R / self.rates.scale

    def load(self, teams: int, R: int) -> float:
        """Seconds until every one of ``teams`` teams of R ranks has G'G from the file."""
        nbytes = 8.0 * self.problem.K**2
        placing = LOAD_PASSES * float(self.problem.K) ** 2 / R / self.rates.epilogue
        return teams * nbytes / self.rates.read + placing + self.sending(nbytes, R)

    def copies(self) -> int:
        """Copies of a factor on the machine: one a node, or one a team."""
        R = self.plan.team_size
        return self.nodes if R == 1 else max(1, self.machine.ranks // R)

    def hand_over(self) -> float:
        """Seconds until each team of the scan has its own factor."""
        p, P = self.problem, self.machine.ranks
        dealing = float(p.K) ** 2 / P / self.rates.scale + self.sending(p.item * float(p.K) ** 2 * self.copies())
        if self.plan.solver != "inverse":
            return dealing
        return dealing + float(p.K) ** 3 / 3 / P / (OF_INVERSION * self.rates.double.gemm)

    def sent(self, nbytes: float, R: int | None = None) -> float:
        """The part of ``nbytes``, spread over R ranks and dealt anew, that leaves its rank."""
        R = self.machine.ranks if R is None else R
        return nbytes * (R - 1) / R

    def sending(self, nbytes: float, R: int | None = None) -> float:
        """Seconds in which R ranks exchange ``nbytes`` among themselves."""
        R = self.machine.ranks if R is None else R
        return self.sent(nbytes, R) / R / self.rates.send if R > 1 and self.rates.send else 0.0

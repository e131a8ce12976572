"""Options that say how a run goes and by which model, which several commands share.

`run.genotype_options` and `run.study_options` have those that say what is analysed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.errors import UsageError
from mpgls.model.gls import SnpTest
from mpgls.run.blup_options import BlupOptions
from mpgls.run.coding_options import InteractionOptions
from mpgls.run.condition_options import ConditionOptions
from mpgls.run.genotype_options import GenotypeOptions
from mpgls.run.options import Check, Options, at_least, flag, option, required, the_file
from mpgls.run.study_options import ScaleOptions, TraitOptions
from mpgls.run.table_options import TableOptions

PRECISIONS = ("double", "mixed")
STALL_SECONDS = 600.0
"""How long nothing may move by default before a run ends itself."""
CHECKPOINT_SECONDS = 15.0
"""How often results are synced and marked as done by default: what is lost at most when a run is killed."""
HERITABILITY = Check("at least 0 and below 1", lambda value: 0 <= value < 1)
POSITIVE = Check("positive", lambda value: 0 < value < math.inf)


def team_size(text: str) -> int | None:
    """The ranks of a team, None for auto. Raises UsageError."""
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--team-size must be auto or a number of ranks, not {text!r}")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Options):
    """What every command has that makes files."""

    out: str = required("prefix of all output files", metavar="PREFIX", changes_results=False)
    resume: bool = flag("go on where a stopped run left off; leave a complete one as it is", changes_results=False)

    stall: float = option(
        STALL_SECONDS,
        f"seconds in which no rank gets on, after which the run ends ({STALL_SECONDS:g}); 0: never",
        metavar="SEC",
        check=at_least(0, " seconds"),
        changes_results=False,
    )
    max_hours: float | None = option(
        None,
        "stop in order before so many hours are over; default: before the job's end where the scheduler says it",
        metavar="H",
        check=POSITIVE,
        changes_results=False,
    )

    progress: bool = flag(
        "say in PREFIX.progress.jsonl how far the run is, in lines of JSON", group="output", changes_results=False
    )

    @property
    def is_dry(self) -> bool:
        """Whether the run stops before the work, and makes no file but its log."""
        return False

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of its tables, where the user may choose them."""
        return ()

    def lacks_tables(self, manifest: Mapping[str, Any]) -> bool:
        """Whether the run that has ended, with this ``manifest``, wrote no tables in a format that is wanted."""
        return False

    @property
    def record(self) -> str:
        """What the run's own PREFIX.json and .log have before these endings, so that they stand beside others."""
        return ""

    @property
    def memory(self) -> float | None:
        """GiB that a rank may use; None: no limit."""
        return None

    @property
    def threads(self) -> int | None:
        """BLAS threads of a rank; None: as many as there are cores for it."""
        return None


@dataclass(frozen=True, kw_only=True)
class RunOptions(OutputOptions):
    """What every computing command has."""

    memory: float | None = option(
        None,
        "memory a rank may use; the plan keeps within it",
        metavar="GIB",
        check=POSITIVE,
        changes_results=False,
    )
    threads: int | None = option(
        None,
        "BLAS threads a rank; default: cores / ranks of the node",
        metavar="T",
        check=at_least(1),
        changes_results=False,
    )


@dataclass(frozen=True, kw_only=True)
class DryRunOptions(RunOptions):
    """Of commands whose cost can be told before the work."""

    dry_run: bool = flag(
        "say what the run would cost in memory, hours and bytes, and stop before the work; it leaves "
        "PREFIX.dry-run.log only",
        changes_results=False,
    )
    rates: str | None = option(
        None,
        "rates of mpgls doctor --json FILE for --dry-run; default: measured here, now",
        metavar="FILE",
        reads=the_file,
        changes_results=False,
    )

    def check(self) -> None:
        super().check()
        if self.rates is not None and not self.dry_run:
            raise UsageError("--rates belongs to --dry-run: a run needs none")
        if self.dry_run and self.resume:
            raise UsageError("--dry-run has nothing to resume: give either --dry-run or --resume")

    @property
    def is_dry(self) -> bool:
        """Whether it was asked for."""
        return self.dry_run

    @property
    def record(self) -> str:
        """Of a dry run, whose log stands beside that of a run."""
        return ".dry-run" if self.dry_run else ""


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions(DryRunOptions):
    """Of commands that mark what is done while they run."""

    checkpoint: float = option(
        CHECKPOINT_SECONDS,
        f"seconds between two marks of what is done ({CHECKPOINT_SECONDS:g})",
        metavar="SEC",
        check=at_least(0, " seconds"),
        changes_results=False,
    )


@dataclass(frozen=True, kw_only=True)
class BlockOptions(Options):
    """Of commands that stream SNPs."""

    block_size: int | None = option(
        None,
        "SNPs of a block; default: chosen by the plan",
        metavar="B",
        check=at_least(1),
        changes_results=False,
    )


@dataclass(frozen=True, kw_only=True)
class PlotOptions(Options):
    """Of commands that draw."""

    no_plots: bool = flag("do not draw plots", group="output", changes_results=False)


@dataclass(frozen=True, kw_only=True)
class TeamOptions(Options):
    """Of commands whose ranks hold an operator in teams."""

    team_size: int | None = option(
        None,
        "ranks that hold one copy of the factor or basis together; auto: as few as memory allows",
        metavar="auto|R",
        parse=team_size,
        check=at_least(1),
        changes_results=False,
    )


@dataclass(frozen=True, kw_only=True)
class SolverOptions(TeamOptions):
    """Of commands whose operator is L^-1 or Z'."""

    solver: str = option(
        "auto",
        "how teams of several ranks hold it: inverse, each its rows of L^-1 or Z'; grid, with a distributed solve or "
        "product; auto: what should be faster",
        choices=("auto", "inverse", "grid"),
        changes_results=False,
    )


@dataclass(frozen=True, kw_only=True)
class PrecisionOptions(Options):
    """How the large products are computed."""

    precision: str = option(
        "double",
        "mixed streams the large products and solves in single precision",
        group="model",
        choices=PRECISIONS,
    )

    @property
    def dtype(self) -> type:
        """Element type of what is streamed."""
        return np.float64 if self.precision == "double" else np.float32


@dataclass(frozen=True, kw_only=True)
class ModelOptions(PrecisionOptions):
    """The mixed model of a scan."""

    h2: float | None = option(
        None,
        "heritability to use instead of the REML estimate",
        group="model",
        metavar="X",
        check=HERITABILITY,
    )
    h2_file: str | None = option(
        None,
        "table with columns TRAIT and H2, with --loco also CHR; what it does not have is estimated",
        group="model",
        metavar="FILE",
        reads=the_file,
    )
    test: str = option(
        "t",
        "t re-estimates the variance for each SNP (FaST-LMM); wald keeps the null model's (GCTA)",
        group="model",
        choices=("t", "wald"),
    )

    def check(self) -> None:
        super().check()
        if self.h2 is not None and self.h2_file is not None:
            raise UsageError("give either --h2 or --h2-file")

    @property
    def snp_test(self) -> SnpTest:
        """How SNPs are tested."""
        return SnpTest(self.test, self.precision)


@dataclass(frozen=True, kw_only=True)
class TraitScanOptions(
    GenotypeOptions,
    InteractionOptions,
    TraitOptions,
    ScaleOptions,
    ConditionOptions,
    ModelOptions,
    SolverOptions,
    BlockOptions,
    PlotOptions,
    TableOptions,
    BlupOptions,
    CheckpointOptions,
):
    """A mixed-model scan of traits one by one: single-trait and low-rank."""

    def check(self) -> None:
        super().check()
        if self.several_columns and self.dry_run:
            raise UsageError(f"--dry-run does not know what {self.several_columns} costs: leave one of them out")
        if self.model == "genotypic" and self.x_model == 1:
            raise UsageError("--model genotypic needs --x-model 2: a man with one copy is no heterozygote")

    @property
    def snp_test(self) -> SnpTest:
        """How SNPs are tested."""
        return dataclasses.replace(super().snp_test, robust=self.robust == "hc3")


@dataclass(frozen=True, kw_only=True)
class RatioOptions(ModelOptions):
    """Whether each SNP has a variance ratio of its own."""

    ratio: str = option(
        "null",
        "null estimates h2 once, without a SNP; snp estimates it anew with each SNP in the model, as GEMMA does",
        group="model",
        choices=("null", "snp"),
    )
    test: str = option(
        "t",
        "t re-estimates the variance for each SNP; wald keeps the null model's (GCTA); with --ratio snp, lrt adds the "
        "likelihood ratio test by ML to t, score the score test, and all adds both (GEMMA's -lmm 4)",
        group="model",
        choices=("t", "wald", "lrt", "score", "all"),
    )

    def check(self) -> None:
        super().check()
        if self.ratio == "null" and self.test not in ("t", "wald"):
            raise UsageError(f"--test {self.test} needs --ratio snp")
        if self.ratio == "snp" and self.test == "wald":
            raise UsageError("--test wald keeps the variances of the null model, so it cannot have --ratio snp")
        if self.ratio == "snp" and (self.h2 is not None or self.h2_file is not None):
            raise UsageError("--ratio snp estimates h2 with each SNP: give no --h2 or --h2-file beside it")

    @property
    def snp_test(self) -> SnpTest:
        """How SNPs are tested."""
        if self.ratio == "null":
            return super().snp_test
        tests = ("t", "lrt", "score") if self.test == "all" else ("t", self.test)
        return SnpTest("t", self.precision, tests)


@dataclass(frozen=True, kw_only=True)
class EigensolverOptions(Options):
    """How a kinship is decomposed."""

    eigensolver: str = option(
        "auto",
        "auto: SLEPc's ELPA where it has it, otherwise ScaLAPACK's divide and conquer",
        group="kinship",
        choices=("auto", "slepc", "scalapack"),
    )
    slepc_options: str = option(
        "", "options for SLEPc, such as '-eps_tol 1e-9'", group="kinship", metavar="TEXT", changes_results=False
    )

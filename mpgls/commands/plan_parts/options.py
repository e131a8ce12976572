"""The options of mpgls plan: the sizes of a study, and a machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mpgls.engine.low_rank_cost import LowRankProblem
from mpgls.errors import UsageError
from mpgls.run.option_groups import POSITIVE, PRECISIONS
from mpgls.run.options import at_least, flag, option, required, the_file
from mpgls.run.plan import GIB, Machine
from mpgls.run.planned_device_options import PlannedDeviceOptions

BASE = 150 << 20
"""Bytes of a rank before it has read anything: Python, NumPy, MPI."""
SCAN = ("snps", "dosages", "traits", "covariates", "loco", "chromosomes", "from_eigen", "precision")
SIZES = {
    "kinship": ("snps", "dosages", "loco", "chromosomes"),
    "eigen": (),
    "single-trait": SCAN,
    "multi-trait": SCAN,
    "low-rank": ("snps", "dosages", "similarity_count", "chromosomes", "traits", "covariates", "precision"),
    "vgwas": ("snps", "dosages", "voxels", "permutations", "covariates", "precision"),
    "ridge": ("snps", "dosages", "traits", "permutations", "covariates", "precision"),
}
"""What the cost of each command depends on, beside the samples."""
NEEDED = ("snps", "similarity_count", "voxels")
"""Of these sizes those that have no default."""
ON_CARDS = ("kinship", "single-trait", "multi-trait", "low-rank", "vgwas", "ridge")
"""Commands whose cost on GPUs is known."""
EXACT = ("single-trait", "multi-trait")
"""Commands that have --precision exact on GPUs."""
IN_SINGLE = ("low-rank", "vgwas")
"""Commands that are planned in mixed precision unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Plan(PlannedDeviceOptions):
    """Options of ``mpgls plan``; what is not given has the default that ``what`` has."""

    command = "plan"
    summary = "what a run would cost in operations, bytes, memory and hours, before it is started"
    example = "mpgls plan single-trait --samples 100000 --snps 1000000 --loco --ranks 64 --rates rates.json"

    what: str = required(
        f"the command whose run is planned: {', '.join(SIZES)}", metavar="COMMAND", choices=tuple(SIZES),
        positional=True,
    )  # fmt: skip
    samples: int = required("number of samples", group="study", metavar="N", check=at_least(1))
    snps: int | None = option(None, "number of tested SNPs", group="study", metavar="M", check=at_least(1))
    similarity_count: int | None = option(
        None, "number of similarity SNPs of low-rank", group="study", metavar="K", check=at_least(1)
    )
    voxels: int | None = option(None, "number of voxels of vgwas", group="study", metavar="V", check=at_least(1))
    traits: int | None = option(
        None, "number of traits, or of targets of ridge (1)", group="study", metavar="T", check=at_least(1)
    )
    permutations: int | None = option(
        None, "permutations of vgwas and ridge (1000)", group="study", metavar="P", check=at_least(0)
    )
    covariates: int | None = option(
        None, "covariates beside the intercept (3)", group="study", metavar="Q", check=at_least(0)
    )
    loco: bool = flag("leave one chromosome out; low-rank does it always", group="study")
    chromosomes: int | None = option(
        None, "chromosomes left out in turn (22)", group="study", metavar="C", check=at_least(1)
    )
    from_eigen: bool = flag("an eigendecomposition is given: the scan has --eigen", group="study")
    dosages: bool = flag("dosages are read, not hard calls", group="study")
    precision: str = option(
        "auto",
        "mixed streams the large products in single precision; exact, of scans on GPUs, in whole numbers; auto: "
        "mixed for low-rank and vgwas, else double",
        group="study",
        choices=("auto", *PRECISIONS, "exact"),
    )
    ranks: int = required("number of ranks", group="machine", metavar="P", check=at_least(1))
    ranks_per_node: int | None = option(
        None, "ranks of a node; default: all on one", group="machine", metavar="R", check=at_least(1)
    )
    memory: float | None = option(
        None, "memory a rank may use; default: no limit", group="machine", metavar="GIB", check=POSITIVE
    )
    rates: str | None = option(
        None,
        "rates that mpgls doctor --json FILE measured there; default: measured here, now",
        group="machine",
        metavar="FILE",
        reads=the_file,
    )
    json: str | None = option(None, "write the plan as JSON as well", metavar="FILE")

    def check(self) -> None:
        super().check()
        self._check_sizes()
        if self.device == "gpu" and self.what not in ON_CARDS:
            raise UsageError(f"plan --device gpu knows {', '.join(ON_CARDS)}, not {self.what}")
        if self.precision == "exact" and (self.device != "gpu" or self.what not in EXACT):
            raise UsageError(f"--precision exact is there for {' and '.join(EXACT)} --device gpu only")
        if self.ranks_per_node is not None and self.ranks_per_node > self.ranks:
            raise UsageError(f"--ranks-per-node must be from 1 to --ranks, {self.ranks}, not {self.ranks_per_node}")
        both = self.json is not None and self.rates is not None
        if both and os.path.realpath(str(self.json)) == os.path.realpath(str(self.rates)):
            raise UsageError(f"the plan would overwrite its rates {self.rates}: give another --json")

    def _check_sizes(self) -> None:
        """UsageError for a size that is missing, that the command does not have, or that cannot be."""
        for name in sorted({name for sizes in SIZES.values() for name in sizes}):
            written, given = f"--{name.replace('_', '-')}", getattr(self, name) not in (None, False, "auto")
            if given and name not in SIZES[self.what]:
                raise UsageError(f"plan {self.what} does not depend on {written}: leave it out")
            if not given and name in NEEDED and name in SIZES[self.what]:
                raise UsageError(f"plan {self.what} needs {written}")
        if self.what == "low-rank":
            _ = self.problem  # says what is wrong with it
            return
        if "covariates" in SIZES[self.what] and self.q >= self.samples:
            raise UsageError(f"{self.samples} samples are too few for {self.q} covariates with the intercept")
        if self.chromosomes is not None and not self.loco:
            raise UsageError("--chromosomes needs --loco: otherwise none is left out")
        if self.loco and self.parts > (self.snps or 0):
            raise UsageError(f"--chromosomes must be from 1 to {self.snps:,}, the SNPs there are, not {self.parts}")
        if self.loco and self.from_eigen:
            raise UsageError("--loco and --from-eigen do not go together: a chromosome is left out of a kinship")

    @property
    def q(self) -> int:
        """Covariates with the intercept."""
        return (3 if self.covariates is None else self.covariates) + 1

    @property
    def t(self) -> int:
        """Traits."""
        return self.traits or 1

    @property
    def parts(self) -> int:
        """Chromosomes left out in turn; 1 where none is."""
        return (self.chromosomes or 22) if self.loco or self.what == "low-rank" else 1

    @property
    def mixed(self) -> bool:
        """Whether the large products are in single precision."""
        return self.what in IN_SINGLE if self.precision == "auto" else self.precision == "mixed"

    @property
    def permuted(self) -> int:
        """Permutations."""
        return 1000 if self.permutations is None else self.permutations

    @property
    def problem(self) -> LowRankProblem:
        """The sizes of a low-rank study. Raises UsageError."""
        assert self.snps is not None and self.similarity_count is not None
        return LowRankProblem(
            self.samples, self.snps, self.similarity_count, self.parts, self.t, self.q, self.mixed, self.dosages
        )

    @property
    def machine(self) -> Machine:
        """What the plan must fit."""
        limit = None if self.memory is None else int(self.memory * GIB)
        here = min(self.ranks, self.gpus_per_node or self.ranks_per_node or self.ranks)
        return Machine(self.ranks, here, limit, BASE)

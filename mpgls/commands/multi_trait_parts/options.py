"""The options of mpgls multi-trait."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.errors import UsageError
from mpgls.run.coding_options import ColumnOptions
from mpgls.run.condition_options import ConditionOptions
from mpgls.run.device_options import DevicePrecisionOptions
from mpgls.run.genotype_options import GenotypeOptions
from mpgls.run.option_groups import (
    BlockOptions,
    CheckpointOptions,
    EigensolverOptions,
    PlotOptions,
    SolverOptions,
)
from mpgls.run.refit_options import RefitOptions
from mpgls.run.study_options import ManyTraitOptions, ScaleOptions, ScanKinshipOptions
from mpgls.run.table_options import TableOptions


@dataclass(frozen=True, kw_only=True)
class MultiTrait(
    DevicePrecisionOptions, GenotypeOptions, ManyTraitOptions, ScaleOptions, ScanKinshipOptions, EigensolverOptions,
    ConditionOptions, ColumnOptions, SolverOptions, RefitOptions, BlockOptions, PlotOptions, TableOptions,
    CheckpointOptions,
):  # fmt: skip
    """Options of ``mpgls multi-trait``."""

    command = "multi-trait"
    summary = "mixed-model scan of many traits on every SNP, from one eigendecomposition"
    has_ssf = keeps_records = False
    example = "mpirun -n 4 mpgls multi-trait --bfile mice --pheno traits.tsv --grm mice_K.h5 --out all"

    def check(self) -> None:
        super().check()
        if self.pheno is None:
            raise UsageError("multi-trait needs traits: --pheno FILE")
        if self.dry_run and self.ratio == "snp":
            raise UsageError("--dry-run does not know what --ratio snp costs: leave one of them out")

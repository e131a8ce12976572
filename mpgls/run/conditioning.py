"""Reading the SNPs that the model is conditioned on."""

from __future__ import annotations

import numpy as np

from mpgls.model.coding import ADDITIVE, Coding
from mpgls.run.coding_options import CodingOptions
from mpgls.run.condition_options import ConditionOptions
from mpgls.run.options import Options
from mpgls.run.world import World
from mpgls.stream.packed import read_snps
from mpgls.study.conditioning import ConditioningSnps, find_snps
from mpgls.study.filters import Selection
from mpgls.study.plink import Fileset


def open_conditioning(
    options: Options, fileset: Fileset, selection: Selection | None, world: World
) -> ConditioningSnps:
    """The SNPs of --condition and --condition-list, on every rank, and in the log; none where there are no such.

    ``selection`` is on rank 0 only. Collective. Raises what is wrong with them on all ranks.
    """
    if not (isinstance(options, ConditionOptions) and options.conditions):
        return ConditioningSnps()
    coding = options.coding if isinstance(options, CodingOptions) else ADDITIVE

    def read() -> tuple[ConditioningSnps, str]:
        ids, rows = find_snps(fileset.variants, options.condition, options.condition_list)
        assert selection is not None
        return read_columns(fileset, ids, rows, coding), _text(fileset, rows, selection)

    snps, text = world.on_root(read)
    world.log.info(text)
    return snps


def read_columns(fileset: Fileset, ids: list[str], rows: np.ndarray, coding: Coding) -> ConditioningSnps:
    """The SNPs ``rows`` of the .bim, ascending, which are called ``ids``; by this rank alone. Raises StorageError."""
    from mpi4py import MPI

    ((_, packed),) = read_snps(fileset.bed, [rows], MPI.COMM_SELF)
    return ConditioningSnps.of(ids, rows, packed, fileset.bed, coding)


def _text(fileset: Fileset, rows: np.ndarray, selection: Selection) -> str:
    """What the log says of them: ID, place and effect allele of each."""
    said = []
    for row in rows.tolist():
        one = fileset.variants.read(row, row + 1)
        untested = "" if np.isin(row, selection.index) else ", which filters leave out of the tables"
        said.append(f"{one.id[0]} ({one.chrom[0]}:{one.pos[0]}, {one.a1[0]}){untested}")
    return f"conditioned on {len(said):,} SNP{'s' * (len(said) > 1)}: {'; '.join(said)}"

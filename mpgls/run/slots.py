"""The ledger of a scan: null models and effects at their places in the result store, and which blocks are done."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np

from mpgls.model import null_record
from mpgls.model.gls import Note, NullFit, SnpFit
from mpgls.model.reml import RemlResult
from mpgls.mpi import is_agreed, together
from mpgls.run.world import World
from mpgls.stream.store import IN_UNITS, OF_GENOTYPES, RECORD_DTYPE, ResultStore, further_fields, save_null
from mpgls.stream.writer import UnitWriter
from mpgls.study.align import Cohort
from mpgls.study.reasons import Reasons
from mpgls.study.snp_stats import SnpStats


class ScanLedger:
    """What is done of a scan, in ``store``; ``reasons`` say which SNPs have no estimate whatever their fit.

    ``nulls`` (parts, traits) are the records of the null models so far, ``effects`` those of the covariates, the same
    on every rank; ``given`` (parts, traits) is h2 where the user gave it, or NaN. Every ``checkpoint`` seconds what was
    written is synced and marked as done. A SNP has so many ``columns``.
    """

    def __init__(
        self,
        store: ResultStore,
        reasons: Reasons,
        checkpoint: float,
        world: World,
        given: np.ndarray | None = None,
        columns: int = 1,
    ) -> None:
        self.columns = columns
        self.store, self.reasons, self.checkpoint, self.world = store, reasons, checkpoint, world
        self.given = np.full(store.nulls.records.shape, np.nan) if given is None else given
        self.nulls, self.effects = store.nulls.records, store.nulls.effects
        self.units = np.ones(len(store.traits))

    def of(self, world: World) -> ScanLedger:
        """This ledger for some of its ranks, which keep parts of their own in it."""
        own = copy.copy(self)
        own.world = world
        return own

    def share(self, part: int, root: int) -> None:
        """The null models of a part become known to all ranks, as ``root`` has them. Collective."""
        mine = self.nulls[part], [effects[part] for effects in self.effects]
        self.nulls[part], of_traits = self.world.comm.bcast(mine if self.world.rank == root else None, root=root)
        for effects, of_part in zip(self.effects, of_traits, strict=True):
            effects[part] = of_part

    @property
    def traits(self) -> list[str]:
        """The names of the traits."""
        return [place.name for place in self.store.traits]

    def unfinished(self, blocks: np.ndarray) -> list[int]:
        """The traits that lack one of the ``blocks``."""
        return [j for j, place in enumerate(self.store.traits) if not place.done[blocks].all()]

    def null(self, part: int, trait: int, estimate: Callable[[], RemlResult]) -> np.ndarray:
        """The record with h2: given by the user, found by the run that this one resumes, or ``estimate``. Collective.

        An estimate is kept for a run that resumes.
        """
        if not np.isnan(self.given[part, trait]):
            return null_record.given(self.given[part, trait])
        if self.nulls["source"][part, trait] != null_record.Source.REML:
            record = null_record.estimated(estimate())
            self.nulls[part, trait] = record
            effects = self.effects[trait][part]
            self.world.on_root(lambda: save_null(self.store, part, trait, record, effects))
        return self.nulls[part, trait].copy()

    def keep_null(self, part: int, trait: int, record: np.ndarray, fit: NullFit, cohort: Cohort) -> np.ndarray:
        """Keep a null model with its ``fit`` over a ``cohort``, in the user's units; returns the record. Collective."""
        whole = null_record.fitted(record, fit, cohort.unit, self.columns)
        effects = cohort.design.effects(fit.beta, fit.root, fit.s2) * cohort.unit
        effects[0, 0] += cohort.center
        self.units[trait] = cohort.unit
        self.nulls[part, trait], self.effects[trait][part] = whole, effects
        self.world.on_root(lambda: save_null(self.store, part, trait, whole, effects))
        return whole

    def slots(self, traits: Sequence[int]) -> Slots:
        """Where the effects on these traits go."""
        return Slots(self, traits)


class Slots:
    """The places of traits that are scanned together. A context: in its body blocks can be written."""

    def __init__(self, ledger: ScanLedger, traits: Sequence[int]) -> None:
        self.store, self.reasons, self.checkpoint = ledger.store, ledger.reasons, ledger.checkpoint
        self.world = ledger.world
        self.places = [ledger.store.traits[trait] for trait in traits]
        self.traits, self.units = list(traits), ledger.units

    def left(self, wanted: np.ndarray) -> np.ndarray:
        """Those of the blocks ``wanted`` that some trait lacks."""
        done = np.all([place.done[wanted] for place in self.places], axis=0)
        return wanted[~done]

    def snps(self, block: int) -> np.ndarray:
        """The .bim rows of a block; none of block -1."""
        index = self.store.index
        if block < 0:
            return index[:0]
        of_block = self.store.block_range(block)
        return index[of_block.start : of_block.stop]

    def __enter__(self) -> Slots:
        """Open the store for writing. Collective; raises StorageError on all ranks."""
        with together(self.world.comm):
            self._writer = UnitWriter(self.store.path, self.checkpoint)
            self.store.own.check()
        return self

    def keep(self, block: int, stats: SnpStats, fits: Sequence[SnpFit]) -> None:
        """Start to write the effects of a block on each trait, without waiting for it; nothing for block -1."""
        if block < 0:
            return
        start, rows = self.store.block_range(block).start * self.store.dtype.itemsize, self.snps(block)
        with self.world.phase("write") as writing:
            for place, unit, fit in zip(self.places, self.units[self.traits], fits, strict=True):
                notes = self.reasons.notes(fit.note, stats, rows)
                records = to_records(fit, stats, notes, unit, self.store.dtype)
                self._writer.write([(place.records_offset + start, records[None])], place.sum_offset(block))
                writing.nbytes += records.nbytes

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Sync what was written, mark it as done and close the store, unless this rank failed alone."""
        if error is None or is_agreed(error):
            with self.world.phase("write"):
                self._writer.close()


def to_records(
    fit: SnpFit, stats: SnpStats, notes: np.ndarray, unit: float = 1.0, dtype: np.dtype = RECORD_DTYPE
) -> np.ndarray:
    """The stored form of a block, ``dtype`` (B,), with its ``notes``: effects on a trait divided by ``unit``."""
    records = np.zeros(fit.beta.size, dtype=dtype)
    further = further_fields(dtype)
    records["beta"], records["se"] = fit.beta * unit, fit.se * unit
    records["eaf"], records["n"], records["note"] = stats.eaf, stats.n_obs, notes
    unusable = records["note"] != Note.OK
    for name in OF_GENOTYPES:
        if name in further:
            records[name] = getattr(stats, name)
    of_fit = [name for name in further if name not in OF_GENOTYPES]
    for name in of_fit:
        records[name] = fit.further(name) * (unit if name.startswith(IN_UNITS) else 1.0)
    for name in ("beta", "se", *of_fit):
        records[name][unusable] = np.nan
    return records

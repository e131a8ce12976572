"""Where the effects of a scan go: records of each trait at their places in the result store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.model.gls import Note, SnpFit
from mpgls.mpi import agree
from mpgls.stream.store import RECORD_DTYPE, ResultStore, TraitPlace
from mpgls.stream.writer import BlockWriter
from mpgls.study.filters import SnpFilter, passes
from mpgls.study.genotypes import SnpStats

if TYPE_CHECKING:
    from mpi4py import MPI


class Records:
    """The places of the traits that are scanned together; SNPs that ``snp_filter`` drops are noted as such.

    Every ``checkpoint`` seconds what was written is synced and marked as done.
    """

    def __init__(
        self, store: ResultStore, places: Sequence[TraitPlace], snp_filter: SnpFilter, checkpoint: float
    ) -> None:
        self.store, self.places, self.snp_filter, self.checkpoint = store, places, snp_filter, checkpoint
        self._writers: list[BlockWriter] = []

    def left(self, wanted: np.ndarray) -> np.ndarray:
        """Those of the blocks ``wanted`` that some trait lacks."""
        done = np.all([place.done[wanted] != 0 for place in self.places], axis=0)
        return wanted[~done]

    def snps(self, block: int) -> np.ndarray:
        """The .bim rows of a block; none of block -1."""
        index = self.store.index
        if block < 0:
            return index[:0]
        of_block = self.store.block_range(block)
        return index[of_block.start : of_block.stop]

    def open(self, comm: MPI.Comm) -> None:
        """Open the store for writing. Collective; raises StorageError on all ranks."""
        error, size = None, self.store.block * RECORD_DTYPE.itemsize
        try:
            for place in self.places:
                self._writers.append(BlockWriter(self.store.path, place.done_offset, size, self.checkpoint))
        except Exception as caught:
            error = caught
        agree(comm, error)

    def write(self, block: int, stats: SnpStats, fits: Sequence[SnpFit]) -> int:
        """Start to write the effects of a block on each trait; returns their bytes without waiting for them."""
        start, nbytes = self.store.block_range(block).start * RECORD_DTYPE.itemsize, 0
        for place, writer, fit in zip(self.places, self._writers, fits, strict=True):
            records = to_records(fit, stats, self.snp_filter)
            writer.write(block, place.records_offset + start, records)
            nbytes += records.nbytes
        return nbytes

    def close(self) -> None:
        """Sync what was written, mark it as done and close the store."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()


def to_records(fit: SnpFit, stats: SnpStats, snp_filter: SnpFilter) -> np.ndarray:
    """The stored form of a block: RECORD_DTYPE (B,)."""
    records = np.zeros(fit.beta.size, dtype=RECORD_DTYPE)
    records["beta"], records["se"] = fit.beta, fit.se
    records["eaf"], records["n"], records["note"] = stats.eaf, stats.n_obs, fit.note
    records["note"][stats.n_obs == 0] = Note.ALL_MISSING
    records["note"][~passes(stats, snp_filter)] = Note.FILTERED
    unusable = records["note"] != Note.OK
    records["beta"][unusable] = records["se"][unusable] = np.nan
    return records

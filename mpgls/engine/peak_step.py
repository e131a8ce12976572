"""One step of the search for independent signals: a scan of which only the best SNP is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpgls.model import null_record
from mpgls.model.gls import NullFit, SnpFit, degrees_of_freedom
from mpgls.model.reml import RemlResult
from mpgls.report.table import log10_p
from mpgls.run.slots import ScanLedger, Slots, to_records
from mpgls.study.align import Cohort
from mpgls.study.snp_stats import SnpStats

if TYPE_CHECKING:
    from mpi4py import MPI

TIE = 1e-6
"""Share of -log10 p by which SNPs may differ and are equally good: the first in the .bim is taken on any ranks."""


class Peak(NamedTuple):
    """A SNP that a step found: its .bim ``row``, and minus log10 of its p value at the step."""

    row: int
    log10p: float


class Best:
    """The best of the SNPs that this rank sees: p at most ``threshold``, and not among the .bim rows ``near``."""

    def __init__(self, threshold: float, near: np.ndarray) -> None:
        self.least, self.near = -np.log10(threshold), near
        self._rows: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
        self._log10p: list[np.ndarray] = [np.empty(0)]

    def add(self, rows: np.ndarray, neg_log10_p: np.ndarray) -> None:
        """More SNPs: .bim ``rows`` (B,) and minus log10 p (B,), NaN where there is none."""
        good = np.flatnonzero((neg_log10_p >= self.least) & ~np.isin(rows, self.near))
        if good.size:
            good = good[_are_top(neg_log10_p[good])]
            self._rows.append(rows[good])
            self._log10p.append(neg_log10_p[good])

    def of_all(self, comm: MPI.Comm) -> Peak | None:
        """The best SNP that any rank has seen, None where there is none. Collective."""
        parts = comm.allgather((np.concatenate(self._rows), np.concatenate(self._log10p)))
        rows, neg_log10_p = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not rows.size:
            return None
        top = np.flatnonzero(_are_top(neg_log10_p))
        first = top[np.argmin(rows[top])]
        return Peak(int(rows[first]), float(neg_log10_p[first]))


def _are_top(neg_log10_p: np.ndarray) -> np.ndarray:
    """(B,) bool: the largest, and what is as good."""
    return neg_log10_p >= neg_log10_p.max() * (1.0 - TIE)


class StepLedger(ScanLedger):
    """Of a scan whose SNPs only ``best`` sees, and whose null models are kept in ``fits``, by part; no file is written.

    SNPs and blocks are those of ``ledger``; ``test`` as in `report.table.log10_p`.
    """

    def __init__(self, ledger: ScanLedger, best: Best, test: str) -> None:
        super().__init__(ledger.store, ledger.reasons, ledger.checkpoint, ledger.world, ledger.given)
        self.best, self.test = best, test
        self.fits: dict[int, tuple[NullFit, Cohort]] = {}
        self.df = 0

    def null(self, part: int, trait: int, estimate: Callable[[], RemlResult]) -> np.ndarray:
        """The record with h2, given by the user or by ``estimate``. Collective."""
        h2 = self.given[part, trait]
        return null_record.estimated(estimate()) if np.isnan(h2) else null_record.given(h2)

    def keep_null(self, part: int, trait: int, record: np.ndarray, fit: NullFit, cohort: Cohort) -> np.ndarray:
        """Keep a null model in memory; returns its record, in the user's units."""
        self.fits[part], self.df = (fit, cohort), degrees_of_freedom(fit.n, fit.q)
        return null_record.fitted(record, fit, cohort.unit)

    def slots(self, traits: Sequence[int]) -> Slots:
        """Where the SNPs of a block go."""
        return StepSlots(self, traits)


class StepSlots(Slots):
    """Shows the p values of a trait to the ``best`` of its ledger."""

    def __init__(self, ledger: StepLedger, traits: Sequence[int]) -> None:
        super().__init__(ledger, traits)
        self.ledger = ledger

    def left(self, wanted: np.ndarray) -> np.ndarray:
        """All of them."""
        return wanted

    def __enter__(self) -> Slots:
        """Nothing is opened."""
        return self

    def keep(self, block: int, stats: SnpStats, fits: Sequence[SnpFit]) -> None:
        """Look at the SNPs of a block; nothing for block -1."""
        if block >= 0:
            (fit,), rows = fits, self.snps(block)
            records = to_records(fit, stats, self.reasons.notes(fit.note, stats, rows), dtype=self.store.dtype)
            self.ledger.best.add(rows, log10_p(records, self.ledger.df, self.ledger.test))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Nothing was opened."""

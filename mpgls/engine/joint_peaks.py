"""Independent signals of a trait, by stepwise forward selection.

    for k = 1, 2, ...:
        scan every SNP beside [X_L | x_1 ... x_(k-1)]         with a null model of its own, as `trait_scan` does it
        x_k = the best of the SNPs with p <= threshold that are W base pairs or more from x_1 ... x_(k-1)
    until there is none;  b, se = generalised least squares of y on [X_L | x_1 ... x_K]

The first of these scans is that of the run, in its store. Of the others only the best SNP is kept.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple

import numpy as np

from mpgls.engine.models import Models, with_components
from mpgls.engine.parts import KinshipPart
from mpgls.engine.peak_step import Best, Peak, StepLedger
from mpgls.engine.trait_scan import C, TraitScans
from mpgls.errors import about
from mpgls.model.coding import Coding
from mpgls.model.gls import NullFit, degrees_of_freedom
from mpgls.model.pvalues import log10_p_chi2_1, log10_p_t
from mpgls.report.peaks_table import Signal
from mpgls.report.table import log10_p
from mpgls.run.conditioning import read_columns
from mpgls.run.inputs import Study
from mpgls.run.ledger import State
from mpgls.run.world import World
from mpgls.study.align import Cohort
from mpgls.study.conditioning import ConditioningSnps
from mpgls.study.nearby import rows_near

Fits = dict[int, tuple[NullFit, Cohort]]
"""Null models of a trait and the samples of each, by part."""


class PeakRule(NamedTuple):
    """SNPs of a chromosome ``distance`` base pairs apart, with p at most ``threshold``, and no more than ``most``."""

    distance: int
    threshold: float
    most: int


@dataclass(frozen=True)
class PeakModel(Generic[C]):
    """The ``models`` of one part with ``snps`` among the covariates: V is theirs, and does not depend on these."""

    source: str
    V: C
    cohort: Cohort
    pcs: int
    snps: ConditioningSnps = field(default_factory=ConditioningSnps)

    @classmethod
    def of(cls, models: Models[C], trait: str, label: str, pcs: int) -> PeakModel[C]:
        """That of a trait, to be used again. Collective."""
        V, cohort = models.take(trait, label)
        return cls(models.source, V, cohort, pcs)

    def take(self, trait: str, label: str) -> tuple[C, Cohort]:
        """V, and the samples with the SNPs before their components. Raises InputError as `Cohort.beside` does."""
        cohort = self.cohort.beside(self.snps, trait)
        return self.V, with_components(cohort, self.cohort.X_L[:, -self.pcs :]) if self.pcs else cohort


@dataclass(frozen=True)
class JointPeaks(Generic[C]):
    """The search after a ``scan`` of all ``parts`` that is in its store; ``models_of`` loads the kinship of a part.

    What was ``found`` of each trait so far is kept in ``state``, so that a run that resumes goes on there.
    """

    scan: TraitScans[C]
    study: Study
    parts: Sequence[KinshipPart]
    models_of: Callable[[KinshipPart], Models[C]]
    rule: PeakRule
    coding: Coding
    pcs: int
    state: State
    found: dict[str, list[Peak]] = field(default_factory=dict)
    kept: dict[str, PeakModel[C]] = field(default_factory=dict)

    @property
    def world(self) -> World:
        """Of the scan."""
        return self.scan.world

    def recall(self, resume: bool) -> None:
        """What the run that this one resumes had found. Collective. Raises InputError where it was of others."""
        saved = self.world.on_root(lambda: self.state.load() if resume else None)
        for trait, peaks in (saved.facts if saved is not None else {}).items():
            self.found[trait] = [Peak(*peak) for peak in peaks]
            self.world.log.info(f"resume: {len(peaks)} independent signals of {trait} are known")

    def signals(self, trait: int) -> list[Signal]:
        """The independent signals of a trait, in the order of their steps. Collective; raises Stopped."""
        name, log = self.scan.ledger.traits[trait], self.world.log
        peaks, fits = self.found.setdefault(name, []), Fits()
        while self._may_have_more(name, peaks):
            best, fits = self._step(trait, peaks)
            if best is None:
                log.info(f"{name}: no SNP with p <= {self.rule.threshold:g} is left; {len(peaks)} independent signals")
                break
            if np.isinf(best.log10p):
                log.warn(f"{name}: {self._named([best])} explains what is left of the trait: the search ends before it")
                break
            peaks.append(best)
            self.world.on_root(self._save)
            log.info(f"{name}: step {len(peaks)}: {self._named(peaks[-1:])}, -log10 p {best.log10p:.4f}")
        else:
            fits = Fits()  # those of the last step lack its SNP
        if not peaks:
            return []
        return self._joint(trait, peaks, fits or self._step(trait, peaks, scanned=False)[1])

    def _may_have_more(self, name: str, peaks: Sequence[Peak]) -> bool:
        n, q = self.study.cohorts[name].X_L.shape
        if len(peaks) == self.rule.most:
            self.world.log.warn(f"{name}: the search ends at --joint-max {self.rule.most}: there may be more signals")
            return False
        if degrees_of_freedom(n, q + self.pcs + len(peaks)) < 2:
            self.world.log.warn(f"{name}: {n:,} samples are too few for more than {len(peaks)} signals")
            return False
        return True

    def _save(self) -> None:
        self.state.save({name: [list(peak) for peak in peaks] for name, peaks in self.found.items()}, {})

    def _step(self, trait: int, peaks: Sequence[Peak], scanned: bool = True) -> tuple[Peak | None, Fits]:
        """The best SNP beside the ``peaks``, and the null models with these, by part; none of the run's own scan.

        Unless all SNPs are ``scanned`` it is the null models alone.
        """
        best, test = self._best(peaks), self.scan.test.test
        if not peaks:
            return self._of_store(trait, best), Fits()
        ledger = StepLedger(self.scan.ledger, best, test)
        scan, name = dataclasses.replace(self.scan, ledger=ledger, checks={}), ledger.traits[trait]
        snps = self.study.conditioning.joined(self.world.on_root(lambda: self._columns(peaks)))
        self.world.log.info(f"{name}: beside {self._named(peaks)}")
        for part in self.parts:
            wanted = part if scanned else dataclasses.replace(part, blocks=part.blocks[:0])
            with about(part.of(name)):
                scan.run(wanted, trait, dataclasses.replace(self._model(part, name), snps=snps))
        return best.of_all(self.world.comm), ledger.fits

    def _model(self, part: KinshipPart, name: str) -> PeakModel[C]:
        """For all steps of a trait, or made anew where chromosomes are left out in turn. Collective."""
        if name in self.kept:
            return self.kept[name]
        self.kept.clear()
        made = PeakModel.of(self.models_of(part), name, part.of(name), self.pcs)
        if len(self.parts) == 1:
            self.kept[name] = made
        return made

    def _best(self, peaks: Sequence[Peak]) -> Best:
        rows = [peak.row for peak in peaks]
        near = self.world.on_root(lambda: rows_near(self.study.fileset.variants, rows, self.rule.distance))
        return Best(self.rule.threshold, np.union1d(near, rows))

    def _of_store(self, trait: int, best: Best) -> Peak | None:
        """The best SNP of the run's own scan; the blocks are dealt to ranks. Collective."""
        ledger, world, test = self.scan.ledger, self.world, self.scan.test.test
        store, df = ledger.store, int(ledger.nulls["df"][0, trait])
        index = store.index
        with world.together():
            for block in range(world.comm.rank, store.blocks, world.comm.size):
                at = store.block_range(block)
                best.add(index[at.start : at.stop], log10_p(store.read(trait, at.start, at.stop), df, test))
        return best.of_all(world.comm)

    def _columns(self, peaks: Sequence[Peak]) -> ConditioningSnps:
        """The SNPs as columns, in the order of their steps."""
        variants, made = self.study.fileset.variants, ConditioningSnps()
        for peak in peaks:
            name, rows = variants.read(peak.row, peak.row + 1).id[0], np.array([peak.row])
            made = made.joined(read_columns(self.study.fileset, [name], rows, self.coding))
        return made

    def _named(self, peaks: Sequence[Peak]) -> str:
        """Their IDs, for the log; on every rank the same."""
        variants = self.study.fileset.variants
        read = self.world.on_root(lambda: [variants.read(peak.row, peak.row + 1).id[0] for peak in peaks])
        return ", ".join(read)

    def _joint(self, trait: int, peaks: Sequence[Peak], fits: Fits) -> list[Signal]:
        """The figures of all ``peaks`` in the null models that have them; with --loco each in its chromosome's."""
        store, found = self.scan.ledger.store, []
        for k, peak in enumerate(peaks):
            at = int(np.searchsorted(store.index, peak.row))
            block = int(np.searchsorted(store.edges, at, side="right")) - 1
            (part,) = (one for one in self.parts if block in one.blocks)
            fit, cohort = fits[part.k]
            effects = cohort.design.effects(fit.beta, fit.root, fit.s2) * cohort.unit
            beta, se = effects[:, fit.q - self.pcs - len(peaks) + k].tolist()
            stat = np.array([beta / se])
            log10p = log10_p_t(stat, fit.n - fit.q) if self.scan.test.test == "t" else log10_p_chi2_1(stat)
            record = self.world.on_root(functools.partial(store.read, trait, at, at + 1))[0]
            eaf, n = float(record["eaf"]), int(record["n"])
            found.append(Signal(peak.row, eaf, n, peak.log10p, beta, se, float(log10p[0])))
        return found

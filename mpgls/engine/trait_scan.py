"""One trait on every SNP of a part: [Elem] Algorithm 3 (Elem-1D), whatever holds V(h2) over the samples.

    L L'             = V = h2 Phi + (1-h2) I         h2 = argmax REML
    [X_L~ | y~]      = L^-1 [X_L | y]
    for every block X of SNPs, dealt to teams that each hold L:
        X~           = L^-1 X
        S_BL, b_B    = X_L~'X~, y~'X~;  S_BR = x~'x~
        beta, se     = Schur complement of S_BR in the normal equations

single-trait scans so, and so does low-rank where n x n matrices are the cheaper form.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from mpgls.engine.blup import TraitBlups, dual
from mpgls.engine.covariance import Covariance, Whitener
from mpgls.engine.device_blocks import OnCard
from mpgls.engine.device_scan import DeviceSnps, orthonormal
from mpgls.engine.mixed_check import MixedCheck, check_against_double
from mpgls.engine.models import Models
from mpgls.engine.parts import ScanPart
from mpgls.engine.robust import RobustSnps
from mpgls.engine.snp_scan import WhitenedSnps, left_blocks
from mpgls.la.teams import Team
from mpgls.model import null_record
from mpgls.model.gls import NullFit, NullSums, SnpTest, fit_null
from mpgls.run.log import Log
from mpgls.run.slots import ScanLedger
from mpgls.run.world import World
from mpgls.run.worlds import Worlds
from mpgls.study.align import Cohort
from mpgls.study.genotype_files import Genotypes
from mpgls.study.snp_columns import ONE_COLUMN, SnpColumns

C = TypeVar("C", bound=Covariance)


@dataclass(frozen=True)
class TraitScans(ABC, Generic[C]):
    """What the scans of all traits and parts share, with models of covariance of one kind.

    ``on_held`` is called while an operator is in memory. ``checks`` are the largest differences between mixed and
    double precision, by the number of the trait; ``columns`` gives those of each SNP over a cohort; ``blups`` keeps
    what the null models predict, where that is asked for; ``on_card``: that SNPs go through an
    operator on GPUs.
    """

    bed: Genotypes
    test: SnpTest
    team: Team
    ledger: ScanLedger
    world: World
    on_held: Callable[[], None] = lambda: None
    checks: dict[int, MixedCheck] = field(default_factory=dict)
    columns: Callable[[Cohort], SnpColumns] = lambda cohort: ONE_COLUMN
    blups: TraitBlups | None = None
    on_card: OnCard | None = None

    @abstractmethod
    def run(self, part: ScanPart, trait: int, models: Models[C]) -> None:
        """Null model and scan of a trait on the SNPs of a part that its ledger lacks. Collective.

        Raises Stopped, on all ranks, when a signal asked for it; NumericalError where V has no factor.
        """

    def unfinished(self, part: ScanPart) -> list[int]:
        """The traits that lack SNPs of a part, or genetic values."""
        return sorted({*self.ledger.unfinished(part.blocks), *(self.blups.files.lacking() if self.blups else ())})

    def join(self, worlds: Worlds, world_of: np.ndarray) -> None:
        """What each world found of its parts, of the worlds ``world_of`` (parts,), all ranks know. Collective."""
        if worlds.count == 1:
            return
        whole = self.ledger.of(worlds.whole)
        for part, number in enumerate(world_of.tolist()):
            whole.share(part, worlds.first_rank(number))
        for checks in worlds.whole.comm.allgather(dict(self.checks)):
            for trait, found in checks.items():
                self.checks[trait] = found.larger(self.checks.get(trait, found))

    def predict(self, trait: int, cohort: Cohort, fit: NullFit, L: Whitener, F_tilde_rep: np.ndarray) -> None:
        """Genetic values by a trait's null model, where they are asked for and lacking. Collective."""
        if self.blups is not None and trait in self.blups.files.lacking():
            self.blups.keep(trait, cohort, fit, dual(L, fit, F_tilde_rep))

    def checked(self, trait: int) -> dict[str, float]:
        """What the checks of mixed precision found of a trait, for the manifest."""
        return self.checks[trait].facts() if trait in self.checks else {}


class TraitScan(TraitScans[Covariance]):
    """Scans with one h2, that of the null model, for all SNPs of a part."""

    def run(self, part: ScanPart, trait: int, models: Models[Covariance]) -> None:
        """As `TraitScans.run`."""
        ledger, world, label = self.ledger, self.world, part.of(self.ledger.traits[trait])
        V, cohort = models.take(ledger.traits[trait], label)
        columns = self.columns(cohort)
        F_rep = V.design(np.column_stack([cohort.X_L, cohort.y]))  # [X_L | y]
        null = ledger.null(part.k, trait, functools.partial(V.maximise, F_rep, world))
        h2 = null_record.h2_of_V(null)
        L = V.at(h2)  # line 1: L L' = V = h2 Phi + (1-h2) I
        sums, F_tilde_rep = L.sums(F_rep), L.columns(F_rep)  # lines 2-4: S_TL, b_T; X_L~, y~
        null_fit = fit_null(h2, sums)
        say_null(label, ledger.keep_null(part.k, trait, null, null_fit, cohort), models.source, world.log)
        self.predict(trait, cohort, null_fit, L, F_tilde_rep)
        if self.on_card is not None:
            F_tilde_rep, sums = orthonormal(F_tilde_rep, sums)
        with world.phase("hand over factor", flop=L.flop_of_hold(self.team)):
            snps = self._hold(L, F_tilde_rep, sums, cohort.rows, columns)
        if self.test.precision == "mixed" or self.on_card is not None:
            with world.phase("check in double"):
                found = check_against_double(snps, V, L, sums, self.test, ledger.store)
            self.checks[trait] = found.larger(self.checks.get(trait, found))
        del V, L  # the scan needs neither Phi nor the work buffer

        with snps, ledger.slots([trait]) as slots:
            blocks = left_blocks(self.bed, slots, part.blocks, self.team, world, label)  # line 5
            for number, stats, S in snps.stream(blocks):  # lines 6-11: X~ = L^-1 X;  S_BL, b_B, S_BR
                with world.phase("statistics"):
                    fit = S.fit(sums, self.test)  # line 12: the Schur complement of S_BR
                slots.keep(number, stats, [fit])
            self.on_held()

    def _hold(
        self, L: Whitener, F_tilde_rep: np.ndarray, sums: NullSums, rows: np.ndarray, columns: SnpColumns
    ) -> WhitenedSnps | DeviceSnps:
        """The team's operator L^-1, on its ranks or on their cards. Collective."""
        if self.on_card is not None:
            on_card = DeviceSnps(L, F_tilde_rep, rows, self.bed, self.team, self.on_card, self.world)
            self.world.log.info(on_card.text())
            return on_card
        L_team = L.hold(self.team, self.ledger.store.block * columns.count, self.test.dtype)
        snps = WhitenedSnps(L_team, F_tilde_rep, rows, self.bed, self.world, columns)
        return RobustSnps(snps, sums, self.test.tolerance, self.team) if self.test.robust else snps


def say_null(label: str, null: np.ndarray, kinship: str, log: Log) -> None:
    """A null model with the ``kinship`` of that name, in the log."""
    log.info(f"{label}: {null_record.text(null)}")
    if null["flag"] & null_record.NullFlag.BOUNDARY:
        log.warn(f"{label}: h2 is at the boundary of its range")
    if null["flag"] & null_record.NullFlag.UNIDENTIFIED:
        log.warn(null_record.unidentified(label, kinship))

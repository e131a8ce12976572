"""What the null model predicts: genetic values of the samples (BLUP), and the weights of SNPs that give them.

a   = V^-1 (y - X_L b) = L^-T (y~ - X_L~ b)
u   = h2 Phi a = (y - X_L b) - (1-h2) a             Henderson, Biometrics 31 (1975)
w_j = c s_j x_j'a,   sum_j x_j w_j = u              for Phi = c' sum_j s_j x_j x_j'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mpgls.engine.covariance import Whitener
from mpgls.model.gls import NullFit
from mpgls.report.file_names import trait_parts
from mpgls.report.table import VariantReader
from mpgls.run.world import World
from mpgls.study.align import Cohort

if TYPE_CHECKING:
    from mpgls.engine.kinship_snps import KinshipSnps
    from mpgls.engine.low_rank import LowRankFactor
    from mpgls.report.weights_table import SnpWeights


def dual(L: Whitener | LowRankFactor, fit: NullFit, F_tilde_rep: np.ndarray) -> np.ndarray:
    """a (n,) = V^-1 (y - X_L b) in the order of the samples, from F~ = L^-1 [X_L | y]. Collective.

    Of a low-rank factor it is L^-T (y~ - X_L~ b) (K,), with F~ as `low_rank.LowRankFactor.columns` gives it.
    """
    residual_tilde = F_tilde_rep[:, -1] - F_tilde_rep[:, :-1] @ fit.beta
    return L.adjoint(residual_tilde[:, None])[:, 0]


def genetic_values(fit: NullFit, cohort: Cohort, a: np.ndarray) -> np.ndarray:
    """u (n,), in the units of the cohort's y."""
    return (cohort.y - cohort.X_L @ fit.beta) - (1.0 - fit.h2) * a


@dataclass(frozen=True)
class BlupFiles:
    """PREFIX.TRAIT.blup.tsv and PREFIX.TRAIT.weights.tsv of the ``traits`` of a scan.

    ``variants`` are those that the weights' rows belong to. A trait whose first table is there is done: a fresh run has
    removed those of an earlier one.
    """

    prefix: str
    traits: Sequence[str]
    variants: VariantReader
    world: World

    def path(self, trait: int, kind: str) -> Path:
        """The table ``kind``, blup or weights, of a trait."""
        return Path(f"{self.prefix}.{trait_parts(self.traits)[trait]}.{kind}.tsv")

    def lacking(self) -> list[int]:
        """The traits that are not done. Collective."""
        return self.world.on_root(
            lambda: [trait for trait in range(len(self.traits)) if not self.path(trait, "blup").exists()]
        )

    def write(self, trait: int, cohort: Cohort, fit: NullFit, genetic: np.ndarray, weights: SnpWeights | None) -> None:
        """Both tables of a trait, the second where there are ``weights``, which rank 0 has. Collective.

        Raises StorageError on all ranks.
        """
        from mpgls.report.blup_table import write_blup
        from mpgls.report.weights_table import write_weights

        world, name = self.world, self.traits[trait]

        def write() -> None:
            if weights is not None:
                inside = weights._replace(values=weights.values * cohort.unit)
                write_weights(self.path(trait, "weights"), self.variants, inside, [name])
            write_blup(self.path(trait, "blup"), cohort, cohort.X_L @ fit.beta, genetic)

        with world.phase("report"):
            world.on_root(write)
        world.log.info(f"{name}: genetic values of {cohort.rows.size:,} samples: {self.path(trait, 'blup')}")
        if weights is not None:
            world.log.info(f"{name}: weights of SNPs: {self.path(trait, 'weights')}")

    def tables(self) -> dict[str, Path]:
        """The tables that are there, by name. Collective."""
        paths = {
            f"{name}.{kind}": self.path(trait, kind)
            for trait, name in enumerate(self.traits)
            for kind in ("blup", "weights")
        }
        return self.world.on_root(lambda: {name: path for name, path in paths.items() if path.exists()})


class TraitBlups(Protocol):
    """Keeps what null models predict."""

    @property
    def files(self) -> BlupFiles:
        """Where it goes."""

    def keep(self, trait: int, cohort: Cohort, fit: NullFit, a: np.ndarray) -> None:
        """The tables of a trait from its null model and a = V^-1 (y - X_L b). Collective."""


@dataclass(frozen=True)
class KinshipBlups:
    """What a scan with a kinship predicts; ``snps`` are those of the kinship, None where they are not known."""

    files: BlupFiles
    snps: KinshipSnps | None

    def keep(self, trait: int, cohort: Cohort, fit: NullFit, a: np.ndarray) -> None:
        """The tables of a trait from its null model and a = V^-1 (y - X_L b). Collective."""
        genetic = genetic_values(fit, cohort, a)
        weights = None if self.snps is None else self.snps.weights(cohort, a, genetic, self.files.world)
        self.files.write(trait, cohort, fit, genetic, weights)

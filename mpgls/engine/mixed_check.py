"""Mixed precision and GPUs, checked: a sample of SNPs is solved in double as well, before the scan."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from mpgls.engine.covariance import Covariance, Whitener
from mpgls.engine.device_scan import DeviceSnps
from mpgls.engine.snp_scan import MIXED, Streamed, WhitenedSnps, sums_of
from mpgls.engine.snp_stream import read_few
from mpgls.errors import NumericalError
from mpgls.model.gls import Note, NullSums, SnpFit, SnpTest
from mpgls.run.log import Log
from mpgls.stream.store import ResultStore

SAMPLED = 32
TOLERATED = 0.01
"""Of a standard error: at the genome-wide threshold, z = 5.45, it changes -log10 p by no more than 0.025."""
HOPELESS = 1.0
"""Standard errors: from here on rounding is as large as what the data do not say."""


@dataclass(frozen=True)
class MixedCheck:
    """The largest |BETA in mixed - BETA in double| / SE, and the largest |SE in mixed / SE in double - 1|."""

    mixed_check_beta: float
    mixed_check_se: float

    def larger(self, other: MixedCheck) -> MixedCheck:
        """The larger of each figure."""
        return MixedCheck(
            max(self.mixed_check_beta, other.mixed_check_beta), max(self.mixed_check_se, other.mixed_check_se)
        )

    def facts(self) -> dict[str, float]:
        """For the manifest."""
        return asdict(self)


def check_against_double(
    snps: WhitenedSnps | DeviceSnps, V: Covariance, L: Whitener, sums: NullSums, test: SnpTest, store: ResultStore
) -> MixedCheck:
    """Test evenly spaced SNPs with the float64 factor and as the team streams them; said in the log. Collective."""
    packed, X_rep = sample_of(store, snps)
    own_errors = replace(test, robust=False)
    stats, mixed = snps.sums_of(packed)
    S = snps.columns.products(snps.F_tilde_rep, L.columns(V.design(X_rep)))  # S_BL, b_B, S_BR
    double = sums_of(snps.columns, S, snps.rows.size * stats.variance)
    with snps.world.together():
        return compare(mixed.fit(sums, own_errors), double.fit(sums, own_errors), snps.world.log, snps.streamed)


def sample_of(store: ResultStore, snps: WhitenedSnps | DeviceSnps) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced SNPs of a store, packed, and their columns X (n, count k) float64 on every rank. Collective."""
    count = min(SAMPLED, store.block, store.count)
    sample = store.index[np.linspace(0, store.count - 1, count).astype(np.int64)]
    packed = read_few(snps.bed, sample, snps.world)
    return packed, snps.plain(packed)


def compare(mixed: SnpFit, double: SnpFit, log: Log, streamed: Streamed = MIXED) -> MixedCheck:
    """The largest differences of two fits of the same SNPs; a warning where a conclusion might change.

    Raises NumericalError where the fits have little in common.
    """
    usable = (mixed.note == Note.OK) & (double.note == Note.OK) & (double.se > 0)
    (beta, se), (right, error) = mixed.effects[:, usable], double.effects[:, usable]
    return judge((beta, se), (right, error), usable.size, log, streamed)


def judge(
    mixed: tuple[np.ndarray, np.ndarray],
    double: tuple[np.ndarray, np.ndarray],
    snps: int,
    log: Log,
    streamed: Streamed = MIXED,
) -> MixedCheck:
    """As `compare`, of effects and errors (any shape) of some ``snps``; those whose error is 0 in double do not count.

    Raises NumericalError.
    """
    counts = double[1] > 0
    (beta, se), (right, error) = ([one[counts] for one in fit] for fit in (mixed, double))
    found = MixedCheck(
        float(np.max(np.abs(beta - right) / error, initial=0.0)), float(np.max(np.abs(se / error - 1.0), initial=0.0))
    )
    text = (
        f"{streamed.how} against double on {snps} SNPs: BETA differs by at most {found.mixed_check_beta:.1e} "
        f"standard errors, SE by a share of {found.mixed_check_se:.1e}"
    )
    if found.mixed_check_beta > HOPELESS:
        raise NumericalError(f"{text}: this model needs {streamed.better}")
    if max(found.mixed_check_beta, found.mixed_check_se) > TOLERATED:
        log.warn(f"{text}: use {streamed.better}")
    else:
        log.info(text)
    return found

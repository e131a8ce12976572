"""Mixed precision, checked: a sample of SNPs is solved in double as well, before the scan."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from mpgls.engine.covariance import Covariance, Whitener
from mpgls.engine.snp_scan import WhitenedSnps
from mpgls.engine.snp_stream import read_few
from mpgls.model.products import partial_products
from mpgls.run.log import Log
from mpgls.run.world import World
from mpgls.stream.store import ResultStore
from mpgls.study.genotypes import Decoder
from mpgls.study.plink import BedFile

SAMPLED = 32


@dataclass(frozen=True)
class MixedCheck:
    """The largest relative difference of x'M^-1 x, and the largest of b_B in units of |x~||y~|: a correlation."""

    mixed_check_quadratic: float
    mixed_check_linear: float

    def larger(self, other: MixedCheck) -> MixedCheck:
        """The larger of each figure."""
        return MixedCheck(
            max(self.mixed_check_quadratic, other.mixed_check_quadratic),
            max(self.mixed_check_linear, other.mixed_check_linear),
        )

    def facts(self) -> dict[str, float]:
        """For the manifest."""
        return asdict(self)


def check_against_double(
    snps: WhitenedSnps, V: Covariance, L: Whitener, bed: BedFile, store: ResultStore, world: World
) -> MixedCheck:
    """Solve evenly spaced SNPs with the float64 factor and with the team's float32 one; said in the log. Collective."""
    count = min(SAMPLED, store.block, store.count)
    sample = store.index[np.linspace(0, store.count - 1, count).astype(np.int64)]
    packed = read_few(bed, sample, world)
    mixed = snps.sums(snps.decode(packed), snps.whiten(count))

    X_rep = np.empty((snps.rows.size, count), order="F")
    Decoder(bed.n, [snps.rows], np.float64).decode(packed, [X_rep])
    b_B, S_BR = partial_products(snps.F_tilde_rep, L.columns(V.design(X_rep)))[-2:]

    y_tilde = snps.F_tilde_rep[:, -1]
    return compare(np.array([mixed.b_B, mixed.S_BR]), np.array([b_B, S_BR]), float(y_tilde @ y_tilde), world.log)


def compare(mixed: np.ndarray, double: np.ndarray, yy: float, log: Log) -> MixedCheck:
    """The largest differences of b_B and S_BR, the last two rows of ``mixed`` and ``double``; ``yy`` = y'M^-1 y."""
    (linear, quadratic), norm = mixed[-2:], double[-1]
    usable = norm > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        of_norm = np.abs(quadratic / norm - 1.0)
        of_correlation = np.abs(linear - double[-2]) / np.sqrt(norm * yy)
    found = MixedCheck(float(np.max(of_norm[usable], initial=0.0)), float(np.max(of_correlation[usable], initial=0.0)))
    log.info(
        f"mixed precision against double on {norm.size} SNPs: largest relative difference of x'M^-1 x "
        f"{found.mixed_check_quadratic:.1e}, of x'M^-1 y (in units of |x~||y~|) {found.mixed_check_linear:.1e}"
    )
    return found

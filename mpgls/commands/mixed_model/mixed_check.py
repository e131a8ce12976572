"""Mixed precision, checked: a sample of SNPs is solved in double as well, before the scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import read_snps
from mpgls.commands.mixed_model.null_model import Covariance
from mpgls.commands.mixed_model.scan import SnpSolver
from mpgls.commands.mixed_model.spectral_null import SpectralCovariance
from mpgls.model.products import partial_products
from mpgls.run.log import Log
from mpgls.stream.store import ResultStore
from mpgls.study.genotypes import Decoder
from mpgls.study.plink import BedFile

if TYPE_CHECKING:
    from mpi4py import MPI

SAMPLED = 32


def check_against_double(
    solver: SnpSolver,
    covariance: Covariance | SpectralCovariance,
    bed: BedFile,
    store: ResultStore,
    comm: MPI.Comm,
    log: Log,
) -> dict[str, float]:
    """Solve evenly spaced SNPs with the float64 factor on the grid and with the team's float32 one. Collective.

    Returns, and logs, the largest relative difference of x'M^-1 x and the largest difference of b_B in units of
    |x~||y~|, the scale on which it is a correlation.
    """
    count = min(SAMPLED, store.block, store.count)
    sample = store.index[np.linspace(0, store.count - 1, count).astype(np.int64)]
    packed = next(rows.copy() for _, rows in read_snps(bed, [sample], comm))
    _, mixed = solver.sums(packed)

    X_rep = np.empty((solver.model.sums.n, count), order="F")
    Decoder(bed.n, [solver.model.rows], np.float64).decode(packed, [X_rep])
    double = partial_products(solver.model.F_rep, covariance.whiten(X_rep))

    return compare(mixed, double, solver.model.sums.yy, log)


def compare(mixed: np.ndarray, double: np.ndarray, yy: float, log: Log) -> dict[str, float]:
    """The largest differences of b_B and S_BR, the last two rows of ``mixed`` and ``double``, as the manifest has them.

    ``yy`` = y'M^-1 y.
    """
    (linear, quadratic), norm = mixed[-2:], double[-1]
    usable = norm > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        of_norm = np.abs(quadratic / norm - 1.0)
        of_correlation = np.abs(linear - double[-2]) / np.sqrt(norm * yy)
    found = {
        "mixed_check_quadratic": float(np.max(of_norm[usable], initial=0.0)),
        "mixed_check_linear": float(np.max(of_correlation[usable], initial=0.0)),
    }
    log.info(
        f"mixed precision against double on {norm.size} SNPs: largest relative difference of x'M^-1 x "
        f"{found['mixed_check_quadratic']:.1e}, of x'M^-1 y (in units of |x~||y~|) {found['mixed_check_linear']:.1e}"
    )
    return found

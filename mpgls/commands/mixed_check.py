"""Mixed precision, checked: a sample of SNPs is solved in double as well, before the scan."""

from __future__ import annotations

import numpy as np

from mpgls.commands.inputs import read_snps
from mpgls.commands.null_model import Covariance, columns_on_grid
from mpgls.commands.scan import SnpSolver
from mpgls.la import scalapack
from mpgls.model.products import partial_products
from mpgls.runtime import Log
from mpgls.stream.store import ResultStore
from mpgls.study.genotypes import Decoder
from mpgls.study.plink import BedFile

SAMPLED = 32


def check_against_double(
    solver: SnpSolver, covariance: Covariance, bed: BedFile, store: ResultStore, log: Log
) -> dict[str, float]:
    """Solve evenly spaced SNPs with the float64 factor on the grid and with the team's float32 one. Collective.

    Returns, and logs, the largest relative difference of x'M^-1 x and the largest difference of b_B in units of
    |x~||y~|, the scale on which it is a correlation.
    """
    comm = covariance.Phi_grid.grid.comm
    count = min(SAMPLED, store.block, store.count)
    sample = store.index[np.linspace(0, store.count - 1, count).astype(np.int64)]
    packed = next(rows.copy() for _, rows in read_snps(bed, [sample], comm))
    _, _, mixed = solver.solve(packed)

    X_rep = np.empty((solver.model.sums.n, count), order="F")
    Decoder(bed.n, [solver.model.rows], np.float64).decode(packed, [X_rep])
    X_grid = columns_on_grid(covariance.L_grid, X_rep)
    scalapack.trsm(covariance.L_grid, X_grid)
    double = np.zeros_like(mixed)
    if X_grid.local.shape[1]:
        double += partial_products(solver.model.F_rep[X_grid.row_indices], X_grid.local)
    comm.Allreduce(double.copy(), double)

    norm, usable = double[-1], double[-1] > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        quadratic = np.abs(mixed[-1] / norm - 1.0)
        scale = np.sqrt(norm * solver.model.sums.yy)
        linear = np.abs(mixed[-2] - double[-2]) / scale
    found = {
        "mixed_check_quadratic": float(np.max(quadratic[usable], initial=0.0)),
        "mixed_check_linear": float(np.max(linear[usable], initial=0.0)),
    }
    log.info(
        f"mixed precision against double on {count} SNPs: largest relative difference of x'M^-1 x "
        f"{found['mixed_check_quadratic']:.1e}, of x'M^-1 y (in units of |x~||y~|) {found['mixed_check_linear']:.1e}"
    )
    return found

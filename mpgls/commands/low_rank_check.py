"""Mixed precision of the low-rank scan, checked: a sample of SNPs is solved in double as well."""

from __future__ import annotations

import numpy as np

from mpgls.commands.inputs import read_snps
from mpgls.commands.low_rank_estimate import Part, Products
from mpgls.commands.low_rank_inputs import SampleSet
from mpgls.commands.low_rank_null import LowRankCovariance
from mpgls.commands.low_rank_results import LowRankResults
from mpgls.commands.low_rank_run import Run
from mpgls.commands.low_rank_solver import LowRankSolver
from mpgls.commands.similarity import Similarity
from mpgls.model.woodbury import inner_products
from mpgls.study.genotypes import Decoder

SAMPLED = 32


def check_against_double(
    run: Run,
    samples: SampleSet,
    G: Similarity,
    covariance: LowRankCovariance,
    products: Products,
    part: Part,
    solver: LowRankSolver,
    results: LowRankResults,
    left: np.ndarray,
) -> None:
    """Solve evenly spaced SNPs of ``part`` with float64 products and factor, for the first trait held. Collective.

    Logs the largest relative difference of x'V^-1 x, and of x'V^-1 y in units of |x~||y~|, and keeps them for the
    manifest. Once a run: further parts are not checked.
    """
    if results.checked is not None:
        return
    comm, bed, store = run.session.comm, run.study.fileset.bed, results.store
    positions = np.concatenate([np.asarray(store.block_range(k)) for k in left])
    count = min(SAMPLED, positions.size, run.plan.block)
    chosen = store.index[positions[np.linspace(0, positions.size - 1, count).astype(np.int64)]]
    packed = next(rows.copy() for _, rows in read_snps(bed, [chosen], comm))
    mixed = solver.sums(packed)[1][0]

    trait, q = solver.traits[0], samples.q
    X = np.empty((G.n, count), order="F")
    Decoder(bed.n, [samples.rows], np.float64).decode(packed, [X])
    G_double = G.in_double(comm)
    H = G_double.project(X, comm) * part.kept[:, None]
    G_double.close()
    null = products.null(covariance, trait.column, part)
    L_grid = covariance.factorise_at(trait.h2)
    F_tilde, H_tilde = null.whiten(L_grid, trait.h2), null.whiten(L_grid, trait.h2, H)
    F = samples.F[:, [*range(q), q + trait.column]]
    linear = inner_products(trait.h2, F.T @ X, F_tilde.T @ H_tilde)[q]
    quadratic = inner_products(trait.h2, (X * X).sum(axis=0), (H_tilde * H_tilde).sum(axis=0))

    usable = quadratic > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.abs(mixed[q + 1] / quadratic - 1.0)
        correlation = np.abs(mixed[q] - linear) / np.sqrt(quadratic * trait.sums.yy)
    found = {
        "mixed_check_quadratic": float(np.max(relative[usable], initial=0.0)),
        "mixed_check_linear": float(np.max(correlation[usable], initial=0.0)),
    }
    results.checked = found
    run.session.log.info(
        f"mixed precision against double on {count} SNPs: largest relative difference of x'V^-1 x "
        f"{found['mixed_check_quadratic']:.1e}, of x'V^-1 y (in units of |x~||y~|) {found['mixed_check_linear']:.1e}"
    )

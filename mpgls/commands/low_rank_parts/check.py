"""Mixed precision of the low-rank scan, checked: a sample of SNPs is solved in double as well."""

from __future__ import annotations

import numpy as np

from mpgls.commands.common.inputs import read_snps
from mpgls.commands.low_rank_parts.estimate import Products, SimilarityPart
from mpgls.commands.low_rank_parts.inputs import SampleSet
from mpgls.commands.low_rank_parts.null import LowRankCovariance
from mpgls.commands.low_rank_parts.run import Run
from mpgls.commands.low_rank_parts.similarity import Similarity
from mpgls.commands.low_rank_parts.solver import LowRankSolver
from mpgls.commands.mixed_model.mixed_check import SAMPLED, compare
from mpgls.model.woodbury import inner_products
from mpgls.study.genotypes import Decoder


def check_against_double(
    run: Run,
    samples: SampleSet,
    G: Similarity,
    covariance: LowRankCovariance,
    products: Products,
    part: SimilarityPart,
    solver: LowRankSolver,
    snps: np.ndarray,
) -> dict[str, float]:
    """Solve evenly spaced ones of ``snps`` with float64 products and factor, for the first trait held. Collective.

    ``snps`` are .bim rows. Logs and returns the largest relative difference of x'V^-1 x, and of x'V^-1 y in units of
    |x~||y~|.
    """
    comm, bed = run.session.comm, run.study.fileset.bed
    count = min(SAMPLED, snps.size, run.plan.block)
    chosen = snps[np.linspace(0, snps.size - 1, count).astype(np.int64)]
    packed = next(rows.copy() for _, rows in read_snps(bed, [chosen], comm))
    mixed = solver.sums(packed)[1][0]

    trait, q = solver.traits[0], samples.q
    X_rep = np.empty((G.n, count), order="F")
    Decoder(bed.n, [samples.rows], np.float64).decode(packed, [X_rep])
    G_double = G.in_double(comm)
    H_rep = G_double.project(X_rep, comm) * part.kept[:, None]
    G_double.close()
    null = products.null(covariance, trait.column, part)
    L_grid = covariance.factorise_at(trait.h2)
    F_tilde_rep, H_tilde_rep = (null.whiten(L_grid, trait.h2, columns) for columns in (null.C_rep, H_rep))
    # b_B = (y'X - y~'H~) / (1-h2);  S_BR = (x'x - h~'h~) / (1-h2)
    b_B = inner_products(trait.h2, samples.F_of(trait.column).T @ X_rep, F_tilde_rep.T @ H_tilde_rep)[q]
    S_BR = inner_products(trait.h2, np.square(X_rep).sum(axis=0), np.square(H_tilde_rep).sum(axis=0))
    return compare(mixed, np.vstack([b_B, S_BR]), trait.sums.yy, run.session.log)

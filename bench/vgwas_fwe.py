"""Family-wise error of voxelwise GWAS: how often pure noise has a corrected p of 0.05 or less, for each statistic.

Data sets without any effect (n = 200, 500 SNPs, about 2,000 smooth voxels, 4 confounds), 500 permutations each. The
rate over 200 of them must lie within the binomial interval of 99% about 0.05.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import finish, guarded, launched, make_parser, print_table, relaunch
from vgwas_simulation import CONNECTIVITY, Study, brain, confounds, dosages, images, permuted

from mpgls.model.clusters import STATISTICS, Neighbours
from mpgls.model.extremes import corrected_p

LEVEL, CONFIDENCE = 0.05, 0.99
FULL = {"sets": 200, "samples": 200, "snps": 500, "voxels": 2000, "permutations": 500}
QUICK = {"sets": 100, "samples": 100, "snps": 100, "voxels": 500, "permutations": 99}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--sets", type=int, metavar="K", help="data sets (200; 100 with --quick)")
    parser.add_argument("--sparsity-threshold", type=float, metavar="P", help="(1e-4; 1e-3 with --quick)")
    parser.add_argument("--ranks", type=int, default=2, metavar="P", help="ranks to start (2)")
    options = parser.parse_args()
    sizes = dict(QUICK if options.quick else FULL)
    sizes["sets"] = options.sets or sizes["sets"]
    p_threshold = options.sparsity_threshold or (1e-3 if options.quick else 1e-4)
    if not launched():
        relaunch(options.ranks)
        return
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    start = time.perf_counter()
    mine = [smallest_p(sizes, p_threshold, k) for k in range(comm.rank, sizes["sets"], comm.size)]
    parts = comm.gather(mine, root=0)
    if parts is not None:
        p = np.concatenate([np.array(part).reshape(-1, len(STATISTICS)) for part in parts])
        report(p, sizes | {"sparsity_threshold": p_threshold, "seconds": time.perf_counter() - start}, options)


def smallest_p(sizes: dict[str, int], p_threshold: float, k: int) -> list[float]:
    """The smallest corrected p of null data set ``k``, for each statistic."""
    rng = np.random.default_rng([20260101, k])
    mask, n = brain(sizes["voxels"]), sizes["samples"]
    Z = confounds(rng, n)
    # the confounds act on both sides, so that their removal matters
    X = dosages(rng, sizes["snps"], n) + 0.3 * Z[:, 2]
    Y = images(mask, n, k) + (np.float32(0.5) * Z[:, 1:3].sum(axis=1)).astype(np.float32)
    neighbours = Neighbours.of(mask.coordinates, CONNECTIVITY)
    found = permuted(Study(X, Y, Z), neighbours, sizes["permutations"], p_threshold, seed=k)
    return [float(corrected_p(found.observed[name].max(keepdims=True), found.maxima[name])[0]) for name in STATISTICS]


def report(p: np.ndarray, facts: dict[str, float], options: Any) -> None:
    """Print and keep the rates; ``p`` (sets, statistics)."""
    from scipy.stats import binom

    low, high = binom.interval(CONFIDENCE, len(p), LEVEL) / np.float64(len(p))
    rates = dict(zip(STATISTICS, np.mean(p <= LEVEL, axis=0).tolist(), strict=True))
    rows = [(name, rate, "yes" if low <= rate <= high else "NO") for name, rate in rates.items()]
    print_table(
        ("statistic", f"rate at {LEVEL}", f"within {low:.3f}-{high:.3f}"), rows,
        f"{len(p)} null data sets, {facts['permutations']} permutations each ({facts['seconds']:.0f} s)",
    )  # fmt: skip
    within = all(low <= rate <= high for rate in rates.values())
    finish({"fwe_rate": rates, "interval": [low, high], "all_within": within} | facts, options.json)


guarded(main)

"""Family-wise error of voxelwise GWAS: how often pure noise has a corrected p of 0.05 or less, for each statistic.

Data sets without any effect (n = 200, 500 SNPs, about 2,000 smooth voxels, 4 confounds), 500 permutations each. The
rate over 200 of them must lie within the binomial interval of 99% about 0.05.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from common import finish, guarded, print_table
from vgwas_simulation import CONNECTIVITY, Sizes, Study, brain, confounds, deal, dosages, images, parse, permuted

from mpgls.model.clusters import STATISTICS, Neighbours
from mpgls.model.extremes import corrected_p

LEVEL, CONFIDENCE = 0.05, 0.99
FULL = Sizes(sets=200, samples=200, snps=500, voxels=2000, permutations=500, sparsity_threshold=1e-4)
QUICK = Sizes(sets=100, samples=100, snps=100, voxels=500, permutations=99, sparsity_threshold=1e-3)


def main() -> None:
    options, sizes = parse(__doc__, "data sets", FULL, QUICK)
    done = deal(options.ranks, range(sizes.sets), lambda k: smallest_p(sizes, k))
    if done is not None:
        p, seconds = done
        report(np.array(p), asdict(sizes) | {"seconds": seconds}, options.json)


def smallest_p(sizes: Sizes, k: int) -> list[float]:
    """The smallest corrected p of null data set ``k``, for each statistic."""
    rng = np.random.default_rng([20260101, k])
    mask, n = brain(sizes.voxels), sizes.samples
    Z = confounds(rng, n)
    # the confounds act on both sides, so that their removal matters
    X = dosages(rng, sizes.snps, n) + 0.3 * Z[:, 2]
    Y = images(mask, n, k) + (np.float32(0.5) * Z[:, 1:3].sum(axis=1)).astype(np.float32)
    neighbours = Neighbours.of(mask.coordinates, CONNECTIVITY)
    found = permuted(Study(X, Y, Z), neighbours, sizes.permutations, sizes.sparsity_threshold, seed=k)
    return [float(corrected_p(found.observed[name].max(keepdims=True), found.maxima[name])[0]) for name in STATISTICS]


def report(p: np.ndarray, facts: dict[str, float], path: Path | None) -> None:
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
    finish({"fwe_rate": rates, "interval": [low, high], "all_within": within} | facts, path)


if __name__ == "__main__":
    guarded(main)

"""Null data: p values of `mpgls ridge` over many simulated data sets must be uniform.

Every data set has its own genotypes and targets without any signal. Family-wise p values of a data set are those of its
best target; p values of single targets are pooled over data sets, one target each. Rejections at 0.05 and 0.01 must lie
within 99% binomial limits.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from common import finish, guarded, make_parser, print_table

FULL, QUICK = 200, 20
N, M, T, P = 80, 120, 4, 199


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--sets", type=int, metavar="S", help=f"data sets ({FULL}; {QUICK} with --quick)")
    options = parser.parse_args()
    sets = options.sets or (QUICK if options.quick else FULL)
    single, family = simulate_all(sets)
    results: dict[str, Any] = {"sets": sets, "n": N, "m": M, "t": T, "permutations": P, "within_limits": True}
    rows = []
    for name, p in (("single", single), ("family", family)):
        for level in (0.05, 0.01):
            count, (low, high) = sum(value <= level for value in p), limits(sets, level)
            results[f"{name}_{level:g}"] = count / sets
            results["within_limits"] = results["within_limits"] and bool(low <= count <= high)
            rows.append([f"{name}, p <= {level:g}", count, int(low), int(high)])
    print_table(["rejections", "found", "lowest", "highest"], rows, f"{sets} null data sets")
    finish(results, options.json)


def simulate_all(sets: int) -> tuple[list[float], list[float]]:
    """p of the first target, and the smallest family-wise p, of each data set, in this process."""
    import numpy as np

    import mpgls
    from mpgls.run import job

    job.gemm_rate = lambda *_: 1.0  # type: ignore[assignment]
    single, family = [], []
    with tempfile.TemporaryDirectory() as folder:
        prefix, out, pheno = (str(Path(folder) / name) for name in ("g", "r", "null.tsv"))
        for k in range(sets):
            mpgls.simulate(samples=N, snps=M, out=prefix, seed=1000 + k)
            ids = [line.split()[:2] for line in Path(f"{prefix}.fam").read_text().splitlines()]
            Y = np.random.default_rng(k).standard_normal((N, T))
            names = "\t".join(f"y{j}" for j in range(T))
            lines = [
                f"FID\tIID\t{names}",
                *("\t".join([*name, *map(repr, y.tolist())]) for name, y in zip(ids, Y, strict=True)),
            ]
            Path(pheno).write_text("\n".join(lines) + "\n")
            found = mpgls.ridge(
                bfile=prefix, pheno=pheno, out=out, threads=1, alphas=(0.3, 3.0, 30.0), permutations=P, seed=k,
                outer_folds=5, inner_folds=3, no_plots=True,
            )  # fmt: skip
            table = found.table("targets")
            single.append(float(table["P"][0]))
            family.append(float(table["P_FWE"].min()))
    return single, family


def limits(count: int, level: float) -> tuple[float, float]:
    """99% limits of the number of rejections."""
    from scipy.stats import binom

    return tuple(binom.ppf((0.005, 0.995), count, level))


if __name__ == "__main__":
    guarded(main)

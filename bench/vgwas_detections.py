"""Detected SNPs of each statistic with simulated effects: the experiment of [vGWAS] Table 2 at reduced size.

300 people, 300 SNPs, about 3,000 smooth voxels; each of 10 causal SNPs acts in a sphere of its own. A SNP is detected
where its p value, corrected by 1,000 permutations, is 0.05 or less. The signal-to-noise ratio (variance of an effect
over that of the noise) and the volume of the effects vary, over 10 data sets each.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
from common import finish, guarded, launched, make_parser, print_table, relaunch
from vgwas_simulation import CONNECTIVITY, Study, brain, confounds, dosages, images, permuted

from mpgls.model.clusters import STATISTICS, Neighbours
from mpgls.model.extremes import corrected_p
from mpgls.study.synthetic_images import signs, spheres

LEVEL, CAUSAL = 0.05, 10
FULL = {"sets": 10, "samples": 300, "snps": 300, "voxels": 3000, "permutations": 1000}
QUICK = {"sets": 2, "samples": 200, "snps": 100, "voxels": 1000, "permutations": 199}
SNRS, VOLUMES = (0.03, 0.05), (30, 100, 300)
"""Signal-to-noise ratios, and voxels of an effect."""

Counts = dict[str, int]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--sets", type=int, metavar="K", help="data sets of each kind (10; 2 with --quick)")
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
    kinds = list(itertools.product(SNRS, VOLUMES))
    work = list(itertools.product(range(len(kinds)), range(sizes["sets"])))
    mine = [(k, *detections(sizes, p_threshold, *kinds[k], s)) for k, s in work[comm.rank :: comm.size]]
    parts = comm.gather(mine, root=0)
    if parts is not None:
        facts = sizes | {"causal": CAUSAL, "sparsity_threshold": p_threshold, "seconds": time.perf_counter() - start}
        report(kinds, list(itertools.chain(*parts)), facts, options)


def detections(sizes: dict[str, int], p_threshold: float, snr: float, volume: int, k: int) -> tuple[Counts, Counts]:
    """Causal and other SNPs that each statistic detects in data set ``k``; noise and genotypes do not vary by kind."""
    rng = np.random.default_rng([20260102, k])
    mask, n = brain(sizes["voxels"]), sizes["samples"]
    Z = confounds(rng, n)
    X, Y = dosages(rng, sizes["snps"], n), images(mask, n, k)
    places = spheres(mask, CAUSAL, k, None, volume)
    for x, sign, place in zip(X, signs(CAUSAL, k), places, strict=False):
        Y[place.voxels] += (sign * np.sqrt(snr) * x / x.std()).astype(np.float32)
    neighbours = Neighbours.of(mask.coordinates, CONNECTIVITY)
    found = permuted(Study(X, Y, Z), neighbours, sizes["permutations"], p_threshold, seed=k)
    causal, others = {}, {}
    for name in STATISTICS:
        detected = corrected_p(found.observed[name], found.maxima[name]) <= LEVEL
        causal[name], others[name] = int(detected[:CAUSAL].sum()), int(detected[CAUSAL:].sum())
    return causal, others


def report(
    kinds: list[tuple[float, int]], found: list[tuple[int, Counts, Counts]], facts: dict[str, float], options: Any
) -> None:
    """Print and keep the number of detections of each kind, statistic and group of SNPs."""
    rows, table = [], []
    for k, (snr, volume) in enumerate(kinds):
        causal, others = (
            {name: sum(part[g][name] for part in found if part[0] == k) for name in STATISTICS} for g in (1, 2)
        )
        rows.append((f"{snr:g}, {volume}", *(f"{causal[name]} ({others[name]})" for name in STATISTICS)))
        table.append({"snr": snr, "volume": volume, "causal": causal, "others": others})
    total = {name: sum(row["causal"][name] for row in table) for name in STATISTICS}
    rows.append(("all", *(str(total[name]) for name in STATISTICS)))
    print_table(
        ("SNR, voxels", *STATISTICS), rows,
        f"Detections of {CAUSAL * facts['sets']:g} causal SNPs, and of others in brackets ({facts['seconds']:.0f} s)",
    )  # fmt: skip
    more = total["cluster_volume"] > total["log10p"]
    finish({"detections": table, "total": total, "cluster_volume_detects_more": more} | facts, options.json)


guarded(main)

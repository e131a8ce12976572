"""Detected SNPs of each statistic with simulated effects: the experiment of [vGWAS] Table 2 at reduced size.

300 people, 300 SNPs, about 3,000 smooth voxels; each of 10 causal SNPs acts in a sphere of its own. A SNP is detected
where its p value, corrected by 1,000 permutations, is 0.05 or less. The signal-to-noise ratio (variance of an effect
over that of the noise) and the volume of the effects vary, over 10 data sets each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from common import finish, guarded, print_table
from vgwas_simulation import CONNECTIVITY, Sizes, Study, brain, confounds, deal, dosages, images, parse, permuted

from mpgls.model.clusters import STATISTICS, Neighbours
from mpgls.model.extremes import corrected_p
from mpgls.study.synthetic_images import signs, spheres

LEVEL, CAUSAL = 0.05, 10
FULL = Sizes(sets=10, samples=300, snps=300, voxels=3000, permutations=1000, sparsity_threshold=1e-4)
QUICK = Sizes(sets=2, samples=200, snps=100, voxels=1000, permutations=199, sparsity_threshold=1e-3)
KINDS = tuple(itertools.product((0.03, 0.05), (30, 100, 300)))
"""Signal-to-noise ratio, and voxels of an effect."""

Counts = dict[str, int]
Found = tuple[tuple[float, int, int], tuple[Counts, Counts]]
"""Of a data set: its kind and number, and the detections of causal and of other SNPs by each statistic."""


def main() -> None:
    options, sizes = parse(__doc__, "data sets of each kind", FULL, QUICK)
    tasks = [(*kind, k) for kind in KINDS for k in range(sizes.sets)]
    done = deal(options.ranks, tasks, lambda task: detections(sizes, *task))
    if done is not None:
        counts, seconds = done
        facts = asdict(sizes) | {"causal": CAUSAL, "seconds": seconds}
        report(list(zip(tasks, counts, strict=True)), facts, options.json)


def detections(sizes: Sizes, snr: float, volume: int, k: int) -> tuple[Counts, Counts]:
    """Causal and other SNPs that each statistic detects in data set ``k``; noise and genotypes do not vary by kind."""
    rng = np.random.default_rng([20260102, k])
    mask, n = brain(sizes.voxels), sizes.samples
    Z = confounds(rng, n)
    X, Y = dosages(rng, sizes.snps, n), images(mask, n, k)
    places = spheres(mask, CAUSAL, k, None, volume)
    for x, sign, place in zip(X, signs(CAUSAL, k), places, strict=False):
        Y[place.voxels] += (sign * np.sqrt(snr) * x / x.std()).astype(np.float32)
    neighbours = Neighbours.of(mask.coordinates, CONNECTIVITY)
    found = permuted(Study(X, Y, Z), neighbours, sizes.permutations, sizes.sparsity_threshold, seed=k)
    causal, others = {}, {}
    for name in STATISTICS:
        detected = corrected_p(found.observed[name], found.maxima[name]) <= LEVEL
        causal[name], others[name] = int(detected[:CAUSAL].sum()), int(detected[CAUSAL:].sum())
    return causal, others


def summed(counts: Sequence[Counts]) -> Counts:
    """The detections of each statistic in several data sets together."""
    return {name: sum(one[name] for one in counts) for name in STATISTICS}


def report(found: list[Found], facts: dict[str, float], path: Path | None) -> None:
    """Print and keep the number of detections of each kind, statistic and group of SNPs."""
    rows, table = [], []
    for snr, volume in KINDS:
        of_kind = [counts for task, counts in found if task[:2] == (snr, volume)]
        causal, others = (summed(group) for group in zip(*of_kind, strict=True))
        rows.append((f"{snr:g}, {volume}", *(f"{causal[name]} ({others[name]})" for name in STATISTICS)))
        table.append({"snr": snr, "volume": volume, "causal": causal, "others": others})
    total = summed([row["causal"] for row in table])
    rows.append(("all", *(str(total[name]) for name in STATISTICS)))
    print_table(
        ("SNR, voxels", *STATISTICS), rows,
        f"Detections of {CAUSAL * facts['sets']:g} causal SNPs, and of others in brackets ({facts['seconds']:.0f} s)",
    )  # fmt: skip
    more = total["cluster_volume"] > total["log10p"]
    finish({"detections": table, "total": total, "cluster_volume_detects_more": more} | facts, path)


if __name__ == "__main__":
    guarded(main)

"""Simulated voxelwise GWAS in memory: small data sets, and the maxima of all statistics under their permutations.

Model, permutations, clusters and corrected p values are the program's own functions. Every data set is analysed on one
rank; an experiment deals many of them to the ranks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from common import launched, make_parser, relaunch

from mpgls.model.clusters import STATISTICS, Heights, Neighbours, snp_statistics
from mpgls.model.mulm import CONSTANT_VOXEL, Score, SnpBlock, TileScan, unit_residuals, whiten
from mpgls.model.permute import permutation
from mpgls.study.nifti import Mask
from mpgls.study.synthetic_images import SmoothNoise

VOXEL_MM, SIGMA_MM = 3.0, 3.0
CONNECTIVITY, TFCE_STEP = 6, 0.1
_TOGETHER = 64
"""Permutations whose clusters are found in one pass."""

Task, Found = TypeVar("Task"), TypeVar("Found")


@dataclass(frozen=True)
class Sizes:
    """Data sets of an experiment, and what each of them has."""

    sets: int
    samples: int
    snps: int
    voxels: int
    permutations: int
    sparsity_threshold: float


def parse(description: str | None, sets: str, full: Sizes, quick: Sizes) -> tuple[argparse.Namespace, Sizes]:
    """The options of an experiment, and its sizes as they say; ``sets`` is what the help calls the data sets."""
    parser = make_parser(description)
    parser.add_argument("--sets", type=int, metavar="K", help=f"{sets} ({full.sets}; {quick.sets} with --quick)")
    thresholds = f"({full.sparsity_threshold:g}; {quick.sparsity_threshold:g} with --quick)"
    parser.add_argument("--sparsity-threshold", type=float, metavar="P", help=thresholds)
    parser.add_argument("--ranks", type=int, default=2, metavar="P", help="ranks to start (2)")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in ("sets", "sparsity_threshold") if getattr(options, name)}
    return options, replace(quick if options.quick else full, **given)


def deal(ranks: int, tasks: Sequence[Task], work: Callable[[Task], Found]) -> tuple[list[Found], float] | None:
    """``work`` of every task, dealt to ``ranks`` ranks: what each found, in order, and the seconds of all.

    None on ranks other than 0, and in the plain process that started the ranks: they have nothing to report.
    """
    if not launched():
        relaunch(ranks)
        return None
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    start = time.perf_counter()
    parts = comm.gather([work(task) for task in tasks[comm.rank :: comm.size]], root=0)
    if parts is None:
        return None
    found = [parts[k % comm.size][k // comm.size] for k in range(len(tasks))]
    return found, time.perf_counter() - start


@dataclass(frozen=True)
class Study:
    """``X`` (B, n) centred dosages, ``Y`` (v, n) float32 images, ``Z`` (n, r) confounds with the intercept."""

    X: np.ndarray
    Y: np.ndarray
    Z: np.ndarray


@dataclass(frozen=True)
class Permuted:
    """For each statistic: ``observed`` (B,) of the SNPs and ``maxima`` (P,) over all SNPs under permutation."""

    observed: dict[str, np.ndarray]
    maxima: dict[str, np.ndarray]


def brain(voxels: int) -> Mask:
    """An ellipsoid of about ``voxels`` voxels of 3 mm."""
    axes = np.array([1.0, 1.25, 1.0]) * (voxels / (1.25 * 4 / 3 * np.pi)) ** (1 / 3)
    grid = np.stack(np.meshgrid(*(np.arange(-np.ceil(a), np.ceil(a) + 1) / a for a in axes), indexing="ij"))
    return Mask("ellipsoid", np.square(grid).sum(axis=0) <= 1.0, np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0]))


def dosages(rng: np.random.Generator, snps: int, n: int) -> np.ndarray:
    """Centred dosages (snps, n) of independent SNPs, minor allele frequency 0.05 to 0.5, none monomorphic."""
    X = rng.binomial(2, rng.uniform(0.05, 0.5, snps)[:, None], (snps, n)).astype(np.float64)
    X[:, 0] += np.ptp(X, axis=1) == 0
    return X - X.mean(axis=1, keepdims=True)


def confounds(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 4): intercept, sex, age, and a measure that varies with age."""
    sex, age = rng.integers(0, 2, n), rng.uniform(-1, 1, n)
    return np.column_stack([np.ones(n), sex, age, 0.5 * age + rng.standard_normal(n)])


def images(mask: Mask, n: int, seed: int) -> np.ndarray:
    """Smooth Gaussian noise (v, n) float32 of unit variance."""
    noise = SmoothNoise(mask, SIGMA_MM, seed)
    return np.stack([noise.draw(person) for person in range(n)], axis=1).astype(np.float32)


def permuted(study: Study, neighbours: Neighbours, permutations: int, p_threshold: float, seed: int) -> Permuted:
    """All statistics of the data, and their maxima under ``permutations`` permutations."""
    Z_w = whiten(study.Z)
    score = Score(study.X.shape[1] - len(Z_w) - 1, p_threshold)
    R_Y = np.empty(study.Y.shape, dtype=np.float32)
    testable = unit_residuals(study.Y, Z_w, R_Y, CONSTANT_VOXEL) > 0
    block = SnpBlock(study.X, Z_w, np.float32)
    scan = TileScan(score, len(Z_w), study.X.shape[1], np.float32)
    found = _statistics(block, scan, R_Y, testable, neighbours, range(1, permutations + 1), seed)
    maxima = {name: np.concatenate(parts) for name, parts in _joined(found).items()}
    data = next(_statistics(block, scan, R_Y, testable, neighbours, range(1), seed))
    return Permuted({name: data[name][0] for name in STATISTICS}, {name: maxima[name] for name in STATISTICS})


def _joined(found: Iterator[dict[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    maxima: dict[str, list[np.ndarray]] = {name: [] for name in STATISTICS}
    for part in found:
        for name in STATISTICS:
            maxima[name].append(part[name].max(axis=1))
    return maxima


def _statistics(
    block: SnpBlock,
    scan: TileScan,
    R_Y: np.ndarray,
    testable: np.ndarray,
    neighbours: Neighbours,
    indices: range,
    seed: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Statistics (permutations, B) of consecutive permutations."""
    B, n, v = len(block.lengths), R_Y.shape[1], len(R_Y)
    for first in range(0, len(indices), _TOGETHER):
        part = indices[first : first + _TOGETHER]
        keys, scores = [], []
        for k, index in enumerate(part):
            entries = scan.entries(block, permutation(seed, index, n), R_Y, testable)
            keys.append((k * B + entries.snp.astype(np.int64)) * v + entries.voxel)
            scores.append(entries.t)
        key, t = np.concatenate(keys), np.concatenate(scores)
        order = np.argsort(key, kind="stable")
        group, voxel = np.divmod(key[order], v)
        figures = snp_statistics(
            group, voxel, t[order], scan.score.log10_p(t[order]), len(part) * B, neighbours,
            Heights(scan.score.t_threshold, TFCE_STEP),
        )  # fmt: skip
        yield {name: values.reshape(len(part), B) for name, values in figures.items()}

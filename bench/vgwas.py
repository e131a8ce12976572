"""Voxelwise GWAS: how much of the speed of one matrix product is left with thresholds, clusters and permutations.

n = 740, 51,792 smooth voxels, a block of 1,000 SNPs, 10 confounds, p <= 1e-4 and TFCE: the size of [vGWAS], Figure 3.
On each number of ranks a unit of the program (decoding, permutations, tiles, exact scores, all statistics) and the
plain float32 product of the same shapes take turns. Then nilearn's permuted_ols on one core, and the paper's problem.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import finish, guarded, launched, make_parser, mpirun, numbers, print_table, simulated

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.engine.voxelwise import UnitScan

FULL = {"samples": 740, "snps": 1000, "voxels": 51_792, "confounds": 10}
QUICK = {"samples": 740, "snps": 1000, "voxels": 20_000, "confounds": 10}
PAPER = {"snps": 418_669, "voxels": 51_792, "permutations": 1000, "core_days": 53.6, "rate": 5.5e6}
"""[vGWAS] Figure 3: all SNPs and permutations; core-days, and associations a second and core, as published."""
DAY = 86_400.0
LONG = 5.0
"""nilearn's permutations are timed by a run that takes so many times what a run of one permutation takes."""
THRESHOLD = 1e-4
"""Sparsity threshold, a p value."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--voxels", type=int, metavar="V", help="voxels, about (51,792; 20,000 with --quick)")
    parser.add_argument("--permutations", type=int, metavar="P", help="permutations of a unit (32; 8 with --quick)")
    parser.add_argument("--repeats", type=int, default=3, metavar="K", help="units, between products (3)")
    parser.add_argument("--ranks", type=numbers, default=[1, 2], metavar="P,...", help="numbers of ranks (1,2)")
    parser.add_argument("--no-nilearn", action="store_true", help="leave nilearn out")
    options = parser.parse_args()
    sizes = dict(QUICK if options.quick else FULL)
    sizes["voxels"] = options.voxels or sizes["voxels"]
    options.permutations = options.permutations or (8 if options.quick else 32)
    if launched():
        on_ranks(options, sizes)
        return
    prefix = simulated(options.scratch, sizes["samples"], sizes["snps"])
    images(prefix, sizes["voxels"]), confounds(prefix, sizes["confounds"])
    found = {ranks: measured(ranks, options, sizes) for ranks in options.ranks}
    one = found[options.ranks[0]]
    results = {
        "associations_per_s_per_core": one["associations_per_s"] / options.ranks[0],
        "share_of_gemm": one["share_of_gemm"],
        "by_ranks": found,
        **sizes,
        "quick": options.quick,
    }
    if len(options.ranks) > 1:
        results["speedup"] = found[options.ranks[1]]["associations_per_s"] / one["associations_per_s"]
    if not options.no_nilearn:
        rates = nilearn_rates(prefix, sizes)
        results["nilearn_associations_per_s"] = rates
        results["nilearn_ratio"] = results["associations_per_s_per_core"] / rates["clusters"]
        results["nilearn_max_t_ratio"] = results["associations_per_s_per_core"] / rates["max t"]
    work = PAPER["snps"] * PAPER["voxels"] * (PAPER["permutations"] + 1.0)
    results["paper_core_days_predicted"] = work / results["associations_per_s_per_core"] / DAY
    report(results)
    finish(results, options.json)


# -- data ---------------------------------------------------------------------------------------------------------


def images(prefix: Path, voxels: int) -> Path:
    """A voxel matrix of smooth noise for the people of ``prefix``, made once."""
    from vgwas_simulation import brain

    from mpgls.study.images import create_voxels
    from mpgls.study.synthetic_images import SmoothNoise

    path = Path(f"{prefix}-{voxels}.voxels.h5")
    if path.exists():
        return path
    mask = brain(voxels)
    noise = SmoothNoise(mask, 3.0, 1)
    ids = [tuple(line.split()[:2]) for line in Path(f"{prefix}.fam").read_text().splitlines()]
    partial = path.with_suffix(".partial")
    shape = mask.inside.shape
    rows = create_voxels(partial, ids, mask.coordinates, shape, mask.affine, "ellipsoid")  # type: ignore[arg-type]
    for person in range(len(ids)):
        rows.write(person, noise.draw(person)[None])
    partial.rename(path)
    return path


def confounds(prefix: Path, r: int) -> Path:
    """A table of ``r`` - 1 confounds (the intercept is the other)."""
    path = Path(f"{prefix}-{r}.confounds.tsv")
    ids = [line.split()[:2] for line in Path(f"{prefix}.fam").read_text().splitlines()]
    values = np.random.default_rng(1).standard_normal((len(ids), r - 1))
    lines = ["\t".join([*one, *map(repr, map(float, row))]) for one, row in zip(ids, values, strict=True)]
    path.write_text("\n".join(["\t".join(["FID", "IID", *(f"c{k}" for k in range(r - 1))]), *lines]) + "\n")
    return path


# -- the program, on the ranks --------------------------------------------------------------------------------------


def measured(ranks: int, options: argparse.Namespace, sizes: dict[str, int]) -> dict[str, Any]:
    """The figures of ``ranks`` ranks, from a run of this file on them."""
    answer = options.scratch / f"vgwas-{ranks}.json"
    sizes_given = ("--voxels", str(sizes["voxels"]), "--permutations", str(options.permutations))
    more = ("--repeats", str(options.repeats), "--scratch", options.scratch, "--json", answer)
    mpirun(ranks, Path(__file__).resolve(), *sizes_given, *more, *(["--quick"] if options.quick else []))
    return dict(json.loads(answer.read_text(encoding="utf-8")))


def on_ranks(options: argparse.Namespace, sizes: dict[str, int]) -> None:
    """Units and products in turns on every rank at once; rank 0 writes the JSON."""
    from mpi4py import MPI

    from mpgls.engine.voxel_units import Unit

    comm = MPI.COMM_WORLD
    scan, packed, R_Y = prepared(comm, options, sizes)
    X = np.random.default_rng(2).random((len(packed), R_Y.shape[1]), dtype=np.float32)
    out = np.empty((len(X), len(R_Y)), dtype=np.float32)
    seconds: dict[str, list[float]] = {"unit": [], "gemm": []}
    np.matmul(X, R_Y.T, out=out)
    for repeat in range(options.repeats + 1):
        seconds["gemm"].append(timed(comm, lambda: np.matmul(X, R_Y.T, out=out)))
        first = 1 + options.permutations * (repeat * comm.size + comm.rank)
        unit = Unit(0, len(packed), first, first + options.permutations)
        if repeat == 0:
            scan.unit(unit._replace(last=first + 1), packed)  # memory is touched for the first time
            scan.world.clock.phases.clear()
            continue
        seconds["unit"].append(timed(comm, lambda unit=unit: scan.unit(unit, packed)) / options.permutations)
        seconds["gemm"].append(timed(comm, lambda: np.matmul(X, R_Y.T, out=out)))
    unit_s, gemm_s = (float(np.median(seconds[name])) for name in ("unit", "gemm"))
    pairs = float(len(X)) * len(R_Y)
    spent = {name: phase.seconds for name, phase in scan.world.clock.phases.items()}
    if comm.rank == 0:
        finish(
            {
                "associations_per_s": comm.size * pairs / unit_s,
                "share_of_gemm": gemm_s / unit_s,
                "gemm_gflops_a_rank": 2e-9 * X.shape[1] * pairs / gemm_s,
                "unit_seconds_a_permutation": unit_s,
                "gemm_seconds": gemm_s,
                "phases_seconds": spent,
            },
            options.json,
        )


def timed(comm: MPI.Comm, work: Any) -> float:
    """Seconds of the slowest rank."""
    comm.Barrier()
    start = time.perf_counter()
    work()
    return max(comm.allgather(time.perf_counter() - start))


def prepared(
    comm: MPI.Comm, options: argparse.Namespace, sizes: dict[str, int]
) -> tuple[UnitScan, np.ndarray, np.ndarray]:
    """What the program has when its loop begins, the packed SNPs, and R_Y. Collective."""
    from mpgls.engine.voxels import TeamVoxels
    from mpgls.engine.voxelwise import Inference, Search, UnitScan
    from mpgls.engine.voxelwise_plan import Wishes, plan_voxelwise
    from mpgls.la.shared import split_node
    from mpgls.la.teams import split_teams
    from mpgls.model.permute import Permutations
    from mpgls.run.hardware import limit_threads
    from mpgls.run.plan import Machine
    from mpgls.run.world import World
    from mpgls.study.filters import SnpFilter
    from mpgls.study.plink import open_fileset
    from mpgls.study.reasons import Reasons
    from mpgls.study.voxel_study import Confounds, VoxelSource, align_voxels

    prefix, world, node = options.scratch / f"sim-{sizes['samples']}x{sizes['snps']}", World(comm), split_node(comm)
    limit_threads(node, 1)
    files = open_fileset(prefix)
    source = VoxelSource.of_matrix(str(images(prefix, sizes["voxels"])))
    table = Confounds.read(str(confounds(prefix, sizes["confounds"])), (), None, None)
    voxels = align_voxels(files.samples, np.arange(files.bed.n), source, table)
    inference, rows = Inference.of(voxels, THRESHOLD, 6, 0.1), np.arange(files.bed.m)
    search = Search(files.bed, rows, Reasons(SnpFilter()), voxels, Permutations(1, voxels.n), inference)
    plan = plan_voxelwise(Machine(comm.size, node.size, None, 0), search.sizes(1001, np.float32), Wishes())
    share = TeamVoxels(voxels, plan, split_teams(comm, 1), world)
    scan = UnitScan(search, share)
    packed = np.fromfile(files.bed.path, np.uint8, offset=files.bed.HEADER).reshape(files.bed.m, -1)
    return scan, packed, next(iter(share)).R_Y_team


# -- others ---------------------------------------------------------------------------------------------------------


def nilearn_rates(prefix: Path, sizes: dict[str, int]) -> dict[str, float]:
    """Associations a second of nilearn's permuted_ols on one core in float32: its permutations, without the set-up.

    ``clusters`` also takes sizes and masses of clusters, as the program does; ``max t`` takes nothing but the maximum.
    """
    import nibabel
    from nilearn.maskers import NiftiMasker
    from threadpoolctl import threadpool_limits
    from vgwas_simulation import brain

    from mpgls.study.images import open_voxels

    matrix, mask = open_voxels(images(prefix, sizes["voxels"])), brain(sizes["voxels"])
    Z = np.loadtxt(confounds(prefix, sizes["confounds"]), skiprows=1, usecols=range(2, 1 + sizes["confounds"]))
    masker = NiftiMasker(nibabel.Nifti1Image(mask.inside.astype(np.uint8), mask.affine)).fit()
    rates = {}
    clusters = {"masker": masker, "threshold": 1e-4}
    kinds: dict[str, tuple[int, dict[str, Any]]] = {"max t": (200, {}), "clusters": (4, clusters)}
    for name, (snps, more) in kinds.items():
        X = np.random.default_rng(3).integers(0, 3, (matrix.n, snps)).astype(np.float32)
        given = (X, matrix.columns(0, matrix.v), Z.astype(np.float32))
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rates[name] = snps * matrix.v / seconds_a_permutation(given, more)
    return rates


def seconds_a_permutation(given: tuple[np.ndarray, ...], more: dict[str, Any]) -> float:
    """Of permuted_ols, without its set-up: from a run so long that what its set-up varies by counts for little."""

    def seconds(count: int) -> float:
        start = time.perf_counter()
        permuted(given, count, more)
        return time.perf_counter() - start

    short = min(seconds(1) for _ in range(3))
    permutations, whole = 2, 0.0
    while whole < LONG * short:
        permutations *= 2
        whole = seconds(1 + permutations)
    return (whole - short) / permutations


def permuted(given: tuple[np.ndarray, ...], count: int, more: dict[str, Any]) -> None:
    """``count`` permutations of permuted_ols."""
    from nilearn.mass_univariate import permuted_ols

    permuted_ols(*given, n_perm=count, n_jobs=1, random_state=1, output_type="dict", **more)


def report(results: dict[str, Any]) -> None:
    """For a person."""
    rows = [
        [str(ranks), one["associations_per_s"], one["share_of_gemm"], one["gemm_gflops_a_rank"]]
        for ranks, one in results["by_ranks"].items()
    ]
    print_table(["ranks", "associations/s", "share of GEMM", "GEMM GFLOP/s a rank"], rows, " ")
    aims = [
        ("associations a second and core", results["associations_per_s_per_core"], f"{PAPER['rate']:.2g} in [vGWAS]"),
        ("share of the float32 product", results["share_of_gemm"], "0.85 or more"),
        ("speed on the second number of ranks / on the first", results.get("speedup"), "1.9 or more"),
        ("times nilearn on one core, cluster sizes and masses", results.get("nilearn_ratio"), "10 or more"),
        ("times nilearn on one core that takes no statistic but max t", results.get("nilearn_max_t_ratio"), ""),
        ("core-days of [vGWAS] Figure 3", results["paper_core_days_predicted"], f"{PAPER['core_days']} there"),
    ]
    print_table(["", "measured", "aim"], aims, " ")


if __name__ == "__main__":
    guarded(main)

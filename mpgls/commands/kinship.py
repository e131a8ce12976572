"""mpgls kinship: the n x n relationship matrix from genotypes, streamed and accumulated on the process grid.

    S_c = sum_k w_k x_k x_k'      over the SNPs k of chromosome c; all of them are one without --loco
    K   = sum_c S_c / m           x_k a SNP, centred by its mean; w_k says the method (engine/kinship_sums.py);
                                  "gcta" divides by the SNPs N_ij that both people have, the others by all m

Every block of SNPs is read once, by one rank, and travels packed (2 bits a genotype) to all others; each decodes the
rows and the columns of its own part of S_c and adds one local matrix product. With --loco S_c is kept in the file, so
that K without a chromosome is (m K - S_c) / (m - m_c); at any time one S_c is in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.device.card import Card
from mpgls.engine.device_plan import card_limit, choose_card
from mpgls.engine.dry_run import dry_run_on
from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.kinship_files import KinshipFile, write_gcta
from mpgls.engine.kinship_grid import trace
from mpgls.engine.kinship_on_card import products_and_pairs
from mpgls.engine.kinship_plan import KinshipPlan, KinshipSizes, plan_kinship
from mpgls.engine.kinship_sums import METHODS, chromosome_sums, divide_by_counts
from mpgls.engine.part_worlds import deal_parts
from mpgls.errors import InputError, UsageError
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.run.device_options import DeviceOptions
from mpgls.run.genotype_options import GenotypeOptions
from mpgls.run.inputs import Study, open_study, selected_rows
from mpgls.run.job import Job, open_job
from mpgls.run.option_groups import BlockOptions, DryRunOptions
from mpgls.run.options import flag, option
from mpgls.run.plan import GIB, Machine, grid_block
from mpgls.run.results import Results
from mpgls.run.similarity_options import SimilarityOptions
from mpgls.run.worlds import Worlds, split_world
from mpgls.study.chromosomes import Chromosomes, chromosomes_of
from mpgls.study.filters import SnpFilter

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.engine.cost import RunCost

SUFFIXES = (".h5", ".h5.partial", ".grm.bin", ".grm.id", ".grm.N.bin")


@dataclass(frozen=True, kw_only=True)
class Kinship(GenotypeOptions, SimilarityOptions, BlockOptions, DeviceOptions, DryRunOptions):
    """Options of ``mpgls kinship``."""

    command = "kinship"
    planned_on_cards = True
    summary = "relationship matrix of all samples from their genotypes"
    example = "mpirun -n 4 mpgls kinship --bfile mice --maf 0.01 --out mice_K"

    method: str = option(
        "centered",
        "centered: SNPs centred (GEMMA -gk 1); standardized: and divided by their standard deviation, missing "
        "genotypes at the mean (GEMMA -gk 2); gcta: divided by 2p(1-p), over the SNPs that both people have (GCTA)",
        group="kinship",
        choices=METHODS,
    )
    loco: bool = flag("keep each chromosome's sum as well, for scans that leave one chromosome out", group="kinship")
    grm_bin: bool = flag("write GCTA's .grm.bin, .grm.N.bin and .grm.id as well", group="output")

    @property
    def snps(self) -> SnpFilter:
        """The filters of SNPs: no X, Y, XY and MT unless they are asked for. Raises UsageError."""
        return replace(super().snps, without_sexed=not (self.all_chromosomes or self.chr is not None))

    def check(self) -> None:
        super().check()
        if self.loco and self.method == "gcta":
            raise UsageError(
                "--loco keeps one number of SNPs for each chromosome, and --method gcta has one for each pair of "
                "people: give --method centered or standardized"
            )


def run(options: Kinship, comm: MPI.Comm) -> Results:
    """Compute and write the kinship. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    with open_job(options, comm, SUFFIXES) as job:
        if job.is_complete():
            return job.results()
        with job.world.phase("open and check"):
            card = None if options.dry_run else choose_card(options.device_wish, job.world)
            study = open_study(options, job.world, traits=False)
            job.identify()
            index = selected_rows(study, job.world)
            chromosomes = job.world.on_root(lambda: _chromosomes(options, study, index))
            check_room(options, study.samples.size, len(chromosomes.labels), job)
            machine = job.machine(study.fileset.bed.held_bytes)
            if options.dry_run:

                def cost(at: Machine, limit: int | None) -> RunCost:
                    return cost_on(at, options, study, chromosomes, limit)

                return dry_run_on(cost, machine, options.rates, options.device_wish, job)
            plan = make_plan(options, machine, study, chromosomes, card_limit(card, job.world))
            say_plan(plan, machine, options, len(chromosomes.labels), job)
        genotypes = GenotypeBlocks(study.fileset.bed, study.samples, index, options.snps, plan.block)
        with (
            job.world.phase("sums"),
            split_world(job.world, plan.worlds) as worlds,
            ProcessGrid(worlds.own.comm) as grid,
        ):
            files, facts = make_kinship(grid, genotypes, chromosomes, study, job, options, card, worlds)
        return job.finish(facts, files=files)


def make_kinship(
    grid: ProcessGrid,
    genotypes: GenotypeBlocks,
    chromosomes: Chromosomes,
    study: Study,
    job: Job,
    options: Kinship,
    card: Card | None,
    worlds: Worlds,
) -> tuple[list[Path], dict[str, Any]]:
    """The algorithm: S_c chromosome by chromosome, K, and their files. Collective. Returns the files and facts.

    Chromosomes are dealt to worlds; ``grid`` is that of this rank's.
    """
    world, n = job.world, study.samples.size
    everyone = study.fileset.samples.ids()
    ids = [everyone[row] for row in study.samples]
    K_grid = GridMatrix.square(grid, n, grid_block(n, grid.shape))
    S_grid = GridMatrix(grid, K_grid.layout) if options.loco else K_grid
    N_grid = GridMatrix(grid, K_grid.layout) if options.method == "gcta" else None
    labels = chromosomes.labels if options.loco else ()
    mine = np.flatnonzero(deal_parts(chromosomes.sizes().tolist(), worlds.count) == worlds.number).tolist()
    used = {}
    with KinshipFile(job.path(".h5"), ids, options.method, labels, world) as file:
        products, pairs = products_and_pairs(S_grid, N_grid, genotypes, options.method, card, world.clock)
        with worlds.together():
            for c, used[c] in chromosome_sums(products, pairs, genotypes, chromosomes, mine, worlds.own):
                if options.loco:
                    file.save_sum(c, S_grid)
                    K_grid.local += S_grid.local
        worlds.add_up(K_grid.local)
        worlds.add_up(products.dropped.counts)
        used = worlds.union(used)
        if products.dropped.text:
            world.log.info(f"kinship: {products.dropped.text}")
        counted = np.sort(np.concatenate([used[c] for c in sorted(used)]))
        if counted.size == 0:
            raise InputError("no SNP is left after the filters: the kinship would be empty")
        if N_grid is None:
            K_grid.local /= counted.size
        else:
            divide_by_counts(K_grid, N_grid, ids, world)
        snps_of = [used[c].size for c in range(len(labels))]
        with worlds.together():
            if worlds.number == 0:
                file.save(K_grid)
        file.complete(study.fileset.variants, genotypes.index[counted], snps_of)
    files = [file.path]
    if options.grm_bin:
        files += write_gcta(job.prefix, K_grid, counted.size if N_grid is None else N_grid, ids, world)
    mean = trace(K_grid) / n
    world.log.info(f"{counted.size:,} SNPs used; mean diagonal {mean:.8f}")
    world.log.info(f"kinship of {n:,} samples: {', '.join(map(str, files))}")
    loco = dict(zip(labels, snps_of, strict=True)) if options.loco else None
    return files, {"method": options.method, "snps": counted.size, "n": n, "mean_diagonal": mean, "loco": loco}


def _chromosomes(options: Kinship, study: Study, index: np.ndarray) -> Chromosomes:
    return chromosomes_of(study.fileset.variants, index) if options.loco else Chromosomes.together(index.size)


# -- plan -------------------------------------------------------------------------------------------------------------


def make_plan(
    options: Kinship, machine: Machine, study: Study, chromosomes: Chromosomes, card: int | None = None
) -> KinshipPlan:
    """The widest block that fits the ranks, and ``card`` bytes of a GPU each. Raises MemoryPlanError."""
    sizes = KinshipSizes(
        study.samples.size,
        study.selected,
        study.fileset.bed.snp_bytes,
        options.loco,
        options.method == "gcta",
        card,
        tuple(chromosomes.sizes().tolist()) if options.loco and card is None and not options.grm_bin else (),
    )
    return plan_kinship(machine, sizes, options.block_size)


def cost_on(machine: Machine, options: Kinship, study: Study, chromosomes: Chromosomes, limit: int | None) -> RunCost:
    """What the kinship costs, with --loco the sums of ``chromosomes``; ``limit``: bytes of a GPU.

    Raises MemoryPlanError.
    """
    from mpgls.engine.card_cost import kinship_on_cards_cost
    from mpgls.engine.kinship_cost import KinshipWork, kinship_cost

    parts, gcta = len(chromosomes.labels) if options.loco else 0, options.method == "gcta"
    work = KinshipWork(study.samples.size, study.selected, study.fileset.bed.snp_bytes, parts, gcta)
    plan = make_plan(options, machine, study, chromosomes, limit)
    return kinship_cost(machine, plan, work) if limit is None else kinship_on_cards_cost(machine, plan, work)


def check_room(options: Kinship, n: int, count: int, job: Job) -> None:
    """K of n samples, with --loco the sums of ``count`` chromosomes, and GCTA's must have room. Raises StorageError."""
    sizes = {".h5": 8 * n * n * (1 + options.loco * count)}
    if options.grm_bin:
        sizes |= dict.fromkeys((".grm.bin", ".grm.N.bin"), 2 * n * (n + 1))
    job.check_room(sizes)


def say_plan(plan: KinshipPlan, machine: Machine, options: Kinship, count: int, job: Job) -> None:
    """The plan in the log; ``count`` chromosomes."""
    log, blocks = job.world.log, f"blocks of {plan.block} SNPs"
    log.info(f"plan: {plan.grid_text(machine)}, {blocks}, at most {plan.peak / GIB:.2f} GiB a rank")
    if plan.on_card:
        log.info(f"plan: S of this rank in float64 and blocks on its GPU, at most {plan.on_card / GIB:.2f} GiB")
    if options.loco:
        at_once = "one" if plan.worlds == 1 else str(plan.worlds)
        log.info(
            f"plan: leave one chromosome out: sums of {count} chromosomes in the file, {at_once} at a time in memory"
        )

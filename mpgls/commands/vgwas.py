"""mpgls vgwas: every SNP against every voxel, with permutations ([vGWAS] Da Mota et al., Algorithm 2.1).

    R_X, R_Y  = residuals of SNPs and voxels on the confounds Z, of length 1;  Z_w an orthonormal basis of Z
    for every block of SNPs and every permutation P, dealt to teams of ranks that each hold R_Y:
        beta    = (P'R_X)' R_Y                             one matrix product, a tile at a time
        Gamma^2 = column sums of ((P'Z_w)' R_Y)^2
        F       = (n - r - 1) beta^2 / (1 - Gamma^2 - beta^2)
        keep the pairs with p(F) <= the sparsity threshold, while the tile is in cache
        statistics of each SNP: smallest p, volume, sum of -log10 p, clusters, TFCE; their maxima over SNPs
    corrected p = (1 + #{maxima under permutation >= observed}) / (permutations + 1)

R_Y is in engine/voxels.py, the loop in engine/voxelwise.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.device.card import Card
from mpgls.engine.device_plan import card_limit, choose_card
from mpgls.engine.dry_run import dry_run_on
from mpgls.engine.images import check_memory, extract, open_stack
from mpgls.engine.voxel_tiles import on_the_card
from mpgls.engine.voxel_units import JoinedUnits, Unit, cut_units
from mpgls.engine.voxels import TeamVoxels
from mpgls.engine.voxelwise import Inference, Search, UnitScan
from mpgls.engine.voxelwise_plan import VoxelwisePlan, Wishes, plan_voxelwise
from mpgls.engine.voxelwise_store import KEPT, Earlier, VoxelwiseStore
from mpgls.errors import UsageError
from mpgls.la.teams import split_teams
from mpgls.model.clusters import RECORD_DTYPE, STATISTICS
from mpgls.model.extremes import Correction
from mpgls.model.permute import Permutations
from mpgls.report.brain_maps import map_bytes
from mpgls.report.figure import PICTURE_BYTES
from mpgls.report.file_names import ENDINGS_OF_MAP
from mpgls.report.table import table_bytes
from mpgls.report.table_formats import ALL_ENDINGS, made_files, table_paths, table_sizes
from mpgls.report.vgwas_report import Found, correction_line
from mpgls.report.vgwas_table import ROW_BYTES
from mpgls.run.coding_options import ColumnOptions
from mpgls.run.condition_options import ConditionOptions
from mpgls.run.device_options import DeviceOptions
from mpgls.run.genotype_options import GenotypeOptions
from mpgls.run.inference_options import InferenceOptions
from mpgls.run.inputs import Study, open_study, say_tables, selected_rows
from mpgls.run.job import Job, open_job
from mpgls.run.log import Log
from mpgls.run.option_groups import (
    PRECISIONS,
    BlockOptions,
    CheckpointOptions,
    PlotOptions,
    PrecisionOptions,
    TeamOptions,
)
from mpgls.run.options import at_least, option, the_file
from mpgls.run.plan import Machine
from mpgls.run.results import Results
from mpgls.run.study_options import NAMES, TABLE, CovariateOptions, RintOptions, VoxelOptions
from mpgls.run.table_options import TableOptions
from mpgls.stream.mark import Mark
from mpgls.stream.vgwas_files import pairs_bytes
from mpgls.study.images import VoxelMatrix, open_voxels
from mpgls.study.sample_ids import SampleId
from mpgls.study.voxel_study import Confounds, VoxelSource, VoxelStudy, align_voxels

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.engine.cost import RunCost

EXTRACTED = ".extracted.h5"
"""The voxel matrix of --images, while the run needs it."""
SNPS = ".snps"
SUFFIXES = (*(f"{SNPS}{ending}" for ending in ALL_ENDINGS), *(f".null.{name}.png" for name in STATISTICS), EXTRACTED)
OF_ONE_RUN = ("--permutations", "--first-permutation", "--tail", "--maps")
"""Options that runs which add permutations to one output need not share."""
VOXELS = "voxels and confounds"
SHOWN = 10
"""Constant voxels that are named."""


@dataclass(frozen=True, kw_only=True)
class Vgwas(
    GenotypeOptions, VoxelOptions, CovariateOptions, RintOptions, ConditionOptions, ColumnOptions, BlockOptions,
    InferenceOptions, TeamOptions, PlotOptions, TableOptions, PrecisionOptions, DeviceOptions, CheckpointOptions,
):  # fmt: skip
    """Options of ``mpgls vgwas``. The voxels are ``voxels``, or ``images`` and ``mask``, or the traits of ``pheno``."""

    command = "vgwas"
    has_ssf = keeps_records = False
    gpu_lacks = ()  # ranks make the residuals of any coding
    summary = "every SNP against every voxel, with permutations and cluster inference"
    example = (
        "mpirun -n 4 mpgls vgwas --bfile mice --voxels brain.h5 --covar covariates.tsv --permutations 1000 --out brain"
    )

    pheno: str | None = option(
        None,
        f"or traits, a {TABLE}",
        group=VOXELS,
        metavar="FILE",
        reads=the_file,
    )
    pheno_name: tuple[str, ...] = option((), f"columns of --pheno: {NAMES}; default: all", group=VOXELS, metavar="NAME")
    coordinates: str | None = option(
        None,
        "table with header TRAIT I J K: where the traits of --pheno are neighbours",
        group=VOXELS,
        metavar="FILE",
        reads=the_file,
    )
    blocks: str | None = option(
        None,
        "column with exchangeability blocks, sites or families: samples are permuted within them",
        group=VOXELS,
        metavar="NAME",
    )
    blocks_file: str | None = option(
        None,
        "table that has the column, if --covar does not",
        group=VOXELS,
        metavar="FILE",
        reads=the_file,
    )
    precision: str = option(
        "mixed",
        "mixed searches in single precision and scores what it finds with sums in double (default)",
        group="inference",
        choices=PRECISIONS,
    )
    maps: int = option(
        0, "NIfTI maps and pictures of the K best SNPs (0)", group="output", metavar="K", check=at_least(0)
    )
    voxel_chunk: int | None = option(
        None,
        "stream the voxels, so many at a time",
        metavar="V",
        check=at_least(1),
        changes_results=False,
    )

    def check(self) -> None:
        super().check()
        if sum(given is not None for given in (self.voxels, self.images, self.pheno)) != 1:
            raise UsageError("vgwas needs voxels: one of --voxels FILE, --images LIST with --mask, or --pheno FILE")
        if self.pheno is None and (self.pheno_name or self.coordinates is not None or self.transform.changes):
            raise UsageError(
                "--pheno-name, --coordinates and --rint belong to --pheno: voxels and images are taken as they are"
            )
        if self.maps and self.pheno is not None:
            raise UsageError("--maps needs images or a voxel matrix: traits have no grid to draw them on")
        if self.blocks_file is not None and self.blocks is None:
            raise UsageError("--blocks-file needs --blocks, the column to read")
        if self.blocks is not None and self.blocks_file is None and self.covar is None:
            raise UsageError("--blocks needs the table with its column: --covar or --blocks-file")
        if self.dry_run and self.images is not None:
            raise UsageError("--dry-run needs voxels that are there: make them with mpgls vgwas-extract")


def run(options: Vgwas, comm: MPI.Comm) -> Results:
    """Scan all SNPs and voxels. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    made, maps = (*SUFFIXES, *(() if options.adds else KEPT)), [f".*{ending}" for ending in ENDINGS_OF_MAP]
    with open_job(
        options, comm, made, further=KEPT, later=maps if options.maps else (),
        until_done=(".units.[0-9]*", EXTRACTED), adds=options.adds,
    ) as job:  # fmt: skip
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("open and check"):
            card = None if options.dry_run else choose_card(options.device_wish, world)
            study = open_study(options, world, traits=False)
            job.identify()
            origin = study.origin(job.identities)
            store = VoxelwiseStore(job.prefix, mark_of_output(job), options.indices, origin)
            earlier = world.on_root(lambda: store.look_back(job.resume))
            job.remove_earlier()
            search = make_search(options, study, job)
            if options.dry_run:
                machine = job.machine(search.bed.held_bytes)
                return dry_run_on(partial(cost_on, options, search), machine, options.rates, options.device_wish, job)
            plan = make_plan(options, search, earlier, card_limit(card, world), job)
            check_room(options, search, study, job)
        units = cut_units(search.m, options.indices, plan.block, plan.permutations)
        if left := what_is_left(units, earlier, job):
            with world.phase("units"):
                scan(options, search, plan, left, store, job, card)
        with world.phase("report"):
            joined = JoinedUnits(units, options.indices, search.m)
            maxima = world.on_root(lambda: store.keep(joined, earlier, search))
            corrections = world.on_root(lambda: correct(maxima, options.tail == "gpd", world.log))
            found = Found(study.fileset.variants, search.index_rep, world.on_root(store.open_entries), corrections)
            paths = table_paths(job.path(SNPS), options.formats)
            for note in found.write_table(paths, search.voxels.coordinates, comm):
                world.log.info(note)
            table = paths[options.formats[0]]
            facts = world.on_root(lambda: found.facts() | facts_of(search, joined, world.log))
            pictures = world.on_root(lambda: draw(options, found, search, job))
        facts |= {"plan": plan, "permutations": options.indices.stop - 1}
        also = f", {dropped}" if (dropped := world.on_root(lambda: found.dropped)) else ""
        world.log.info(f"{facts['tested']:,} of {facts['snps']:,} SNPs tested{also}: {table}")
        files = [*map(job.path, KEPT), *world.on_root(lambda: made_files(paths)), *pictures]
        return job.finish(facts, files=files, tables={"snps": table})


def scan(
    options: Vgwas,
    search: Search,
    plan: VoxelwisePlan,
    left: list[Unit],
    store: VoxelwiseStore,
    job: Job,
    card: Card | None,
) -> None:
    """The units that are ``left``, dealt to teams, each kept by its team's first rank. Collective; raises Stopped."""
    comm = job.world.comm
    team = split_teams(comm, plan.team_size)
    R_Y_team = TeamVoxels(search.voxels, plan, team, job.world)
    log = store.unit_log(comm.rank, options.checkpoint)
    with job.world.together():
        if team.comm.rank == 0:
            log.open(store.unit_mark, {"block": plan.block, "permutations": plan.permutations})
    try:
        for unit, result in UnitScan(search, R_Y_team, on_the_card(card, plan, job.threads)).results(
            left[team.index :: team.count]
        ):
            if team.comm.rank == 0:
                log.append(tuple(unit), result.arrays())
    finally:
        log.close()
    comm.Barrier()  # every log is on disk
    job.sample_memory()
    R_Y_team.close()
    team.comm.Free()


def mark_of_output(job: Job) -> Mark:
    """What all permutations of one output share."""
    facts = job.mark.facts
    options = {name: value for name, value in facts["options"].items() if name not in OF_ONE_RUN}
    return Mark({**facts, "options": options})


def open_voxel_study(options: Vgwas, study: Study, job: Job) -> VoxelStudy:
    """The voxels, extracted from the images first if there are any, and who is analysed. Collective."""
    known, codes, world = study.fileset.samples.ids(), options.missing_codes, job.world
    path = options.voxels if options.images is None else extracted(options, known, job)

    def align() -> VoxelStudy:
        if path is not None:
            source = VoxelSource.of_matrix(path, known)
        else:
            source = VoxelSource.of_traits(str(options.pheno), options.pheno_name, options.coordinates, known, codes)
        tables = (options.covar, options.covar_name, options.blocks, options.blocks_file)
        confounds = Confounds.read(*tables, known, codes, options.cat_covar)
        say_tables(world.log, source.matrix, *confounds.tables())
        if source.coordinates is not None and path is None:
            world.log.info(f"{options.coordinates}: places of {len(source.coordinates):,} voxels")
        return align_voxels(
            study.fileset.samples, study.samples, source, confounds, options.transform, study.conditioning
        )

    voxels = world.on_root(align)
    for line in voxels.describe():
        world.log.info(line)
    for warning in voxels.cohort.covariates.warnings():
        world.log.warn(warning)
    return voxels


def extracted(options: Vgwas, known: Sequence[SampleId], job: Job) -> str:
    """The voxel matrix made of the images, or by a run that was stopped. Collective."""
    path, made_from = job.path(EXTRACTED), mark_of_output(job).text

    def is_there() -> bool:
        return job.resume and path.exists() and open_voxels(path).made_from == made_from

    if not job.world.on_root(is_there):
        stack = open_stack(str(options.images), options.image_ids, str(options.mask), job.world, known)
        job.check_room({EXTRACTED: stack.nbytes})
        check_memory(stack.held, job.machine(), job.world.log)
        extract(stack, path, job.world, made_from)
    return str(path)


def make_search(options: Vgwas, study: Study, job: Job) -> Search:
    """SNPs, voxels, permutations, and how they become statistics. Collective."""
    voxels, index_rep = open_voxel_study(options, study, job), selected_rows(study, job.world)
    inference = Inference.of(voxels, options.sparsity_threshold, options.connectivity, options.tfce_step)
    score = inference.score
    job.world.log.info(f"{score.df:,} degrees of freedom; p <= {score.p_threshold:g} is |t| >= {score.t_threshold:.4f}")
    permutations = Permutations(options.seed, voxels.n, voxels.blocks)
    reasons = study.reasons(options.snps)
    return Search(study.fileset.bed, index_rep, reasons, voxels, permutations, inference, options.coding)


def make_plan(options: Vgwas, search: Search, earlier: Earlier, card: int | None, job: Job) -> VoxelwisePlan:
    """Choose sizes within --memory and ``card`` bytes of a GPU; a resumed run keeps its units. Collective."""
    block, permutations = earlier.sizes.get("block", options.block_size), earlier.sizes.get("permutations")
    machine = job.machine(search.bed.held_bytes)
    wishes = Wishes(options.team_size, block, options.voxel_chunk, permutations)
    plan = plan_voxelwise(machine, search.sizes(max(1, len(options.indices)), options.dtype, card), wishes)
    job.world.log.info(plan.text(machine))
    return plan


def cost_on(options: Vgwas, search: Search, machine: Machine, card: int | None) -> RunCost:
    """What the scan costs, on ``card`` bytes of a GPU each if that is given. Raises MemoryPlanError."""
    from mpgls.engine.voxelwise_card_cost import voxelwise_on_cards_cost
    from mpgls.engine.voxelwise_cost import voxelwise_cost

    sizes = search.sizes(max(1, len(options.indices)), options.dtype, card)
    plan = plan_voxelwise(machine, sizes, Wishes(options.team_size, options.block_size, options.voxel_chunk))
    return (voxelwise_cost if card is None else voxelwise_on_cards_cost)(machine, plan, sizes)


def check_room(options: Vgwas, search: Search, study: Study, job: Job) -> None:
    """The files whose sizes are known before the work must have room. Raises StorageError."""
    records, maxima = search.m * RECORD_DTYPE.itemsize, 8 * len(STATISTICS) * options.indices.stop
    table = table_bytes(study.fileset.variants, search.m, ROW_BYTES)
    sizes = table_sizes(SNPS, options.formats, table) | {".maxima.h5": maxima}
    if not options.adds:
        by_chance = pairs_bytes(1 + int(options.sparsity_threshold * search.m * search.voxels.v))
        sizes |= {".voxels.h5": records + 8 * search.m + by_chance, ".units.[0-9]*": records}
    if not options.no_plots:
        sizes |= {f".null.{name}.png": PICTURE_BYTES for name in STATISTICS}
    if isinstance(search.voxels.matrix, VoxelMatrix):
        of_map = map_bytes(search.voxels.matrix.shape)
        sizes |= {f".*{ending}": min(options.maps, search.m) * nbytes for ending, nbytes in of_map.items()}
    job.check_room(sizes)


def what_is_left(units: list[Unit], earlier: Earlier, job: Job) -> list[Unit]:
    """The units that are not done, which the log says of a resumed run."""
    left = earlier.left(units)
    if earlier.units is None:
        job.starts_anew(job.path(".units.00000"))
    else:
        for line in earlier.units.notes:
            job.world.log.info(line)
        job.world.log.info(f"resume: {len(units) - len(left):,} of {len(units):,} units are done")
    return left


def correct(maxima: dict[str, np.ndarray], tail: bool, log: Log) -> dict[str, Correction]:
    """How each statistic is corrected: by its maxima under permutation, and their tail if asked for."""
    corrections = {name: Correction.of(values, tail) for name, values in maxima.items()}
    for name, correction in corrections.items():
        log.info(correction_line(name, maxima[name][:1], correction))
    return corrections


def facts_of(search: Search, joined: JoinedUnits, log: Log) -> dict[str, int]:
    """Sizes, for the manifest; a warning of the voxels that could not be tested. On rank 0."""
    voxels, constant = search.voxels, joined.constant
    if constant.size:
        named = ", ".join(voxels.name(voxel) for voxel in constant[:SHOWN].tolist())
        more = ", ..." if constant.size > SHOWN else ""
        log.warn(f"{constant.size:,} voxels do not vary beside the confounds and are not tested: {named}{more}")
    sizes = {"n": voxels.n, "voxels": voxels.v, "confounds": voxels.Z.shape[1], "df": search.inference.score.df}
    return sizes | {"constant_voxels": constant.size}


def draw(options: Vgwas, found: Found, search: Search, job: Job) -> list[Path]:
    """Pictures and maps. On rank 0."""
    files = [] if options.no_plots else found.draw_nulls(options.out, job.world.log.info)
    matrix, neighbours = search.voxels.matrix, search.inference.neighbours
    best = found.most_significant(options.maps)
    parts = found.parts(best)
    job.outputs.claim([f".{part}{ending}" for part in parts for ending in ENDINGS_OF_MAP])
    for part, position in zip(parts, best.tolist(), strict=True):
        assert isinstance(matrix, VoxelMatrix) and neighbours is not None
        made = found.draw_maps(options.out, part, position, matrix, neighbours, job.world.log.info)
        job.world.log.info(f"map: {', '.join(map(str, made))}")
        files += made
    return files

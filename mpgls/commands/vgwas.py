"""mpgls vgwas: every SNP against every voxel, with permutations ([vGWAS] Da Mota et al., Algorithm 2.1).

    R_X, R_Y  = residuals of SNPs and voxels on the confounds Z, of length 1;  Z_w an orthonormal basis of Z
    for every block of SNPs and every permutation P, dealt to teams of ranks that each hold R_Y:
        beta    = (P'R_X)' R_Y                             one matrix product, a tile at a time
        Gamma^2 = column sums of ((P'Z_w)' R_Y)^2
        F       = (n - r - 1) beta^2 / (1 - Gamma^2 - beta^2)
        keep the pairs with p(F) <= the sparsity threshold, while the tile is in cache
        statistics of each SNP: smallest p, volume, sum of -log10 p, clusters, TFCE; their maxima over SNPs
    corrected p = (1 + #{maxima under permutation >= observed}) / (permutations + 1)

The loop is in engine/voxelwise.py, R_Y in engine/voxels.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study, open_study
from mpgls.commands.common.session import Session
from mpgls.commands.vgwas_parts.config import VgwasConfig
from mpgls.commands.vgwas_parts.results import KEPT, VgwasResults
from mpgls.engine.images import check_memory, extract, open_stack
from mpgls.engine.voxel_units import Unit
from mpgls.engine.voxels import TeamVoxels
from mpgls.engine.voxelwise import Inference, UnitScan
from mpgls.engine.voxelwise_plan import VoxelwisePlan, VoxelwiseScan, Wishes, plan_voxelwise
from mpgls.errors import InputError
from mpgls.la.teams import split_teams
from mpgls.model.clusters import STATISTICS, Neighbours
from mpgls.model.mulm import Score
from mpgls.model.permute import Permutations
from mpgls.mpi import on_root
from mpgls.run.identity import file_identity
from mpgls.run.world import World
from mpgls.stream.unit_log import UnitLog, remove_unit_logs
from mpgls.study.voxel_study import Confounds, VoxelSource, VoxelStudy, align_voxels

if TYPE_CHECKING:
    from mpi4py import MPI

EXTRACTED = ".extracted.h5"
"""The voxel matrix of --images, while the run needs it."""
SUFFIXES = (".snps.tsv", *(f".null.{name}.png" for name in STATISTICS), EXTRACTED)


def run(config: VgwasConfig, comm: MPI.Comm) -> None:
    """Scan all SNPs and voxels. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    made = (*SUFFIXES, *(() if config.adds else KEPT))
    session = Session("vgwas", config.run, comm, made, [*config.study.files(), *config.more_files()], config.adds)
    world = World(comm, session.log, session.timings, session.stop)
    with world.phase("open and check"):
        study = open_study(config.study, comm, session.log, traits=False)
        identities = study.identities + on_root(comm, lambda: [file_identity(path) for path in config.more_files()])
    if session.is_complete(identities, config):
        return
    results = VgwasResults(config, study, identities, session)
    if config.adds:
        session.remove_earlier()
    path = voxel_file(config, session, world)
    voxels = world.on_root(lambda: open_voxel_study(config, study, path))
    for line in voxels.describe():
        world.log.info(line)
    plan = make_plan(config, study, voxels, results.sizes, session)
    inference = make_inference(config, voxels, world)
    left = results.left(plan)
    if left:
        team = split_teams(comm, plan.team_size)
        share = TeamVoxels(voxels, plan, team, world)
        permutations = Permutations(config.seed, voxels.n, voxels.blocks)
        units = UnitScan(study.fileset.bed, config.study.snps, share, inference, permutations)
        index_rep: np.ndarray = comm.bcast(study.selection.index if study.selection is not None else None, root=0)
        with world.together():
            log = results.open_log(plan, writes=team.comm.rank == 0)
        scan(units, left, index_rep, log)
        session.sample_memory()
        share.close()
        team.comm.Free()
    with world.phase("report"):
        facts = results.finish(plan, voxels, inference)
    sizes = {"n": voxels.n, "voxels": voxels.v, "confounds": voxels.Z.shape[1], "df": inference.score.df}
    session.finish({"plan": plan, "inputs": identities, "permutations": config.indices.stop - 1, **sizes, **facts})
    on_root(comm, lambda: remove_intermediate(session))


def remove_intermediate(session: Session) -> None:
    """Remove what only --resume would have needed, once the manifest says that the run is complete."""
    remove_unit_logs(session.prefix)
    session.path(EXTRACTED).unlink(missing_ok=True)


def voxel_file(config: VgwasConfig, session: Session, world: World) -> str | None:
    """The voxel matrix: as given, or made of the images first; None when the voxels are traits. Collective."""
    if config.images is None or config.mask is None:
        return config.voxels
    path = session.path(EXTRACTED)
    if session.options.resume and on_root(session.comm, path.exists):
        return str(path)
    stack = open_stack(config.images, config.image_ids, config.mask, world)
    check_memory(stack.held, session.machine(), world.log)
    extract(stack, path, world)
    return str(path)


def open_voxel_study(config: VgwasConfig, study: Study, path: str | None) -> VoxelStudy:
    """Open the voxels at ``path`` (None: the traits) and intersect the samples. On one rank."""
    options = config.study
    if path is not None:
        source = VoxelSource.of_matrix(path)
    else:
        source = VoxelSource.of_traits(str(options.pheno), options.pheno_name, config.coordinates)
    confounds = Confounds.read(options.covar, options.covar_name, config.blocks, config.blocks_file)
    return align_voxels(study.fileset.samples, study.samples, source, confounds)


def make_plan(
    config: VgwasConfig, study: Study, voxels: VoxelStudy, sizes: dict[str, int], session: Session
) -> VoxelwisePlan:
    """Choose sizes within --memory; ``sizes`` are those of the run to resume. Collective."""
    if study.selected == 0:
        raise InputError("no SNP is left after the filters")
    scan = VoxelwiseScan(
        n=voxels.n,
        m=study.selected,
        v=voxels.v,
        r=voxels.Z.shape[1],
        permutations=max(1, len(config.indices)),
        threshold=config.sparsity_threshold,
        snp_bytes=study.fileset.bed.snp_bytes,
        neighbours=config.connectivity // 2 if voxels.coordinates is not None else 0,
        dtype=config.dtype,
    )
    block, permutations = sizes.get("block", config.block_size), sizes.get("permutations")
    machine = session.machine()
    plan = plan_voxelwise(machine, scan, Wishes(config.team_size, block, config.voxel_chunk, permutations))
    session.log.info(plan.text(machine))
    return plan


def make_inference(config: VgwasConfig, voxels: VoxelStudy, world: World) -> Inference:
    """Degrees of freedom, threshold, and which voxels are neighbours."""
    score = Score(voxels.n - voxels.Z.shape[1] - 1, config.sparsity_threshold)
    neighbours = None
    if voxels.coordinates is not None:
        neighbours = Neighbours.of(voxels.coordinates, config.connectivity)
    world.log.info(
        f"{score.df:,} degrees of freedom; p <= {config.sparsity_threshold:g} is |t| >= {score.t_threshold:.4f}"
    )
    return Inference(score, neighbours, config.tfce_step)


def scan(units: UnitScan, left: list[Unit], index_rep: np.ndarray, log: UnitLog) -> None:
    """The units that are ``left``, dealt to the teams in turn. Collective; raises Stopped after a signal."""
    team = units.team
    mine = left[team.index :: team.count]
    try:
        for unit, result in units.results(mine, index_rep):
            if team.comm.rank == 0:
                log.append(tuple(unit), result.arrays())
    finally:
        log.close()
    units.world.comm.Barrier()  # every log is on disk

"""mpgls vgwas: every SNP against every voxel, with permutations ([vGWAS] Da Mota et al., Algorithm 2.1).

    R_X, R_Y  = residuals of SNPs and voxels on the confounds Z, of length 1;  Z_w an orthonormal basis of Z
    for every block of SNPs and every permutation P, dealt to teams of ranks that each hold R_Y:
        beta    = (P'R_X)' R_Y                             one matrix product, a tile at a time
        Gamma^2 = column sums of ((P'Z_w)' R_Y)^2
        F       = (n - r - 1) beta^2 / (1 - Gamma^2 - beta^2)
        keep the pairs with p(F) <= the sparsity threshold, while the tile is in cache
        statistics of each SNP: smallest p, volume, sum of -log10 p, clusters, TFCE; their maxima over SNPs
    corrected p = (1 + #{maxima under permutation >= observed}) / (permutations + 1)

In vgwas_parts/ are voxels and samples (voxels.py), the loop (scan.py) and what is made of its results (results.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study, open_study
from mpgls.commands.common.session import Session
from mpgls.commands.vgwas_extract import extract
from mpgls.commands.vgwas_parts.config import VgwasConfig
from mpgls.commands.vgwas_parts.plan import VgwasPlan, plan_vgwas
from mpgls.commands.vgwas_parts.results import KEPT, VgwasResults
from mpgls.commands.vgwas_parts.scan import Inference, Unit, UnitScan
from mpgls.commands.vgwas_parts.voxels import TeamVoxels, VoxelStudy, open_voxel_study
from mpgls.errors import InputError
from mpgls.la.teams import split_teams
from mpgls.model.clusters import STATISTICS, Neighbours
from mpgls.model.mulm import Score, whiten
from mpgls.mpi import agree, on_root
from mpgls.run.identity import file_identity
from mpgls.stream.unit_log import remove_unit_logs

if TYPE_CHECKING:
    from mpi4py import MPI

EXTRACTED = ".extracted.h5"
"""The voxel matrix of --images, while the run needs it."""
SUFFIXES = (".snps.tsv", *(f".null.{name}.png" for name in STATISTICS), EXTRACTED)


def run(config: VgwasConfig, comm: MPI.Comm) -> None:
    """Scan all SNPs and voxels. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    made = (*SUFFIXES, *(() if config.adds else KEPT))
    session = Session("vgwas", config.run, comm, made, [*config.study.files(), *config.more_files()], config.adds)
    with session.timings.phase("open and check"):
        study = open_study(config.study, comm, session.log, traits=False)
        identities = study.identities + on_root(comm, lambda: [file_identity(path) for path in config.more_files()])
    if session.is_complete(identities, config):
        return
    results = VgwasResults(config, study, identities, session)
    if config.adds:
        session.remove_earlier()
    voxels = open_voxel_study(config, study, voxel_file(config, session), session)
    plan = make_plan(config, study, voxels, results.sizes, session)
    inference = make_inference(config, voxels, session)
    left = results.left(plan)
    if left:
        scan(config, study, voxels, inference, plan, left, results, session)
    with session.timings.phase("report"):
        facts = results.finish(plan, voxels, inference)
    sizes = {"n": voxels.n, "voxels": voxels.v, "confounds": voxels.Z.shape[1], "df": inference.score.df}
    session.finish({"plan": plan, "inputs": identities, "permutations": config.indices.stop - 1, **sizes, **facts})
    on_root(comm, lambda: remove_intermediate(session))


def remove_intermediate(session: Session) -> None:
    """Remove what only --resume would have needed, once the manifest says that the run is complete."""
    remove_unit_logs(session.prefix)
    session.path(EXTRACTED).unlink(missing_ok=True)


def voxel_file(config: VgwasConfig, session: Session) -> str | None:
    """The voxel matrix: as given, or made of the images first; None when the voxels are traits. Collective."""
    if config.images is None or config.mask is None:
        return config.voxels
    path = session.path(EXTRACTED)
    if session.options.resume and on_root(session.comm, path.exists):
        return str(path)
    extract(config.images, config.image_ids, config.mask, path, session.comm, session)
    return str(path)


def make_plan(
    config: VgwasConfig, study: Study, voxels: VoxelStudy, sizes: dict[str, int], session: Session
) -> VgwasPlan:
    """Choose sizes within --memory; ``sizes`` are those of the run to resume. Collective."""
    if study.selected == 0:
        raise InputError("no SNP is left after the filters")
    machine = session.machine()
    plan = plan_vgwas(
        machine,
        n=voxels.n,
        m=study.selected,
        v=voxels.v,
        r=voxels.Z.shape[1],
        permutations=max(1, len(config.indices)),
        threshold=config.sparsity_threshold,
        snp_bytes=study.fileset.bed.snp_bytes,
        precision=config.precision,
        neighbours=config.connectivity // 2 if voxels.coordinates is not None else 0,
        team_size=config.team_size,
        block=sizes.get("block", config.block_size),
        chunk=config.voxel_chunk,
        unit_permutations=sizes.get("permutations"),
    )
    session.log.info(plan.text(machine))
    return plan


def make_inference(config: VgwasConfig, voxels: VoxelStudy, session: Session) -> Inference:
    """Degrees of freedom, threshold, and which voxels are neighbours."""
    score = Score(voxels.n - voxels.Z.shape[1] - 1, config.sparsity_threshold)
    neighbours = None
    if voxels.coordinates is not None:
        neighbours = Neighbours.of(voxels.coordinates, config.connectivity)
    session.log.info(
        f"{score.df:,} degrees of freedom; p <= {config.sparsity_threshold:g} is |t| >= {score.t_threshold:.4f}"
    )
    return Inference(score, neighbours, config.tfce_step)


def scan(
    config: VgwasConfig,
    study: Study,
    voxels: VoxelStudy,
    inference: Inference,
    plan: VgwasPlan,
    left: list[Unit],
    results: VgwasResults,
    session: Session,
) -> None:
    """The units that are ``left``, dealt to the teams in turn. Collective; raises Stopped after a signal."""
    comm = session.comm
    team = split_teams(comm, plan.team_size)
    share = TeamVoxels(voxels, whiten(voxels.Z), plan, team, session)
    index: np.ndarray = comm.bcast(study.selection.index if study.selection is not None else None, root=0)
    units = UnitScan(study, voxels, share, inference, config.seed, config.study.snps, team, session)
    log, error = None, None
    if team.comm.rank == 0:
        try:
            log = results.open_log(plan)
        except Exception as caught:
            error = caught
    agree(comm, error)
    try:
        units.run(left[team.index :: team.count], index, log)
    finally:
        if log is not None:
            log.close()
    session.sample_memory()
    comm.Barrier()  # every log is on disk
    share.close()
    team.comm.Free()

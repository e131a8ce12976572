"""mpgls multi-trait: every SNP against every trait ([Elem] section 3, Algorithms 4-7, Elem-2D).

For each group of traits over the same samples:

    Z diag(lam) Z' = Phi                       once, on the grid
    X_L~, Y~       = Z'X_L, Z'Y
    h2_j           = argmax REML               in the eigenbasis, all traits at once, dealt to ranks
    E~             = Y~ - X_L~ beta_L          residuals of the null models;  W_kj = 1 / (h2_j lam_k + 1 - h2_j)
    for every block X of SNPs, dealt to teams that each hold Z:
        X~         = Z'X
        for every panel of traits:
            R      = (W o E~)'X~               one matrix product
            d      = B'(x~'P(h2)x~ at r nodes) the Schur complements of all traits from those at r values of h2
            beta   = R / d,  t = ...           an epilogue that keeps hits, histograms and best SNPs

The decomposition is in decompose.py, the loop over blocks in tile_scan.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.decompose import Decomposer, GroupBasis
from mpgls.commands.inputs import Study, open_study
from mpgls.commands.multi_config import MultiTraitConfig
from mpgls.commands.multi_results import SUFFIXES, MultiResults, NullEstimates
from mpgls.commands.plan_tiles import TilePlan, plan_tiles
from mpgls.commands.session import Session
from mpgls.commands.tile_scan import ResidentPanel, RotatedBlock, RotatedSnps, scan_tiles
from mpgls.commands.trait_groups import TraitGroup, TraitStudy, open_trait_study
from mpgls.errors import InputError, agree, on_root
from mpgls.la import eigen
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import Team, TeamOperator, split_teams
from mpgls.model.h2_basis import TOLERANCE
from mpgls.model.spectra import maximise_spectral_reml
from mpgls.model.tiles import Epilogue, Tile, TraitPanel
from mpgls.model.work import Work
from mpgls.stream.eigen_file import open_eigen_file
from mpgls.stream.scratch import ScratchFile
from mpgls.study.trait_matrix import read_h2_file

if TYPE_CHECKING:
    from mpi4py import MPI

SHOWN_GROUPS = 20
"""Groups that the plan lists."""


def run(config: MultiTraitConfig, comm: MPI.Comm) -> None:
    """Scan every trait of the study. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    session = Session("multi-trait", config.run, comm, SUFFIXES, config.inputs())
    with session.timings.phase("open and check"):
        study = open_study(config.study, comm, session.log, traits=False)
        eigen_file = on_root(comm, lambda: open_eigen_file(config.eigen) if config.eigen else None)
        traits = open_trait_study(config.study, study, eigen_file, config.missing, comm, session.log)
        known = on_root(comm, lambda: known_h2(config, traits))
    plan = make_plan(config, study, traits, session)
    results = MultiResults(config, study, traits, plan, session)
    with ProcessGrid(comm, plan.grid) as grid:
        team = split_teams(comm, plan.team_size)
        decomposer = Decomposer(
            config.solver, config.slepc_options, study, traits, eigen_file, grid, plan.grid_block, session,
            config.study.center_grm,
        )  # fmt: skip
        for g, group in enumerate(traits.groups):
            left = [panels for panels in plan.passes(group.traits.size) if not results.is_done(g, panels)]
            if left:
                basis = decomposer.take(group, f"group {g + 1} of {len(traits.groups)}", config.pcs)
                scan_group(config, study, traits, g, left, basis, known, plan, team, results, session)
                del basis  # before the next group's, not after it
        team.comm.Free()
    with session.timings.phase("report"):
        facts = results.finish()
    session.finish({"plan": plan, "inputs": study.identities, "groups": decomposer.facts, **facts})


def scan_group(
    config: MultiTraitConfig,
    study: Study,
    traits: TraitStudy,
    g: int,
    passes: list[list[tuple[int, int]]],
    basis: GroupBasis,
    known: np.ndarray,
    plan: TilePlan,
    team: Team,
    results: MultiResults,
    session: Session,
) -> None:
    """The traits of a group against all SNPs, in ``passes`` of as many traits as memory holds. Collective."""
    group, bed = traits.groups[g], study.fileset.bed
    with session.timings.phase("hand over basis"):
        operator = basis.hold(team, plan.block, config.dtype)  # Z on every team
    scratch = open_scratch(config, operator, session) if len(passes) > 1 else None
    blocks = RotatedSnps(bed, group, results.index, plan.block, operator, scratch, session)

    def keep(one: ResidentPanel, block: RotatedBlock, tile: Tile) -> None:
        results.take(one, group, g, block, tile)

    try:
        for of_pass in passes:
            panels, work = [], Work()
            for first, last in of_pass:
                panel, estimate = null_models(config, traits, group, first, last, basis, known, session)
                results.keep_null_models(group, first, estimate, panel)
                epilogue = Epilogue(panel.rss, panel.n, panel.q, config.test, config.p_threshold, work=work)
                panels.append(ResidentPanel(first, panel, panel.local(operator.rows, work), epilogue))
                panel.forget_rows()
            label = f"group {g + 1}, traits {of_pass[0][0] + 1:,} to {of_pass[-1][1]:,}"
            scan_tiles(blocks, panels, operator, team, config.study.snps, keep, session, label)
            with session.timings.phase("join ranks"):
                results.finish_pass(panels, group, g, of_pass)
    finally:
        if scratch is not None:
            scratch.remove()
    operator.close()


def open_scratch(config: MultiTraitConfig, operator: TeamOperator, session: Session) -> ScratchFile:
    """This rank's file for rotated SNPs. Collective. Raises StorageError on all ranks."""
    directory = Path(config.scratch) if config.scratch else session.path("").parent
    path = directory / f"{session.path('').name}.scratch.{session.comm.rank}"
    width = operator.panels[0].shape[1] * len(operator.panels)  # the columns of the whole process column
    scratch, error = None, None
    try:
        scratch = ScratchFile(path, (operator.rows.size, width), operator.panels[0].dtype)
    except Exception as caught:
        error = caught
    agree(session.comm, error)
    assert scratch is not None
    return scratch


def null_models(
    config: MultiTraitConfig,
    traits: TraitStudy,
    group: TraitGroup,
    first: int,
    last: int,
    basis: GroupBasis,
    known: np.ndarray,
    session: Session,
) -> tuple[TraitPanel, NullEstimates]:
    """Rotate the traits first..last of a group, estimate h2, and prepare their panel. Collective."""
    comm, timings = session.comm, session.timings
    with timings.phase("rotate traits", flop=2.0 * group.n**2 * (last - first) / comm.size):
        Y = on_root_read(session, traits, group, first, last)
        Y_rot = np.asfortranarray(eigen.multiply(basis.Z_grid, Y, transposed=True))  # Y~ = Z'Y
    with timings.phase("REML"):
        estimate = estimate_h2(basis, Y_rot, known[group.traits[first:last]], comm)
    with timings.phase("prepare panels"):
        panel = TraitPanel(basis.lam, basis.X_L_rot, Y_rot, estimate.h2, config.dtype, TOLERANCE[config.precision])
    return panel, estimate


def estimate_h2(basis: GroupBasis, Y_rot: np.ndarray, known: np.ndarray, comm: MPI.Comm) -> NullEstimates:
    """h2 as given, or by REML in the eigenbasis; the traits are dealt to ranks. Collective."""
    h2, h2_se, boundary = known.copy(), np.full(known.size, np.nan), np.zeros(known.size, dtype=bool)
    unknown = np.flatnonzero(np.isnan(known))
    mine = np.array_split(unknown, comm.size)[comm.rank]
    found = maximise_spectral_reml(basis.lam, basis.X_L_rot, Y_rot[:, mine], basis.log_det_xtx)
    for theirs, h2_r, se_r, boundary_r in comm.allgather((mine, found.h2, found.h2_se, found.at_boundary)):
        h2[theirs], h2_se[theirs], boundary[theirs] = h2_r, se_r, boundary_r
    # a trait that the covariates explain has no h2: its row is flagged, any value will do in the tiles
    return NullEstimates(np.nan_to_num(h2), h2_se, boundary)


def make_plan(config: MultiTraitConfig, study: Study, traits: TraitStudy, session: Session) -> TilePlan:
    """The plan for the largest group, in the log before anything large is allocated."""
    machine = session.machine()
    t = max((group.traits.size for group in traits.groups), default=1)
    plan = plan_tiles(
        machine,
        n=max((group.n for group in traits.groups), default=1),
        m=study.selected,
        t=t,
        q=traits.cohort.X_L.shape[1] + config.pcs,
        snp_bytes=study.fileset.bed.snp_bytes,
        item=np.dtype(config.dtype).itemsize,
        from_file=config.eigen is not None,
        packed_kinship=study.kinship is not None and study.kinship.packed_lower,
        several_groups=len(traits.groups) > 1,
        dense=config.dense,
        team_size=config.team_size,
        block=config.block_size,
        panel=config.trait_block,
        pass_traits=config.pass_traits,
    )
    session.log.info(plan.text(machine, t))
    for g, group in enumerate(traits.groups[:SHOWN_GROUPS]):
        session.log.info(f"plan: group {g + 1}: {group.traits.size:,} traits over {group.n:,} samples")
    return plan


def on_root_read(session: Session, traits: TraitStudy, group: TraitGroup, first: int, last: int) -> np.ndarray:
    """The traits' values, read by rank 0 and given to all: (n, last-first)."""
    Y = np.empty((last - first, group.n))

    def read() -> None:
        Y[...] = group.read(traits.matrix, first, last).T

    on_root(session.comm, read)
    session.comm.Bcast(Y, root=0)
    return Y.T


def known_h2(config: MultiTraitConfig, traits: TraitStudy) -> np.ndarray:
    """h2 (t,) where the user gave one, NaN where it is to be estimated."""
    known = np.full(len(traits.matrix.names), np.nan if config.h2 is None else config.h2)
    if config.h2_file is not None:
        table = read_h2_file(config.h2_file)
        known[:] = [table.get(name, np.nan) for name in traits.matrix.names]
        if np.isnan(known).all():
            raise InputError(f"{config.h2_file} has none of the {known.size} traits of {traits.matrix.path}")
    return known

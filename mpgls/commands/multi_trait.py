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

With --loco all of this is done for each chromosome in turn: Phi without its SNPs, then its SNPs' blocks.

In multi_trait_parts/ are the decomposition (decompose.py) and the loop over blocks (tile_scan.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study, open_study
from mpgls.commands.common.session import Session
from mpgls.commands.mixed_model.given_h2 import given_h2
from mpgls.commands.mixed_model.loco import KinshipPart, check_kinship, describe, scan_parts, tested_chromosomes
from mpgls.commands.mixed_model.null_models import check_components
from mpgls.commands.mixed_model.scan import own_blocks
from mpgls.commands.multi_trait_parts.config import MultiTraitConfig
from mpgls.commands.multi_trait_parts.decompose import Decomposer, GroupBasis
from mpgls.commands.multi_trait_parts.plan import TilePlan, plan_tiles
from mpgls.commands.multi_trait_parts.results import SUFFIXES, MultiResults, NullEstimates
from mpgls.commands.multi_trait_parts.tile_scan import ResidentPanel, RotatedBlock, RotatedSnps, scan_tiles
from mpgls.commands.multi_trait_parts.trait_groups import TraitGroup, TraitStudy, open_trait_study
from mpgls.errors import StorageError
from mpgls.la import eigen
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import Team, TeamOperator, split_teams
from mpgls.model.h2_basis import TOLERANCE
from mpgls.model.spectra import maximise_spectral_reml
from mpgls.model.tiles import Epilogue, Tile, TraitPanel
from mpgls.model.work import Work
from mpgls.mpi import agree, on_root
from mpgls.run.plan import block_within
from mpgls.stream.eigen_file import open_eigen_file
from mpgls.stream.scratch import ScratchFile

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.stream.eigen_file import EigenFile
    from mpgls.study.chromosomes import Chromosomes

SHOWN_GROUPS = 20
"""Groups that the plan lists."""


def run(config: MultiTraitConfig, comm: MPI.Comm) -> None:
    """Scan every trait of the study. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    session = Session("multi-trait", config.run, comm, SUFFIXES, config.inputs())
    with session.timings.phase("open and check"):
        check_scratch(config, comm)
        study = open_study(config.study, comm, session.log, traits=False, further=[config.h2_file])
        eigen_file = on_root(comm, lambda: open_eigen_file(config.eigen) if config.eigen else None)
        traits = open_trait_study(config.study, study, eigen_file, config.missing, comm, session.log)
        check_kinship(study, config.loco, comm, session.log)
        check_components(config.pcs, traits.cohort, "the study")
        chromosomes = tested_chromosomes(study, config.loco, comm)
        labels = chromosomes.labels if config.loco else None
        known = on_root(comm, lambda: given_h2(config.h2, config.h2_file, traits.matrix.names, labels))
    plan = make_plan(config, study, traits, chromosomes, session)
    edges, parts = scan_parts(study, chromosomes, plan.block, config.loco)
    describe(parts, edges, plan.block, session.log)
    results = MultiResults(config, study, traits, plan, parts, edges, session)
    facts: list[dict[str, object]] = []
    with ProcessGrid(comm, plan.grid) as grid:
        team = split_teams(comm, plan.team_size)
        for c, part in enumerate(parts):
            facts += scan_part(config, part, c, traits, eigen_file, known[c], plan, grid, team, results, session)
        team.comm.Free()
    with session.timings.phase("report"):
        outcome = results.finish()
    session.finish({"plan": plan, "inputs": study.identities, "groups": facts, **outcome})


def scan_part(
    config: MultiTraitConfig,
    part: KinshipPart,
    c: int,
    traits: TraitStudy,
    eigen_file: EigenFile | None,
    known: np.ndarray,
    plan: TilePlan,
    grid: ProcessGrid,
    team: Team,
    results: MultiResults,
    session: Session,
) -> list[dict[str, object]]:
    """All groups of traits against the SNPs that share the kinship of ``part``, number ``c``. Collective.

    Returns what the manifest says of the decompositions.
    """
    left = [
        [panels for panels in plan.passes(group.traits.size) if not results.is_done(c, g, panels)]
        for g, group in enumerate(traits.groups)
    ]
    uses = sum(1 for passes in left if passes)
    decomposer = Decomposer(
        config.solver, config.slepc_options, part.study, traits, uses, eigen_file, grid, plan.grid_block, session,
        config.study.center_grm,
    )  # fmt: skip
    for g, group in enumerate(traits.groups):
        if left[g]:
            basis = decomposer.take(group, part.of(f"group {g + 1} of {len(traits.groups)}"), config.pcs)
            scan_group(config, part, c, traits, g, left[g], basis, known, plan, team, results, session)
            del basis  # before the next group's, not after it
    return [fact if part.label is None else {"chromosome": part.label, **fact} for fact in decomposer.facts]


def scan_group(
    config: MultiTraitConfig,
    part: KinshipPart,
    c: int,
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
    """The traits of a group against the SNPs of a part, in ``passes`` of as many traits as memory holds. Collective."""
    group, bed = traits.groups[g], part.study.fileset.bed
    with session.timings.phase("hand over basis"):
        operator = basis.hold(team, plan.block, config.dtype)  # Z on every team
    scratch = open_scratch(config, operator, session) if len(passes) > 1 else None
    own = own_blocks(part.blocks, part.blocks, team, session.comm)
    blocks = RotatedSnps(bed, group, results.index, results.edges, own, operator, scratch, session)

    def keep(one: ResidentPanel, block: RotatedBlock, tile: Tile) -> None:
        results.take(one, group, g, block, tile)

    try:
        for of_pass in passes:
            panels, work = [], Work()
            for first, last in of_pass:
                panel, estimate = null_models(config, traits, group, first, last, basis, known, session)
                results.keep_null_models(c, group, first, estimate, panel)
                epilogue = Epilogue(panel.rss, panel.n, panel.q, config.test, config.p_threshold, work=work)
                panels.append(ResidentPanel(first, panel, panel.local(operator.rows, work), epilogue))
                panel.forget_rows()
            label = part.of(f"group {g + 1}, traits {of_pass[0][0] + 1:,} to {of_pass[-1][1]:,}")
            scan_tiles(blocks, panels, operator, team, config.study.snps, keep, session, label)
            with session.timings.phase("join ranks"):
                results.finish_pass(panels, group, c, g, of_pass)
    finally:
        if scratch is not None:
            scratch.remove()
    operator.close()


def check_scratch(config: MultiTraitConfig, comm: MPI.Comm) -> None:
    """--scratch must be there on every node, before hours of work. Collective. Raises StorageError on all ranks."""
    bad = config.scratch is not None and not os.path.isdir(config.scratch)
    what = f"cannot write to --scratch {config.scratch}: there is no such directory"
    agree(comm, StorageError(what) if bad else None)


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
    h2, (h2_se, log_likelihood) = known.copy(), np.full((2, known.size), np.nan)
    boundary = np.zeros(known.size, dtype=bool)
    unknown = np.flatnonzero(np.isnan(known))
    mine = np.array_split(unknown, comm.size)[comm.rank]
    found = maximise_spectral_reml(basis.lam, basis.X_L_rot, Y_rot[:, mine], basis.log_det_xtx)
    of_rank = (mine, found.h2, found.h2_se, found.log_likelihood, found.at_boundary)
    for theirs, h2_r, se_r, likelihood_r, boundary_r in comm.allgather(of_rank):
        h2[theirs], h2_se[theirs], boundary[theirs] = h2_r, se_r, boundary_r
        log_likelihood[theirs] = likelihood_r
    # a trait that the covariates explain has no h2: its row is flagged, any value will do in the tiles
    return NullEstimates(np.nan_to_num(h2), h2_se, log_likelihood, boundary)


def make_plan(
    config: MultiTraitConfig, study: Study, traits: TraitStudy, chromosomes: Chromosomes, session: Session
) -> TilePlan:
    """The plan for the largest group, in the log before anything large is allocated."""
    machine = session.machine()
    t = max((group.traits.size for group in traits.groups), default=1)
    plan = plan_tiles(
        machine,
        n=max((group.n for group in traits.groups), default=1),
        m=-(-study.selected // len(chromosomes.labels)),
        t=t,
        q=traits.cohort.X_L.shape[1] + config.pcs,
        snp_bytes=study.fileset.bed.snp_bytes,
        item=np.dtype(config.dtype).itemsize,
        from_file=config.eigen is not None,
        packed_kinship=study.kinship is not None and study.kinship.packed_lower,
        several_groups=len(traits.groups) > 1,
        dense=config.dense,
        team_size=config.team_size,
        block=block_within(config.block_size, study.selected),
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

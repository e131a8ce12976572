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

In engine/ are the basis and the null models (eigenbasis.py) and the loop over blocks (tile_scan.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study, open_study
from mpgls.commands.common.session import Session
from mpgls.commands.common.trait_study import open_trait_study
from mpgls.commands.multi_trait_parts.config import MultiTraitConfig
from mpgls.commands.multi_trait_parts.plan import TilePlan, plan_tiles
from mpgls.commands.multi_trait_parts.results import SUFFIXES, open_ledger, report
from mpgls.commands.scan_parts.given_h2 import given_h2
from mpgls.engine.eigenbasis import Eigenbasis, decompose, load_vectors, maximise_reml_of_traits, rotate_traits
from mpgls.engine.kinship_on_grid import KinshipOnGrid
from mpgls.engine.models import check_components
from mpgls.engine.parts import KinshipPart, check_kinship, describe, scan_parts, tested_chromosomes
from mpgls.engine.snp_scan import own_blocks
from mpgls.engine.tile_scan import ResidentPanel, RotatedSnps, SnpBlocks, scan_tiles
from mpgls.errors import StorageError
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import Team, TeamOperator, split_teams
from mpgls.model.h2_basis import TOLERANCE
from mpgls.model.tiles import Epilogue, TraitPanel
from mpgls.model.trait_records import Pass
from mpgls.model.work import Work
from mpgls.run import inputs
from mpgls.run.plan import block_within
from mpgls.run.world import World
from mpgls.stream.eigen_file import open_eigen_file
from mpgls.stream.packed import read_snps
from mpgls.stream.scratch import ScratchFile
from mpgls.study.genotypes import Decoder

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.engine.trait_ledger import TraitLedger
    from mpgls.stream.eigen_file import EigenFile
    from mpgls.study.chromosomes import Chromosomes
    from mpgls.study.trait_groups import TraitGroup, TraitStudy

SHOWN_GROUPS = 20
"""Groups that the plan lists."""


def run(config: MultiTraitConfig, comm: MPI.Comm) -> None:
    """Scan every trait of the study. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    session = Session("multi-trait", config.run, comm, SUFFIXES, config.inputs())
    world = World(comm, session.log, session.timings, session.stop)
    with world.phase("open and check"):
        check_scratch(config, world)
        study = open_study(config.study, comm, session.log, traits=False, further=[config.h2_file])
        eigen_file = world.on_root(lambda: open_eigen_file(config.eigen) if config.eigen else None)
        traits = open_trait_study(config.study, study, eigen_file, config.missing, comm, session.log)
        check_kinship(study, config.loco, world)
        check_components(config.pcs, traits.cohort, "the study")
        chromosomes = tested_chromosomes(study, config.loco, world)
        labels = chromosomes.labels if config.loco else None
        known = world.on_root(lambda: given_h2(config.h2, config.h2_file, traits.matrix.names, labels))
    plan = make_plan(config, study, traits, chromosomes, session)
    edges, parts = scan_parts(study, chromosomes, plan.block, config.loco)
    describe(parts, edges, plan.block, world)
    ledger = open_ledger(config, study, traits, plan, edges, len(parts), session, world)
    with ProcessGrid(comm, plan.grid) as grid:
        team = split_teams(comm, plan.team_size)
        scan = TraitScan(config, traits, eigen_file, plan, edges, ledger, grid, team, world)
        facts = [fact for c, part in enumerate(parts) for fact in scan.part(part, c, known[c], session)]
        team.comm.Free()
    with world.phase("report"):
        outcome = report(config, study, traits, parts, ledger, session)
    session.finish({"plan": plan, "inputs": study.identities, "groups": facts, **outcome})


@dataclass(frozen=True)
class TraitScan:
    """What the parts of a scan share. Its methods are collective."""

    config: MultiTraitConfig
    traits: TraitStudy
    eigen_file: EigenFile | None
    plan: TilePlan
    edges: np.ndarray
    ledger: TraitLedger
    grid: ProcessGrid
    team: Team
    world: World

    def part(self, part: KinshipPart, c: int, known: np.ndarray, session: Session) -> list[dict[str, object]]:
        """All groups of traits against the SNPs that share the kinship of ``part``, number ``c``.

        ``known`` (t,) are heritabilities that are given. Returns what the manifest says of the decompositions.
        """
        groups = self.traits.groups
        left = [self.ledger.left(self.plan.passes(c, g, group.traits.size)) for g, group in enumerate(groups)]
        phi = self._kinship(part.study, sum(map(bool, left)), session)
        facts = []
        for g, group in enumerate(groups):
            if left[g]:
                basis, fact = self._basis(phi, group, part.of(f"group {g + 1} of {len(groups)}"))
                self._group(part, g, left[g], basis, known)
                del basis  # before the next group's, not after it
                facts.append(fact if part.label is None else {"chromosome": part.label, **fact})
        return [] if phi is None else facts

    def _kinship(self, study: inputs.Study, uses: int, session: Session) -> KinshipOnGrid | None:
        """Phi on the grid, to be taken by as many groups as ``uses``; None where the basis is given."""
        if self.eigen_file is not None:
            return None
        assert study.kinship is not None
        position = np.full(study.fileset.bed.n, -1, dtype=np.int64)
        for group in self.traits.groups:
            position[group.rows] = group.kinship_index
        samples = np.flatnonzero(position >= 0)
        centered, block = self.config.study.center_grm, self.plan.grid_block
        return KinshipOnGrid(study.kinship, samples, position[samples], uses, self.grid, block, self.world, centered)

    def _basis(self, phi: KinshipOnGrid | None, group: TraitGroup, label: str) -> tuple[Eigenbasis, dict[str, object]]:
        """The eigenbasis of a group's kinship, and what the manifest says of it."""
        config = self.config
        if phi is None:
            assert self.eigen_file is not None
            Z_grid = load_vectors(self.eigen_file, self.grid, self.plan.grid_block, self.world, label)
            return Eigenbasis(self.eigen_file.lam, Z_grid, group.X_L, config.pcs), {}
        Phi_grid = phi.take(group.rows, label, to_destroy=True)
        pairs = decompose(Phi_grid, config.solver, config.slepc_options, self.world, label)
        fact = {"n": group.n, "solver": pairs.how, "residual": pairs.residual}
        return Eigenbasis(pairs.lam, pairs.Z_grid, group.X_L, config.pcs), fact

    def _group(self, part: KinshipPart, g: int, passes: list[Pass], basis: Eigenbasis, known: np.ndarray) -> None:
        """The traits of group ``g`` against the SNPs of a part, in ``passes`` of as many traits as memory holds."""
        config, world, group, bed = self.config, self.world, self.traits.groups[g], part.study.fileset.bed
        with world.phase("hand over basis"):
            operator = basis.hold(self.team, self.plan.block, config.dtype)  # Z on every team
        numbers = own_blocks(part.blocks, part.blocks, self.team, world)
        blocks = SnpBlocks.of(numbers, self.ledger.index, self.edges)
        scratch = self._scratch(operator) if len(passes) > 1 else None
        decoder = Decoder(bed.n, [group.rows[panel] for panel in operator.row_panels], operator.panels[0].dtype)
        reader = read_snps(bed, blocks.rows, world.comm)
        snps = RotatedSnps(blocks, reader, decoder, operator, scratch, world)
        try:
            for one in passes:
                panels, work = [], Work()
                for first, stop in self.plan.panels(one, group.traits.size):
                    panels.append(self._panel(one, first, stop, basis, known, operator.rows, work))
                label = part.of(f"group {g + 1}, traits {one.first + 1:,} to {one.stop:,}")
                team = world.of(self.team.comm)
                scan_tiles(snps, panels, config.study.snps, self.ledger.dense, team, world, label)
                with world.phase("join ranks"):
                    self.ledger.finish(one, panels)
        finally:
            if scratch is not None:
                scratch.remove()
        operator.close()

    def _panel(
        self, one: Pass, first: int, stop: int, basis: Eigenbasis, known: np.ndarray, rows: np.ndarray, work: Work
    ) -> ResidentPanel:
        """Rotate the traits first..stop of the pass's group, estimate h2, and keep this rank's ``rows`` of them."""
        config, group = self.config, self.traits.groups[one.group]
        traits = group.traits[first:stop]
        Y_tilde_rep = rotate_traits(basis, self.traits.matrix, group, first, stop, self.world)
        nulls = maximise_reml_of_traits(basis, Y_tilde_rep, known[traits], self.world)
        with self.world.phase("prepare panels"):
            tolerance = TOLERANCE[config.precision]
            panel = TraitPanel(basis.lam, basis.X_L_tilde_rep, Y_tilde_rep, nulls.h2, config.dtype, tolerance)
        epilogue = Epilogue(panel.rss, panel.n, panel.q, config.test, config.p_threshold, work=work)
        self.ledger.keep_nulls(one.part, traits, nulls, panel, epilogue.statistic.df)
        local = panel.local(rows, work)
        panel.forget_rows()
        return ResidentPanel(one.group, first, traits, panel, local, epilogue)

    def _scratch(self, operator: TeamOperator) -> ScratchFile:
        """This rank's file for rotated SNPs. Raises StorageError on all ranks."""
        out = Path(self.config.run.out)
        path = Path(self.config.scratch or out.parent) / f"{out.name}.scratch.{self.world.rank}"
        width = operator.panels[0].shape[1] * len(operator.panels)  # the columns of the whole process column
        with self.world.together():
            scratch = ScratchFile(path, (operator.rows.size, width), operator.panels[0].dtype)
        return scratch


def check_scratch(config: MultiTraitConfig, world: World) -> None:
    """--scratch must be there on every node, before hours of work. Collective. Raises StorageError on all ranks."""
    with world.together():
        if config.scratch is not None and not os.path.isdir(config.scratch):
            raise StorageError(f"cannot write to --scratch {config.scratch}: there is no such directory")


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

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
"""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.multi_trait_parts.options import MultiTrait
from mpgls.commands.multi_trait_parts.plans import cost_on, make_plan
from mpgls.engine.dense_tiles import DenseTiles, TraitOrder, check_passes
from mpgls.engine.device_plan import choose_card
from mpgls.engine.dry_run import dry_run_on
from mpgls.engine.eigenbasis import (
    Bases,
    Eigenbasis,
    FileBases,
    KinshipBases,
    maximise_reml_of_traits,
    rotate_traits,
)
from mpgls.engine.held_basis import GroupSnps, HeldBasis, basis_on_cards, basis_on_ranks
from mpgls.engine.kinship_on_grid import KinshipOnGrid
from mpgls.engine.mixed_check import SAMPLED, MixedCheck
from mpgls.engine.models import check_components
from mpgls.engine.parts import KinshipPart, check_kinship, describe, scan_parts, tested_chromosomes
from mpgls.engine.snp_scan import own_blocks
from mpgls.engine.tile_card_plan import basis_on_card
from mpgls.engine.tile_plan import TilePlan
from mpgls.engine.tile_scan import OwnBlocks, ResidentPanel, SnpBlocks, TileTest, scan_tiles
from mpgls.engine.trait_ledger import TraitLedger, open_trait_ledger
from mpgls.errors import StorageError, about
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import Team, split_teams
from mpgls.model.null_record import unidentified
from mpgls.model.snp_ratio import fields_of
from mpgls.model.trait_records import Pass
from mpgls.report.figure import PICTURE_BYTES
from mpgls.report.multi_trait import LeftOut, TraitReport
from mpgls.report.table import FIGURES_BYTES
from mpgls.report.table_formats import ALL_ENDINGS, table_paths, table_sizes
from mpgls.run.inputs import Study, known_h2, open_study, selected_rows
from mpgls.run.job import Job, open_job
from mpgls.run.outputs import check_room as check_room_at
from mpgls.run.trait_inputs import open_trait_study
from mpgls.stream.dense_store import RATIO_TILES, DenseShape, DenseStore, create_dense, open_dense
from mpgls.stream.eigen_file import EigenFile, open_eigen_file
from mpgls.study.snp_columns import SnpColumns
from mpgls.study.trait_groups import TraitStudy, TraitUse

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.device.card import Card
    from mpgls.engine.cost import RunCost
    from mpgls.run.plan import Machine
    from mpgls.run.results import Results


HITS = ".hits"
TABLES = {"traits": ".traits.tsv", "loco": ".loco.tsv"}
HISTOGRAMS = ".histograms.h5"
FILES = (".h5", *(f"{HITS}{ending}" for ending in ALL_ENDINGS), HISTOGRAMS, ".hits.png", ".qq.png")
SUFFIXES = (*TABLES.values(), *FILES, f"{HISTOGRAMS}.partial", ".progress")
SCRATCH = (".scratch.[0-9]*", f"{HISTOGRAMS}.sum")
HISTOGRAM_BYTES = 1_200
"""Of the packed histogram of a trait, about."""


def run(options: MultiTrait, comm: MPI.Comm) -> Results:
    """Scan every trait of the study. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    with open_job(options, comm, SUFFIXES, until_done=(".progress", *SCRATCH)) as job:
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("open and check"):
            check_scratch(options, job)
            card = None if options.dry_run else choose_card(options.device_wish, world)
            study = open_study(options, world, traits=False)
            eigen_file = world.on_root(lambda: open_eigen_file(options.eigen) if options.eigen else None)
            use = TraitUse(options.missing, options.transform, np.float32 if options.dense else np.float64)
            traits = open_trait_study(options, study, eigen_file, use, world)
            check_kinship(study, options.loco, world)
            check_components(options.pcs, traits.cohort, "the study")
            chromosomes = tested_chromosomes(study, options.loco, world)
            labels = chromosomes.labels if options.loco else None
            given = known_h2(options, traits.matrix.names, labels, world)
            job.identify()
            ledger = open_trait_ledger(
                job.state(), job.resume, traits, job.path(HISTOGRAMS), len(given), world, fields_of(options.snp_test)
            )
            if options.dry_run:
                machine = job.machine(study.fileset.bed.held_bytes)

                def cost(at: Machine, limit: int | None) -> RunCost:
                    return cost_on(at, options, study, traits, given, limit)

                return dry_run_on(cost, machine, options.rates, options.device_wish, job)
            plan = make_plan(options, study, traits, chromosomes, ledger.tiles, card, job)
            edges, parts = scan_parts(study, chromosomes, plan.block, options.loco)
            describe(parts, edges, plan.block, world)
            blocks = SnpBlocks(selected_rows(study, world), edges)
        facts: list[dict[str, Any]] = []
        with (
            world.phase("scan"),
            ProcessGrid(comm, plan.grid) as grid,
            split_teams(comm, plan.team_size, plan.solver) as team,
            ledger,
        ):
            scan = Scan(options, traits, plan, blocks, ledger, team, card, job)
            check_room(scan, study, parts)
            ledger.begin(blocks.index, plan.tiles, open_tiles(scan, study, parts))
            for c, part in enumerate(parts):
                bases = open_bases(scan, part.study, c, eigen_file, grid)
                scan_part(scan, part, c, bases, given[c])
                facts += [fact if part.label is None else {"chromosome": part.label, **fact} for fact in bases.facts]
        with world.phase("report"):
            found = world.on_root(lambda: report(scan, study, parts))
        files = [path for path in map(job.path, FILES) if path.exists()]
        hits = {"hits": table_paths(job.path(HITS), options.formats)[options.formats[0]]}
        tables = hits | {name: job.path(suffix) for name, suffix in TABLES.items() if name != "loco" or options.loco}
        return job.finish({"plan": plan, "groups": facts, **found}, files=files, tables=tables, nulls=ledger.nulls())


@dataclass(frozen=True)
class Scan:
    """What the parts of a scan share."""

    options: MultiTrait
    traits: TraitStudy
    plan: TilePlan
    blocks: SnpBlocks
    ledger: TraitLedger
    team: Team
    card: Card | None
    job: Job
    checks: list[MixedCheck] = field(default_factory=list)
    """What comparisons of a card with float64 found."""

    @property
    def test(self) -> TileTest:
        """How SNPs are tested."""
        return TileTest(self.options.snp_test, self.options.p_threshold, self.options.refit_threshold)

    def left(self, c: int) -> list[list[Pass]]:
        """The passes of each group that are not done over the SNPs of part ``c``."""
        sizes = [group.traits.size for group in self.traits.groups]
        return [self.ledger.left(self.plan.passes(c, g, size)) for g, size in enumerate(sizes)]


def scan_part(scan: Scan, part: KinshipPart, c: int, bases: Bases, given: np.ndarray) -> None:
    """All groups of traits against the SNPs that share the kinship of ``part``, number ``c``. Collective.

    ``given`` (t,) are heritabilities of the user, or NaN. Raises Stopped, on all ranks, when a signal asked for it.
    """
    groups = scan.traits.groups
    for g, (group, passes) in enumerate(zip(groups, scan.left(c), strict=True)):
        if passes:
            label = part.of(f"group {g + 1} of {len(groups)}")
            basis = bases.take(group, label)  # Z diag(lam) Z' = Phi;  X_L~ = Z'X_L
            say_if_flat(scan, part, g, basis, bases.source, given)
            with about(label):
                scan_group(scan, part, g, passes, basis, given)
            del basis  # before the next group's, not after it


def say_if_flat(scan: Scan, part: KinshipPart, g: int, basis: Eigenbasis, source: str, given: np.ndarray) -> None:
    """A warning, if h2 of traits of group ``g`` is to be estimated from a kinship that tells nothing about it."""
    open_h2 = [scan.traits.matrix.names[j] for j in scan.traits.groups[g].traits if np.isnan(given[j])]
    if open_h2 and basis.is_flat():
        names = ", ".join(open_h2[:5]) + (f", ... ({len(open_h2):,} traits)" if len(open_h2) > 5 else "")
        scan.job.world.log.warn(unidentified(part.of(names), source))


def scan_group(scan: Scan, part: KinshipPart, g: int, passes: list[Pass], basis: Eigenbasis, given: np.ndarray) -> None:
    """The traits of group ``g`` against the SNPs of a part, in ``passes`` of as many as memory holds. Collective."""
    ledger, team, world = scan.ledger, scan.team, scan.job.world
    own = scan.blocks.take(own_blocks(part.blocks, part.blocks, team, world))
    with hold_basis(scan, part, own, basis, scan.traits.groups[g].rows, len(passes)) as on:
        for one in passes:
            on.begin_pass()
            panels = [
                hold_panel(scan, one, traits, basis, given, on)
                for traits in scan.plan.panels(one, scan.traits.groups[g].traits.size)
            ]
            tiles = on.tiles(panels, part.study.reasons(scan.options.snps), ledger.dense)
            label = part.of(f"group {g + 1}, traits {one.first + 1:,} to {one.stop:,}")
            scan_tiles(on.snps, tiles, team, world, label)
            with world.phase("join ranks"):
                ledger.finish(one, panels)
            del panels, tiles  # before those of the next pass, not after them
        if on.checked is not None:
            scan.checks.append(on.checked)
        scan.job.sample_memory()


def hold_basis(
    scan: Scan, part: KinshipPart, own: OwnBlocks, basis: Eigenbasis, rows: np.ndarray, passes: int
) -> AbstractContextManager[HeldBasis]:
    """Z where X~ = Z'X of this rank's ``own`` blocks of a part is made: on the cards of each team, or on its ranks."""
    options, plan, test, team, world = scan.options, scan.plan, scan.test, scan.team, scan.job.world
    bed, sample = part.study.fileset.bed, scan.blocks.sample(part.blocks, SAMPLED)
    snps = GroupSnps(bed, own, rows, SnpColumns(coding=options.coding), plan.block, sample)
    if scan.card is not None:
        return basis_on_cards(basis, snps, test, basis_on_card(scan.card, plan, options.precision), team, world)
    out = scan.job.path("")
    scratch = (Path(options.scratch or out.parent), out.name) if passes > 1 else None
    return basis_on_ranks(basis, snps, test, scratch, team, world)


def hold_panel(
    scan: Scan, one: Pass, traits: tuple[int, int], basis: Eigenbasis, given: np.ndarray, on: HeldBasis
) -> ResidentPanel:
    """Rotate some ``traits`` of the pass's group, fit their null models, keep this rank's rows. Collective."""
    (first, stop), group, world = traits, scan.traits.groups[one.group], scan.job.world
    at = group.traits[first:stop]
    Y_tilde_rep = rotate_traits(basis, scan.traits.matrix, group, first, stop, world)  # Y~ = Z'Y
    nulls = maximise_reml_of_traits(basis, Y_tilde_rep, given[at], world)
    with world.phase("prepare panels"):
        panel = scan.test.panel(basis, Y_tilde_rep, nulls)  # W o E~
    scan.ledger.keep_nulls(one.part, at, panel.fitted(nulls))
    rows = on.rows_of(panel)
    refit = on.refit(panel, rows)
    panel.forget_rows()
    return ResidentPanel(one.group, first, at, panel, rows, scan.test.epilogue(panel, on.work), refit)


def open_bases(scan: Scan, study: Study, c: int, eigen_file: EigenFile | None, grid: ProcessGrid) -> Bases:
    """Where the groups' eigenbases come from; the kinship is loaded once, if any has passes left. Collective."""
    options, block, world = scan.options, scan.plan.grid_block, scan.job.world
    if eigen_file is not None:
        return FileBases(eigen_file, grid, block, options.pcs, world)
    assert study.kinship is not None
    samples, index = scan.traits.kinship_samples(study.fileset.bed.n)
    uses = sum(map(bool, scan.left(c)))
    phi = KinshipOnGrid(study.kinship, samples, index, uses, grid, block, world, options.center_grm)
    return KinshipBases(phi, options.eigensolver, options.slepc_options, options.pcs, world)


def dense_shape(scan: Scan, dosages: bool) -> tuple[TraitOrder, DenseShape]:
    """The order of the traits in the dense store, and what it holds of genotypes or ``dosages``."""
    traits, blocks, parts = scan.traits, scan.blocks, len(scan.ledger.records.nulls)
    order = TraitOrder(traits.groups, traits.matrix.names)
    further, B = RATIO_TILES if scan.options.ratio == "snp" else (), scan.plan.block
    shape = DenseShape(blocks.index, blocks.edges, B, order.names, order.group, parts, further, dosages)
    return order, shape


def open_tiles(scan: Scan, study: Study, parts: list[KinshipPart]) -> DenseTiles | None:
    """The dense store if it is asked for: a new one, or that of the run that this one resumes. Collective."""
    options, job = scan.options, scan.job
    if not options.dense or not scan.traits.groups:
        return None
    path, (order, shape) = job.path(".h5"), dense_shape(scan, study.fileset.bed.dosages)

    def make() -> DenseStore:
        if scan.ledger.done:
            return open_dense(path, job.mark)
        return create_dense(path, shape, job.mark, {"test": options.snp_test.test, **study.origin(job.identities)})

    store = job.world.on_root(make)
    check_passes(store, order, scan.ledger.done, [part.blocks for part in parts], job.world)
    return DenseTiles(store, order, scan.plan.panel, options.checkpoint, job.world)


def report(scan: Scan, study: Study, parts: list[KinshipPart]) -> dict[str, Any]:
    """Write hits, trait table, histograms and pictures; returns facts for the manifest. Call on one rank."""
    options, traits, ledger, log = scan.options, scan.traits, scan.ledger, scan.job.world.log
    ledger.histograms.finish(len(parts))
    made = TraitReport(
        scan.job.prefix, ledger.names, traits.samples, study.fileset.variants, ledger.records, ledger.histograms
    )
    paths, hits = table_paths(scan.job.path(HITS), options.formats), ledger.records.hits.size
    for note in made.write_hits(paths, study.fileset.bed.dosages):
        log.info(note)
    made.write_traits()
    if options.loco:
        made.write_loco([LeftOut(str(part.label), part.left_out) for part in parts])
    table, traits_table = paths[options.formats[0]], scan.job.path(TABLES["traits"])
    log.info(f"{hits:,} hits with p <= {options.p_threshold:g}: {table}; traits: {traits_table}")
    if not options.no_plots:
        made.draw(ledger.index, options.p_threshold, log.info)
    checked = functools.reduce(MixedCheck.larger, scan.checks).facts() if scan.checks else {}
    return {"hits": hits, "traits": len(ledger.names), **checked}


def check_room(scan: Scan, study: Study, parts: list[KinshipPart]) -> None:
    """The files whose sizes are known before the work must have room, rotated SNPs too. Collective.

    Raises StorageError on all ranks.
    """
    options, traits, plan, job = scan.options, scan.traits, scan.plan, scan.job
    t, m, row = len(traits.matrix.names), scan.blocks.index.size, study.fileset.variants.row_bytes + FIGURES_BYTES
    sizes = {TABLES["traits"]: t * row, HISTOGRAMS: t * HISTOGRAM_BYTES}
    sizes |= table_sizes(HITS, options.formats, int(options.p_threshold * t * m) * row)  # by chance
    if options.dense and traits.groups:
        sizes[".h5"] = dense_shape(scan, study.fileset.bed.dosages)[1].nbytes
    if not options.no_plots:
        sizes |= dict.fromkeys((".hits.png", ".qq.png"), PICTURE_BYTES)
    several = any(len(plan.passes(0, g, group.traits.size)) > 1 for g, group in enumerate(traits.groups))
    several &= scan.card is None
    widest = max(int(np.diff(scan.blocks.edges)[part.blocks].sum()) for part in parts)
    rotated = several * widest * plan.n * np.dtype(options.dtype).itemsize
    job.check_room(sizes | ({SCRATCH[0]: rotated} if options.scratch is None else {}))
    if options.scratch is not None:
        of_node = {f"{options.scratch}/{job.path('').name}.scratch": rotated * job.ranks_per_node // job.world.size}
        with job.world.together():
            check_room_at(options.scratch, of_node)


def check_scratch(options: MultiTrait, job: Job) -> None:
    """--scratch must be there on every node, before hours of work. Collective. Raises StorageError on all ranks."""
    with job.world.together():
        if options.scratch is not None and not os.path.isdir(options.scratch):
            raise StorageError(f"cannot write to --scratch {options.scratch}: there is no such directory")

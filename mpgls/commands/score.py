"""mpgls score: what the weights of SNPs predict for people who need not have been in the study.

    s_i = sum_j w_j (x_ij - c_j)      x copies of A1; c the mean that the weights were made with, 0 for a missing x - c

SNPs are found by chromosome, position, ID and alleles. Blocks of them are dealt to ranks, whose sums are added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.scores import plan_scores, score
from mpgls.errors import InputError, UsageError
from mpgls.model.prediction_fit import PredictionFit, fit_of
from mpgls.report.score_table import write_fit, write_scores
from mpgls.report.weights_table import NUMBER_BYTES
from mpgls.run.genotype_options import GenotypeOptions
from mpgls.run.inputs import Study, open_study, say_tables, selected_rows
from mpgls.run.job import Job, open_job
from mpgls.run.option_groups import BlockOptions, RunOptions
from mpgls.run.options import option, required, the_file
from mpgls.run.plan import block_within
from mpgls.run.results import Results
from mpgls.run.study_options import TABLE, PhenotypeOptions
from mpgls.study.tables import Table, index_ids, read_table
from mpgls.study.weight_matches import ScoredSnps, match_weights
from mpgls.study.weights_file import WeightsFile, read_weights

if TYPE_CHECKING:
    from mpi4py import MPI

SUFFIXES = (".scores.tsv", ".fit.tsv")


@dataclass(frozen=True, kw_only=True)
class Score(GenotypeOptions, PhenotypeOptions, BlockOptions, RunOptions):
    """Options of ``mpgls score``."""

    command = "score"
    summary = "predicted values of people from the weights of SNPs that an earlier run made"
    example = "mpirun -n 4 mpgls score --weights cd8.CD8.weights.tsv --bfile new --pheno new.tsv --out new_cd8"

    weights: str = required(
        "weights of single-trait or low-rank with --blup, or of ridge with --weights", group="model", metavar="FILE",
        reads=the_file,
    )  # fmt: skip
    pheno: str | None = option(
        None,
        f"{TABLE}; says how well the traits are predicted of those who have them",
        group="traits and covariates",
        metavar="FILE",
        reads=the_file,
    )

    def check(self) -> None:
        super().check()
        if self.missing_code and self.pheno is None:
            raise UsageError("--missing-code needs --pheno")


def run(options: Score, comm: MPI.Comm) -> Results:
    """Predict. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    with open_job(options, comm, SUFFIXES) as job:
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("open and check"):
            study = open_study(options, world, traits=False)
            names, snps = find_snps(options, study, job)
            measured = world.on_root(lambda: read_measured(options, names, study))
            job.identify()
            ids = [study.fileset.samples.ids()[row] for row in study.samples]
            job.check_room({".scores.tsv": len(ids) * (16 + NUMBER_BYTES * len(names))})
            bed, machine = study.fileset.bed, job.machine(study.fileset.bed.held_bytes)
            asked = block_within(options.block_size, snps.rows.size)
            plan = plan_scores(machine, len(ids), snps, bed.snp_bytes, asked)
            world.log.info(plan.memory_text(machine))
        with world.phase("scores"):
            S_rep = score(GenotypeBlocks(bed, study.samples, snps.rows, options.snps, plan.block), snps, world)
        tables = {"scores": job.path(".scores.tsv")}
        with world.phase("report"):
            world.on_root(lambda: write_scores(tables["scores"], ids, names, S_rep))
            world.log.info(f"scores of {len(ids):,} people: {tables['scores']}")
            if measured is not None:
                tables["fit"] = job.path(".fit.tsv")
                fits = {name: fit_of(y[has], S_rep[has, names.index(name)]) for name, (y, has) in measured.items()}
                world.on_root(lambda: write_fit(tables["fit"], fits))
                say_fits(fits, job)
        return job.finish({"n": len(ids), "snps": snps.rows.size}, tables=tables)


def find_snps(options: Score, study: Study, job: Job) -> tuple[tuple[str, ...], ScoredSnps]:
    """The traits of the weights, and the SNPs of the genotypes that have a weight. Collective. Raises InputError."""
    world, index = job.world, selected_rows(study, job.world)

    def match() -> tuple[tuple[str, ...], ScoredSnps]:
        weights: WeightsFile = read_weights(options.weights)
        say_tables(world.log, weights)
        snps, counts = match_weights(weights, study.fileset, index)
        for line in counts.lines():
            world.log.info(line)
        for warning in counts.warnings():
            world.log.warn(warning)
        return weights.names, snps

    return world.on_root(match)


def read_measured(
    options: Score, names: tuple[str, ...], study: Study
) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """Of each trait that was measured: its values (n,), and who of the people has one; on one rank.

    Raises InputError where there is none, or one is the same for everybody who has it.
    """
    if options.pheno is None:
        return None
    everyone = study.fileset.samples.ids()
    table = read_table(options.pheno, options.pheno_name, everyone, options.missing_codes)
    known = [name for name in table.names if name in names]
    if not known or (options.pheno_name and len(known) < len(table.names)):
        without = next(name for name in table.names if name not in names)
        raise InputError(
            f"{options.weights} has no weights for {without!r} of {options.pheno}: it has them for "
            + ", ".join(names[:5])
            + (", ..." if len(names) > 5 else "")
        )
    index = index_ids(table.ids, options.pheno)
    rows = np.array([index.get(everyone[row], -1) for row in study.samples])
    return {name: _values_of(table, name, rows) for name in known}


def _values_of(table: Table, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = np.where(rows < 0, np.nan, table.values[rows, table.names.index(name)])
    has = np.isfinite(y)
    values = np.unique(y[has])
    if values.size < 2:
        what = f"is constant ({values[0]:g})" if values.size else "is missing"
        raise InputError(f"{table.path}: trait {name!r} {what} over the {rows.size:,} people who are predicted")
    return y, has


def say_fits(fits: dict[str, PredictionFit], job: Job) -> None:
    """The first traits in the log."""
    for name, fit in list(fits.items())[:5]:
        job.world.log.info(f"  {name}: r {fit.r:.4f}, R2 {fit.r2:.4f} of {fit.n:,} people")

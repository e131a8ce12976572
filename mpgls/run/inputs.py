"""Opening a study: rank 0 reads and checks the user's files, every rank receives what it needs of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mpgls.errors import InputError
from mpgls.run.log import Log
from mpgls.run.option_groups import CovariateOptions, GenotypeOptions, KinshipOptions, TraitOptions
from mpgls.run.world import World
from mpgls.stream.packed import read_snps
from mpgls.study.align import Cohort, align, check_explained
from mpgls.study.filters import Selection, select_snps
from mpgls.study.genotypes import missing_per_sample
from mpgls.study.grm import Kinship, open_kinship
from mpgls.study.hdf5 import path_attribute
from mpgls.study.plink import Fileset, open_fileset
from mpgls.study.tables import SampleId, Table, read_id_list, read_table

FAM_TRAIT = "pheno"
"""The name of the .fam's sixth column as a trait."""
MIND_BLOCK = 4096
"""SNPs that are counted at a time for --mind."""


@dataclass(frozen=True)
class Study:
    """An opened study. ``selection`` is on rank 0 only: at 10^8 SNPs not every rank should hold the index.

    ``samples`` are the .fam rows that are analysed for any trait, ascending; ``cohorts`` is empty without traits.
    """

    fileset: Fileset
    kinship: Kinship | None
    samples: np.ndarray
    cohorts: dict[str, Cohort]
    selected: int
    selection: Selection | None

    def origin(self, identities: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What a result store says of the SNPs that its rows belong to; `mpgls export` looks for it."""
        bim = f"{self.fileset.prefix}.bim"
        digest = next(one["sha256"] for one in identities if one["path"] == bim)
        rows = self.fileset.variants.count
        return {"bfile": path_attribute(os.path.abspath(self.fileset.prefix)), "bim_rows": rows, "bim_sha256": digest}

    def kinship_index(self) -> np.ndarray:
        """Positions of ``samples`` in the kinship, from the traits' cohorts."""
        position = np.full(self.fileset.bed.n, -1, dtype=np.int64)
        for cohort in self.cohorts.values():
            position[cohort.rows] = cohort.kinship_index
        return position[self.samples]


def open_study(
    options: GenotypeOptions, world: World, traits: bool = True, model_ids: Sequence[SampleId] | None = None
) -> Study:
    """Read and check everything but the genotypes and the kinship's numbers. Collective.

    Without ``traits`` no phenotype is read and the samples are those of --keep, --remove and --mind. ``model_ids``
    are the samples of an eigendecomposition that stands in place of the kinship.

    Raises InputError, StorageError or UsageError, on all ranks, for whatever is wrong with the files.
    """
    codes = options.missing_codes if isinstance(options, CovariateOptions) else ()
    fileset = world.on_root(lambda: open_fileset(options.bfile, codes))
    selection = None

    def select() -> int:
        nonlocal selection
        selection = select_snps(fileset.variants, options.snps)
        return selection.index.size

    selected = world.on_root(select)
    too_incomplete = _incomplete_samples(options, fileset, selection, world)
    kinship = None
    if isinstance(options, KinshipOptions) and options.grm is not None:
        grm, grm_id = options.grm, options.grm_id
        kinship = world.on_root(lambda: open_kinship(grm, grm_id))
        model_ids = kinship.ids
    cohorts: dict[str, Cohort] = {}
    if traits:
        assert isinstance(options, TraitOptions)
        tables = world.on_root(lambda: _read_tables(options, fileset))
        cohorts = world.on_root(lambda: _cohorts(options, tables, fileset, model_ids, too_incomplete))
        samples = np.unique(np.concatenate([cohort.rows for cohort in cohorts.values()]))
    else:
        samples = world.on_root(lambda: _kept_samples(options, fileset, too_incomplete))
    if selection is not None:
        say_tables(world.log, fileset.samples.summary, fileset.variants.summary)
        if traits:
            say_tables(world.log, *filter(None, tables), *_phenotype_notes(fileset, tables[0] is None))
        _describe(world.log, fileset, selection, cohorts, samples.size)
    return Study(fileset, kinship, samples, cohorts, selected, selection)


def selected_rows(study: Study, world: World) -> np.ndarray:
    """int64 (m,): the .bim rows of the selected SNPs, on every rank. Collective."""
    return world.comm.bcast(study.selection.index if study.selection is not None else None, root=0)


class Described(Protocol):
    """A file that says how it was understood, and what in it may mean something else."""

    @property
    def summary(self) -> str:
        """One line for the log."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lines that ask for attention."""


def say_tables(log: Log, *tables: Described | str) -> None:
    """How each file was understood, in one line of the log, and what may be wrong with it."""
    for table in tables:
        log.info(table if isinstance(table, str) else table.summary)
        for warning in () if isinstance(table, str) else table.warnings:
            log.warn(warning)


def _phenotype_notes(fileset: Fileset, used: bool) -> list[str]:
    """What the log says of the .fam's phenotype, where it is used and not just numbers."""
    note = fileset.samples.phenotype_note
    return [note] if used and note else []


def _read_tables(options: TraitOptions, fileset: Fileset) -> tuple[Table | None, Table | None]:
    """The phenotypes and the covariates, where there are tables of them."""
    known, codes = fileset.samples.ids(), options.missing_codes
    phenotype = read_table(options.pheno, options.pheno_name, known, codes) if options.pheno else None
    covariates = read_table(options.covar, options.covar_name, known, codes) if options.covar else None
    return phenotype, covariates


def _cohorts(
    options: Any,
    tables: tuple[Table | None, Table | None],
    fileset: Fileset,
    model_ids: Sequence[SampleId] | None,
    too_incomplete: list[SampleId],
) -> dict[str, Cohort]:
    """The analysed samples of each trait."""
    (phenotype, covariates), known = tables, fileset.samples.ids()
    keep = read_id_list(options.keep, known) if options.keep else None
    remove = read_id_list(options.remove, known) if options.remove else []
    traits = phenotype.names if phenotype is not None else (FAM_TRAIT,)
    if not traits:
        raise InputError(f"{options.pheno} has no phenotype column after FID and IID")
    for trait in traits:
        if "/" in trait or trait in (".", ".."):  # PREFIX.TRAIT.tsv, and a group of the store
            raise InputError(f"{options.pheno}: trait {trait!r} cannot be part of a file's name: rename the column")
    dropped = (remove + too_incomplete) or None
    by = " and ".join(name for name, ids in (("--remove", remove), ("--mind", too_incomplete)) if ids)
    cohorts = {
        trait: align(fileset.samples, phenotype, trait, covariates, model_ids, keep, dropped, remove_by=by)
        for trait in traits
    }
    for trait, cohort in cohorts.items():
        check_explained(cohort, trait)
    return cohorts


def _kept_samples(options: GenotypeOptions, fileset: Fileset, too_incomplete: list[SampleId]) -> np.ndarray:
    """The .fam rows that --keep, --remove and --mind leave."""
    ids = fileset.samples.ids()
    keep = set(read_id_list(options.keep, ids)) if options.keep else None
    drop = set(read_id_list(options.remove, ids) if options.remove else []) | set(too_incomplete)
    rows = [row for row, name in enumerate(ids) if (keep is None or name in keep) and name not in drop]
    if not rows:
        raise InputError("no sample is left after --keep, --remove and --mind")
    return np.array(rows, dtype=np.int64)


def _incomplete_samples(
    options: GenotypeOptions, fileset: Fileset, selection: Selection | None, world: World
) -> list[SampleId]:
    """--mind: samples with a larger share of missing genotypes, by one pass over the selected SNPs. Collective."""
    if options.mind >= 1.0:
        return []
    comm = world.comm
    index = comm.bcast(selection.index if selection is not None else None, root=0)
    missing = np.zeros(fileset.bed.n, dtype=np.int64)
    blocks = [index[start : start + MIND_BLOCK] for start in range(0, index.size, MIND_BLOCK)]
    for _, packed in read_snps(fileset.bed, blocks[comm.rank :: comm.size], comm):
        missing += missing_per_sample(packed, fileset.bed.n)
    comm.Allreduce(missing.copy(), missing)
    ids = fileset.samples.ids()
    return [ids[i] for i in np.flatnonzero(missing > options.mind * index.size)]


def _describe(log: Log, fileset: Fileset, selection: Selection, cohorts: dict[str, Cohort], samples: int) -> None:
    """The sample and SNP funnel, in the log."""
    log.info(f"{fileset.prefix}: {fileset.bed.n:,} samples, {fileset.bed.m:,} SNPs")
    dropped = "".join(f", {count:,} dropped by {flag}" for flag, count in selection.reasons.items())
    log.info(f"SNPs: {selection.index.size:,} selected of {selection.total:,}{dropped}")
    if selection.negative_bp:
        log.info(f"SNPs: {selection.negative_bp:,} have a negative position (PLINK would skip them)")
    log.info(f"samples: {samples:,} analysed of {fileset.bed.n:,}")
    for trait, cohort in cohorts.items():
        steps = " > ".join(f"{count:,} {label}" for label, count in cohort.funnel)
        log.info(f"samples of {trait}: {steps}")
        log.info(f"covariates of {trait}: {', '.join(cohort.covariate_names)}")

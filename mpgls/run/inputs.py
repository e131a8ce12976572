"""Opening a study: rank 0 reads and checks the user's files, every rank receives what it needs of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.run.conditioning import open_conditioning
from mpgls.run.genotype_options import GenotypeOptions
from mpgls.run.log import Log
from mpgls.run.option_groups import ModelOptions, TraitScanOptions
from mpgls.run.sex_report import BLOCK, say_sex
from mpgls.run.study_options import CovariateOptions, KinshipOptions, MissingCodeOptions, TraitOptions
from mpgls.run.world import World
from mpgls.stream.eigen_file import EigenFile
from mpgls.stream.packed import read_snps
from mpgls.study.align import Cohort, align, check_explained
from mpgls.study.conditioning import ConditioningSnps
from mpgls.study.filters import Selection, SnpFilter, select_snps
from mpgls.study.genotypes import ON_Y, missing_per_sample
from mpgls.study.grm import Kinship, open_kinship
from mpgls.study.h2_file import given_h2
from mpgls.study.hdf5 import path_attribute
from mpgls.study.plink import Fileset
from mpgls.study.ploidy import SexedGenotypes, with_sex
from mpgls.study.reasons import Reasons
from mpgls.study.sample_ids import FAMILIES_TAKEN, SampleFilter, with_families
from mpgls.study.sources import GenotypeSource, open_genotypes
from mpgls.study.tables import SampleId, Table, read_table
from mpgls.study.trait_matrix import TraitMatrix
from mpgls.study.variant_tables import variant_files

FAM_TRAIT = "pheno"
"""The name of the .fam's sixth column as a trait."""


@dataclass(frozen=True)
class Study:
    """An opened study. ``selection`` is on rank 0 only: at 10^8 SNPs not every rank should hold the index.

    ``samples`` are the .fam rows that are analysed for any trait, ascending; ``cohorts`` is empty without traits.
    """

    source: GenotypeSource
    fileset: Fileset
    kinship: Kinship | None
    samples: np.ndarray
    cohorts: dict[str, Cohort]
    selected: int
    selection: Selection | None
    conditioning: ConditioningSnps

    def reasons(self, filters: SnpFilter) -> Reasons:
        """Why SNPs have no estimate."""
        return Reasons(filters, self.conditioning.rows)

    def origin(self, identities: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What a result store says of the SNPs that its rows belong to; `mpgls export` looks for it."""
        tables = variant_files(self.fileset.variants)
        digests = [one["sha256"] for one in identities if Path(one["path"]) in tables]
        return {
            self.source.name: path_attribute(os.path.abspath(self.source.value)),
            "bim_rows": self.fileset.variants.count,
            "bim_sha256": " ".join(digests[: len(tables)]),
        }

    def kinship_index(self) -> np.ndarray:
        """Positions of ``samples`` in the kinship, from the traits' cohorts."""
        position = np.full(self.fileset.bed.n, -1, dtype=np.int64)
        for cohort in self.cohorts.values():
            position[cohort.rows] = cohort.kinship_index
        return position[self.samples]


def open_study(options: GenotypeOptions, world: World, traits: bool = True, eigen: EigenFile | None = None) -> Study:
    """Read and check everything but the genotypes and the kinship's numbers. Collective.

    Without ``traits`` no phenotype is read and the samples are those of --keep, --remove and --mind. ``eigen`` is an
    eigendecomposition that stands in place of the kinship.

    Raises InputError, StorageError or UsageError, on all ranks, for whatever is wrong with the files.
    """
    codes = options.missing_codes if isinstance(options, MissingCodeOptions) else ()
    fileset = world.on_root(lambda: with_sex(open_genotypes(options.source, codes), options.sex_rule))
    if options.info > 0 and not fileset.bed.dosages:
        raise UsageError(f"--info needs dosages, and hard calls are read of {fileset.prefix}")
    if options.hwe > 0 and fileset.bed.dosages:
        raise UsageError("--hwe counts hard calls, and dosages are read: give --dosage hard-call as well")
    selection = None

    def select() -> int:
        nonlocal selection
        selection = select_snps(fileset.variants, options.snps)
        return selection.index.size

    selected = world.on_root(select)
    say_tables(world.log, fileset.samples.summary, fileset.variants.summary, *(selection.lists if selection else ()))
    if world.rank == 0 and (absent := options.source.absent()):
        world.log.warn(f"{options.source.value}: there are no files of chromosomes {', '.join(absent)}")
    known = fileset.samples.ids()
    listed = world.on_root(lambda: SampleFilter.read(options.keep, options.remove, known))
    say_tables(world.log, *listed.summaries())
    too_incomplete = _incomplete_samples(options, fileset, selection, world)
    conditioning = open_conditioning(options, fileset, selection, world)
    kinship, model_ids = None, None
    if isinstance(options, KinshipOptions) and options.grm is not None:
        grm, grm_id = options.grm, options.grm_id
        kinship = world.on_root(lambda: open_kinship(grm, grm_id, known))
        say_tables(world.log, kinship.summary)
        model_ids = kinship.ids
    elif eigen is not None:
        model_ids = in_families(eigen, known, world.log)
    cohorts: dict[str, Cohort] = {}
    if traits:
        assert isinstance(options, TraitScanOptions)
        tables = world.on_root(lambda: _read_tables(options, known))
        say_tables(world.log, *filter(None, tables), *_phenotype_notes(fileset, tables[0] is None))
        cohorts = world.on_root(
            lambda: _cohorts(options, tables, fileset, model_ids, listed, too_incomplete, conditioning)
        )
        if options.transform.changes:
            world.log.info(f"traits: {options.transform.text}, over the samples of each")
        samples = np.unique(np.concatenate([cohort.rows for cohort in cohorts.values()]))
    else:
        samples = listed.rows(known, too_incomplete)
        if not samples.size:
            raise InputError("no sample is left after --keep, --remove and --mind")
    if selection is not None:
        _describe(world.log, fileset, selection, cohorts, samples.size)
    if isinstance(fileset.bed, SexedGenotypes):
        say_sex(fileset.bed, selection, samples, world)
    return Study(options.source, fileset, kinship, samples, cohorts, selected, selection, conditioning)


def selected_rows(study: Study, world: World) -> np.ndarray:
    """int64 (m,): the .bim rows of the selected SNPs, on every rank. Collective."""
    return world.comm.bcast(study.selection.index if study.selection is not None else None, root=0)


class Described(Protocol):
    """A file that says how it was understood."""

    @property
    def summary(self) -> str:
        """One line for the log."""


def say_tables(log: Log, *files: Described | str) -> None:
    """How each file was understood, in one line of the log, and what of a table may mean something else."""
    for file in files:
        log.info(file if isinstance(file, str) else file.summary)
        for warning in file.warnings if isinstance(file, Table | TraitMatrix) else ():
            log.warn(warning)


def known_h2(
    options: ModelOptions, traits: Sequence[str], chromosomes: Sequence[str] | None, world: World
) -> np.ndarray:
    """h2 (parts, t), replicated, where the user gave one; see `mpgls.study.h2_file.given_h2`, also for what is raised.

    Collective.
    """
    known = world.on_root(lambda: given_h2(options.h2, options.h2_file, traits, chromosomes))
    if options.h2_file is not None:
        world.log.info(f"{options.h2_file}: {np.count_nonzero(~np.isnan(known)):,} of {known.size:,} h2 are known")
    return known


def in_families(eigen: EigenFile, known: Sequence[SampleId], log: Log) -> list[SampleId]:
    """The samples of an eigendecomposition, in its order; where they have no FIDs, those of ``known`` samples."""
    ids = with_families(eigen.ids, known)
    notes = [*([FAMILIES_TAKEN] if ids != eigen.ids else []), *eigen.rows.notes]
    if notes:
        log.info("; ".join([f"{eigen.path}: {len(ids):,} samples", *notes]))
    return ids


def _phenotype_notes(fileset: Fileset, used: bool) -> list[str]:
    """What the log says of the .fam's phenotype, where it is used and not just numbers."""
    note = fileset.samples.phenotype_note
    return [note] if used and note else []


def _read_tables(options: TraitOptions, known: Sequence[SampleId]) -> tuple[Table | None, Table | None]:
    """The phenotypes and the covariates, where there are tables of them."""
    codes = options.missing_codes
    phenotype = read_table(options.pheno, options.pheno_name, known, codes) if options.pheno else None
    return phenotype, read_covariates(options, known)


def read_covariates(options: CovariateOptions, known: Sequence[SampleId]) -> Table | None:
    """The table of --covar, if there is one; raises as `read_table` does. Call on one rank."""
    if options.covar is None:
        return None
    return read_table(
        options.covar, options.covar_name, known, options.missing_codes, options.cat_covar,
        further=options.further_covar,
    )  # fmt: skip


def _cohorts(
    options: Any,
    tables: tuple[Table | None, Table | None],
    fileset: Fileset,
    model_ids: Sequence[SampleId] | None,
    listed: SampleFilter,
    too_incomplete: list[SampleId],
    conditioning: ConditioningSnps,
) -> dict[str, Cohort]:
    """The analysed samples of each trait."""
    phenotype, covariates = tables
    keep = None if listed.keep is None else listed.keep.ids
    remove = [] if listed.remove is None else listed.remove.ids
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
    for trait, aligned in cohorts.items():
        cohort = aligned.beside(conditioning, trait)
        check_explained(cohort, trait)  # of its residuals only rounding would be left to rank
        cohorts[trait] = cohort.transformed(options.transform, trait)
        check_explained(cohorts[trait], trait)
    return cohorts


def _incomplete_samples(
    options: GenotypeOptions, fileset: Fileset, selection: Selection | None, world: World
) -> list[SampleId]:
    """--mind: samples with a larger share of missing genotypes, by one pass over the selected SNPs. Collective."""
    if options.mind >= 1.0:
        return []
    comm = world.comm
    index = comm.bcast(selection.index if selection is not None else None, root=0)
    if isinstance(fileset.bed, SexedGenotypes):  # women lack Y, which is no fault of theirs
        index = index[fileset.bed.kinds.of(index) != ON_Y]
    missing = np.zeros(fileset.bed.n, dtype=np.int64)
    blocks = [index[start : start + BLOCK] for start in range(0, index.size, BLOCK)]
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
    for line in _of_cohorts(cohorts, lambda cohort: cohort.covariates.lines()):
        log.info(line)
    for warning in _of_cohorts(cohorts, lambda cohort: cohort.covariates.warnings()):
        log.warn(warning)


def _of_cohorts(cohorts: dict[str, Cohort], lines: Callable[[Cohort], Iterable[str]]) -> list[str]:
    """The lines of all cohorts, each once, with the first trait that it is about where several traits differ."""
    about: dict[str, list[str]] = {}
    for trait, cohort in cohorts.items():
        for line in lines(cohort):
            about.setdefault(line, []).append(trait)
    return [
        line if len(traits) == len(cohorts) else f"{line} (of {traits[0]}{', ...' if len(traits) > 1 else ''})"
        for line, traits in about.items()
    ]

"""Opening a study: rank 0 reads and checks the user's files, every rank receives what it needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.mpi import agree, on_root
from mpgls.run import inputs
from mpgls.run.identity import file_identity
from mpgls.run.log import Log
from mpgls.stream.reader import BlockReader, RowRuns
from mpgls.study.align import Cohort, align, check_explained
from mpgls.study.filters import Selection, SnpFilter, select_snps
from mpgls.study.genotypes import missing_per_sample
from mpgls.study.grm import open_kinship
from mpgls.study.plink import BedFile, Fileset, open_fileset
from mpgls.study.tables import SampleId, read_id_list, read_table

if TYPE_CHECKING:
    from mpi4py import MPI

FAM_TRAIT = "pheno"
"""The name of the .fam's sixth column as a trait."""
MIND_BLOCK = 4096
"""SNPs that are counted at a time for --mind."""


@dataclass(frozen=True)
class StudyOptions:
    """The files and filters that most commands share, under PLINK 2's names."""

    bfile: str
    pheno: str | None = None
    pheno_name: tuple[str, ...] = ()
    covar: str | None = None
    covar_name: tuple[str, ...] = ()
    grm: str | None = None
    grm_id: str | None = None
    center_grm: bool = False
    keep: str | None = None
    remove: str | None = None
    mind: float = 1.0
    snps: SnpFilter = field(default_factory=SnpFilter)

    def __post_init__(self) -> None:
        if not 0 <= self.mind <= 1:
            raise UsageError(f"--mind must be from 0 to 1, not {self.mind}")
        if self.covar_name and self.covar is None:
            raise UsageError("--covar-name needs --covar")
        if self.pheno_name and self.pheno is None:
            raise UsageError("--pheno-name needs --pheno")
        if self.center_grm and self.grm is None:
            raise UsageError("--center-grm needs --grm: with --eigen, centring is an option of mpgls eigen")
        if self.grm_id is not None and self.grm is None:
            raise UsageError("--grm-id needs --grm")

    def files(self) -> list[str]:
        """Every input file but the kinship's, which depend on its format."""
        genotypes = [f"{self.bfile}.{suffix}" for suffix in ("bed", "bim", "fam")]
        others = [self.pheno, self.covar, self.keep, self.remove, self.snps.extract, self.snps.exclude]
        return genotypes + [name for name in others if name is not None]


@dataclass(frozen=True)
class Study(inputs.Study):
    """A study of a command that does not declare its options yet."""

    identities: list[dict[str, Any]] = field(default_factory=list)

    def genotypes(self) -> dict[str, Any]:
        """What a result store says of the SNPs that its rows belong to."""
        return self.origin(self.identities)


def open_study(
    options: StudyOptions,
    comm: MPI.Comm,
    log: Log,
    traits: bool = True,
    model_ids: Sequence[SampleId] | None = None,
    further: Sequence[str | None] = (),
) -> Study:
    """Read and check everything but the genotypes and the kinship's numbers. Collective.

    Without ``traits`` no phenotype is read and the samples are those of --keep, --remove and --mind. ``model_ids``
    are the samples of an eigendecomposition that stands in place of the kinship; ``further`` are files that the results
    depend on besides, None for one that was not given.

    Raises InputError, StorageError or UsageError, on all ranks, for whatever is wrong with the files.
    """
    fileset = on_root(comm, lambda: open_fileset(options.bfile))
    selection = None

    def select() -> int:
        nonlocal selection
        selection = select_snps(fileset.variants, options.snps)
        return selection.index.size

    selected = on_root(comm, select)
    too_incomplete = _incomplete_samples(options, fileset, selection, comm)
    kinship = None
    if options.grm is not None:
        grm = options.grm
        kinship = on_root(comm, lambda: open_kinship(grm, options.grm_id))
        model_ids = kinship.ids
    cohorts: dict[str, Cohort] = {}
    if traits:
        cohorts = on_root(comm, lambda: _cohorts(options, fileset, model_ids, too_incomplete))
        samples = np.unique(np.concatenate([cohort.rows for cohort in cohorts.values()]))
    else:
        samples = on_root(comm, lambda: _kept_samples(options, fileset, too_incomplete))
    read = [*options.files(), *(kinship.files if kinship is not None else ()), *filter(None, further)]
    identities = on_root(comm, lambda: [file_identity(path) for path in read])
    if selection is not None:
        _describe(log, fileset, selection, cohorts, samples.size)
    return Study(fileset, kinship, samples, cohorts, selected, selection, identities)


def _cohorts(
    options: StudyOptions,
    fileset: Fileset,
    model_ids: Sequence[SampleId] | None,
    too_incomplete: list[SampleId],
) -> dict[str, Cohort]:
    """The analysed samples of each trait."""
    phenotype = read_table(options.pheno, options.pheno_name) if options.pheno else None
    covariates = read_table(options.covar, options.covar_name) if options.covar else None
    keep = read_id_list(options.keep) if options.keep else None
    remove = read_id_list(options.remove) if options.remove else []
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


def _kept_samples(options: StudyOptions, fileset: Fileset, too_incomplete: list[tuple[str, str]]) -> np.ndarray:
    """The .fam rows that --keep, --remove and --mind leave."""
    keep = set(read_id_list(options.keep)) if options.keep else None
    drop = set(read_id_list(options.remove) if options.remove else []) | set(too_incomplete)
    ids = fileset.samples.ids()
    rows = [row for row, name in enumerate(ids) if (keep is None or name in keep) and name not in drop]
    if not rows:
        raise InputError("no sample is left after --keep, --remove and --mind")
    return np.array(rows, dtype=np.int64)


def _incomplete_samples(
    options: StudyOptions, fileset: Fileset, selection: Selection | None, comm: MPI.Comm
) -> list[tuple[str, str]]:
    """--mind: samples with a larger share of missing genotypes, by one pass over the selected SNPs. Collective."""
    if options.mind >= 1.0:
        return []
    index = comm.bcast(selection.index if selection is not None else None, root=0)
    missing = np.zeros(fileset.bed.n, dtype=np.int64)
    blocks = [index[start : start + MIND_BLOCK] for start in range(0, index.size, MIND_BLOCK)]
    for _, packed in read_snps(fileset.bed, blocks[comm.rank :: comm.size], comm):
        missing += missing_per_sample(packed, fileset.bed.n)
    comm.Allreduce(missing.copy(), missing)
    ids = fileset.samples.ids()
    return [ids[i] for i in np.flatnonzero(missing > options.mind * index.size)]


def read_snps(bed: BedFile, blocks: Sequence[np.ndarray], comm: MPI.Comm) -> BlockReader:
    """A reader of the packed genotypes of ``blocks`` of .bim rows, which may differ from rank to rank.

    Opening is collective over ``comm`` (all ranks raise StorageError if one cannot); reading is not.
    """
    reader, error = None, None
    try:
        reader = BlockReader(bed.path, bed.HEADER, bed.snp_bytes, [RowRuns.of(block) for block in blocks])
    except Exception as caught:
        error = caught
    agree(comm, error)
    assert reader is not None
    return reader


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

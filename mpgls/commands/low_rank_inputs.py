"""What a low-rank run starts from: the similarity SNPs, the traits by their samples, and h2 where it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.inputs import Study
from mpgls.commands.low_rank_config import LowRankConfig
from mpgls.commands.low_rank_estimate import Part
from mpgls.errors import InputError, on_root
from mpgls.report.manifest import file_identity
from mpgls.study.align import Cohort
from mpgls.study.chromosomes import Chromosomes, chromosomes_of
from mpgls.study.filters import plain_chromosome, select_snps
from mpgls.study.genotypes import SnpStats
from mpgls.study.h2_file import read_h2_by_chromosome, read_h2_file
from mpgls.study.plink import Fileset, open_fileset
from mpgls.study.similarity import SimilaritySnps, by_chromosome, evenly_spaced, every_kth, matching_rows

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.runtime import Log


@dataclass(frozen=True)
class SimilarityInput:
    """The genotypes that similarity is measured with, and which of their SNPs are taken."""

    fileset: Fileset
    snps: SimilaritySnps
    identities: list[dict[str, Any]]


@dataclass(frozen=True)
class SampleSet:
    """Traits over the same n samples: they share G, G'G and H.

    ``rows`` and ``similarity_rows`` (n,) the samples in the tested and in the similarity genotypes; ``F`` (n, q+T) =
    [X_L | y_1 ... y_T]. ``suffix`` tells the files of several sets apart.
    """

    traits: tuple[str, ...]
    cohort: Cohort
    similarity_rows: np.ndarray
    F: np.ndarray
    suffix: str

    @property
    def rows(self) -> np.ndarray:
        """(n,) .fam rows of the tested genotypes."""
        return self.cohort.rows

    @property
    def q(self) -> int:
        """Columns of X_L."""
        return self.cohort.X_L.shape[1]


def open_similarity(config: LowRankConfig, study: Study, comm: MPI.Comm, log: Log) -> SimilarityInput:
    """Choose the similarity SNPs. Collective. Raises InputError or UsageError, on all ranks.

    They are chosen among the SNPs that --extract, --exclude and --exclude-negative-bp leave; --chr says which SNPs are
    tested, not which measure similarity. --maf and --geno apply among the analysed samples, later.
    """

    def choose() -> tuple[Fileset, SimilaritySnps, list[dict[str, Any]]]:
        prefix = config.similarity_prefix
        fileset = open_fileset(prefix) if config.similarity_bfile else study.fileset
        named: dict[str, Any] = {"chromosomes": (), "maf": 0.0, "geno": 1.0}
        if config.similarity_snps:
            named["extract"] = config.similarity_snps
        candidates = select_snps(fileset.variants, replace(config.study.snps, **named)).index
        if config.similarity_every is not None:
            candidates = every_kth(candidates, config.similarity_every)
        elif config.similarity_count is not None:
            candidates = evenly_spaced(candidates, config.similarity_count)
        files = [f"{prefix}.{suffix}" for suffix in ("bed", "bim", "fam")]
        files += [config.similarity_snps] if config.similarity_snps else []
        return fileset, by_chromosome(fileset.variants, candidates), [file_identity(path) for path in files]

    found = SimilarityInput(*on_root(comm, choose))
    log.info(f"similarity: {found.snps.index.size:,} SNPs of {found.fileset.bed.m:,} in {found.fileset.prefix}")
    return found


def sample_sets(study: Study, similarity: Fileset) -> list[SampleSet]:
    """The traits grouped by their samples. Raises InputError when the similarity genotypes lack a sample."""
    groups: dict[bytes, list[str]] = {}
    for trait, cohort in study.cohorts.items():
        groups.setdefault(cohort.rows.tobytes(), []).append(trait)
    sets = []
    for number, traits in enumerate(groups.values(), start=1):
        cohort = study.cohorts[traits[0]]
        rows = cohort.rows
        if similarity is not study.fileset:
            rows = matching_rows(cohort.ids, similarity.samples.ids(), f"{similarity.prefix}.fam")
        F = np.column_stack([cohort.X_L, *(study.cohorts[trait].y for trait in traits)])
        sets.append(SampleSet(tuple(traits), cohort, rows, F, f".set{number}" if number > 1 else ""))
    return sets


def tested_chromosomes(config: LowRankConfig, study: Study, comm: MPI.Comm) -> Chromosomes:
    """The chromosomes of the tested SNPs; without leaving one out, all SNPs together. Collective."""
    if not config.loco:
        return Chromosomes.together(study.selected)

    def find() -> Chromosomes:
        assert study.selection is not None
        return chromosomes_of(study.fileset.variants, study.selection.index)

    return on_root(comm, find)


def make_parts(
    config: LowRankConfig, chromosomes: Chromosomes, block: int, snps: SimilaritySnps, stats: SnpStats
) -> list[Part]:
    """For each tested chromosome the similarity SNPs of its model, and its blocks of tested SNPs.

    Raises InputError for a chromosome that has every similarity SNP.
    """
    parts = []
    _, codes = chromosomes.blocks(block)
    for c, label in enumerate(chromosomes.labels):
        runs = snps.without(label if config.loco else None)
        if not runs:
            raise InputError(
                f"every similarity SNP is on chromosome {label}, so none is left when it is left out: choose "
                "similarity SNPs on others too, or give --no-loco"
            )
        # trace(G'G)/n: the squared norm of a standardised column is the number of its observed genotypes
        scale = sum(float(stats.n_obs[run].sum()) for run in runs) / stats.n
        kept = np.zeros(stats.n_obs.size, dtype=bool)
        for run in runs:
            kept[run] = True
        parts.append(Part(label, kept, runs, np.flatnonzero(codes == c), scale))
    return parts


def known_h2(config: LowRankConfig, traits: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """h2 (T, parts) where the user gave one, NaN where it is to be estimated. Raises InputError."""
    known = np.full((len(traits), len(labels)), np.nan if config.h2 is None else config.h2)
    if config.h2_file is None:
        return known
    if config.loco:
        by_chromosome = read_h2_by_chromosome(config.h2_file)
        known[:] = [[by_chromosome.get((t, plain_chromosome(c)), np.nan) for c in labels] for t in traits]
    else:
        by_trait = read_h2_file(config.h2_file)
        known[:] = [[by_trait.get(trait, np.nan)] for trait in traits]
    if np.isnan(known).all():
        raise InputError(f"{config.h2_file} has none of the traits that are analysed ({', '.join(traits[:3])})")
    return known

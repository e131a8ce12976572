"""What a low-rank run starts from: the similarity SNPs, the traits by their samples, and h2 where it is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.common.inputs import Study
from mpgls.commands.low_rank_parts.config import LowRankConfig
from mpgls.commands.low_rank_parts.estimate import SimilarityPart
from mpgls.errors import InputError
from mpgls.mpi import on_root
from mpgls.run.identity import file_identity
from mpgls.study.align import Cohort
from mpgls.study.chromosomes import Chromosomes
from mpgls.study.filters import select_snps
from mpgls.study.genotypes import SnpStats
from mpgls.study.plink import Fileset, open_fileset
from mpgls.study.similarity import SimilaritySnps, by_chromosome, evenly_spaced, every_kth, matching_rows

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.run.log import Log


@dataclass(frozen=True)
class SimilarityInput:
    """The genotypes that similarity is measured with, and which of their SNPs are taken."""

    fileset: Fileset
    snps: SimilaritySnps
    identities: list[dict[str, Any]]


@dataclass(frozen=True)
class SampleSet:
    """Traits over the same n samples: they share G, G'G and H.

    ``rows`` and ``similarity_rows`` (n,) the samples in the tested and in the similarity genotypes; ``F_rep``
    (n, q+T) = [X_L | y_1 ... y_T], the same on every rank. ``suffix`` tells the files of several sets apart.
    """

    traits: tuple[str, ...]
    cohort: Cohort
    similarity_rows: np.ndarray
    F_rep: np.ndarray
    suffix: str

    @property
    def rows(self) -> np.ndarray:
        """(n,) .fam rows of the tested genotypes."""
        return self.cohort.rows

    def F_of(self, trait: int) -> np.ndarray:
        """[X_L | y_j] (n, q+1) of the trait at position ``trait``."""
        return self.F_rep[:, [*range(self.q), self.q + trait]]

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
        F_rep = np.column_stack([cohort.X_L, *(study.cohorts[trait].y for trait in traits)])
        sets.append(SampleSet(tuple(traits), cohort, rows, F_rep, f".set{number}" if number > 1 else ""))
    return sets


def make_parts(
    config: LowRankConfig, chromosomes: Chromosomes, block: int, snps: SimilaritySnps, stats: SnpStats
) -> list[SimilarityPart]:
    """For each tested chromosome the similarity SNPs of its model, and its blocks of tested SNPs.

    Raises InputError for a chromosome that has every similarity SNP.
    """
    parts: list[SimilarityPart] = []
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
        number, name = (c, label) if config.loco else (None, None)
        left_out = int(np.count_nonzero(~kept))
        parts.append(SimilarityPart(number, name, left_out, np.flatnonzero(codes == c), kept, runs, scale))
    return parts

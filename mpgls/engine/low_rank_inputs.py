"""What a low-rank run starts from: the similarity SNPs, and the traits by their samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mpgls.engine.low_rank_nulls import SimilarityPart
from mpgls.errors import InputError
from mpgls.run.inputs import Study, say_tables
from mpgls.run.world import World
from mpgls.study.align import Cohort
from mpgls.study.chromosome_names import check_left_out
from mpgls.study.chromosomes import Chromosomes
from mpgls.study.filters import BY_DEFAULT, SnpFilter, select_snps
from mpgls.study.plink import Fileset
from mpgls.study.ploidy import SexRule, with_sex
from mpgls.study.similarity import SimilaritySnps, by_chromosome, evenly_spaced, every_kth, matching_rows
from mpgls.study.snp_stats import SnpStats
from mpgls.study.sources import GenotypeSource, open_genotypes


@dataclass(frozen=True)
class SimilarityChoice:
    """Which SNPs measure similarity: those of the file ``snps``, every ``every``-th, or ``count`` spread evenly.

    They are taken from ``source``, or from the tested genotypes.

    With ``loco`` those of a tested SNP's chromosome are left out. Unless a file names them, those of X, Y, XY and MT
    are taken with ``every_chromosome`` only. ``sex_rule`` is for genotypes of their own.
    """

    source: GenotypeSource | None
    snps: str | None
    every: int | None
    count: int | None
    loco: bool
    every_chromosome: bool
    sex_rule: SexRule


@dataclass(frozen=True)
class SimilarityInput:
    """The genotypes that similarity is measured with, and which of their SNPs are taken."""

    fileset: Fileset
    snps: SimilaritySnps


@dataclass(frozen=True)
class SampleSet:
    """Traits over the same n samples: they share G, G'G and H. ``numbers`` are their positions among all traits.

    ``rows`` and ``similarity_rows`` (n,) the samples in the tested and in the similarity genotypes; ``F_rep``
    (n, q+T) = [X_L | y_1 ... y_T], the same on every rank. ``suffix`` tells the files of several sets apart.
    """

    numbers: tuple[int, ...]
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


def open_similarity(
    choice: SimilarityChoice, filters: SnpFilter, study: Study, tested: Chromosomes, world: World
) -> SimilarityInput:
    """Choose the similarity SNPs, and see that those of the chromosomes ``tested`` can be left out. Collective.

    Raises InputError or UsageError, on all ranks.

    They are chosen among the SNPs that --extract, --exclude and --exclude-negative-bp leave; --chr and other places say
    which SNPs are tested, not which measure similarity. Filters by counts apply among the analysed samples, later.
    """

    def choose() -> SimilarityInput:
        fileset = study.fileset
        if choice.source is not None:
            fileset = with_sex(open_genotypes(choice.source), choice.sex_rule)
            say_tables(world.log, fileset.samples.summary, fileset.variants.summary)
        everywhere = replace(filters.everywhere(), without_sexed=not choice.every_chromosome)
        if choice.snps:
            everywhere = replace(everywhere, extract=choice.snps, without_sexed=False)
        selection = select_snps(fileset.variants, everywhere)
        said = study.selection.lists if study.selection is not None else ()
        say_tables(world.log, *(line for line in selection.lists if line not in said))
        if dropped := selection.reasons.get(BY_DEFAULT):
            world.log.info(f"similarity: {dropped:,} SNPs dropped by {BY_DEFAULT}")
        candidates = selection.index
        if choice.every is not None:
            candidates = every_kth(candidates, choice.every)
        elif choice.count is not None:
            candidates = evenly_spaced(candidates, choice.count)
        snps = by_chromosome(fileset.variants, candidates)
        for warning in check_left_out(tested.labels, snps.present(), fileset.prefix) if choice.loco else ():
            world.log.warn(warning)
        return SimilarityInput(fileset, snps)

    found = world.on_root(choose)
    world.log.info(f"similarity: {found.snps.index.size:,} SNPs of {found.fileset.bed.m:,} in {found.fileset.prefix}")
    if choice.source is None:  # the same object, so that nobody looks for the samples twice
        found = replace(found, fileset=study.fileset)
    return found


def sample_sets(study: Study, similarity: Fileset) -> list[SampleSet]:
    """The traits grouped by their samples. Raises InputError when the similarity genotypes lack a sample."""
    groups: dict[bytes, list[str]] = {}
    for trait, cohort in study.cohorts.items():
        groups.setdefault(cohort.rows.tobytes(), []).append(trait)
    sets, everyone = [], list(study.cohorts)
    for number, traits in enumerate(groups.values(), start=1):
        cohort = study.cohorts[traits[0]]
        rows = cohort.rows
        if similarity is not study.fileset:
            rows = matching_rows(cohort.ids, similarity.samples.ids(), similarity.samples.path)
        F_rep = np.column_stack([cohort.X_L, *(study.cohorts[trait].y for trait in traits)])
        numbers = tuple(everyone.index(trait) for trait in traits)
        sets.append(SampleSet(numbers, tuple(traits), cohort, rows, F_rep, f".set{number}" if number > 1 else ""))
    return sets


def make_parts(
    loco: bool, chromosomes: Chromosomes, block: int, snps: SimilaritySnps, stats: SnpStats
) -> list[SimilarityPart]:
    """For each tested chromosome the similarity SNPs of its model, and its blocks of tested SNPs.

    Raises InputError for a chromosome that has every similarity SNP.
    """
    parts: list[SimilarityPart] = []
    _, codes = chromosomes.blocks(block)
    for c, label in enumerate(chromosomes.labels):
        runs = snps.without(label if loco else None)
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
        number, name = (c, label) if loco else (None, None)
        left_out = int(np.count_nonzero(~kept))
        parts.append(SimilarityPart(number, name, left_out, np.flatnonzero(codes == c), kept, runs, scale))
    return parts

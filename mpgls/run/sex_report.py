"""What the log says of chromosomes that not everybody has twice, by one look at their SNPs before the work."""

from __future__ import annotations

import numpy as np

from mpgls.run.log import Log
from mpgls.run.world import World
from mpgls.stream.packed import read_snps
from mpgls.study.filters import Selection
from mpgls.study.genotypes import HAPLOID, ON_X, ON_Y, TWO_COPIES
from mpgls.study.ploidy import SexCounts, SexedGenotypes
from mpgls.study.sexes import UNKNOWN

BLOCK = 4096
"""SNPs that are counted at a time before the work."""
MANY = 0.02
"""Share of heterozygous men above which their sex, or the region, is in doubt."""
_NAMES = {
    ON_X: "chromosome X", ON_Y: "chromosome Y", HAPLOID: "MT",
}  # fmt: skip


def say_sex(bed: SexedGenotypes, selection: Selection | None, samples: np.ndarray, world: World) -> None:
    """How X, Y and MT of the selected SNPs are taken over the analysed ``samples``, and what is odd. Collective.

    Raises StorageError on all ranks where the genotypes cannot be read.
    """
    comm = world.comm
    index = comm.bcast(selection.index if selection is not None else None, root=0)
    rows = index[bed.kinds.of(index) != TWO_COPIES]
    blocks = [rows[start : start + BLOCK] for start in range(0, rows.size, BLOCK)][comm.rank :: comm.size]
    own = SexCounts()
    for k, packed in read_snps(bed.plain, blocks, comm):
        own.add(bed.heterozygous(packed, blocks[k], samples))
    counts = SexCounts()
    for theirs in comm.allgather(own):
        counts.add(theirs)
    if rows.size:
        _say(bed, counts, samples, world.log)


def _say(bed: SexedGenotypes, counts: SexCounts, samples: np.ndarray, log: Log) -> None:
    males, unknown = int(bed.males[samples].sum()), int((bed.sexes[samples] == UNKNOWN).sum())
    how = {
        ON_X: f"{males:,} men, whose one copy counts {bed.x_model}",
        ON_Y: f"{males:,} men; all others are missing",
        HAPLOID: "everybody has one copy",
    }
    for kind in np.flatnonzero(counts.snps).tolist():
        found = int(counts.heterozygous[kind])
        gone = f"{found:,} heterozygous genotype{'s' * (found != 1)} of them {'is' if found == 1 else 'are'} missing"
        log.info(f"{_NAMES[kind]}: {counts.snps[kind]:,} SNPs; {how[kind]}; {gone}")
    if unknown and counts.snps[[ON_X, ON_Y]].any():
        log.warn(f"{unknown:,} of {samples.size:,} samples have no sex: two copies of X, as women have, and none of Y")
    if not counts.snps[ON_X] or not males:
        return
    het, hom = int(counts.heterozygous[ON_X]), int(counts.homozygous[ON_X])
    if het and not hom:
        log.warn(
            f"{bed.path}: men are coded 0/1 on chromosome X, heterozygous where they have A1, and all of that is "
            "missing now: make the file anew with PLINK 2, which codes them 0/2"
        )
    elif het > MANY * counts.snps[ON_X] * males:
        log.warn(
            f"{het:,} heterozygous genotypes of men on chromosome X are many: is their sex right, and is the "
            "pseudo-autosomal region named XY or by --build?"
        )

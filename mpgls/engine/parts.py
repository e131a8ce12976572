"""Leave one chromosome out: which SNPs are scanned with which kinship.

    Phi_c = (m Phi - S_c) / (m - m_c)        for the SNPs of chromosome c

Without --loco there is one part, all SNPs with the whole Phi. A chromosome of which the kinship has no SNP is scanned
with the whole Phi, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError
from mpgls.run.inputs import Study
from mpgls.run.world import World
from mpgls.study.chromosome_names import check_left_out
from mpgls.study.chromosomes import Chromosomes, chromosomes_of
from mpgls.study.kinship_h5 import read_keys
from mpgls.study.snp_keys import are_among, keys_of

MOST_BLOCKS = 4
"""Times as many blocks as chromosomes side by side would take: more, and the log says that the .bim is not sorted."""


@dataclass(frozen=True, eq=False)
class ScanPart:
    """SNPs that share a model of covariance: the numbers of their blocks in the store.

    ``number`` counts the chromosomes, ``label`` is the chromosome's; both None for all SNPs together. ``left_out`` is
    the number of SNPs that the model lost.
    """

    number: int | None
    label: str | None
    left_out: int
    blocks: np.ndarray

    @property
    def k(self) -> int:
        """Its position among the parts."""
        return self.number or 0

    def of(self, what: str) -> str:
        """``what``, and which chromosome it is about."""
        return what if self.label is None else f"{what}, chromosome {self.label}"


@dataclass(frozen=True, eq=False)
class KinshipPart(ScanPart):
    """SNPs that share a kinship: ``study`` is the study with that kinship."""

    study: Study


def tested_chromosomes(study: Study, loco: bool, world: World) -> Chromosomes:
    """The chromosomes of the selected SNPs; without ``loco`` all SNPs are as on one. Collective.

    Raises InputError for a SNP without a chromosome.
    """
    if not loco:
        return Chromosomes.together(study.selected)

    def read() -> Chromosomes:
        assert study.selection is not None
        return chromosomes_of(study.fileset.variants, study.selection.index)

    return world.on_root(read)


def check_kinship(study: Study, loco: bool, world: World) -> None:
    """InputError unless a chromosome can be left out of the kinship; without ``loco`` a warning if one should be.

    Collective.
    """
    kinship = study.kinship
    if not loco:
        warn_of_contamination(study, world)
    elif kinship is not None and not kinship.sums:
        raise InputError(
            f"{kinship.path} has no sums of single chromosomes, so none can be left out: make the kinship with "
            "mpgls kinship --loco"
        )
    elif kinship is not None:
        tested = tested_chromosomes(study, loco, world).labels
        for warning in world.on_root(lambda: check_left_out(tested, kinship.chromosomes(), kinship.path)):
            world.log.warn(warning)


def scan_parts(
    study: Study, chromosomes: Chromosomes, block: int, loco: bool, keep: bool = False
) -> tuple[np.ndarray, list[KinshipPart]]:
    """The edges of blocks of at most ``block`` SNPs, none across chromosomes, and the parts in the .bim's order.

    ``keep``: the parts have the rows of the whole kinship in memory, which each of them needs.
    Raises InputError when a chromosome is all of the kinship.
    """
    edges, code = chromosomes.blocks(block)
    if not loco:
        return edges, [KinshipPart(None, None, 0, np.arange(code.size), study)]
    kinship = study.kinship
    assert kinship is not None
    kinship = kinship.kept() if keep else kinship
    parts = []
    for c, label in enumerate(chromosomes.labels):
        without = dataclasses.replace(study, kinship=kinship.without(label))
        parts.append(KinshipPart(c, label, kinship.snps_of(label), np.flatnonzero(code == c), without))
    return edges, parts


def describe(parts: Sequence[ScanPart], edges: np.ndarray, block: int, world: World, worlds: int = 1) -> None:
    """What is left out, in the log, and in so many ``worlds`` at once; nothing without --loco."""
    if parts[0].label is None:
        return
    world.log.info(
        f"plan: leave one chromosome out: {len(parts)} chromosomes in turn, each with a null model of its own; "
        f"{'one kinship' if worlds == 1 else f'{worlds} kinships'} at a time in memory"
    )
    if edges.size - 1 > MOST_BLOCKS * (len(parts) + edges[-1] // block):
        world.log.warn(
            "the genotypes do not have the SNPs of a chromosome side by side: sorted, they would be scanned faster"
        )


def warn_of_contamination(study: Study, world: World) -> None:
    """Say so if the kinship was made of SNPs that are tested, where the kinship's file tells. Collective."""

    def shared() -> str | None:
        kinship, selection = study.kinship, study.selection
        if kinship is None or selection is None or not kinship.has_keys:
            return None
        of_kinship = read_keys(kinship.path)
        for first, keys in keys_of(study.fileset.variants, selection.index):
            same = np.flatnonzero(are_among(keys, of_kinship))
            if same.size:
                row = int(selection.index[first + same[0]])
                return study.fileset.variants.read(row, row + 1).id[0]
        return None

    example = world.on_root(shared)
    if example is not None:
        world.log.warn(
            f"the kinship was made of SNPs that are tested, {example} for one: they are in the model twice, which "
            "costs power (proximal contamination); mpgls kinship --loco and --loco here leave out their chromosome"
        )

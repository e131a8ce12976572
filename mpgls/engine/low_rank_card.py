"""What lies on each card in a low-rank run, and for how long.

Packed similarity SNPs stay there from the first product to the last, factors of traits during the scan of a chromosome.
Beside them come, one after the other, G'G with a factor while null models are made, and blocks of tested SNPs.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.device.operator import panel_height
from mpgls.device.triangle import bytes_of_triangles
from mpgls.engine.similarity import PANEL
from mpgls.errors import MemoryPlanError
from mpgls.run.plan import GIB
from mpgls.study.genotypes import bytes_per_dosages

SHARE, OF_FACTORS = 0.4, 0.3
"""Of a card's memory, as much may be packed similarity SNPs that stay there, and factors of traits."""
DECODED, OF_DOSAGES, NUMBERS = 4, 56, 24
"""Bytes of a genotype while it is decoded and counted, of a dosage while it is split into digits, and of a number of H
or L^-1 H while it is split and added."""


def room_for_similarity(limit: int) -> int:
    """Bytes of packed SNPs that may stay on a card of ``limit`` bytes."""
    return int(SHARE * limit)


def room_for_factors(limit: int) -> int:
    """Bytes of factors of traits that may stay on a card of ``limit`` bytes."""
    return int(OF_FACTORS * limit)


@dataclass(frozen=True)
class CardShare:
    """Bytes of a card that may use ``limit`` of them.

    ``similarity`` SNPs and ``factors`` of traits stay there; ``products`` of G'G or of a block of tested SNPs, and what
    is copied for them; ``null``: G'G and a factor; ``gram``: G'G alone.
    """

    limit: int
    similarity: int
    factors: int
    products: int
    null: int
    gram: int

    @property
    def peak(self) -> int:
        """Bytes without null models."""
        return self.similarity + self.factors + self.products

    @property
    def holds_null(self) -> bool:
        """Whether null models are made there: factors of other traits are there by then."""
        return self.similarity + self.factors + self.null <= self.limit

    @property
    def keeps_gram(self) -> bool:
        """Whether G'G stays there during the scan, and is not copied to it for each factor."""
        return self.peak + self.gram <= self.limit

    def text(self) -> str:
        """The line of the log."""
        stay = "" if self.similarity else ", which are copied in panels for every block"
        null = f"on GPUs, {self.null / GIB:.2f} GiB" if self.holds_null else "on the ranks"
        if self.holds_null and self.keeps_gram:
            null += ", half of which, G'G, stays"
        return (
            f"plan: at most {self.peak / GIB:.2f} GiB of a GPU (similarity SNPs {self.similarity / GIB:.2f}{stay}, "
            f"factors {self.factors / GIB:.2f}, products {self.products / GIB:.2f}); null models, and the factors of "
            f"each chromosome before its scan, {null}"
        )

    def too_little(self) -> MemoryPlanError:
        """What is said where the card does not hold it."""
        return MemoryPlanError(
            f"low-rank needs {self.peak / GIB:.2f} GiB of each GPU, {self.products / GIB:.2f} of them for products, "
            f"and it has {self.limit / GIB:.2f}: give a larger --gpu-memory, a smaller --block-size or fewer "
            "similarity SNPs"
        )


@dataclass(frozen=True)
class OnCards:
    """A run whose cards may use ``limit`` bytes each: n samples, K similarity SNPs, and the bytes of a SNP in the files
    of the tested and of the similarity ones. ``item`` bytes of a number of a factor.
    """

    limit: int
    n: int
    K: int
    snp_bytes: int
    similarity_bytes: int
    item: int

    def share(self, width: int, traits: int) -> CardShare:
        """What ``width`` tested SNPs and the factors of so many traits take."""
        K, height = self.K, panel_height(self.K)
        stays, factors, decoded = K * self.similarity_bytes, traits * K * (K + height) // 2 * self.item, min(PANEL, K)
        panel = self._decoded(self.similarity_bytes) * decoded
        products = width * (self._decoded(self.snp_bytes) + NUMBERS * (K + height + decoded)) + panel
        if stays > room_for_similarity(self.limit):
            stays = 0
        if factors > room_for_factors(self.limit):
            factors, products = room_for_factors(self.limit), products + 2 * height * K * self.item
        return CardShare(
            self.limit, stays, factors, max(products, 2 * panel), *(bytes_of_triangles(K, k) for k in (2, 1))
        )

    def _decoded(self, snp_bytes: int) -> int:
        """Bytes of a SNP while it is decoded."""
        return self.n * (OF_DOSAGES if snp_bytes >= bytes_per_dosages(self.n) else DECODED)

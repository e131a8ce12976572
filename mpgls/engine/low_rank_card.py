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

SHARE, OF_FACTORS = 0.4, 0.3
"""Of a card's memory, as much may be packed similarity SNPs that stay there, and factors of traits."""
DECODED, NUMBERS = 4, 24
"""Bytes of a genotype while it is decoded and counted, and of a number of H or L^-1 H while it is split and added."""


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
    is copied for them; ``null``: G'G and a factor.
    """

    limit: int
    similarity: int
    factors: int
    products: int
    null: int

    @property
    def peak(self) -> int:
        """Bytes without null models."""
        return self.similarity + self.factors + self.products

    @property
    def holds_null(self) -> bool:
        """Whether null models are made there: factors of other traits are there by then."""
        return self.similarity + self.factors + self.null <= self.limit

    def text(self) -> str:
        """The line of the log."""
        stay = "" if self.similarity else ", which are copied in panels for every block"
        null = f"on GPUs, {self.null / GIB:.2f} GiB" if self.holds_null else "on the ranks"
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


def share_of_card(limit: int, n: int, similarity: tuple[int, int], width: int, traits: int, item: int) -> CardShare:
    """For n samples, ``similarity`` SNPs (K, bytes of each packed), and ``width`` tested SNPs of so many traits.

    ``item`` bytes of a number of a factor.
    """
    K, packed = similarity
    stays, factors = K * packed, traits * K * (K + panel_height(K)) // 2 * item
    decoded = min(PANEL, K)
    panel = DECODED * n * decoded
    products = width * (DECODED * n + NUMBERS * (K + panel_height(K) + decoded)) + panel
    if stays > room_for_similarity(limit):
        stays = 0
    if factors > room_for_factors(limit):
        factors, products = room_for_factors(limit), products + 2 * panel_height(K) * K * item
    return CardShare(limit, stays, factors, max(products, 2 * panel), bytes_of_triangles(K, 2))

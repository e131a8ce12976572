"""The counts of SNPs that lie on a card: by a table of bytes there, or on the host where that does not give them."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpgls.device.card import Card
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.parts import PRECISIONS
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import Decoder, split_rows
from mpgls.study.snp_stats import SnpStats


class CardCounter:
    """Counts over the samples ``rows`` (n,) of ``bed``, on ``card``."""

    def __init__(self, card: Card, bed: Genotypes, rows: np.ndarray) -> None:
        self.card, self.bed, self.n = card, bed, rows.size
        self._on_card = DeviceDecoder(card, bed.n, rows, PRECISIONS["exact"])
        self._on_host = Decoder(bed.n, [rows], np.float64, bed.males)

    def shape(self, width: int) -> tuple[tuple[int, int], np.dtype]:
        """Of the packed genotypes or dosages of ``width`` SNPs on the card."""
        dtype = split_rows(np.zeros((0, self.bed.snp_bytes), dtype=np.uint8), self.bed.n)[0].dtype
        return (width, self.bed.snp_bytes // dtype.itemsize), dtype

    def stats(self, packed: np.ndarray, on_card: Any) -> SnpStats:
        """The counts of ``packed`` (B, snp_bytes), which also lie ``on_card``; to be called in the lane of copies."""
        rows, kinds = split_rows(packed, self.bed.n)
        if rows.dtype == np.float32 or (kinds is not None and kinds.any()):
            return self._on_host.stats(packed)
        missing, one, two = self.card.to_host(self._on_card.counts(on_card))
        return SnpStats((self.n - missing).astype(np.int32), one + 2.0 * two, one + 4.0 * two, self.n)

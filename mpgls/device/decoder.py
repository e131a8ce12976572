"""From packed genotypes on the card to the columns that its products take.

A SNP's column is x - c with c the whole number next to the mean, 0 where x is missing: small whole numbers, exact in
every format. What is left of the centring is of rank one a SNP (`mpgls.device.operator`):

    x_centred = (x - c) - (mean - c) 1 + (mean - c) missing
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpgls.device.card import Card
from mpgls.device.parts import Columns, Double
from mpgls.device.products import aligned
from mpgls.study.genotypes import SAMPLES_PER_BYTE, bytes_per_snp, keep_bytes

# the four codes of every byte, first sample first: (256, 4)
_CODES = (np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 0b11
_COPIES = np.array([2, 0, 1, 0])[_CODES]
_MISSING = np.array([0, 1, 0, 0])[_CODES]
_SHIFTS = 3
"""Whole numbers next to a mean: 0, 1, 2."""


class DeviceDecoder:
    """Decodes on ``card``, in the parts of ``precision``, the samples ``rows`` (n,) of ``n_file`` in a .bed row."""

    def __init__(self, card: Card, n_file: int, rows: np.ndarray, precision: Double) -> None:
        xp = card.xp
        self.card, self.precision, self.n, self.n_file = card, precision, rows.size, n_file
        self._snp_bytes = bytes_per_snp(n_file)
        self._rows = slice(0, n_file) if np.array_equal(rows, np.arange(n_file)) else xp.asarray(rows)
        # samples that are not analysed are read as code 11: no copies, observed
        self._mask = xp.asarray(~keep_bytes(rows, n_file))
        shifted = (_COPIES - np.arange(_SHIFTS)[:, None, None]) * (1 - _MISSING)
        self._shifted = xp.asarray(shifted.reshape(-1, SAMPLES_PER_BYTE).astype(precision.kind))
        self._missing = xp.asarray(_MISSING.astype(precision.kind))
        tables = [table.sum(axis=1).astype(np.uint8) for table in (_MISSING, _CODES == 0b10, _CODES == 0b00)]
        self._counted = [xp.asarray(table) for table in tables]

    def counts(self, packed: Any) -> Any:
        """int64 (3, B): of the SNPs ``packed`` (B, any) how many samples are missing, have one copy, and two."""
        xp = self.card.xp
        masked = packed[:, : self._snp_bytes] | self._mask
        return xp.stack([xp.take(table, masked).sum(axis=1, dtype=np.int64) for table in self._counted])

    def genotypes(self, packed: Any, c: Any) -> Columns:
        """x - ``c`` (B,), 0 where missing, of packed SNPs: one part."""
        index = packed[:, : self._snp_bytes] + 256 * c.astype(np.int32)[:, None]
        return Columns([self._chosen(self.card.xp.take(self._shifted, index, axis=0))], True)

    def missing(self, packed: Any) -> Columns:
        """1 where x is missing and 0 elsewhere, of packed SNPs or dosages."""
        xp = self.card.xp
        if packed.dtype == np.float32:
            return Columns([self._padded((packed[:, : self.n_file] < 0).astype(self.precision.kind))], True)
        return Columns([self._chosen(xp.take(self._missing, packed[:, : self._snp_bytes], axis=0))], True)

    def dosages(self, dosages: Any, c: Any) -> Columns:
        """x - ``c`` (B,), 0 where x is missing, of float32 dosages (B, any): a high and lower parts."""
        x = dosages[:, : self.n_file]
        x = self.card.xp.where(x < 0, 0.0, x.astype(np.float64) - c[:, None])
        return Columns([self._padded(part) for part in self.precision.split_dosages(self.card.xp, x)], False)

    def _chosen(self, quads: Any) -> Any:
        """Decoded bytes (B, bytes, 4) as columns of the analysed samples."""
        return self._padded(quads.reshape(quads.shape[0], -1))

    def _padded(self, values: Any) -> Any:
        """The analysed samples of values (B, any), with zeros up to whole memory accesses."""
        columns = self.card.xp.zeros((values.shape[0], aligned(self.n)), dtype=self.precision.kind)
        columns[:, : self.n] = values[:, self._rows]
        return columns

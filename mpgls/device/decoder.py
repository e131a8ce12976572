"""From packed genotypes on the card to the columns that its products take.

A SNP's column is x - c with c the whole number next to the mean, 0 where x is missing: small whole numbers, exact in
every format. What is left of the centring is of rank one a SNP (`mpgls.device.operator`):

    x_centred = (x - c) - (mean - c) 1 + (mean - c) missing
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpgls.device import kernels
from mpgls.device.card import Card
from mpgls.device.parts import Columns, Double
from mpgls.device.products import aligned, has_cublas
from mpgls.study.genotypes import bytes_per_snp, keep_bytes

# the four codes of every byte, first sample first: (256, 4)
_CODES = (np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 0b11
_OF_CODE = np.array([2, 0, 1, 0])
_MISSING_CODE = np.array([0, 1, 0, 0])
_SHIFTS = 3
"""Whole numbers next to a mean: 0, 1, 2."""


class DeviceDecoder:
    """Decodes on ``card``, in the parts of ``precision``, the samples ``rows`` (n,) of ``n_file`` in a .bed row."""

    def __init__(self, card: Card, n_file: int, rows: np.ndarray, precision: Double) -> None:
        xp = card.xp
        self.card, self.precision, self.n, self.n_file = card, precision, rows.size, n_file
        self._snp_bytes = bytes_per_snp(n_file)
        in_order = np.array_equal(rows, np.arange(n_file))
        self._rows = None if in_order else xp.asarray(rows.astype(np.int32))
        # samples that are not analysed are read as code 11: no copies, observed
        self._mask = xp.asarray(~keep_bytes(rows, n_file))
        shifted = (_OF_CODE - np.arange(_SHIFTS)[:, None]) * (1 - _MISSING_CODE)
        self._shifted = xp.asarray(shifted.astype(precision.kind))
        self._missing = xp.asarray(_MISSING_CODE[None].astype(precision.kind))
        tables = [table.sum(axis=1).astype(np.uint8) for table in (_CODES == 0b01, _CODES == 0b10, _CODES == 0b00)]
        self._counted = [xp.asarray(table) for table in tables]

    def counts(self, packed: Any) -> Any:
        """int64 (3, B): of the SNPs ``packed`` (B, any) how many samples are missing, have one copy, and two."""
        xp = self.card.xp
        masked = packed[:, : self._snp_bytes] | self._mask
        return xp.stack([xp.take(table, masked).sum(axis=1, dtype=np.int64) for table in self._counted])

    def genotypes(self, packed: Any, c: Any) -> Columns:
        """x - ``c`` (B,), 0 where missing, of packed SNPs: one part."""
        return Columns([self._decoded(packed, self._shifted, c.astype(np.int32))], True)

    def missing(self, packed: Any) -> Columns:
        """1 where x is missing and 0 elsewhere, of packed SNPs or dosages."""
        xp = self.card.xp
        if packed.dtype == np.float32:
            return Columns([self._padded((packed[:, : self.n_file] < 0).astype(self.precision.kind))], True)
        return Columns([self._decoded(packed, self._missing, xp.zeros(packed.shape[0], dtype=np.int32))], True)

    def dosages(self, dosages: Any, c: Any) -> Columns:
        """x - ``c`` (B,), 0 where x is missing, of float32 dosages (B, any): a high and lower parts."""
        x = dosages[:, : self.n_file]
        x = self.card.xp.where(x < 0, 0.0, x.astype(np.float64) - c[:, None])
        return Columns([self._padded(part) for part in self.precision.split_dosages(self.card.xp, x)], False)

    def _decoded(self, packed: Any, tables: Any, of_snp: Any) -> Any:
        """What ``tables`` (any, 4) have, of the one ``of_snp`` (B,), for the codes of the analysed samples."""
        xp = self.card.xp
        if has_cublas(xp):
            return kernels.decode(xp, packed, tables, of_snp, self._rows, self.n, aligned(self.n))
        codes = xp.stack([(packed[:, : self._snp_bytes] >> shift) & 0b11 for shift in (0, 2, 4, 6)], axis=-1)
        return self._padded(tables[of_snp[:, None], codes.reshape(packed.shape[0], -1)])

    def _padded(self, values: Any) -> Any:
        """The analysed samples of values (B, any), with zeros up to whole memory accesses."""
        columns = self.card.xp.zeros((values.shape[0], aligned(self.n)), dtype=self.precision.kind)
        columns[:, : self.n] = values[:, : self.n] if self._rows is None else values[:, self._rows]
        return columns

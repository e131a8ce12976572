"""Dosages to sums and centred columns, on one rank, in cache-sized steps.

A SNP is n float32: expected copies of the effect allele from 0 to 2, negative where missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mpgls.model.coding import ADDITIVE, Coding

_STEP_BYTES = 1 << 20


class DosagePanels:
    """Sums and decodes dosages for a fixed choice of samples; ``panels`` and ``coding`` as in `genotypes.Decoder`."""

    def __init__(self, panels: Sequence[np.ndarray], coding: Coding = ADDITIVE) -> None:
        self._coding = coding
        self._panels = [as_slice(panel) for panel in panels]
        # in the samples' own order, so that a sum is the same whatever the panels
        self._analysed = as_slice(np.sort(np.concatenate([np.empty(0, dtype=np.intp), *panels])))

    def sums(self, dosages: np.ndarray, n_obs: np.ndarray, total: np.ndarray, squares: np.ndarray) -> None:
        """Of ``dosages`` (B, n_file) over the analysed samples: how many there are, their sum and that of squares.

        Dosages of a .pgen are whole multiples of 2^-14, so their sums are exact.
        """
        for part in self._steps(dosages):
            x = dosages[part][:, self._analysed].astype(np.float64)
            n_obs[part] = x.shape[1]
            if x.size and x.min() < 0:
                known = x >= 0
                x *= known
                n_obs[part] = known.sum(axis=1)
            total[part] = x.sum(axis=1)
            squares[part] = np.einsum("ij,ij->i", x, x)

    def column_sums(self, dosages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of ``dosages`` (B, n_file) as coded, over the analysed samples that have them: sums and sums of squares."""
        total, squares = np.empty(len(dosages)), np.empty(len(dosages))
        for part in self._steps(dosages):
            x = dosages[part][:, self._analysed].astype(np.float64)
            columns = np.where(x >= 0, self._coding.of(x), 0.0)
            total[part] = columns.sum(axis=1)
            squares[part] = np.einsum("ij,ij->i", columns, columns)
        return total, squares

    def centre(self, dosages: np.ndarray, center: np.ndarray, outs: Sequence[np.ndarray]) -> None:
        """Columns less ``center`` (B,), 0 where missing: outs[k] is (len(panels[k]), B), Fortran order."""
        for part in self._steps(dosages):
            for panel, out in zip(self._panels, outs, strict=True):
                x, target = dosages[part][:, panel], out.T[part]
                np.subtract(self._coding.of(x), center[part, None], out=target, casting="same_kind")
                missing = x < 0
                if missing.any():
                    target[missing] = 0.0

    def _steps(self, dosages: np.ndarray) -> Iterator[slice]:
        size = max(1, _STEP_BYTES // max(1, 16 * dosages.shape[1]))
        return (slice(start, start + size) for start in range(0, dosages.shape[0], size))


def as_slice(index: np.ndarray) -> slice | np.ndarray:
    """``index`` as a slice if it counts up by ones: then copying needs no gather."""
    if index.size and np.all(np.diff(index) == 1):
        return slice(int(index[0]), int(index[-1]) + 1)
    return index

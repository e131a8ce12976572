"""How a genotype enters the model: the number that a column has for 0, 1 and 2 copies of the effect allele.

A dosage lies between two of them, and gets what is on the line between their numbers. So dominant is min(x, 1) and
recessive max(x - 1, 0), as plink2 has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Coding:
    """``codes`` of 0, 1 and 2 copies."""

    codes: tuple[float, float, float]

    @property
    def counts_copies(self) -> bool:
        """Whether the number is that of the copies."""
        return self.codes == (0.0, 1.0, 2.0)

    def of(self, x: np.ndarray) -> np.ndarray:
        """The numbers of copies or dosages ``x`` of any shape, from 0 to 2; of the same dtype."""
        if self.counts_copies:
            return x
        none, one, two = map(x.dtype.type, self.codes)
        return none + (one - none) * np.minimum(x, 1) + (two - one) * np.maximum(x - 1, 0)

    def sums(self, n_obs: np.ndarray, total: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B,) each: sum of the numbers of ``n_obs`` hard calls and of their squares, from those of the copies."""
        if self.counts_copies:
            return total, squares
        one, two = 2 * total - squares, (squares - total) / 2
        people = np.array([n_obs - one - two, one, two])
        codes = np.array(self.codes)
        return codes @ people, np.square(codes) @ people


ADDITIVE = Coding((0.0, 1.0, 2.0))
DOMINANT = Coding((0.0, 1.0, 1.0))
RECESSIVE = Coding((0.0, 0.0, 1.0))
BY_NAME = {"additive": ADDITIVE, "dominant": DOMINANT, "recessive": RECESSIVE}

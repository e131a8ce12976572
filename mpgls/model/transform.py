"""Traits on another scale: by ranks to normal scores, or in standard deviations.

Normal scores are Blom's (1958): Phi^-1((r - 3/8) / (n + 1/4)) of rank r among n, ties at the mean of their ranks.
McCaw et al. (Biometrics 76, 2020) compare scores of the trait ("direct") with those of what the covariates leave of it
("indirect", here "residual"); the model has the covariates in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.model.deviations import deviations

BLOM = 0.375
NONE, DIRECT, RESIDUAL = "none", "direct", "residual"
_TIED = 1e-10
"""Residuals that are no further apart, in standard deviations of the trait, differ by rounding alone."""


@dataclass(frozen=True)
class Transform:
    """What is done to a trait over its analysed samples: ``rint`` (NONE, DIRECT or RESIDUAL), then ``standardize``."""

    rint: str = NONE
    standardize: bool = False

    @property
    def changes(self) -> bool:
        """Whether anything is done."""
        return self.rint != NONE or self.standardize

    @property
    def text(self) -> str:
        """What is done, for the log."""
        scores = {DIRECT: "normal scores of their ranks", RESIDUAL: "normal scores of what the covariates leave"}
        done = [scores[self.rint]] if self.rint in scores else []
        return " and ".join(done + ["standard deviations"] * self.standardize)

    def of(self, Y: np.ndarray, X_L: np.ndarray) -> np.ndarray:
        """Traits Y (k, n), NaN where missing, each transformed over the samples that have it; X_L (n, q) covariates.

        X_L has the intercept. A constant trait becomes 0.
        """
        if not self.changes:
            return Y
        made = np.full(Y.shape, np.nan)
        for row, y in zip(made, Y, strict=True):
            observed = ~np.isnan(y)
            row[observed] = self._one(y[observed], X_L[observed])
        return made

    def _one(self, y: np.ndarray, X_L: np.ndarray) -> np.ndarray:
        if self.rint == DIRECT:
            y = normal_scores(y)
        elif self.rint == RESIDUAL:
            D = deviations(y)[0]
            left = D - X_L @ np.linalg.lstsq(X_L, D, rcond=None)[0]
            y = normal_scores(left, _TIED * float(np.sqrt(np.square(D).mean())))
        if self.standardize:
            D = deviations(y)[0]
            spread = np.sqrt(np.square(D).sum() / max(1, y.size - 1))
            y = D / spread if spread > 0 else D
        return y


AS_IT_IS = Transform()
"""No transform."""


def normal_scores(y: np.ndarray, tied: float = 0.0) -> np.ndarray:
    """Blom's scores of y (n,); values that follow one another by at most ``tied`` share the mean of their ranks."""
    from scipy.special import ndtri

    order = np.argsort(y, kind="stable")
    run = np.concatenate([[0], np.cumsum(np.diff(y[order]) > tied)]) if y.size else np.empty(0, dtype=np.int64)
    ranks = np.empty(y.size)
    ranks[order] = (np.bincount(run, np.arange(1.0, y.size + 1)) / np.bincount(run))[run]
    scores: np.ndarray = ndtri((ranks - BLOM) / (y.size + 1.0 - 2.0 * BLOM))
    return scores

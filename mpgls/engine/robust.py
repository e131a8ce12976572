"""Heteroscedasticity-robust errors of a SNP's columns: HC3 of the whitened model, one more pass over a block.

With the effects of a block known, each rank has for its rows i of the whitened model, of every SNP of its team,

    x_i = row i of X~ - X_L~ A,  A = S_TL^-1 S_BL      e_i = e0_i - x_i beta      h_i = h0_i + x_i D^-1 x_i'

with e0 and h0 the residuals and leverages without a SNP, and M = sum_i x_i'x_i e_i^2 / (1 - h_i)^2 (`model.joint_fit`).
"""

from __future__ import annotations

import numpy as np

from mpgls.engine.snp_scan import SeveralSums, WhitenedSnps
from mpgls.la.teams import Team
from mpgls.model.gls import NullSums, fit_null
from mpgls.model.joint_fit import weighted_grams
from mpgls.study.snp_stats import SnpStats

_STRIP = 1 << 19
"""Numbers of X~ that are looked at a time."""


class RobustSnps(WhitenedSnps):
    """The `WhitenedSnps` ``snps`` of several columns whose sums have M; ``null`` is without a SNP. Collective."""

    def __init__(self, snps: WhitenedSnps, null: NullSums, tolerance: float, team: Team) -> None:
        super().__init__(snps.L_team, snps.F_tilde_rep, snps.rows, snps.bed, snps.world, snps.columns)
        self.null, self.tolerance, self.team = fit_null(np.nan, null), tolerance, team
        F = self.F_tilde_team.astype(np.float64, copy=False)
        self.left_team = F[:, -1] - F[:, :-1] @ self.null.beta  # e0
        self.leverage_team = np.square(np.linalg.solve(self.null.root, F[:, :-1].T)).sum(axis=0)  # h0

    def sums(self, stats: SnpStats, X_tilde_team: np.ndarray) -> SeveralSums:
        """As `WhitenedSnps.sums`, with M."""
        S = super().sums(stats, X_tilde_team)
        assert isinstance(S, SeveralSums)
        with self.world.phase("robust errors"):
            k, B = self.columns.count, stats.n_obs.size
            solution, through = S.sums.solve(self.null, self.tolerance), S.sums.through(self.null)
            A = np.linalg.solve(self.null.root.T, through.reshape(self.null.q, -1))
            mine = np.vstack([A, solution.beta.reshape(1, -1), solution.inverse.reshape(B * k, k).T])
            A_beta_D = self._of_team(mine, X_tilde_team.shape[1])
            meat = self.L_team.sum_over_rows(self._grams(X_tilde_team, A_beta_D))[:, : B * k]
            return S._replace(meat=meat.T.reshape(B, k, k))

    def _grams(self, X_tilde_team: np.ndarray, A_beta_D: np.ndarray) -> np.ndarray:
        """This rank's rows' part of M of the team's SNPs (k, columns), some SNPs at a time."""
        (n_team, columns), q, k = X_tilde_team.shape, self.null.q, self.columns.count
        step = k * max(1, _STRIP // (k * max(1, n_team)))
        grams = np.empty((k, columns))
        for start in range(0, columns, step):
            part = slice(start, start + step)
            A, beta, inverse = np.split(A_beta_D[:, part], [q, q + 1])
            X = X_tilde_team[:, part] - self.F_tilde_team[:, :-1].astype(np.float64, copy=False) @ A
            grams[:, part] = weighted_grams(
                np.asfortranarray(X), beta[0], inverse, self.left_team, self.leverage_team, self.tolerance
            )
        return grams

    def _of_team(self, mine: np.ndarray, columns: int) -> np.ndarray:
        """Numbers of this rank's columns (r, B k) to those of all columns of the team's X~ (r, columns)."""
        if self.team.comm.size == 1:
            return mine
        wide = np.zeros((columns // self.team.comm.size, len(mine)))
        wide[: mine.shape[1]] = mine.T
        return np.concatenate(self.team.comm.allgather(wide)).T

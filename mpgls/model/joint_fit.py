"""Several columns of one SNP beside the covariates: effects, errors and joint tests of B SNPs at once.

With k columns X_s of each SNP, the normal equations of [X_L | X_s] have S_BR (k, k) and b_B (k) where those of one
column have numbers (`model.gls`), and so has the Schur complement:

    D = S_BR - S_BL' S_TL^-1 S_BL,   r = b_B - S_BL' S_TL^-1 b_T,   beta = D^-1 r,   rss = rss_0 - r'beta

    covariance C of beta:  s2 D^-1, or HC3's  D^-1 M D^-1  with M = sum_i x_i x_i' e_i^2 / (1 - h_i)^2

where x_i is the row of the columns without their part in X_L~, e_i the residual and h_i the leverage of the whitened
row i (MacKinnon and White, Journal of Econometrics 29, 1985). A hypothesis J of some columns has the statistic

    beta_J' C_JJ^-1 beta_J:   chi-square with |J| degrees of freedom, and |J| times F with |J| and n - q - k.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mpgls.errors import NumericalError
from mpgls.model.gls import Note, NullFit, SnpFit, SnpTest
from mpgls.model.joint_pvalues import log10_p_chi2, log10_p_f
from mpgls.model.pvalues import log10_p_chi2_1, log10_p_t

JOINT = "JOINT"
INTERACTION = "INTERACTION"
P_OF_JOINT = f"log10p_{JOINT}"
"""The field of a record with minus log10 p of the test of all columns."""


def joint_products(F: np.ndarray, X: np.ndarray, k: int, rows: int = 1024) -> np.ndarray:
    """F'x of every column x of X, and below it x'z with each of the k columns z of its SNP: float64 (f+k, B k).

    ``F`` (r, f), ``X`` (r, B k) in Fortran order, the k columns of a SNP side by side. Summed over these rows only, so
    many at a time, in float64 whatever the precision of the columns.
    """
    f, count = F.shape[1], X.shape[1]
    total, grams = np.zeros((f + k, count)), np.zeros((count // k, k, k))
    for start in range(0, X.shape[0], rows):
        X_part = X[start : start + rows]
        total[:f] += F[start : start + rows].T @ X_part
        of_snps = X_part.T.reshape(count // k, k, X_part.shape[0])
        for j in range(k):
            grams[:, j:, j] += np.einsum("blr,br->bl", of_snps[:, j:], of_snps[:, j])
    upper = np.triu_indices(k, 1)
    grams[:, upper[0], upper[1]] = grams[:, upper[1], upper[0]]
    total[f:] = grams.reshape(count, k).T
    return total


def weighted_grams(
    X: np.ndarray, beta: np.ndarray, inverse: np.ndarray, left: np.ndarray, leverage: np.ndarray, tolerance: float
) -> np.ndarray:
    """The rows' part of M of every SNP, (k, B k): that of `joint_products` with the weights of HC3.

    ``X`` (r, B k) are columns without their part in X_L~, with ``beta`` (B k,) and D^-1 ``inverse`` (k, B k); ``left``
    (r,) and ``leverage`` (r,) are e0 and h0. A row with no more than ``tolerance`` left of its leverage has no weight
    that is known: M is then NaN, unless the covariates alone fit that row, to which no SNP adds anything.
    """
    k, count = inverse.shape
    of_snps = X.T.reshape(count // k, k, X.shape[0])
    of_snps[:, :, leverage >= 1.0 - tolerance] = 0.0  # X is the caller's, made for this
    D_inverse = inverse.T.reshape(count // k, k, k)
    e = left - np.einsum("bjr,bj->br", of_snps, beta.reshape(count // k, k))
    free = 1.0 - leverage - np.einsum("bjr,bjr->br", of_snps, D_inverse @ of_snps)
    fitted = (of_snps == 0).all(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(fitted, 0.0, np.where(free > tolerance, e / free, np.nan))
    weighted = of_snps * weight[:, None, :]
    return (weighted @ weighted.swapaxes(1, 2)).reshape(count, k).T


@dataclass(frozen=True, eq=False)
class JointSums:
    """Of B SNPs of k columns: S_BL (q, B, k), b_B (B, k), S_BR (B, k, k), and |x|^2 of the centred SNPs (B,)."""

    S_BL: np.ndarray
    b_B: np.ndarray
    S_BR: np.ndarray
    norm: np.ndarray

    @classmethod
    def of(cls, products: np.ndarray, k: int, norm: np.ndarray) -> JointSums:
        """From what `joint_products` gives for F = [X_L~ | y~] (q+1+k, B k)."""
        B, q = norm.size, products.shape[0] - k - 1
        grams = products[q + 1 :].reshape(k, B, k).transpose(1, 2, 0)
        return cls(products[:q].reshape(q, B, k), products[q].reshape(B, k), grams, norm)

    def solve(self, null: NullFit, tolerance: float) -> JointSolution:
        """Effects beside the covariates of ``null``, which was fitted at the same h2.

        No more than the share ``tolerance`` left of a combination of a SNP's columns means that they are dependent.
        """
        D = self.S_BR - np.einsum("abj,abl->bjl", *[self.through(null)] * 2)
        r = self.b_B - np.einsum("a,abj->bj", null.beta, self.S_BL)
        squares = np.einsum("bjj->bj", self.S_BR)
        scale = np.divide(1.0, np.sqrt(squares), out=np.zeros(squares.shape), where=squares > 0)
        share, U = np.linalg.eigh(D * scale[:, :, None] * scale[:, None, :])
        note = np.zeros(self.norm.size, dtype=np.uint8)
        note[~(share[:, 0] > tolerance)] = Note.DEPENDENT
        note[~(D[:, 0, 0] > tolerance * self.S_BR[:, 0, 0])] = Note.COLLINEAR
        note[~(self.norm > 0)] = Note.MONOMORPHIC
        share[note != Note.OK] = np.nan
        U *= scale[:, :, None]
        inverse = (U / share[:, None, :]) @ U.swapaxes(1, 2)
        beta = np.einsum("bjl,bl->bj", inverse, r)
        return JointSolution(beta, inverse, np.einsum("bj,bj->b", r, beta), note)

    def through(self, null: NullFit) -> np.ndarray:
        """R^-1 S_BL (q, B, k) for S_TL = R R'."""
        from scipy.linalg import solve_triangular

        q = self.S_BL.shape[0]
        return solve_triangular(null.root, self.S_BL.reshape(q, -1), lower=True).reshape(self.S_BL.shape)


@dataclass(frozen=True, eq=False)
class JointSolution:
    """``beta`` (B, k), ``inverse`` (B, k, k) = D^-1, ``explained`` (B,) = r'beta, and ``note`` (B,) of Note."""

    beta: np.ndarray
    inverse: np.ndarray
    explained: np.ndarray
    note: np.ndarray


@dataclass(frozen=True, eq=False)
class JointFit(SnpFit):
    """`SnpFit` of the SNP itself, ``effects`` of all columns, and ``fields`` (B,) of a record by name."""

    all_effects: np.ndarray
    fields: Mapping[str, np.ndarray]

    @property
    def effects(self) -> np.ndarray:
        """Effects and standard errors (2, B, k)."""
        return self.all_effects

    def further(self, name: str) -> np.ndarray:
        """A field of a record beyond the SNP's own effect and error."""
        return self.fields[name]


@dataclass(frozen=True, eq=False)
class JointModel:
    """What the k columns of each SNP mean: ``names`` of the user's columns, the SNP's own first.

    ``T`` (k, k) gives their effects from those of the columns that are fitted; ``interactions`` (k,) bool says which
    are products with a covariate.
    """

    names: tuple[str, ...]
    T: np.ndarray
    interactions: np.ndarray

    @property
    def tests(self) -> dict[str, np.ndarray]:
        """The columns (k,) bool that are tested together, by name of the test."""
        several = {INTERACTION: self.interactions} if self.interactions.sum() > 1 else {}
        return ({JOINT: np.ones(len(self.names), dtype=bool)} if len(self.names) > 1 else {}) | several

    def fields(self, test: SnpTest) -> tuple[str, ...]:
        """The fields of a record beyond the SNP's own effect and error."""
        of_columns = [f"{what}_{name}" for name in self.names[1:] for what in ("beta", "se", "log10p")]
        statistic = "chi2" if test.test == "wald" else "f"
        return (*of_columns, *(f"{what}_{name}" for name in self.tests for what in (statistic, "df", "log10p")))

    def fit(self, solution: JointSolution, null: NullFit, test: SnpTest, meat: np.ndarray | None = None) -> JointFit:
        """Effects in the user's columns, with HC3's errors where M (B, k, k) is given. Raises NumericalError."""
        k, df = len(self.names), null.n - null.q - len(self.names)
        if df < 1:
            raise NumericalError(f"{null.n} samples leave no degree of freedom for {null.q} covariates and {k} columns")
        if meat is None:
            left = null.rss - solution.explained
            left[left <= test.complete * null.rss] = 0.0
            s2 = left / df if test.test == "t" else np.full(left.shape, null.s2)
            spread = s2[:, None, None] * solution.inverse
        else:
            spread = solution.inverse @ meat @ solution.inverse
        beta, spread = solution.beta @ self.T.T, self.T @ spread @ self.T.T
        note = solution.note.copy()
        note[(note == Note.OK) & ~np.isfinite(spread).all(axis=(1, 2))] = Note.LEVERAGE
        with np.errstate(divide="ignore", invalid="ignore"):
            effects = np.array([beta, np.sqrt(np.einsum("bjj->bj", spread))])
            fields = dict(self._fields(effects, spread, df, test))
        return JointFit(effects[0, :, 0], effects[1, :, 0], note, effects, fields)

    def _fields(
        self, effects: np.ndarray, spread: np.ndarray, df: int, test: SnpTest
    ) -> Iterator[tuple[str, np.ndarray]]:
        wald = test.test == "wald"
        for j, name in enumerate(self.names[1:], start=1):
            beta, se = effects[:, :, j]
            yield f"beta_{name}", beta
            yield f"se_{name}", se
            yield f"log10p_{name}", log10_p_chi2_1(beta / se) if wald else log10_p_t(beta / se, df)
        for name, tested in self.tests.items():
            count = int(tested.sum())
            chi2 = _chi2(effects[0][:, tested], spread[:, tested][:, :, tested])
            yield (f"chi2_{name}", chi2) if wald else (f"f_{name}", chi2 / count)
            yield f"df_{name}", np.full(chi2.shape, float(count))
            yield f"log10p_{name}", log10_p_chi2(chi2, count) if wald else log10_p_f(chi2 / count, count, df)


def _chi2(beta: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """beta'C^-1 beta (B,) of effects (B, j) and their covariance (B, j, j); infinite where nothing is left of a trait.

    C is scaled to a unit diagonal, so that no unit of the user's columns costs digits.
    """
    size = np.sqrt(np.einsum("bjj->bj", spread))
    known = np.isfinite(size).all(axis=1) & (size > 0).all(axis=1)
    chi2 = np.where((size == 0).all(axis=1), np.inf, np.nan)
    z, unit = beta[known] / size[known], spread[known] / size[known][:, :, None] / size[known][:, None, :]
    chi2[known] = np.einsum("bj,bj->b", z, np.linalg.solve(unit, z[:, :, None])[:, :, 0])
    return chi2

"""Generalised least squares from whitened sums: the null model once, then every SNP by a Schur complement.

With V = h2 Phi + (1-h2) I = L L' and z~ = L^-1 z, the normal equations of the design [X_L | x] are

    [ S_TL  S_BL ] [ beta_L ]   [ b_T ]
    [ S_BL' S_BR ] [ beta   ] = [ b_B ]

(blocks named as in Peise, Fabregat-Traver, Bientinesi, "Algorithms for large-scale whole genome association
analysis", section 2). q columns of X_L (intercept first), p = q + 1 of the whole design, n samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from mpgls.errors import NumericalError


class Note(IntEnum):
    """Why a SNP has no estimate; stored in the result file as a small integer."""

    OK = 0
    MONOMORPHIC = 1
    ALL_MISSING = 2
    COLLINEAR = 3
    MAF = 4
    GENO = 5
    MAC = 6
    MAX_MAF = 7
    HWE = 8
    INFO = 9
    ONE_CODE = 10
    CONDITIONED = 11
    DEPENDENT = 12
    LEVERAGE = 13


FILTERS = {
    Note.MAF: "--maf",
    Note.GENO: "--geno",
    Note.MAC: "--mac",
    Note.MAX_MAF: "--max-maf",
    Note.HWE: "--hwe",
    Note.INFO: "--info",
}
"""The options that drop a SNP by its counts: it has no row in a table."""
NOTE_TEXT = {
    Note.OK: "",
    Note.MONOMORPHIC: "monomorphic",
    Note.ALL_MISSING: "all genotypes missing",
    Note.COLLINEAR: "collinear with the covariates",
    Note.ONE_CODE: "monomorphic as coded by --model",
    Note.CONDITIONED: "conditioned on",
    Note.DEPENDENT: "a column of the SNP depends on the others",
    Note.LEVERAGE: "a sample alone decides an effect",
    **{note: f"dropped by {flag}" for note, flag in FILTERS.items()},
}


def is_filtered(note: np.ndarray) -> np.ndarray:
    """(B,) bool: the notes that are those of FILTERS."""
    return (note >= min(FILTERS)) & (note <= max(FILTERS))


COMPLETE = {"double": 1e-12, "mixed": 1e-5, "exact": 1e-12}
"""A SNP that leaves no more than this share of a trait's residual variance, which rounding can leave in the precision
of the solve, explains it completely: SE is 0."""
COLLINEAR_TOLERANCE = {"double": 1e-10, "mixed": 1e-5, "exact": 1e-10}
"""Share of a SNP's whitened variance that must remain beside the covariates, by precision of the solve."""


def complete_share(dtype: np.dtype | type) -> float:
    """``COMPLETE`` of the precision that has this element type."""
    return COMPLETE["double" if dtype == np.float64 else "mixed"]


@dataclass(frozen=True)
class SnpTest:
    """How SNPs are tested: ``test`` is "t" or "wald", see `fit_snps`; ``precision``: double, mixed or exact.

    ``by_ratio`` are the tests by a variance ratio of each SNP's own, of "t", "lrt" and "score"; none by the null
    model's. See `mpgls.model.snp_ratio`. ``robust``: errors are HC3's, see `mpgls.model.joint_fit`.
    """

    test: str = "t"
    precision: str = "double"
    by_ratio: tuple[str, ...] = ()
    robust: bool = False

    @property
    def dtype(self) -> type:
        """Element type of what is streamed."""
        return np.float32 if self.precision == "mixed" else np.float64

    @property
    def tolerance(self) -> float:
        """Share of a SNP's whitened variance that must remain beside the covariates."""
        return COLLINEAR_TOLERANCE[self.precision]

    @property
    def complete(self) -> float:
        """Share of a trait's residual variance up to which nothing is left of it beside a SNP."""
        return COMPLETE[self.precision]


@dataclass(frozen=True)
class NullSums:
    """The whitened sums of the model without a SNP, at one h2.

    S_TL (q, q) = X~_L'X~_L, b_T (q,) = X~_L'y~, yy = y~'y~, log_det = log|V|, n samples;
    log_det_xtx = log|X_L'X_L| of the plain covariates, a constant of the REML log-likelihood.
    """

    S_TL: np.ndarray
    b_T: np.ndarray
    yy: float
    log_det: float
    n: int
    log_det_xtx: float = 0.0

    @classmethod
    def of_gram(cls, gram: np.ndarray, log_det: float, n: int, log_det_xtx: float) -> NullSums:
        """From F~'F~ (q+1, q+1) of F = [X_L | y]."""
        return cls(gram[:-1, :-1], gram[:-1, -1], float(gram[-1, -1]), log_det, n, log_det_xtx)

    @property
    def gram(self) -> np.ndarray:
        """F~'F~ (q+1, q+1)."""
        return np.block([[self.S_TL, self.b_T[:, None]], [self.b_T[None, :], np.array([[self.yy]])]])


@dataclass(frozen=True)
class NullFit:
    """The model without a SNP: effects of X_L (q,), their standard errors, and the profiled variance s2.

    s2 = rss / (n - q) is the REML estimate; ``root`` (q, q) is the lower Cholesky factor of S_TL.
    """

    h2: float
    s2: float
    beta: np.ndarray
    beta_se: np.ndarray
    rss: float
    log_likelihood: float
    n: int
    q: int
    root: np.ndarray


@dataclass(frozen=True)
class SnpFit:
    """Effect, standard error (B,) float64, NaN where not estimable, and note (B,) uint8 with values of Note."""

    beta: np.ndarray
    se: np.ndarray
    note: np.ndarray

    @property
    def effects(self) -> np.ndarray:
        """Effects and standard errors (2, B, k) of the k columns of each SNP."""
        return np.array([self.beta, self.se])[:, :, None]

    def further(self, name: str) -> np.ndarray:
        """A field (B,) of a record beyond effect and error."""
        found: np.ndarray = getattr(self, name)
        return found


def fit_null(h2: float, sums: NullSums) -> NullFit:
    """Fit y = X_L beta + e, e ~ s2 V(h2), from the sums at that h2.

    Raises NumericalError when S_TL is not positive definite or no degree of freedom is left.
    """
    n, q = sums.n, len(sums.b_T)
    root, half = _root_and_half(sums)
    rss = _rss(sums, half)
    s2 = rss / (n - q)
    inverse_root = _solve_lower(root, np.eye(q))
    beta = inverse_root.T @ half
    beta_se = np.sqrt(s2 * np.sum(np.square(inverse_root), axis=0))  # diagonal of s2 S_TL^-1
    return NullFit(h2, s2, beta, beta_se, rss, _reml(sums, root, rss), n, q, root)


def profile_reml(sums: NullSums) -> float:
    """REML log-likelihood at the h2 of ``sums`` with s2 profiled out, all constants included.

    l = -1/2 [(n-q) log(2 pi s2) + log|V| + log|S_TL| + (n-q)] + 1/2 log|X_L'X_L|,  s2 = rss/(n-q)

    (Patterson and Thompson, Biometrika 58, 1971; the same constant as GEMMA's REMLE log-likelihood).
    Raises NumericalError as ``fit_null`` does.
    """
    root, half = _root_and_half(sums)
    return _reml(sums, root, _rss(sums, half))


def degrees_of_freedom(n: int, q: int, columns: int = 1) -> int:
    """Residual degrees of freedom of the t test with the columns of a SNP beside q columns of X_L: n - p."""
    return n - q - columns


def fit_snps(
    null_sums: NullSums,
    S_BL: np.ndarray,
    S_BR: np.ndarray,
    b_B: np.ndarray,
    x_norm_sq: np.ndarray,
    test: str = "t",
    tolerance: float = COLLINEAR_TOLERANCE["double"],
    complete: float = COMPLETE["double"],
) -> SnpFit:
    """Effect and standard error of B SNPs, each tested alone beside X_L.

    S_BL (q, B) = X~_L'x~, S_BR (B,) = x~'x~, b_B (B,) = x~'y~, x_norm_sq (B,) = squared norm of the centred,
    unwhitened SNP (0 marks it monomorphic). With the Schur complement

        d = S_BR - S_BL' S_TL^-1 S_BL,   r = b_B - S_BL' S_TL^-1 b_T,   beta = r / d,   se = sqrt(s2 / d)

    ``test`` "t" re-profiles s2 = (rss - r^2/d) / (n-p) for each SNP; "wald" keeps s2 = rss / (n-q) of the null
    model. A SNP with d <= tolerance * S_BR is collinear with the covariates; the t test's se is 0 where
    rss - r^2/d <= complete * rss. Raises NumericalError as ``fit_null`` does, and ValueError for another ``test``.
    """
    if test not in ("t", "wald"):
        raise ValueError(f"test must be 't' or 'wald', not {test!r}")
    n, q = null_sums.n, len(null_sums.b_T)
    root, half = _root_and_half(null_sums)
    rss = _rss(null_sums, half)
    S_BR, b_B = np.asarray(S_BR, dtype=np.float64), np.asarray(b_B, dtype=np.float64)
    whitened = _solve_lower(root, np.asarray(S_BL, dtype=np.float64))  # R^-1 S_BL
    d = S_BR - np.einsum("ij,ij->j", whitened, whitened)
    r = b_B - half @ whitened

    note = np.zeros(d.shape, dtype=np.uint8)
    note[~(d > tolerance * S_BR)] = Note.COLLINEAR
    note[~(np.asarray(x_norm_sq) > 0)] = Note.MONOMORPHIC
    d[note != Note.OK] = np.nan

    beta = r / d
    if test == "wald":
        se = np.sqrt((rss / (n - q)) / d)
    else:
        if n - q - 1 < 1:
            raise NumericalError(f"{n} samples leave no degree of freedom for {q} covariates and a SNP.")
        left = rss - r * beta
        left[left <= complete * rss] = 0.0
        se = np.sqrt(left / ((n - q - 1) * d))
    return SnpFit(beta, se, note)


def _root_and_half(sums: NullSums) -> tuple[np.ndarray, np.ndarray]:
    """R with S_TL = R R', and R^-1 b_T."""
    n, q = sums.n, len(sums.b_T)
    if n <= q:
        raise NumericalError(f"{n} samples leave no degree of freedom for {q} covariates.")
    try:
        root = np.linalg.cholesky(np.asarray(sums.S_TL, dtype=np.float64))
    except np.linalg.LinAlgError:
        raise NumericalError("The covariates are linearly dependent: X_L' V^-1 X_L is not positive definite.") from None
    return root, _solve_lower(root, np.asarray(sums.b_T, dtype=np.float64))


def _rss(sums: NullSums, half: np.ndarray) -> float:
    """Residual sum of squares y~'y~ - b_T' S_TL^-1 b_T."""
    rss = float(sums.yy - half @ half)
    if not rss > 0:
        raise NumericalError("The covariates explain the trait completely: no residual variance is left.")
    return rss


def _reml(sums: NullSums, root: np.ndarray, rss: float) -> float:
    df = sums.n - len(sums.b_T)
    log_det_S = 2.0 * np.sum(np.log(np.diag(root)))
    spread = df * (np.log(2.0 * np.pi * rss / df) + 1.0)
    return float(-0.5 * (spread + sums.log_det + log_det_S) + 0.5 * sums.log_det_xtx)


def _solve_lower(root: np.ndarray, right: np.ndarray) -> np.ndarray:
    from scipy.linalg import solve_triangular

    return solve_triangular(root, right, lower=True, check_finite=False)

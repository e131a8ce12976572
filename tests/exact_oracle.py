"""Mixed models, voxelwise regressions and ridge in extended precision (np.longdouble), from the formulas alone.

Nothing of mpgls is imported, and no LAPACK of float64 decides a digit: orthogonal factors come from Householder
reflections in long double. What is float64 is the input: a trait or a covariate is what the file's numbers are.
V = h2 Phi + (1-h2) I; X is n x q, its first column the intercept. For small n.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

REAL = np.longdouble
UPPER = 1.0 - 1e-6


def orthonormal(A):
    """Q (n, k) and R (k, k) with A = Q R, by Householder reflections."""
    R = np.array(A, dtype=REAL)
    n, k = R.shape
    reflections = []
    for j in range(k):
        v = R[j:, j].copy()
        v[0] += np.copysign(np.sqrt(v @ v), v[0])
        v /= np.sqrt(v @ v)
        R[j:, j:] -= 2 * np.outer(v, v @ R[j:, j:])
        reflections.append(v)
    Q = np.eye(n, k, dtype=REAL)
    for j in range(k - 1, -1, -1):
        v = reflections[j]
        Q[j:] -= 2 * np.outer(v, v @ Q[j:])
    return Q, R[:k]


def triangular(R, B):
    """R^-1 B for an upper triangle R."""
    X = np.array(B, dtype=REAL)
    for j in range(len(R) - 1, -1, -1):
        X[j] = (X[j] - R[j, j + 1 :] @ X[j + 1 :]) / R[j, j]
    return X


def least_squares(A, B):
    """The X that makes |A X - B| least, for A of full column rank."""
    Q, R = orthonormal(A)
    return triangular(R, Q.T @ B)


def residuals(Q, A):
    """What the orthonormal columns Q leave of A; twice, to the last digit."""
    for _ in range(2):
        A = A - Q @ (Q.T @ A)
    return A


def exact_scaled(K):
    """K with mean diagonal 1."""
    K = np.array(K, dtype=REAL)
    return K / np.mean(np.diag(K))


class Spectrum(NamedTuple):
    """Phi = Z diag(lam) Z': eigenvalues (n,) and eigenvectors (n, n)."""

    lam: np.ndarray
    Z: np.ndarray

    @classmethod
    def of(cls, Phi):
        """From float64's, refined twice (Ogita and Aishima, Japan J. Indust. Appl. Math. 35, 2018)."""
        Z = np.linalg.eigh(np.asarray(Phi, dtype=np.float64))[1].astype(REAL)
        for _ in range(2):
            R, S = np.eye(len(Z), dtype=REAL) - Z.T @ Z, Z.T @ (Phi @ Z)
            lam = np.diag(S) / (1 - np.diag(R))
            gap = lam[None, :] - lam[:, None]
            close = np.abs(gap) < 1e-9 * np.abs(lam).max()
            E = np.where(close, R / 2, (S + lam[None, :] * R) / np.where(close, 1, gap))
            Z = Z + Z @ E
        return cls(lam, Z)


class Fit(NamedTuple):
    """h2, effects of X and of each SNP, standard errors, and -log10 p of each SNP."""

    h2: float
    effects: np.ndarray
    beta: np.ndarray
    se: np.ndarray
    log10p: np.ndarray


class Model:
    """The null model of one design X (n, q), float64, for a kinship of known ``spectrum``."""

    def __init__(self, spectrum, X):
        self.lam, self.Z = spectrum
        self.n, self.q = X.shape
        self.X = np.array(X, dtype=REAL)
        self.basis = orthonormal(self.X)[0]
        self.points = {}

    def whitened(self, h2):
        """D^-1/2, what it makes of the covariates as orthonormal columns, and its square times lam - 1."""
        if h2 not in self.points:
            w = 1 / (h2 * self.lam + 1 - h2)
            self.points[h2] = np.sqrt(w), orthonormal(np.sqrt(w)[:, None] * (self.Z.T @ self.basis))[0], w
        return self.points[h2]

    def slope(self, h2, z):
        """dl/dh2 = -1/2 [tr(PD) - (n-q) y'PDPy / y'Py] and l without constants, of a rotated trait z = Z'y."""
        root, Q, w = self.whitened(h2)
        D = (self.lam - 1) * w
        e = residuals(Q, root * z)
        trace = D @ (1 - np.square(Q).sum(axis=1))
        return -(trace - (self.n - self.q) * (D @ np.square(e)) / (e @ e)) / 2

    def likelihood(self, h2, z):
        """l(h2) without what does not depend on h2."""
        root, Q, w = self.whitened(h2)
        e = residuals(Q, root * z)
        R = Q.T @ (root[:, None] * (self.Z.T @ self.basis))
        log_det = -np.log(w).sum() + 2 * np.log(np.abs(np.diag(R))).sum()
        return -((self.n - self.q) * np.log(e @ e) + log_det) / 2

    def find_h2(self, z, points=25):
        """The REML estimate: the largest of ``points`` values, then bisection and secants of the slope to its zero."""
        grid = [REAL(h2) for h2 in np.linspace(0.0, UPPER, points)]
        k = int(np.argmax([self.likelihood(h2, z) for h2 in grid]))
        low, high = grid[max(k - 1, 0)], grid[min(k + 1, points - 1)]
        at_low, at_high = self.slope(low, z), self.slope(high, z)
        if at_low <= 0:
            return low
        if at_high >= 0:
            return high
        for _ in range(60):
            middle = (low * at_high - high * at_low) / (at_high - at_low)
            value = self.slope(middle, z)
            if value == 0 or high - low < 1e-15:
                return middle
            if value > 0:
                low, at_low, at_high = middle, value, at_high / 2  # Illinois: the end that stays counts half
            else:
                high, at_high, at_low = middle, value, at_low / 2
        return (low + high) / 2

    def fit(self, y, snps, h2=None):
        """h2 unless it is given, and a t test of each of the ``snps`` (n, m) beside X."""
        y = np.array(y, dtype=REAL)
        z = self.Z.T @ residuals(self.basis, y)
        h2 = self.find_h2(z) if h2 is None else REAL(h2)
        root, Q, _ = self.whitened(h2)
        e, S = residuals(Q, root * z), residuals(Q, root[:, None] * (self.Z.T @ snps))
        d, r = np.square(S).sum(axis=0), S.T @ e
        df = self.n - self.q - 1
        beta = r / d
        se = np.sqrt((e @ e - r * beta) / (df * d))
        effects = least_squares(root[:, None] * (self.Z.T @ self.X), root * (self.Z.T @ y))
        return Fit(float(h2), effects, beta, se, log10_p(beta / se, df))


def log10_p(t, df):
    """-log10 of the two-sided p of Student's t."""
    return -(stats.t.logsf(np.abs(np.asarray(t, dtype=np.float64)), df) + np.log(2.0)) / np.log(10.0)


def t_and_effects(X, y, snps):
    """t and effect of each SNP (n, m) on y in the linear model beside X."""
    Q = orthonormal(X)[0]
    e, S = residuals(Q, np.array(y, dtype=REAL)), residuals(Q, np.array(snps, dtype=REAL))
    d, r = np.square(S).sum(axis=0), S.T @ e
    df = len(X) - X.shape[1] - 1
    return r / np.sqrt((e @ e - r * r / d) * d / df), r / d


def ridge(X, Y, K, test, training, penalty):
    """Ridge regression on the kernel K with unpenalised X: predictions of Y (n, t) over ``test``, and R2 (t,).

    A prediction is X_test b + K_test (K + a I)^-1 (y - X b) of the training set, b by generalised least squares; R2 is
    that of what least squares on X alone leaves of both.
    """
    V = K[np.ix_(training, training)] + penalty * np.eye(training.size, dtype=REAL)
    Q, Y = orthonormal(X)[0], np.array(Y, dtype=REAL)  # spans what X spans, and is better scaled
    C, C_test, q = Q[training], Q[test], X.shape[1]
    solved = least_squares(V, np.column_stack([C, Y[training]]))
    b = least_squares(C.T @ solved[:, :q], C.T @ solved[:, q:])
    predicted = C_test @ b + K[np.ix_(test, training)] @ (solved[:, q:] - solved[:, :q] @ b)
    base = C_test @ least_squares(C, Y[training])
    left = Y[test] - base
    return predicted, 1 - np.square(Y[test] - predicted).sum(axis=0) / np.square(left - left.mean(axis=0)).sum(axis=0)

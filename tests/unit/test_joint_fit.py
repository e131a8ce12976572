"""Several columns of a SNP beside the covariates, against dense algebra; and their p values."""

from __future__ import annotations

import joint_oracle
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from mpgls.errors import NumericalError
from mpgls.model.gls import Note, NullSums, SnpTest, fit_null
from mpgls.model.joint_fit import JointModel, JointSums, joint_products, weighted_grams
from mpgls.model.joint_pvalues import log10_p_chi2, log10_p_f

N, Q, K = 47, 3, 3
NAMES = ("SNP", "SNPxa", "SNPxb")


class Whitened:
    """y, X (n, q) and S (m, n, k) of SNPs whose covariance is the identity."""

    def __init__(self, m=5, k=K):
        rng = np.random.default_rng(3)
        self.X = np.column_stack([np.ones(N), rng.normal(size=(N, Q - 1))])
        self.S = rng.normal(size=(m, N, k))
        self.y = self.X @ [1.0, 0.5, -0.2] + 0.4 * self.S[0, :, 1] + rng.normal(size=N)

    def fit(self, test=SnpTest(), T=None, dtype=np.float64):  # noqa: B008
        F = np.column_stack([self.X, self.y])
        null = fit_null(0.0, NullSums.of_gram(F.T @ F, 0.0, N, 0.0))
        m, _, k = self.S.shape
        X = np.asfortranarray(self.S.transpose(1, 0, 2).reshape(N, m * k), dtype=dtype)
        products = joint_products(F.astype(dtype), X, k, rows=20)
        sums = JointSums.of(products, k, np.square(self.S[:, :, 0]).sum(axis=1))
        solution, meat = sums.solve(null, test.tolerance), None
        if test.robust:
            A = np.linalg.solve(null.root.T, sums.through(null).reshape(Q, -1))
            left, leverage = self.y - self.X @ null.beta, np.square(np.linalg.solve(null.root, self.X.T)).sum(axis=0)
            D_inverse = solution.inverse.reshape(m * k, k).T
            rows = [slice(0, 20), slice(20, N)]  # as ranks of a team have them
            grams = [
                weighted_grams(
                    np.asfortranarray(X[part] - self.X[part] @ A), solution.beta.ravel(), D_inverse, left[part],
                    leverage[part], test.tolerance,
                )
                for part in rows
            ]  # fmt: skip
            meat = sum(grams).T.reshape(m, k, k)
        model = JointModel(NAMES[:k], np.eye(k) if T is None else T, np.arange(k) > 0)
        return model.fit(solution, null, test, meat)


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("test", ["t", "wald"])
def test_effects_errors_and_joint_tests_are_those_of_dense_algebra(test, robust):
    study = Whitened()
    T = np.array([[1.0, -4.0, 2.0], [0.0, 2.0, 0.3], [0.0, 0.0, 0.5]])  # S = (user's columns) T
    found = study.fit(SnpTest(test, robust=robust), T)
    kind = "f" if test == "t" else "chi2"
    for s in range(5):
        U = study.S[s] @ np.linalg.inv(T)
        beta, se, p, tests = joint_oracle.fit(np.eye(N), study.X, U, study.y, [[0, 1, 2], [1, 2]], test, robust)
        assert_allclose(found.effects[:, s], [beta, se], rtol=1e-9)
        assert_allclose([found.beta[s], found.se[s]], [beta[0], se[0]], rtol=1e-9)
        assert_allclose([found.further(f"log10p_{name}")[s] for name in NAMES[1:]], -np.log10(p[1:]), rtol=1e-8)
        for name, count, (statistic, p_joint) in zip(("JOINT", "INTERACTION"), (3, 2), tests, strict=True):
            assert_allclose(found.further(f"{kind}_{name}")[s], statistic, rtol=1e-8)
            assert_allclose(found.further(f"log10p_{name}")[s], -np.log10(p_joint), rtol=1e-8)
            assert found.further(f"df_{name}")[s] == count
    assert (found.note == Note.OK).all()


def test_single_precision_columns_are_summed_in_double():
    double, single = Whitened().fit(), Whitened().fit(SnpTest(precision="mixed"), dtype=np.float32)
    assert_allclose(single.effects, double.effects, rtol=1e-5)


def test_columns_that_depend_on_others_have_a_note_and_no_numbers():
    study = Whitened(m=6)
    study.S[0] = 0.0  # monomorphic
    study.S[1, :, 0] = study.X[:, 1] - 2.0
    study.S[2, :, 2] = 0.0  # no carrier
    study.S[3, :, 2] = study.S[3, :, 0] - study.S[3, :, 1] + study.X[:, 2]
    study.S[4, :, 1] *= 1e-9  # small, and yet a column of its own
    found = study.fit()
    notes = [Note.MONOMORPHIC, Note.COLLINEAR, Note.DEPENDENT, Note.DEPENDENT, Note.OK, Note.OK]
    assert found.note.tolist() == notes
    assert np.isnan(found.effects[:, :4]).all() and np.isfinite(found.effects[:, 4:]).all()
    assert np.isnan(found.further("log10p_JOINT")[:4]).all()
    beta, se, _, _ = joint_oracle.fit(np.eye(N), study.X, study.S[5], study.y, [], "t")
    assert_allclose(found.effects[:, 5], [beta, se], rtol=1e-9)


def test_robust_errors_need_more_than_one_sample_for_an_effect():
    study = Whitened(m=2)
    study.S[0, :, 2] = 0.0
    study.S[0, 7, 2] = 1.0  # its residual is 0 whatever the trait
    found = study.fit(SnpTest(robust=True))
    assert found.note.tolist() == [Note.LEVERAGE, Note.OK]


def test_a_sample_that_a_covariate_fits_alone_takes_no_part_in_robust_errors():
    study, without = Whitened(), Whitened()
    study.X[:, 2] = 0.0
    study.X[7, 2] = 1.0
    others = np.arange(N) != 7
    found = study.fit(SnpTest("wald", robust=True))
    beta, se, _, _ = joint_oracle.fit(
        np.eye(N - 1), study.X[others, :2], study.S[1][others], study.y[others], [], "wald", True
    )
    assert_allclose(found.effects[:, 1], [beta, se], rtol=1e-9)
    assert not np.allclose(without.fit(SnpTest("wald", robust=True)).se, found.se)


def test_a_trait_that_a_snp_explains_has_errors_of_zero_and_an_infinite_statistic():
    study = Whitened(m=2)
    study.y = study.S[0] @ [1.0, 2.0, 3.0] + study.X[:, 1]
    found = study.fit()
    assert found.se[0] == 0.0 and np.isinf(found.further("f_JOINT")[0]) and np.isinf(found.further("log10p_JOINT")[0])
    assert_allclose(found.effects[0, 0], [1.0, 2.0, 3.0], rtol=1e-9)


def test_no_degree_of_freedom_is_an_error():
    study = Whitened(m=1, k=2)
    F = np.column_stack([study.X, study.y])[:5]
    null = fit_null(0.0, NullSums.of_gram(F.T @ F, 0.0, 5, 0.0))
    X = np.asfortranarray(study.S[0, :5])
    solution = JointSums.of(joint_products(F, X, 2), 2, np.ones(1)).solve(null, 1e-10)
    with pytest.raises(NumericalError, match="5 samples leave no degree of freedom for 3 covariates and 2 columns"):
        JointModel(NAMES[:2], np.eye(2), np.array([False, True])).fit(solution, null, SnpTest())


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 8, 33])
def test_p_values_are_scipys_where_it_has_them(df):
    x = np.array([0.0, 1e-3, 0.03, 0.8, 1.0, 2.5, 17.0, 90.0])
    assert_allclose(log10_p_chi2(x, df), -stats.chi2.logsf(x, df) / np.log(10), rtol=1e-11, atol=1e-12)
    for residual in (1, 3, 60, 1001):
        assert_allclose(log10_p_f(x, df, residual), -stats.f.logsf(x, df, residual) / np.log(10), rtol=1e-9, atol=1e-12)


def test_p_values_far_below_the_smallest_number_are_those_of_closed_forms():
    # of 2 and 4 degrees of freedom: exp(-x/2), exp(-x/2) (1 + x/2); and (1+2F/d)^(-d/2)
    assert_allclose(log10_p_chi2(1e5, 2), 5e4 / np.log(10), rtol=1e-14)
    assert_allclose(log10_p_chi2(1e5, 4), (5e4 - np.log1p(5e4)) / np.log(10), rtol=1e-14)
    assert_allclose(log10_p_f(1e4, 2, 1e4), 5e3 * np.log10(3.0), rtol=1e-14)
    # 3 degrees of freedom: erfc(u) + 2 u exp(-u^2) / sqrt(pi), u^2 = x/2; erfc(u) is exp(-u^2) / (u sqrt(pi)) here
    u = np.sqrt(5e4)
    log_p = -5e4 + np.log(2 * u / np.sqrt(np.pi) + (1 - 0.5 / u**2) / (u * np.sqrt(np.pi)))
    assert_allclose(log10_p_chi2(1e5, 3), -log_p / np.log(10), rtol=1e-13)
    assert np.isnan(log10_p_f(np.nan, 3, 10)) and np.isinf(log10_p_chi2(np.inf, 2))

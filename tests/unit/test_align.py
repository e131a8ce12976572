"""The analysed samples and the checks of the null model's design."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpgls.errors import InputError, UsageError
from mpgls.study.align import align
from mpgls.study.design import Design
from mpgls.study.tables import Table

NAN = np.nan


def make_samples(n: int, phenotype: Any = None) -> Any:
    ids = [(f"f{k}", f"i{k}") for k in range(n)]
    values = np.arange(n, dtype=float) if phenotype is None else np.asarray(phenotype, dtype=float)
    return SimpleNamespace(
        path="a.fam",
        fid=np.array([f for f, _ in ids]),
        iid=np.array([i for _, i in ids]),
        phenotype=values,
        ids=lambda: list(ids),
    )


def make_table(path: str, numbers: list[int], names: tuple[str, ...], values: Any) -> Table:
    ids = [(f"f{k}", f"i{k}") for k in numbers]
    return Table(path, ids, names, np.asarray(values, dtype=float).reshape(len(ids), len(names)))


def test_genotypes_alone() -> None:
    y = [1, 2, NAN, 4, 9]
    cohort = align(make_samples(5, y), None, "pheno", None, None)
    np.testing.assert_array_equal(cohort.rows, [0, 1, 3, 4])
    assert cohort.rows.dtype == np.int64
    assert cohort.ids == [("f0", "i0"), ("f1", "i1"), ("f3", "i3"), ("f4", "i4")]
    np.testing.assert_array_equal(cohort.y, [-3, -2, 0, 5])
    assert (cohort.center, cohort.unit) == (4.0, 1.0)
    np.testing.assert_array_equal(cohort.X_L, np.full((4, 1), 0.5))
    assert cohort.covariate_names == ("intercept",)
    assert cohort.kinship_index.size == 0
    assert cohort.funnel == (("in the genotypes", 5), ("with a phenotype", 4))


def test_every_source_in_its_own_order() -> None:
    n = 13
    rng = np.random.default_rng(5)
    pheno_order = [int(k) for k in rng.permutation(n + 2) if k != 3]
    covar_order = [int(k) for k in rng.permutation(n) if k != 4]
    kin_order = [int(k) for k in rng.permutation(n + 4) if k != 5]
    phenotype = make_table(
        "p.txt",
        pheno_order,
        ("other", "bmi"),
        [[NAN, NAN if k == 6 else 10.0 * k**2] for k in pheno_order],
    )
    covariates = make_table("c.txt", covar_order, ("age", "sex"), [[k, NAN if k == 7 else k % 2] for k in covar_order])
    kinship = [(f"f{k}", f"i{k}") for k in kin_order]
    keep = [(f"f{k}", f"i{k}") for k in (*range(12), 99, 11)]
    remove = [("f0", "i0"), ("nobody", "here")]

    cohort = align(make_samples(n), phenotype, "bmi", covariates, kinship, iter(keep), iter(remove))

    expected = np.array([1, 2, 8, 9, 10, 11])
    np.testing.assert_array_equal(cohort.rows, expected)
    assert cohort.ids == [(f"f{k}", f"i{k}") for k in expected]
    y, C = 10.0 * expected**2, np.column_stack([np.ones(6), expected, expected % 2])
    np.testing.assert_allclose(cohort.y, y - y.mean())
    np.testing.assert_allclose(cohort.X_L @ (cohort.X_L.T @ C), C, atol=1e-13)
    np.testing.assert_allclose(cohort.X_L.T @ cohort.X_L, np.eye(3), atol=1e-13)
    assert cohort.X_L.flags.f_contiguous and cohort.y.flags.c_contiguous
    assert cohort.covariate_names == ("intercept", "age", "sex")
    assert [kinship[k] for k in cohort.kinship_index] == cohort.ids
    assert cohort.funnel == (
        ("in the genotypes", 13),
        ("after --keep", 12),
        ("after --remove", 11),
        ("in the phenotype table", 10),
        ("with a phenotype", 9),
        ("in the covariate table", 8),
        ("with all covariates", 7),
        ("in the kinship", 6),
    )


def foreign(prefix: str = "x") -> list[tuple[str, str]]:
    return [(f"{prefix}{k}", f"{prefix}{k}") for k in range(5)]


@pytest.mark.parametrize("source", ["phenotype", "covariates", "kinship", "keep"])
def test_no_common_samples_shows_three_of_each_side(source: str) -> None:
    table = Table("other.txt", foreign(), ("a",), np.arange(5.0)[:, None])
    given = {
        "phenotype": table if source == "phenotype" else None,
        "trait": "a",
        "covariates": table if source == "covariates" else None,
        "kinship_ids": foreign() if source == "kinship" else None,
        "keep": foreign() if source == "keep" else None,
    }
    with pytest.raises(InputError) as caught:
        align(make_samples(9), **given)
    message = str(caught.value)
    name = {"kinship": "the kinship", "keep": "the --keep list"}.get(source, "other.txt")
    assert f"the genotypes and {name} have no samples in common" in message
    assert "'f0 i0', 'f1 i1', 'f2 i2';" in message and "'x0 x0', 'x1 x1', 'x2 x2'" in message
    assert "x3" not in message and "f3" not in message and "FIDs differ" not in message


def test_no_common_samples_says_when_only_the_fids_differ() -> None:
    with pytest.raises(InputError, match="some IIDs agree, but their FIDs differ"):
        align(make_samples(9), None, "y", None, [("0", f"i{k}") for k in range(9)])


def test_samples_shared_only_outside_of_keep() -> None:
    keep = [("f0", "i0"), ("f1", "i1")]
    with pytest.raises(InputError, match="'f0 i0', 'f1 i1'; the kinship has 'f2 i2', 'f3 i3'"):
        align(make_samples(4), None, "y", None, [("f2", "i2"), ("f3", "i3")], keep=keep)


def test_lists_that_leave_nobody() -> None:
    samples = make_samples(4)
    with pytest.raises(InputError, match="no sample to analyse is left after --remove"):
        align(samples, None, "y", None, None, remove=samples.ids())
    with pytest.raises(InputError, match="the --keep list lists no samples"):
        align(samples, None, "y", None, None, keep=[])
    with pytest.raises(InputError, match="genotypes have no samples"):
        align(make_samples(0), None, "y", None, None)


def test_sample_twice_in_the_kinship() -> None:
    samples = make_samples(4)
    with pytest.raises(InputError, match=r"the kinship lists sample 'f1 i1' twice \(entries 2 and 5\)"):
        align(samples, None, "y", None, [*samples.ids(), ("f1", "i1")])


def test_missing_values_everywhere() -> None:
    with pytest.raises(InputError, match=r"misses trait 'pheno' of a\.fam"):
        align(make_samples(4, [NAN] * 4), None, "pheno", None, None)
    phenotype = make_table("p.txt", [0, 1], ("a",), [NAN, NAN])
    with pytest.raises(InputError, match=r"misses trait 'a' of p\.txt"):
        align(make_samples(4), phenotype, "a", None, None)
    covariates = make_table("c.txt", [0, 1], ("b", "c"), [[NAN, 1], [1, NAN]])
    with pytest.raises(InputError, match=r"all covariates of c\.txt \(b, c\)"):
        align(make_samples(4), None, "y", covariates, None)


def test_unknown_trait() -> None:
    phenotype = make_table("p.txt", [0, 1, 2, 3], ("a", "b"), np.ones((4, 2)))
    with pytest.raises(UsageError, match=r"p\.txt has no column 'c'; its columns are a, b"):
        align(make_samples(4), phenotype, "c", None, None)


def test_constant_trait_and_too_few_samples() -> None:
    with pytest.raises(InputError, match=r"trait 'y' is constant \(2\.5\) over the 4 analysed samples"):
        align(make_samples(5, [2.5, 2.5, 2.5, 2.5, NAN]), None, "y", None, None)
    with pytest.raises(InputError, match="2 samples are too few to test trait 'y' with 2 columns"):
        align(make_samples(2), None, "y", None, None)
    align(make_samples(3), None, "y", None, None)


def test_constant_only_among_the_analysed_samples() -> None:
    covariates = make_table(
        "c.txt", list(range(8)), ("sex", "age", "site"), [[k == 0, k, 3e9 + (k == 0)] for k in range(8)]
    )
    with pytest.raises(InputError, match="covariates 'sex' and 'site' are constant over the 7 analysed"):
        align(make_samples(8, [NAN, 1, 2, 5, 4, 3, 2, 1]), None, "y", covariates, None)


def design(**columns: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    n = len(next(iter(columns.values())))
    return np.column_stack([np.asarray(one).reshape(n) for one in columns.values()]), tuple(columns)


def test_design_names_the_combination() -> None:
    rng = np.random.default_rng(1)
    age, bmi = rng.uniform(20, 70, 101), rng.standard_normal(101)
    male = (rng.random(101) < 0.5).astype(float)
    with pytest.raises(InputError) as caught:
        Design.of(*design(age=age, bmi=bmi, male=male, female=1 - male, months=12 * age, mix=1e6 * age - bmi * 1e5))
    message = str(caught.value)
    assert "'female' is a linear combination of the intercept and 'male'" in message
    assert "'months' is a linear combination of 'age'" in message
    assert "'mix' is a linear combination of 'age' and 'bmi'" in message


@pytest.mark.parametrize("value", [0.0, 1.0, -3e-200, 0.1, 1e250])
def test_design_constant_at_any_scale(value: float) -> None:
    with pytest.raises(InputError, match="covariate 'c' is constant over the 11 analysed samples"):
        Design.of(*design(a=np.arange(11.0), c=np.full(11, value)))


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1.0, 1e12, 1e250])
def test_design_is_judged_apart_from_scale(scale: float) -> None:
    a = np.random.default_rng(2).standard_normal(57)
    noise = np.random.default_rng(3).standard_normal(57)
    Design.of(*design(a=a, b=scale * (a + 1e-7 * noise)))
    with pytest.raises(InputError, match="'b' is a linear combination of 'a'"):
        Design.of(*design(a=a, b=scale * (a + 1e-12 * noise)))


def test_design_with_large_offsets_is_accepted() -> None:
    year = 2000 + np.arange(31.0)
    Design.of(*design(year=year, year2=year**2, position=1e8 + np.random.default_rng(4).random(31)))


def test_many_samples_need_no_quadratic_work() -> None:
    """Quadratic work would take hours at this size, so the time need not be measured."""
    n = 200_001
    numbers = list(range(n - 1, -1, -1))
    phenotype = make_table("p.txt", numbers, ("a",), np.arange(n, dtype=float))
    cohort = align(make_samples(n), phenotype, "a", None, phenotype.ids[5:])
    assert cohort.rows.size == n - 5
    np.testing.assert_array_equal(cohort.kinship_index, np.arange(n - 6, -1, -1))

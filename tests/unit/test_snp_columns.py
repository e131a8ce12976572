"""The columns that a SNP has in the model: heterozygotes, products with covariates, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpgls.engine.scan_plan import ScanSizes, plan_scan
from mpgls.errors import InputError
from mpgls.run.plan import GIB, Machine
from mpgls.study.categories import Covariates
from mpgls.study.design import Design
from mpgls.study.genotypes import HAPLOID, ON_X, ON_Y, TWO_COPIES, Decoder
from mpgls.study.snp_columns import MOST_COLUMNS, SnpColumns, columns_of_all, heterozygotes

CODES = {2: 0, None: 1, 1: 2, 0: 3}


def packed_row(copies, kind=None):
    """A row of a .bed, four samples a byte, and the kind of its chromosome behind it."""
    codes = [CODES[x] for x in copies] + [0] * (-len(copies) % 4)
    row = [sum(code << 2 * k for k, code in enumerate(codes[start : start + 4])) for start in range(0, len(codes), 4)]
    return np.array([row + ([] if kind is None else [kind])], dtype=np.uint8)


def decoded(packed, n, males=None):
    """What is decoded without centring, NaN where missing."""
    out = np.empty((n, 1), order="F")
    Decoder(n, [np.arange(n)], np.float64, males).decode(packed, [out], shift=np.array([-1.0]))
    return np.where(out[:, 0] == 0, np.nan, out[:, 0] - 1)


def cohort(values, names, levels=None, interacting=()):
    """Of a cohort what columns are made of."""
    covariates = Covariates(values, names, levels or {}, tuple(interacting))
    return SimpleNamespace(covariates=covariates, rows=np.arange(len(values)), X_L=Design.of(*covariates.columns()).X_L)


@pytest.mark.parametrize("kind", [None, TWO_COPIES, ON_X])
def test_heterozygotes_of_hard_calls(kind):
    copies, males = [2, None, 1, 0, 1, 1, 0, None, 2], np.zeros(9, dtype=bool)
    made = heterozygotes(packed_row(copies, kind), 9)
    expected = [0, np.nan, 1, 0, 1, 1, 0, np.nan, 0]
    assert_array_equal(decoded(made, 9, None if kind is None else males), expected)
    assert kind is None or made[0, -1] == kind


@pytest.mark.parametrize("kind", [ON_Y, HAPLOID])
def test_whoever_has_one_copy_is_no_heterozygote(kind):
    copies, males = [1, None, 1, 0, 1], np.ones(5, dtype=bool)
    assert_array_equal(decoded(heterozygotes(packed_row(copies, kind), 5), 5, males), [0, np.nan, 0, 0, 0])
    x = np.array([[1.0, -9.0, 0.5, 0.0, 1.0, kind]], dtype=np.float32)
    assert_array_equal(decoded(heterozygotes(x.view(np.uint8), 5), 5, males), [0, np.nan, 0, 0, 0])


def test_heterozygotes_of_dosages_lie_on_a_tent():
    x = np.array([[0.0, 0.25, 1.0, 1.5, 2.0, -9.0]], dtype=np.float32)
    assert_array_equal(decoded(heterozygotes(x.view(np.uint8), 6), 6), [0, 0.25, 1, 0.5, 0, np.nan])


def test_products_are_side_by_side_and_span_those_of_the_users_columns():
    rng = np.random.default_rng(1)
    n, E = 24, np.column_stack([rng.normal(1e4, 1, 24), np.repeat([0.0, 1.0, 2.0], 8)])
    columns = SnpColumns.of(cohort(E, ("year", "site"), {"site": ("a", "b", "c")}, ["site", "year"]), True)
    assert columns.names[:4] == ("SNP", "DOMDEV", "SNPxsite=b", "DOMDEVxsite=b")
    assert columns.names[-2:] == ("SNPxyear", "DOMDEVxyear") and columns.count == 8
    packed = np.vstack([packed_row(rng.integers(0, 3, n).tolist()) for _ in range(2)])
    X = np.empty((n, 16), order="F")
    Decoder(n, [np.arange(n)], np.float64).decode(columns.sources(packed, n), [X])
    x, het = X[:, 8].copy(), X[:, 9].copy()
    columns.multiply(X, np.arange(n))
    assert_array_equal(X[:, 8:10], np.column_stack([x, het]))
    # X T^-1: the user's columns
    b, year = (E[:, 1] == 1).astype(float), E[:, 0]
    users = X[:, 8:] @ np.linalg.inv(columns.model.T)
    assert_allclose(users[:, [0, 2, 7]], np.column_stack([x, x * b, het * year]), atol=1e-7)
    assert np.abs(X).max() < 10  # whatever the unit of year
    assert columns.model.interactions.tolist() == [False] * 2 + [True] * 6


def test_a_plain_snp_has_one_column():
    columns, packed = SnpColumns.of(cohort(np.empty((5, 0)), ()), False), packed_row([0, 1, 2, 1, 0])
    assert columns.count == 1 and columns.model is None and columns.sources(packed, 5) is packed


def test_traits_with_other_levels_too_many_columns_and_too_few_samples_are_refused():
    three = cohort(np.tile([0.0, 1.0, 2.0], 8)[:, None], ("site",), {"site": ("a", "b", "c")}, ["site"])
    two = cohort(np.tile([0.0, 2.0], 12)[:, None], ("site",), {"site": ("a", "b", "c")}, ["site"])

    def make(one):
        return SnpColumns.of(one, False)

    assert columns_of_all({"x": three, "y": three}, make).count == 3
    with pytest.raises(InputError, match="the samples of 'x' and 'y' have other levels of a category"):
        columns_of_all({"x": three, "y": two}, make)
    numbers = np.random.default_rng(2).normal(size=(200, MOST_COLUMNS))
    names = [f"e{k}" for k in range(MOST_COLUMNS)]
    many = cohort(numbers, names, interacting=names)
    with pytest.raises(InputError, match=f"makes {MOST_COLUMNS + 1} columns of each SNP, and {MOST_COLUMNS} are"):
        make(many)
    few = cohort(numbers[:8, :3], names[:3], interacting=names[:3])
    with pytest.raises(
        InputError, match="8 samples are too few to test trait 't' with 4 covariates and 4 columns a SNP"
    ):
        columns_of_all({"t": few}, make)


def test_a_block_is_as_wide_as_its_columns():
    sizes = {"n": 4_000, "m": 100_000, "columns": 5, "snp_bytes": 1_000, "item": 8}
    machine = Machine(1, 1, None, GIB // 10)
    one, four = (plan_scan(machine, ScanSizes(**sizes, tested=k), block=256).stages["scan"] for k in (1, 4))
    assert 3 * 256 * 4_000 * 8 <= four - one <= 3 * 256 * 4_000 * 8 + (40 << 20)


def test_a_sample_that_a_column_sets_apart_is_refused_because_its_products_say_nothing():
    one = cohort(np.r_[0.0, 0, 0, 0, 1, 1, 2][:, None], ("site",), {"site": ("a", "b", "c")}, ["site"])
    with pytest.raises(InputError, match=r"one sample of 't' differs from all others in 'site=c', so no product"):
        columns_of_all({"t": one}, lambda one: SnpColumns.of(one, False))
    number = cohort(np.r_[5.0, 5, 5, 7, 5, 5][:, None], ("dose",), {}, ["dose"])
    with pytest.raises(InputError, match="one sample of 't' differs from all others in 'dose'"):
        columns_of_all({"t": number}, lambda one: SnpColumns.of(one, False))


def test_traits_whose_samples_have_another_base_are_told_so():
    sex = {"sex": ("1", "2")}
    more_1, more_2 = (cohort(np.r_[0.0, 0, 0, 1, 1, 1, value][:, None], ("sex",), sex, ["sex"]) for value in (0, 1))
    with pytest.raises(
        InputError, match=r"or another base, the level of most samples: SNP, SNPxsex=2 and SNP, SNPxsex=1"
    ):
        columns_of_all({"x": more_1, "y": more_2}, lambda one: SnpColumns.of(one, False))


@pytest.mark.parametrize("unit", [1e-160, 1e160])
def test_a_covariate_in_a_unit_whose_squares_are_no_numbers_is_refused(unit):
    far = cohort(np.arange(9.0)[:, None] * unit, ("dose",), {}, ["dose"])
    with pytest.raises(InputError, match=r"covariate 'dose' goes from 0 to .*, give it in another unit"):
        columns_of_all({"t": far}, lambda one: SnpColumns.of(one, False))

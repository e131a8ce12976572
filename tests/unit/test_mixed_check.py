"""The check of mixed precision speaks in standard errors and warns where a conclusion might change."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.engine.mixed_check import compare
from mpgls.errors import NumericalError
from mpgls.model.gls import Note, SnpFit


class Heard:
    """A log that remembers what it was told."""

    def __init__(self):
        self.said, self.warned = [], []

    def info(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)


def fit(beta, se, note=Note.OK):
    return SnpFit(np.array(beta), np.array(se), np.full(len(beta), note, dtype=np.uint8))


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_figures_do_not_depend_on_the_unit_of_the_trait(unit):
    log = Heard()
    double, mixed = (
        fit([3.0 * unit, 1.0 * unit], [0.5 * unit, 2.0 * unit]),
        fit([3.001 * unit, 1.002 * unit], [0.5 * unit, 2.002 * unit]),
    )
    found = compare(mixed, double, log)
    assert found.mixed_check_beta == pytest.approx(0.002) and found.mixed_check_se == pytest.approx(0.001)
    assert len(log.said) == 1 and "2.0e-03 standard errors, SE by a share of 1.0e-03" in log.said[0] and not log.warned


@pytest.mark.parametrize(("beta", "se"), [(1.011, 0.5), (1.0, 0.506)])
def test_a_hundredth_of_a_standard_error_is_warned_of(beta, se):
    log = Heard()
    compare(fit([beta], [se]), fit([1.0], [0.5]), log)
    assert len(log.warned) == 1 and log.warned[0].endswith("use --precision double") and not log.said


def test_numbers_that_are_all_rounding_are_refused():
    with pytest.raises(NumericalError, match=r"by at most 1\.1e\+00 standard errors.*needs --precision double"):
        compare(fit([1.55], [0.5]), fit([1.0], [0.5]), Heard())


def test_snps_without_an_estimate_or_an_error_do_not_count():
    log = Heard()
    double, mixed = fit([np.nan, 3.0], [np.nan, 0.0]), fit([np.nan, 3.0000001], [np.nan, 1e-5])
    double.note[0] = mixed.note[0] = Note.MONOMORPHIC
    found = compare(mixed, double, log)
    assert found.mixed_check_beta == found.mixed_check_se == 0.0 and not log.warned

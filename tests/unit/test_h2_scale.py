"""Which h2 of a user leave V = h2 Phi + (1-h2) I positive definite, and which model an error is about."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.errors import InputError, NumericalError, about
from mpgls.model.h2_scale import check_given


def test_a_given_h2_must_leave_every_eigenvalue_of_V_positive():
    """h2 lam + 1 - h2 = 0 at h2 = 1 / (1 - lam): 0.8 for lam = -0.25."""
    lam = np.array([-0.25, 0.5, 2.0])
    check_given(np.array([0.0, np.nan, 0.79]), lam)
    check_given(np.full(3, np.nan), lam)
    check_given(np.array(0.999), np.abs(lam))
    for h2 in ([np.nan, 0.1, 0.9], 0.9):
        with pytest.raises(NumericalError, match=r"at h2 = 0\.9, .* has the eigenvalue -0\.125$"):
            check_given(np.array(h2), lam)


def test_a_numerical_error_says_which_model_it_is_about():
    with pytest.raises(NumericalError, match=r"^trait1, chromosome 4: no factor$"), about("trait1, chromosome 4"):
        raise NumericalError("no factor")
    with pytest.raises(InputError, match=r"^line 3$"), about("trait1"):
        raise InputError("line 3")

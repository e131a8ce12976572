"""Names, ranges, numbered names and patterns of columns."""

from __future__ import annotations

import pytest

from mpgls.errors import UsageError
from mpgls.study.column_names import select_names

NAMES = ("age", "PC1", "PC2", "PC10", "IL-2", "PC01", "x.y", "a*", "sex")


@pytest.mark.parametrize(
    ("wanted", "positions"),
    [
        (["PC1-PC10"], [1, 2, 3]),
        (["PC1:PC10"], [1, 2, 3]),
        (["IL-2"], [4]),
        (["PC10-IL-2"], [3, 4]),
        (["IL-2-x.y"], [4, 5, 6]),
        (["PC{1:2}"], [1, 2]),
        (["PC{2:2},PC{10:10}"], [2, 3]),
        (["PC{01:01}"], [5]),
        (["PC*"], [1, 2, 3, 5]),
        (["PC?"], [1, 2]),
        (["?.y"], [6]),
        (["x?y", "s*"], [6, 8]),
        (["a*"], [7]),  # a name goes before a pattern
        (["PC10", "PC*"], [3, 1, 2, 5]),
        (["PC*,PC1,age"], [1, 2, 3, 5, 0]),
        (["*"], list(range(9))),
        (["2-3", "age"], [1, 2, 0]),
    ],
)
def test_what_is_meant(wanted, positions):
    assert select_names(NAMES, wanted) == positions


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (["PC{1:3}"], r"c.tsv has no covariate 'PC3'; its covariates are age"),
        (["PC{2:1}"], r"PC{2:1} runs backwards"),
        (["PC10-PC1"], r"'PC10-PC1': covariate 'PC1' comes before 'PC10' in c.tsv"),
        (["BMI*"], r"c.tsv has no covariate that 'BMI\*' matches"),
        (["PC1-PC2", "PC2"], "covariate 'PC2' of c.tsv is asked for twice"),
        (["x?z"], "no covariate that 'x.z' matches"),
    ],
)
def test_what_is_not_there(wanted, complaint):
    with pytest.raises(UsageError, match=complaint):
        select_names(NAMES, wanted, "c.tsv", "covariate")

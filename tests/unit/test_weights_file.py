"""A file of weights as `score` reads it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mpgls.errors import InputError
from mpgls.study.weights_file import COLUMNS, read_weights


def test_a_trait_may_be_called_as_a_column_before_it_but_as_no_other_trait(tmp_path):
    path = tmp_path / "w.tsv"

    def write(*traits):
        rows = ["1 100 rs1 A C 0.25 0.5 0.125 2", "1 200 rs2 G T 0.5 1 -1 3"]
        path.write_text("\n".join([" ".join([*COLUMNS, *traits]), *rows, ""]))

    write("MEAN", "POS")
    found = read_weights(path)
    assert found.names == ("MEAN", "POS")
    assert_array_equal(found.mean, [0.5, 1])
    assert_array_equal(found.values, [[0.125, 2], [-1, 3]])
    write("MEAN", "MEAN")
    with pytest.raises(InputError, match="the header names column 'MEAN' twice"):
        read_weights(path)
    assert np.array_equal(found.variants.pos, [100, 200])

"""Labels of samples: from a table, and from families."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.errors import InputError
from mpgls.model.folds import nested_folds
from mpgls.model.permute import permutation
from mpgls.study.sample_labels import family_note, sample_groups, sample_labels

IDS = [("F1", "a"), ("F2", "b"), ("F1", "c"), ("0", "d"), ("0", "e")]


def together(labels: np.ndarray) -> list[list[bool]]:
    return np.equal.outer(labels, labels).tolist()


def test_labels_of_a_table(tmp_path):
    path = tmp_path / "sites.txt"
    path.write_text(
        "#FID\tIID\tSITE\tx\nF2\tb\tsite A\t1\nF1\tc\tsite B\t2\n0\td\tsite A\t\n0\te\t3\t\nF1\ta\tsite B\t\n"
    )
    labels = sample_labels(path, IDS)
    assert labels.dtype == np.int64
    assert together(labels) == together(np.array(["B", "A", "B", "A", "3"]))
    np.testing.assert_array_equal(sample_groups(path, IDS), labels)
    assert family_note(path, IDS, alone=True) is None


def test_a_table_without_fid(tmp_path):
    path = tmp_path / "sites.txt"
    path.write_text("IID SITE\n" + "".join(f"{iid} {iid in 'ab'}\n" for _, iid in IDS))
    assert together(sample_labels(path, IDS)) == together(np.array([1, 1, 0, 0, 0]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("F1 a x\n", "line 1: expected a header 'FID IID NAME'"),
        ("FID IID\nF1 a\n", "no column besides FID and IID"),
        ("FID IID S\nF1 a x\nF1 a y\n", "line 3: sample 'F1 a' has two labels"),
        ("FID IID S\nF1 a x\nF1 a x\n", "no label for 4 of 5 analysed samples, such as 'F2 b'"),
        ("FID IID S\n" + "".join(f"{f} {i} NA\n" for f, i in IDS), "no label for 5 of 5"),
        ("FID\tIID\tS\nF1\ta\t\n", "no label for 5 of 5"),
        ("FID IID S\nF1 a x\nF2 b\n", "line 3: 2 fields"),
    ],
)
def test_malformed_labels(tmp_path, text, message):
    path = tmp_path / "sites.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        sample_labels(path, IDS)


def test_fid_0_is_no_family():
    groups = sample_groups("fid", IDS)
    assert together(groups) == together(np.array([1, 2, 1, 3, 4]))
    note = family_note("fid", IDS, alone=True)
    assert note == "2 of 5 samples have FID 0, which is no family: each is a group of its own"
    assert family_note("fid", IDS[:3], alone=True) is None


def test_an_iid_that_reads_as_a_family_is_none():
    assert together(sample_groups("fid", [("F1", "a"), ("0", "F1"), ("F1", "b")])) == together(np.array([1, 2, 1]))


def test_fid_0_for_everybody_can_be_dealt_to_folds_and_permuted():
    """PLINK 2 and VCF files give everybody FID 0: as one family they could be neither."""
    ids = [("0", f"i{k}") for k in range(30)]
    folds = nested_folds(30, 3, 2, 1, sample_groups("fid", ids))
    assert sorted(fold.test.size for fold in folds.outer) == [10, 10, 10]
    blocks = sample_labels("fid", ids)
    np.testing.assert_array_equal(permutation(5, 1, 30, blocks), permutation(5, 1, 30))

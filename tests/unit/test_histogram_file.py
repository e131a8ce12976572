from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from mpgls.errors import StorageError
from mpgls.model.histograms import Bins, Statistic
from mpgls.stream.histogram_file import Histograms

NAMES = [f"trait{k}" for k in range(6)]


def counts_of(traits, bins):
    """Counts that tell which trait and bin they belong to."""
    return (1000 * np.asarray(traits)[:, None] + np.arange(bins.count) % 7).astype(np.uint32)


def test_parts_of_equal_degrees_of_freedom_are_joined(tmp_path):
    large, small = (Bins(Statistic.of(n, 3, "t")) for n in (120, 77))
    file = Histograms(tmp_path / "o.h5")
    for traits, bins in (([4, 1], large), ([0], small), ([5, 2, 3], large)):
        file.add([NAMES[k] for k in traits], counts_of(traits, bins), bins)
    assert not (tmp_path / "o.h5").exists()
    file.finish()
    with h5py.File(tmp_path / "o.h5") as stored:
        assert sorted(stored) == ["df_116", "df_73"]
        for name, traits, bins in (("df_116", [4, 1, 5, 2, 3], large), ("df_73", [0], small)):
            group = stored[name]
            assert group["traits"].asstr()[...].tolist() == [NAMES[k] for k in traits]
            np.testing.assert_array_equal(group["counts"][...], counts_of(traits, bins))
            assert (group.attrs["df"], group.attrs["test"]) == (bins.statistic.df, "t")
            edges = group["edges"][...]
            assert edges.size == bins.count + 1 and edges[0] == 0 and (np.diff(edges) > 0).all()
            np.testing.assert_array_equal(edges, bins.statistic.log10_p(bins.edges()))
    assert [(bins, counts.shape[0]) for bins, counts in file.groups()] == [(large, 5), (small, 1)]
    assert not list(tmp_path.glob("*.partial"))


def test_equal_bins_of_two_objects_are_one_group(tmp_path):
    file = Histograms(tmp_path / "o.h5")
    for trait in (3, 0):
        bins = Bins(Statistic.of(50, 2, "wald"))
        file.add([NAMES[trait]], counts_of([trait], bins), bins)
    file.finish()
    (group,) = file.groups()
    np.testing.assert_array_equal(group[1], counts_of([3, 0], group[0]))


def test_a_resumed_run_overwrites_what_its_state_does_not_know(tmp_path):
    bins = Bins(Statistic.of(50, 2, "t"))
    file = Histograms(tmp_path / "o.h5")
    file.add(NAMES[:2], counts_of([0, 1], bins), bins)
    state = json.dumps(file.facts())
    file.add(NAMES[2:5], counts_of([2, 3, 4], bins), bins)  # and then the run was killed
    resumed = Histograms.of_facts(tmp_path / "o.h5", json.loads(state))
    resumed.add(NAMES[2:4], counts_of([2, 3], bins), bins)
    resumed.finish()
    ((_, counts),) = resumed.groups()
    np.testing.assert_array_equal(counts, counts_of([0, 1, 2, 3], bins))


def test_nothing_to_keep(tmp_path):
    file = Histograms(tmp_path / "o.h5")
    file.finish()
    assert file.groups() == [] and not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written(tmp_path):
    bins = Bins(Statistic.of(50, 2, "t"))
    with pytest.raises(StorageError, match="cannot write"):
        Histograms(tmp_path / "nowhere" / "o.h5").add(NAMES[:1], counts_of([0], bins), bins)

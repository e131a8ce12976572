"""``mpgls ridge --device gpu`` on a stand-in for CuPy gives the tables of the ranks."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import strict_lanes
from ranks import few_ranks
from small_study import SimulatedStudy, read_columns, read_plink
from strict_card import StrictCard

import mpgls
from mpgls.device import cuda
from mpgls.engine import kernel_on_card, permutation_tiles
from mpgls.errors import MemoryPlanError

pytestmark = few_ranks

N, M, T, P = 61, 75, 3, 5


@pytest.fixture(scope="module")
def files(module_comm, module_folder):
    prefix = str(module_folder / "g")
    mpgls.simulate(out=prefix, comm=module_comm, samples=N, snps=M, traits=T, missing=0.04, seed=6)
    return SimulatedStudy(module_folder, prefix, f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", read_plink(prefix))


@pytest.fixture(autouse=True)
def card(monkeypatch):
    """Every rank has a "GPU" that forgives no more than CuPy; tiles are small."""
    strict_lanes.begin_anew()
    monkeypatch.setattr(cuda, "open_card", lambda rank, size, limit: StrictCard(limit or 2**40))
    monkeypatch.setattr(kernel_on_card.KernelTilesOnCard, "edge", 24)
    monkeypatch.setattr(permutation_tiles, "WIDTH", 7)


def predict(comm, files, out, **options):
    """Run the command; returns its prefix."""
    usual = {"alphas": (0.3, 5.0), "permutations": P, "outer_folds": 4, "inner_folds": 3, "save_predictions": True}
    usual |= {"bfile": files.bfile, "pheno": files.pheno, "covar": files.covar, "no_plots": True, "threads": 1}
    prefix = files.folder / out
    mpgls.ridge(out=prefix, comm=comm, **usual | options)
    comm.Barrier()
    return prefix


def assert_same(prefix, other, tolerance):
    """Numbers of both tables, and the predictions."""
    for suffix in ("targets", "null"):
        found, expected = (read_columns(f"{one}.{suffix}.tsv") for one in (prefix, other))
        assert list(found) == list(expected)
        for name in expected:
            try:
                numbers = [np.array(one[name], dtype=float) for one in (found, expected)]
            except ValueError:
                assert found[name] == expected[name]
                continue
            np.testing.assert_allclose(*numbers, rtol=0, atol=tolerance, err_msg=name)
    with h5py.File(f"{prefix}.predictions.h5") as mine, h5py.File(f"{other}.predictions.h5") as theirs:
        for name in theirs:
            if theirs[name].dtype.kind == "f":
                np.testing.assert_allclose(mine[name][...], theirs[name][...], rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 1e-9),
        ({"standardize": "fold", "permutations": 1, "covar": None}, 1e-9),
        ({"precision": "mixed", "alpha_choice": "shared"}, 1e-3),
    ],
    ids=["double", "fold", "mixed"],
)
def test_tables_are_those_of_the_ranks(comm, files, options, tolerance):
    on_card, on_ranks = (predict(comm, files, device, device=device, **options) for device in ("gpu", "cpu"))
    if comm.rank == 0:
        assert_same(on_card, on_ranks, tolerance)
        log = Path(f"{on_card}.log").read_text()
        assert "plan: at most 0.00 GiB of a GPU (operators 0.00, targets 0.00, folds 0.00, work 0.00)" in log


def test_penalties_in_turn_on_a_card_that_holds_one(comm, files):
    limit = {"gpu_memory": 420_000 / 2**30}
    on_card, on_ranks = predict(comm, files, "one", device="gpu", **limit), predict(comm, files, "cpu")
    if comm.rank == 0:
        assert_same(on_card, on_ranks, 1e-9)
        assert "plan: 1 of 2 penalties at a time" in Path(f"{on_card}.log").read_text()


@pytest.mark.parametrize(
    ("gib", "sentence"),
    [
        (1e-5, r"the kernel needs 0.00 GiB of each of \d GPUs, .*: use about"),
        (1e-4, r"operators of a penalty needs 0.00 GiB of each GPU, .*--precision mixed"),
    ],
)
def test_what_has_no_room(comm, files, gib, sentence):
    with pytest.raises(MemoryPlanError, match=sentence):
        predict(comm, files, "no", device="gpu", gpu_memory=gib)

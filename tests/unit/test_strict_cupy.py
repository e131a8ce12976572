"""What the code asks of CuPy is there, and what stands in for CuPy in tests refuses what CuPy refuses."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import strict_cupy as xp
import strict_lanes
import test_gpu
from strict_card import StrictCard

from mpgls.device import triangle
from mpgls.device.card import COPIES, PRODUCTS

SOURCE = Path(__file__).resolve().parents[2] / "mpgls"
MODULES = {"cuda", "linalg"}


@pytest.fixture(autouse=True)
def no_history():
    strict_lanes.begin_anew()


def asked_of_xp(path):
    """The names in ``xp.NAME`` and ``one.xp.NAME`` of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            of = node.value
            if (isinstance(of, ast.Name) and of.id == "xp") or (isinstance(of, ast.Attribute) and of.attr == "xp"):
                yield node.attr


def test_cupy_has_what_the_code_asks_of_it():
    files = [path for path in SOURCE.rglob("*.py") if "xp." in path.read_text()]
    asked = {name for path in files for name in asked_of_xp(path)}
    assert {"zeros", "asarray", "cuda"} <= asked
    assert asked - MODULES - set(xp.NAMES["cupy"]) == set()


@pytest.fixture
def arrays():
    return xp.asarray(np.arange(12.0).reshape(3, 4)), np.ones((3, 4))


@pytest.mark.parametrize(
    "action",
    [
        lambda a, host: a + host,
        lambda a, host: host * a,
        lambda a, host: a.__iadd__(host),
        lambda a, host: xp.multiply(a, host),
        lambda a, host: xp.stack([a, host]),
        lambda a, host: np.asarray(a),
        lambda a, host: np.add(host, a),
        lambda a, host: np.where(a > 1, host, a),
        lambda a, host: a @ host.T,
        lambda a, host: a.set(host.astype(np.float32)),
        lambda a, host: range(a.sum()),
        lambda a, host: xp.ascontiguousarray(host),
        lambda a, host: xp.sum(a, where=True),
        lambda a, host: a.max(initial=0.0),
    ],
)
def test_what_cupy_refuses_by_type(arrays, action):
    with pytest.raises(TypeError):
        action(*arrays)


@pytest.mark.parametrize(
    "action, error",
    [
        (lambda a, host: a.__setitem__(..., host), ValueError),
        (lambda a, host: a.__setitem__([0, 0], a[:2]), ValueError),
        (lambda a, host: a[:, :3].set(host[:, :3]), RuntimeError),
        (lambda a, host: a.get(out=host[::2]), ValueError),
        (lambda a, host: a[:, :2].get(out=host[:, ::2]), RuntimeError),
        (lambda a, host: xp.asarray(host.astype(np.longdouble)), ValueError),
        (lambda a, host: xp.lexsort2, AttributeError),
        (lambda a, host: xp.cuda, AttributeError),
        (lambda a, host: a.newbyteorder, AttributeError),
    ],
)
def test_what_cupy_refuses_otherwise(arrays, action, error):
    with pytest.raises(error):
        action(*arrays)


def test_what_cupy_does_is_done(arrays):
    a, host = arrays
    b = a * np.float64(2) + 1
    assert isinstance(b, xp.ndarray) and np.array_equal(b.get(), 2 * np.arange(12.0).reshape(3, 4) + 1)
    assert np.array_equal((np.float64(2) * a)[np.array([0, 2])].get(), 2 * a.get()[[0, 2]])
    assert isinstance(a.sum(), xp.ndarray) and float(a.sum()) == 66.0 and bool((a >= 0).all())
    a[:, 1:3] = 0.0
    a[xp.asarray([0, 2])] += a[1:2]
    assert np.array_equal(a.get(), [[4, 0, 0, 10], [4, 0, 0, 7], [12, 0, 0, 18]])
    on_card = xp.asarray(host)
    host[:] = 7.0
    assert np.array_equal(on_card.get(), np.ones((3, 4)))
    eights = xp.full((1, 4), 8, dtype=np.int8)
    assert (eights @ eights.T).dtype == np.int8 and int((eights @ eights.T)[0, 0]) == 0  # 256 wraps around
    assert np.isnan(xp.linalg.cholesky(-xp.ones((1, 1))).get()).all()


def test_lanes_that_do_not_wait_for_each_other_are_noticed():
    card = StrictCard()
    with card.lane(COPIES):
        a = xp.zeros(4)
        copied = card.mark()
    with card.lane(PRODUCTS):
        with pytest.raises(strict_lanes.Race, match="products reads memory that the lane copies may not"):
            a.sum()
        card.follow(copied)
        a += 1
        added = card.mark()
    with card.lane(COPIES), pytest.raises(strict_lanes.Race, match="copies writes memory"):
        a[...] = 0.0
    card.wait(added)
    with card.lane(COPIES):
        a[...] = 0.0


def test_memory_that_is_used_elsewhere_is_not_given_out_again():
    card = StrictCard()
    with card.lane(COPIES):
        a = xp.zeros(4)
        copied = card.mark()
    with card.lane(PRODUCTS):
        card.follow(copied)
        a.sum()
    del a
    with card.lane(COPIES), pytest.raises(strict_lanes.Race, match="copies gets memory again"):
        xp.zeros(4)


def test_memory_of_the_host_is_left_alone_while_it_is_copied():
    card, host = StrictCard(), np.ones(4)
    with card.lane(COPIES):
        a = xp.zeros(4)
        card.copy_in(host, a)
        host[0] = 2.0
        with pytest.raises(strict_lanes.Race, match="memory of the host was changed"):
            card.settle()
    with card.lane(COPIES):
        card.copy_out(a, host)
        assert np.isnan(host).all()  # not there yet
        card.wait(card.mark())
    assert np.array_equal(host, np.ones(4))


def test_additions_to_one_place_are_atomic_and_of_the_types_that_a_gpu_adds_so():
    places, one = xp.asarray(np.array([2, 0, 2])), xp.ones(1, dtype=np.uint32)
    counts = xp.zeros((2, 2), dtype=np.uint32)
    xp.add.at(counts.reshape(-1), places, one)
    assert counts.get().tolist() == [[1, 0], [2, 0]] and float(xp.add(one, one)[0]) == 2.0
    with pytest.raises(TypeError, match="int64"):
        xp.add.at(xp.zeros(4, dtype=np.int64), places, one)
    with pytest.raises(TypeError, match="Unsupported"):
        xp.add.at(counts.reshape(-1), np.array([1]), one)


def test_what_is_tested_on_a_card_goes_well_without_one(monkeypatch):
    """Of tests/unit/test_gpu.py: that it asks nothing that CuPy refuses."""
    monkeypatch.setattr(test_gpu, "N", 300)
    card = StrictCard()
    test_gpu.test_an_operator_gives_what_numpy_gives(card, "mixed", 2**17)
    test_gpu.test_samples_in_any_order_are_decoded_as_numpy_does(card, "exact")
    test_gpu.test_sums_of_people_of_odd_numbers_are_exact(card)
    monkeypatch.setattr(triangle, "WIDTH", 64)
    test_gpu.test_a_factor_and_its_inverse_are_those_of_numpy(card, np.float64, 1e-11)
    test_gpu.test_a_matrix_without_a_factor_is_noticed(card)

"""The watch over ranks that do not get on: what counts as getting on, and what is said of whom."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mpgls.run import watch
from mpgls.run.clock import Clock
from mpgls.run.watch import SLOT, SLOWEST, TICKS, Others, Pulse, Sign, Watch

NEEDED = TICKS - 2


@pytest.fixture
def world(monkeypatch):
    """A rank of two that does nothing and moves no bytes."""
    monkeypatch.setattr(watch, "_bytes_moved", lambda: 0)
    return SimpleNamespace(clock=Clock(), stop=SimpleNamespace(looks=0), size=2, rank=0)


def pulse_after(world, ticks: int, seconds: float = 30.0) -> Pulse:
    pulse = Pulse(world, seconds, threading.get_ident())
    for _ in range(1 + ticks):
        pulse.count()
    return pulse


def test_a_rank_gets_on_when_a_phase_changes_or_it_looks_at_the_stop_signal(world):
    pulse = pulse_after(world, 3)
    assert pulse.quiet == 3
    world.stop.looks += 1
    pulse.count()
    assert pulse.quiet == 0
    with world.clock.phase("solve"):
        pulse.count()
        assert pulse.quiet == 0 and pulse.sign().phase == "solve"
        pulse.count()
        assert pulse.quiet == 1
    pulse.count()
    assert pulse.quiet == 0


def test_a_rank_gets_on_when_it_moves_bytes(world, monkeypatch):
    pulse = pulse_after(world, 3)
    for moved, quiet in ((watch.MOVED + 2 * SLOT, 4), (2 * watch.MOVED + 4 * SLOT + 1, 0)):
        monkeypatch.setattr(watch, "_bytes_moved", lambda moved=moved: moved)
        pulse.count()
        assert pulse.quiet == quiet


def test_the_processor_counts_for_what_a_rank_does_alone_only(world):
    def work() -> None:
        A = np.ones((300, 300))
        for _ in range(30):
            A = A @ A * 1e-3

    pulse = pulse_after(world, 3)
    work()
    pulse.count()
    assert pulse.quiet == 4
    with world.clock.alone():
        pulse.count()
        work()
        pulse.count()
        assert pulse.quiet == 0


def test_a_phase_may_take_what_its_operations_take_at_the_slowest(world):
    with world.clock.phase("factorise", flop=40 * 30.0 * SLOWEST):
        assert pulse_after(world, 40).sign().quiet == 0.0
        assert pulse_after(world, 45).sign().quiet == 5.0


def heard(signs: list[list[Sign]]) -> Others:
    others = Others([Sign()] * len(signs[0]))
    for now in signs:
        others.hear(now)
    return others


def test_ranks_that_wait_for_one_that_gets_on_are_left_alone():
    signs = [[Sign(k, float(k), 5.0, "a", "read"), Sign(k, 0.0, 1.0, "b", "report")] for k in range(100)]
    assert heard(signs).verdict(NEEDED) is None


def test_where_none_gets_on_the_first_that_stood_still_is_named():
    signs = [[Sign(k, float(k), 5.0, "a", "read"), Sign(k, float(k), 4.5, "b", "solve")] for k in range(NEEDED + 1)]
    assert heard(signs[:-1]).verdict(NEEDED) is None
    assert heard(signs).verdict(NEEDED) == "no rank has got on: rank 1 on b (in 'solve') was the first to stand still"


def test_a_rank_that_tells_nothing_is_named_though_others_get_on():
    signs = [[Sign(k, 0.0, 0.0, "a", "solve"), Sign(min(k, 2), 0.0, 0.0, "b", "read")] for k in range(NEEDED + 3)]
    assert heard(signs[:-1]).verdict(NEEDED) is None
    assert heard(signs).verdict(NEEDED) == "nothing was heard of rank 1 on b"


def test_ranks_tell_in_slots_of_their_own(world, tmp_path: Path):
    path = tmp_path / "o.watch"
    path.write_bytes(b" " * SLOT * 2)
    mine = Watch(world, path, 20.0, lambda _: None)
    assert [sign.tick for sign in mine.listen()] == [-1, -1]
    world.rank = 1
    mine.pulse.count()
    mine.tell()
    signs = mine.listen()
    assert [sign.tick for sign in signs] == [-1, 1] and signs[1] == mine.pulse.sign()
    assert path.stat().st_size == 2 * SLOT

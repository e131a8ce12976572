"""Which bindings of ranks to processors ``mpgls doctor`` complains of."""

from __future__ import annotations

import re

import pytest

from mpgls.run.placement import Place, binding_notes, own_processors, places

ONE_SOCKET = {k: Place(0, k) for k in range(4)}
TWO_SOCKETS = {k: Place(k // 4, k % 4) for k in range(8)}
HYPERTHREADS = {k: Place(0, k % 4) for k in range(8)}  # processor k + 4 is on the core of k


def bound(*sets):
    return {rank: frozenset(one) for rank, one in enumerate(sets)}


@pytest.mark.parametrize(
    ("ranks", "threads", "node", "expected"),
    [
        (bound(range(4), range(4)), 1, ONE_SOCKET, []),  # not bound
        (bound(range(4), range(4), range(4), range(4), range(4)), 1, ONE_SOCKET, []),  # too many, but not by binding
        (bound({0}, {1}), 1, ONE_SOCKET, []),
        (bound({0}, {0}), 1, ONE_SOCKET, ["ranks 0, 1 .* the same 1 core .processors 0., which 2 threads"]),
        (bound({0}, {0}, {1, 2, 3}), 1, ONE_SOCKET, ["ranks 0, 1 .* 1 core"]),
        (bound({1}, {0, 1}, {0, 1}, {3}), 1, ONE_SOCKET, ["ranks 0, 1, 2 .* 2 cores .processors 0, 1., which 3"]),
        (bound({0, 1}, {0, 1}), 1, ONE_SOCKET, []),
        (bound({0, 1}, {0, 1}), 2, ONE_SOCKET, ["2 cores .processors 0, 1., which 4 threads share"]),
        (bound({0, 4}, {1, 5}), 1, HYPERTHREADS, []),
        (bound({0}, {4}), 1, HYPERTHREADS, ["ranks 0, 1 .* the same 1 core .processors 0, 4."]),
        (bound(*({k} for k in range(8))), 1, HYPERTHREADS, []),  # more ranks than cores, each as good as it can be
        (bound({0, 4}, {0, 4}), 1, HYPERTHREADS, ["the same 1 core .processors 0, 4."]),
        (bound({0}, {4}), 1, TWO_SOCKETS, []),
        (bound({4}, {5}), 1, TWO_SOCKETS, ["all 2 ranks are bound to socket 1 of 2"]),
        (bound({4}), 1, TWO_SOCKETS, []),
        (bound(range(8), range(8)), 4, TWO_SOCKETS, []),
        (bound({0}, {1}), 1, {}, []),  # the kernel does not tell
        (bound({7}, {7}), 1, TWO_SOCKETS, ["the same 1 core", "socket 1 of 2"]),
    ],
)
def test_bindings(ranks, threads, node, expected):
    notes = binding_notes(ranks, threads, node)
    assert len(notes) == len(expected), notes
    assert all(re.search(pattern, note) for pattern, note in zip(expected, notes, strict=True)), notes


def test_the_places_that_the_kernel_tells(tmp_path):
    for number, (socket, core) in {0: (0, 0), 1: (1, 5)}.items():
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{socket}\n")
        (folder / "core_id").write_text(f"{core}\n")
    (tmp_path / "cpu2" / "topology").mkdir(parents=True)  # offline
    (tmp_path / "cpufreq").mkdir()
    assert places(tmp_path) == {0: Place(0, 0), 1: Place(1, 5)}
    assert places(tmp_path / "nowhere") == {}


def test_this_node_has_places_for_our_processors():
    found = places()
    assert not found or own_processors() <= set(found)

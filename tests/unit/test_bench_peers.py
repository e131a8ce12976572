"""bench/peers.py: a peer that cannot be installed leaves null and a sentence; agreement is that of -log10 p."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
OWN = ("common", "peer_installs", "peers", "peers_report")


@pytest.fixture
def peers(monkeypatch):
    """bench/peers.py."""
    monkeypatch.syspath_prepend(str(BENCH))
    import peers

    yield peers
    for name in OWN:
        sys.modules.pop(name)


def test_a_peer_that_cannot_be_installed_says_why(peers, monkeypatch, tmp_path: Path) -> None:
    def fails(scratch: Path) -> Path:
        raise peers.BenchError("exit code 1: pip install jamma\nno matching distribution")

    def succeeds(scratch: Path) -> Path:
        return scratch / "jx"

    monkeypatch.setattr(
        peers,
        "PEERS",
        {"JAMMA": peers.Peer("jamma", fails, print), "JanusX": peers.Peer("janusx", succeeds, print)},
    )
    programs, absent = peers.installed(argparse.Namespace(quick=False, scratch=tmp_path))
    assert programs == {"JanusX": tmp_path / "jx"}
    assert absent == {"JAMMA": "could not be installed: no matching distribution"}


def test_quick_leaves_out_what_it_cannot_show(peers, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "PEERS", {"slow": peers.Peer("slow", Path, print, quick=False)})
    assert set(peers.installed(argparse.Namespace(quick=True, scratch=tmp_path))[1]) == {"slow"}
    assert set(peers.installed(argparse.Namespace(quick=False, scratch=tmp_path))[0]) == {"slow"}


def test_a_peer_without_a_run_has_null(peers, capsys) -> None:
    timings = {"solve": {"seconds": 2.0, "gflop": 30.0}}
    manifest = {"seconds": 3.0, "seconds_unnamed": 0.0, "timings": timings, "gemm_gflops": {"single": 20, "double": 10}}
    ours = peers.Measured([4.0], {"rs1": 1.0, "rs2": 3.0}, 0.4, [manifest])
    found = {name: peers.Measured() for name in peers.PEERS} | dict.fromkeys(peers.OURS, ours)
    found["JAMMA"] = peers.Measured([20.0], {"rs1": 1.5, "rs2": 3.25, "rs3": 9.0})
    made = peers.report(found, {"JAMMA": "jamma_over_mpgls", "JanusX": "janusx_over_mpgls"})
    assert made["jamma_over_mpgls"] == 5.0
    assert made["janusx_over_mpgls"] is None
    assert made["seconds"]["JanusX"] is None
    assert made["agreement"]["mpgls double and JanusX"]["correlation"] is None
    assert made["agreement"]["mpgls double and JAMMA"]["snps"] == 2
    assert made["agreement"]["mpgls double and JAMMA"]["largest_difference"] == 0.5
    assert np.isclose(made["whole_over_reml_and_solve"]["double"], 4 / (30 / 10))

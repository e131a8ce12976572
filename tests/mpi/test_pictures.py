"""Pictures that are dealt to ranks: the bytes that one process draws, or one sentence."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
from ranks import few_ranks

from mpgls.errors import StorageError
from mpgls.report.figure import draw_on_ranks
from mpgls.report.plots import manhattan, qq
from mpgls.report.summary import Summary
from mpgls.stream.store import RECORD_DTYPE
from mpgls.study.plink import Variants

pytestmark = few_ranks
KINDS = {"manhattan": manhattan, "qq": qq}


def small_summary() -> Summary:
    m, rng = 37, np.random.default_rng(4)
    records = np.zeros(m, RECORD_DTYPE)
    variants = Variants(["7"] * m, [f"rs{k}" for k in range(m)], np.arange(1, m + 1), ["A"] * m, ["C"] * m)
    summary = Summary()
    summary.add(variants, records, rng.exponential(0.43, m))
    return summary


def pictures(comm, folder):
    """Those of rank 0, the only one that has them."""
    summary = small_summary()
    return {folder / f"{kind}.png": partial(draw, summary, title="y") for kind, draw in KINDS.items() if comm.rank == 0}


def test_every_picture_has_the_bytes_that_one_process_draws(comm, shared_tmp_path):
    made = draw_on_ranks(comm, pictures(comm, shared_tmp_path), print)
    if comm.rank == 0:
        assert [path.name for path in made] == ["manhattan.png", "qq.png"]
        for kind, draw in KINDS.items():
            draw(small_summary(), shared_tmp_path / "alone.png", title="y")
            alone = (shared_tmp_path / "alone.png").read_bytes()
            assert (shared_tmp_path / f"{kind}.png").read_bytes() == alone
    else:
        assert made == []


def test_without_matplotlib_rank_0_says_it_once(comm, shared_tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.backends.backend_agg", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    said: list[str] = []
    assert draw_on_ranks(comm, pictures(comm, shared_tmp_path), said.append) == []
    assert len(said) == (comm.rank == 0)
    assert all("manhattan.png is not drawn" in text for text in said)


def test_a_picture_that_cannot_be_written_ends_all_ranks(comm, shared_tmp_path):
    with pytest.raises(StorageError, match="cannot write the plot"):
        draw_on_ranks(comm, pictures(comm, shared_tmp_path / "nowhere"), print)

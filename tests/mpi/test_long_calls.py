"""A rank inside a long call of a library is not taken for one that stands still: its phase says how long it takes."""

from __future__ import annotations

import contextlib

import pytest
from ranks import few_ranks

import mpgls
from mpgls.la import eigen, scalapack
from mpgls.run.clock import Clock

pytestmark = few_ranks
N, M = 53, 90
OF_ORDER = {"syevd": 4.0 / 3.0, "potrf": 1.0 / 3.0, "trtri": 1.0 / 3.0}
"""What a routine takes at least, in n^3."""


class Calls:
    """Each call of a routine of which the operations grow as n^3: its name, and the share that its phase said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
        self.said: dict[str, list[float]] = {}
        self._open: list[float] = []
        plain_phase = Clock.phase

        @contextlib.contextmanager
        def phase(clock, name, flop=0.0, nbytes=0.0):
            self._open.append(flop)
            try:
                with plain_phase(clock, name, flop, nbytes) as entry:
                    yield entry
            finally:
                self._open.pop()

        monkeypatch.setattr(Clock, "phase", phase)
        for name, cubic in OF_ORDER.items():
            self._listen(monkeypatch, name, cubic, ranks)

    def _listen(self, monkeypatch: pytest.MonkeyPatch, name: str, cubic: float, ranks: int) -> None:
        routine = getattr(scalapack, name)

        def called(A_grid, *others):
            needs = cubic * A_grid.shape[0] ** 3 / ranks
            self.said.setdefault(name, []).append(self._open[-1] / needs if self._open else 0.0)
            return routine(A_grid, *others)

        monkeypatch.setattr(scalapack, name, called)


@pytest.fixture
def study(comm, shared_tmp_path):
    folder = shared_tmp_path
    mpgls.simulate(samples=N, snps=M, out=folder / "g", traits=2, chromosomes=2, seed=5, comm=comm)
    mpgls.kinship(bfile=folder / "g", out=folder / "K", threads=1, comm=comm)
    return folder


def test_every_phase_around_a_factorisation_says_its_operations(comm, study, monkeypatch):
    calls = Calls(monkeypatch, comm.size)
    scan = {"bfile": study / "g", "pheno": study / "g.pheno.tsv", "threads": 1, "no_plots": True, "comm": comm}
    given = {"grm": study / "K.h5", **scan}
    of_team = {"team_size": comm.size, "solver": "inverse"}
    mpgls.eigen(grm=study / "K.h5", out=study / "e", eigensolver="scalapack", threads=1, comm=comm)
    mpgls.single_trait(out=study / "s", **of_team, **given)
    mpgls.single_trait(out=study / "r", ratio="snp", pheno_name="trait1", **given)
    mpgls.multi_trait(out=study / "m", **given)
    mpgls.low_rank(out=study / "l", similarity_every=3, **of_team, **scan)
    expected = set(OF_ORDER) if comm.size > 1 else set(OF_ORDER) - {"trtri"}
    assert set(calls.said) == expected
    for name, shares in calls.said.items():
        assert min(shares) > 0.999, (name, shares)


def test_leading_eigenpairs_say_their_operations_and_each_restart(comm, study, monkeypatch):
    pytest.importorskip("slepc4py")
    said, steps, found = [], [], eigen.leading_eigenpairs

    def called(A_grid, k, slepc_options, restarted):
        clock = restarted.__self__
        said.append(clock.open[-1][1] * comm.size / (2.0 * A_grid.shape[0] ** 2 * k))
        before = clock.steps
        pairs = found(A_grid, k, slepc_options, restarted)
        steps.append(clock.steps - before)
        return pairs

    monkeypatch.setattr(eigen, "leading_eigenpairs", called)
    mpgls.eigen(grm=study / "K.h5", out=study / "e", eigenpairs=2, threads=1, comm=comm)
    mpgls.single_trait(
        bfile=study / "g", grm=study / "K.h5", pcs=2, out=study / "s", threads=1, no_plots=True, comm=comm
    )
    assert len(said) == len(steps) == 2
    assert min(said) >= 2.0  # a basis of SLEPc has at least twice as many columns as pairs are wanted
    assert min(steps) >= 1

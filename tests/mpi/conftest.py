"""What every test that runs a whole command needs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpgls.commands import doctor
from mpgls.engine import probes
from mpgls.mpi import StopSignal
from mpgls.run import job, kernels, versions
from mpgls.run.hardware import resident_memory


@pytest.fixture(scope="module", autouse=True)
def quick_commands():
    """Commands neither measure the GEMM rate nor take SIGTERM, which tells a test run to say where it is.

    Nor do they count shared pages and look for BLAS libraries, which takes longer than a small scan.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "gemm_rate", lambda *_: 1.0)
        patch.setattr(job, "memory_of_process", lambda: resident_memory() | {"pss": resident_memory()["rss"]})
        for module in (kernels, versions):
            patch.setattr(module, "blas_libraries", list)
        patch.setattr(StopSignal, "SIGNALS", ())
        yield


@pytest.fixture
def small_probes(monkeypatch):
    """The machine's rates are measured on little, once."""
    for name, value in {
        "ROUNDS": 1,
        "POTRF_SIZE": 96,
        "EIGEN_SIZE": 48,
        "SAMPLES": 2_000,
        "EXCHANGE_BYTES": 1 << 16,
    }.items():
        monkeypatch.setattr(probes, name, value)
    monkeypatch.setattr(probes, "gemm_rate", lambda *_: 1.0)
    monkeypatch.setattr(doctor, "MIB", 1 << 14)


@pytest.fixture(scope="module")
def module_comm(quick_commands) -> Iterator[Any]:
    """A duplicate of COMM_WORLD for what the tests of a module share."""
    from mpi4py import MPI

    own = MPI.COMM_WORLD.Dup()
    yield own
    own.Free()


@pytest.fixture(scope="module")
def module_folder(module_comm) -> Iterator[Path]:
    """A directory for what the tests of a module share; rank 0 makes it and removes it."""
    name = tempfile.mkdtemp(prefix="mpgls-test-") if module_comm.rank == 0 else None
    folder = Path(module_comm.bcast(name, root=0))
    yield folder
    module_comm.Barrier()
    if module_comm.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)

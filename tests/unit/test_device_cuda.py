"""A GPU that cannot be used is refused in a sentence, whatever is wrong with it; CuPy's part is played here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mpgls.device import cuda
from mpgls.errors import MemoryPlanError, UsageError


class CudaError(RuntimeError):
    """CUDA's, and cuBLAS's."""


class Stream:
    def __init__(self, non_blocking):
        assert non_blocking

    def __enter__(self):
        return self

    def __exit__(self, *of_error):
        return None


def played_cupy(count=1, broken=None, free=2**30):
    """A CuPy with so many GPUs, whose first kernel raises ``broken``."""

    def fail(*args, **kwargs):
        raise broken

    def get_count():
        if not count:
            raise CudaError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return count

    runtime = SimpleNamespace(
        CUDARuntimeError=CudaError,
        getDeviceCount=get_count,
        memGetInfo=lambda: (free, free),
        getDeviceProperties=lambda number: {"name": b"GPU of a test"},
    )
    return SimpleNamespace(
        __version__="14.2.0",
        ones=fail if broken else lambda shape, dtype: np.ones(shape, dtype),
        get_default_memory_pool=lambda: SimpleNamespace(set_limit=lambda size: None),
        cuda=SimpleNamespace(
            runtime=runtime,
            memory=SimpleNamespace(OutOfMemoryError=MemoryError),
            cublas=SimpleNamespace(CUBLASError=CudaError),
            Device=lambda number: SimpleNamespace(use=lambda: None),
            Stream=Stream,
            set_allocator=lambda allocator: None,
        ),
    )


@pytest.mark.parametrize(
    "cupy, ranks, limit, error, sentence",
    [
        (played_cupy(0), 1, None, UsageError, r"^CuPy finds no GPU that it can use \(cudaErrorNoDevice: .*nvidia-smi"),
        (played_cupy(2), 3, None, UsageError, r"^each rank needs a GPU of its own, and this node has 3 ranks and 2 GP"),
        (played_cupy(), 1, 2**31, MemoryPlanError, r"^--gpu-memory allows 2.00 GiB, and GPU 0 \(GPU of a test\) has 1"),
        (
            played_cupy(broken=ImportError("libcublas.so.13: cannot open\nshared object")),
            1,
            None,
            UsageError,
            r"^CuPy 14.2.0 cannot compute on GPU 0 \(libcublas.so.13: cannot open\): its wheel and CUDA",
        ),
    ],
)
def test_what_is_wrong_is_said(monkeypatch, cupy, ranks, limit, error, sentence):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(error, match=sentence):
        cuda.open_card(0, ranks, limit)

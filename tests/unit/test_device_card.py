"""Opening a card, with a stand-in for CuPy that has the names which its documentation has."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mpgls.device.card import COPIES, PRODUCTS
from mpgls.device.cuda import CudaCard, open_card
from mpgls.errors import MemoryPlanError, StorageError, UsageError

GIB = 2**30


class CUDARuntimeError(RuntimeError):
    """As cupy.cuda.runtime has it."""


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory has it."""


class CUBLASError(RuntimeError):
    """As cupy.cuda.cublas has it, which is loaded with cuBLAS."""


class CUSOLVERError(RuntimeError):
    """As cupy.cuda.cusolver has it."""


class Event:
    def __init__(self, disable_timing):
        assert disable_timing

    def record(self, stream):
        stream.asked.append("record")

    def synchronize(self):
        pass


class Stream:
    current = None

    def __init__(self, non_blocking):
        assert non_blocking
        self.asked, self._before = [], []

    def __enter__(self):
        self._before.append(Stream.current)
        Stream.current = self

    def __exit__(self, *_):
        Stream.current = self._before.pop()

    def wait_event(self, event):
        self.asked.append("wait")


class DeviceArray(np.ndarray):
    def set(self, values, stream):
        stream.asked.append("set")
        self[...] = values

    def get(self, stream, out, blocking):
        assert not blocking
        stream.asked.append("get")
        out[...] = self


class PinnedMemory(bytearray):
    """Of exactly the size that is asked for."""


class PinnedPool:
    """CuPy's of page-locked memory: sizes become powers of two, and what a copy let go of stays until it is freed."""

    def __init__(self):
        self.blocks = []

    def malloc(self, size):
        if size:
            self.blocks.append(1 << (size - 1).bit_length())
        return bytearray(size)

    def free_all_blocks(self):
        self.blocks.clear()


class Pool:
    """Refuses where what is held and what was freed reach its limit, as CuPy's does."""

    def __init__(self, said):
        self.said, self.held, self.freed = said, 0, 0

    def set_limit(self, size):
        self.said.limit = size

    def malloc(self, size):
        if self.held + self.freed + size > self.said.limit:
            raise OutOfMemoryError(f"allocating {size} bytes")
        self.held += size
        return size

    def free_all_blocks(self):
        self.freed = 0


def fake_cupy(count=2, free=8 * GIB):
    """CuPy on a machine with ``count`` GPUs, or whose driver fails where it is None."""
    said, pinned = SimpleNamespace(used=None, limit=None, allocator=None), PinnedPool()

    def get_count():
        if count is None:
            raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
        return count

    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=get_count,
        memGetInfo=lambda: (free, 2 * free),
        getDeviceProperties=lambda number: {"name": b"Card %d" % number},
    )
    cuda = SimpleNamespace(
        runtime=runtime,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        Device=lambda number=0: SimpleNamespace(use=lambda: setattr(said, "used", number), synchronize=lambda: None),
        Stream=Stream,
        Event=Event,
        get_current_stream=lambda: Stream.current,
        alloc_pinned_memory=pinned.malloc,
        PinnedMemory=PinnedMemory,
        PinnedMemoryPointer=lambda memory, offset: memory,
        set_allocator=lambda allocator: setattr(said, "allocator", allocator),
    )
    pool = Pool(said)
    pools = {"get_default_memory_pool": lambda: pool, "get_default_pinned_memory_pool": lambda: pinned}
    return SimpleNamespace(cuda=cuda, **pools, asnumpy=np.asarray, said=said)


@pytest.fixture
def cupy(monkeypatch):
    made = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", made)
    monkeypatch.setattr(CudaCard, "try_out", lambda card: None)  # it has neither cuBLAS nor cuSOLVER
    return made


def test_each_rank_of_a_node_has_a_gpu_of_its_own(cupy):
    card = open_card(1, 2, None)
    assert (card.name, cupy.said.used) == ("Card 1", 1)
    assert card.limit == cupy.said.limit == int(0.9 * 8 * GIB)
    assert open_card(0, 2, 3 * GIB).limit == cupy.said.limit == 3 * GIB


@pytest.mark.parametrize(
    "count, ranks, limit, kind, sentence",
    [
        (2, 3, None, UsageError, r"this node has 3 ranks and 2 GPUs: start 2 ranks a node, or use --device cpu"),
        (0, 1, None, UsageError, r"this node has 1 ranks and 0 GPUs"),
        (None, 1, None, UsageError, r"finds no GPU that it can use \(cudaErrorInsufficientDriver.*nvidia-smi"),
        (1, 1, 9 * GIB, MemoryPlanError, r"allows 9.00 GiB, and GPU 0 \(Card 0\) has 8.00 GiB free"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(monkeypatch, count, ranks, limit, kind, sentence):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(count))
    with pytest.raises(kind, match=sentence):
        open_card(0, ranks, limit)


def test_memory_that_was_freed_is_no_reason_to_refuse(cupy):
    open_card(0, 1, 10 * 2**20)
    pool, memory = cupy.get_default_memory_pool(), cupy.said.allocator
    memory(4 * 2**20)
    pool.freed = 5 * 2**20
    assert memory(6 * 2**20) == 6 * 2**20
    with pytest.raises(OutOfMemoryError):
        memory(1)


@pytest.mark.parametrize(
    "raised, kind, sentence",
    [
        (
            OutOfMemoryError("allocating 9 bytes"),
            MemoryPlanError,
            r"no room \(allocating 9 bytes\): give a smaller --bl",
        ),
        (CUBLASError("CUBLAS_STATUS_NOT_SUPPORTED"), StorageError, "the GPU Card 0 failed: CUBLAS_STATUS_NOT_S"),
        (CUDARuntimeError("cudaErrorECCUncorrectable"), StorageError, "the GPU Card 0 failed: cudaErrorECC"),
        (CUSOLVERError("CUSOLVER_STATUS_ALLOC_FAILED"), StorageError, "the GPU Card 0 failed: CUSOLVER_STATUS_ALLOC"),
    ],
)
def test_failures_of_a_card_are_sentences(cupy, raised, kind, sentence):
    card = open_card(0, 1, None)
    with pytest.raises(kind, match=sentence), card.lane(PRODUCTS):
        raise raised
    assert Stream.current is None


def test_what_is_no_failure_of_a_card_stays_what_it_is(cupy):
    card = open_card(0, 1, None)
    with pytest.raises(RuntimeError, match=r"^dictionary changed size"), card.lane(PRODUCTS):
        raise RuntimeError("dictionary changed size during iteration")


def test_memory_of_the_host_is_as_large_as_what_lies_there(cupy):
    card, pool = open_card(0, 1, None), cupy.get_default_pinned_memory_pool()
    assert card.host_array((5, 129), np.float64).nbytes == 8 * 5 * 129 and not pool.blocks
    cupy.cuda.alloc_pinned_memory(5160)  # what an array of the host goes through on its way to the card
    assert pool.blocks == [8192]
    card.settle()
    assert not pool.blocks


def test_copies_go_beside_products(cupy):
    card = open_card(0, 1, None)
    host = card.host_array((2, 3), np.float32)
    assert host.shape == (2, 3) and not host.any() and host.flags.writeable
    host[...] = np.arange(6).reshape(2, 3)
    on_card, back = np.zeros((2, 3), np.float32).view(DeviceArray), card.host_array((2, 3), np.float32)
    with card.lane(PRODUCTS), contextlib.ExitStack() as stack:
        stack.enter_context(card.lane(COPIES))
        card.copy_in(host, on_card)
        copied, copies = card.mark(), Stream.current
    with card.lane(PRODUCTS):
        card.follow(None)
        card.follow(copied)
        card.copy_out(on_card, back)
        card.wait(card.mark())
        products = Stream.current
    assert np.array_equal(back, host)
    assert (copies.asked, products.asked) == (["set", "record"], ["wait", "get", "record"])


def test_cusolver_is_asked_whether_it_failed(cupy, monkeypatch):
    """CuPy ignores it unless `cupyx.errstate` says otherwise; NumPy's functions stand for its own here."""
    told = []

    @contextlib.contextmanager
    def errstate(*, linalg):
        told.append(linalg)
        yield
        told.append("as before")

    def solve_triangular(a, b, trans=0, lower=False, unit_diagonal=False, overwrite_b=False, check_finite=False):
        """The arguments that CuPy's has."""
        assert lower and overwrite_b and trans in (0, 1)
        return np.linalg.solve(a.T if trans else a, b)

    cupy.linalg = np.linalg
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(errstate=errstate))
    monkeypatch.setitem(sys.modules, "cupyx.scipy.linalg", SimpleNamespace(solve_triangular=solve_triangular))
    monkeypatch.setitem(sys.modules, "cupyx.scipy", SimpleNamespace())
    card, A, B = open_card(0, 1, None), np.array([[4.0, 2.0], [2.0, 5.0]]), np.eye(2)
    L = card.cholesky(A)
    assert told == ["raise", "as before"] and np.array_equal(L, [[2.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(card.solve_triangular(L, B), [[0.5, 0.0], [-0.25, 0.5]], rtol=1e-15)
    np.testing.assert_allclose(card.solve_triangular(L, B, transposed=True), [[0.5, -0.25], [0.0, 0.5]], rtol=1e-15)

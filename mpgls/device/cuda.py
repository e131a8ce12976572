"""A CUDA GPU through CuPy: the only file that imports it, when a GPU is asked for.

Rank r of a node has the node's r-th GPU, of those that CUDA_VISIBLE_DEVICES leaves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from mpgls.device.card import COPIES, PRODUCTS, Card
from mpgls.device.products import integer_product
from mpgls.errors import MemoryPlanError, MpglsError, StorageError, UsageError

FAILURES = ("CUDARuntimeError", "CUBLASError", "CUSOLVERError")
"""By name: CuPy loads a library of CUDA when its module is asked for."""
USED = 0.9
"""Of the memory that is free on a card, as much is used."""


def open_card(node_rank: int, node_size: int, limit: int | None) -> Card:
    """The GPU of this rank of a node of ``node_size`` ranks; ``limit``: bytes of its memory that may be used.

    Raises UsageError where CuPy, a driver, a card, or enough of them are missing; MemoryPlanError for a limit beyond
    what is free.
    """
    try:
        import cupy
    except ImportError as error:
        raise UsageError(
            f"a GPU needs CuPy, which cannot be imported ({error}): pip install 'mpgls[gpu]', or use --device cpu"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise UsageError(
            f"CuPy finds no GPU that it can use ({error}): look at nvidia-smi, or use --device cpu"
        ) from None
    if node_size > count:
        raise UsageError(
            f"each rank needs a GPU of its own, and this node has {node_size} ranks and {count} GPUs: start "
            f"{count} ranks a node, or use --device cpu"
        )
    try:
        card = CudaCard(cupy, node_rank, limit)
        card.try_out()
    except MpglsError:
        raise
    except Exception as error:  # as many classes as CUDA has libraries
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            f"CuPy {cupy.__version__} cannot compute on GPU {node_rank} ({text[0]}): its wheel and CUDA's libraries "
            "must be of one version (docs/gpu.md, Installation), or use --device cpu"
        ) from None
    return card


class CudaCard:
    """The ``number``-th GPU of this node; arrays of ``cupy`` made later in this thread lie on it."""

    def __init__(self, cupy: Any, number: int, limit: int | None) -> None:
        self.xp = cupy
        cupy.cuda.Device(number).use()
        self.name = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
        free, _ = cupy.cuda.runtime.memGetInfo()
        if limit is not None and limit > free:
            raise MemoryPlanError(
                f"--gpu-memory allows {limit / 2**30:.2f} GiB, and GPU {number} ({self.name}) has "
                f"{free / 2**30:.2f} GiB free: give less, or look at nvidia-smi who uses it"
            )
        self.limit = int(USED * free) if limit is None else limit
        cupy.get_default_memory_pool().set_limit(size=self.limit)
        cupy.cuda.set_allocator(self.memory)
        # streams that do not wait for the default one
        self._streams = {name: cupy.cuda.Stream(non_blocking=True) for name in (COPIES, PRODUCTS)}

    def try_out(self) -> None:
        """Compile a kernel and call cuBLAS and cuSOLVER, so that what is missing is missed now."""
        with self.lane(PRODUCTS):
            A = self.xp.ones((16, 16), dtype=np.int8) * 3
            found = self.to_host(integer_product(self.xp, A, A, 3))
            L = self.cholesky(4.0 * self.xp.eye(2))
            solved = self.to_host(self.solve_triangular(L, self.xp.eye(2)))
        if not np.all(found == 144.0):
            raise StorageError(f"the GPU {self.name} multiplies wrongly: 16 * 3 * 3 is {found[0, 0]}")
        if not np.allclose(solved, np.eye(2) / 2):
            raise StorageError(f"the GPU {self.name} solves wrongly: 1 / 2 is {solved[0, 0]}")

    def memory(self, size: int) -> Any:
        """Bytes from CuPy's pool.

        What was freed counts against its limit, but serves arrays of its lane that are no larger: it is given back
        where the limit is reached.
        """
        pool = self.xp.get_default_memory_pool()
        try:
            return pool.malloc(size)
        except self.xp.cuda.memory.OutOfMemoryError:
            pool.free_all_blocks()
            return pool.malloc(size)

    @contextlib.contextmanager
    def lane(self, name: str) -> Iterator[None]:
        """A stream. Raises MemoryPlanError where the card has no room, StorageError where it fails."""
        cuda = self.xp.cuda
        try:
            with self._streams[name]:
                yield
        except cuda.memory.OutOfMemoryError as error:
            raise MemoryPlanError(
                f"the GPU has no room ({error}): give a smaller --block-size or more ranks with a GPU each"
            ) from None
        except RuntimeError as error:
            if type(error).__name__ not in FAILURES:
                raise
            raise StorageError(f"the GPU {self.name} failed: {error}") from None

    def mark(self) -> Any:
        """An event in the stream of the body."""
        event = self.xp.cuda.Event(disable_timing=True)
        event.record(self.xp.cuda.get_current_stream())
        return event

    def follow(self, mark: Any) -> None:
        """The stream of the body waits for the event; None: for nothing."""
        if mark is not None:
            self.xp.cuda.get_current_stream().wait_event(mark)

    def wait(self, mark: Any) -> None:
        """The host waits for the event."""
        mark.synchronize()

    def settle(self) -> None:
        """The host waits for everything, and has the memory back through which CuPy copied arrays to the card."""
        cuda = self.xp.cuda
        cuda.Device().synchronize()
        cuda.alloc_pinned_memory(0)  # lets go of copies that have come
        self.xp.get_default_pinned_memory_pool().free_all_blocks()

    def host_array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Page-locked memory, zeros; not of CuPy's pool, which would round its size up to a power of two."""
        cuda, count = self.xp.cuda, int(np.prod(shape, dtype=np.int64))
        memory = cuda.PinnedMemoryPointer(cuda.PinnedMemory(count * np.dtype(dtype).itemsize), 0)
        array: np.ndarray = np.frombuffer(memory, dtype, count).reshape(shape)
        array[...] = 0
        return array

    def copy_in(self, values: np.ndarray, into: Any) -> None:
        """Begin to copy to the card, in the stream of the body."""
        into.set(values, stream=self.xp.cuda.get_current_stream())

    def copy_out(self, values: Any, into: np.ndarray) -> None:
        """Begin to copy from the card, in the stream of the body."""
        values.get(stream=self.xp.cuda.get_current_stream(), out=into, blocking=False)

    def to_host(self, values: Any) -> np.ndarray:
        """``values``, when the stream of the body has them."""
        return self.xp.asnumpy(values)

    def cholesky(self, A: Any) -> Any:
        """cuSOLVER's, which is asked whether it failed: CuPy as it comes would return what is left of A."""
        import cupyx

        with cupyx.errstate(linalg="raise"):
            return self.xp.linalg.cholesky(A)

    def solve_triangular(self, L: Any, B: Any, transposed: bool = False) -> Any:
        """cuBLAS's."""
        from cupyx.scipy.linalg import solve_triangular

        return solve_triangular(L, B, trans=int(transposed), lower=True, overwrite_b=True)

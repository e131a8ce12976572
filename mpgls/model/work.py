"""Work arrays that several objects share because they are used in turn."""

from __future__ import annotations

import math

import numpy as np


class Work:
    """One block of memory for each name, made anew only when more is asked for.

    What an array held is lost when any array of its name is asked for again.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type, order: str = "C") -> np.ndarray:
        """An array of this shape and type, contiguous in ``order`` ("C" or "F"), its values undefined."""
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        block = self._blocks.get(name)
        if block is None or block.size < nbytes:
            block = self._blocks[name] = np.empty(nbytes, dtype=np.uint8)
        return block[:nbytes].view(dtype).reshape(shape, order=order)  # type: ignore[call-overload]

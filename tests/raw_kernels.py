"""CUDA kernels compiled as C++ and run thread by thread: what `cupy.RawKernel` would do, without a card."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

COMPILER = shutil.which("g++")
BEFORE = """
#include <cmath>
struct Place { unsigned x, y; };
static Place blockIdx, blockDim, threadIdx, gridDim;
#define __global__
template <class T> static T atomicAdd(T* at, T more) { T before = *at; *at += more; return before; }
"""
AFTER = """
extern "C" void launch(unsigned blocks_x, unsigned blocks_y, unsigned threads, {declared})
{{
    gridDim = {{blocks_x, blocks_y}}; blockDim = {{threads, 1}};
    for (blockIdx.y = 0; blockIdx.y < blocks_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks_x; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) {name}({given});
}}
"""


class RawKernel:
    """The function ``name`` of ``source``; called with blocks, threads and arguments, as CuPy's."""

    def __init__(self, source: str, name: str) -> None:
        self.source, self.name = source, name
        self._launch = None

    def __call__(self, blocks, threads, arguments) -> None:
        if self._launch is None:
            self._launch = self._compiled()
        (blocks_x, blocks_y), (threads_x,) = blocks, threads
        self._launch(blocks_x, blocks_y, threads_x, *map(_as_c, arguments))

    def _compiled(self):
        head = self.source[self.source.index(f"{self.name}(") + len(self.name) + 1 :]
        declared = head[: head.index(")")]
        given = ", ".join(one.split()[-1].lstrip("*") for one in declared.split(","))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernel.cpp"
            path.write_text(BEFORE + self.source + AFTER.format(declared=declared, given=given, name=self.name))
            made = path.with_suffix(".so")
            subprocess.run([str(COMPILER), "-O1", "-shared", "-fPIC", "-o", made, path], check=True)
            return ctypes.CDLL(str(made)).launch


def _as_c(value):
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return ctypes.c_void_p(value.ctypes.data)
    return {np.int64: ctypes.c_longlong, np.uint64: ctypes.c_ulonglong, np.float32: ctypes.c_float}[type(value)](value)

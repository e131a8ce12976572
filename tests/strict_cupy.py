"""NumPy in place of CuPy that forgives no more than CuPy does: an array module for tests of what runs on a GPU.

    xp = strict_cupy            its arrays are no NumPy arrays
    StrictCard()                a `Card` of them

Names, methods and keywords are those that CuPy 13 and 14 have (tests/data/cupy_names.json). What CuPy refuses is
refused: NumPy arrays in operations, `numpy.asarray` of an array of a card, assignment of a NumPy array, types that a
GPU lacks, copies into memory that is not of one piece. Conversions copy, as they do between host and card; reductions
give arrays of no dimension; an indefinite assignment, to one place twice, is an error. CuPy's kernels and cuBLAS are
not there, nor is `cuda`: by that an algorithm knows that it has no GPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import strict_lanes

NAMES = json.loads((Path(__file__).parent / "data" / "cupy_names.json").read_text())
TYPES = set("?bBhHiIlLqQefdFD")
ABSENT = {"RawKernel", "RawModule", "ElementwiseKernel", "ReductionKernel", "fuse", "vectorize", "cuda", "linalg"}
FROM_HOST = {"array", "asarray", "asanyarray"}
INDEX_AT = {"take": 1, "put": 1}
"""Arguments that may be NumPy arrays: CuPy copies indices to the card."""

float16, float32, float64, bool_ = np.float16, np.float32, np.float64, np.bool_
int8, int16, int32, int64, uint8, uint32, uint64 = np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint32, np.uint64


class ndarray:
    """An array of the card. ``host`` is for this file alone."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, host: np.ndarray, storage: strict_lanes.Storage | None = None) -> None:
        if host.dtype.char not in TYPES:
            raise ValueError(f"Unsupported dtype {host.dtype}")
        self.host, self.storage = host, storage or strict_lanes.Storage()

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    size = property(lambda self: self.host.size)
    ndim = property(lambda self: self.host.ndim)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    strides = property(lambda self: self.host.strides)
    flags = property(lambda self: self.host.flags)
    data = property(lambda self: SimpleNamespace(ptr=self.host.ctypes.data))
    T = property(lambda self: self._view(self.host.T))

    def _view(self, host: np.ndarray) -> ndarray:
        return ndarray(host, self.storage if np.may_share_memory(host, self.host) else None)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """A function of NumPy that meets an array of the card is that of CuPy."""
        if method != "__call__":
            return NotImplemented
        kwargs = {name: one[0] if name == "out" else one for name, one in kwargs.items()}
        return _function(ufunc.__name__)(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """As `__array_ufunc__`."""
        return _function(function.__name__)(*args, **kwargs)

    # -- to and from the host

    def get(self, stream: Any = None, order: str = "C", out: np.ndarray | None = None, blocking: bool = True) -> Any:
        """A copy on the host."""
        _read(self)
        if blocking:
            strict_lanes.synchronise_current()
        if out is None:
            return np.array(self.host, order=order)
        if not isinstance(out, np.ndarray) or out.dtype != self.dtype:
            raise TypeError(f"{getattr(out, 'dtype', type(out))} array cannot be obtained from {self.dtype} array")
        if out.shape != self.shape:
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        if not (out.flags.c_contiguous or out.flags.f_contiguous):
            raise RuntimeError("`out` cannot be specified when copying to non-contiguous ndarray")
        out[...] = self.host
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Copy from the host."""
        if type(arr) is not np.ndarray:
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        _written(self)
        self.host[...] = arr

    def item(self) -> Any:
        """A number, of an array of one."""
        return self.get().item()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Any:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        return f"strict_cupy.{self.host!r}"

    # -- indices

    def __getitem__(self, index: Any) -> ndarray:
        _read_index(index)
        found = np.asarray(self.host[_index(index)])
        return self._view(found) if np.may_share_memory(found, self.host) else _made(found, self)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, (np.ndarray, list, tuple)):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        _read_index(index)
        _written(self, value)
        at = _index(index)
        if isinstance(value, ndarray) and value.ndim and _repeats(self.host.shape, at):
            raise ValueError("what a place holds that is assigned to twice is not defined on a GPU")
        self.host[at] = value.host if isinstance(value, ndarray) else value

    # -- shapes and types

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        """A view where it can be one."""
        _read(self)
        return self._view(self.host.reshape(*shape, order=order))

    def view(self, dtype: Any = None) -> ndarray:
        """The same memory."""
        return self._view(self.host.view(dtype or self.dtype))

    def fill(self, value: Any) -> None:
        """The same number everywhere."""
        self[...] = value

    def __getattr__(self, name: str) -> Any:
        """Methods that CuPy's arrays have: those of NumPy, with CuPy's keywords."""
        if name.startswith("_") or name not in NAMES["cupy.ndarray"]:
            raise AttributeError(f"an array of CuPy has no {name}")
        return _wrapped(f"ndarray.{name}", getattr(self.host, name), NAMES["cupy.ndarray"][name], self, method=True)


def _operator(name: str) -> Any:
    def apply(self: ndarray, *other: Any) -> Any:
        for one in other:
            if not isinstance(one, (ndarray, int, float, complex, np.generic)):
                raise TypeError(f"Unsupported type {type(one)}")
        _read(self, *other)
        result = getattr(self.host, name)(*(one.host if isinstance(one, ndarray) else one for one in other))
        return result if result is NotImplemented else _made(result, self)

    return apply


def _in_place(name: str) -> Any:
    def apply(self: ndarray, other: Any) -> ndarray:
        if not isinstance(other, (ndarray, int, float, complex, np.generic)):
            raise TypeError(f"Unsupported type {type(other)}")
        _written(self, other)
        getattr(self.host, name)(other.host if isinstance(other, ndarray) else other)
        return self

    return apply


_BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift", "matmul"]
for _name in _BINARY:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(ndarray, f"__r{_name}__", _operator(f"__r{_name}__"))
    if _name != "matmul":
        setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in ["lt", "le", "gt", "ge", "eq", "ne", "neg", "pos", "abs", "invert"]:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


class _Linalg:
    """`cupy.linalg`."""

    def __getattr__(self, name: str) -> Any:
        if name not in NAMES["cupy.linalg"]:
            raise AttributeError(f"cupy.linalg has no {name}")
        return _wrapped(name, getattr(np.linalg, name), NAMES["cupy.linalg"][name])

    @staticmethod
    def cholesky(a: ndarray) -> ndarray:
        """Numbers that are none, where the matrix is not positive definite: CuPy raises nothing."""
        _read(a)
        try:
            return _made(np.linalg.cholesky(a.host))
        except np.linalg.LinAlgError:
            return _made(np.full_like(a.host, np.nan))


linalg = _Linalg()


class _Add:
    """`cupy.add`, which alone of the functions here has `at`: atomic additions, of the types that a GPU adds so."""

    ATOMIC = "efdiILQ"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _wrapped("add", np.add, NAMES["cupy"]["add"])(*args, **kwargs)

    def at(self, a: ndarray, indices: ndarray, b: Any) -> None:
        """To one place as often as it is named."""
        if not isinstance(a, ndarray) or not isinstance(indices, ndarray) or isinstance(b, np.ndarray):
            raise TypeError("Unsupported type: all are arrays of the card")
        if a.dtype.char not in self.ATOMIC:
            raise TypeError(f"scatter_add does not support {a.dtype}")
        _written(a, indices, b)
        np.add.at(a.host, indices.host, b.host if isinstance(b, ndarray) else b)


add = _Add()


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    """A copy on the host."""
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a, order=order)


def ascontiguousarray(a: ndarray, dtype: Any = None) -> ndarray:
    """Of an array of the card."""
    if not isinstance(a, ndarray):
        raise TypeError(f"Argument 'a' has incorrect type (expected cupy.ndarray, got {type(a)})")
    _read(a)
    return a._view(np.ascontiguousarray(a.host, dtype=dtype))


def __getattr__(name: str) -> Any:
    return _function(name)


def _function(name: str) -> Any:
    if name.startswith("_") or name in ABSENT or name not in NAMES["cupy"]:
        raise AttributeError(f"module cupy has no {name} that NumPy could stand in for")
    if name in globals():
        return globals()[name]
    keywords, of_numpy = NAMES["cupy"][name], getattr(np, name)
    return of_numpy if keywords is None else _wrapped(name, of_numpy, keywords)


def _wrapped(name: str, function: Any, keywords: list[str], owner: ndarray | None = None, method: bool = False) -> Any:
    """``function`` of NumPy with no more keywords than CuPy has, on arrays of the card and plain numbers."""

    def call(*args: Any, **kwargs: Any) -> Any:
        unknown = set(kwargs) - set(keywords)
        if unknown and "kwargs" not in keywords:
            raise TypeError(f"{name} of CuPy has no keyword {', '.join(sorted(unknown))}")
        index_at = INDEX_AT.get(name.removeprefix("ndarray."), -1) - method
        found = [_argument(one, name in FROM_HOST or k == index_at) for k, one in enumerate(args)]
        named = {key: _argument(one, key == "indices") for key, one in kwargs.items() if key != "blocking"}
        _read(owner, *args, *kwargs.values())
        if isinstance(kwargs.get("out"), ndarray):
            _written(kwargs["out"])
        if name in FROM_HOST and not isinstance(args[0], ndarray):
            found[0] = np.array(found[0])  # the card has memory of its own
        return _made(function(*found, **named), owner, *args)

    return call


def _argument(one: Any, host_allowed: bool = False) -> Any:
    """What NumPy gets in place of an argument."""
    if isinstance(one, np.ndarray) and not host_allowed:
        raise TypeError(f"Unsupported type {type(one)}")
    if isinstance(one, (list, tuple)):
        return type(one)(_argument(part, host_allowed) for part in one)
    return one.host if isinstance(one, ndarray) else one


def _made(result: Any, *sources: Any) -> Any:
    """What NumPy gave, as CuPy would give it."""
    if isinstance(result, tuple):
        return tuple(_made(one, *sources) for one in result)
    if isinstance(result, list):
        return [_made(one, *sources) for one in result]
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    array = np.asarray(result)
    for one in sources:
        if isinstance(one, ndarray) and np.may_share_memory(array, one.host):
            return ndarray(array, one.storage)
    made = ndarray(array)
    _written(made)
    return made


def _index(index: Any) -> Any:
    """CuPy takes NumPy arrays as indices, and copies them to the card."""
    if isinstance(index, tuple):
        return tuple(_index(one) for one in index)
    return index.host if isinstance(index, ndarray) else index


def _read_index(index: Any) -> None:
    _read(*(index if isinstance(index, tuple) else (index,)))


def _repeats(shape: tuple[int, ...], at: Any) -> bool:
    """Whether an index names a place more than once."""
    if not any(isinstance(one, (np.ndarray, list)) for one in (at if isinstance(at, tuple) else (at,))):
        return False
    places = np.arange(int(np.prod(shape))).reshape(shape)[at]
    return bool(np.unique(places).size < places.size)


def _read(*arrays: Any) -> None:
    for one in arrays:
        if isinstance(one, (list, tuple)):
            _read(*one)
        elif isinstance(one, ndarray):
            one.storage.read()


def _written(array: ndarray, *others: Any) -> None:
    _read(*others)
    array.storage.write()

"""Read pickles without running code from them.

A pickle names functions and its reader calls them. Here every name stands for an object of this module: numpy's arrays
and scalars are built from their bytes, mappings become plain ones, and other objects stored beside the weights
(training logs, configurations) become an empty placeholder. All other names are refused.
"""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor


class RefusedError(pickle.UnpicklingError):
    """Raised for a pickle that needs ``name``, which is not among the known names."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Placeholder:
    """Placeholder for an object that is not a tensor, number or text. It accepts any arguments and stores nothing."""

    __slots__ = ()

    def __new__(cls, *args: Any, **options: Any) -> Placeholder:
        return object.__new__(cls)

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Builder:
    """A function that a pickle may call. It is a class because a pickle could set attributes of a plain function."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]) -> None:
        object.__setattr__(self, "_build", build)

    def __call__(self, *args: Any) -> Any:
        return self._build(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("a function cannot be changed")

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function cannot be changed")


class _Dtype:
    """A pickled numpy dtype: a code such as ``f4``, then a state with the byte order."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any = "", *_: Any) -> None:
        self._code, self._order = _text(code), "="

    def __setstate__(self, state: Any) -> None:
        self._order = _text(state[1])

    def numpy(self) -> np.dtype[Any] | None:
        """Return the dtype; None for types that torch does not have: text, records, objects."""
        if self._code not in _NUMBERS or self._order not in "<>=|":
            return None
        return np.dtype(self._order + self._code)


_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


class _Array:
    """A pickled numpy array: created empty, then filled from (version, shape, dtype, Fortran order, bytes)."""

    __slots__ = ("_tensor",)

    def __init__(self, *_: Any) -> None:
        self._tensor: Tensor | None = None

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran, data = state[-4:]
        self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: Any, dtype: _Dtype, shape: Any, order: str) -> _Array:
        """Fill the array from ``data``. It stays empty where the dtype is not numeric."""
        kind = dtype.numpy()
        if kind is None:
            return self
        if isinstance(data, str):  # Python 2's bytes, read as latin-1
            data = data.encode("latin1")
        values = np.frombuffer(data, kind).reshape(tuple(shape), order=order)  # type: ignore[call-overload]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the bytes are read-only, and nothing writes to them
            self._tensor = torch.from_numpy(values.astype(kind.newbyteorder("="), order="C", copy=False))
        return self

    @property
    def tensor(self) -> Tensor | None:
        """The array as a tensor; None where it is not numeric."""
        return self._tensor


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _scalar(dtype: _Dtype, data: Any = None) -> Any:
    array = _Array().fill(data, dtype, (), "C").tensor if data is not None else None
    return Placeholder() if array is None else array.item()


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """Decode bytes as Python 3 writes them into old pickles."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes in an unknown coding")
    return text.encode("latin1")


_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
_ARRAYS: dict[str, Any] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    **{f"{module}._reconstruct": _Builder(lambda *args: _Array()) for module in _MODULES[:2]},
    **{f"{module}.scalar": _Builder(_scalar) for module in _MODULES[:2]},
    **{
        f"{module}._frombuffer": _Builder(lambda data, dtype, shape, order: _Array().fill(data, dtype, shape, order))
        for module in _MODULES[2:]
    },
    "collections.defaultdict": _Builder(lambda *args: OrderedDict()),
    **{f"{module}.bytes": _Builder(lambda: b"") for module in ("__builtin__", "builtins")},  # of arrays without numbers
}
_MAPPINGS = ("mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict", "addict.addict.Dict")
_NOT_NEEDED = (
    *("mmengine.", "mmcv.", "mmdet.", "mmcls.", "mmpretrain.", "detectron2.", "fvcore.", "yacs.", "omegaconf."),
    *("pathlib.", "datetime.", "argparse.Namespace", "builtins.getattr", "__builtin__.getattr"),
)
"""Prefixes of objects that are stored beside weights and not needed. ``getattr`` names methods of a log and is never
called.
"""


def stand_in(name: str) -> Any:
    """Return the object to use for ``module.name`` in a torch file where torch has no safe one; None if refused."""
    if name in _ARRAYS:
        return _ARRAYS[name]
    if name in _MAPPINGS:
        return OrderedDict
    return Placeholder if name.startswith(_NOT_NEEDED) else None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _ARRAYS:
            return _ARRAYS[full]
        if full == "collections.OrderedDict":
            return _Builder(lambda *pairs: OrderedDict(*pairs))
        if full == "_codecs.encode":
            return _Builder(_encoded)
        raise RefusedError(full)


def unpickle_arrays(file: IO[bytes]) -> Any:
    """Read a pickle of numpy arrays, numbers and text, written by Python 2 or 3. Arrays are still packed.

    Raises RefusedError where it names anything else, and other errors where it is truncated or not a pickle.
    """
    # As bytes: Python 2's text and numbers alike then need no copy to be read.
    return _Unpickler(file, encoding="bytes").load()


_DROPPED = object()


def plain(value: Any, check: Callable[[Tensor], None] = lambda tensor: None) -> Any:
    """Convert ``value`` to dicts, lists, tensors, numbers and text, and drop all other objects from them.

    A part that is reached in several ways stays one part. ``check`` is called with every tensor before it is used.
    """
    kept = _plain(value, check, {})
    return None if kept is _DROPPED else kept


def _plain(value: Any, check: Callable[[Tensor], None], known: dict[int, tuple[Any, Any]]) -> Any:
    """Convert a value. ``known``: the values that have been converted, by their ids, each with its result."""
    if id(value) in known:
        return known[id(value)][1]
    result: Any
    match value:
        case Tensor():
            check(value)
            result = value.detach().as_subclass(Tensor)
        case _Array():
            result = _DROPPED if value.tensor is None else value.tensor
        case bytes() | bytearray():
            result = bytes(value).decode("utf-8", "replace")
        case None | bool() | int() | float() | str():
            return value
        case dict():
            result = {}
            known[id(value)] = (value, result)
            for key, part in value.items():
                name = _text(key) if isinstance(key, bytes) else key
                if isinstance(name, str | int | float):
                    kept = _plain(part, check, known)
                    if kept is not _DROPPED:
                        result[name] = kept
        case list() | tuple() | set():
            result = []
            known[id(value)] = (value, result)
            result += (kept for part in value if (kept := _plain(part, check, known)) is not _DROPPED)
        case _:
            return _DROPPED
    known[id(value)] = (value, result)
    return result

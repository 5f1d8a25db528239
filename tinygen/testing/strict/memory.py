"""Arrays' memory: what goes into a kernel of the pretended device and what comes out of one."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

PYTHON = (bool, int, float, complex)
_SUPPORTED = "?bhilqBHILQefdFD"


def supported(dtype: Any) -> np.dtype:
    """A dtype that CuPy has.

    Raises:
        ValueError: CuPy has it not (objects, strings, long double).
    """
    found = np.dtype(dtype)
    if found.char not in _SUPPORTED or found.byteorder == ">":
        raise ValueError(f"Unsupported dtype {found}")
    return found


def quiet() -> Any:
    """Division by zero, overflow and the like say nothing on a GPU."""
    return np.errstate(all="ignore")


class Memory:
    """What an array is made of; its methods are in array.py and arithmetic.py.

    Attributes:
        base: the array that owns the memory; None where this one does.
    """

    __slots__ = ("_raw", "base", "__weakref__")

    _raw: np.ndarray
    base: Any


_array_class: list[type] = [Memory]


def define(array_class: type) -> type:
    """Name the class of which results are made."""
    _array_class[0] = array_class
    return array_class


def make(raw: np.ndarray, base: Any) -> Any:
    """An array around a NumPy array."""
    out: Any = object.__new__(_array_class[0])
    out._raw = raw
    out.base = base
    return out


def owned(raw: np.ndarray) -> Any:
    """An array that owns new memory, in the order that it has."""
    return make(raw if raw.base is None else raw.copy("K"), None)


def fresh(raw: Any) -> Any:
    """A result of CuPy's kernels: new memory in C order, of no axes where NumPy gives a scalar."""
    raw = np.asarray(raw, order="C")
    return make(raw if raw.base is None else raw.copy(), None)


def wrap(raw: np.ndarray, *sources: Memory) -> Any:
    """A view where the memory is one of the sources', else a result."""
    if raw.base is not None:
        root = _root(raw)
        for source in sources:
            if _root(source._raw) is root:
                return make(raw, source if source.base is None else source.base)
    return fresh(raw)


def _root(raw: np.ndarray) -> np.ndarray:
    while isinstance(raw.base, np.ndarray):
        raw = raw.base
    return raw


def operand(x: Any) -> Any:
    """What a kernel takes: the NumPy array inside a device array, or a scalar.

    Raises:
        TypeError: it is neither, a host array first of all.
    """
    if isinstance(x, Memory):
        return x._raw
    if number(x):
        return x
    raise TypeError(f"Unsupported type {type(x)}")


def number(x: Any) -> bool:
    """Whether x is a Python number or a NumPy scalar, which kernels take."""
    return type(x) in PYTHON or isinstance(x, np.generic)


def inside(x: Any) -> Any:
    """The NumPy array inside x; None where x is no device array."""
    return x._raw if isinstance(x, Memory) else None


def binary(function: Any, a: Any, b: Any) -> Any:
    """An operator's result. A host array is left to NumPy, which asks the device array, which refuses."""
    for x in (a, b):
        if not isinstance(x, Memory) and not number(x):
            return NotImplemented
    with quiet():
        return fresh(function(operand(a), operand(b), order="C"))


def in_place(function: Any, a: Memory, b: Any) -> Any:
    """``a += b`` and the like.

    Raises:
        ValueError: b would broadcast a.
        TypeError: the result does not fit a's kind of dtype.
    """
    if np.broadcast_shapes(a._raw.shape, np.shape(operand(b))) != a._raw.shape:
        raise ValueError("Out shape is mismatched")
    with quiet():
        function(a._raw, operand(b), out=a._raw, casting="same_kind")
    return a


def into(raw: Any, out: Any) -> Any:
    """A result, or ``out`` with the result in it."""
    if out is None:
        return fresh(raw)
    if not isinstance(out, Memory):
        raise TypeError("Output arguments type must be cupy.ndarray")
    if out._raw.shape != np.shape(raw):
        raise ValueError("Out shape is mismatched")
    np.copyto(out._raw, raw, casting="unsafe")
    return out


def typed(raw: Any, dtype: Any) -> Any:
    """In a dtype, if one is asked for."""
    return raw if dtype is None else raw.astype(dtype)


def one_value(value: Any, dtype: np.dtype) -> np.ndarray:
    """What a slice can be filled with from the host: one number."""
    raw = np.asarray(value, dtype=dtype)
    if raw.shape != ():
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    return raw


def without_copy(raw: np.ndarray, shape: Any, order: Any = "C") -> np.ndarray:
    """A view of another shape.

    Raises:
        ValueError: there is none.
    """
    out = raw.reshape(shape, order=order)
    if raw.size and not np.may_share_memory(out, raw):
        raise ValueError("Unable to avoid creating a copy while reshaping.")
    return out


def stable(kind: Any) -> None:
    """Refuse kinds of sorting that CuPy has not."""
    if kind is not None and kind != "stable":
        raise ValueError("kind can only be None or 'stable'")


def garbage(dtype: np.dtype) -> Any:
    """What memory holds that nobody has written to."""
    return np.nan if dtype.kind in "fc" else True if dtype.kind == "b" else np.iinfo(dtype).max


def complain_numpy(name: str) -> NoReturn:
    """Refuse a NumPy function that was called by its name."""
    raise TypeError(
        f"numpy.{name} was called on an array of the device; ask array_module(x) for the library that x belongs to"
    )

"""Reading and writing ``x[index]`` as CuPy does, on the NumPy arrays inside.

Where CuPy differs from NumPy (cupy/_core/_routines_indexing.pyx, 14.2):

- an integer array that points outside an axis wraps around it; NumPy raises. (A plain integer outside raises in both.)
- where an integer array names one place twice with different values, which of them stays is undefined. Here such a
  place is poisoned: NaN, or the least (unsigned: greatest) integer, so that no test passes on NumPy's last-one-wins.
- a host array cannot be assigned to a slice.
- every result is an array, of no axes where NumPy gives a scalar.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np


class Index(NamedTuple):
    """An index expression that NumPy reads as CuPy would.

    Attributes:
        parts: the expression, integer arrays wrapped around their axes.
        arrays: whether integer or boolean arrays are in it, so that reading copies.
        mask: whether boolean arrays are in it, so that the host must learn how many are true.
    """

    parts: tuple
    arrays: bool
    mask: bool


def prepare(index: Any, shape: tuple[int, ...], unwrap: Any) -> Index:
    """Read an index expression for an array of a shape; ``unwrap`` gives the NumPy array inside a device array.

    Raises:
        IndexError: it does not fit.
        TypeError: a slice's bound is not an integer.
    """
    parts = [_part(part, unwrap) for part in (index if isinstance(index, tuple) else (index,))]
    used = sum(_axes(part) for part in parts)
    if used > len(shape):
        raise IndexError(f"too many indices for array: array is {len(shape)}-dimensional, but {used} were indexed")
    if sum(part is Ellipsis for part in parts) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    axis = 0
    for i, part in enumerate(parts):
        if isinstance(part, np.ndarray) and part.dtype.kind != "b":
            n = shape[axis]
            if n == 0 and part.size:
                raise IndexError("cannot do a non-empty take from an empty axes.")
            parts[i] = np.asarray(part.astype("int64") % n) if n else part
        axis += len(shape) - used if part is Ellipsis else _axes(part)
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    return Index(tuple(parts), bool(arrays), any(part.dtype.kind == "b" for part in arrays))


def _part(part: Any, unwrap: Any) -> Any:
    if part is None or part is Ellipsis or isinstance(part, slice):
        return part
    raw = unwrap(part)
    if raw is None:
        if not isinstance(part, (list, tuple, np.ndarray, bool, np.bool_)):
            try:
                return operator.index(part)
            except TypeError:
                raise IndexError(
                    "only integers, slices (`:`), ellipsis (`...`), numpy.newaxis (`None`) and integer or boolean "
                    f"arrays are valid indices, got {type(part).__name__}"
                ) from None
        raw = np.asarray(part)  # lists and host arrays are copied to the device
        if isinstance(part, (list, tuple)) and raw.size == 0:
            raw = raw.astype("int32")
    if raw.dtype.kind not in "biu":
        raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {raw.dtype.type})")
    return raw


def _axes(part: Any) -> int:
    """How many axes of the array a part of the index takes."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1


def assign(raw: np.ndarray, index: Index, value: np.ndarray) -> None:
    """``raw[index] = value``, with places poisoned that are given two different values."""
    value = value.astype(raw.dtype)
    target = raw[index.parts]
    while value.ndim > target.ndim and value.shape[0] == 1:
        value = value[0]
    raw[index.parts] = value
    if not index.arrays:
        return
    places = np.arange(raw.size).reshape(raw.shape)[index.parts]
    written = np.broadcast_to(value, places.shape).ravel()
    unique, first, which, count = np.unique(places, return_index=True, return_inverse=True, return_counts=True)
    if count.max(initial=1) == 1:
        return
    expected = written[first[which.ravel()]]
    same = written == expected
    undefined = np.zeros(unique.size, dtype=bool)
    undefined[which.ravel()[~same]] = True
    where = np.unravel_index(unique[undefined], raw.shape)
    raw[where] = _poison(raw, where)


def _poison(raw: np.ndarray, where: Any) -> Any:
    """A value that no test takes for a right one."""
    if raw.dtype.kind in "fc":
        return np.nan
    if raw.dtype.kind == "b":
        return ~raw[where]
    limits = np.iinfo(raw.dtype)
    return limits.max if raw.dtype.kind == "u" else limits.min

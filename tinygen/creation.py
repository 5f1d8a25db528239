"""Tensors from numbers, lists and arrays, and tensors filled by a rule.

Where no dtype is named: Python floats give the default dtype (float32), Python integers int64, Python booleans
bool, and arrays keep theirs. Where no device is named, the default device. Source: ``torch.NAME``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen.backend import (
    as_dtype,
    get_default_device,
    get_default_dtype,
    is_array,
    module_for,
    move,
)
from tinygen.tensor import Tensor, wrap


def tensor(data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A new leaf tensor with a copy of ``data``: numbers, nested lists of them, an array or a tensor.

    Python floats become the default dtype, also in lists with integers among them; arrays keep their dtype and,
    unless one is named, their device.

    Raises:
        ValueError: the nested lists are ragged.
        TypeError: data holds something that is not a number, or requires_grad is asked of integers.

    Source: ``torch.tensor``.
    """
    if isinstance(data, Tensor):
        data = data.data
    if is_array(data):
        array = data.copy()
        if device is None and get_default_device() != "cpu" and isinstance(array, np.ndarray):
            device = get_default_device()
    else:
        array = _from_python(data, dtype)
        device = get_default_device() if device is None else device
    if array.dtype.kind not in "biufc":
        raise TypeError(f"tensor: expected numbers, got data of type {array.dtype}")
    if not array.dtype.isnative:  # as files store it; the sweep compares dtypes
        array = array.astype(array.dtype.newbyteorder("="))
    if dtype is not None:
        array = array.astype(as_dtype(dtype))
    return wrap(array if device is None else move(array, device)).requires_grad_(requires_grad)


def _from_python(data: Any, dtype: Any = None) -> np.ndarray:
    """Python numbers and lists as an array, floats in the default dtype unless one is named."""
    data = _without_tensors(data)
    try:
        array = np.array(data)
    except ValueError as error:
        raise ValueError(f"tensor: the lists are ragged, or hold no numbers: {error}") from error
    if array.size == 0 and array.ndim:
        return array.astype(get_default_dtype())
    if dtype is not None:
        return array  # to be converted once: a detour through float32 would cost float64 its digits
    if array.dtype == np.float64 and not _holds_float64(data):
        return array.astype(get_default_dtype())
    if array.dtype == np.complex128 and not _holds_float64(data):
        return array.astype(np.result_type(get_default_dtype(), 1j))
    return array


def _without_tensors(data: Any) -> Any:
    """The nested lists with NumPy arrays in place of tensors; one that requires grad refuses, and says so."""
    if isinstance(data, (list, tuple)):
        return [_without_tensors(x) for x in data]
    return data.numpy() if isinstance(data, Tensor) else data


def _holds_float64(data: Any) -> bool:
    """Whether a float64 NumPy number or array stands somewhere in the lists."""
    if isinstance(data, (list, tuple)):
        return any(_holds_float64(x) for x in data)
    return isinstance(data, (np.ndarray, np.generic)) and data.dtype in (np.float64, np.complex128)


def as_tensor(data: Any, dtype: Any = None, device: str | None = None) -> Tensor:
    """``data`` as a tensor, without a copy where it is a tensor or an array of the right dtype and device.

    Raises:
        ValueError, TypeError: as :func:`tensor`.

    Source: ``torch.as_tensor``.
    """
    if not isinstance(data, Tensor):
        if not is_array(data) or data.dtype.kind not in "biufc" or not data.dtype.isnative:
            return tensor(data, dtype, device)
        if device is None and isinstance(data, np.ndarray):
            device = get_default_device()
        data = wrap(data)
    return data.to(dtype=dtype, device=device)


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """The tensor that shares an array's memory. Source: ``torch.from_numpy``.

    Raises:
        TypeError: it is not a NumPy array of numbers in the machine's byte order.
    """
    if not isinstance(ndarray, np.ndarray) or ndarray.dtype.kind not in "biufc":
        raise TypeError(f"from_numpy: expected a NumPy array of numbers, got {type(ndarray).__name__}")
    if not ndarray.dtype.isnative:
        raise TypeError(f"from_numpy: {ndarray.dtype} is not in this machine's byte order; tg.tensor(...) converts it")
    return wrap(ndarray)


def _size(size: tuple) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else tuple(size)


def _library(device: str | None) -> Any:
    return module_for(get_default_device() if device is None else device)


def _made(array: Any, device: str | None, requires_grad: bool) -> Tensor:
    """The tensor on the device asked for: libraries make arrays on the current GPU, whichever was named."""
    return wrap(move(array, get_default_device() if device is None else device)).requires_grad_(requires_grad)


def zeros(*size: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """0 everywhere, of shape ``size``."""
    return full(_size(size), 0.0, dtype or get_default_dtype(), device, requires_grad)


def ones(*size: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """1 everywhere, of shape ``size``."""
    return full(_size(size), 1.0, dtype or get_default_dtype(), device, requires_grad)


def full(
    size: Any, fill_value: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """``fill_value`` everywhere, of shape ``size``; its Python type gives the dtype where none is named."""
    if dtype is None:
        dtype = {bool: np.bool_, int: np.int64}.get(type(fill_value), get_default_dtype())
    size = (size,) if isinstance(size, int) else tuple(size)
    return _made(_library(device).full(size, fill_value, dtype=as_dtype(dtype)), device, requires_grad)


def arange(
    start: Any,
    end: Any = None,
    step: Any = 1,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, … below end (above it for a negative step); ``arange(end)`` starts at 0.

    int64 for integers, else the default dtype.

    Raises:
        ValueError: step is 0 or leads away from end.
    """
    start, end = (0, start) if end is None else (start, end)
    if step == 0 or (end - start) * step < 0:
        raise ValueError(f"arange: step={step} does not lead from {start} to {end}")
    if dtype is None:
        dtype = np.int64 if all(isinstance(v, (int, np.integer)) for v in (start, end, step)) else get_default_dtype()
    n = math.ceil((end - start) / step)
    if as_dtype(dtype).kind in "iu":
        array = _library(device).arange(start, end, step, dtype=as_dtype(dtype))
    else:
        array = (_library(device).arange(n, dtype="float64") * float(step) + float(start)).astype(as_dtype(dtype))
    return _made(array, device, requires_grad)


def linspace(
    start: float,
    end: float,
    steps: int,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """``steps`` numbers from start to end, both included, at equal distances.

    Raises:
        ValueError: steps is negative.
    """
    if steps < 0:
        raise ValueError(f"linspace: expected steps ≥ 0, got {steps}")
    array = _library(device).linspace(float(start), float(end), steps, dtype="float64")
    return _made(array.astype(as_dtype(dtype or get_default_dtype())), device, requires_grad)


def eye(
    n: int, m: int | None = None, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """The identity: 1 where row = column, else 0, of shape (n, m or n)."""
    array = _library(device).eye(n, n if m is None else m, dtype=as_dtype(dtype or get_default_dtype()))
    return _made(array, device, requires_grad)


def full_like(
    input: Tensor, fill_value: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """``fill_value`` everywhere, in the shape, dtype and device of ``input`` unless others are named."""
    return full(input.shape, fill_value, dtype or input.dtype, device or input.device, requires_grad)


def zeros_like(input: Tensor, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """0 everywhere, in the shape, dtype and device of ``input`` unless others are named."""
    return full_like(input, 0, dtype, device, requires_grad)


def ones_like(input: Tensor, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """1 everywhere, in the shape, dtype and device of ``input`` unless others are named."""
    return full_like(input, 1, dtype, device, requires_grad)

"""The same numbers in another dtype, on another device, or in memory of their own.

Each of these is y = x as far as the dtypes agree, so the vjp brings g back: ∂L/∂x = g in x's dtype, on x's device.

Shapes: (*) → (*).

Source: ``torch.Tensor.NAME``.
"""

from __future__ import annotations

from typing import Any

from tinygen.backend import array_module, as_dtype, device, device_of, move
from tinygen.op import op
from tinygen.tensor import Tensor


@op
def _astype(input, dtype):
    """y = x in another dtype.    ∂L/∂x = g in x's."""
    return input.astype(dtype)


@_astype.vjp("input")
def _(g, input):
    return _astype(g, input.dtype)


@op
def _to_device(input, target):
    """y = x on another device.    ∂L/∂x = g on x's."""
    return move(input, target)


@_to_device.vjp("input")
def _(g, input):
    return _to_device(g, input.device)


def to(input: Tensor, *args: Any, dtype: Any = None, device: Any = None, copy: bool = False) -> Tensor:
    """x on another device, in another dtype, or both: ``x.to("cuda")``, ``x.to(tg.float64)``, ``x.to(other)``.

    The tensor itself where nothing changes and ``copy`` is not asked for. ∂L/∂x = g brought back.

    Raises:
        TypeError, ValueError: an argument is neither a dtype, a device nor a tensor.
        DeviceError: the device cannot be used.
    """
    for value in args:
        if isinstance(value, Tensor):
            dtype, device = value.dtype, value.device
        elif isinstance(value, str) and value.partition(":")[0] in ("cpu", "cuda"):
            device = value
        else:
            dtype = value
    y = input
    if device is not None and _elsewhere(y, device):
        y = _to_device(y, device)
    if dtype is not None and as_dtype(dtype) != y.dtype:
        y = _astype(y, as_dtype(dtype))
    return clone(y) if copy and y is input else y


def _elsewhere(x: Tensor, name: str) -> bool:
    target, here = device(name), device_of(x.data)
    return target != here and not (target.type == here.type and target.index is None)


@op
def clone(input):
    """y = a copy of x in memory of its own, in the same order of axes.    ∂L/∂x = g."""
    return input.copy(order="K")


@clone.vjp("input")
def _(g):
    return g


@op
def contiguous(input):
    """y = x with its numbers laid out in memory last axis fastest; x's own memory where they are.    ∂L/∂x = g."""
    return array_module(input).ascontiguousarray(input) if input.ndim else input


@contiguous.vjp("input")
def _(g):
    return g

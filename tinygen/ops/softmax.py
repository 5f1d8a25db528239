"""softmax and log_softmax: numbers of one axis turned into probabilities, and into their logarithms.

Both compute with x − max x, which changes neither (the common factor cancels) and lets no exponential overflow.

Shapes: (*) → (*).

Source: ``torch.nn.functional.NAME``; Bridle, *Probabilistic interpretation of feedforward classification network
outputs* (1990).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen.backend import array_module, as_dtype
from tinygen.kernels.arrays import empty_like
from tinygen.kernels.blocks import along_first_into
from tinygen.kernels.channels import sum_product
from tinygen.kernels.gpu import rows
from tinygen.op import op
from tinygen.ops.elementwise import exp
from tinygen.ops.reduction import axes
from tinygen.promotion import floating
from tinygen.tensor import Tensor

_SHORT = 512  # numbers in a row
_MILD = 40.0  # e^80, the largest quotient of two e^x, is finite in float32, and its inverse is no denormal number


def softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """y_i = η·e^(x_i) over an axis, where η = 1/Σ_j e^(x_j) normalises: y_i > 0 and Σ_i y_i = 1.

    ∂y_i/∂x_j = y_i(δ_ij − y_j), so

        ∂L/∂x_j = Σ_i g_i y_i (δ_ij − y_j) = y_j (g_j − Σ_i g_i y_i).

    Shapes: (*) → (*).

    Args:
        dim: the axis over which the results sum to 1. (PyTorch's deprecated guess for a missing dim is not here.)
        dtype: convert x to it first.

    Returns:
        NaN along an axis that is −∞ throughout, as in PyTorch.

    Raises:
        IndexError: dim is out of range.
    """
    return _softmax(*_prepared(input, dim, dtype), False)


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """y_i = ln softmax(x)_i = x_i − ln Σ_j e^(x_j) over an axis; finite where softmax itself rounds to 0.

    ∂y_i/∂x_j = δ_ij − e^(y_j), so

        ∂L/∂x_j = g_j − e^(y_j) Σ_i g_i.

    Arguments, shapes and errors as :func:`softmax`.
    """
    return _log_softmax(*_prepared(input, dim, dtype))


def safe_softmax(input: Tensor, dim: int) -> Tensor:
    """softmax, but 0 along an axis that is −∞ throughout: attention with nothing to attend to."""
    return _softmax(*_prepared(input, dim, None), True)


def _prepared(input: Tensor, dim: int, dtype: Any) -> tuple[Tensor, int | None]:
    """x in its dtype, and the axis counted from 0 (None for the one number of a 0-d tensor)."""
    if not isinstance(dim, int):
        raise TypeError(f"softmax: expected dim as an integer, got {dim!r}")
    if dtype is not None:
        input = input.to(as_dtype(dtype))
    return input, (axes(dim, input.ndim) or (None,))[0]


def _largest(x: Any, dim: int | None) -> Any:
    """The largest real part along the axis, of length 1 there.

    NumPy's own maximum spends most of its time between the rows where these are short: here both halves of all rows
    are compared at once, and so on with what is left.
    """
    x = x.real
    if type(x) is not np.ndarray or dim is None or dim < x.ndim - 1 or not 0 < x.shape[-1] <= _SHORT:
        return (x.max if x.size else x.sum)(axis=dim, keepdims=True)
    while (n := x.shape[-1]) > 1:
        half = n // 2
        larger = np.maximum(x[..., :half], x[..., half : 2 * half])
        if n % 2:
            np.maximum(larger[..., :1], x[..., -1:], out=larger[..., :1])
        x = larger
    return x


def _mild(x: Any) -> bool:
    """Whether eˣ is so far from overflow and underflow, also as a sum or quotient, that no maximum need be subtracted.

    Asked of NumPy arrays alone: on a GPU the host does not look at numbers. NaN is not mild.
    """
    return (
        type(x) is np.ndarray and x.dtype.char in "fd" and x.size > 0 and bool(x.max() <= _MILD and x.min() >= -_MILD)
    )


def _sum(y: Any, dim: int | None) -> Any:
    """Σ along the axis, of length 1 there; of short rows as a product with a column of ones."""
    if type(y) is not np.ndarray or dim is None or dim < y.ndim - 1 or not 0 < y.shape[-1] <= _SHORT:
        return y.sum(axis=dim, keepdims=True)
    n = y.shape[-1]
    return (y.reshape(-1, n) @ np.ones((n, 1), y.dtype)).reshape(*y.shape[:-1], 1)


def _in_blocks(f: Callable, dim: int | None, *arrays: Any, gpu: str = "", numbers: tuple[int, ...] = ()) -> Any:
    """The z that f(z, *arrays) writes; block by block of the first axis (kernels/blocks.py), where that is not dim.

    On a GPU the kernel ``gpu`` of kernels/gpu/rows.py, where that fits.
    """
    if type(arrays[0]) is not np.ndarray:
        made = rows.compute(array_module(arrays[0]), gpu, dim, *arrays, numbers=numbers)
        if made is not None:
            return made
    z = empty_like(arrays[0])
    if dim:
        return along_first_into(z, f, *arrays)
    f(z, *arrays)
    return z


@op
def _softmax(input, dim, safe):
    """y = η·eˣ over ``dim``.    ∂L/∂x = y(g − Σ g·y). See softmax."""
    x = floating(input)
    xp = array_module(x)

    def block(y, x):
        if _mild(x):
            xp.exp(x, out=y)
            y /= _sum(y, dim)
            return
        m = _largest(x, dim)
        if safe:
            m = xp.where(m == -xp.inf, 0, m)
        xp.subtract(x, m, out=y)
        xp.exp(y, out=y)
        total = _sum(y, dim)
        y /= xp.where(total == 0, 1, total) if safe else total

    return _in_blocks(block, dim, x, gpu="softmax", numbers=(int(safe),))


@_softmax.vjp("input")
def _(g, y, dim):
    return _softmax_vjp(g, y, dim)


@op
def _softmax_vjp(g, y, dim):
    """z = y(g − s), s = Σ g·y over ``dim``.

    dz = dy (g − s) + y(dg − Σ dg·y − Σ g·dy), so with G = ∂L/∂z

        ∂L/∂g = y·G − y Σ y·G = y(G − Σ G·y),  the same op: the Jacobian of softmax is symmetric;
        ∂L/∂y = G(g − s) − g Σ G·y.
    """
    xp = array_module(y)

    def block(z, g, y):
        s = g * y if dim is None else xp.expand_dims(sum_product((dim,), g, y), dim)
        xp.subtract(g, s, out=z)
        z *= y

    return _in_blocks(block, dim, g, y, gpu="softmax_vjp")


@_softmax_vjp.vjp("g")
def _(G, y, dim):
    return _softmax_vjp(G, y, dim)


@_softmax_vjp.vjp("y")
def _(G, g, y, dim):
    return G * (g - _total(g * y, dim)) - g * _total(G * y, dim)


@op
def _log_softmax(input, dim):
    """y = x − ln Σ eˣ over ``dim``.    ∂L/∂x = g − e^y Σ g. See log_softmax."""
    x = floating(input)
    xp = array_module(x)

    def block(y, x):
        xp.subtract(x, _largest(x, dim), out=y)
        if x.size:
            y -= xp.log(_sum(xp.exp(y), dim))

    return _in_blocks(block, dim, x, gpu="log_softmax")


@_log_softmax.vjp("input")
def _(g, y, dim):
    return _log_softmax_vjp(g, y, dim)


@op
def _log_softmax_vjp(g, y, dim):
    """z = g − e^y Σ g over ``dim``.

    dz = dg − e^y Σ dg − e^y dy Σ g, so with G = ∂L/∂z:  ∂L/∂g = G − Σ G·e^y  and  ∂L/∂y = −G·e^y Σ g.
    """
    xp = array_module(y)

    def block(z, g, y):
        xp.exp(y, out=z)
        z *= -_sum(g, dim)
        z += g

    return _in_blocks(block, dim, g, y, gpu="log_softmax_vjp")


@_log_softmax_vjp.vjp("g")
def _(G, y, dim):
    return G - _total(G * exp(y), dim)


@_log_softmax_vjp.vjp("y")
def _(G, g, y, dim):
    return -G * exp(y) * _total(g, dim)


def _total(x: Tensor, dim: int | None) -> Tensor:
    return x.sum(dim, keepdim=True)

"""softmax and log_softmax: numbers of one axis turned into probabilities, and into their logarithms.

Both compute with x − max x, which changes neither (the common factor cancels) and lets no exponential overflow.
Source: ``torch.nn.functional.NAME``; Bridle, *Probabilistic interpretation of feedforward classification network
outputs* (1990).
"""

from __future__ import annotations

from typing import Any

from tinygen.backend import array_module, as_dtype
from tinygen.op import op
from tinygen.ops.elementwise import exp
from tinygen.ops.reduction import axes
from tinygen.promotion import floating
from tinygen.tensor import Tensor


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
    return (x.real.max if x.size else x.real.sum)(axis=dim, keepdims=True)


@op
def _softmax(input, dim, safe):
    """y = η·eˣ over ``dim``.    ∂L/∂x = y(g − Σ g·y). See softmax."""
    x = floating(input)
    xp = array_module(x)
    m = _largest(x, dim)
    if safe:
        m = xp.where(m == -xp.inf, 0, m)
    y = xp.exp(x - m)
    total = y.sum(axis=dim, keepdims=True)
    y /= xp.where(total == 0, 1, total) if safe else total
    return y


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
    s = (g * y).sum(axis=dim, keepdims=True)
    z = g - s
    z *= y
    return z


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
    y = x - _largest(x, dim)
    if x.size:
        y -= xp.log(xp.exp(y).sum(axis=dim, keepdims=True))
    return y


@_log_softmax.vjp("input")
def _(g, y, dim):
    return _log_softmax_vjp(g, y, dim)


@op
def _log_softmax_vjp(g, y, dim):
    """z = g − e^y Σ g over ``dim``.

    dz = dg − e^y Σ dg − e^y dy Σ g, so with G = ∂L/∂z:  ∂L/∂g = G − Σ G·e^y  and  ∂L/∂y = −G·e^y Σ g.
    """
    z = array_module(y).exp(y)
    z *= -g.sum(axis=dim, keepdims=True)
    z += g
    return z


@_log_softmax_vjp.vjp("g")
def _(G, y, dim):
    return G - _total(G * exp(y), dim)


@_log_softmax_vjp.vjp("y")
def _(G, g, y, dim):
    return -G * exp(y) * _total(g, dim)


def _total(x: Tensor, dim: int | None) -> Tensor:
    return x.sum(dim, keepdim=True)

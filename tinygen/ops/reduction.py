"""Reductions: sums, means, extremes and norms over axes.

``dim`` is an axis, several, or None for all of them; negative axes count from the end. The reduced axes vanish,
or stay with length 1 under ``keepdim=True``. Below, x̂ stands for a reduced result put back on the axes of x.

Shapes: (…, n, …) → (…, …), or (…, 1, …) under keepdim; without ``dim`` (*) → (). Source: ``torch.NAME``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinygen.backend import array_module, as_dtype
from tinygen.kernels.channels import row_sum, sum_product
from tinygen.op import op
from tinygen.ops.conversion import clone
from tinygen.ops.elementwise import abs as absolute
from tinygen.ops.elementwise import exp, maximum, minimum, sign, sqrt, where
from tinygen.ops.indexing import gather
from tinygen.ops.shape import _broadcast_to, broadcast_to, cat, expand_dims, flip, narrow, normal_dim, squeeze
from tinygen.promotion import floating
from tinygen.tensor import Tensor

Dims = int | tuple[int, ...] | list[int] | None


class ValuesIndices(NamedTuple):
    """What ``max(dim)`` and ``min(dim)`` return: the extremes and where they stand."""

    values: Tensor
    indices: Tensor


def axes(dim: Dims, ndim: int) -> tuple[int, ...]:
    """The axes that ``dim`` names in a tensor of ``ndim`` axes, as numbers from 0; an empty list names all.

    Raises:
        IndexError: one is out of range.
        ValueError: one is named twice.
        TypeError: one is not an integer.
    """
    if dim is None or dim == () or dim == []:
        return tuple(range(ndim))
    named = dim if isinstance(dim, (tuple, list)) else (dim,)
    found = []
    for d in named:
        if isinstance(d, bool) or not hasattr(d, "__index__"):
            raise TypeError(f"dim: expected an axis, or several, got {dim!r}")
        if not -(ndim or 1) <= d < (ndim or 1):  # a 0-d tensor takes dim 0 and −1, as in PyTorch
            raise IndexError(f"dim={d} is out of range for a tensor of {ndim} axes")
        found.append(d % (ndim or 1))
    if len(set(found)) < len(found):
        raise ValueError(f"dim={dim} names an axis twice")
    return tuple(found) if ndim else ()


def count(shape: tuple[int, ...], dim: Dims) -> int:
    """How many numbers go into each result of a reduction over ``dim``."""
    return math.prod(shape[d] for d in axes(dim, len(shape)))


# ------------------------------------------------------------------------------------------------ sums


@op
def _sum(input, dim, keepdim):
    """y = Σ x over the axes ``dim``.    ∂L/∂x = ĝ: each summand gets its sum's gradient. Shape as in sum."""
    if input.dtype.kind in "biu":
        return input.sum(axis=axes(dim, input.ndim), keepdims=keepdim, dtype="int64")
    if dim is None and not keepdim:
        return input.sum()
    return input.sum(axis=axes(dim, input.ndim), keepdims=keepdim)


@_sum.vjp("input")
def _(g, input_shape, dim, keepdim):
    return _spread(g, input_shape, dim, keepdim)


def _spread(g: Tensor, shape: tuple[int, ...], dim: Dims, keepdim: bool) -> Tensor:
    """A reduced result back on the axes that it was reduced over."""
    if dim is None and not keepdim:
        return g if g.data.shape == shape else _broadcast_to(g, shape)
    return broadcast_to(g if keepdim else expand_dims(g, axes(dim, len(shape))), shape)


def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """y = Σ x over the axes ``dim``; integers and booleans are summed in int64.

    ∂L/∂x = ĝ: each summand gets the gradient of the sum that it went into.

    Shapes: the axes ``dim`` vanish, or have length 1 under keepdim. An empty sum is 0.

    Args:
        dtype: convert x to it first.

    Raises:
        IndexError: an axis is out of range.
    """
    return _sum(input if dtype is None else input.to(as_dtype(dtype)), dim, keepdim)


@op
def sum_to_size(input, size):
    """y = x summed down to the shape ``size``, the adjoint of broadcasting: ⟨sum_to_size(x), y⟩ = ⟨x, broadcast_to(y)⟩.

    ∂L/∂x = g broadcast to x's shape.

    Raises:
        ValueError: ``size`` does not broadcast to x's shape.
    """
    size = tuple(size)
    extra = input.ndim - len(size)
    ones = tuple(i + extra for i, n in enumerate(size) if n == 1 and input.shape[i + extra] != 1)
    fits = [n in (1, m) for n, m in zip(size, input.shape[extra if extra > 0 else 0 :])]
    if extra < 0 or False in fits:
        raise ValueError(f"the size {size} does not broadcast to {input.shape}")
    if extra > 0 and size == input.shape[extra:] and (found := row_sum(input, extra)) is not None:
        return found
    positions = tuple(range(2, input.ndim))
    if positions and ones[-len(positions) :] == positions:  # the gradient of one number for each channel
        input = sum_product(positions, input)
        ones = ones[: -len(positions)]
    summed = input.sum(axis=(*range(extra), *ones), keepdims=True)
    return summed.reshape(size)


@sum_to_size.vjp("input")
def _(g, input_shape):
    return broadcast_to(g, input_shape)


def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """y = (1/n) Σ x over the n numbers of the axes ``dim``; NaN where n = 0.    ∂L/∂x = ĝ/n.

    Args:
        dtype: convert x to it first.

    Raises:
        TypeError: x holds integers or booleans, as in PyTorch; convert it first.
    """
    input = input if dtype is None else input.to(as_dtype(dtype))
    if input.dtype.kind not in "fc":
        raise TypeError(f"mean: expected floating numbers, got {input.dtype}; use x.to(tg.float32).mean()")
    return _mean(input, dim, keepdim)


@op
def _mean(input, dim, keepdim):
    """y = (1/n) Σ x over the axes ``dim``.    ∂L/∂x = ĝ/n."""
    if count(input.shape, dim) == 0:
        return input.sum(axis=axes(dim, input.ndim), keepdims=keepdim) * math.nan  # 0/0, without NumPy's warnings
    return input.mean(axis=axes(dim, input.ndim), keepdims=keepdim)


@_mean.vjp("input")
def _(g, input_shape, dim, keepdim):
    return _spread(g / (count(input_shape, dim) or 1), input_shape, dim, keepdim)


def var(
    input: Tensor, dim: Dims = None, correction: int = 1, keepdim: bool = False, unbiased: bool | None = None
) -> Tensor:
    """s² = Σ (x − μ)² / (n − correction), with μ the mean over ``dim``.

    The mean is subtracted before squaring (two passes), so near-equal float32 numbers keep their variance,
    which E[x²] − μ² would lose. ∂L/∂x = 2ĝ(x − μ)/(n − correction): the terms through μ cancel, as Σ(x − μ) = 0.

    Args:
        correction: 1 for the unbiased estimate, 0 for the mean square deviation.
        unbiased: PyTorch's older spelling of correction = 1 or 0.

    Returns:
        NaN or ∞ where n ≤ correction, as in PyTorch.

    Raises:
        TypeError: x does not hold floating numbers.
    """
    if unbiased is not None:
        correction = int(unbiased)
    deviation = input - mean(input, dim, keepdim=True)
    n = count(input.shape, dim)
    # Of one number the sum is 0, and 0/0 is NaN; of more it is s/0 = ∞.
    scale = 1 / (n - correction) if n > correction else math.inf if n > 1 else math.nan
    return sum(deviation * deviation, dim, keepdim) * scale


def std(
    input: Tensor, dim: Dims = None, correction: int = 1, keepdim: bool = False, unbiased: bool | None = None
) -> Tensor:
    """s = √var.    ∂L/∂x = ĝ(x − μ)/((n − correction)·s), and 0 where s = 0. Arguments and errors as :func:`var`."""
    return _root(var(input, dim, correction, keepdim, unbiased), 0.5)


def prod(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """y = Π x over the axis ``dim``, or over all numbers.

    ∂L/∂xᵢ = ĝ·Π_{j≠i} xⱼ. Dividing y by xᵢ would fail at zeros; a balanced tree of pairwise products needs no
    division, and the product rule of each pair gives all derivatives, zeros or not.

    Shapes: as sum. An empty product is 1; integers and booleans are multiplied in int64.

    Raises:
        TypeError: dim names several axes, as in PyTorch.
        IndexError: dim is out of range.
    """
    if input.dtype.kind in "biu":
        input = input.to("int64")
    if dim is None:
        ndim = input.ndim
        y = prod(input.reshape(-1), 0)
        return y.reshape((1,) * ndim) if keepdim else y
    if isinstance(dim, (tuple, list)):
        raise TypeError(f"prod: expected one axis or None, got dim={dim!r}")
    (axis,) = axes(dim, input.ndim) or (0,)
    if input.ndim == 0:
        return input * 1
    n = input.shape[axis]
    if n == 0:
        return sum(input, axis, keepdim) + 1
    while n > 1:
        half = n // 2
        pairs = narrow(input, axis, 0, half) * narrow(input, axis, half, half)
        input = cat([pairs, narrow(input, axis, n - 1, 1)], axis) if n % 2 else pairs
        n = half + n % 2
    return input if keepdim else squeeze(input, axis)


@op
def _cumsum(input, dim):
    """y_i = Σ_{j≤i} x_j along ``dim``.    ∂L/∂x_j = Σ_{i≥j} g_i: a cumulative sum from the end."""
    if input.dtype.kind in "biu":
        return input.cumsum(axis=dim, dtype="int64")
    return input.cumsum(axis=dim)


@_cumsum.vjp("input")
def _(g, dim):
    return flip(_cumsum(flip(g, dim), dim), dim)


def cumsum(input: Tensor, dim: int) -> Tensor:
    """y_i = Σ_{j≤i} x_j along an axis.    ∂L/∂x_j = Σ_{i≥j} g_i.

    Raises:
        IndexError: dim is out of range.
    """
    if input.ndim == 0:
        axes(dim, 0)
        return sum(input)
    return _cumsum(input, normal_dim(dim, input.ndim, "cumsum"))


# -------------------------------------------------------------------------------------------- extremes


@op
def _amax(input, dim, keepdim):
    """y = max x over ``dim``.    ∂L/∂x = ĝ shared equally among the x that equal ŷ. See amax."""
    return input.max(axis=axes(dim, input.ndim), keepdims=keepdim)


@op
def _amin(input, dim, keepdim):
    """y = min x over ``dim``.    ∂L/∂x = ĝ shared equally among the x that equal ŷ. See amin."""
    return input.min(axis=axes(dim, input.ndim), keepdims=keepdim)


@_amax.vjp("input")
@_amin.vjp("input")
def _(g, y, input, dim, keepdim):
    at = (input == _spread(y, input.shape, dim, keepdim)).to(g.dtype)
    share = at / at.sum(dim, keepdim=True)
    return _spread(g, input.shape, dim, keepdim) * share


def amax(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """y = max x over the axes ``dim``.

    ∂L/∂x = ĝ at the maximum; k tied maxima get ĝ/k each (PyTorch's choice).

    Raises:
        ValueError: there is nothing to take the maximum of.
    """
    return _amax(input, dim, keepdim)


def amin(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """y = min x over the axes ``dim``.    Ties, gradient and errors as :func:`amax`."""
    return _amin(input, dim, keepdim)


def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """y = max x, of all of x; of one axis, with its indices; or of two tensors.

    ``max(x)`` shares the gradient among ties as :func:`amax`; ``max(x, dim)`` gives it to the index that it
    returns (the first), as PyTorch does; ``max(x, other)`` is :func:`maximum`.

    Returns:
        A Tensor, or with ``dim`` a named tuple (values, indices).
    """
    return _extreme(input, dim, keepdim, amax, argmax, maximum)


def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """y = min x, of all of x; of one axis, with its indices; or of two tensors. Otherwise as :func:`max`."""
    return _extreme(input, dim, keepdim, amin, argmin, minimum)


def _extreme(input: Tensor, dim: Any, keepdim: bool, all_of: Any, where_of: Any, of_two: Any) -> Any:
    if dim is None:
        return all_of(input)
    if isinstance(dim, Tensor):
        return of_two(input, dim)
    indices = where_of(input, dim, keepdim=True)
    values = gather(input, dim, indices) if input.ndim else clone(input)
    if not keepdim and input.ndim:
        values, indices = squeeze(values, dim), squeeze(indices, dim)
    return ValuesIndices(values, indices)


@op
def _argmax(input, dim, keepdim):
    """i = min {j : x_j = max x}. Not differentiable. See argmax."""
    return array_module(input).argmax(input, axis=dim, keepdims=keepdim)


@op
def _argmin(input, dim, keepdim):
    """i = min {j : x_j = min x}. Not differentiable. See argmin."""
    return array_module(input).argmin(input, axis=dim, keepdims=keepdim)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """i = min {j : x_j = max x}: the int64 index of the maximum (the first, where tied) along an axis, or in all of x.

    Not differentiable.

    Raises:
        ValueError: there is nothing to take the maximum of.
    """
    return _argmax(input, dim, keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """i = min {j : x_j = min x}: the int64 index of the (first) minimum. Otherwise as :func:`argmax`."""
    return _argmin(input, dim, keepdim)


@op
def _all(input, dim, keepdim):
    """y = x₁ ∧ x₂ ∧ …, true where all of x is. Not differentiable."""
    return input.all(axis=axes(dim, input.ndim), keepdims=keepdim)


@op
def _any(input, dim, keepdim):
    """y = x₁ ∨ x₂ ∨ …, true where any of x is. Not differentiable."""
    return input.any(axis=axes(dim, input.ndim), keepdims=keepdim)


def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """y = x₁ ∧ x₂ ∧ …: whether all numbers over the axes ``dim`` are true (not zero). Not differentiable."""
    return _all(input, dim, keepdim)


def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """y = x₁ ∨ x₂ ∨ …: whether any number over the axes ``dim`` is true (not zero). Not differentiable."""
    return _any(input, dim, keepdim)


# ------------------------------------------------------------------------------- logarithms and norms


@op
def _logsumexp(input, dim, keepdim):
    """y = m + ln Σ e^(x − m), m = max x.    ∂L/∂x = ĝ·e^(x − ŷ). See logsumexp."""
    xp = array_module(input)
    input = floating(input)
    over = axes(dim, input.ndim)
    if count(input.shape, dim) == 0:
        return input.sum(axis=over, keepdims=keepdim) - math.inf  # ln 0
    m = input.real.max(axis=over, keepdims=True)
    m = xp.where(xp.isfinite(m), m, 0)
    with np.errstate(divide="ignore"):  # ln 0 = −∞ where all are −∞
        with_axes = m + xp.log(xp.exp(input - m).sum(axis=over, keepdims=True))
    return with_axes if keepdim else with_axes.squeeze(over)


@_logsumexp.vjp("input")
def _(g, y, input, dim, keepdim):
    finite = where(y == -math.inf, 0.0, y)  # −∞ − −∞ would be NaN
    return _spread(g, input.shape, dim, keepdim) * exp(input - _spread(finite, input.shape, dim, keepdim))


def logsumexp(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """y = ln Σ eˣ over ``dim``, computed as m + ln Σ e^(x − m) with m = max x, so that nothing overflows.

    ∂L/∂x = ĝ·e^(x − ŷ) = ĝ·softmax(x). All −∞ gives −∞, and the gradient 0 (NaN in PyTorch); nothing gives −∞ too.

    Raises:
        IndexError: an axis is out of range.
    """
    return _logsumexp(input, dim, keepdim)


def norm(input: Tensor, p: float | str = "fro", dim: Dims = None, keepdim: bool = False) -> Tensor:
    """y = (Σ |x|ᵖ)^(1/p) over ``dim``: the p-norm of the numbers as one vector.

    ∂L/∂x = ĝ·sign(x)·(|x|/ŷ)^(p−1); for p = 2, ĝ·x/ŷ. At y = 0 the gradient is 0, a subgradient, where the formula
    would give 0/0.

    Args:
        p: any number; ``"fro"`` or 2 is Euclidean, 1 sums absolute values, 0 counts what is not zero, ±∞ the
            largest or smallest absolute value.

    Raises:
        TypeError: p is something else (PyTorch's ``"nuc"`` is not here).
    """
    if p == "fro":
        p = 2
    if not isinstance(p, (int, float)):
        raise TypeError(f"norm: expected p to be a number or 'fro', got {p!r}")
    if p == 2:
        return _root(sum(input * input, dim, keepdim), 0.5)
    size = absolute(input)
    if p == 1:
        return sum(size, dim, keepdim)
    if p == 0:
        return sum(sign(size), dim, keepdim)
    if math.isinf(p):
        return (amax if p > 0 else amin)(size, dim, keepdim)
    safe = where(size == 0, 1.0, size)
    return _root(sum(where(size == 0, 0.0 if p > 0 else math.inf, safe**p), dim, keepdim), 1 / p)


def _root(s: Tensor, power: float) -> Tensor:
    """s^power, with the value 0 and the derivative 0 at s = 0."""
    zero = s == 0
    safe = where(zero, 1.0, s)
    return where(zero, 0.0, sqrt(safe) if power == 0.5 else safe**power)

"""Resampling: the same picture with more or fewer pixels.

Every place o of the result reads a few places of the input along each axis, with fixed weights:

    nearest     y_o = x[i(o)]
    bilinear    y_o = (1 − λ) x[i] + λ x[i + 1]     along the columns' axis, then along the rows'

so y = A x with a constant matrix A that has one or two numbers in a row, and the vjp is Aᵀ. The two ops
``_resample`` (A, by reading) and ``_resample_adjoint`` (Aᵀ, as a matrix product) are each other's vjp. Nearest by a
whole factor s needs neither: it spreads each number over s places, and its adjoint sums s places
(:mod:`tinygen.ops.axis_windows`).

Shapes: (…, n, …) → (…, m, …), axis by axis. Source: ``torch.nn.functional.NAME``; Shi et al. 2016.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tinygen.backend import array_module, as_dtype
from tinygen.kernels.blocks import along_first
from tinygen.kernels.products import BLOCK
from tinygen.op import op
from tinygen.ops.axis_windows import AxisWindow, spread_windows
from tinygen.ops.conversion import clone, to
from tinygen.tensor import Tensor

# ---------------------------------------------------------------------------- where the places come from


def _sources(xp: Any, mode: str, n: int, m: int, step: float, dtype: Any) -> tuple[Any, Any, Any]:
    """For each place o of m on an axis of n: the place i, the place after it, and the weight λ of that one.

    nearest: i = ⌊o·step⌋ in float32, or float64 for ``dtype`` float64; PyTorch's numbers round so.
    bilinear: i + λ = (o + ½)·step − ½, the middles of pixels laid over each other, not below 0.
    corners: i + λ = o·step, the middles of the corner pixels laid over each other.
    """
    o = xp.arange(m)
    if mode == "nearest":
        i = xp.minimum(xp.floor((o.astype(dtype) * dtype.type(step)).astype("float32")).astype("int64"), n - 1)
        return i, i, None
    place = o * step if mode == "corners" else xp.maximum((o + 0.5) * step - 0.5, 0.0)
    i = xp.minimum(xp.floor(place), n - 1).astype("int64")
    return i, xp.minimum(i + 1, n - 1), xp.minimum(place - i, 1.0)


def _in_memory_order(f: Callable, x: Any, dim: int) -> Any:
    """f(x, dim) for an f that changes one axis, called with the axes in the order that they have in memory.

    So nothing is copied only to be put in order, and the result's axes lie in memory as x's do.
    """
    order = sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))
    y = f(x.transpose(order), order.index(dim % x.ndim))
    return y.transpose([order.index(d) for d in range(x.ndim)])


@op
def _resample(input, dim, mode, m, step, dtype):
    """y_o = (1 − λ_o) x[i_o] + λ_o x[i_o + 1] along one axis, or x[i_o].    ∂L/∂x = Aᵀ g: the adjoint."""
    xp = array_module(input)
    i, j, weight = _sources(xp, mode, input.shape[dim], m, step, dtype)

    def read(x: Any, axis: int) -> Any:
        y = xp.take(x, i, axis=axis)
        if weight is not None:
            λ = weight.astype(x.real.dtype).reshape(-1, *(1,) * (x.ndim - 1 - axis))
            y *= 1 - λ
            y += xp.take(x, j, axis=axis) * λ
        return y

    return along_first(lambda x: _in_memory_order(read, x, dim), input, leading=max(dim % input.ndim, 1))


@_resample.vjp("input")
def _(g, input_shape, dim, mode, step, dtype):
    return _resample_adjoint(g, dim, mode, input_shape[dim], step, dtype)


def _pieces(xp: Any, length: int, cost: int) -> list[slice]:
    """An axis cut so that no matrix product wakes BLAS's own threads, which would wait for each other in ours."""
    step = max(BLOCK // cost, 8) if xp is np else max(length, 1)
    return [slice(start, start + step) for start in range(0, length, step)]


@op
def _resample_adjoint(input, dim, mode, n, step, dtype):
    """y_i = Σ over o of A_oi x_o,  A_oi = (1 − λ_o)[i = i_o] + λ_o[i = i_o + 1].    ∂L/∂x = A g: resample."""
    xp = array_module(input)
    i, j, weight = _sources(xp, mode, n, input.shape[dim], step, dtype)
    here = xp.arange(n)
    A = (i[:, None] == here).astype("float64")
    if weight is not None:
        A = A * (1 - weight)[:, None] + (j[:, None] == here) * weight[:, None]
    A = A.astype(input.real.dtype)

    def multiply(x: Any, axis: int) -> Any:
        before, m, after = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
        y = xp.empty((before, n, after), dtype=x.dtype)
        if after == 1:  # tall matrices: y = x A
            rows, out = x.reshape(before, m), y.reshape(before, n)
            for part in _pieces(xp, before, m * n):
                xp.matmul(rows[part], A, out=out[part])
        else:  # a stack of wide ones: y = Aᵀ x
            stack = x.reshape(before, m, after)
            for part in _pieces(xp, after, m * n):
                xp.matmul(A.T, stack[:, :, part], out=y[:, :, part])
        return y.reshape(*x.shape[:axis], n, *x.shape[axis + 1 :])

    return along_first(lambda x: _in_memory_order(multiply, x, dim), input, leading=max(dim % input.ndim, 1))


@_resample_adjoint.vjp("input")
def _(g, input_shape, dim, mode, step, dtype):
    return _resample(g, dim, mode, input_shape[dim], step, dtype)


# ----------------------------------------------------------------------------------------- interpolate


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """A picture of n pixels along an axis resampled to m.

        nearest                          y_o = x[⌊o·n/m⌋]
        bilinear                         y_o = x at (o + ½)·n/m − ½, on the line between its neighbours
        bilinear, align_corners=True     y_o = x at o·(n − 1)/(m − 1)

    Linear in x: y = A x along each axis, so ∂L/∂x = Aᵀ g.

    Shapes: (N, C, H, W) → (N, C, Hₒ, Wₒ); nearest also (N, C, L) and (N, C, D, H, W). N may be 0.

    Args:
        input: floating for bilinear, any dtype for nearest.
        size: m, one number for every axis or a sequence.
        scale_factor: in place of size: m = ⌊n·scale_factor⌋, and n/m is 1/scale_factor in the formulas.
        mode: "nearest" or "bilinear". Bilinear downsampling reads two pixels only, as in PyTorch; pool first for an
            average.
        align_corners: for bilinear: whether the middles of the corner pixels stay where they are.
        recompute_scale_factor: use n/m in the formulas though a scale_factor was given.
        antialias: not supported; must be False.

    Raises:
        TypeError: input is not a Tensor or has a dtype that the mode does not take, or size is not made of integers.
        ValueError: both or neither of size and scale_factor are given, or not one per axis; a length is 0; or
            align_corners or recompute_scale_factor do not go with the other arguments.
        NotImplementedError: another mode, antialias, or a number of axes that the mode does not take.

    Source: ``torch.nn.functional.interpolate``.
    """
    who = "interpolate"
    if not isinstance(input, Tensor):
        raise TypeError(f"{who}: expected a Tensor, got {type(input).__name__}")
    if mode not in ("nearest", "bilinear"):
        raise NotImplementedError(f'{who}: mode={mode!r} is not supported; the modes are "nearest" and "bilinear"')
    if antialias:
        raise NotImplementedError(f"{who}: antialias={antialias!r} is not supported")
    if mode == "nearest" and align_corners is not None:
        raise ValueError(f'{who}: align_corners={align_corners!r} is for mode="bilinear" alone')
    if input.ndim not in ((4,) if mode == "bilinear" else (3, 4, 5)):
        known = "(N, C, H, W)" if mode == "bilinear" else "(N, C, L), (N, C, H, W) or (N, C, D, H, W)"
        raise NotImplementedError(f"{who}: mode={mode!r} takes input of shape {known}, got {input.shape}")
    if input.dtype.kind not in ("fc" if mode == "bilinear" else "fciub"):
        raise TypeError(f"{who}: mode={mode!r} takes floating input, got {input.dtype}; use x.to(tg.float32)")
    lengths = input.shape[2:]
    sizes, factors = _output_sizes(lengths, size, scale_factor, recompute_scale_factor)
    if min(sizes) < 1 or min(lengths) < 1:
        raise ValueError(f"{who}: every length must be at least 1, got {lengths} → {sizes}")
    if mode == "bilinear" and input.dtype == "float16":
        y = interpolate(to(input, "float32"), size, scale_factor, mode, align_corners, recompute_scale_factor)
        return to(y, "float16")
    y = _nearest(input, sizes, factors) if mode == "nearest" else _bilinear(input, sizes, factors, bool(align_corners))
    return clone(input) if y is input else y


@lru_cache(maxsize=512)
def _repeats(n: int, m: int, step: float, dtype: Any) -> bool:
    """Whether nearest, rounded as it is, takes every pixel m/n times: not so for n = 2, m = 82."""
    return m % n == 0 and np.array_equal(_sources(np, "nearest", n, m, step, dtype)[0], np.arange(m) // (m // n))


def _nearest(x: Tensor, sizes: tuple[int, ...], factors: tuple[float | None, ...]) -> Tensor:
    """Nearest along every axis: first those on which each pixel is repeated equally often, together, then the others.

    PyTorch computes ⌊o·step⌋ in float32, for (N, C, H, W) with two exceptions that ignore scale_factor, m = n and
    m = 2n, and for (N, C, L) and (N, C, D, H, W) of float64 in float64.
    """
    dtype = as_dtype("float64" if len(sizes) != 2 and x.dtype == "float64" else "float32")
    whole, others = [], []
    for d, (n, m, factor) in enumerate(zip(x.shape[2:], sizes, factors, strict=True)):
        step = n / m if factor is None else 1 / factor
        if (len(sizes) == 2 and m in (n, 2 * n)) or _repeats(n, m, step, dtype):
            whole.append(AxisWindow(m, m // n, m // n, 0, 1, n))
        else:
            whole.append(AxisWindow(n, 1, 1, 0, 1, n))
            others.append((d - len(sizes), m, step))
    if any(window.kernel > 1 for window in whole):
        x = spread_windows(x, tuple(whole))
    for dim, m, step in others:
        x = _resample(x, dim, "nearest", m, step, dtype)
    return x


def _bilinear(x: Tensor, sizes: tuple[int, ...], factors: tuple[float | None, ...], align_corners: bool) -> Tensor:
    """On the line between two neighbours along each axis, the last one first.

    PyTorch copies where the lengths are equal, whatever scale_factor says.
    """
    for dim in (-1, -2):
        n, m, factor = x.shape[dim], sizes[dim], factors[dim]
        if n != m and align_corners:
            x = _resample(x, dim, "corners", m, (n - 1) / (m - 1) if m > 1 else 0.0, None)
        elif n != m:
            x = _resample(x, dim, "bilinear", m, n / m if factor is None else 1 / factor, None)
    return x


def _output_sizes(
    lengths: tuple[int, ...], size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The new lengths, and the factors that stand in the formulas (None: the ratio of the lengths).

    Raises:
        TypeError: a size is not an integer.
        ValueError: as interpolate says.
    """
    axes = len(lengths)
    if (size is None) == (scale_factor is None):
        raise ValueError(
            f"interpolate: expected either size or scale_factor, got size={size!r}, scale_factor={scale_factor!r}"
        )
    given = scale_factor if size is None else size
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,) * axes
    name = "scale_factor" if size is None else "size"
    if len(values) != axes:
        raise ValueError(f"interpolate: expected {name} to be one number or {axes}, got {given!r}")
    if size is None:
        factors = tuple(float(f) for f in values)
        if not all(math.isfinite(f) for f in factors):
            raise ValueError(f"interpolate: expected scale_factor to be positive, got {given!r}")
        sizes = tuple(math.floor(n * f) for n, f in zip(lengths, factors, strict=True))
        return sizes, (None,) * axes if recompute else factors
    if recompute:
        raise ValueError("interpolate: recompute_scale_factor=True goes with scale_factor, not with size")
    try:
        return tuple(operator.index(v) for v in values), (None,) * axes
    except TypeError:
        raise TypeError(f"interpolate: expected size to be made of integers, got {size!r}") from None


# ---------------------------------------------------------------------------------------- pixel shuffle


@op
def _shuffle(input, r):
    """y[…, c, h·r + i, w·r + j] = x[…, c·r² + i·r + j, h, w].    ∂L/∂x = g gathered back: the inverse, unshuffle."""
    *lead, c, h, w = input.shape
    y = array_module(input).empty_like(input, shape=(*lead, c // r**2, h * r, w * r))
    k = len(lead)
    split = input.reshape(*lead, c // r**2, r, r, h, w)
    # Splitting an axis is a view, so this one assignment moves the numbers, whatever the order in memory.
    y.reshape(*lead, c // r**2, h, r, w, r)[...] = split.transpose(*range(k + 1), k + 3, k + 1, k + 4, k + 2)
    return y


@_shuffle.vjp("input")
def _(g, r):
    return _unshuffle(g, r)


@op
def _unshuffle(input, r):
    """y[…, c·r² + i·r + j, h, w] = x[…, c, h·r + i, w·r + j].    ∂L/∂x = g put back: the inverse, shuffle."""
    *lead, c, h, w = input.shape
    y = array_module(input).empty_like(input, shape=(*lead, c * r**2, h // r, w // r))
    k = len(lead)
    split = input.reshape(*lead, c, h // r, r, w // r, r)
    y.reshape(*lead, c, r, r, h // r, w // r)[...] = split.transpose(*range(k + 1), k + 2, k + 4, k + 1, k + 3)
    return y


@_unshuffle.vjp("input")
def _(g, r):
    return _shuffle(g, r)


def _factor(who: str, name: str, input: Any, r: Any) -> int:
    """The factor, checked with the input's axes.

    Raises:
        TypeError, ValueError: input is not a Tensor of at least 3 axes, or the factor not a positive integer.
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"{who}: expected a Tensor, got {type(input).__name__}")
    if input.ndim < 3:
        raise ValueError(f"{who}: expected input of shape (…, C, H, W), got {input.shape}")
    try:
        r = operator.index(r)
    except TypeError:
        raise TypeError(f"{who}: expected {name} to be an integer, got {r!r}") from None
    if r < 1:
        raise ValueError(f"{who}: expected {name} ≥ 1, got {r}")
    return r


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels become pixels: y[…, c, h·r + i, w·r + j] = x[…, c·r² + i·r + j, h, w].

    Every number moves to one place, so ∂L/∂x = g moved back (``pixel_unshuffle``).

    Shapes: (…, C·r², H, W) → (…, C, H·r, W·r).

    Args:
        upscale_factor: r.

    Raises:
        TypeError: input is not a Tensor, or r not an integer.
        ValueError: input has fewer axes than 3, r < 1, or r² does not divide the channels.

    Source: ``torch.nn.functional.pixel_shuffle``; Shi et al. 2016, equation 4.
    """
    r = _factor("pixel_shuffle", "upscale_factor", input, upscale_factor)
    if input.shape[-3] % r**2:
        raise ValueError(
            f"pixel_shuffle: upscale_factor={r} needs a multiple of {r**2} channels, input of shape {input.shape} has "
            f"{input.shape[-3]}"
        )
    return _shuffle(input, r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Pixels become channels, the inverse of ``pixel_shuffle``: y[…, c·r² + i·r + j, h, w] = x[…, c, h·r + i, w·r + j].

    Every number moves to one place, so ∂L/∂x = g moved back (``pixel_shuffle``).

    Shapes: (…, C, H·r, W·r) → (…, C·r², H, W).

    Args:
        downscale_factor: r.

    Raises:
        TypeError: input is not a Tensor, or r not an integer.
        ValueError: input has fewer axes than 3, r < 1, or r does not divide the height or the width.

    Source: ``torch.nn.functional.pixel_unshuffle``; Shi et al. 2016, equation 4, read backwards.
    """
    r = _factor("pixel_unshuffle", "downscale_factor", input, downscale_factor)
    if input.shape[-2] % r or input.shape[-1] % r:
        raise ValueError(
            f"pixel_unshuffle: downscale_factor={r} must divide the height and width of input of shape {input.shape}"
        )
    return _unshuffle(input, r)

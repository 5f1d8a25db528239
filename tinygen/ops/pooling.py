"""Pooling: a window slides over the plane, and each place of the result is the maximum or the mean of one window.

The maximum of a rectangle is the maximum of its rows' maxima, its sum the sum of its rows' sums, so the fast versions
take one axis after the other. There are two families of ops, each closed under the vjp. With o a window and i a place
of the plane,

    max_pool   yₒ = max of x over window o = x[i(o)]      where i(o) is the first place of the maximum
    unpool     yᵢ = Σ gₒ over the windows o with i(o) = i     ⎫ each other's vjp, and unpool is
    pick       yₒ = x[i(o)]                                   ⎭ the vjp of max_pool

    sum        yₒ = Σ of x over window o                      ⎫ each other's vjp
    spread     yᵢ = Σ gₒ over the windows o that hold i       ⎭ (:mod:`tinygen.ops.axis_windows`)

i(o) does not move under a small change of x (almost everywhere), so it is a constant of the derivative. It is kept
as a choice for each axis: which tap k of the window was taken, in one byte.

:func:`max_pool2d_by_definition` and :func:`avg_pool2d_by_definition` say the same of whole windows, slowly.

Shapes: (…, H, W) → (…, Hₒ, Wₒ), and the adjoints back. Source: ``torch.nn.functional.NAME``; LeCun et al. 1998.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygen.backend import array_module
from tinygen.kernels.blocks import along_first
from tinygen.op import op
from tinygen.ops.axis_windows import (
    AxisWindow,
    Lengths,
    Windows,
    along,
    each_axis,
    empty_along,
    plane,
    pool_windows,
    sum_windows,
    window_view,
)
from tinygen.ops.conversion import clone, to
from tinygen.ops.indexing import scatter_add
from tinygen.ops.unfold import pair
from tinygen.recording import is_grad_enabled
from tinygen.tensor import Tensor, wrap

# ----------------------------------------------------------------------------- the family of the maximum


def max_pool2d_by_definition(x: Any, windows: Windows) -> tuple[Any, Any]:
    """The maximum over each window of a raw array, and its flat place in the plane: the definition, to test against.

    The first of equal maxima counts, rows before columns. Numbers only: of NaNs see :func:`max_pool2d`.
    """
    xp = array_module(x)
    w = window_view(x, windows, lowest(x.dtype))
    grid = xp.arange(x.shape[-2])[:, None] * x.shape[-1] + xp.arange(x.shape[-1])
    places = xp.broadcast_to(window_view(grid, windows, -1), w.shape)  # −1 in the padding
    best = w.max(axis=(-2, -1), keepdims=True)
    is_best = (w == best) & (places >= 0)
    listed = (*w.shape[:-2], math.prod(w.shape[-2:]))
    first = is_best.reshape(listed).argmax(axis=-1)[..., None]
    return best[..., 0, 0], xp.take_along_axis(places.reshape(listed), first, axis=-1)[..., 0]


def lowest(dtype: Any) -> Any:
    """What every number of a dtype is at least: −∞, or the least integer."""
    if dtype.kind == "f":
        return -math.inf
    return 0 if dtype.kind == "u" else -(2 ** (8 * dtype.itemsize - 1))


def _bits(x: Any) -> Any:
    """The numbers' bits as integers, to be multiplied with 0 or 1: 0·∞ is NaN, but 0·(the bits of ∞) is 0."""
    return x.view(f"i{x.dtype.itemsize}")


def _maximum_along(x: Any, dim: int, window: AxisWindow) -> Any:
    """The maximum of each window along one axis: K passes, one for each tap."""
    xp = array_module(x)
    y, taps = empty_along(x, dim, window.out), window.taps()
    if window.whole and window.kernel > 1:
        xp.maximum(x[along(dim, taps[0][2])], x[along(dim, taps[1][2])], out=y)
        taps = taps[2:]
    else:
        y[...] = lowest(x.dtype)
    for _, windows, places in taps:
        o = along(dim, windows)
        xp.maximum(y[o], x[along(dim, places)], out=y[o])
    return y


def _choose_along(x: Any, dim: int, window: AxisWindow) -> tuple[Any, Any]:
    """The maximum of each window along one axis, and the number k of the tap that has it.

    Tap k takes the lead where it is strictly greater, so the first of equal maxima keeps it, or where it is NaN, which
    keeps it until the next NaN: PyTorch's rule.
    """
    xp = array_module(x)
    y: Any = None
    choice: Any = None
    for k, windows, places in window.taps():
        # Tap k of every window in one piece, −∞ where it is in the padding: the passes that follow are faster on it.
        v = empty_along(x, dim, window.out)
        v[along(dim, slice(0, windows.start))] = lowest(x.dtype)
        v[along(dim, windows)] = x[along(dim, places)]
        v[along(dim, slice(windows.stop, window.out))] = lowest(x.dtype)
        if y is None:
            starts = xp.arange(window.out) * window.stride - window.padding
            first = xp.maximum(-(starts // window.dilation), 0)  # the first tap that is not before the axis
            y, choice = v, xp.empty_like(v, dtype="uint8" if window.kernel <= 256 else "int32")
            choice[...] = first.reshape(-1, *(1,) * (-1 - dim))
            continue
        lead = v > y
        if x.dtype.kind == "f":
            lead |= xp.isnan(v)
        xp.maximum(choice, lead.astype(choice.dtype) * k, out=choice)
        xp.maximum(y, v, out=y)
    return y, choice


def _unpool_along(x: Any, choice: Any, dim: int, window: AxisWindow) -> Any:
    """yᵢ = Σ xₒ over the windows o along one axis whose choice is i."""
    xp = array_module(x)
    y = empty_along(x, dim, window.n)
    if not window.covering:
        y[...] = 0
    for k, windows, places in window.taps():
        o, i = along(dim, windows), along(dim, places)
        if window.disjoint:
            xp.multiply(_bits(x[o]), choice[o] == k, out=_bits(y[i]))
        else:
            y[i] += (_bits(x[o]) * (choice[o] == k)).view(y.dtype)
    return y


def _pick_along(x: Any, choice: Any, dim: int, window: AxisWindow) -> Any:
    """yₒ = x at the choice of window o along one axis."""
    y = empty_along(x, dim, window.out)
    bits = _bits(y)
    bits[...] = 0
    for k, windows, places in window.taps():
        o = along(dim, windows)
        bits[o] |= _bits(x[along(dim, places)]) * (choice[o] == k)  # one tap is chosen: the others add no bits
    return y


def _choose(x: Any, windows: Windows) -> tuple[Any, ...]:
    """The maximum of each window, and the choices along the axes, last axis first.

    The last axis comes first, so that of equal maxima the first row wins, and in it the first column.
    """
    choices = []
    for dim, window in each_axis(windows):
        x, choice = _choose_along(x, dim, window)
        choices.append(choice)
    return x, *choices


def _independent(x: Any, windows: Windows) -> int:
    """How many axes come before those of the windows."""
    return max(x.ndim - len(windows), 1)


@op(aux=True)
def _max_pool(input, windows, choose):
    """yₒ = max of x over window o = x[i(o)], −∞ outside.    ∂L/∂x = g put back at the places i(o): unpool.

    ``choose``: whether the places are wanted, for a derivative.
    """

    def work(x: Any) -> Any:
        for dim, window in each_axis(windows):
            x = _maximum_along(x, dim, window)
        return x

    if not choose:
        return along_first(work, input, leading=_independent(input, windows)), None
    y, *choices = along_first(lambda x: _choose(x, windows), input, leading=_independent(input, windows))
    return y, tuple(choices)


@_max_pool.vjp("input")
def _(g, aux, windows):
    return _unpool(g, aux, windows)


@op
def _unpool(input, choices, windows):
    """yᵢ = Σ xₒ over the windows o whose choice is i.    ∂L/∂x = g at the chosen places: the adjoint, pick."""

    def work(x: Any, *choices: Any) -> Any:
        for (dim, window), choice in zip(reversed(each_axis(windows)), reversed(choices), strict=True):
            x = _unpool_along(x, choice, dim, window)
        return x

    return along_first(work, input, *choices, leading=_independent(input, windows))


@_unpool.vjp("input")
def _(g, choices, windows):
    return _pick(g, choices, windows)


@op
def _pick(input, choices, windows):
    """yₒ = x[i(o)].    ∂L/∂x = g put back at the places i(o): the adjoint, unpool."""

    def work(x: Any, *choices: Any) -> Any:
        for (dim, window), choice in zip(each_axis(windows), choices, strict=True):
            x = _pick_along(x, choice, dim, window)
        return x

    return along_first(work, input, *choices, leading=_independent(input, windows))


@_pick.vjp("input")
def _(g, choices, windows):
    return _unpool(g, choices, windows)


def max_pool2d(
    input: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    dilation: Lengths = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The maximum of each window: y[i, j] = max over k, l of x[i·s − p + k·d, j·s − p + l·d], −∞ in the padding.

    ∂L/∂x[i] = Σ g over the windows whose maximum is x[i]. Of equal maxima the first gets it all, rows before columns;
    a NaN is greater than every number, and of several the last counts.

    Shapes: (N, C, H, W) or (C, H, W) → (…, Hₒ, Wₒ),  Hₒ = ⌊(H + 2p − d(K − 1) − 1)/s⌋ + 1, likewise Wₒ; N may be 0.

    Args:
        input: floating or integer planes.
        kernel_size: K, one number or (rows, columns), as all that follow.
        stride: s; K where omitted.
        padding: p ≤ K/2, on both sides; never chosen.
        dilation: d, the distance between the places of a window.
        ceil_mode: round Hₒ and Wₒ up: a last window may reach over the end, but must start inside the input or the
            padding before it.
        return_indices: return (y, indices), the flat place h·W + w of each maximum in its plane, int64.

    Raises:
        TypeError: input is not a Tensor of real numbers, or an argument is not an integer or a pair of them.
        ValueError: input has another number of axes than 3 or 4, an argument is out of range, padding > K/2, no window
            fits, or (with dilation) one would lie wholly in the padding.

    Source: ``torch.nn.functional.max_pool2d``; LeCun et al. 1998; Riesenhuber & Poggio 1999 for the maximum.
    """
    windows = pool_windows(
        "max_pool2d", plane("max_pool2d", input, "fiu"), kernel_size, stride, padding, dilation, ceil_mode
    )
    if not return_indices:
        return _max_pool(input, windows, input.requires_grad and is_grad_enabled())
    choices = tuple(along_first(lambda x: _choose(x, windows), input.data, leading=_independent(input, windows))[1:])
    return _pick(input, choices, windows), wrap(_flat_places(input.data, choices, windows))


def _flat_places(x: Any, choices: tuple, windows: Windows) -> Any:
    """h·W + w of each chosen place: what is picked from the places themselves."""
    xp = array_module(x)
    places = xp.empty_like(x, dtype="int64")
    places[...] = xp.arange(x.shape[-2])[:, None] * x.shape[-1] + xp.arange(x.shape[-1])
    return _pick.op.forward(places, choices, windows)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Planes of zeros with x at the places that ``max_pool2d(…, return_indices=True)`` reported.

        y[indices[i]] += x[i]

    ∂L/∂x = g at these places. A place that several windows chose gets their sum; PyTorch leaves open which of them
    it gets.

    Shapes: (N, C, Hₒ, Wₒ) or (C, Hₒ, Wₒ) → (…, H, W),  H = (Hₒ − 1)·s − 2p + K unless output_size says otherwise.

    Args:
        input: the values; indices: where they go in each plane, h·W + w, of the same shape, int64.
        kernel_size, stride, padding: those of the pooling.
        output_size: (H, W), or the whole shape; less than s away from the formula.

    Raises:
        TypeError, ValueError: as max_pool2d; or indices are not int64 or have another shape, or output_size does not
            fit.
        IndexError: an index is outside the plane (on the CPU).

    Source: ``torch.nn.functional.max_unpool2d``; Zeiler & Fergus 2014, section 2.1.
    """
    who = "max_unpool2d"
    size = plane(who, input, "fiu")
    if not isinstance(indices, Tensor) or indices.dtype != "int64":
        raise TypeError(f"{who}: expected indices to be an int64 Tensor, got {getattr(indices, 'dtype', indices)}")
    if indices.shape != input.shape:
        raise ValueError(f"{who}: indices of shape {indices.shape} do not fit input of shape {input.shape}")
    K = pair(kernel_size, who, "kernel_size", 1)
    s = K if stride is None else pair(stride, who, "stride", 1)
    p = pair(padding, who, "padding", 0)
    formula = tuple((m - 1) * s + k - 2 * p for m, k, s, p in zip(size, K, s, p, strict=True))
    given = formula if output_size is None else tuple(output_size)
    wanted = given[-2:]
    fits = len(given) in (2, 4) and all(n > 0 and abs(n - f) < t for n, f, t in zip(wanted, formula, s))
    if not fits:
        raise ValueError(
            f"{who}: expected output_size to be positive and less than the stride {s} away from {formula}, "
            f"got {tuple(given)}"
        )
    lead = input.shape[:-2]
    zeros = wrap(array_module(input.data).zeros((*lead, math.prod(wanted)), dtype=input.dtype))
    listed = (*lead, math.prod(size))
    flat = scatter_add(zeros, -1, indices.reshape(listed), input.reshape(listed))
    return flat.reshape(*lead, *wanted)


# --------------------------------------------------------------------------------- the family of the sum


def avg_pool2d_by_definition(x: Any, windows: Windows) -> Any:
    """The mean over each window of a raw array, zeros in the padding counted: the definition, to test against."""
    return window_view(x, windows, 0).mean(axis=(-2, -1))


def _count(xp: Any, window: AxisWindow, include_pad: bool) -> Any:
    """How many places of each window count: K, or an array where windows at the edges have fewer."""
    n, K, s, p, _, m = window
    if window.whole or (include_pad and (m - 1) * s + K <= n + 2 * p):
        return K
    starts = xp.arange(m) * s - p
    if include_pad:  # a window of ceil_mode may reach beyond the padding; what is beyond does not count
        return xp.minimum(starts + K, n + p) - starts
    return xp.minimum(starts + K, n) - xp.maximum(starts, 0)


def avg_pool2d(
    input: Tensor,
    kernel_size: Lengths,
    stride: Lengths | None = None,
    padding: Lengths = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window: y[i, j] = (1/c) Σ over k, l of x[i·s − p + k, j·s − p + l], 0 in the padding.

    ∂L/∂x[i] = Σ g/c over the windows that hold place i.

    Shapes: (N, C, H, W) or (C, H, W) → (…, Hₒ, Wₒ),  Hₒ = ⌊(H + 2p − K)/s⌋ + 1, likewise Wₒ; N may be 0.

    Args:
        input: floating planes (float16 is summed in float32).
        kernel_size: K, one number or (rows, columns), as stride and padding.
        stride: s; K where omitted.
        padding: p ≤ K/2, on both sides.
        ceil_mode: round Hₒ and Wₒ up: a last window may reach over the end, but must start inside the input or the
            padding before it. What lies beyond the padding never counts in c.
        count_include_pad: whether the padding counts in c.
        divisor_override: c, in place of the number of places that count.

    Raises:
        TypeError: input is not a floating Tensor, or an argument is not an integer or a pair of them.
        ValueError: input has another number of axes than 3 or 4, an argument is out of range, padding > K/2, no window
            fits, or divisor_override is 0.

    Source: ``torch.nn.functional.avg_pool2d``; LeCun et al. 1998.
    """
    windows = pool_windows("avg_pool2d", plane("avg_pool2d", input, "fc"), kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    if input.dtype == "float16":
        return to(
            avg_pool2d(
                to(input, "float32"), kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
            ),
            "float16",
        )
    total = sum_windows(input, windows)
    if divisor_override is not None:
        return total / divisor_override
    xp = array_module(input.data)
    high, wide = (_count(xp, window, count_include_pad) for window in windows)
    if isinstance(high, int) and isinstance(wide, int):
        return total / (high * wide)
    c = (high if isinstance(high, int) else high[:, None]) * wide
    return total / wrap(xp.asarray(c, dtype=input.data.real.dtype))


@op
def _bin_means(input, dim, out):
    """yₒ = mean of x over bin o = [⌊o·n/m⌋, ⌈(o + 1)·n/m⌉).    ∂L/∂x = g/(the bin's length) spread over the bin."""
    y, n = empty_along(input, dim, out), input.shape[dim]
    for o in range(out):
        bin = slice(o * n // out, -(-(o + 1) * n // out))
        y[along(dim, slice(o, o + 1))] = input[along(dim, bin)].mean(axis=dim, keepdims=True)
    return y


@_bin_means.vjp("input")
def _(g, input_shape, dim):
    return _bin_spread(g, dim, input_shape[dim])


@op
def _bin_spread(input, dim, n):
    """yᵢ = Σ xₒ/(bin o's length) over the bins o that hold i: the adjoint.    ∂L/∂x = the mean of g over each bin."""
    y, out = empty_along(input, dim, n), input.shape[dim]
    y[...] = 0
    for o in range(out):
        bin = slice(o * n // out, -(-(o + 1) * n // out))
        y[along(dim, bin)] += input[along(dim, slice(o, o + 1))] / (bin.stop - bin.start)
    return y


@_bin_spread.vjp("input")
def _(g, input_shape, dim):
    return _bin_means(g, dim, input_shape[dim])


def _adapt(input: Tensor, dim: int, out: int) -> Tensor:
    """The means of ``out`` bins along one axis."""
    n = input.shape[dim]
    if out == n:
        return input
    if out == 1:
        return input.mean(dim, keepdim=True)
    if out and n % out == 0:
        K = n // out
        windows = (AxisWindow(n, K, K, 0, 1, out), *(AxisWindow(m, 1, 1, 0, 1, m) for m in input.shape[dim:][1:]))
        return sum_windows(input, windows) / K
    return _bin_means(input, dim, out)


def adaptive_avg_pool2d(input: Tensor, output_size: int | None | Sequence[int | None]) -> Tensor:
    """y[o] = mean of x[⌊o·H/m⌋ … ⌈(o + 1)·H/m⌉ − 1]: means over as many bins m of rows as asked for.

    Likewise the columns. Neighbouring bins share a row where m does not divide H. ∂L/∂x = g/(the number of places in
    the bin), summed over the bins that hold the place.

    Shapes: (N, C, H, W) or (C, H, W) → (…, *output_size); N may be 0.

    Args:
        input: floating planes (float16 is averaged in float32).
        output_size: m for rows and columns, or a pair; None keeps that axis as it is.

    Raises:
        TypeError: input is not a floating Tensor, or output_size holds something else than integers and None.
        ValueError: input has another number of axes than 3 or 4, is empty in H or W, or output_size is negative.

    Source: ``torch.nn.functional.adaptive_avg_pool2d``.
    """
    who = "adaptive_avg_pool2d"
    size = plane(who, input, "fc")
    given = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(given) != 2:
        raise TypeError(f"{who}: expected output_size to be an integer, None or a pair of them, got {output_size!r}")
    m = tuple(n if v is None else pair(v, who, "output_size", 0)[0] for n, v in zip(size, given, strict=True))
    if 0 in size:
        raise ValueError(f"{who}: input of shape {input.shape} has nothing to average")
    if input.dtype == "float16":
        return to(adaptive_avg_pool2d(to(input, "float32"), m), "float16")
    y = _adapt(_adapt(input, -1, m[1]), -2, m[0])
    return clone(input) if y is input else y

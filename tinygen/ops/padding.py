"""Padding: a border around the last axes, of one number or made of the numbers inside.

Every mode is linear (up to a constant), so its vjp is its adjoint:

    constant    y = x, and ``value`` around it          adjoint: cut the border off. Cropping is padding by negative
                                                        amounts, so the vjp of pad(p) is pad(−p), with zeros
    the others  the border copies places of x           adjoint: fold the border back, i.e. add each border place to
                                                        the place that it copied

Shapes: (…, n, …) → (…, before + n + after, …).

Source: ``torch.nn.functional.pad``.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from tinygen.backend import array_module
from tinygen.op import op
from tinygen.tensor import Tensor

Pads = tuple[tuple[int, int], ...]  # (before, after) for every axis of the tensor


def _axis(dim: int, part: slice) -> tuple:
    """The index expression that takes ``part`` of axis ``dim`` and all of the others."""
    return (slice(None),) * dim + (part,)


def _longer(x: Any, pads: Pads) -> Any:
    """An array with room for the border; its axes in x's order in memory (channels last stays channels last)."""
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, pads, strict=True))
    return array_module(x).empty_like(x, shape=shape)


# --------------------------------------------------------------------------------------------- constant


@op
def _pad_constant(input, pads, value):
    """y[i + before] = x[i] where that is inside y, else ``value``; negative amounts cut off.

    ∂L/∂x[i] = g[i + before] where x[i] went into y, else 0: padding by −pads with zeros.
    """
    y = _longer(input, pads)
    here, there = [], []
    for dim, (before, after) in enumerate(pads):
        n, m = input.shape[dim], y.shape[dim]
        start, stop = max(before, 0), m - max(after, 0)
        y[_axis(dim, slice(0, start))] = value
        y[_axis(dim, slice(stop, m))] = value
        here.append(slice(start, stop))
        there.append(slice(max(-before, 0), n - max(-after, 0)))
    y[tuple(here)] = input[tuple(there)]
    return y


@_pad_constant.vjp("input")
def _(g, pads):
    return _pad_constant(g, tuple((-before, -after) for before, after in pads), 0)


# -------------------------------------------------------------------------- reflect, replicate, circular


def _borders(n: int, before: int, after: int, mode: str) -> list[tuple[slice, slice]]:
    """(border, the places that it copies), in places of the padded axis, where x is [before, before + n)."""
    end = before + n
    if mode == "reflect":  # … x₂ x₁ │ x₀ x₁ x₂ …: the edge itself is not repeated
        stop = end - 2 - after
        left, right = slice(2 * before, before, -1), slice(end - 2, stop if stop >= 0 else None, -1)
    elif mode == "circular":  # … xₙ₋₂ xₙ₋₁ │ x₀ x₁ …: the other end comes in
        left, right = slice(n, end), slice(before, before + after)
    else:  # replicate: … x₀ x₀ │ x₀ x₁ …
        left, right = slice(before, before + 1), slice(end - 1, end)
    pieces = [(slice(0, before), left), (slice(end, end + after), right)]
    return [(border, source) for border, source in pieces if border.stop > border.start]


@op
def _extend(input, pads, mode):
    """y = x with a border that copies places of x, one axis after the other.    ∂L/∂x = the border folded back."""
    y = _longer(input, pads)
    inside = [slice(before, before + n) for n, (before, _) in zip(input.shape, pads, strict=True)]
    y[tuple(inside)] = input
    for dim, (before, after) in enumerate(pads):  # corners: a later axis copies the borders of the earlier ones
        for border, source in _borders(input.shape[dim], before, after, mode):
            y[_axis(dim, border)] = y[_axis(dim, source)]
    return y


@_extend.vjp("input")
def _(g, pads, mode):
    return _fold(g, pads, mode)


@op
def _fold(input, pads, mode):
    """y = x without its border, each border place added to the one that it copied: the adjoint of extend.

    ∂L/∂x = g extended.
    """
    y = input.copy(order="K")
    for dim, (before, after) in enumerate(pads):
        n = input.shape[dim] - before - after
        for border, source in _borders(n, before, after, mode):
            part = y[_axis(dim, border)]
            y[_axis(dim, source)] += part.sum(axis=dim, keepdims=True) if mode == "replicate" else part
        y = y[_axis(dim, slice(before, before + n))]
    return y


@_fold.vjp("input")
def _(g, pads, mode):
    return _extend(g, pads, mode)


# ----------------------------------------------------------------------------------------------- public


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """x with a border around its last axes.

        constant    y = … v  v  │ x₀ x₁ x₂ │ v  v …
        reflect     y = … x₂ x₁ │ x₀ x₁ x₂ │ x₁ x₀ …
        replicate   y = … x₀ x₀ │ x₀ x₁ x₂ │ x₂ x₂ …
        circular    y = … x₁ x₂ │ x₀ x₁ x₂ │ x₀ x₁ …

    ∂L/∂x = g without the border, plus what the border copied from each place. Negative amounts cut off instead: after
    the border is made, for circular before.

    Shapes: (…, n, …) → (…, before + n + after, …).

    Args:
        input: of any dtype.
        pad: (before, after) of the last axis, then of the one before it, and so on: (left, right, top, bottom, …).
            ``constant`` takes any number of axes; the others the last one of 2 or 3 axes, the last two of 3 or 4, or
            the last three of 4 or 5.
        mode: "constant", "reflect", "replicate" or "circular".
        value: v, for ``constant`` alone; 0 where omitted.

    Raises:
        TypeError: input is not a Tensor, or pad not a sequence of integers.
        ValueError: pad has an odd length or names too many axes; more is cut off than there is; reflect reaches n or
            further, or circular further than n; or value is given where the mode takes none.
        NotImplementedError: another mode, or a mode for a number of axes that it does not take.

    Source: ``torch.nn.functional.pad``.
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"pad: expected a Tensor, got {type(input).__name__}")
    try:
        amounts = [operator.index(n) for n in pad]
    except TypeError:
        raise TypeError(f"pad: expected pad to be a sequence of integers, got {pad!r}") from None
    if len(amounts) % 2 or len(amounts) > 2 * input.ndim:
        raise ValueError(
            f"pad: expected pad to hold (before, after) for the last axes, at most {input.ndim} of them; got {pad!r}"
        )
    axes = len(amounts) // 2
    pads: Pads = ((0, 0),) * (input.ndim - axes) + tuple(zip(amounts[::2], amounts[1::2]))[::-1]
    left = tuple(n + min(b, 0) + min(a, 0) for n, (b, a) in zip(input.shape, pads))
    if mode == "constant":
        if min(left, default=0) < 0:
            raise ValueError(f"pad: pad={pad!r} cuts off more than there is of a tensor of shape {input.shape}")
        return _pad_constant(input, pads, 0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(
            f'pad: mode={mode!r} is not supported; the modes are "constant", "reflect", "replicate" and "circular"'
        )
    if value:
        raise ValueError(f"pad: value={value!r} is for mode='constant' alone; mode={mode!r} takes none")
    if axes not in (1, 2, 3) or input.ndim not in (axes + 1, axes + 2):
        raise NotImplementedError(
            f"pad: mode={mode!r} pads the last axis of 2 or 3, the last two of 3 or 4, or the last three of 4 or 5; "
            f"got pad={pad!r} for a tensor of shape {input.shape}"
        )
    return _pad_with_itself(input, pads, left, mode)


def _pad_with_itself(input: Tensor, pads: Pads, left: tuple[int, ...], mode: str) -> Tensor:
    """The three modes that copy, each with its limits; ``left``: what negative amounts leave of each axis.

    Raises:
        ValueError: a limit is exceeded.
    """
    grow: Pads = tuple((max(b, 0), max(a, 0)) for b, a in pads)
    cut: Pads = tuple((min(b, 0), min(a, 0)) for b, a in pads)
    for dim, (b, a) in enumerate(grow):
        n = left[dim] if mode == "circular" else input.shape[dim]
        if n < 0 or left[dim] + b + a < 0:
            raise ValueError(
                f"pad: {pads[dim]} cuts off more than there is of axis {dim} of a tensor of shape {input.shape}"
            )
        most = {"reflect": n - 1, "circular": n, "replicate": b + a if n else 0}[mode]
        if max(a, b) > max(most, 0):
            raise ValueError(
                f"pad: mode={mode!r} can pad axis {dim} of a tensor of shape {input.shape} by at most {max(most, 0)} "
                f"on either side, got {pads[dim]}"
            )
    cuts = any(b or a for b, a in cut)
    if mode == "circular" and cuts:
        return _extend(_pad_constant(input, cut, 0), grow, mode)
    y = _extend(input, grow, mode)
    return _pad_constant(y, cut, 0) if cuts else y

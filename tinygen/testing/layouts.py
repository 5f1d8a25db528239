"""The same numbers laid out differently in memory, as views and transposes leave them.

    contiguous      last axis fastest
    transposed      first axis fastest
    channels last   (N, C, …): axis 1 fastest, as in a channels-last network
    gaps            every second place of a wider array, whose other places hold NaN; axes reversed
    reversed        every axis backwards: negative strides
    broadcast       one axis repeats its first entry with stride 0, and (on the CPU) refuses to be written to

What an op computes may depend on the numbers alone.
"""

from __future__ import annotations

from typing import Any

from tinygen.backend import array_module

LAYOUTS = ("contiguous", "transposed", "channels last", "gaps", "reversed", "broadcast")


def laid_out(array: Any, layout: str) -> Any:
    """A copy of an array of any library, in a layout of :data:`LAYOUTS`.

    The numbers stay the same, except under ``"broadcast"``, which repeats the first entry of the last axis that is
    longer than 1. ``"channels last"`` leaves arrays of fewer than three axes contiguous.

    Raises:
        ValueError: there is no such layout.
    """
    xp = array_module(array)
    if layout == "contiguous":
        return array.copy()
    if layout == "transposed":
        return array.T.copy().T
    if layout == "channels last":
        if array.ndim < 3:
            return array.copy()
        back = (0, array.ndim - 1, *range(1, array.ndim - 1))
        return array.transpose(0, *range(2, array.ndim), 1).copy().transpose(back)
    if layout == "gaps":
        wide = xp.zeros([2 * n for n in reversed(array.shape)], dtype=array.dtype)
        if array.dtype.kind in "fc":
            wide[...] = float("nan")
        view = wide.T[(..., *(slice(None, None, 2) for _ in array.shape))]
        view[...] = array
        return view
    if layout == "reversed":
        backwards = (..., *(slice(None, None, -1) for _ in array.shape))
        return array[backwards].copy()[backwards]
    if layout == "broadcast":
        long = [d for d, n in enumerate(array.shape) if n > 1]
        if not long:
            return array.copy()
        first = array[(slice(None),) * long[-1] + (slice(0, 1),)].copy()
        return xp.broadcast_to(first, array.shape)
    raise ValueError(f"expected a layout of {', '.join(LAYOUTS)}; got {layout!r}")


def layouts_of(ndim: int) -> tuple[str, ...]:
    """The layouts that an array of ``ndim`` axes can have."""
    if ndim == 0:
        return ("contiguous",)
    if ndim == 1:
        return ("contiguous", "gaps", "reversed", "broadcast")
    return tuple(layout for layout in LAYOUTS if layout != "channels last" or ndim > 2)

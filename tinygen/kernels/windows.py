"""The windows that a filter sees as it slides over a picture, on raw arrays of either library.

A window of kh×kw taps stands at every output position (i, j). Its tap (u, v) reads

    x[n, c, s_h·i + d_h·u − p_h, s_w·j + d_w·v − p_w]

with stride s, dilation d and padding p; outside the picture x counts as 0. :func:`patches` gathers what all windows
see (im2col), :func:`add_patches` adds numbers back to where they were read from (col2im). One is the adjoint of the
other. Both work on channels-last patches: the numbers of one tap are neighbours in memory.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

from tinygen.backend import array_module

Pair = tuple[int, int]


class Window(NamedTuple):
    """How a filter slides: every length as a pair (vertical, horizontal).

    Attributes:
        size: H, W of the picture.
        kernel: kh, kw, the taps of the filter.
        out: Ho, Wo, the positions that the filter takes.
        stride: the step from one position to the next.
        padding: how many rows and columns of zeros stand before the picture. How many stand after it follows
            from the rest: as many as the last position reads.
        dilation: the step from one tap to the next.
    """

    size: Pair
    kernel: Pair
    out: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @property
    def reach(self) -> Pair:
        """Rows and columns of the padded picture that are read: s·(out − 1) + d·(k − 1) + 1."""
        (oh, ow), (kh, kw), (sh, sw), (dh, dw) = self.out, self.kernel, self.stride, self.dilation
        return sh * (oh - 1) + dh * (kh - 1) + 1, sw * (ow - 1) + dw * (kw - 1) + 1


class Phase(NamedTuple):
    """The taps that meet one remainder r of the result's coordinate modulo the stride, and how they slide."""

    remainder: int
    taps: slice
    padding: int
    dilation: int


@lru_cache(maxsize=512)
def phases(axis: int, window: Window) -> tuple[Phase, ...]:
    """The phases of one axis of conv_transpose2d; kernels/cpu.py says what they are."""
    n, k, s = window.size[axis], window.kernel[axis], window.stride[axis]
    p, d = window.padding[axis], window.dilation[axis]
    e = gcd(s, d)
    found = []
    for r in range(min(s, n)):
        every = range(k)[next((u for u in range(k) if (r + p - d * u) % s == 0), k) :: s // e]
        if not every:
            found.append(Phase(r, slice(0, 0), 0, 1))
            continue
        first = (r + p - d * every[0]) // s  # i − a of the first tap; the last one's is the lowest
        lowest = first - (len(every) - 1) * (d // e)
        stop = every[0] - s // e if every[0] >= s // e else None
        found.append(Phase(r, slice(every[-1], stop, -(s // e)), -lowest, d // e))
    return tuple(found)


def padded(x: Any, window: Window) -> Any:
    """x in channels-last memory, with the zeros around it that the window reads, as (N, reach_h, reach_w, C).

    What no window reads is left out, so the result can also be smaller than x; it is a view where it can be.
    """
    x = x.transpose(0, 2, 3, 1)
    (H, W), (ph, pw), (rh, rw) = window.size, window.padding, window.reach
    if ph == pw == 0 and rh <= H and rw <= W:
        return x[:, :rh, :rw]
    xp = array_module(x)
    y = xp.zeros((x.shape[0], rh, rw, x.shape[3]), x.dtype)
    inner = x[:, : max(rh - ph, 0), : max(rw - pw, 0)]
    y[:, ph : ph + inner.shape[1], pw : pw + inner.shape[2]] = inner
    return y


def patches(x: Any, window: Window) -> Any:
    """What each window sees: (N, C, H, W) → (N, Ho, Wo, kh, kw, C), a read-only view with overlapping strides.

    No number is copied (except for the padding): position i of the result steps s rows through the picture, tap u
    steps d rows, so ``strides = (…, s·row, …, d·row, …)`` says it all.
    """
    y = padded(x, window)
    (oh, ow), (kh, kw), (sh, sw), (dh, dw) = window.out, window.kernel, window.stride, window.dilation
    n, row, column, channel = y.strides
    shape = (y.shape[0], oh, ow, kh, kw, y.shape[3])
    strides = (n, sh * row, sw * column, dh * row, dw * column, channel)
    return array_module(y).lib.stride_tricks.as_strided(y, shape, strides)


def add_patches(patch: Any, window: Window) -> Any:
    """The adjoint of :func:`patches`: (N, Ho, Wo, kh, kw, C) → (N, C, H, W), every number added where it was read.

    One strided addition for each tap: within a tap no two windows read the same place.
    """
    (H, W), (ph, pw), (rh, rw) = window.size, window.padding, window.reach
    (oh, ow), (kh, kw), (sh, sw), (dh, dw) = window.out, window.kernel, window.stride, window.dilation
    N, C = patch.shape[0], patch.shape[5]
    exact = "float32" if patch.dtype == "float16" else patch.dtype  # sums of float16 numbers lose digits
    y = array_module(patch).zeros((N, max(rh, ph + H), max(rw, pw + W), C), exact)
    for u in range(kh):
        for v in range(kw):
            rows = slice(dh * u, dh * u + sh * (oh - 1) + 1, sh)
            columns = slice(dw * v, dw * v + sw * (ow - 1) + 1, sw)
            y[:, rows, columns] += patch[:, :, :, u, v]
    return y[:, ph : ph + H, pw : pw + W].astype(patch.dtype).transpose(0, 3, 1, 2)


# The three products of the convolution's trilinear form (ops/convolution.py derives them), each as one matrix
# product per group, for any array library. kernels/cpu.py does the same faster for NumPy.


def conv2d(x: Any, w: Any, b: Any, window: Window, groups: int) -> Any:
    """y = ∂T/∂y(x, w) + b: (N, C, H, W), (O, C/g, kh, kw), (O) or None → (N, O, Ho, Wo)."""
    patch = patches(x, window)
    N, oh, ow, kh, kw, C = patch.shape
    O, c = w.shape[:2]
    o = O // groups
    y = array_module(x).empty((N, oh, ow, O), x.dtype)
    for k in range(groups):
        columns = patch[..., k * c : (k + 1) * c].reshape(-1, kh * kw * c)
        matrix = w[k * o : (k + 1) * o].transpose(2, 3, 1, 0).reshape(-1, o)
        y[..., k * o : (k + 1) * o] = (columns @ matrix).reshape(N, oh, ow, o)
    if b is not None:
        y += b
    return y.transpose(0, 3, 1, 2)


def conv_transpose2d(y: Any, w: Any, b: Any, window: Window, groups: int) -> Any:
    """x = ∂T/∂x(w, y) + b: (N, O, Ho, Wo), (O, C/g, kh, kw), (C) or None → (N, C, H, W)."""
    N, O, oh, ow = y.shape
    c, kh, kw = w.shape[1:]
    o = O // groups
    rows = y.transpose(0, 2, 3, 1)
    patch = array_module(y).empty((N, oh, ow, kh, kw, groups * c), y.dtype)
    for k in range(groups):
        matrix = w[k * o : (k + 1) * o].transpose(0, 2, 3, 1).reshape(o, -1)
        product = rows[..., k * o : (k + 1) * o].reshape(-1, o) @ matrix
        patch[..., k * c : (k + 1) * c] = product.reshape(N, oh, ow, kh, kw, c)
    x = add_patches(patch, window)
    if b is not None:
        x += b[:, None, None]
    return x


def conv2d_weight_gradient(x: Any, y: Any, window: Window, groups: int) -> Any:
    """w = ∂T/∂w(x, y): (N, C, H, W), (N, O, Ho, Wo) → (O, C/g, kh, kw)."""
    patch = patches(x, window)
    kh, kw, C = patch.shape[3:]
    O = y.shape[1]
    c, o = C // groups, O // groups
    rows = y.transpose(0, 2, 3, 1)
    w = array_module(x).empty((O, c, kh, kw), x.dtype)
    for k in range(groups):
        columns = patch[..., k * c : (k + 1) * c].reshape(-1, kh * kw * c)
        product = rows[..., k * o : (k + 1) * o].reshape(-1, o).T @ columns
        w[k * o : (k + 1) * o] = product.reshape(o, kh, kw, c).transpose(0, 3, 1, 2)
    return w


def channel_sums(y: Any) -> Any:
    """Σ over pictures and positions: (N, C, H, W) → (C)."""
    exact = "float32" if y.dtype == "float16" else y.dtype
    return y.sum((0, 2, 3), dtype=exact).astype(y.dtype, copy=False)

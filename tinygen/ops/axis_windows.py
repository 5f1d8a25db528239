"""Windows that slide along an axis: where they lie, and the sum over each of them.

Window o along one axis holds the places i = o·s − p + k·d, 0 ≤ k < K, with the stride s, the padding p and the
dilation d. A window of a plane is one along the columns' axis and one along the rows', and what is taken of it, a sum
or a maximum, is taken along one axis after the other. The sums are linear, and each other's adjoint:

    sum       yₒ = Σ over k of x[o·s − p + k·d], 0 outside     (…, n) → (…, m)
    spread    yᵢ = Σ xₒ over the windows o that hold i         (…, m) → (…, n)

Each is K strided passes over the axis, one for each tap k, instead of m small sums.

Source: Dumoulin & Visin, *A guide to convolution arithmetic for deep learning* (2016), for where windows lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tinygen.backend import array_module
from tinygen.kernels.blocks import along_first
from tinygen.op import op
from tinygen.ops.unfold import pair
from tinygen.tensor import Tensor

Lengths = int | Sequence[int]


# ------------------------------------------------------------------------------------- where windows lie


class AxisWindow(NamedTuple):
    """The windows along one axis of length n: window o, 0 ≤ o < out, holds the places o·stride − padding + k·dilation.

    Attributes:
        n: the length of the axis.
        kernel: K, the number of taps k of a window.
        stride, padding, dilation: s, p and d.
        out: m, the number of windows.
    """

    n: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    out: int

    def taps(self) -> list[tuple[int, slice, slice]]:
        """For each tap k: the windows whose k-th place is inside the axis, and these places."""
        found = []
        for k in range(self.kernel):
            offset = k * self.dilation - self.padding
            first = max(0, -(offset // self.stride))  # the least o with o·s + offset ≥ 0
            last = min(self.out - 1, (self.n - 1 - offset) // self.stride)
            if first <= last:
                start = first * self.stride + offset
                places = slice(start, start + (last - first) * self.stride + 1, self.stride)
                found.append((k, slice(first, last + 1), places))
        return found

    @property
    def whole(self) -> bool:
        """Whether every place of every window is inside the axis."""
        return self.padding == 0 and (self.out - 1) * self.stride + (self.kernel - 1) * self.dilation < self.n

    @property
    def disjoint(self) -> bool:
        """Whether no place is in two windows."""
        return (self.kernel - 1) * self.dilation < self.stride

    @property
    def covering(self) -> bool:
        """Whether every place is in exactly one window."""
        return self.whole and self.disjoint and self.out * self.kernel == self.n


Windows = tuple[AxisWindow, ...]  # of the last axes, in their order


def along(dim: int, part: slice) -> tuple:
    """The index expression x[…, part, …] for an axis counted from the end."""
    return (Ellipsis, part, *(slice(None),) * (-1 - dim))


def empty_along(like: Any, dim: int, n: int) -> Any:
    """An array of like's shape but for the length n of one axis; the axes in like's order in memory."""
    shape = list(like.shape)
    shape[dim] = n
    return array_module(like).empty_like(like, shape=tuple(shape))


def plane(who: str, input: Any, kinds: str = "f") -> tuple[int, int]:
    """The height and width of a stack of planes.

    Raises:
        TypeError: it is not a Tensor, or holds no numbers of the ``kinds``.
        ValueError: it has another number of axes than 3 or 4.
    """
    if not isinstance(input, Tensor):
        raise TypeError(f"{who}: expected a Tensor, got {type(input).__name__}")
    if input.ndim not in (3, 4):
        raise ValueError(f"{who}: expected input of shape (N, C, H, W) or (C, H, W), got {input.shape}")
    if input.dtype.kind not in kinds:
        raise TypeError(f"{who}: input of dtype {input.dtype} is not supported; convert it with x.to(tg.float32)")
    return input.shape[-2], input.shape[-1]


def pool_windows(
    who: str,
    size: tuple[int, int],
    kernel_size: Lengths,
    stride: Lengths | None,
    padding: Lengths,
    dilation: Lengths,
    ceil: bool,
) -> Windows:
    """The windows along the rows' axis and along the columns' axis.

        m = ⌊(n + 2p − d(K − 1) − 1) / s⌋ + 1

    With ``ceil`` the quotient is rounded up, but the last window must start inside the input or the padding before
    it: (m − 1)·s < n + p.

    Raises:
        TypeError: an argument is not an integer or a pair of them.
        ValueError: an argument is out of range, padding is above half the kernel, no window fits, or one would lie
            wholly in the padding.
    """
    kernels = pair(kernel_size, who, "kernel_size", 1)
    empty = stride is None or (isinstance(stride, (tuple, list)) and not stride)
    strides = kernels if stride is None or empty else pair(stride, who, "stride", 1)
    paddings, dilations = pair(padding, who, "padding", 0), pair(dilation, who, "dilation", 1)
    found = []
    for n, K, s, p, d in zip(size, kernels, strides, paddings, dilations, strict=True):
        if 2 * p > K:
            raise ValueError(f"{who}: padding={padding!r} is above half of kernel_size={kernel_size!r}")
        room = n + 2 * p - d * (K - 1) - 1
        m = (-(-room // s) if ceil else room // s) + 1
        if ceil and (m - 1) * s >= n + p:
            m -= 1
        if m < 1 or n == 0:
            raise ValueError(
                f"{who}: no window fits: input of height and width {size}, kernel_size={kernel_size!r}, "
                f"padding={padding!r}, dilation={dilation!r}"
            )
        # The first place at or after 0 of a window that starts at i < 0, in steps of d, is i mod d.
        if any(i % d >= n for i in range(-p, 0, s)[:m]):
            raise ValueError(
                f"{who}: a window would lie wholly in the padding: input of height and width {size}, "
                f"kernel_size={kernel_size!r}, padding={padding!r}, dilation={dilation!r}"
            )
        found.append(AxisWindow(n, K, s, p, d, m))
    return tuple(found)


def window_view(x: Any, windows: Windows, fill: Any) -> Any:
    """All windows of a plane at once: w[…, i, j, k, l] = x[…, i·s − p + k·d, j·s − p + l·d], ``fill`` outside.

    Shapes: (…, H, W) → (…, mₕ, m_w, Kₕ, K_w): a view that reads the same number many times.
    """
    xp = array_module(x)
    reach = [max((w.out - 1) * w.stride + (w.kernel - 1) * w.dilation + 1, w.padding + w.n) for w in windows]
    padded = xp.full((*x.shape[:-2], *reach), fill, dtype=x.dtype)
    padded[(..., *(slice(w.padding, w.padding + w.n) for w in windows))] = x
    *lead, h, w = padded.strides
    rows, columns = windows
    return xp.lib.stride_tricks.as_strided(
        padded,
        (*x.shape[:-2], rows.out, columns.out, rows.kernel, columns.kernel),
        (*lead, h * rows.stride, w * columns.stride, h * rows.dilation, w * columns.dilation),
    )


# ----------------------------------------------------------------------------------- sums over windows


def _sum_along(x: Any, dim: int, window: AxisWindow) -> Any:
    """yₒ = Σ over k of x[o·s − p + k·d] along one axis of a raw array."""
    taps = window.taps()
    y = empty_along(x, dim, window.out)
    if window.whole and window.kernel > 1:
        array_module(x).add(x[along(dim, taps[0][2])], x[along(dim, taps[1][2])], out=y)
        taps = taps[2:]
    else:
        y[...] = 0
    for _, windows, places in taps:
        y[along(dim, windows)] += x[along(dim, places)]
    return y


def _spread_along(x: Any, dim: int, window: AxisWindow) -> Any:
    """yᵢ = Σ xₒ over the windows o that hold place i, along one axis of a raw array."""
    y = empty_along(x, dim, window.n)
    if not window.covering:
        y[...] = 0
    for _, windows, places in window.taps():
        if window.disjoint:
            y[along(dim, places)] = x[along(dim, windows)]
        else:
            y[along(dim, places)] += x[along(dim, windows)]
    return y


def each_axis(windows: Windows) -> list[tuple[int, AxisWindow]]:
    """(dim, window) for the last axes, the last one first, without those whose windows are one place each.

    One is always left, so that what is done along it gives an array of its own.
    """
    listed = [(d - len(windows), window) for d, window in enumerate(windows)]
    return [(d, w) for d, w in reversed(listed) if (w.kernel, w.stride, w.out) != (1, 1, w.n)] or listed[-1:]


@op
def sum_windows(input, windows):
    """yₒ = Σ x over window o, 0 outside.    ∂L/∂x = g spread over the windows: the adjoint.

    Shapes: (…, n₁, n₂, …) → (…, m₁, m₂, …), a window for each of the last axes.
    """

    def work(x: Any) -> Any:
        for dim, window in each_axis(windows):
            x = _sum_along(x, dim, window)
        return x

    return along_first(work, input, leading=max(input.ndim - len(windows), 1))


@sum_windows.vjp("input")
def _(g, windows):
    return spread_windows(g, windows)


@op
def spread_windows(input, windows):
    """yᵢ = Σ xₒ over the windows o that hold place i.    ∂L/∂x = g summed over each window: the adjoint.

    Shapes: (…, m₁, m₂, …) → (…, n₁, n₂, …), a window for each of the last axes.
    """

    def work(x: Any) -> Any:
        for dim, window in reversed(each_axis(windows)):
            x = _spread_along(x, dim, window)
        return x

    return along_first(work, input, leading=max(input.ndim - len(windows), 1))


@spread_windows.vjp("input")
def _(g, windows):
    return sum_windows(g, windows)

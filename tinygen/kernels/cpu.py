"""Convolution on the CPU, fast: NumPy alone, tile by tile, the tiles shared by a few threads.

The three products of ops/convolution.py, as kernels/windows.py defines them. What makes them fast:

- **Channels last in memory** under the logical shape (N, C, H, W). What one tap reads is then one run of C numbers,
  what one row of taps reads one run of kw·C, and im2col copies whole runs.
- **Tile by tile.** The columns of a few pictures, about 1 MiB, are gathered, multiplied and forgotten while
  they are in the second-level cache; the whole of im2col (kh·kw times the input) never exists. Padding happens in
  the tile too.
- **Products in small blocks** (kernels/products.py), on all threads at once (kernels/threads.py).
- **No zero is multiplied.** conv_transpose2d with stride s is s² convolutions of stride 1, one for each remainder
  (phase) of the result's coordinates modulo s, each with the taps that meet that phase.
- **The smaller side is moved.** The weight gradient gathers windows of the picture or of the output gradient,
  whichever has fewer channels. A convolution to very few channels multiplies first and adds the shifted
  products afterwards.

Sums are done in an order that depends on the shapes alone, so results are the same bit for bit from run to run and
for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinygen.kernels import threads
from tinygen.kernels.products import multiply, multiply_transposed, packed
from tinygen.kernels.threads import scratch
from tinygen.kernels.windows import Pair, Window

TILE = 1 << 20  # bytes of columns in a tile
_PLANAR = 4  # up to so many channels, columns are gathered plane by plane
_SERIAL = 1 << 21  # multiplications below which one thread is as fast as two

Task = Callable[[], Any]


class Slide(NamedTuple):
    """A Window without sizes; padding may be negative here (rows that are skipped)."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


class Tile(NamedTuple):
    """Pictures n0 … n1 and output rows i0 … i1, and the rows and columns of the picture that they read."""

    n0: int
    n1: int
    i0: int
    i1: int
    top: int
    bottom: int
    left: int
    right: int


@lru_cache(maxsize=512)
def tiles(N: int, oh: int, ow: int, bytes_per_position: int, slide: Slide) -> tuple[Tile, ...]:
    """Cut the N·oh output rows into tiles of about TILE bytes: whole pictures, or rows of one."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = slide
    positions = max(TILE // bytes_per_position, 1)
    if oh * ow <= positions:
        pieces = -(-N // (positions // (oh * ow)))
        if pieces < 4 and N * oh * ow * bytes_per_position > TILE // 4:
            pieces = min(4, N)
        cuts = [N * k // pieces for k in range(pieces + 1)]
        parts = [(n0, n1, 0, oh) for n0, n1 in zip(cuts, cuts[1:])]
    else:
        pieces = -(-oh // max(positions // ow, 1))
        cuts = [oh * k // pieces for k in range(pieces + 1)]
        parts = [(n, n + 1, i0, i1) for n in range(N) for i0, i1 in zip(cuts, cuts[1:])]
    left, right = -pw, sw * (ow - 1) + dw * (kw - 1) + 1 - pw
    return tuple(
        Tile(n0, n1, i0, i1, sh * i0 - ph, sh * (i1 - 1) + dh * (kh - 1) + 1 - ph, left, right)
        for n0, n1, i0, i1 in parts
    )


def source(x: np.ndarray, tile: Tile, planar: bool) -> np.ndarray:
    """The part of x (N, H, W, C) that a tile reads, zeros around it: a view of x, or a padded copy."""
    n0, n1, _, _, top, bottom, left, right = tile
    H, W, C = x.shape[1:]
    if top >= 0 and left >= 0 and bottom <= H and right <= W and (planar or C == 1 or x.strides[3] == x.itemsize):
        return x[n0:n1, top:bottom, left:right]
    rows, columns = bottom - top, right - left
    if planar:
        y = scratch("padded", (C, n1 - n0, rows, columns), x.dtype).transpose(1, 2, 3, 0)
    else:
        y = scratch("padded", (n1 - n0, rows, columns, C), x.dtype)
    # rows a … b of y are rows of the picture, and columns c … d
    a, b = min(max(-top, 0), rows), max(min(H - top, rows), 0)
    c, d = min(max(-left, 0), columns), max(min(W - left, columns), 0)
    if a >= b or c >= d:
        y[...] = 0
        return y
    y[:, :a] = 0
    y[:, b:] = 0
    y[:, a:b, :c] = 0
    y[:, a:b, d:] = 0
    y[:, a:b, c:d] = x[n0:n1, a + top : b + top, c + left : d + left]
    return y


def columns(x: np.ndarray, tile: Tile, ow: int, slide: Slide) -> np.ndarray:
    """im2col of a tile: (positions, kh·kw·C); in memory position by position, or tap by tap where C is small."""
    (kh, kw), (sh, sw), _, (dh, dw) = slide
    planar = x.shape[3] <= _PLANAR
    y = source(x, tile, planar)
    pictures, oh, C = tile.n1 - tile.n0, tile.i1 - tile.i0, x.shape[3]
    n, row, column, channel = y.strides
    if kh == kw == sh == sw == 1 and y.flags.c_contiguous:
        return y.reshape(-1, C)
    if planar:
        shape = (kh, kw, C, pictures, oh, ow)
        strides = (dh * row, dw * column, channel, n, sh * row, sw * column)
        into = scratch("columns", shape, x.dtype)
        into[...] = as_strided(y, shape, strides)
        return into.reshape(kh * kw * C, -1).T
    shape = (pictures, oh, ow, kh, kw, C)
    strides = (n, sh * row, sw * column, dh * row, dw * column, channel)
    into = scratch("columns", shape, x.dtype)
    into[...] = as_strided(y, shape, strides)
    return into.reshape(-1, kh * kw * C)


def _start(tasks: list[Task], work: int) -> None:
    if work < _SERIAL:
        for task in tasks:
            task()
    else:
        threads.run(tasks)


# ------------------------------------------------------------------------- convolution and its transpose


def correlate(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, slide: Slide) -> list[Task]:
    """The tasks of y = conv(x, w) + b for x (N, H, W, C), w (kh, kw, C, O), y (N, oh, ow, O), on any strides."""
    kh, kw, C, O = w.shape
    N, oh, ow, _ = y.shape
    taps = kh * kw
    if taps == 0:
        return [partial(_blank, y, b)]
    if slide.stride == (1, 1) and taps > 1 and O <= _PLANAR and C > 2 * O:
        matrix = np.ascontiguousarray(w.transpose(0, 1, 3, 2)).reshape(taps * O, C)
        parts = tiles(N, oh, ow, max(taps * O, C) * x.itemsize, slide)
        return [partial(_scatter, x, matrix, b, y, tile, slide) for tile in parts]
    matrix = packed(w.reshape(taps * C, O))
    parts = tiles(N, oh, ow, taps * C * x.itemsize, slide)
    return [partial(_gather, x, matrix, b, y, tile, slide) for tile in parts]


def _blank(y: np.ndarray, b: np.ndarray | None) -> None:
    y[...] = 0 if b is None else b


def _gather(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, tile: Tile, slide: Slide) -> None:
    """Gather the columns, then multiply."""
    target = y[tile.n0 : tile.n1, tile.i0 : tile.i1]
    pictures, oh, ow, O = target.shape
    a = columns(x, tile, ow, slide)
    if _even(target):
        out = target.reshape(-1, O)
        multiply(a, w, out)
        if b is not None:
            out += b
    else:
        out = scratch("result", (pictures, oh, ow, O), y.dtype)
        multiply(a, w, out.reshape(-1, O))
        if b is None:
            target[...] = out
        else:
            np.add(out, b, out=target)


def _even(y: np.ndarray) -> bool:
    """Whether the positions of y (N, oh, ow, O) lie at equal distances, so that reshape(−1, O) is a view."""
    steps = [(n, step) for n, step in zip(y.shape[:3], y.strides[:3]) if n > 1]
    return all(outer == n * inner for (_, outer), (n, inner) in zip(steps, steps[1:]))


def _scatter(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, tile: Tile, slide: Slide) -> None:
    """Multiply, then add the shifted products: y[i] = Σ_u (w_u x)[i + d·u − p]."""
    (kh, kw), _, _, (dh, dw) = slide
    target = y[tile.n0 : tile.n1, tile.i0 : tile.i1].transpose(3, 0, 1, 2)
    O, pictures, oh, ow = target.shape
    H, W, C = x.shape[1:]
    top, bottom = max(tile.top, 0), min(tile.bottom, H)
    part = x[tile.n0 : tile.n1, top:bottom]
    product = scratch("product", (kh * kw * O, pictures * (bottom - top) * W), y.dtype)
    np.matmul(w, part.reshape(-1, C).T, out=product)
    planes = product.reshape(kh, kw, O, pictures, bottom - top, W)
    total = scratch("result", (O, pictures, oh, ow), y.dtype)
    total[...] = 0 if b is None else b[:, None, None, None]
    for u in range(kh):
        for v in range(kw):
            down, across = tile.top + dh * u - top, tile.left + dw * v
            i0, i1 = max(-down, 0), min(oh, bottom - top - down)
            j0, j1 = max(-across, 0), min(ow, W - across)
            if i0 < i1 and j0 < j1:
                total[:, :, i0:i1, j0:j1] += planes[u, v, :, :, i0 + down : i1 + down, j0 + across : j1 + across]
    target[...] = total


def conv2d(x: Any, w: Any, b: Any, window: Window, groups: int) -> np.ndarray:
    """y = ∂T/∂y(x, w) + b: (N, C, H, W), (O, C/g, kh, kw), (O) or None → (N, O, Ho, Wo)."""
    if x.dtype == np.float16:
        return _in_float32(conv2d, (x, w, b), window, groups)
    N, O, c = x.shape[0], w.shape[0], w.shape[1]
    o = O // groups
    y = np.empty((N, *window.out, O), x.dtype)
    if y.size:
        slide = Slide(window.kernel, window.stride, window.padding, window.dilation)
        rows, taps = x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0)
        tasks: list[Task] = []
        for k in range(groups):
            i, j = slice(k * c, k * c + c), slice(k * o, k * o + o)
            tasks += correlate(rows[..., i], taps[..., j], None if b is None else b[j], y[..., j], slide)
        _start(tasks, y.size * (w.size // O))
    return y.transpose(0, 3, 1, 2)


def conv_transpose2d(y: Any, w: Any, b: Any, window: Window, groups: int) -> np.ndarray:
    """x = ∂T/∂x(w, y) + b: (N, O, Ho, Wo), (O, C/g, kh, kw), (C) or None → (N, C, H, W).

    x[m] = Σ w[u] y[i] over s·i + d·u − p = m. Write m = s·a + r. The taps u that meet phase r are those with
    s | r + p − d·u: every (s/e)-th from the first, u₀, with e = gcd(s, d). The t-th of them has
    i = a + (r + p − d·u₀)/s − t·d/e: a convolution of stride 1 and dilation d/e with the taps in reverse.
    """
    if y.dtype == np.float16:
        return _in_float32(conv_transpose2d, (y, w, b), window, groups)
    N, O, c = y.shape[0], w.shape[0], w.shape[1]
    o = O // groups
    x = np.empty((N, *window.size, groups * c), y.dtype)
    if x.size:
        (sh, sw), rows, taps = window.stride, y.transpose(0, 2, 3, 1), w.transpose(2, 3, 0, 1)
        tasks: list[Task] = []
        for vertical in _phases(0, window):
            for horizontal in _phases(1, window):
                part = taps[vertical.taps, horizontal.taps]
                slide = Slide(
                    part.shape[:2],
                    (1, 1),
                    (vertical.padding, horizontal.padding),
                    (vertical.dilation, horizontal.dilation),
                )
                target = x[:, vertical.remainder :: sh, horizontal.remainder :: sw]
                for k in range(groups):
                    i, j = slice(k * o, k * o + o), slice(k * c, k * c + c)
                    bias = None if b is None else b[j]
                    tasks += correlate(rows[..., i], part[:, :, i], bias, target[..., j], slide)
        _start(tasks, y.size * (w.size // O))
    return x.transpose(0, 3, 1, 2)


class Phase(NamedTuple):
    """The taps that meet one remainder r of the result's coordinate modulo the stride, and how they slide."""

    remainder: int
    taps: slice
    padding: int
    dilation: int


@lru_cache(maxsize=512)
def _phases(axis: int, window: Window) -> tuple[Phase, ...]:
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


# ------------------------------------------------------------------------------------ weight gradient


def conv2d_weight_gradient(x: Any, y: Any, window: Window, groups: int) -> np.ndarray:
    """w = ∂T/∂w(x, y): (N, C, H, W), (N, O, Ho, Wo) → (O, C/g, kh, kw).

    W = Xᵀ Y, X the columns of x. With stride 1, Σ_i y[i] x[i + d·u − p] = Σ_m x[m] y[m − d·u + p] says that the
    columns may be y's instead, taps reversed: better where y has fewer channels.
    """
    if x.dtype == np.float16:
        return _in_float32(conv2d_weight_gradient, (x, y), window, groups)
    (kh, kw), (ph, pw), (dh, dw) = window.kernel, window.padding, window.dilation
    c, o = x.shape[1] // groups, y.shape[1] // groups
    rows, cotangent = x.transpose(0, 2, 3, 1), y.transpose(0, 2, 3, 1)
    w = np.empty((groups * o, c, kh, kw), x.dtype)
    for k in range(groups):
        a, g = rows[..., k * c : k * c + c], cotangent[..., k * o : k * o + o]
        if window.stride == (1, 1) and o < c and kh * kw > 1:
            back = Slide((kh, kw), (1, 1), (dh * (kh - 1) - ph, dw * (kw - 1) - pw), (dh, dw))
            total = _accumulate(g, a, back).reshape(kh, kw, o, c)[::-1, ::-1].transpose(2, 3, 0, 1)
        else:
            slide = Slide(window.kernel, window.stride, window.padding, window.dilation)
            total = _accumulate(a, g, slide).reshape(kh, kw, c, o).transpose(3, 2, 0, 1)
        w[k * o : k * o + o] = total
    return w


def _accumulate(x: np.ndarray, y: np.ndarray, slide: Slide) -> np.ndarray:
    """Σ over all positions of (column of x)(row of y)ᵀ: (N, H, W, C), (N, oh, ow, O) → (kh·kw·C, O).

    A lane is a run of tiles, added up one after the other; then the lanes are added, in their order.
    """
    N, oh, ow, O = y.shape
    K = slide.kernel[0] * slide.kernel[1] * x.shape[3]
    if not y.size:
        return np.zeros((K, O), x.dtype)
    parts = tiles(N, oh, ow, K * x.itemsize, slide)
    lanes = min(len(parts), max(4, min(16, (8 << 20) // (K * O * x.itemsize))))
    totals = np.empty((lanes, K, O), x.dtype)
    cuts = [len(parts) * k // lanes for k in range(lanes + 1)]
    tasks: list[Task] = [
        partial(_lane, x, y, parts[i:j], slide, totals[k])
        for k, (i, j) in enumerate(zip(cuts, cuts[1:]))
    ]
    _start(tasks, y.size * K)
    return totals.sum(0) if lanes > 1 else totals[0]


def _lane(x: np.ndarray, y: np.ndarray, parts: tuple[Tile, ...], slide: Slide, total: np.ndarray) -> None:
    O, ow = y.shape[3], y.shape[2]
    for i, tile in enumerate(parts):
        a = columns(x, tile, ow, slide)
        g = y[tile.n0 : tile.n1, tile.i0 : tile.i1].reshape(-1, O)
        multiply_transposed(a, g, total, add=i > 0)


def _in_float32(kernel: Callable, arrays: tuple, window: Window, groups: int) -> np.ndarray:
    """A kernel for float16: BLAS has no product of them, and sums of them would lose digits."""
    wide = [None if a is None else a.astype(np.float32) for a in arrays]
    return kernel(*wide, window, groups).astype(np.float16)

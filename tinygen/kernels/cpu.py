"""Convolution on the CPU, fast: NumPy alone, tile by tile, the tiles shared by a few threads.

The three products of ops/convolution.py, as kernels/windows.py defines them. Many pictures go to kernels/batch_last.py,
or to kernels/grouped.py where their channels are in small groups; what is here does the others: few pictures, large
groups, dilation. What makes them fast:

- **Channels last in memory** under the logical shape (N, C, H, W): what one tap reads is one run of C numbers.
- **Tile by tile.** The windows of a few pictures, about 1 MiB, are gathered, multiplied and forgotten while they
  are in the second-level cache. The whole of im2col (kh·kw times the input) never exists, nor does a padded
  picture, and where it pays windows overlap in memory (kernels/tiles.py).
- **Products in small blocks** (kernels/products.py), on all threads at once (kernels/threads.py).
- **No inserted zero is multiplied.** conv_transpose2d with stride s is s² convolutions of stride 1, one for each
  remainder (phase) of the result's coordinates modulo s, each with the taps that meet that phase.
- **The smaller side is moved.** The weight gradient gathers windows of the picture or of the output gradient,
  whichever has fewer channels. A convolution to very few channels multiplies first and adds the shifted
  products afterwards.
- **Small groups are merged** into one of up to 16 channels with zeros between them: one product that is mostly
  zeros takes less time than sixteen tiny ones.

Sums are done in an order that depends on the shapes alone, so results are the same bit for bit from run to run
and for any number of threads. Numbers that are not finite may spoil more of a result than they should: some
products are computed and thrown away, or multiplied by 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np

from tinygen.kernels import batch_last, grouped, threads
from tinygen.kernels.products import multiply, multiply_transposed, packed
from tinygen.kernels.threads import scratch
from tinygen.kernels.tiles import Plan, Slide, Tile, cut, plan, windows
from tinygen.kernels.windows import Window, phases

_FEW = 4  # up to so many channels out, products are added up instead of windows gathered
_SERIAL = 1 << 25  # multiplications below which one thread is as fast as two: about half a millisecond

Task = Callable[[], Any]


def _channels_last(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) → (N, H, W, C), channels next to each other in memory: a view where they are."""
    rows = x.transpose(0, 2, 3, 1)
    if rows.strides[3] == x.itemsize or rows.shape[3] == 1:
        return rows
    new = np.empty(rows.shape, x.dtype)
    N, H, W, C = rows.shape
    parts = cut(N, H, W * C * x.itemsize) if x.size else ()
    tasks: list[Task] = [partial(np.copyto, new[n0:n1, i0:i1], rows[n0:n1, i0:i1]) for n0, n1, i0, i1 in parts]
    threads.run(tasks, 16 * x.size >= _SERIAL)
    return new


# ------------------------------------------------------------------------- convolution and its transpose


def correlate(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, slide: Slide) -> list[Task]:
    """The tasks of y = conv(x, w) + b for x (N, H, W, C), w (kh, kw, C, O), y (N, oh, ow, O), on any strides."""
    kh, kw, C, O = w.shape
    N, oh, ow, _ = y.shape
    if kh * kw == 0:
        return [partial(_blank, y, b)]
    if slide.stride == (1, 1) and kh * kw > 1 and O <= _FEW and C > 2 * O:
        matrix = packed(w.transpose(2, 0, 1, 3).reshape(C, -1))
        parts = cut(N, oh, max(kh * kw * O, C) * x.shape[2] * x.itemsize)
        return [partial(_scatter, x, matrix, b, y, tile, slide) for tile in parts]
    matrix = packed(w.transpose(1, 0, 2, 3).reshape(-1, O))
    layout = plan(N, x.shape[2], C, oh, ow, O, x.itemsize, slide)
    bias = None if b is None else np.tile(b, layout.most(ow))
    return [partial(_gather, x, matrix, bias, y, tile, layout, slide) for tile in layout.tiles]


def _blank(y: np.ndarray, b: np.ndarray | None) -> None:
    y[...] = 0 if b is None else b


def _gather(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, tile: Tile, layout: Plan, slide: Slide
) -> None:
    """Gather the windows, then multiply; b is the bias of all positions of a tile in one row."""
    target = y[tile.n0 : tile.n1, tile.i0 : tile.i1]
    pictures, oh, ow, O = target.shape
    a = windows(x, tile, layout, slide, ow)
    sets, m, _ = a.shape
    direct = sets == 1 and m == pictures * oh * ow and target.flags.c_contiguous
    result = target.reshape(m, 1, O) if direct else scratch("result", (m, sets, O), y.dtype)
    multiply(a, w, result.transpose(1, 0, 2))
    flat = result.reshape(sets * m * O)
    if b is not None:
        np.add(flat, b[: flat.size], out=flat)  # arrays of one axis are added several times faster than rows
    if not direct:
        made = layout.made(ow)
        target[...] = flat[: pictures * oh * made * O].reshape(pictures, oh, made, O)[:, :, :ow]


def _scatter(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, tile: Tile, slide: Slide) -> None:
    """Multiply, then add the shifted products: y[i] = Σ_u (w_u x)[i + d·u − p]."""
    (kh, kw), _, (ph, pw), (dh, dw) = slide
    target = y[tile.n0 : tile.n1, tile.i0 : tile.i1].transpose(3, 0, 1, 2)
    O, pictures, oh, ow = target.shape
    H, W, C = x.shape[1:]
    top = min(max(tile.i0 - ph, 0), H)
    bottom = max(min(tile.i1 - ph + dh * (kh - 1), H), top)
    if top == bottom:  # every window is beside the picture
        target[...] = 0 if b is None else b[:, None, None, None]
        return
    part = x[tile.n0 : tile.n1, top:bottom].reshape(1, -1, C)
    product = scratch("product", (1, part.shape[1], kh * kw * O), y.dtype)
    multiply(part, w, product)
    planes = product.reshape(pictures, bottom - top, W, kh, kw, O).transpose(3, 4, 5, 0, 1, 2)
    total = scratch("result", (O, pictures, oh, ow), y.dtype)
    total[...] = 0 if b is None else b[:, None, None, None]
    for u in range(kh):
        for v in range(kw):
            down, across = tile.i0 - ph + dh * u - top, dw * v - pw
            i0, i1 = max(-down, 0), min(oh, bottom - top - down)
            j0, j1 = max(-across, 0), min(ow, W - across)
            if i0 < i1 and j0 < j1:
                total[:, :, i0:i1, j0:j1] += planes[u, v, :, :, i0 + down : i1 + down, j0 + across : j1 + across]
    target[...] = total


def conv2d(x: Any, w: Any, b: Any, window: Window, groups: int) -> np.ndarray:
    """y = ∂T/∂y(x, w) + b: (N, C, H, W), (O, C/g, kh, kw), (O) or None → (N, O, Ho, Wo)."""
    if x.dtype == np.float16:
        return _in_float32(conv2d, (x, w, b), window, groups)
    if batch_last.suits(x, window, groups):
        return batch_last.conv2d(x, w, b, window)
    if grouped.suits(x, w.shape[1], w.shape[0] // groups, window, groups):
        return grouped.conv2d(x, w, b, window, groups)
    w, groups = _merged(w, groups)
    N, O, c = x.shape[0], w.shape[0], w.shape[1]
    o = O // groups
    y = np.empty((N, *window.out, O), x.dtype)
    if y.size:
        slide = Slide(window.kernel, window.stride, window.padding, window.dilation)
        rows, taps = _channels_last(x), w.transpose(2, 3, 1, 0)
        tasks: list[Task] = []
        for k in range(groups):
            i, j = slice(k * c, k * c + c), slice(k * o, k * o + o)
            tasks += correlate(rows[..., i], taps[..., j], None if b is None else b[j], y[..., j], slide)
        threads.run(tasks, y.size * c * window.kernel[0] * window.kernel[1] >= _SERIAL)
    return y.transpose(0, 3, 1, 2)


def conv_transpose2d(y: Any, w: Any, b: Any, window: Window, groups: int) -> np.ndarray:
    """x = ∂T/∂x(w, y) + b: (N, O, Ho, Wo), (O, C/g, kh, kw), (C) or None → (N, C, H, W).

    x[m] = Σ w[u] y[i] over s·i + d·u − p = m. Write m = s·a + r. The taps u that meet phase r are those with
    s | r + p − d·u: every (s/e)-th from the first, u₀, with e = gcd(s, d). The t-th of them has
    i = a + (r + p − d·u₀)/s − t·d/e: a convolution of stride 1 and dilation d/e with the taps in reverse.
    """
    if y.dtype == np.float16:
        return _in_float32(conv_transpose2d, (y, w, b), window, groups)
    if batch_last.suits(y, window, groups):
        return batch_last.conv_transpose2d(y, w, b, window)
    if grouped.suits(y, w.shape[1], w.shape[0] // groups, window, groups):
        return grouped.conv_transpose2d(y, w, b, window, groups)
    w, groups = _merged(w, groups)
    N, O, c = y.shape[0], w.shape[0], w.shape[1]
    o = O // groups
    x = np.empty((N, *window.size, groups * c), y.dtype)
    if x.size:
        (sh, sw), rows, taps = window.stride, _channels_last(y), w.transpose(2, 3, 0, 1)
        parts: list[list[Task]] = []
        for vertical in phases(0, window):
            for horizontal in phases(1, window):
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
                    parts.append(correlate(rows[..., i], part[:, :, i], bias, target[..., j], slide))
        # Tile by tile, all phases of a tile one after the other: they read the same rows, from the cache.
        tasks: list[Task] = [task for tile in zip_longest(*parts) for task in tile if task is not None]
        threads.run(tasks, y.size * c * window.kernel[0] * window.kernel[1] >= _SERIAL)
    return x.transpose(0, 3, 1, 2)


def _merge(c: int, o: int, groups: int) -> int:
    """How many groups of c channels in and o out are merged into one."""
    return max(q for q in range(1, groups + 1) if groups % q == 0 and (q == 1 or q * max(c, o) <= 16))


def _merged(w: np.ndarray, groups: int) -> tuple[np.ndarray, int]:
    """The filters (O, C/g, kh, kw) of fewer, larger groups: zeros where two groups do not meet."""
    O, c, kh, kw = w.shape
    q = _merge(c, O // groups, groups)
    if q == 1:
        return w, groups
    o = O // groups
    wide = np.zeros((groups // q, q, o, q, c, kh, kw), w.dtype)
    for k in range(q):
        wide[:, k, :, k] = w.reshape(groups // q, q, o, c, kh, kw)[:, k]
    return wide.reshape(O, q * c, kh, kw), groups // q


# ------------------------------------------------------------------------------------ weight gradient


def conv2d_weight_gradient(x: Any, y: Any, window: Window, groups: int) -> np.ndarray:
    """w = ∂T/∂w(x, y): (N, C, H, W), (N, O, Ho, Wo) → (O, C/g, kh, kw).

    W = Yᵀ X, X the windows of x. With stride 1, Σ_i y[i] x[i + d·u − p] = Σ_m x[m] y[m − d·u + p] says that the
    windows may be y's instead, taps reversed: better where y has fewer channels.
    """
    if x.dtype == np.float16:
        return _in_float32(conv2d_weight_gradient, (x, y), window, groups)
    if batch_last.suits(x, window, groups):
        return batch_last.conv2d_weight_gradient(x, y, window)
    if grouped.suits(x, x.shape[1] // groups, y.shape[1] // groups, window, groups):
        return grouped.conv2d_weight_gradient(x, y, window, groups)
    (kh, kw), (ph, pw), (dh, dw) = window.kernel, window.padding, window.dilation
    q = _merge(x.shape[1] // groups, y.shape[1] // groups, groups)
    groups //= q
    c, o = x.shape[1] // groups, y.shape[1] // groups
    rows, cotangent = _channels_last(x), _channels_last(y)
    w = np.empty((groups, o, c, kh, kw), x.dtype)
    for k in range(groups):
        a, g = rows[..., k * c : k * c + c], cotangent[..., k * o : k * o + o]
        if window.stride == (1, 1) and o < c and kh * kw > 1:
            back = Slide((kh, kw), (1, 1), (dh * (kh - 1) - ph, dw * (kw - 1) - pw), (dh, dw))
            w[k] = _accumulate(g, a, back).reshape(c, kw, kh, o)[:, ::-1, ::-1].transpose(3, 0, 2, 1)
        else:
            slide = Slide(window.kernel, window.stride, window.padding, window.dilation)
            w[k] = _accumulate(a, g, slide).reshape(o, kw, kh, c).transpose(0, 3, 2, 1)
    if q > 1:  # of the merged groups' filters, those that join a group with itself
        diagonal = w.reshape(groups, q, o // q, q, c // q, kh, kw).diagonal(axis1=1, axis2=3)
        w = np.ascontiguousarray(np.moveaxis(diagonal, -1, 1))
    return w.reshape(-1, c // q, kh, kw)


def _accumulate(x: np.ndarray, y: np.ndarray, slide: Slide) -> np.ndarray:
    """Σ over all positions of (row of y)(column of x)ᵀ: (N, H, W, C), (N, oh, ow, O) → (O, kh·kw·C).

    A lane is a run of tiles, added up one after the other; then the lanes are added, in their order.
    """
    N, oh, ow, O = y.shape
    K = slide.kernel[0] * slide.kernel[1] * x.shape[3]
    if not y.size:
        return np.zeros((O, K), x.dtype)
    layout = plan(N, *x.shape[2:], oh, ow, O, x.itemsize, slide)
    parts = layout.tiles
    lanes = min(len(parts), max(4, min(16, (4 << 20) // (K * O * x.itemsize))))
    totals = np.empty((lanes, O, K), x.dtype)
    cuts = [len(parts) * k // lanes for k in range(lanes + 1)]
    tasks: list[Task] = [
        partial(_lane, x, y, parts[i:j], layout, slide, totals[k]) for k, (i, j) in enumerate(zip(cuts, cuts[1:]))
    ]
    threads.run(tasks, y.size * K >= _SERIAL)
    return totals.sum(0) if lanes > 1 else totals[0]


def _lane(x: np.ndarray, y: np.ndarray, parts: tuple[Tile, ...], layout: Plan, slide: Slide, total: np.ndarray) -> None:
    O, ow = y.shape[3], y.shape[2]
    for k, tile in enumerate(parts):
        a = windows(x, tile, layout, slide, ow)
        sets, m, _ = a.shape
        part = y[tile.n0 : tile.n1, tile.i0 : tile.i1]
        pictures, oh = part.shape[:2]
        if sets == 1 and m == pictures * oh * ow:
            g = part.reshape(1, m, O)
        else:  # in the places of the windows, zeros for those that count for nothing
            flat = scratch("cotangent", (sets * m, O), y.dtype)
            made = layout.made(ow)
            places = flat[: pictures * oh * made].reshape(pictures, oh, made, O)
            places[:, :, :ow] = part
            places[:, :, ow:] = 0
            flat[pictures * oh * made :] = 0
            g = flat.reshape(m, sets, O).transpose(1, 0, 2)
        multiply_transposed(g, a, total, add=k > 0)


def channel_sums(y: Any) -> np.ndarray:
    """Σ over pictures and positions, (N, C, H, W) → (C): sums of whole rows first, which NumPy adds fastest."""
    if y.dtype == np.float16:
        return channel_sums(y.astype(np.float32)).astype(np.float16)
    rows = y.transpose(0, 2, 3, 1)
    if y.transpose(2, 1, 3, 0).flags.c_contiguous and y.size:
        return batch_last.channel_sums(y)
    if not (rows.flags.c_contiguous and y.size):
        return y.sum((0, 2, 3))
    N, H, W, C = rows.shape
    parts = cut(N, H, W * C * y.itemsize)
    totals = np.empty((len(parts), W * C), y.dtype)
    tasks: list[Task] = [
        partial(np.add.reduce, rows[n0:n1, i0:i1].reshape(-1, W * C), 0, None, totals[k])
        for k, (n0, n1, i0, i1) in enumerate(parts)
    ]
    threads.run(tasks, 8 * y.size >= _SERIAL)
    return totals.sum(0).reshape(W, C).sum(0)


def _in_float32(kernel: Callable, arrays: tuple, window: Window, groups: int) -> np.ndarray:
    """A kernel for float16: BLAS has no product of them, and sums of them would lose digits."""
    wide = [None if a is None else a.astype(np.float32) for a in arrays]
    return kernel(*wide, window, groups).astype(np.float16)

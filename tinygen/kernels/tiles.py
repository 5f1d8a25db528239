"""The windows of a few pictures at a time, laid out in scratch memory for a matrix product (im2col, in tiles).

A tile is some pictures, or some output rows of one, small enough that everything made of it stays in the
second-level cache. :func:`plan` decides on tiles and layout from shapes alone; :func:`windows` fills the memory.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tinygen.kernels.threads import scratch
from tinygen.kernels.windows import Pair

TILE = 1 << 20  # bytes of windows in a tile


class Slide(NamedTuple):
    """A Window without sizes; padding may be negative here (rows that are skipped)."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


class Tile(NamedTuple):
    """Pictures n0 … n1, output rows i0 … i1."""

    n0: int
    n1: int
    i0: int
    i1: int


class Plan(NamedTuple):
    """How the windows of one convolution are laid out in scratch memory; see :func:`windows`.

    Attributes:
        tiles: what is done at a time.
        left: columns of zeros before a row of the picture.
        skip: columns of the picture that no window reads (negative padding).
        width: columns in all; zeros follow the picture where they are needed.
        step: columns from one output position to the next.
        interleave: how many interleaved sets of windows there are; 0 where windows are copied one by one.
    """

    tiles: tuple[Tile, ...]
    left: int
    skip: int
    width: int
    step: int
    interleave: int

    def made(self, ow: int) -> int:
        """How many positions in a row are computed, those that are thrown away included."""
        return self.width // self.step if self.interleave else ow

    def most(self, ow: int) -> int:
        """How many windows :func:`windows` makes of the largest tile."""
        sets = max(self.interleave, 1)
        positions = max((t.n1 - t.n0) * (t.i1 - t.i0) for t in self.tiles) * self.made(ow)
        return -(-positions // sets) * sets


@lru_cache(maxsize=512)
def plan(N: int, W: int, C: int, oh: int, ow: int, O: int, itemsize: int, slide: Slide) -> Plan:
    """The plan for N pictures with rows of W columns, C channels in, oh×ow outputs, O channels out."""
    (kh, kw), (_, sw), (_, pw), (_, dw) = slide
    left, skip = max(pw, 0), max(-pw, 0)
    reach = sw * (ow - 1) + dw * (kw - 1) + 1
    # A row may read its last zeros from those that the next row begins with.
    width = -(-max(sw * ow, reach - left, min(reach, left + W - skip)) // sw) * sw
    sets = -(-kw // sw)
    # In nanoseconds for a row: products that are thrown away and a copy of the rest, or a copy of the windows.
    overlapping = (width // sw - ow) * kh * kw * C * O / 70 + ow * O / 2
    copying = ow * (kh * kw * C / 8 + O / 4 + 5)
    if dw > 1 or overlapping > copying:
        width, sets = -(-reach // sw) * sw, 0
    if kw == sw == 1:
        sets = 1
    row = (width * kh * C if sets else width * kh * C + ow * kh * kw * C) * itemsize
    return Plan(cut(N, oh, row), left, skip, width, sw, sets)


@lru_cache(maxsize=512)
def cut(N: int, oh: int, row: int) -> tuple[Tile, ...]:
    """N pictures of oh output rows, each of which takes ``row`` bytes, in tiles of about TILE bytes."""
    rows = max(TILE // row, 1)
    if oh <= rows:
        pieces = max(-(-N // (rows // oh)), min(4, 4 * N * oh * row // TILE), 1)
        if pieces > 2:
            pieces = -(-pieces // 4) * 4  # a multiple of 4 leaves nobody idle at the end
        pieces = min(pieces, N)
        cuts = [N * k // pieces for k in range(pieces + 1)]
        return tuple(Tile(n0, n1, 0, oh) for n0, n1 in zip(cuts, cuts[1:]))
    pieces = -(-oh // rows)
    cuts = [oh * k // pieces for k in range(pieces + 1)]
    return tuple(Tile(n, n + 1, i0, i1) for n in range(N) for i0, i1 in zip(cuts, cuts[1:]))


def windows(x: np.ndarray, tile: Tile, layout: Plan, slide: Slide, ow: int) -> np.ndarray:
    """The windows of a tile as the rows of matrices (sets, m, kw·kh·C), from x (N, H, W, C).

    The rows of the picture that output row i reads are laid side by side, with the zeros around them:
    b[i, j, u, c] = x[s·i + d·u − p, j − p, c]. In b, the window at column j is the run b[i, j : j + kw]; windows
    overlap, so what is copied is kh times the picture instead of kh·kw times. BLAS takes no matrix whose rows
    overlap, but every R-th window, R·s ≥ kw, overlaps no other: R interleaved sets of windows (Plan.interleave), each
    an honest matrix. A few windows begin in one row and end in the next; their products are thrown away.
    """
    (kh, kw), (sh, sw), (ph, _), (dh, dw) = slide
    n0, n1, i0, i1 = tile
    _, left, skip, width, step, sets = layout
    H, W, C = x.shape[1:]
    pictures, oh = n1 - n0, i1 - i0
    part = x[n0:n1]
    if kh == kw == sh == sw == 1 and left == skip == ph == 0 and ow == W and i1 <= H and part.flags.c_contiguous:
        return part[:, i0:i1].reshape(1, pictures * oh * ow, C)
    size = pictures * oh * width
    spare = kw + max(sets, 1) * step
    flat = scratch("rows", (size + spare, kh, C), x.dtype)
    flat[size:] = 0
    b = flat[:size].reshape(pictures, oh, width, kh, C)
    filled = max(min(width - left, W - skip), 0)
    b[:, :, :left] = 0
    b[:, :, left + filled :] = 0
    for u in range(kh):
        shift = dh * u - ph
        first = min(max(-(shift // sh), i0), i1)
        last = max(min((H - 1 - shift) // sh + 1, i1), first)
        b[:, : first - i0, left : left + filled, u] = 0
        b[:, last - i0 :, left : left + filled, u] = 0
        if last > first and filled:
            rows = slice(sh * first + shift, sh * (last - 1) + shift + 1, sh)
            b[:, first - i0 : last - i0, left : left + filled, u] = part[:, rows, skip : skip + filled]
    column = kh * C * x.itemsize
    if sets:
        m = -(-(size // step) // sets)
        strides: tuple[int, ...] = (step * column, sets * step * column, x.itemsize)
        return np.ndarray((sets, m, kw * kh * C), x.dtype, flat, 0, strides)
    shape = (pictures, oh, ow, kw, kh * C)
    strides = (*b.strides[:2], step * column, dw * column, x.itemsize)
    copied = scratch("windows", shape, x.dtype)
    copied[...] = np.ndarray(shape, x.dtype, flat, 0, strides)
    return copied.reshape(1, pictures * oh * ow, kw * kh * C)

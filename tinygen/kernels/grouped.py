"""Convolution in small groups of channels, depthwise above all: products with banded matrices, no inserted zeros.

A group of c channels in and o out has too few numbers for a matrix product: depthwise (c = o = 1) every output is
kh·kw products of two numbers, and NumPy would need 2·kh·kw passes. But B neighbouring places of an output row see
kh rows of L = B + kw − 1 places each, and they all are one product,

    Y (o·B, n) = M (o·B, kh·c·L) X (kh·c·L, n),    M[(o, j), (u, c, l)] = w[o, c, u, l − j],  0 outside the filter,

n the pictures, innermost in memory as in kernels/batch_last.py. M is a band of kw diagonals; with a stride s it is
w[…, l − s·j]. Of its entries kw in L are not 0, so B is small: eight places or so waste two products of three, at
which BLAS still is ten times as fast as NumPy's passes. What M multiplies lies in one piece once the rows of a few
groups have been copied to (group, row, c, l, n): every output row reads kh rows of that, one following the other. Rows
beside the picture are zeros there; of M's columns those beside it are left out.

The transposed convolution is the same with other diagonals, w[…, j + p − s·l], and a matrix for each remainder of the
output row modulo s. The weight gradient is Y Xᵀ, summed over the rows; its diagonals are summed to the taps. Where a
group has one channel in and the horizontal stride is 1, a dot product for each tap and row is quicker: what a tap sees
of a row, from all places and pictures, is one run.

Sums are done in an order that depends on the shapes alone. Because 0·∞ is NaN, an infinity or NaN in a picture makes
NaN not only of the places that see it, but of all places of their runs, in the same channels of the same picture.

Source: a convolution as a product with a Toeplitz matrix, Gray (2006), *Toeplitz and circulant matrices: a review*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from tinygen.kernels.batch_last import LEAST, batch_last
from tinygen.kernels.threads import aligned, run, scratch
from tinygen.kernels.windows import Pair, Window, phases

_WIDEST = 16  # channels of a group from where on each is a convolution of its own
_HEIGHT = 8  # about so many rows of M: fewer zeros, but more and smaller products
_STEP = 1 << 21  # bytes that are copied at a time: as large as a second-level cache, for fewer and longer calls
_MOST = 192  # pictures in a step
_SERIAL = 1 << 20  # multiplications, those with zeros included, below which one thread is as fast as two

Task = Callable[[], Any]


def suits(x: np.ndarray, c: int, o: int, window: Window, groups: int) -> bool:
    """Whether a convolution of c channels in and o out in a group is done here."""
    few = groups > 1 and max(c, o) <= _WIDEST
    return few and len(x) >= LEAST and x.size > 0 and window.dilation == (1, 1)


class Band(NamedTuple):
    """How B places of an output row see L places of an input row.

    Attributes:
        places: B; the last run of a row may have fewer.
        reach: L.
        first, step: the b-th run sees the places that begin at first + b·step.
        diagonals: for each tap of the filter's row, the j and the l that it joins.
    """

    places: int
    reach: int
    first: int
    step: int
    diagonals: tuple[tuple[np.ndarray, ...], ...]

    def runs(self, out: int, size: int) -> Iterator[tuple[int, int, int, int]]:
        """For each run of a row of ``out`` places: its first, the first that it sees, and those inside, l0 … l1."""
        for b, j in enumerate(range(0, out, self.places)):
            left = self.first + b * self.step
            l0 = min(max(left, 0), size)
            yield j, left, l0, max(min(left + self.reach, size), l0)


@lru_cache(maxsize=512)
def _band(out: int, taps: int, stride: int, padding: int, o: int, transposed: bool) -> Band:
    """The band for rows of ``out`` places."""
    most = max(_HEIGHT // o, 2)
    B = -(-out // -(-out // most))
    if transposed:  # runs begin at multiples of the stride, so that all are alike
        B = -(-B // stride) * stride
        first = -((taps - 1 - padding) // stride)
        reach, step = (B - 1 + padding) // stride - first + 1, B // stride
        tap = np.arange(B)[:, None] + padding - stride * (first + np.arange(reach))
    else:
        first, reach, step = -padding, stride * (B - 1) + taps, stride * B
        tap = np.arange(reach) - stride * np.arange(B)[:, None]
    return Band(B, reach, first, step, tuple(np.nonzero(tap == v) for v in range(taps)))


class Rows(NamedTuple):
    """How output rows see input rows: output row i sees stride·i − padding and those after it, one for each tap."""

    taps: int
    stride: int
    padding: int


class Step(NamedTuple):
    """The pictures, groups and output rows that are worked on at a time."""

    n0: int
    n1: int
    g0: int
    g1: int
    i0: int
    i1: int


@lru_cache(maxsize=512)
def _steps(N: int, groups: int, out: int, rows: Rows, row: int) -> tuple[Step, ...]:
    """All steps, for ``row`` bytes in the copy of one row of one picture and group; those of a group in sequence."""
    parts = -(-N // _MOST)
    pictures = [N * k // parts // 16 * 16 for k in range(parts)] + [N]
    row *= max(b - a for a, b in zip(pictures, pictures[1:]))
    high = min(max((_STEP // row - rows.taps) // rows.stride + 1, 1), out)
    heights = _cuts(out, -(-out // high))
    wide = max(_STEP // (row * max(rows.stride * (high - 1) + rows.taps, 1)), 1)
    widths = _cuts(groups, min(-(-groups // (4 * wide)) * 4, groups))  # a multiple of 4 leaves nobody idle at the end
    return tuple(
        Step(n0, n1, g0, g1, i0, i1)
        for g0, g1 in widths
        for n0, n1 in zip(pictures, pictures[1:])
        for i0, i1 in heights
    )


def _cuts(n: int, pieces: int) -> list[Pair]:
    ends = [n * k // pieces for k in range(pieces + 1)]
    return list(zip(ends, ends[1:]))


class Copied(NamedTuple):
    """Rows of the input, group after group, in memory of our own: where the first window begins, and the steps."""

    memory: np.ndarray
    start: int
    group: int
    row: int


def _copied(x: np.ndarray, step: Step, rows: Rows, left: int, reach: int, pad: int) -> Copied:
    """What the step's output rows see of the places left … left + reach − 1, of which all but ``pad`` lie inside.

    The zeros around the picture stand between the rows and between the groups, each once for both neighbours, so that
    one call writes them: x (H, groups, c, W, N) → (…, c, pad + places inside, n).
    """
    n0, n1, g0, g1, i0, i1 = step
    H, _, c, W, _ = x.shape
    top, high = rows.stride * i0 - rows.padding, rows.stride * (i1 - i0 - 1) + rows.taps
    h0 = min(max(top, 0), H)
    h1 = max(min(top + high, H), h0)
    above = min(max(-top, 0), high)
    gap = max(above, high - above - (h1 - h0))
    l0, l1 = max(left, 0), min(left + reach, W)
    wide, n, groups = pad + l1 - l0, n1 - n0, g1 - g0
    all_rows = gap + groups * (h1 - h0 + gap)
    memory = scratch("rows", (all_rows * c * wide + pad, n), x.dtype)
    lines = memory[: all_rows * c * wide].reshape(all_rows, c, wide, n)
    if pad:
        lines[:, :, :pad] = 0
        memory[all_rows * c * wide :] = 0
    lines[all_rows - gap :] = 0
    parts = lines[: all_rows - gap].reshape(groups, -1, c, wide, n)
    parts[:, :gap] = 0
    parts[:, gap:, :, pad:] = x[h0:h1, g0:g1, :, l0:l1, n0:n1].swapaxes(0, 1)
    row, group = lines.strides[0], parts.strides[0]
    return Copied(memory, (gap - above) * row + (pad - max(-left, 0)) * n * x.itemsize, group, row)


def correlate(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, rows: Rows, band: Band) -> list[Task]:
    """The tasks of y = Σ w x + b: x (H, groups, c, W, N), w (groups, o, c, kh, kw), y (Ho, groups, o, Wo, N)."""
    groups, o, c, kh, _ = w.shape
    matrix = np.zeros((groups, o, band.places, kh, c, band.reach), x.dtype)
    for v, (places, seen) in enumerate(band.diagonals):
        matrix[:, :, places, :, :, seen] = w[..., v].transpose(0, 1, 3, 2)
    runs: list[tuple[int, int, int, np.ndarray]] = []
    for j, left, l0, l1 in band.runs(y.shape[3], x.shape[3]):
        part = matrix[:, :, : y.shape[3] - j, ..., l0 - left : l1 - left]
        runs.append((j, l0, l1, part.reshape(groups, o, part.shape[2], -1)))
    bias = None if b is None else b.reshape(groups, o, 1, 1)
    steps = _steps(x.shape[4], groups, len(y), rows, c * band.reach * x.itemsize)
    return [partial(_correlate, x, runs, bias, y, rows, step) for step in steps]


def _windows(x: np.ndarray, step: Step, rows: Rows, l0: int, l1: int) -> np.ndarray:
    """What the step's output rows see of the places l0 … l1 − 1: (I, groups, taps·c·(l1 − l0), n), rows overlapping."""
    memory, start, group, row = _copied(x, step, rows, l0, l1 - l0, 0)
    n = step.n1 - step.n0
    shape = (step.i1 - step.i0, step.g1 - step.g0, rows.taps * x.shape[2] * (l1 - l0), n)
    return np.ndarray(shape, x.dtype, memory, start, (rows.stride * row, group, n * x.itemsize, x.itemsize))


def _correlate(
    x: np.ndarray,
    runs: list[tuple[int, int, int, np.ndarray]],
    bias: np.ndarray | None,
    y: np.ndarray,
    rows: Rows,
    step: Step,
) -> None:
    n0, n1, g0, g1, i0, i1 = step
    target = y[i0:i1, g0:g1, :, :, n0:n1]
    for j, l0, l1, matrix in runs:
        windows = _windows(x, step, rows, l0, l1)[:, :, None]
        np.matmul(matrix[g0:g1], windows, out=target[:, :, :, j : j + matrix.shape[2]])
    if bias is not None:  # spread over a row first: NumPy is slow where each run has a number of its own
        row = scratch("bias", target.shape[1:], x.dtype)
        row[...] = bias[g0:g1]
        np.add(target, row, out=target)


# ------------------------------------------------------------------------------------ weight gradient


def accumulate(x: np.ndarray, y: np.ndarray, rows: Rows, band: Band) -> np.ndarray:
    """w = Σ over places and pictures of y · window: x (H, groups, c, W, N), y (Ho, groups, o, Wo, N).

    Returns:
        (groups, o, c, kh, kw).
    """
    oh, groups, o, _, N = y.shape
    c = x.shape[2]
    steps = _steps(N, groups, oh, rows, c * band.reach * x.itemsize)
    total = _total(partial(_products, x, y, rows, band), steps, (groups, o, band.places, rows.taps * c * band.reach), y)
    total = total.reshape(groups, o, band.places, rows.taps, c, band.reach)
    w = np.empty((groups, o, rows.taps, c, len(band.diagonals)), x.dtype)
    for v, (places, seen) in enumerate(band.diagonals):
        w[..., v] = total[:, :, places, :, :, seen].sum(0)
    return w.swapaxes(2, 3)


def _total(work: Callable[[Step], np.ndarray], steps: tuple[Step, ...], shape: tuple, y: np.ndarray) -> np.ndarray:
    """Σ of what all steps find for their groups, in their order."""
    found: dict[Step, np.ndarray] = {}

    def keep(step: Step) -> None:
        found[step] = work(step)

    run([partial(keep, step) for step in steps], y.size * shape[-1] >= _SERIAL)
    total = np.zeros(shape, y.dtype)
    for step in steps:
        total[step.g0 : step.g1] += found[step]
    return total


def _products(x: np.ndarray, y: np.ndarray, rows: Rows, band: Band, step: Step) -> np.ndarray:
    """Σ Y Xᵀ over the runs of a step's rows: (groups, o, B, taps·c·L)."""
    n0, n1, g0, g1, i0, i1 = step
    o, c = y.shape[2], x.shape[2]
    total = np.zeros((g1 - g0, o, band.places, rows.taps, c, band.reach), x.dtype)
    for j, left, l0, l1 in band.runs(y.shape[3], x.shape[3]):
        windows = _windows(x, step, rows, l0, l1)[:, :, None]
        part = y[i0:i1, g0:g1, :, j : j + band.places, n0:n1]
        product = scratch("product", (i1 - i0, g1 - g0, o, part.shape[3], windows.shape[3]), x.dtype)
        np.matmul(part, windows.swapaxes(3, 4), out=product)
        found = np.add.reduce(product, 0).reshape(*product.shape[1:4], rows.taps, c, l1 - l0)
        total[:, :, : part.shape[3], ..., l0 - left : l1 - left] += found
    return total.reshape(*total.shape[:3], -1)


def dots(x: np.ndarray, y: np.ndarray, rows: Rows, taps: int, padding: int) -> np.ndarray:
    """The same for one channel in a group and a horizontal stride of 1: a dot product for each tap and output row.

    What a tap sees of a row, from all places and pictures, is one run: no inserted zero is multiplied.
    """
    (_, groups, _, _, N), (oh, _, o, ow, _) = x.shape, y.shape
    row = (ow + taps - 1) * N * x.itemsize
    steps = _steps(1, groups, oh, rows, row)  # all pictures: a run is not to be cut
    w = _total(partial(_dots, x, y, rows, taps, padding), steps, (groups, o, rows.taps, taps), y)
    return w[:, :, None]


def _dots(x: np.ndarray, y: np.ndarray, rows: Rows, taps: int, padding: int, step: Step) -> np.ndarray:
    """What the step's rows add to w."""
    W, N = x.shape[3:]
    o, ow = y.shape[2:4]
    reach = ow + taps - 1
    if -padding + reach <= 0:  # nothing inside
        return np.zeros((step.g1 - step.g0, o, rows.taps, taps), x.dtype)
    pad = max(padding, reach - padding - W, 0)
    memory, start, group, row = _copied(x, step._replace(n1=N), rows, -padding, reach, pad)
    shape = (step.i1 - step.i0, step.g1 - step.g0, 1, rows.taps, taps, ow * N)
    strides = (rows.stride * row, group, 0, row, N * x.itemsize, x.itemsize)
    seen = np.ndarray(shape, x.dtype, memory, start, strides)
    part = y[step.i0 : step.i1, step.g0 : step.g1].reshape(*shape[:2], o, 1, 1, -1)
    return np.vecdot(part, seen).sum(0)


# ------------------------------------------------------------------------- the three products of a convolution


def _split(rows: np.ndarray, groups: int) -> np.ndarray:
    """(H, groups·c, W, N) → (H, groups, c, W, N)."""
    H, C, W, N = rows.shape
    return rows.reshape(H, groups, C // groups, W, N)


def conv2d(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, window: Window, groups: int) -> np.ndarray:
    """y = ∂T/∂y(x, w) + b: (N, C, H, W), (O, C/g, kh, kw), (O) or None → (N, O, Ho, Wo), batch last in memory."""
    O, c, kh, kw = w.shape
    o = O // groups
    y = aligned((window.out[0], O, window.out[1], len(x)), x.dtype)
    if y.size:
        band = _band(window.out[1], kw, window.stride[1], window.padding[1], o, False)
        rows = Rows(kh, window.stride[0], window.padding[0])
        filters = w.reshape(groups, o, c, kh, kw)
        tasks = correlate(_split(batch_last(x), groups), filters, b, _split(y, groups), rows, band)
        run(tasks, y.size * c * kh * band.reach >= _SERIAL)
    return y.transpose(3, 1, 0, 2)


def conv_transpose2d(y: np.ndarray, w: np.ndarray, b: np.ndarray | None, window: Window, groups: int) -> np.ndarray:
    """x = ∂T/∂x(w, y) + b: (N, O, Ho, Wo), (O, C/g, kh, kw), (C) or None → (N, C, H, W), batch last in memory."""
    O, c, kh, kw = w.shape
    x = aligned((window.size[0], groups * c, window.size[1], len(y)), y.dtype)
    if x.size:
        band = _band(window.size[1], kw, window.stride[1], window.padding[1], c, True)
        source, target = _split(batch_last(y), groups), _split(x, groups)
        filters = w.reshape(groups, O // groups, c, kh, kw).swapaxes(1, 2)
        tasks: list[Task] = []
        for phase in phases(0, window):
            taps = filters[:, :, :, phase.taps]
            rows = Rows(taps.shape[3], 1, phase.padding)
            tasks += correlate(source, taps, b, target[phase.remainder :: window.stride[0]], rows, band)
        run(tasks, y.size * c * kh * band.reach * window.stride[1] >= _SERIAL)
    return x.transpose(3, 1, 0, 2)


def conv2d_weight_gradient(x: np.ndarray, y: np.ndarray, window: Window, groups: int) -> np.ndarray:
    """w = ∂T/∂w(x, y): (N, C, H, W), (N, O, Ho, Wo) → (O, C/g, kh, kw)."""
    O, (kh, kw) = y.shape[1], window.kernel
    c = x.shape[1] // groups
    if not y.size:
        return np.zeros((O, c, kh, kw), x.dtype)
    rows = Rows(kh, window.stride[0], window.padding[0])
    a, g = _split(batch_last(x), groups), _split(batch_last(y), groups)
    if c == window.stride[1] == 1:
        w = dots(a, g, rows, kw, window.padding[1])
    else:
        w = accumulate(a, g, rows, _band(window.out[1], kw, window.stride[1], window.padding[1], O // groups, False))
    return w.reshape(O, c, kh, kw)

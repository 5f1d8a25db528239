"""Normalisation of NumPy arrays (N, C, H, …) that lie in memory as (H, C, …, N), the number of the example innermost.

So do large activations lie between convolutions (kernels/batch_last.py). For one h, the numbers of some channels follow
each other without a gap, and what NumPy does with such a run beside a run of statistics is one long inner loop. A task
is a share of the groups; its calls are few and long, as threads under Python's lock want them.

A group within one example (group_norm): Σ over h of whole runs, then the short rest of each sum. A group over all
examples (batch_norm): each run is summed as a product with itself, or with ones, by BLAS.

σ² = M(x − c)² − (μ − c)², first with c = 0, which reads the array once. Where that would lose more than a digit of σ²,
because μ² is more than ten times as large, it is done again with c = μ.

The formulas and the shapes of the results are those of kernels/norms.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from tinygen.kernels.arrays import empty_like
from tinygen.kernels.buffers import rows_of
from tinygen.kernels.threads import run, scratch

_SERIAL = 1 << 22  # bytes of an array below which waking another thread costs what it saves
_TASK = 6 << 20  # bytes of the array that a task goes over, if there are groups enough
_MOST = 8  # tasks of one array
_STEP = 1 << 19  # bytes of the result that are gone over by one step of a formula before the next step
LOST = 10  # μ²/σ² from where on σ² is computed anew from x − μ

Normalized = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class BatchLast(NamedTuple):
    """How an array lies: (H, C, W, N), with W the product of all positions but the first.

    Attributes:
        examples, channels, height, width: N, C, H and W.
    """

    examples: int
    channels: int
    height: int
    width: int

    def view(self, x: np.ndarray) -> np.ndarray:
        """(N, C, H, …) → (H, C·W·N)."""
        return x.transpose(2, 1, *range(3, x.ndim), 0).reshape(self.height, -1)

    @property
    def run(self) -> int:
        """How many numbers of one channel follow each other."""
        return self.width * self.examples

    def parts(self, groups: int, x: np.ndarray) -> list[slice]:
        """The groups in shares, one for each task: the fewer the less arithmetic on statistics."""
        tasks = min(max(x.nbytes // _TASK // 2 * 2, 2), _MOST, groups)
        ends = [groups * i // tasks for i in range(tasks + 1)]
        return [slice(start, stop) for start, stop in zip(ends, ends[1:])]

    def rows(self, x: np.ndarray) -> list[slice]:
        """Steps of a few rows; the last first, because they were summed last and are in the cache still."""
        step = max(1, _STEP // max(x[0].nbytes, 1))
        return [slice(h, h + step) for h in range(0, self.height, step)][::-1]


def batch_last(x: np.ndarray) -> BatchLast | None:
    """How x lies, or None where its examples do not lie innermost without gaps."""
    if x.ndim < 3 or len(x) == 1 or not x.transpose(2, 1, *range(3, x.ndim), 0).flags.c_contiguous or x.size == 0:
        return None
    n, c, h = x.shape[:3]
    return BatchLast(n, c, h, x.size // (n * c * h))


def _run_all(task: Callable[[slice], None], parts: list[slice], nbytes: int) -> None:
    tasks: list[Callable[[], None]] = [partial(task, part) for part in parts]
    run(tasks, nbytes >= _SERIAL)


@lru_cache(64)
def _ones(n: int, dtype: np.dtype) -> np.ndarray:
    ones = np.ones(n, dtype)
    ones.flags.writeable = False
    return ones


class _Share:
    """The channels of some groups: their sums over positions, the means of the groups, and what goes beside a row.

    Attributes:
        form, channels, count: how the array lies, the channels in question, how many numbers a group has.
        size: how many channels a group has.
        across: whether the group is a channel of all examples; a channel then has one statistic, else one of each
            example. Statistics are (c, 1) or (c, N), several of them (k, c, N), in float64.
    """

    def __init__(self, form: BatchLast, groups: slice, size: int, across: bool) -> None:
        self.form, self.size, self.across = form, size, across
        self.channels = slice(groups.start * size, groups.stop * size)
        self.count = form.height * form.width * (form.examples if across else size)

    def sums(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Σ x and Σ x·y, of arrays (H, c·W·N): (2, c, N)."""
        form = self.form
        if self.across:
            runs = (form.height, -1, form.run)
            x, y = x.reshape(runs), y.reshape(runs)
            found = np.empty((2, form.height, x.shape[1]), x.dtype)
            np.vecdot(x, _ones(form.run, x.dtype), out=found[0])
            np.vecdot(x, y, out=found[1])
            return found.sum(axis=1, dtype=np.float64)[..., None]
        wide = scratch("sums", (2, x.shape[1]), x.dtype)
        np.matmul(_ones(form.height, x.dtype), x, out=wide[0])
        np.einsum("hk,hk->k", x, y, out=wide[1])
        return wide.reshape(2, -1, form.width, form.examples).sum(axis=2).astype(np.float64)

    def means(self, sums: np.ndarray) -> np.ndarray:
        """M: the mean of each group, (k, c, N) → (k, groups, N)."""
        if self.size == 1:
            return sums / self.count
        return self.grouped(sums).sum(axis=2) / self.count

    def grouped(self, s: np.ndarray) -> np.ndarray:
        """(…, c, N) → (…, groups, size, N)."""
        return s.reshape(*s.shape[:-2], -1, self.size, s.shape[-1])

    def part(self, x: np.ndarray) -> np.ndarray:
        """The channels' columns of a view (H, C·W·N)."""
        return x[:, self.channels.start * self.form.run : self.channels.stop * self.form.run]

    def coefficients(self, k: int, dtype: np.dtype) -> np.ndarray:
        """Room for k numbers of each statistic: (k, c, N)."""
        channels = self.channels.stop - self.channels.start
        return np.empty((k, channels, 1 if self.across else self.form.examples), dtype)

    def beside(self, s: np.ndarray) -> np.ndarray:
        """(k, c, N) → (k, c·W·N) in scratch memory, to go beside a row of x.

        Also where one number would do for a whole run: arithmetic on two arrays is quicker than on one and a number
        for each of many short runs.
        """
        k, c, _ = s.shape
        wide = scratch("beside", (k, c, self.form.width, self.form.examples), s.dtype)
        wide[...] = s[:, :, None]
        return wide.reshape(k, -1)


def _all(form: BatchLast, groups: int | None) -> tuple[int, int, bool, tuple[int, int]]:
    """The number of groups, of channels in each, whether they span examples, and the shape of the statistics."""
    across = groups is None
    groups = form.channels if groups is None else groups
    return groups, form.channels // groups, across, (form.channels, 1 if across else form.examples)


def normalize(
    x: np.ndarray, γ: np.ndarray | None, β: np.ndarray | None, groups: int | None, eps: float, form: BatchLast
) -> Normalized:
    """y = γ·x̂ + β, and μ, σ² and r = 1/√(σ² + ε); see kernels/norms.py."""
    groups, size, across, shape = _all(form, groups)
    y = empty_like(x)
    found = np.empty((3, *shape), x.dtype)
    from_, to = form.view(x), form.view(y)
    γ, β = (None if a is None else a.reshape(-1, size, 1) for a in (γ, β))

    def task(part: slice) -> None:
        s = _Share(form, part, size, across)
        x, y = s.part(from_), s.part(to)
        μ, var = _moments(s, x, y)
        r = 1 / np.sqrt(var + eps)
        s.grouped(found[:, s.channels])[...] = np.stack([μ, var, r])[:, :, None]
        own = s.coefficients(2, x.dtype)
        scale, shift = s.grouped(own)
        scale[...] = r[:, None] if γ is None else r[:, None] * γ[part]
        np.multiply(μ[:, None], scale, out=shift, casting="same_kind")
        np.subtract(0 if β is None else β[part], shift, out=shift)
        scale, shift = s.beside(own)
        for h in form.rows(x):
            np.multiply(x[h], scale, out=y[h])
            y[h] += shift

    with rows_of(form.run * size):
        _run_all(task, form.parts(groups, x), x.nbytes)
    μ, var, r = found
    return y, μ.T, var.T, r.T


def _moments(s: _Share, x: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """μ and σ² of each group in float64, with ``free`` to write x − c into."""
    μ, var = s.means(s.sums(x, x))
    squared = μ * μ
    var -= squared
    if (var * LOST < squared).any():
        own = s.coefficients(1, x.dtype)
        s.grouped(own[0])[...] = μ[:, None]
        np.subtract(x, s.beside(own)[0], out=free)
        δ, var = s.means(s.sums(free, free))
        μ = s.grouped(own[0])[:, 0] + δ
        var = np.maximum(var - δ * δ, 0)
    return μ, var


def gradient_sums(g: np.ndarray, x: np.ndarray, μ: np.ndarray, form: BatchLast) -> tuple[np.ndarray, np.ndarray]:
    """Σ g and Σ g·(x − μ) over positions, (N, C) each, or (1, C) where μ is."""
    found = np.empty((2, *μ.T.shape), x.dtype)
    from_g, from_x = form.view(g), form.view(x)

    def task(part: slice) -> None:
        s = _Share(form, part, 1, len(μ) == 1)
        found[:, s.channels] = _gradient_sums(s, s.part(from_g), s.part(from_x), μ)

    _run_all(task, form.parts(form.channels, x), x.nbytes)
    return found[0].T, found[1].T


def _gradient_sums(s: _Share, g: np.ndarray, x: np.ndarray, μ: np.ndarray) -> np.ndarray:
    sums = s.sums(g, x)
    sums[1] -= μ.T[s.channels] * sums[0]
    return sums


def gradient(
    g: np.ndarray,
    x: np.ndarray,
    γ: np.ndarray | None,
    μ: np.ndarray,
    r: np.ndarray,
    groups: int | None,
    form: BatchLast,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """h(γ·g, x), and the sums Σ g and Σ g·(x − μ) over positions; see kernels/norms.py."""
    groups, size, across, shape = _all(form, groups)
    h = empty_like(x)
    found = np.empty((2, *shape), x.dtype)
    from_g, from_x, to = form.view(g), form.view(x), form.view(h)
    γ = None if γ is None else γ.reshape(-1, 1)

    def task(part: slice) -> None:
        s = _Share(form, part, size, across)
        g, x, y = s.part(from_g), s.part(from_x), s.part(to)
        sums = _gradient_sums(s, g, x, μ)
        found[:, s.channels] = sums
        own = s.coefficients(3, x.dtype)
        r_, μ_ = (a.T[s.channels] for a in (r, μ))
        if γ is None:
            own[0] = r_
        else:
            sums *= γ[s.channels]
            np.multiply(r_, γ[s.channels], out=own[0])
        r_, μ_ = (s.grouped(a)[:, 0].astype(np.float64) for a in (r_, μ_))
        mean, slope = s.means(sums)
        slope *= -(r_ * r_ * r_)
        s.grouped(own[1])[...] = slope[:, None]
        s.grouped(own[2])[...] = (-μ_ * slope - r_ * mean)[:, None]
        steep, slope, level = s.beside(own)
        for rows in form.rows(x):
            y_, g_ = y[rows], g[rows]
            np.multiply(x[rows], slope, out=y_)
            y_ += level
            product = scratch("normalize", g_.shape, g_.dtype)
            np.multiply(g_, steep, out=product)
            y_ += product

    with rows_of(form.run * size):
        _run_all(task, form.parts(groups, x), x.nbytes)
    return h, found[0].T, found[1].T

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

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from tinygen.kernels.arrays import empty_like
from tinygen.kernels.threads import run, scratch

_SERIAL = 1 << 22  # bytes of an array below which waking another thread costs what it saves
_TASKS = 8  # of one array
_STEP = 1 << 18  # bytes of the result that are gone over by one step of a formula before the next step
_LOST = 10  # μ²/σ² from where on σ² is computed anew from x − μ

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

    def parts(self, groups: int) -> Iterator[slice]:
        """The groups in shares, one for each task."""
        step = -(-groups // _TASKS)
        return (slice(i, min(i + step, groups)) for i in range(0, groups, step))

    def rows(self, x: np.ndarray) -> list[slice]:
        """How many rows a step goes over."""
        step = max(1, _STEP // max(x[0].nbytes, 1))
        return [slice(h, h + step) for h in range(0, self.height, step)]


def batch_last(x: np.ndarray) -> BatchLast | None:
    """How x lies, or None where its examples do not lie innermost without gaps."""
    if x.ndim < 3 or len(x) == 1 or not x.transpose(2, 1, *range(3, x.ndim), 0).flags.c_contiguous or x.size == 0:
        return None
    n, c, h = x.shape[:3]
    return BatchLast(n, c, h, x.size // (n * c * h))


def _share(task: Callable[[slice], None], parts: Iterator[slice], nbytes: int) -> None:
    tasks: list[Callable[[], None]] = [partial(task, part) for part in parts]
    if nbytes >= _SERIAL:
        run(tasks)
    else:
        for each in tasks:
            each()


@lru_cache(64)
def _ones(n: int, dtype: np.dtype) -> np.ndarray:
    ones = np.ones(n, dtype)
    ones.flags.writeable = False
    return ones


class _Sums:
    """Sums over positions of the channels of some groups, and their means over these groups.

    Attributes:
        form, channels, count: how the array lies, the channels in question, how many numbers a group has.
        across: whether the group is a channel of all examples; results are then (c, 1), else (c, N), in float64.
    """

    def __init__(self, form: BatchLast, groups: slice, size: int, across: bool) -> None:
        self.form, self.size, self.across = form, size, across
        self.channels = slice(groups.start * size, groups.stop * size)
        self.count = form.height * form.width * (form.examples if across else size)

    def of(self, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """Σ x, or Σ x·y, of arrays (H, c·W·N)."""
        form = self.form
        if self.across:
            runs = (form.height, -1, form.run)
            beside = _ones(form.run, x.dtype) if y is None else y.reshape(runs)
            return np.vecdot(x.reshape(runs), beside).sum(axis=0, dtype=np.float64)[:, None]
        runs = _ones(form.height, x.dtype) @ x if y is None else np.einsum("hk,hk->k", x, y)
        return runs.reshape(-1, form.width, form.examples).sum(axis=1).astype(np.float64)

    def means(self, sums: np.ndarray) -> np.ndarray:
        """M: the mean of the group, for each channel in it."""
        if self.size == 1:
            return sums / self.count
        split = sums.reshape(-1, self.size, sums.shape[1])
        return np.repeat(split.sum(axis=1) / self.count, self.size, axis=0)

    def part(self, x: np.ndarray) -> np.ndarray:
        """The channels' columns of a view (H, C·W·N)."""
        return x[:, self.channels.start * self.form.run : self.channels.stop * self.form.run]

    def beside(self, s: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Statistics (c, N) or (c, 1) → (c·W·N), beside a row of x.

        Also where one number would do for a whole run: arithmetic on two arrays is quicker than on one and a number
        for each of many short runs.
        """
        wide = np.empty((s.shape[0], self.form.width, self.form.examples), x.dtype)
        wide[...] = s[:, None]
        return wide.reshape(-1)


def _all(form: BatchLast, groups: int | None) -> tuple[int, int, bool, tuple[int, int]]:
    """The number of groups, of channels in each, whether they span examples, and the shape of the statistics."""
    across = groups is None
    groups = form.channels if groups is None else groups
    return groups, form.channels // groups, across, (1 if across else form.examples, form.channels)


def normalize(
    x: np.ndarray, γ: np.ndarray | None, β: np.ndarray | None, groups: int | None, eps: float, form: BatchLast
) -> Normalized:
    """y = γ·x̂ + β, and μ, σ² and r = 1/√(σ² + ε); see kernels/norms.py."""
    groups, size, across, shape = _all(form, groups)
    y = empty_like(x)
    μs, vars_, rs = (np.empty(shape, x.dtype) for _ in range(3))
    from_, to = form.view(x), form.view(y)
    γ, β = (None if a is None else a.reshape(-1, 1) for a in (γ, β))

    def task(part: slice) -> None:
        s = _Sums(form, part, size, across)
        x, y = s.part(from_), s.part(to)
        μ, var = _moments(s, x, y)
        r = 1 / np.sqrt(var + eps)
        μs[:, s.channels], vars_[:, s.channels], rs[:, s.channels] = μ.T, var.T, r.T
        scale = r if γ is None else r * γ[s.channels]
        shift = -μ * scale if β is None else β[s.channels] - μ * scale
        scale, shift = s.beside(scale, x), s.beside(shift, x)
        for h in form.rows(x):
            np.multiply(x[h], scale, out=y[h])
            y[h] += shift

    _share(task, form.parts(groups), x.nbytes)
    return y, μs, vars_, rs


def _moments(s: _Sums, x: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """μ and σ² in float64, with ``free`` to write x − c into."""
    μ = s.means(s.of(x))
    var = s.means(s.of(x, x)) - μ * μ
    if (var * _LOST < μ * μ).any():
        c = s.beside(μ, x)
        np.subtract(x, c, out=free)
        δ = s.means(s.of(free))
        c = μ.astype(x.dtype)
        μ = c + δ
        var = np.maximum(s.means(s.of(free, free)) - δ * δ, 0)
    return μ, var


def gradient_sums(g: np.ndarray, x: np.ndarray, μ: np.ndarray, form: BatchLast) -> tuple[np.ndarray, np.ndarray]:
    """Σ g and Σ g·(x − μ) over positions, (N, C) each, or (1, C) where μ is."""
    across = len(μ) == 1
    Σg, Σgd = (np.empty(μ.shape, x.dtype) for _ in range(2))
    from_g, from_x = form.view(g), form.view(x)

    def task(part: slice) -> None:
        s = _Sums(form, part, 1, across)
        found = _gradient_sums(s, s.part(from_g), s.part(from_x), μ)
        Σg[:, s.channels], Σgd[:, s.channels] = (a.T for a in found)

    _share(task, form.parts(form.channels), x.nbytes)
    return Σg, Σgd


def _gradient_sums(s: _Sums, g: np.ndarray, x: np.ndarray, μ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    A = s.of(g)
    return A, s.of(g, x) - μ[:, s.channels].T * A


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
    Σg, Σgd = (np.empty(shape, x.dtype) for _ in range(2))
    from_g, from_x, to = form.view(g), form.view(x), form.view(h)
    γ = None if γ is None else γ.reshape(-1, 1)

    def task(part: slice) -> None:
        s = _Sums(form, part, size, across)
        g, x, y = s.part(from_g), s.part(from_x), s.part(to)
        A, B = _gradient_sums(s, g, x, μ)
        Σg[:, s.channels], Σgd[:, s.channels] = A.T, B.T
        r_, μ_ = (a[:, s.channels].T.astype(np.float64) for a in (r, μ))
        steep = r_
        if γ is not None:
            A, B, steep = (a * γ[s.channels] for a in (A, B, r_))
        slope = -(r_ * r_ * r_) * s.means(B)
        level = -μ_ * slope - r_ * s.means(A)
        steep, slope, level = (s.beside(a, x) for a in (steep, slope, level))
        for rows in form.rows(x):
            y_, g_ = y[rows], g[rows]
            np.multiply(x[rows], slope, out=y_)
            y_ += level
            product = scratch("normalize", g_.shape, g_.dtype)
            np.multiply(g_, steep, out=product)
            y_ += product

    _share(task, form.parts(groups), x.nbytes)
    return h, Σg, Σgd

"""Normalisation of large NumPy arrays (N, C, …), in few passes over memory.

The formulas are those of :mod:`tinygen.ops.standardization`, whose readable ops define what these functions compute.
A group is either in one example, as in group_norm (then a block of examples is read once: its sums, its result and all
steps between stay in the processor's cache), or a channel over all examples, as in batch_norm (then all sums come
first, and the array is read a second time).

An array is looked at as its memory lies, (N, P, C) with channels last or (N, C, P), P positions. Sums over positions
are products with a vector of ones, which BLAS computes several times faster than ``numpy.sum`` over a middle axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tinygen.kernels import norms_batch_last
from tinygen.kernels.arrays import empty_like
from tinygen.kernels.blocks import examples_in_blocks
from tinygen.kernels.buffers import rows_of
from tinygen.kernels.channels import positions_last, rows, side_by_side
from tinygen.kernels.norms_batch_last import LOST, BatchLast, batch_last
from tinygen.kernels.reordering import copy_into
from tinygen.kernels.threads import scratch

_SMALL = 1 << 15  # bytes of an array for which the definition is as quick


class Layout(NamedTuple):
    """How an array (N, C, …) lies in memory.

    Attributes:
        last: whether channels come last.
        examples, channels, positions: N, C and P.
        wide: K, how many rows of channels lie side by side in an inner loop (see kernels/channels.py); 1 if not last.
    """

    last: bool
    examples: int
    channels: int
    positions: int
    wide: int

    def view(self, x: np.ndarray) -> np.ndarray:
        """(N, P/K, K·C), or (N, C, P)."""
        if self.last:
            found = rows(x)
            assert found is not None
            return found.reshape(len(x), self.positions // self.wide, self.wide * self.channels)
        return x.reshape(len(x), self.channels, self.positions)

    def sums(self, x: np.ndarray) -> np.ndarray:
        """Σ over positions of an array that looks as :meth:`view` says: → (n, C)."""
        n = len(x)
        if self.last:
            wide = np.matmul(_ones(1, self.positions // self.wide, x.dtype), x)
            return wide[:, 0] if self.wide == 1 else wide.reshape(n, self.wide, self.channels).sum(axis=1)
        return np.matmul(x.reshape(n * self.channels, self.positions), _ones(self.positions, 1, x.dtype)).reshape(n, -1)

    def products(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Σ x·y over positions of arrays that look as :meth:`view` says: → (n, C)."""
        if not self.last:
            return np.vecdot(x, y)
        return self.sums(np.multiply(x, y, out=scratch("normalize", x.shape, x.dtype)))

    def for_each(self, block: Callable[[slice], None], nbytes: int) -> None:
        """Do block(part) for parts of the examples of an array of so many bytes."""
        with rows_of(self.wide * self.channels if self.last else self.positions):
            examples_in_blocks(block, self.examples, nbytes)

    def beside(self, s: np.ndarray) -> np.ndarray:
        """One number for each channel, (n, C), in a shape that broadcasts against :meth:`view`."""
        if not self.last:
            return s[:, :, None]
        if self.wide == 1:
            return s[:, None]
        repeated = np.empty((len(s), self.wide, self.channels), s.dtype)
        repeated[...] = s[:, None]
        return repeated.reshape(len(s), 1, -1)


@lru_cache(64)
def _ones(m: int, n: int, dtype: np.dtype) -> np.ndarray:
    ones = np.ones((m, n), dtype)
    ones.flags.writeable = False
    return ones


def layout(x: Any) -> Layout | BatchLast | None:
    """How x lies in memory, or None where it is small, empty, in none of the orders, or not NumPy's."""
    if type(x) is not np.ndarray or x.nbytes < _SMALL or x.ndim < 3 or x.dtype.char not in "fd":
        return None
    n, c = x.shape[:2]
    p = math.prod(x.shape[2:])
    if rows(x) is not None:
        return Layout(True, n, c, p, side_by_side(p, c))
    return Layout(False, n, c, p, 1) if positions_last(x) else batch_last(x)


def like(x: np.ndarray, a: np.ndarray) -> np.ndarray:
    """a as it is, or copied where it does not lie in memory as x does."""
    if a.strides == x.strides or (rows(x) is not None and rows(a) is not None):
        return a
    copy = empty_like(x)
    copy_into(copy, a)
    return copy


def _group_means(sums: np.ndarray, groups: int, count: int) -> np.ndarray:
    """Means of groups of channels from sums (n, C), repeated for each channel of the group."""
    n, c = sums.shape
    if groups == c:
        return sums / count
    split = sums.reshape(n, groups, c // groups).sum(axis=2, keepdims=True) / (count * (c // groups))
    means = np.empty((n, groups, c // groups), sums.dtype)
    means[...] = split
    return means.reshape(n, c)


Normalized = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def normalize(
    x: np.ndarray, γ: np.ndarray | None, β: np.ndarray | None, groups: int | None, eps: float, form: Layout | BatchLast
) -> Normalized:
    """y = γ·x̂ + β, and μ, σ² and r = 1/√(σ² + ε).

    Shapes: x (N, C, …); γ, β of C numbers → y as x; the others (N, C), or (1, C) for groups that span examples.

    Args:
        groups: of channels in one example; None where a group is a channel of all examples.
        form: how x lies.
    """
    if isinstance(form, BatchLast):
        return norms_batch_last.normalize(x, γ, β, groups, eps, form)
    γ, β = (None if a is None else a.reshape(1, -1) for a in (γ, β))
    y = empty_like(x)
    if groups is None:
        return _normalize_across(x, γ, β, eps, form, y)
    n, c = form.examples, form.channels
    means, variances, scales = (np.empty((n, c), x.dtype) for _ in range(3))
    from_, to = form.view(x), form.view(y)

    def block(part: slice) -> None:
        x, y = from_[part], to[part]
        μ, var = _moments(x, y, groups, form)
        r = 1 / np.sqrt(var + eps)
        means[part], variances[part], scales[part] = μ, var, r
        scale = scales[part] if γ is None else scales[part] * γ
        shift = -μ * scale if β is None else β - μ * scale
        np.multiply(x, form.beside(scale), out=y)
        y += form.beside(shift.astype(y.dtype))

    form.for_each(block, x.nbytes)
    return y, means, variances, scales


def _moments(x: np.ndarray, free: np.ndarray, groups: int, form: Layout) -> tuple[np.ndarray, np.ndarray]:
    """μ and σ² in float64, (n, C), with ``free`` to write x − c into: σ² = M(x − c)² − (μ − c)².

    First with c = 0. Where that would lose more than a digit of σ², it is done again with c about μ.
    """

    def means(sums: np.ndarray) -> np.ndarray:
        return _group_means(sums.astype(np.float64), groups, form.positions)

    μ = means(form.sums(x))
    var = means(form.products(x, x)) - μ * μ
    if (var * LOST < μ * μ).any():
        c = μ.astype(x.dtype)
        np.subtract(x, form.beside(c), out=free)
        δ = means(form.sums(free))
        μ, var = c + δ, np.maximum(means(form.products(free, free)) - δ * δ, 0)
    return μ, var


def _normalize_across(
    x: np.ndarray, γ: np.ndarray | None, β: np.ndarray | None, eps: float, form: Layout, y: np.ndarray
) -> Normalized:
    """The same with one group for each channel.

    With t = x − c, μ = c + Mt and σ² = M t² − (Mt)², first with c = 0. Where that would lose more than a digit of σ²,
    it is done again with c about the mean: nothing is lost then, because c is the mean of the first example, which
    differs from μ by no more than σ√N.
    """
    from_, to = form.view(x), form.view(y)
    count = form.examples * form.positions
    Σx, Σxx = _all_sums(lambda part: (form.sums(from_[part]), form.products(from_[part], from_[part])), form, x.nbytes)
    mean = Σx / count
    var = Σxx / count - mean * mean
    if (var * LOST < mean * mean).any():
        mean, var = _moments_across(x, from_, form)
    μ, var = mean.astype(x.dtype), var.astype(x.dtype)
    r = 1 / np.sqrt(var + eps)
    scale = r if γ is None else r * γ
    shift = form.beside(-μ * scale if β is None else β - μ * scale)
    scale = form.beside(scale)

    def block(part: slice) -> None:
        np.multiply(from_[part], scale, out=to[part])
        to[part] += shift

    form.for_each(block, x.nbytes)
    return y, μ, var, r


def _moments_across(x: np.ndarray, from_: np.ndarray, form: Layout) -> tuple[np.ndarray, np.ndarray]:
    """μ and σ² of each channel in float64, (1, C), from x − c."""
    first = from_[:1]
    corner = np.ascontiguousarray(x[:1].reshape(1, form.channels, form.positions)[:, :, 0])
    # From the first number on: the mean of equal numbers is then exactly these.
    c = corner + form.sums(first - form.beside(corner)) / form.positions
    centre = form.beside(c)

    def sums(part: slice) -> tuple[np.ndarray, np.ndarray]:
        t = scratch("centred", from_[part].shape, x.dtype)
        np.subtract(from_[part], centre, out=t)
        return form.sums(t), form.products(t, t)

    Σt, Σtt = _all_sums(sums, form, x.nbytes)
    count = form.examples * form.positions
    mean = Σt / count
    return c + mean, np.maximum(Σtt / count - mean * mean, 0)


def _all_sums(sums: Callable, form: Layout, nbytes: int) -> list[np.ndarray]:
    """Two sums (n, C) of each block of examples, added up in float64 over all examples: (1, C) each."""
    each = [np.empty((form.examples, form.channels)) for _ in range(2)]

    def block(part: slice) -> None:
        for all_, found in zip(each, sums(part), strict=True):
            all_[part] = found

    form.for_each(block, nbytes)
    return [a.sum(axis=0, keepdims=True) for a in each]


def gradient_sums(
    g: np.ndarray, x: np.ndarray, μ: np.ndarray, form: Layout | BatchLast
) -> tuple[np.ndarray, np.ndarray]:
    """Σ g and Σ g·(x − μ) over positions, (N, C) each, or over all examples too; μ (N, C) or (1, C)."""
    if isinstance(form, BatchLast):
        return norms_batch_last.gradient_sums(g, x, μ, form)
    Σg, Σgd = (np.empty((form.examples, form.channels), x.dtype) for _ in range(2))
    from_g, from_x = form.view(g), form.view(x)

    def block(part: slice) -> None:
        Σg[part] = form.sums(from_g[part])
        products = form.products(from_g[part], from_x[part])
        np.subtract(products, μ[part if len(μ) > 1 else slice(1)] * Σg[part], out=Σgd[part])

    form.for_each(block, g.nbytes)
    return Σg, Σgd


def gradient(
    g: np.ndarray,
    x: np.ndarray,
    γ: np.ndarray | None,
    μ: np.ndarray,
    r: np.ndarray,
    groups: int | None,
    form: Layout | BatchLast,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """h(γ·g, x) = r(γ·g − M(γ·g) − x̂·M(x̂·γ·g)), and the sums Σ g and Σ g·(x − μ) over positions.

    Shapes: g, x (N, C, …); γ of C numbers; μ, r as :func:`normalize` returns them → h as x; (N, C) twice.
    """
    if isinstance(form, BatchLast):
        return norms_batch_last.gradient(g, x, γ, μ, r, groups, form)
    γ = None if γ is None else γ.reshape(1, -1)
    h = empty_like(x)
    from_g, from_x, to = form.view(g), form.view(x), form.view(h)
    steep = r if γ is None else r * γ

    def write(part: slice, mean: np.ndarray, slope: np.ndarray, steep: np.ndarray, μ: np.ndarray, r: Any) -> None:
        to_ = to[part]
        np.multiply(from_x[part], form.beside(slope), out=to_)
        product = scratch("normalize", to_.shape, to_.dtype)
        np.multiply(from_g[part], form.beside(steep), out=product)
        to_ += product
        to_ += form.beside(-μ * slope - r * mean)

    if groups is None:
        Σg, Σgd = gradient_sums(g, x, μ, form)
        count = form.examples * form.positions
        mean, slope = (s.sum(axis=0, keepdims=True, dtype=np.float64).astype(x.dtype) / count for s in (Σg, Σgd))
        if γ is not None:
            mean, slope = mean * γ, slope * γ
        slope = -(r * r * r) * slope
        form.for_each(lambda part: write(part, mean, slope, steep, μ, r), g.nbytes)
        return h, Σg, Σgd
    Σg, Σgd = (np.empty((form.examples, form.channels), x.dtype) for _ in range(2))

    def block(part: slice) -> None:
        A = form.sums(from_g[part])
        B = form.products(from_g[part], from_x[part]) - μ[part] * A
        Σg[part], Σgd[part] = A, B
        if γ is not None:
            A, B = A * γ, B * γ
        mean = _group_means(A, groups, form.positions)
        slope = -(r[part] * r[part] * r[part]) * _group_means(B, groups, form.positions)
        write(part, mean, slope, steep[part], μ[part], r[part])

    form.for_each(block, g.nbytes)
    return h, Σg, Σgd

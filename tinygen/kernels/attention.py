"""Attention of large NumPy arrays, a few heads after another: the scores never leave the processor's cache.

The scores S = s·Q Kᵀ of 196 queries and keys are twelve times as large as Q. So neither they nor the weights
A = η e^S, η_i = 1/Σ_j e^(S_ij), are kept: the backward computes them again. With G = ∂L/∂Y and the formulas of
:func:`tinygen.ops.attention.scaled_dot_product_attention`, E = e^S,

    [Y/η, 1/η] = E [V, 1]                          the few numbers of Y are divided, not the many of E
    ∂L/∂V = Eᵀ(η G)
    ∂L/∂S = A·(G Vᵀ − ⟨G, Y⟩) = E·(G′ V′ᵀ),        G′ = η·[G, −⟨G, Y⟩],  V′ = [V, 1],

because ⟨A_i, G_i Vᵀ⟩ = ⟨G_i, A_i V⟩ = ⟨G_i, Y_i⟩: two passes over an array like E beside the products. Where e^x is
computed as 2^(x log₂e) (kernels/exponentials.py), Q is multiplied by log₂e and one factor of ∂L/∂S is divided by it.

A task copies what it wants of Q, K and V into the order in which BLAS multiplies them fastest, all its heads at once,
and then does a few heads at a time: its calls are long, as threads under Python's lock want them. Microseconds for a
head of 196 queries and keys of 16 numbers (float32, OpenBLAS 0.3.31, one core of a Sapphire Rapids Xeon, 2026-11-21):
Q Kᵀ 9.6 with Kᵀ in C order and 14.5 with K; E V 11.8, but Fᵀ V 8.8 with F = Eᵀ; Uᵀ Q 8.9 and 16 with queries side by
side, as one linear layer gives them. Hence the forward computes F = K Qᵀ, the backward E.

Source: Dao et al., *FlashAttention: fast and memory-efficient exact attention with IO-awareness* (2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tinygen.kernels.exponentials import power
from tinygen.kernels.threads import run, scratch

_BLOCK = 1 << 20  # bytes of the scores that are computed at a time, at the most, unless one head has more
_TASK = 1 << 22  # bytes of the scores in a task
_SERIAL = 1 << 20  # bytes of all scores below which one thread is as quick as two
_SMALL = 1 << 14  # bytes of all scores for which the definition is as quick
_SAFE = 1e17  # Σ e^S between 1/this and this: no larger score has overflowed, no smaller one that counts is lost


class Saved(NamedTuple):
    """What the backward wants of the forward, (…, L, 1) each.

    Attributes:
        η: 1/Σ e^S.
        shift: what was subtracted from the scores, times log₂e where Q is; None if nothing was.
    """

    η: np.ndarray
    shift: np.ndarray | None


def fits(q: Any, k: Any, v: Any) -> bool:
    """Whether these are arrays for the two functions below: NumPy's, of equal leading axes, not small."""
    return (
        all(type(a) is np.ndarray for a in (q, k, v))
        and q.dtype.char in "fd"
        and q.dtype == k.dtype == v.dtype
        and q.ndim > 2
        and q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
        and q[..., 0].size * k.shape[-2] * q.itemsize >= _SMALL
        and min(q.size, k.size, v.size) > 0
    )


def _parts(lead: tuple[int, ...], each: int) -> Iterator[tuple[tuple, int]]:
    """Indices of the tasks' heads, and how many of the last axis indexed to do at a time.

    The number of tasks is even where they are cut along the first axis, so that two threads get as many.

    Args:
        each: bytes of the scores of one head.
    """
    axis = 0
    while axis < len(lead) - 1 and (lead[axis] == 1 or each * math.prod(lead[axis + 1 :]) > _BLOCK):
        axis += 1
    n, size = lead[axis], each * math.prod(lead[axis + 1 :])
    pieces = min(2 * math.ceil(n * size / (2 * _TASK)), n)
    step = max(1, _BLOCK // size)
    for i in np.ndindex(*lead[:axis]):
        yield from (((*i, slice(n * j // pieces, n * (j + 1) // pieces)), step) for j in range(pieces))


def _for_each(task: Callable[[tuple, list[slice]], None], q: np.ndarray, k: np.ndarray) -> None:
    """Do task(part, steps) for all parts of the leading axes, with steps along the first axis of each."""
    each = q.shape[-2] * k.shape[-2] * q.itemsize
    tasks: list[Callable[[], None]] = []
    for part, step in _parts(q.shape[:-2], each):
        n = part[-1].stop - part[-1].start
        tasks.append(partial(task, part, [slice(i, min(i + step, n)) for i in range(0, n, step)]))
    run(tasks, each * math.prod(q.shape[:-2]) >= _SERIAL)


def _turned(a: np.ndarray) -> np.ndarray:
    return a.swapaxes(-1, -2)


def _like(a: np.ndarray, n: int) -> np.ndarray:
    """An array with any contents like a (…, L, d), with n for d, in a's order of heads and rows."""
    if a.ndim > 3 and a.strides[-3] < a.strides[-2]:  # heads side by side, as one linear layer gives them
        return np.empty((*a.shape[:-3], a.shape[-2], a.shape[-3], n), a.dtype).swapaxes(-2, -3)
    return np.empty((*a.shape[:-1], n), a.dtype)


def _times(name: str, a: np.ndarray, s: Any) -> np.ndarray:
    """a·s in scratch memory, in C order."""
    return np.multiply(a, s, out=scratch(name, a.shape, a.dtype))


def _exp_scores(left: np.ndarray, right: np.ndarray, shift: np.ndarray | None) -> np.ndarray:
    """E or Eᵀ in scratch memory, for a product that has the factor which :func:`power` wants."""
    E = scratch("scores", (*left.shape[:-1], right.shape[-1]), left.dtype)
    np.matmul(left, right, out=E)
    if shift is not None:
        E -= shift
    return power(E.dtype).of(E, out=E)


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, s: float) -> tuple[np.ndarray, Saved]:
    """Y = softmax(s·Q Kᵀ) V, and what :func:`gradients` wants.

    It is done again, with the scores shifted by their largest, where the sums say that an e^S was not finite or lost.
    """
    e, scale = v.shape[-1], s * power(q.dtype).factor
    y, η = _like(q, e), np.empty((*q.shape[:-1], 1), q.dtype)

    def task(part: tuple, steps: list[slice], shift: np.ndarray | None) -> None:
        Qt = _times("queries", _turned(q[part]), scale)
        V = scratch("values", (*v[part].shape[:-1], e + 1), v.dtype)  # [V, 1]
        V[..., :e], V[..., e] = v[part], 1
        Y = scratch("results", (*q[part].shape[:-1], e + 1), q.dtype)
        K = k[part]
        for i in steps:
            if shift is not None:
                F = np.matmul(K[i], Qt[i])
                F.max(axis=-2, out=shift[part][i][..., 0])
            F = _exp_scores(K[i], Qt[i], None if shift is None else _turned(shift[part][i]))
            np.matmul(_turned(F), V[i], out=Y[i])
        np.reciprocal(Y[..., e:], out=η[part])
        np.multiply(Y[..., :e], η[part], out=y[part])

    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        _for_each(partial(task, shift=None), q, k)
    if η.min() >= 1 / _SAFE and η.max() <= _SAFE:
        return y, Saved(η, None)
    shift = np.empty_like(η)
    _for_each(partial(task, shift=shift), q, k)
    return y, Saved(η, shift)


def gradients(
    g: np.ndarray, y: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, s: float, saved: Saved
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """∂L/∂Q, ∂L/∂K and ∂L/∂V from g = ∂L/∂Y, in the memory orders of Q, K and V."""
    dq, dk, dv = (_like(a, a.shape[-1]) for a in (q, k, v))
    e, factor = v.shape[-1], power(q.dtype).factor

    def task(part: tuple, steps: list[slice]) -> None:
        Q = _times("queries", q[part], s * factor)
        Kt = scratch("keys, turned", _turned(k[part]).shape, k.dtype)
        Kt[...] = _turned(k[part])
        K = _times("keys", k[part], s * factor)
        V = scratch("values", (*v[part].shape[:-2], e + 1, v.shape[-2]), v.dtype)  # V′ᵀ, divided by the factor in Q
        np.multiply(_turned(v[part]), 1 / factor, out=V[..., :e, :])
        V[..., e, :] = 1 / factor
        G = scratch("cotangents", (*g[part].shape[:-1], e + 1), g.dtype)  # G′
        np.multiply(g[part], saved.η[part], out=G[..., :e])
        np.einsum("...i,...i->...", G[..., :e], y[part], out=G[..., e])
        np.negative(G[..., e], out=G[..., e])
        dq_, dk_, dv_ = dq[part], dk[part], dv[part]
        for i in steps:
            E = _exp_scores(Q[i], Kt[i], None if saved.shift is None else saved.shift[part][i])
            np.matmul(_turned(E), G[i][..., :e], out=dv_[i])
            U = np.matmul(G[i], V[i], out=scratch("their gradient", E.shape, E.dtype))
            U *= E
            np.matmul(_turned(U), Q[i], out=dk_[i])
            np.matmul(U, K[i], out=dq_[i])

    _for_each(task, q, k)
    return dq, dk, dv

"""Attention of large NumPy arrays, a few heads after another: the scores never leave the processor's cache.

The scores S = s·Q Kᵀ of 196 queries and keys are twelve times as large as Q. So neither they nor the weights
A = η e^S, η_i = 1/Σ_j e^(S_ij), are kept: the backward computes them again. With G = ∂L/∂Y and the formulas of
:func:`tinygen.ops.attention.scaled_dot_product_attention`, E = e^S,

    Y = η·(E V)                                    the few numbers of Y are divided, not the many of E
    ∂L/∂V = Eᵀ(η G)
    ∂L/∂S = A·(G Vᵀ − ⟨G, Y⟩) = E·(G′ V′ᵀ),        G′ = η·[G, −⟨G, Y⟩],  V′ = [V, 1],

because ⟨A_i, G_i Vᵀ⟩ = ⟨G_i, A_i V⟩ = ⟨G_i, Y_i⟩: two passes over an array like E beside the products.

Source: Dao et al., *FlashAttention: fast and memory-efficient exact attention with IO-awareness* (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tinygen.kernels.threads import run, scratch

_BLOCK = 1 << 19  # bytes of the scores in a block
_SMALL = 1 << 14  # bytes of all scores for which the definition is as quick
_SAFE = 40.0  # e^±40 and sums of it are far from float32's ends


class Saved(NamedTuple):
    """What the backward wants of the forward: η, and what was subtracted from the scores, (…, L, 1) each."""

    η: np.ndarray
    shift: np.ndarray


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


def _parts(lead: tuple[int, ...], each: int) -> Iterator[tuple]:
    """Indices of blocks of heads, for heads whose scores take ``each`` bytes."""
    *outer, heads = lead
    step = max(1, _BLOCK // each)
    if len(outer) == 1 and step >= heads:
        step //= heads
        yield from ((slice(i, i + step),) for i in range(0, outer[0], step))
    else:
        yield from ((*i, slice(j, j + step)) for i in np.ndindex(*outer) for j in range(0, heads, step))


def _for_each(block: Callable[[tuple], None], q: np.ndarray, k: np.ndarray) -> None:
    parts = _parts(q.shape[:-2], q.shape[-2] * k.shape[-2] * q.itemsize)
    run([lambda part=part: block(part) for part in parts])  # type: ignore[misc]


def _turned(a: np.ndarray) -> np.ndarray:
    return a.swapaxes(-1, -2)


def _like(a: np.ndarray, n: int) -> np.ndarray:
    """An array with any contents like a (…, L, d), with n for d, in a's order of heads and rows."""
    if a.ndim > 3 and a.strides[-3] < a.strides[-2]:  # heads side by side, as one linear layer gives them
        return np.empty((*a.shape[:-3], a.shape[-2], a.shape[-3], n), a.dtype).swapaxes(-2, -3)
    return np.empty((*a.shape[:-1], n), a.dtype)


def _scaled(name: str, a: np.ndarray, s: Any, more: int = 0) -> np.ndarray:
    """a·s in scratch memory, with room for so many columns more."""
    whole = scratch(name, (*a.shape[:-1], a.shape[-1] + more), a.dtype)
    np.multiply(a, s, out=whole[..., : a.shape[-1]])
    return whole


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, s: float) -> tuple[np.ndarray, Saved]:
    """Y = softmax(s·Q Kᵀ) V, and what :func:`gradients` wants.

    Scores are shifted by their largest only where |S_ij| ≤ s·‖Q_i‖·‖K_j‖ leaves a doubt that e^S stays finite.
    """
    y = _like(q, v.shape[-1])
    η, shift = (np.zeros((*q.shape[:-1], 1), q.dtype) for _ in range(2))
    one = np.ones((k.shape[-2], 1), q.dtype)

    def block(part: tuple) -> None:
        E = scratch("scores", (*q[part].shape[:-1], k.shape[-2]), q.dtype)
        Q, K = _scaled("queries", q[part], s), k[part]
        np.matmul(Q, _turned(K), out=E)
        with np.errstate(over="ignore"):
            largest = np.einsum("...i,...i->...", Q, Q).max() * np.einsum("...i,...i->...", K, K).max()
        if not largest <= _SAFE * _SAFE:
            shift[part] = E.max(axis=-1, keepdims=True)
            E -= shift[part]
        np.exp(E, out=E)
        η[part] = 1 / (E @ one)
        np.matmul(E, v[part], out=y[part])
        y[part] *= η[part]

    _for_each(block, q, k)
    return y, Saved(η, shift)


def gradients(
    g: np.ndarray, y: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, s: float, saved: Saved
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """∂L/∂Q, ∂L/∂K and ∂L/∂V from g = ∂L/∂Y, in the memory orders of Q, K and V."""
    dq, dk, dv = (_like(a, a.shape[-1]) for a in (q, k, v))
    e = v.shape[-1]

    def block(part: tuple) -> None:
        shape = (*q[part].shape[:-1], k.shape[-2])
        E, U = scratch("scores", shape, q.dtype), scratch("their gradient", shape, q.dtype)
        Q = _scaled("queries", q[part], s)
        np.matmul(Q, _turned(k[part]), out=E)
        if saved.shift[part].any():
            E -= saved.shift[part]
        np.exp(E, out=E)
        G = _scaled("cotangents", g[part], saved.η[part], more=1)  # η·[G, −⟨G, Y⟩]
        np.einsum("...i,...i->...", G[..., :e], y[part], out=G[..., e])
        np.negative(G[..., e], out=G[..., e])
        V = _scaled("values", v[part], 1, more=1)  # [V, 1]
        V[..., e] = 1
        np.matmul(_turned(E), G[..., :e], out=dv[part])
        np.matmul(G, _turned(V), out=U)
        U *= E
        np.matmul(_turned(U), Q, out=dk[part])
        np.matmul(U, k[part], out=dq[part])
        dq[part] *= s

    _for_each(block, q, k)
    return dq, dk, dv

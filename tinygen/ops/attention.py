"""Attention: each query takes a weighted mean of the values, weighted by how well their keys match it."""

from __future__ import annotations

import math
from typing import Any

from tinygen.backend import array_module
from tinygen.kernels import attention as kernel
from tinygen.op import op
from tinygen.ops.dropout import dropout
from tinygen.ops.elementwise import where
from tinygen.ops.matmul import matmul
from tinygen.ops.shape import matrix_transpose
from tinygen.ops.softmax import safe_softmax, softmax
from tinygen.random import Generator
from tinygen.recording import recording
from tinygen.tensor import Tensor, wrap


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    rng: Generator | None = None,
) -> Tensor:
    """Y = A V,  A = softmax(s·Q Kᵀ + M) over the keys,  s = 1/√d.

    Each step is differentiable, so the chain rule is all there is: with G = ∂L/∂Y, the scores S = s·Q Kᵀ + M and
    row by row h(g, a) = a(g − ⟨g, a⟩), the vjp of softmax,

        ∂L/∂V = Aᵀ G,      ∂L/∂S = h(G Vᵀ, A),      ∂L/∂Q = s·(∂L/∂S) K,      ∂L/∂K = s·(∂L/∂S)ᵀ Q.

    The factor s keeps the scores' variance at 1 where queries and keys have variance 1.

    Shapes: query (…, L, d), key (…, S, d), value (…, S, e), leading axes broadcast → (…, L, e).

    Args:
        attn_mask: broadcasts to (…, L, S). Boolean: which keys a query may attend to. Floating: M, added to the
            scores. A query that may attend to nothing gets 0.
        dropout_p: the probability with which each weight in A is dropped, always (there is no training flag, as in
            PyTorch).
        is_causal: query i attends to keys 0 … i alone.
        scale: s; 1/√d where omitted.
        rng: draws the dropout. (PyTorch's enable_gqa is not here.)

    Raises:
        ValueError: a shape does not fit, or attn_mask is given together with is_causal.
        TypeError: the dtypes differ, or the mask's is neither boolean nor theirs.

    Source: ``torch.nn.functional.scaled_dot_product_attention``; Vaswani et al., *Attention is all you need* (2017),
    eq. 1.
    """
    who = "scaled_dot_product_attention"
    _check(who, query, key, value)
    if attn_mask is not None and is_causal:
        raise ValueError(f"{who}: attn_mask and is_causal=True exclude each other; put the triangle into the mask")
    L, S = query.shape[-2], key.shape[-2]
    s = scale if scale is not None else 1 / math.sqrt(query.shape[-1])
    if attn_mask is None and not is_causal and dropout_p == 0 and kernel.fits(query.data, key.data, value.data):
        return _attention(query, key, value, float(s))
    scores = matmul(query * s, matrix_transpose(key))
    if is_causal:
        xp = array_module(query.data)
        attn_mask = wrap(xp.tri(L, S, dtype=bool))
    if attn_mask is not None:
        if attn_mask.dtype.kind != "b" and attn_mask.dtype != query.dtype:
            raise TypeError(f"{who}: attn_mask must be boolean or {query.dtype} as query is, got {attn_mask.dtype}")
        lead = scores.ndim - attn_mask.ndim
        if lead < 0 or any(n not in (1, m) for n, m in zip(attn_mask.shape, scores.shape[lead:], strict=True)):
            shapes = f"attn_mask {attn_mask.shape} does not broadcast to the scores (…, L, S) = {scores.shape}"
            raise ValueError(f"{who}: {shapes}")
        scores = where(attn_mask, scores, -math.inf) if attn_mask.dtype.kind == "b" else scores + attn_mask
    A = safe_softmax(scores, -1)
    return matmul(dropout(A, dropout_p, rng=rng), value)


class _Gradients:
    """∂L/∂Q, ∂L/∂K and ∂L/∂V, computed together when the first is asked for; each is handed out once."""

    def __init__(self, saved: kernel.Saved) -> None:
        self.saved = saved
        self.g: Any = None
        self.found: dict[int, Any] = {}

    def __call__(self, which: int, g: Any, y: Any, q: Any, k: Any, v: Any, s: float) -> Any:
        if self.g is not g or which not in self.found:
            self.g, self.found = g, dict(enumerate(kernel.gradients(g, y, q, k, v, s, self.saved)))
        return self.found.pop(which)


@op(aux=True)
def _attention(query, key, value, scale):
    """Y = A V, A = softmax(s·Q Kᵀ), the scores not stored (kernels/attention.py). See scaled_dot_product_attention.

    ∂L/∂V = Aᵀ G,  ∂L/∂Q = s·H K,  ∂L/∂K = s·Hᵀ Q,  with H = A∘(G Vᵀ − Σ A∘G Vᵀ), the sum over the keys.

    Shapes: (…, L, d), (…, S, d), (…, S, e) → (…, L, e).

    Source: Vaswani et al., *Attention is all you need* (2017), eq. 1; Dao et al., *FlashAttention* (2022), for doing
    without the scores.
    """
    if kernel.fits(query, key, value):
        y, saved = kernel.attention(query, key, value, scale)
        return y, _Gradients(saved)
    S = scale * query @ key.swapaxes(-1, -2)
    E = array_module(S).exp(S - S.real.max(axis=-1, keepdims=True))
    return E @ value / E.sum(axis=-1, keepdims=True), None


def _together(which: int, g: Tensor, y: Any, query: Any, key: Any, value: Any, scale: float, aux: Any) -> Tensor:
    """One of the gradients; by the formulas of scaled_dot_product_attention where it is to be differentiated again."""
    if aux is not None and not recording.get():
        q, k, v = (a.data if isinstance(a, Tensor) else a for a in (query, key, value))
        return wrap(aux(which, g.data, y.data, q, k, v, scale))
    query, key, value = (a if isinstance(a, Tensor) else wrap(a) for a in (query, key, value))
    A = softmax(matmul(query * scale, matrix_transpose(key)), -1)
    if which == 2:
        return matmul(matrix_transpose(A), g)
    dS = matmul(g, matrix_transpose(value))
    dS = A * (dS - (A * dS).sum(-1, keepdim=True))
    return matmul(dS, key) * scale if which == 0 else matmul(matrix_transpose(dS), query) * scale


@_attention.vjp("query")
def _(g, y, query, key, value, scale, aux):
    return _together(0, g, y, query, key, value, scale, aux)


@_attention.vjp("key")
def _(g, y, query, key, value, scale, aux):
    return _together(1, g, y, query, key, value, scale, aux)


@_attention.vjp("value")
def _(g, y, query, key, value, scale, aux):
    return _together(2, g, y, query, key, value, scale, aux)


def _check(who: str, query: Tensor, key: Tensor, value: Tensor) -> None:
    named = {"query": query, "key": key, "value": value}
    if any(x.ndim < 2 for x in named.values()) or query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        given = ", ".join(f"{name} {x.shape}" for name, x in named.items())
        raise ValueError(f"{who}: expected query (…, L, d), key (…, S, d) and value (…, S, e), got {given}")
    if any(x.dtype != query.dtype or x.dtype.kind not in "fc" for x in named.values()):
        given = ", ".join(f"{name} {x.dtype}" for name, x in named.items())
        raise TypeError(f"{who}: expected one floating dtype, got {given}")

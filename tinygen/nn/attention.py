"""MultiheadAttention: every query looks through several heads at all keys, and takes a mean of their values."""

from __future__ import annotations

import math
from typing import Any

from tinygen.arguments import refuse
from tinygen.backend import array_module
from tinygen.nn import functional as F
from tinygen.nn import init
from tinygen.nn.linear import Linear
from tinygen.nn.module import Module
from tinygen.nn.parameter import empty_parameter
from tinygen.ops.elementwise import where
from tinygen.ops.matmul import matmul
from tinygen.ops.shape import unbind
from tinygen.ops.softmax import safe_softmax
from tinygen.random import Generator
from tinygen.tensor import Tensor, wrap


class MultiheadAttention(Module):
    """MultiHead(Q, K, V) = Concat(head₁, …, head_h) W_Oᵀ + b_O,  headᵢ = A(Q W_Qᵢᵀ, K W_Kᵢᵀ, V W_Vᵢᵀ),

    with A(q, k, v) = softmax(q kᵀ/√d + mask) v and d = E/h numbers in each head.

    Shapes: query (L, N, E), key and value (S, N, E) → output (L, N, E), weights (N, L, S); with ``batch_first`` the N
    stands first; all without N also work. L queries, S keys, N examples, E = embed_dim.

    Args:
        embed_dim: E. num_heads: h, which divides E.
        dropout: probability with which an attention weight is dropped while training.
        bias: whether the projections have one.
        add_bias_kv, add_zero_attn, kdim, vdim: refused.
        batch_first: the order of axes.
        device, dtype: of the parameters.
        rng: draws their first values (W_Q, W_K, W_V by ``xavier_uniform_`` as one matrix) and the dropout.

    Attributes:
        in_proj_weight: W_Q, W_K, W_V one below the other, (3E, E). in_proj_bias: (3E) or None. out_proj: Linear(E, E).

    Raises:
        ValueError: num_heads does not divide embed_dim, dropout is outside [0, 1), or (when called) a shape does not
            fit.
        NotImplementedError: a refused argument is asked for.

    Source: Vaswani et al. 2017, section 3.2.2; ``torch.nn.MultiheadAttention``.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: str | None = None,
        dtype: Any = None,
        rng: Generator | None = None,
    ) -> None:
        super().__init__()
        refuse(
            "MultiheadAttention",
            add_bias_kv=(add_bias_kv, False),
            add_zero_attn=(add_zero_attn, False),
            kdim=(None if kdim == embed_dim else kdim, None),
            vdim=(None if vdim == embed_dim else vdim, None),
        )
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: num_heads={num_heads} must divide embed_dim={embed_dim}")
        if not 0 <= dropout < 1:
            raise ValueError(f"MultiheadAttention: dropout must be in [0, 1), got {dropout}")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.dropout, self.batch_first, self.rng = dropout, batch_first, rng
        self.in_proj_weight = empty_parameter(3 * embed_dim, embed_dim, dtype=dtype, device=device)
        self.in_proj_bias = empty_parameter(3 * embed_dim, dtype=dtype, device=device) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, dtype=dtype, device=device, rng=rng)
        self.reset_parameters(rng)

    def reset_parameters(self, rng: Generator | None = None) -> None:
        """Draw the input projections anew, and set the biases to 0."""
        init.xavier_uniform_(self.in_proj_weight, rng=rng)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The output and the attention weights.

        Args:
            key_padding_mask: boolean (N, S): True where a key is to be ignored.
            need_weights: whether the weights are wanted; without them it takes less time and memory.
            attn_mask: (L, S) or (N·h, L, S): True where a query must not look; or floating, added to the scores.
            average_attn_weights: the weights' mean over the heads, (N, L, S), or each head's, (N, h, L, S).
            is_causal: refused: pass ``attn_mask``.

        Returns: ``(output, weights)``; weights is None where not needed.

        A query that may look nowhere has the weights 0 (NaN in PyTorch, where the weights are needed).

        Raises:
            ValueError, TypeError: a shape or a mask's dtype does not fit.
            NotImplementedError: is_causal.
        """
        refuse("MultiheadAttention", "pass the mask itself as attn_mask", is_causal=(is_causal, False))
        single, itself = query.ndim == 2, query is key and key is value
        if single:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        self._check(query, key, value)
        q, k, v = self._all_heads(query) if itself else (self._heads(x, i) for i, x in enumerate((query, key, value)))
        mask = self._mask(attn_mask, key_padding_mask, q, k)
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            # softmax(q kᵀ/√d + mask)
            scores = matmul(q * (1 / math.sqrt(self.head_dim)), k.mT)
            weights = safe_softmax(scores if mask is None else scores + mask, -1)
            weights = F.dropout(weights, p, rng=self.rng)
            heads = matmul(weights, v)
            if average_attn_weights:
                weights = weights.mean(1)
        else:
            heads = F.scaled_dot_product_attention(q, k, v, mask, p, rng=self.rng)
        # (N, h, L, d) → (N, L, E)
        output = self.out_proj(heads.transpose(1, 2).flatten(2))
        if single:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _heads(self, x: Tensor, part: int) -> Tensor:
        """x W_part + b_part for all heads at once: (N, S, E) → (N, h, S, d)."""
        rows = slice(part * self.embed_dim, (part + 1) * self.embed_dim)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        y = F.linear(x, self.in_proj_weight[rows], bias)
        return y.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _all_heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """The same of one x for all three parts, by one product."""
        y = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        return unbind(y.unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4), 0)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        E, N = self.embed_dim, query.shape[0]
        fits = all(x.ndim == 3 and x.shape[2] == E and x.shape[0] == N for x in (query, key, value))
        if not fits or key.shape != value.shape:
            order = "(N, length, E)" if self.batch_first else "(length, N, E), here with N first,"
            raise ValueError(
                f"MultiheadAttention: expected query, key and value {order} with E = {E}, the same N, and key and "
                f"value of one length; got {query.shape}, {key.shape}, {value.shape}"
            )

    def _mask(self, attn: Tensor | None, padding: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
        """Both masks as one that is added to the scores: 0, or −∞ where a query must not look."""
        N, h, L, S = *q.shape[:3], k.shape[2]
        if padding is not None:
            if padding.shape != (N, S) or padding.dtype.kind != "b":
                raise ValueError(
                    f"MultiheadAttention: key_padding_mask must be boolean {(N, S)}, got {padding.dtype} "
                    f"{padding.shape}"
                )
            padding = _additive(padding, q).reshape(N, 1, 1, S)
        if attn is None:
            return padding
        if attn.shape not in ((L, S), (N * h, L, S)) or attn.dtype.kind not in "bf":
            raise ValueError(
                f"MultiheadAttention: attn_mask must be boolean or floating {(L, S)} or {(N * h, L, S)}, got "
                f"{attn.dtype} {attn.shape}"
            )
        attn = _additive(attn, q)
        attn = attn.reshape(N, h, L, S) if attn.ndim == 3 else attn
        return attn if padding is None else attn + padding


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype.kind != "b":
        return mask
    xp = array_module(mask.data)
    return where(mask, -math.inf, wrap(xp.zeros((), like.dtype)))

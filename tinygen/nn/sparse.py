"""Embedding: a learned vector for every index."""

from __future__ import annotations

from typing import Any

from tinygen.arguments import refuse
from tinygen.nn import functional as F
from tinygen.nn import init
from tinygen.nn.module import Module
from tinygen.nn.parameter import Parameter, empty_parameter
from tinygen.random import Generator
from tinygen.tensor import Tensor


class Embedding(Module):
    """y[…, :] = W[t…, :]: row t of a learned table for every index t. See ``F.embedding``.

    Shapes: (*), integers in [0, V) → (*, D).

    Args:
        num_embeddings, embedding_dim: V, D.
        padding_idx: a row that is 0 at first and is not learned; from the end if negative.
        max_norm, norm_type, scale_grad_by_freq, sparse: refused.
        device, dtype: of the table.
        rng: draws its first values, N(0, 1).

    Attributes:
        weight: W, (V, D).

    Raises:
        ValueError: padding_idx is not one of the V rows.
        NotImplementedError: a refused argument is asked for.
        TypeError, IndexError: (when called) an index is not an integer in [0, V).

    Source: ``torch.nn.Embedding``.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        device: str | None = None,
        dtype: Any = None,
        rng: Generator | None = None,
    ) -> None:
        super().__init__()
        refuse(
            "Embedding",
            max_norm=(max_norm, None),
            norm_type=(norm_type, 2.0),
            scale_grad_by_freq=(scale_grad_by_freq, False),
            sparse=(sparse, False),
        )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"Embedding: padding_idx={padding_idx} is not one of the {num_embeddings} rows")
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        self.weight = empty_parameter(num_embeddings, embedding_dim, dtype=dtype, device=device)
        self.reset_parameters(rng)

    def reset_parameters(self, rng: Generator | None = None) -> None:
        """Draw the table anew."""
        init.normal_(self.weight, rng=rng)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None) -> Embedding:
        """A layer whose table is a copy of ``embeddings``, (V, D), and is not learned where ``freeze``.

        Raises:
            ValueError: embeddings is not a matrix.
        """
        if embeddings.ndim != 2:
            raise ValueError(f"Embedding.from_pretrained: expected a table (V, D), got shape {embeddings.shape}")
        V, D = embeddings.shape
        layer = cls(V, D, padding_idx=padding_idx, dtype=embeddings.dtype, device=embeddings.device)
        layer.weight = Parameter(embeddings, requires_grad=not freeze)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """The rows that the indices name."""
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"

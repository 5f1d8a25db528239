"""Dropout: units switched off at random while training."""

from __future__ import annotations

from tinygen.arguments import refuse
from tinygen.nn import functional as F
from tinygen.nn.module import Module
from tinygen.random import Generator
from tinygen.tensor import Tensor


class Dropout(Module):
    """y = x·m/(1 − p), with m = 0 with probability p, else 1, while training; y = x in ``eval()``.

    Shapes: (*) → (*).

    Args:
        p: in [0, 1].
        inplace: refused.
        rng: draws m; the default generator of the input's device where omitted.

    Raises:
        ValueError: p is outside [0, 1].
        NotImplementedError: inplace.

    Source: Srivastava et al. 2014; ``torch.nn.Dropout``.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, rng: Generator | None = None) -> None:
        super().__init__()
        refuse("Dropout", inplace=(inplace, False))
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be in [0, 1], got {p}")
        self.p, self.rng = p, rng

    def forward(self, input: Tensor) -> Tensor:
        """x with some of it dropped."""
        return F.dropout(input, self.p, self.training, rng=self.rng)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"p={self.p}, inplace=False"

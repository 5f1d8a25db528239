"""Linear: the affine layer. Identity: none at all."""

from __future__ import annotations

import math
from typing import Any

from tinygen.nn import functional as F
from tinygen.nn import init
from tinygen.nn.module import Module
from tinygen.nn.parameter import Parameter, empty_parameter
from tinygen.random import Generator
from tinygen.tensor import Tensor


def draw_weight_and_bias(weight: Parameter, bias: Parameter | None, rng: Generator | None) -> None:
    """PyTorch's start for affine layers: weight and bias ~ U[−1/√n_in, 1/√n_in].

    kaiming_uniform with slope a = √5 has the bound √(2/(1 + 5))·√(3/n_in) = 1/√n_in.
    """
    init.kaiming_uniform_(weight, a=math.sqrt(5), rng=rng)
    if bias is not None:
        n_in, _ = init.fans(weight)
        bound = 1 / math.sqrt(n_in) if n_in > 0 else 0.0
        init.uniform_(bias, -bound, bound, rng=rng)


class Linear(Module):
    """y = x Wᵀ + b.

    Shapes: (*, in_features) → (*, out_features).

    Args:
        in_features, out_features: lengths of the last axis before and after.
        bias: whether b is there.
        device, dtype: of the parameters.
        rng: draws their first values, U[−1/√in_features, 1/√in_features].

    Attributes:
        weight: W, (out_features, in_features).
        bias: b, (out_features), or None.

    Raises:
        ValueError: the last axis of the input has another length (when called).

    Source: ``torch.nn.Linear``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: Any = None,
        rng: Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = empty_parameter(out_features, in_features, dtype=dtype, device=device)
        self.bias = empty_parameter(out_features, dtype=dtype, device=device) if bias else None
        self.reset_parameters(rng)

    def reset_parameters(self, rng: Generator | None = None) -> None:
        """Draw the parameters anew."""
        draw_weight_and_bias(self.weight, self.bias, rng)

    def forward(self, input: Tensor) -> Tensor:
        """x Wᵀ + b."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """y = x. Takes any arguments, so that it can stand in for any layer. Source: ``torch.nn.Identity``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """x."""
        return input

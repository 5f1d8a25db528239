"""Activation functions as layers, for a Sequential. The formulas and derivatives are in :mod:`tinygen.ops.activations`.

Shapes: (*) → (*). Source: ``torch.nn.NAME``.
"""

from __future__ import annotations

from tinygen.arguments import refuse
from tinygen.nn import functional as F
from tinygen.nn.module import Module
from tinygen.tensor import Tensor


class ReLU(Module):
    """y = max(0, x). ``inplace`` is refused (NotImplementedError)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        refuse("ReLU", inplace=(inplace, False))

    def forward(self, input: Tensor) -> Tensor:
        """max(0, x)."""
        return F.relu(input)


class LeakyReLU(Module):
    """y = x where x > 0, else s·x, with s = ``negative_slope``. ``inplace`` is refused (NotImplementedError)."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        refuse("LeakyReLU", inplace=(inplace, False))
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """x or s·x."""
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """y = x where x > 0, else α(eˣ − 1), with α = ``alpha``. ``inplace`` is refused (NotImplementedError)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        refuse("ELU", inplace=(inplace, False))
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        """x or α(eˣ − 1)."""
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"alpha={self.alpha}"


class SiLU(Module):
    """y = x·σ(x). ``inplace`` is refused (NotImplementedError)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        refuse("SiLU", inplace=(inplace, False))

    def forward(self, input: Tensor) -> Tensor:
        """x·σ(x)."""
        return F.silu(input)


class GELU(Module):
    """y = x·Φ(x), Φ the normal distribution function; ``approximate="tanh"`` approximates it.

    Raises:
        ValueError: approximate is neither "none" nor "tanh" (when called).
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """x·Φ(x)."""
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"approximate={self.approximate!r}"


class Softplus(Module):
    """y = (1/β)·ln(1 + e^(βx)), with β = ``beta``; x itself where βx > ``threshold``."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """(1/β)·ln(1 + e^(βx))."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Sigmoid(Module):
    """y = σ(x) = 1/(1 + e⁻ˣ)."""

    def forward(self, input: Tensor) -> Tensor:
        """σ(x)."""
        return F.sigmoid(input)


class Tanh(Module):
    """y = tanh x."""

    def forward(self, input: Tensor) -> Tensor:
        """tanh x."""
        return F.tanh(input)


class LogSigmoid(Module):
    """y = ln σ(x)."""

    def forward(self, input: Tensor) -> Tensor:
        """ln σ(x)."""
        return F.logsigmoid(input)


class Softmax(Module):
    """yᵢ = e^(xᵢ)/Σⱼ e^(xⱼ) along the axis ``dim``. (PyTorch guesses an axis where none is named.)"""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """e^(xᵢ)/Σⱼ e^(xⱼ)."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """yᵢ = xᵢ − ln Σⱼ e^(xⱼ) along the axis ``dim``, which must be named."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """xᵢ − ln Σⱼ e^(xⱼ)."""
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"dim={self.dim}"

"""Flatten and Unflatten: between pictures and vectors, inside a Sequential."""

from __future__ import annotations

from collections.abc import Sequence

from tinygen.nn.module import Module
from tinygen.tensor import Tensor


class Flatten(Module):
    """y[n, i·W + j] = x[n, i, j]: the axes start_dim … end_dim joined into one; by default all but the batch.

    Shapes: (N, *) → (N, Π *).

    Raises:
        IndexError, ValueError: as :func:`tinygen.flatten` (when called).

    Source: ``torch.nn.Flatten``.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """The same numbers in fewer axes."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """y[n, i, j] = x[n, i·W + j]: the axis ``dim`` split into several; one size may be −1.

    Shapes: (*, Π sizes, *) → (*, sizes, *).

    Raises:
        TypeError: unflattened_size is not a tuple or list of integers.
        ValueError: the sizes do not multiply to the axis' length (when called).

    Source: ``torch.nn.Unflatten``.
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(unflattened_size, (tuple, list)) or not all(isinstance(n, int) for n in unflattened_size):
            raise TypeError(f"Unflatten: unflattened_size must be a tuple of integers, got {unflattened_size!r}")
        self.dim, self.unflattened_size = dim, unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        """The same numbers in more axes."""
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """The settings, as PyTorch prints them."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"

"""What autograd and MyGrad do not have and NumPy's names, which both have, can say: ``np`` is the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def upsample(np: Any, x: Any) -> Any:
    """Every pixel twice in both directions."""
    return np.repeat(np.repeat(x, 2, 2), 2, 3)


def standard(np: Any, x: Any, axes: Any) -> Any:
    """Mean 0 and variance 1 over the axes."""
    c = x - np.mean(x, axes, keepdims=True)
    return c / np.sqrt(np.mean(c * c, axes, keepdims=True) + 1e-5)


def group_norm(np: Any, x: Any, groups: int, γ: Any, β: Any) -> Any:
    """Mean 0 and variance 1 in each group of channels."""
    h = standard(np, x.reshape(x.shape[0], groups, -1), 2).reshape(*x.shape)
    return h * γ.reshape(1, -1, 1, 1) + β.reshape(1, -1, 1, 1)


def layer_norm(np: Any, x: Any, γ: Any, β: Any) -> Any:
    """Mean 0 and variance 1 along the last axis."""
    return standard(np, x, -1) * γ + β


def attention(np: Any, softmax: Callable[[Any], Any], q: Any, k: Any, v: Any) -> Any:
    """softmax(q kᵀ / √d) v."""
    return np.matmul(softmax(np.matmul(q, np.swapaxes(k, -1, -2)) * q.shape[-1] ** -0.5), v)

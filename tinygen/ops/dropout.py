"""Dropout: units switched off at random while training."""

from __future__ import annotations

from tinygen.backend import array_module, float32
from tinygen.ops.elementwise import mul
from tinygen.random import Generator, rand
from tinygen.tensor import Tensor, wrap


def dropout(input: Tensor, p: float = 0.5, training: bool = True, *, rng: Generator | None = None) -> Tensor:
    """y_i = x_i·m_i/(1 − p), where m_i is 0 with probability p and 1 otherwise, so that E[y] = x.

    ∂L/∂x_i = g_i·m_i/(1 − p), with the same m. For p = 1 everything is 0; for p = 0, or when not training, y = x.

    Shapes: (*) → (*).

    Args:
        rng: draws m; the default generator of x's device where omitted. (PyTorch's ``inplace`` is not here.)

    Raises:
        ValueError: p is outside [0, 1].
        TypeError: x is not floating.

    Source: Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting* (2014), §4.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: expected p in [0, 1], got {p}")
    if input.dtype.kind not in "fc":
        raise TypeError(f"dropout: expected a floating tensor, got {input.dtype}")
    if p == 0 or not training:
        return input
    xp = array_module(input.data)
    # In x's own order of axes in memory, so that y keeps it too.
    m = xp.empty_like(input.data)
    if p == 1:
        m[...] = 0
    else:
        m[...] = rand(input.shape, rng=rng, dtype=float32, device=input.device).data >= p
        m *= 1 / (1 - p)
    return mul(input, wrap(m))

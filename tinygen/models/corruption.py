"""Ways to spoil an image, for a network to learn to mend it.

A denoising autoencoder sees x̃ ~ C(x̃ | x) and is asked for x, so that it cannot get by with copying its input.

Source: Vincent et al., *Extracting and Composing Robust Features with Denoising Autoencoders* (2008), §2.3, and
*Stacked Denoising Autoencoders* (2010), §3.3 for the three kinds.
"""

from __future__ import annotations

from tinygen.ops.comparison import lt
from tinygen.ops.elementwise import clamp, where
from tinygen.random import Generator, rand_like, randn_like
from tinygen.tensor import Tensor

KINDS = ("gaussian", "masking", "salt_and_pepper")


def corrupt(x: Tensor, kind: str = "gaussian", amount: float = 0.3, rng: Generator | None = None) -> Tensor:
    """x̃ ~ C(x̃ | x), the image x spoiled in one of three ways.

    - ``"gaussian"``: x̃ = x + σε, ε ~ N(0, 1), clipped to [0, 1]; amount is σ.
    - ``"masking"``: each pixel is 0 with probability amount.
    - ``"salt_and_pepper"``: each pixel is 0 or 1, equally likely, with probability amount.

    Args:
        x: images with values in [0, 1], any shape.
        amount: σ ≥ 0, or a probability in [0, 1].
        rng: what draws the noise.

    Returns:
        x̃, of x's shape and dtype.

    Raises:
        ValueError: the kind is unknown, or the amount out of range.

    Source: Vincent et al. (2010), §3.3.
    """
    if kind not in KINDS:
        raise ValueError(f"corrupt: expected kind to be one of {', '.join(KINDS)}, got {kind!r}")
    if amount < 0 or (kind != "gaussian" and amount > 1):
        raise ValueError(f"corrupt: amount={amount} is out of range for {kind} noise")
    if kind == "gaussian":
        return clamp(x + amount * randn_like(x, rng=rng), 0.0, 1.0)
    spoiled = lt(rand_like(x, rng=rng), amount)
    if kind == "masking":
        return where(spoiled, 0.0, x)
    return where(spoiled, lt(rand_like(x, rng=rng), 0.5).to(x.dtype), x)

"""A small denoiser for points: dense layers that are told the time, for data that are no images.

Source: the form is that of a residual network, He et al. (2016), with the time embedding of Ho et al. (2020).
"""

from __future__ import annotations

from tinygen import nn
from tinygen.models.diffusion.unet import Conditioning
from tinygen.nn import functional as F
from tinygen.random import Generator
from tinygen.tensor import Tensor


class MLPDenoiser(nn.Module):
    """output = W_out h_L,   h_k = h_{k−1} + B_k SiLU(A_k h_{k−1} + V_k e),   h₀ = W_in x_t,   e: time and class.

    Shapes: x (N, D), t (N) on the scale of 0 to 1000, y (N) of integers or None → (N, D).

    Args:
        dim: D.
        width: of h.
        depth: L.
        num_classes: K; None without classes. The null class is K.
        rng: draws the first weights.

    Raises:
        ValueError: a number is not positive, or width is odd; (when called) x is of another shape.
    """

    def __init__(
        self,
        dim: int = 2,
        width: int = 128,
        depth: int = 3,
        num_classes: int | None = None,
        rng: Generator | None = None,
    ) -> None:
        super().__init__()
        if min(dim, width, depth) < 1 or width % 2:
            raise ValueError(f"MLPDenoiser: expected positive numbers and an even width, got {dim}, {width}, {depth}")
        self.dim, self.num_classes = dim, num_classes
        self.condition = Conditioning(width, num_classes, rng)
        self.enter, self.leave = nn.Linear(dim, width, rng=rng), nn.Linear(width, dim, rng=rng)
        self.look = nn.ModuleList([nn.Linear(width, width, rng=rng) for _ in range(depth)])
        self.tell = nn.ModuleList([nn.Linear(width, width, bias=False, rng=rng) for _ in range(depth)])
        self.add = nn.ModuleList([nn.Linear(width, width, rng=rng) for _ in range(depth)])

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """The network's output for the points x_t at the times t."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"MLPDenoiser: expected points of shape (N, {self.dim}), got {x.shape}")
        e = F.silu(self.condition(t, y))
        h = self.enter(x)
        for look, tell, add in zip(self.look, self.tell, self.add, strict=True):
            h = h + add(F.silu(look(h) + tell(e)))
        return self.leave(h)

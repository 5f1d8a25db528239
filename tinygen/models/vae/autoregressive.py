"""A prior over rows of codes: each code's probabilities depend on the codes before it.

    p(k_1 … k_L) = Π_i p(k_i | k_1 … k_{i−1})

One dense network gives all L factors at once. Its weights are masked, so that output i can only see inputs j < i: a
hidden unit of degree d sees the inputs j ≤ d, and output i the hidden units of degree d < i.

Source: Germain, Gregor, Murray & Larochelle, *MADE: Masked Autoencoder for Distribution Estimation* (2015), eq. 8–10.
"""

from __future__ import annotations

from tinygen import nn
from tinygen.creation import arange, zeros
from tinygen.distributions import Categorical
from tinygen.nn import functional as F
from tinygen.ops.shape import broadcast_to
from tinygen.random import Generator
from tinygen.recording import no_grad
from tinygen.tensor import Tensor


class MaskedLinear(nn.Linear):
    """y = x (W ∘ M)ᵀ + b, where M is 1 where output group i may see input group j, and 0 elsewhere.

    Args:
        groups: L; inputs and outputs are L groups of equal size, one after the other.
        n_in, n_out: the size of a group.
        strict: group i sees j < i, instead of j ≤ i.
        rng: what draws the initial weights.

    Source: Germain et al. (2015), eq. 8–9.
    """

    def __init__(self, groups: int, n_in: int, n_out: int, strict: bool, rng: Generator | None = None) -> None:
        super().__init__(groups * n_in, groups * n_out, rng=rng)
        group = arange(groups).unsqueeze(1)
        i = broadcast_to(group, (groups, n_out)).reshape(-1, 1)
        j = broadcast_to(group, (groups, n_in)).reshape(1, -1)
        self.register_buffer("mask", (j < i if strict else j <= i).to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L·n_in) → (N, L·n_out)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class CodePrior(nn.Module):
    """p(k_1 … k_L) = Π_i p(k_i | k_1 … k_{i−1}), rows of L codes out of K: masked dense layers, by maximum likelihood.

    Args:
        length: L, how many codes are in a row.
        codes: K, how many different ones there are.
        embed: numbers that stand for a code at the input.
        hidden: hidden units of each degree, in each of two layers.
        rng: what draws the initial weights.

    Raises:
        ValueError: an argument is not positive.

    Source: Germain et al. (2015); van den Oord et al. (2017), §3.3, for a prior fitted to the codes of a VQ-VAE.
    """

    def __init__(
        self, length: int, codes: int, embed: int = 8, hidden: int = 32, rng: Generator | None = None
    ) -> None:
        super().__init__()
        if min(length, codes, embed, hidden) < 1:
            raise ValueError(f"CodePrior: expected positive sizes, got {length=}, {codes=}, {embed=}, {hidden=}")
        self.length, self.codes = length, codes
        self.embedding = nn.Embedding(codes, embed, rng=rng)
        self.layers = nn.Sequential(
            MaskedLinear(length, embed, hidden, strict=False, rng=rng),
            nn.SiLU(),
            MaskedLinear(length, hidden, hidden, strict=False, rng=rng),
            nn.SiLU(),
            MaskedLinear(length, hidden, codes, strict=True, rng=rng),
        )

    def forward(self, k: Tensor) -> Categorical:
        """p(k_i | k_1 … k_{i−1}) at all i: int64 (N, L) → batch_shape (N, L)."""
        if k.ndim != 2 or k.shape[1] != self.length:
            raise ValueError(f"CodePrior: expected codes (N, {self.length}), got {k.shape}")
        a = self.layers(self.embedding(k).flatten(1))
        return Categorical(logits=a.unflatten(1, (self.length, self.codes)))

    def log_prob(self, k: Tensor) -> Tensor:
        """ln p(k) = Σ_i ln p(k_i | k_1 … k_{i−1}) in nats: int64 (N, L) → (N)."""
        return self(k).log_prob(k).sum(1)

    @no_grad()
    def sample(self, n: int, rng: Generator | None = None) -> Tensor:
        """n rows, drawn code by code from left to right: int64 (n, L)."""
        k = zeros(n, self.length, dtype="int64", device=self.embedding.weight.device)
        for i in range(self.length):
            k[:, i] = self(k).sample(rng=rng)[:, i]
        return k

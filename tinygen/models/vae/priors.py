"""Priors p(z): where codes are drawn from, and to what the KL divergence draws the encoder.

A prior is a module that, given the encoder, makes a distribution with ``log_prob(z)`` (N, D) → (N,) and
``sample((n,))`` → (n, D). Averaged over the data the ELBO is

    E_x[ln p(x|z)] − [mutual information of x and z] − KL(q̄(z) ‖ p(z)),        q̄(z) = E_x[q(z|x)],

so the best prior is q̄, the *aggregate posterior*: where the prior has mass and q̄ has none, the decoder has never been
asked for anything, and what is drawn there is a smudge. A standard normal leaves such holes; a prior that is learned
with the rest closes them.

Source: Hoffman & Johnson, *ELBO surgery* (2016); Tomczak & Welling, *VAE with a VampPrior* (2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygen import nn
from tinygen.creation import zeros
from tinygen.distributions import LN_2PI, Categorical, Normal
from tinygen.ops.elementwise import clamp, exp, log, sigmoid
from tinygen.ops.reduction import logsumexp
from tinygen.ops.softmax import log_softmax
from tinygen.random import Generator, randn
from tinygen.recording import no_grad
from tinygen.tensor import Tensor


class StandardNormal:
    """N(0, I) over codes of ``latent`` numbers.

    Args:
        latent: D.
        like: a tensor of the dtype and device that draws shall have.
    """

    def __init__(self, latent: int, like: Tensor) -> None:
        self.one = Normal(zeros(latent, dtype=like.dtype, device=like.device), 1.0)

    def log_prob(self, z: Tensor) -> Tensor:
        """ln p(z) = −½ Σ (z² + ln 2π): (*, D) → (*)."""
        return self.one.log_prob(z).sum(-1)

    @no_grad()
    def sample(self, sample_shape: Sequence[int] = (), rng: Generator | None = None) -> Tensor:
        """z ~ N(0, I), (*sample_shape, D)."""
        return self.one.sample(sample_shape, rng)


class NormalMixture:
    """p(z) = Σ_k π_k N(z; μ_k, diag σ_k²).

    Shapes: log_weights ln π (K), loc μ (K, D), scale σ (K, D).
    """

    def __init__(self, log_weights: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.log_weights, self.loc, self.scale = log_weights, loc, scale

    def log_prob(self, z: Tensor) -> Tensor:
        """ln p(z) = ln Σ_k exp(ln π_k − ½ Σ_d [((z_d − μ_kd)/σ_kd)² + ln σ_kd² + ln 2π]): (*, D) → (*).

        The square is multiplied out, Σ_d z²/σ² − 2zμ/σ² + μ²/σ², so that it costs matrix products and no (*, K, D).
        """
        precision = 1 / (self.scale * self.scale)
        square = z * z @ precision.mT - 2 * (z @ (self.loc * precision).mT) + (self.loc * self.loc * precision).sum(-1)
        log_det = 2 * log(self.scale).sum(-1)
        D = self.loc.shape[1]
        return logsumexp(self.log_weights - 0.5 * (square + log_det + D * LN_2PI), -1)

    @no_grad()
    def sample(self, sample_shape: Sequence[int] = (), rng: Generator | None = None) -> Tensor:
        """z = μ_k + σ_k ε with k ~ π: (*sample_shape, D)."""
        k = Categorical(logits=self.log_weights).sample(sample_shape, rng)
        loc, scale = self.loc[k], self.scale[k]
        return loc + scale * randn(loc.shape, rng=rng, dtype=loc.dtype, device=loc.device)


Encode = Callable[[Tensor], Normal]


class NormalPrior(nn.Module):
    """p(z) = N(0, I), nothing to learn: the prior of the original paper.

    Args:
        latent: D, the length of a code.

    Source: Kingma & Welling (2013), appendix B.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.register_buffer("zero", zeros(()), persistent=False)  # knows the model's dtype and device

    def forward(self, encode: Encode) -> StandardNormal:
        """The distribution; the encoder is not asked."""
        return StandardNormal(self.latent, self.zero)


class MixturePrior(nn.Module):
    """p(z) = Σ_k π_k N(z; μ_k, diag σ_k²), with π, μ and σ learned through the ELBO.

    Args:
        latent: D, the length of a code.
        components: K ≥ 1.
        rng: draws the first μ ~ N(0, ½).

    Raises:
        ValueError: components < 1.

    Source: Dilokthanakul et al., *Deep Unsupervised Clustering with Gaussian Mixture VAEs* (2016), for the idea.
    """

    def __init__(self, latent: int, components: int = 50, rng: Generator | None = None) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"MixturePrior: expected components ≥ 1, got {components}")
        self.latent = latent
        self.logits = nn.Parameter(zeros(components))
        self.loc = nn.Parameter(randn(components, latent, rng=rng) * 0.5**0.5)
        self.log_var = nn.Parameter(zeros(components, latent))

    def forward(self, encode: Encode) -> NormalMixture:
        """The mixture; the encoder is not asked."""
        return NormalMixture(log_softmax(self.logits, 0), self.loc, exp(0.5 * self.log_var))


class VampPrior(nn.Module):
    """p(z) = Σ_k π_k q(z|u_k): the encoder's own posteriors of K images u_k that are learned ("pseudo-inputs").

    The best prior is the mean posterior of all N images, which would be slow and know them by heart; K ≪ N of them,
    which need not be images that exist, come close. Like all else, u and π are learned by gradient.

    Args:
        start: images (K, *image_shape) in [0, 1] from which the u_k begin, such as K of the training images.

    Raises:
        ValueError: there is no image.

    Source: Tomczak & Welling, *VAE with a VampPrior* (2018), eq. 9–10.
    """

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        if start.ndim < 2 or start.shape[0] < 1:
            raise ValueError(f"VampPrior: expected images (K, *image_shape) to begin with, got {start.shape}")
        # u = σ(v) stays within [0, 1], as images do.
        u = clamp(start.detach(), 0.01, 0.99)
        self.pixels = nn.Parameter(log(u) - log(1 - u))
        self.logits = nn.Parameter(zeros(start.shape[0], dtype=start.dtype, device=start.device))

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, (K, *image_shape), values in (0, 1)."""
        return sigmoid(self.pixels)

    def forward(self, encode: Encode) -> NormalMixture:
        """The mixture of what the encoder says of the u_k."""
        q: Any = encode(self.pseudo_inputs)
        return NormalMixture(log_softmax(self.logits, 0), q.loc, q.scale)

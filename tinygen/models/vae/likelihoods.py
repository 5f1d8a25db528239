"""Decoder distributions p(x|z): what the decoder's output a says about the pixels.

    Bernoulli   ln p(x|z) = Σ_pixels [x ln x̂ + (1 − x) ln(1 − x̂)],                    x̂ = σ(a)
    Gaussian    ln p(x|z) = Σ_pixels [−(x − x̂)²/(2σ²) − ln σ − ½ ln 2π],              x̂ = σ(a) or a

Each is a module that makes a distribution of a, so that one may be put in the other's place.

Source: Kingma & Welling, *Auto-Encoding Variational Bayes* (2013), appendix C.
"""

from __future__ import annotations

import math

from tinygen import nn
from tinygen.creation import full
from tinygen.distributions import Bernoulli, Normal
from tinygen.ops.elementwise import exp, sigmoid
from tinygen.tensor import Tensor


class BernoulliLikelihood(nn.Module):
    """Each pixel is ink with probability x̂ = σ(a), independently of the others given z.

    Grey values x ∈ [0, 1] are read as probabilities of ink: what is maximised is then the cross-entropy of
    :class:`tinygen.distributions.Bernoulli`, not the logarithm of a normalised density.

    Source: Kingma & Welling (2013), appendix C.1.
    """

    def forward(self, a: Tensor) -> Bernoulli:
        """p(x|z) for the decoder's output a of any shape."""
        return Bernoulli(logits=a)


class GaussianLikelihood(nn.Module):
    """Each pixel is x̂ + σε, ε ~ N(0, 1), with one σ for all pixels: learned, or fixed.

    For fixed reconstructions the best σ² is their mean squared error: ∂/∂σ Σ[(x − x̂)²/(2σ²) + ln σ] = 0 at
    σ² = mean (x − x̂)². So a learned σ finds by itself how much an error weighs against the KL divergence, for which a
    fixed one (or β = σ², up to a factor) must be tuned.

    Args:
        sigma: σ > 0 to keep, or None to learn it.
        start: where a learned σ begins.
        squash: x̂ = σ(a), within (0, 1) as images are; False for x̂ = a, for data that have no bounds.

    Raises:
        ValueError: sigma or start is not positive.

    Source: Kingma & Welling (2013), appendix C.2; Rybkin et al., *Simple and Effective VAE Training with Calibrated
    Decoders* (2021), for one learned σ.
    """

    def __init__(self, sigma: float | None = None, start: float = 0.3, squash: bool = True) -> None:
        super().__init__()
        for name, value in (("sigma", sigma), ("start", start)):
            if value is not None and not value > 0:
                raise ValueError(f"GaussianLikelihood: expected {name} > 0, got {value}")
        self.squash = squash
        if sigma is None:
            self.log_sigma = nn.Parameter(full((), math.log(start)))
        else:
            self.register_buffer("log_sigma", full((), math.log(sigma)))

    @property
    def sigma(self) -> Tensor:
        """σ, a scalar Tensor."""
        return exp(self.log_sigma)

    def forward(self, a: Tensor) -> Normal:
        """p(x|z) for the decoder's output a of any shape."""
        return Normal(sigmoid(a) if self.squash else a, self.sigma)


_BY_NAME = {"bernoulli": BernoulliLikelihood, "gaussian": GaussianLikelihood}


def made_likelihood(likelihood: str | nn.Module) -> nn.Module:
    """The likelihood of that name, "bernoulli" or "gaussian" (σ learned); a module is what it is.

    Raises:
        ValueError: there is none of that name.
    """
    if not isinstance(likelihood, str):
        return likelihood
    if likelihood not in _BY_NAME:
        raise ValueError(f"expected likelihood to be one of {', '.join(_BY_NAME)}, or a module, got {likelihood!r}")
    return _BY_NAME[likelihood]()

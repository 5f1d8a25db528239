"""The variational autoencoder: an autoencoder whose code is a distribution.

A model of images with a hidden cause: z ~ p(z), x ~ p(x|z). Its likelihood p(x) = ∫ p(x|z) p(z) dz has no formula
when p(x|z) is a network, but for any q(z|x)

    ln p(x) = E_q[ln p(x|z)] − KL(q(z|x) ‖ p(z))  +  KL(q(z|x) ‖ p(z|x))
              └────────────── ELBO ─────────────┘     └─── ≥ 0 ───┘

so the first two terms, which can be computed, are a lower bound. An encoder gives q = N(μ(x), diag σ²(x)); the draw
z = μ + σε, ε ~ N(0, I), moves the randomness out of the way of the gradient; and for p(z) = N(0, I) the divergence is
½ Σ_d (μ_d² + σ_d² − 1 − ln σ_d²). Both terms are *summed* over pixels and over the numbers of the code and averaged
over the images alone: averaged over the pixels as well, one of them would be made that many times weaker.

With k draws there is a tighter bound, the importance-weighted one, with w_i = p(x|z_i) p(z_i)/q(z_i|x):

    L_k = E[ln (1/k) Σ_i w_i],      ELBO = L_1 ≤ L_k ≤ L_{k+1} ≤ ln p(x),      L_k → ln p(x).

Source: Kingma & Welling, *Auto-Encoding Variational Bayes* (2013); Rezende, Mohamed & Wierstra (2014); Burda, Grosse &
Salakhutdinov, *Importance Weighted Autoencoders* (2015); Higgins et al., *β-VAE* (2017); Sohn, Lee & Yan, *Learning
Structured Output Representation using Deep Conditional Generative Models* (2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tinygen import nn
from tinygen.backend import array_module
from tinygen.creation import linspace
from tinygen.distributions import Normal, kl_divergence
from tinygen.models.vae.likelihoods import made_likelihood
from tinygen.models.vae.networks import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder
from tinygen.models.vae.priors import NormalPrior, StandardNormal
from tinygen.nn import functional as F
from tinygen.ops.elementwise import exp
from tinygen.ops.reduction import logsumexp
from tinygen.ops.shape import broadcast_to, cat
from tinygen.random import Generator, randint
from tinygen.recording import no_grad
from tinygen.tensor import Tensor, wrap

_AT_ONCE = 8192  # images decoded together by log_likelihood


class _Draws(NamedTuple):
    """k draws for each image and what the bounds are made of; all (k, N) but kl, which is (N)."""

    log_px: Tensor  # ln p(x|z)
    log_pz: Tensor | None  # ln p(z), where the divergence has no formula or the weights are asked for
    log_qz: Tensor | None  # ln q(z|x)
    kl: Tensor  # KL(q(z|x) ‖ p(z)), by its formula or as the mean of ln q − ln p over the draws


class VAE(nn.Module):
    """L = −E_q[ln p(x|z)] + β·KL(q(z|x) ‖ p(z)): an encoder q(z|x), a decoder p(x|z) and a prior p(z), by the ELBO.

    Args:
        encoder: a module, images (N, *image_shape) → (N, 2·latent), which are μ and log σ² of q(z|x). With ``classes``
            it is called with a second argument, y one-hot (N, classes).
        decoder: a module, codes (N, latent) → a (N, *image_shape), of which ``likelihood`` makes p(x|z). With
            ``classes`` it too gets y.
        image_shape: (C, H, W), or (D,) for data that are no images.
        latent: the number of numbers in a code.
        likelihood: "bernoulli", "gaussian" (σ learned), or a module as in
            :mod:`tinygen.models.vae.likelihoods`, such as ``GaussianLikelihood(sigma=0.1)``.
        beta: β ≥ 0, the weight of the KL divergence in the loss; 1 is the ELBO. More orders the code, less sharpens
            the images. It can be changed while training, to let the divergence in slowly.
        k: draws for each image in a training step. With more than one the loss is −L_k, the importance-weighted bound.
        classes: None, or the number of classes of a conditional model p(x|z, y).
        prior: a module as in :mod:`tinygen.models.vae.priors`; N(0, I) where omitted.

    Raises:
        ValueError: an argument is out of range, or two do not go together.

    Source: Kingma & Welling (2013), eq. 10; Burda et al. (2015), eq. 8, for k > 1.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        image_shape: Sequence[int],
        latent: int,
        likelihood: str | nn.Module = "bernoulli",
        beta: float = 1.0,
        k: int = 1,
        classes: int | None = None,
        prior: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if latent < 1 or k < 1 or beta < 0 or (classes is not None and classes < 1):
            raise ValueError(
                f"VAE: expected latent ≥ 1, k ≥ 1, beta ≥ 0 and classes ≥ 1, got {latent=}, {k=}, {beta=}, {classes=}"
            )
        if k > 1 and beta != 1:
            raise ValueError(f"VAE: beta={beta} does not go with k={k}: the importance-weighted bound has no KL term")
        if classes is not None and not isinstance(prior, (NormalPrior, type(None))):
            raise ValueError("VAE: prior: a conditional model (classes=...) takes the prior N(0, I) only")
        self.encoder, self.decoder = encoder, decoder
        self.image_shape, self.latent = tuple(image_shape), latent
        self.p_x, self.prior = made_likelihood(likelihood), NormalPrior(latent) if prior is None else prior
        self.beta, self.k, self.classes = beta, k, classes

    # -- the two halves

    def encode(self, x: Tensor, y: Any = None) -> Normal:
        """q(z|x) = N(μ(x), diag σ²(x)), σ = exp(½ log σ²): images (N, *image_shape) → batch_shape (N, latent).

        Args:
            y: the classes, an int or integers (N), where the model is conditional.

        Raises:
            ValueError: the images have another shape; y is missing, or given where there are no classes.
        """
        if x.shape[1:] != self.image_shape or x.ndim != len(self.image_shape) + 1:
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(f"{type(self).__name__}: expected images of shape (N, {expected}), got {x.shape}")
        μ, log_var = self.encoder(x, *self._one_hot(y, x)).chunk(2, 1)
        return Normal(μ, exp(0.5 * log_var))

    def likelihood(self, z: Tensor, y: Any = None) -> Any:
        """p(x|z), a distribution of batch_shape (N, *image_shape), for codes (N, latent).

        Raises:
            ValueError: the codes have another length; y is missing, or given where there are no classes.
        """
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"{type(self).__name__}: expected codes of shape (N, {self.latent}), got {z.shape}")
        return self.p_x(self.decoder(z, *self._one_hot(y, z)))

    def decode(self, z: Tensor, y: Any = None) -> Tensor:
        """x̂ = E[x|z], the mean of p(x|z), in (0, 1): codes (N, latent) → (N, *image_shape)."""
        return self.likelihood(z, y).mean

    def forward(self, x: Tensor, y: Any = None) -> Tensor:
        """x̂ from the mean code μ(x): the reconstruction, (N, *image_shape)."""
        return self.decode(self.encode(x, y).mean, y)

    def _one_hot(self, y: Any, like: Tensor) -> tuple[Tensor, ...]:
        """The second argument of the networks, if there is one: y (N) → the rows e_y (N, classes)."""
        who, n = type(self).__name__, like.shape[0]
        if self.classes is None:
            if y is not None:
                raise ValueError(f"{who}: y was given, but the model is not conditional; make it with classes=...")
            return ()
        if y is None:
            raise ValueError(f"{who}: y is missing: this model is conditional on one of {self.classes} classes")
        if isinstance(y, int):
            if not 0 <= y < self.classes:
                raise ValueError(f"{who}: expected a class y in 0..{self.classes - 1}, got {y}")
            y = wrap(array_module(like.data).full(n, y, dtype="int64"))
        if y.shape != (n,):
            raise ValueError(f"{who}: expected y of shape ({n},), a class for each image, got {y.shape}")
        return (F.one_hot(y, self.classes).to(like.dtype),)

    # -- the bounds

    def _draw(self, x: Tensor, y: Any, k: int, rng: Generator | None, weights: bool) -> _Draws:
        """k draws z ~ q(z|x) for each image, and their densities."""
        if k < 1:
            raise ValueError(f"{type(self).__name__}: expected at least one draw, got k={k}")
        n = x.shape[0]
        q = self.encode(x, y)
        z = q.rsample((k,), rng)
        repeated = broadcast_to(y, (k, n)).flatten() if isinstance(y, Tensor) else y
        p_x = self.likelihood(z.flatten(0, 1), repeated)
        each = broadcast_to(x, (k, *x.shape)).flatten(0, 1)
        log_px = p_x.log_prob(each).flatten(1).sum(1).unflatten(0, (k, n))
        p_z = self.prior(self.encode)
        known = isinstance(p_z, StandardNormal)
        log_pz = log_qz = None
        if weights or not known:
            log_pz, log_qz = p_z.log_prob(z), q.log_prob(z).sum(-1)
        if known:
            kl = kl_divergence(q, p_z.one).sum(1)
        else:
            kl = (log_qz - log_pz).mean(0)  # type: ignore[operator]
        return _Draws(log_px, log_pz, log_qz, kl)

    def elbo(self, x: Tensor, y: Any = None, k: int = 1, rng: Generator | None = None) -> tuple[Tensor, Tensor]:
        """The two parts of ELBO = −(reconstruction + kl), in nats for each image, with k draws to average.

        reconstruction = −E_q[ln p(x|z)], summed over pixels; kl = KL(q(z|x) ‖ p(z)), summed over the code.

        Shapes: images (N, *image_shape) → (N), (N).

        Source: Kingma & Welling (2013), eq. 3 and 10.
        """
        drawn = self._draw(x, y, k, rng, weights=False)
        return -drawn.log_px.mean(0), drawn.kl

    def iwae(self, x: Tensor, y: Any = None, k: int = 5, rng: Generator | None = None) -> Tensor:
        """L_k = ln (1/k) Σ_i p(x|z_i) p(z_i)/q(z_i|x) with k draws, in nats for each image: (N, *image_shape) → (N).

        Source: Burda et al. (2015), eq. 8.
        """
        return self._bound(self._draw(x, y, k, rng, weights=True))

    @staticmethod
    def _bound(drawn: _Draws) -> Tensor:
        log_w = drawn.log_px + drawn.log_pz - drawn.log_qz
        return logsumexp(log_w, 0) - math.log(log_w.shape[0])

    def training_step(self, x: Tensor, y: Any = None, rng: Generator | None = None) -> dict[str, Tensor]:
        """What to minimise on a batch, and its parts, averaged over the images, in nats per image.

        Args:
            x: images (N, *image_shape), values in [0, 1].
            y: their classes (N), where the model is conditional.
            rng: what draws ε.

        Returns:
            "loss" = reconstruction + β·kl, or −L_k for k > 1; "reconstruction" and "kl" as in :meth:`elbo`, detached.
        """
        drawn = self._draw(x, y, self.k, rng, weights=self.k > 1)
        reconstruction, kl = -drawn.log_px.mean(), drawn.kl.mean()
        loss = -self._bound(drawn).mean() if self.k > 1 else reconstruction + self.beta * kl
        return {"loss": loss, "reconstruction": reconstruction.detach(), "kl": kl.detach()}

    @no_grad()
    def log_likelihood(
        self, x: Tensor, n_samples: int = 100, y: Any = None, rng: Generator | None = None
    ) -> Tensor:
        """ln p(x) ≈ L_k with k = n_samples, by importance sampling, in nats for each image: (N, *image_shape) → (N).

        A lower bound in expectation, which more samples tighten; 5,000 are usual for figures to be compared. With
        the Bernoulli likelihood and grey images it is no log-density (see there).

        Raises:
            ValueError: n_samples < 1.

        Source: Burda et al. (2015), §5 and eq. 8; Rezende et al. (2014), appendix E.
        """
        if n_samples < 1:
            raise ValueError(f"log_likelihood: expected n_samples ≥ 1, got {n_samples}")
        chunk = max(1, _AT_ONCE // max(1, x.shape[0]))
        log_w = []
        for begin in range(0, n_samples, chunk):
            drawn = self._draw(x, y, min(chunk, n_samples - begin), rng, weights=True)
            log_w.append(drawn.log_px + drawn.log_pz - drawn.log_qz)
        return logsumexp(cat(log_w), 0) - math.log(n_samples)

    # -- what the model is good for

    @no_grad()
    def sample(self, n: int, y: Any = None, rng: Generator | None = None) -> Tensor:
        """n images x̂ = E[x|z] of codes z ~ p(z): (n, *image_shape), values in (0, 1).

        The mean of p(x|z), and not a draw from it: a draw would add noise that is independent from pixel to pixel.

        Args:
            y: for a conditional model the class, an int or integers (n); where omitted, classes are drawn, all equally
                likely.

        Raises:
            ValueError: y is given, and the model is not conditional, or of another shape.
        """
        z = self.prior(self.encode).sample((n,), rng)
        if y is None and self.classes is not None:
            y = randint(self.classes, size=(n,), rng=rng, device=z.device)
        return self.decode(z, y)

    @no_grad()
    def reconstruction_error(self, x: Tensor, y: Any = None) -> Tensor:
        """‖x − x̂‖² / pixels for each image, x̂ of the mean code: (N, *image_shape) → (N)."""
        difference = (self(x, y) - x).flatten(1)
        return (difference * difference).mean(1)

    @no_grad()
    def activity(self, x: Tensor, y: Any = None) -> Tensor:
        """A_d = Var_x(E_q[z_d]): how much the mean of each number of the code varies from image to image, (latent).

        What is not used stays at its prior: μ_d(x) = 0 for every x, and A_d = 0.

        Source: Burda et al. (2015), §5.2.
        """
        return self.encode(x, y).mean.var(0, correction=0)

    def active_units(self, x: Tensor, y: Any = None, threshold: float = 0.01) -> int:
        """How many numbers of the code have A_d > threshold over the images x. Source: Burda et al. (2015), §5.2."""
        return int((self.activity(x, y) > threshold).sum().item())

    @no_grad()
    def path(self, a: Tensor, b: Tensor, steps: int = 11, y: Any = None) -> tuple[Tensor, Tensor]:
        """The images on the straight line between the mean codes of two images, and how far each is from the last.

        z_j = (1 − t_j) μ(a) + t_j μ(b),  t_j = j/(steps − 1),  d_j = ‖x̂_j − x̂_{j−1}‖.

        Args:
            a, b: two images, (C, H, W).
            y: the class of all of them, an int, where the model is conditional.

        Returns:
            The images (steps, C, H, W) and the distances d (steps − 1).

        Raises:
            ValueError: steps < 2.
        """
        if steps < 2:
            raise ValueError(f"path: expected steps ≥ 2, got {steps}")
        start, end = self.encode(a.unsqueeze(0), y).mean, self.encode(b.unsqueeze(0), y).mean
        t = linspace(0, 1, steps, dtype=start.dtype, device=start.device).unsqueeze(1)
        images = self.decode((1 - t) * start + t * end, y)
        flat = images.flatten(1)
        return images, (flat[1:] - flat[:-1]).norm(dim=1)


class DenseVAE(VAE):
    """h_k = SiLU(W_k h_{k−1} + b_k): a VAE of dense layers, the decoder the encoder's mirror image.

    Args:
        image_shape, widths, latent, rng: as in :class:`DenseEncoder`.
        likelihood, beta, k, classes, prior: as in :class:`VAE`.

    Raises:
        ValueError: as :class:`DenseEncoder` and :class:`VAE`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (256, 256),
        latent: int = 16,
        likelihood: str | nn.Module = "bernoulli",
        beta: float = 1.0,
        k: int = 1,
        classes: int | None = None,
        prior: nn.Module | None = None,
        rng: Generator | None = None,
    ) -> None:
        encoder = DenseEncoder(image_shape, widths, latent, classes or 0, rng)
        decoder = DenseDecoder(image_shape, widths, latent, classes or 0, rng)
        super().__init__(encoder, decoder, image_shape, latent, likelihood, beta, k, classes, prior)


class ConvVAE(VAE):
    """h_k = SiLU(w_k ⋆ h_{k−1} + b_k): a VAE of convolutions of stride 2 and a dense layer, for images of any size.

    Args:
        image_shape, widths, latent, hidden, rng: as in :class:`ConvEncoder`.
        likelihood, beta, k, classes, prior: as in :class:`VAE`.

    Raises:
        ValueError: as :class:`ConvEncoder` and :class:`VAE`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (32, 64),
        latent: int = 16,
        likelihood: str | nn.Module = "bernoulli",
        beta: float = 1.0,
        k: int = 1,
        classes: int | None = None,
        prior: nn.Module | None = None,
        rng: Generator | None = None,
        hidden: int = 128,
    ) -> None:
        encoder = ConvEncoder(image_shape, widths, latent, classes or 0, rng, hidden)
        decoder = ConvDecoder(image_shape, widths, latent, classes or 0, rng, hidden)
        super().__init__(encoder, decoder, image_shape, latent, likelihood, beta, k, classes, prior)

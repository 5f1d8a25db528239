"""The VQ-VAE: an autoencoder whose code is a small picture of symbols from a learned alphabet.

The encoder makes a map of vectors z_e (D, h, w), each is replaced by the nearest of K codes, and the decoder rebuilds
the image from these:

    L = −ln p(x|z_q) + Σ_hw [ ‖sg[z_e] − e‖² + β‖z_e − sg[e]‖² ],       averaged over the images.

With q(z|x) a certainty and a uniform prior the divergence is a constant, h·w·ln K, and leaves the loss. What was
learned is an alphabet; to draw new images one needs to know which words are written with it, and a prior over the rows
of h·w codes is fitted to the codes of the images.

Source: van den Oord, Vinyals & Kavukcuoglu, *Neural Discrete Representation Learning* (2017), eq. 3 and §3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygen import nn
from tinygen.models.vae.autoregressive import CodePrior
from tinygen.models.vae.likelihoods import made_likelihood
from tinygen.models.vae.networks import doublings, halved, halvings
from tinygen.models.vae.quantizer import VectorQuantizer, perplexity
from tinygen.random import Generator
from tinygen.ranks import whole
from tinygen.recording import no_grad
from tinygen.tensor import Tensor, wrap


class VQVAE(nn.Module):
    """L = −ln p(x|z_q) + Σ_hw [‖sg[z_e] − e‖² + β‖z_e − sg[e]‖²]: encoder, codebook, decoder, a prior over the codes.

    Args:
        encoder: a module, images (N, *image_shape) → vectors (N, D, h, w).
        decoder: a module, vectors (N, D, h, w) → a (N, *image_shape), of which ``likelihood`` makes p(x|z).
        quantizer: the codebook of K vectors of D numbers.
        prior: a distribution of the h·w codes, row by row.
        image_shape: (C, H, W).
        code_shape: (h, w).
        likelihood: as in :class:`tinygen.models.VAE`.
        commitment: β ≥ 0.

    Raises:
        ValueError: an argument is out of range, or two do not go together.

    Source: van den Oord et al. (2017), eq. 3.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        quantizer: VectorQuantizer,
        prior: CodePrior,
        image_shape: Sequence[int],
        code_shape: Sequence[int],
        likelihood: str | nn.Module = "bernoulli",
        commitment: float = 0.25,
    ) -> None:
        super().__init__()
        if commitment < 0:
            raise ValueError(f"VQVAE: expected commitment ≥ 0, got {commitment}")
        h, w = code_shape
        if (prior.length, prior.codes) != (h * w, quantizer.codes):
            raise ValueError(
                f"VQVAE: the prior is of {prior.length} codes out of {prior.codes}, the maps are of {h}×{w} = {h * w} "
                f"codes out of {quantizer.codes}"
            )
        self.encoder, self.decoder, self.quantizer, self.prior = encoder, decoder, quantizer, prior
        self.p_x = made_likelihood(likelihood)
        self.image_shape, self.code_shape, self.commitment = tuple(image_shape), (h, w), commitment

    def encode(self, x: Tensor) -> Tensor:
        """z_e, the vectors before they are replaced: images (N, *image_shape) → (N, h, w, D).

        Raises:
            ValueError: the images have another shape.
        """
        if x.shape[1:] != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(f"{type(self).__name__}: expected images of shape (N, {expected}), got {x.shape}")
        return self.encoder(x).permute(0, 2, 3, 1)

    @no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """k, the map of code numbers: images (N, *image_shape) → int64 (N, h, w)."""
        return self.quantizer.nearest(self.encode(x))

    def likelihood(self, z: Tensor) -> Any:
        """p(x|z), of batch_shape (N, *image_shape), for vectors (N, h, w, D)."""
        return self.p_x(self.decoder(z.permute(0, 3, 1, 2)))

    def decode(self, codes: Tensor) -> Tensor:
        """x̂ = E[x|e_k], in (0, 1): int64 (N, h, w) → (N, *image_shape).

        Raises:
            ValueError: the maps have another shape.
            IndexError: (on the CPU) there is no such code.
        """
        if codes.shape[1:] != self.code_shape:
            h, w = self.code_shape
            raise ValueError(f"{type(self).__name__}: expected codes of shape (N, {h}, {w}), got {codes.shape}")
        return self.likelihood(self.quantizer.lookup(codes)).mean

    def forward(self, x: Tensor) -> Tensor:
        """x̂ = decode(codes(x)), the reconstruction, differentiable straight through: (N, *image_shape)."""
        return self.likelihood(self.quantizer(self.encode(x)).z_q).mean

    def training_step(self, x: Tensor, y: None = None, rng: Generator | None = None) -> dict[str, Tensor]:
        """What to minimise on a batch, and its parts, summed over pixels and codes and averaged over the images.

        The prior learns in the same step: codes are whole numbers, so its loss sends no gradient to the encoder.
        A codebook kept by running averages is updated here, while ``training``.

        Args:
            x: images (N, *image_shape), values in [0, 1].
            y: None; this model is told no classes.
            rng: what picks the vectors at which unused codes begin anew.

        Returns:
            "loss" = reconstruction + codebook + β·commitment + prior; these parts, detached; and "perplexity", how
            many codes the batch uses (see :func:`perplexity`).

        Raises:
            ValueError: y is given, or the images have another shape.
        """
        if y is not None:
            raise ValueError(f"{type(self).__name__}: y was given, but this model is told no classes")
        z = self.encode(x)
        q = self.quantizer(z)
        n = x.shape[0]
        reconstruction = -self.likelihood(q.z_q).log_prob(x).sum() / n
        codebook, commitment = q.codebook.sum() / n, q.commitment.sum() / n
        prior = -self.prior.log_prob(q.codes.flatten(1)).mean()
        if self.training and self.quantizer.decay is not None:
            self.quantizer.update(z, q.codes, rng)
        return {
            "loss": reconstruction + codebook + self.commitment * commitment + prior,
            "reconstruction": reconstruction.detach(),
            "codebook": codebook.detach(),
            "commitment": commitment.detach(),
            "prior": prior.detach(),
            "perplexity": perplexity(wrap(whole(q.codes.data)), self.quantizer.codes),
        }

    @no_grad()
    def sample(self, n: int, y: None = None, rng: Generator | None = None) -> Tensor:
        """n images x̂ of maps of codes that the prior draws: (n, *image_shape), values in (0, 1).

        Raises:
            ValueError: y is given: this model is told no classes.
        """
        if y is not None:
            raise ValueError(f"{type(self).__name__}: y was given, but this model is told no classes")
        return self.decode(self.prior.sample(n, rng).unflatten(1, self.code_shape))

    @no_grad()
    def reconstruction_error(self, x: Tensor) -> Tensor:
        """‖x − x̂‖² / pixels for each image: (N, *image_shape) → (N)."""
        difference = (self(x) - x).flatten(1)
        return (difference * difference).mean(1)


class ConvVQVAE(VQVAE):
    """z_e = conv(x), â = convᵀ(z_q): a VQ-VAE of convolutions of stride 2, for images of any size.

    Args:
        image_shape: (C, H, W), any size that can be halved so often.
        widths: channels after each halving; a map of codes has ⌈H/2^K⌉ × ⌈W/2^K⌉ of them.
        codes, dim, decay: as in :class:`VectorQuantizer`.
        likelihood, commitment: as in :class:`VQVAE`.
        rng: what draws the initial weights.

    Raises:
        ValueError: as :class:`VectorQuantizer` and :class:`VQVAE`; the image is too small.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (32,),
        codes: int = 64,
        dim: int = 8,
        decay: float | None = 0.95,
        likelihood: str | nn.Module = "bernoulli",
        commitment: float = 0.25,
        rng: Generator | None = None,
    ) -> None:
        c, h, w = image_shape
        if not widths or min(widths) < 1:
            raise ValueError(f"ConvVQVAE: expected positive widths, got {tuple(widths)}")
        sizes = halved((h, w), len(widths))
        encoder = nn.Sequential(
            *halvings([c, *widths], rng),
            nn.Conv2d(widths[-1], widths[-1], 3, padding=1, rng=rng),
            nn.SiLU(),
            nn.Conv2d(widths[-1], dim, 1, rng=rng),
        )
        decoder = nn.Sequential(
            nn.Conv2d(dim, widths[-1], 3, padding=1, rng=rng),
            nn.SiLU(),
            nn.Conv2d(widths[-1], widths[-1], 3, padding=1, rng=rng),
            nn.SiLU(),
            *doublings([c, *widths], sizes, rng),
        )
        hc, wc = sizes[-1]
        super().__init__(
            encoder,
            decoder,
            VectorQuantizer(codes, dim, decay, rng),
            CodePrior(hc * wc, codes, rng=rng),
            image_shape,
            (hc, wc),
            likelihood,
            commitment,
        )

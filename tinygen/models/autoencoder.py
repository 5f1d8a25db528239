"""Autoencoders: a narrow way through which an image must pass, and come out again.

An encoder f maps an image x to a code z of fewer numbers, a decoder h maps the code back:

    z = f(x),    x̂ = σ(h(z)),    L = −Σ_pixels [ x ln x̂ + (1 − x) ln(1 − x̂) ],    averaged over the images.

L is the cross-entropy between the grey value x ∈ [0, 1], read as a probability of ink, and x̂. It is least where
x̂ = x, and with a ≡ h(z) its derivative is ∂L/∂a = x̂ − x: the error itself, however wrong the network is, where a
squared error behind a sigmoid would have the factor x̂(1 − x̂) that vanishes when it is most needed.

What is too narrow to copy must be told by its regularities. So the code serves to rebuild, to clean (train on
spoiled images), to group (similar images have similar codes) and to warn (what was never seen is rebuilt badly).
What an autoencoder does not have is a distribution over codes: which z makes an image is unknown, and
between two good codes may lie one that makes none. The variational autoencoder is the answer to that.

Source: Hinton & Salakhutdinov, *Reducing the Dimensionality of Data with Neural Networks* (2006); Bengio et al.,
*Greedy Layer-Wise Training of Deep Networks* (2007); Vincent et al. (2008, 2010).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from tinygen import nn
from tinygen.backend import array_module
from tinygen.creation import eye, linspace, zeros
from tinygen.models.corruption import corrupt
from tinygen.nn import functional as F
from tinygen.ops.collective import all_sum
from tinygen.ops.elementwise import clamp, sigmoid
from tinygen.optim import Adam
from tinygen.random import Generator, randn
from tinygen.ranks import parts_of
from tinygen.recording import no_grad
from tinygen.tensor import Tensor, wrap


class Autoencoder(nn.Module):
    """An encoder and a decoder with a code of ``latent`` numbers between them.

    Args:
        encoder: a module, images (N, *image_shape) → codes (N, latent).
        decoder: a module, codes (N, latent) → logits a (N, *image_shape), with x̂ = σ(a).
        image_shape: (C, H, W).
        latent: the number of numbers in a code.
        noise: None, or the ``(kind, amount)`` of the corruption that training adds to its input (denoising).

    Raises:
        ValueError (when called): the images are not of shape (N, *image_shape).

    Source: Hinton & Salakhutdinov (2006).
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        image_shape: Sequence[int],
        latent: int,
        noise: tuple[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.image_shape, self.latent, self.noise = tuple(image_shape), latent, noise
        # The Gaussian that fit_codes puts around the codes: N(μ, ΛΛᵀ), Λ lower triangular.
        self.register_buffer("code_mean", zeros(latent))
        self.register_buffer("code_scale", eye(latent))

    def encode(self, x: Tensor) -> Tensor:
        """z = f(x): images (N, *image_shape) → codes (N, latent).

        Raises:
            ValueError: the images have another shape.
        """
        if x.shape[1:] != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(f"{type(self).__name__}: expected images of shape (N, {expected}), got {x.shape}")
        return self.encoder(x)

    def logits(self, z: Tensor) -> Tensor:
        """a = h(z), of which x̂ is the sigmoid: codes (N, latent) → (N, *image_shape).

        Raises:
            ValueError: the codes have another length.
        """
        if z.shape[1:] != (self.latent,):
            raise ValueError(f"{type(self).__name__}: expected codes of shape (N, {self.latent}), got {z.shape}")
        return self.decoder(z)

    def decode(self, z: Tensor) -> Tensor:
        """x̂ = σ(h(z)), images with values in (0, 1): codes (N, latent) → (N, *image_shape)."""
        return sigmoid(self.logits(z))

    def forward(self, x: Tensor) -> Tensor:
        """x̂ = σ(h(f(x))): what comes out at the other end."""
        return self.decode(self.encode(x))

    def loss(self, x: Tensor, seen: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """L = −Σ_pixels [x ln x̂ + (1 − x) ln(1 − x̂)], averaged over the images, in nats per image.

        Computed from the logits a, as max(a, 0) − a·x + ln(1 + e^(−|a|)), which no a overflows.

        Args:
            x: the images wanted, (N, *image_shape), values in [0, 1].
            seen: the images shown to the encoder; x itself where omitted.
            weight: how much each image counts, (N), values in [0, 1]: a 0 leaves it out. All 1 where omitted.
        """
        a = self.logits(self.encode(x if seen is None else seen))
        if weight is None:
            return F.binary_cross_entropy_with_logits(a, x, reduction="sum") / x.shape[0]
        each = weight.reshape(-1, *[1] * len(self.image_shape))
        total = F.binary_cross_entropy_with_logits(a, x, weight=each, reduction="sum")
        if (shared := parts_of(x.shape[0])) is None:
            return total / clamp(weight.sum(), 1.0)
        # Σ over the whole batch of what counts; the mean of the parts' losses is then the batch's.
        return total * shared[1] / clamp(all_sum(weight.sum(), shared[0]), 1.0)

    def training_step(
        self, x: Tensor, y: None = None, rng: Generator | None = None, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What to minimise on a batch, its input spoiled first where the model has ``noise``: {"loss": L}.

        Args:
            x, weight: as in :meth:`loss`.
            y: None; an autoencoder is told no classes. (Every model's training_step has x, y and rng.)
            rng: what draws the noise.

        Raises:
            ValueError: y is given.
        """
        if y is not None:
            raise ValueError(f"{type(self).__name__}: y was given, but an autoencoder is told no classes")
        return {"loss": self.loss(x, corrupt(x, *self.noise, rng=rng) if self.noise else None, weight)}

    # -- what the code is good for

    @no_grad()
    def reconstruction_error(self, x: Tensor) -> Tensor:
        """‖x − x̂‖² / pixels for each image: how unlike what it was trained on, (N, *image_shape) → (N)."""
        difference = (self(x) - x).flatten(1)
        return (difference * difference).mean(1)

    @no_grad()
    def fit_codes(self, x: Tensor) -> None:
        """Put a Gaussian around the codes of ``x``, for :meth:`sample` to draw from.

        μ = mean z,  ΛΛᵀ = (1/N) Σ (z − μ)(z − μ)ᵀ + 10⁻⁶·I. The autoencoder itself knows no distribution of codes; this
        one is put on afterwards, and fits as well as the codes happen to be Gaussian.

        Raises:
            ValueError: there are fewer than two images.
        """
        if x.shape[0] < 2:
            raise ValueError(f"fit_codes: expected at least two images, got {x.shape[0]}")
        z = self.encode(x)
        mean = z.mean(0)
        centred = z - mean
        covariance = centred.mT @ centred / z.shape[0] + 1e-6 * eye(self.latent, dtype=z.dtype, device=z.device)
        self.code_mean.copy_(mean)
        self.code_scale.copy_(wrap(array_module(covariance.data).linalg.cholesky(covariance.data)))

    @no_grad()
    def sample(self, n: int, rng: Generator | None = None) -> Tensor:
        """n images decoded from z = μ + Λε, ε ~ N(0, I), with the Gaussian of :meth:`fit_codes`."""
        mean = self.code_mean
        epsilon = randn(n, self.latent, rng=rng, dtype=mean.dtype, device=mean.device)
        return self.decode(mean + epsilon @ self.code_scale.mT)

    @no_grad()
    def path(self, a: Tensor, b: Tensor, steps: int = 11) -> tuple[Tensor, Tensor]:
        """The images on the straight line between the codes of two images, and how far each is from the last.

        z_k = (1 − t_k) f(a) + t_k f(b),  t_k = k/(steps − 1),  d_k = ‖x̂_k − x̂_{k−1}‖.

        Equal steps of the code do not make equal steps of the image; max d / mean d says how unequal they are (1:
        perfectly even).

        Args:
            a, b: two images, (C, H, W).

        Returns:
            The images (steps, C, H, W) and the distances d (steps − 1).

        Raises:
            ValueError: steps < 2.
        """
        if steps < 2:
            raise ValueError(f"path: expected steps ≥ 2, got {steps}")
        start, end = self.encode(a.unsqueeze(0)), self.encode(b.unsqueeze(0))
        t = linspace(0, 1, steps, dtype=start.dtype, device=start.device).unsqueeze(1)
        images = self.decode((1 - t) * start + t * end)
        flat = images.flatten(1)
        return images, (flat[1:] - flat[:-1]).norm(dim=1)


# ---------------------------------------------------------------------------------------------- dense


class StackedAutoencoder(Autoencoder):
    """Dense layers that narrow to the code, and their mirror image that widens again.

    With widths w₁ … w_K, h₀ = x and h_k = φ(W_k h_{k−1} + b_k), φ = ReLU but for the code h_K = z, which is linear; the
    decoder runs the same widths backwards.

    Args:
        image_shape: (C, H, W).
        widths: the layers' widths, the code's last.
        noise: as in :class:`Autoencoder`.
        rng: what draws the initial weights.

    Raises:
        ValueError: there are no widths, or one is not positive.

    Source: Hinton & Salakhutdinov (2006), fig. 1.
    """

    encoder: nn.Sequential
    decoder: nn.Sequential

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (128, 64, 8),
        noise: tuple[str, float] | None = None,
        rng: Generator | None = None,
    ) -> None:
        if not widths or min(widths) < 1:
            raise ValueError(f"{type(self).__name__}: expected positive widths, got {tuple(widths)}")
        sizes = [math.prod(image_shape), *widths]
        down: list[nn.Module] = [nn.Flatten()]
        up: list[nn.Module] = []
        for n, m in zip(sizes[:-1], sizes[1:], strict=True):
            down += [nn.Linear(n, m, rng=rng), nn.ReLU()]
            up[:0] = [nn.Linear(m, n, rng=rng), nn.ReLU()]
        encoder = nn.Sequential(*down[:-1])
        decoder = nn.Sequential(*up[:-1], nn.Unflatten(1, tuple(image_shape)))
        super().__init__(encoder, decoder, image_shape, widths[-1], noise)

    @property
    def depth(self) -> int:
        """K, the number of layers from the image to the code."""
        return len(self.encoder) // 2

    def codes(self, x: Tensor, k: int) -> Tensor:
        """h_k, what the k-th layer makes of the images; h₀ is the flattened image."""
        return self.encoder[: 2 * k + 1](x) if k < self.depth else self.encoder(x)

    def stage_loss(self, x: Tensor, k: int) -> Tensor:
        """How badly layer k alone and its mirror image rebuild h_{k−1}: the loss of greedy pre-training.

        The cross-entropy of the images for k = 1; for the layers above ‖h_{k−1} − ĥ_{k−1}‖², averaged over the images.
        Gradients stop at h_{k−1}: the layers below stay as they are.
        """
        h = self.codes(x, k - 1).detach()
        code = self.encoder[2 * k - 1](h)
        if k < self.depth:
            code = F.relu(code)
        rebuilt = self.decoder[2 * (self.depth - k)](code)
        if k == 1:
            return F.binary_cross_entropy_with_logits(rebuilt, h, reduction="sum") / x.shape[0]
        return F.mse_loss(F.relu(rebuilt), h, reduction="sum") / x.shape[0]

    def stage_parameters(self, k: int) -> list[nn.Parameter]:
        """The parameters of layer k and of its mirror image."""
        return [*self.encoder[2 * k - 1].parameters(), *self.decoder[2 * (self.depth - k)].parameters()]


class DenseAutoencoder(StackedAutoencoder):
    """The plain autoencoder: one hidden layer, the code itself.

    z = W x + b,  x̂ = σ(W' z + b'). With a linear decoder and squared error its code would span the principal
    components (Baldi & Hornik 1989).

    Args:
        image_shape: (C, H, W).
        latent: the code's length.
        noise, rng: as in :class:`StackedAutoencoder`.

    Raises:
        ValueError: latent is not positive.

    Source: Rumelhart, Hinton & Williams (1986).
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent: int = 32,
        noise: tuple[str, float] | None = None,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(image_shape, (latent,), noise, rng)


def pretrain_greedily(
    model: StackedAutoencoder,
    batches: Iterator[Tensor],
    steps: int = 200,
    lr: float = 1e-3,
    report: Callable[[int, int, Tensor], None] | None = None,
) -> list[float]:
    """Train a stack from the image upwards, layer by layer, each to rebuild what the layer below hands it.

    For k = 1 … K: minimise ``model.stage_loss(x, k)`` over layer k and its mirror image alone. What comes out is a
    starting point for training the whole, near which a deep stack of saturating layers could be trained at all; with
    ReLU and Adam it is a head start rather than a need.

    Args:
        model: the stack, changed in place.
        batches: an endless iterator of image batches (N, C, H, W).
        steps: Adam steps for each layer.
        lr: Adam's step size.
        report: called as report(k, step, loss) after every step.

    Returns:
        The last loss of each stage.

    Source: Bengio et al. (2007), §2.3 and algorithm 1 (with autoencoders for RBMs: §4).
    """
    last = []
    for k in range(1, model.depth + 1):
        optimizer = Adam(model.stage_parameters(k), lr=lr)
        loss = zeros(())
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            loss = model.stage_loss(next(batches), k)
            loss.backward()
            optimizer.step()
            if report is not None:
                report(k, step, loss.detach())
        last.append(float(loss.item()))
    return last


# -------------------------------------------------------------------------------------- convolutional


class ConvAutoencoder(Autoencoder):
    """h_k = ReLU(w_k ⋆ h_{k−1} + b_k), z = W h_K + b: convolutions halve the image, transposed ones double it again.

    Down, n → ⌈n/2⌉ pixels (3×3, stride 2, padding 1) for each width, then a dense layer to the code. Up the same way
    back, where output_padding is 1 for an even target size and 0 for an odd one, so that any size comes back exactly.

    Args:
        image_shape: (C, H, W).
        widths: channels after each halving.
        latent: the code's length.
        noise: as in :class:`Autoencoder`.
        rng: what draws the initial weights.

    Raises:
        ValueError: the image is too small to be halved that often.

    Source: Masci et al., *Stacked Convolutional Auto-Encoders for Hierarchical Feature Extraction* (2011).
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (16, 32),
        latent: int = 32,
        noise: tuple[str, float] | None = None,
        rng: Generator | None = None,
    ) -> None:
        c, h, w = image_shape
        sizes = [(h, w)]
        for _ in widths:
            h, w = sizes[-1]
            if min(h, w) < 2:
                raise ValueError(f"ConvAutoencoder: {image_shape[1:]} cannot be halved {len(widths)} times")
            sizes.append(((h + 1) // 2, (w + 1) // 2))
        channels = [c, *widths]
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for k, (n, m) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            extra = tuple(1 - size % 2 for size in sizes[k])
            down += [nn.Conv2d(n, m, 3, stride=2, padding=1, rng=rng), nn.ReLU()]
            up[:0] = [nn.ConvTranspose2d(m, n, 3, stride=2, padding=1, output_padding=extra, rng=rng), nn.ReLU()]
        inner = (channels[-1], *sizes[-1])
        encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(math.prod(inner), latent, rng=rng))
        decoder = nn.Sequential(
            nn.Linear(latent, math.prod(inner), rng=rng), nn.ReLU(), nn.Unflatten(1, inner), *up[:-1]
        )
        super().__init__(encoder, decoder, image_shape, latent, noise)

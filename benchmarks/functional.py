"""The four families' losses as functions of a dict of weights: written once for the peers without PyTorch's names.

``F`` is a peer's module (benchmarks/peers/with_*.py), whose functions are that library's own; ``p`` maps the names
of nets.py's weights to that library's arrays. Noise comes from outside, so that a test can give all of them the same.

Which axis has the channels is F's affair: F.per_channel, F.flatten, F.images, F.tokens and F.from_tokens know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Weights = Mapping[str, Any]
Shape = tuple[int, ...]


def layer(p: Weights, name: str) -> tuple[Any, Any]:
    """A layer's weight and bias."""
    return p[f"{name}.weight"], p[f"{name}.bias"]


def dense_autoencoder(F: Any, p: Weights, x: Any) -> Any:
    """784 – 256 – 64 – 20 and back; the mean square error."""
    flat = h = x.reshape(x.shape[0], -1)
    for i in range(0, 12, 2):
        h = F.linear(F.relu(h) if i else h, *layer(p, f"{i}"))
    return F.mean((h - flat) ** 2)


def conv_vae(F: Any, p: Weights, x: Any, ε: Any) -> Any:
    """The negative ELBO: −ln p(x | z) + KL(q(z | x) ‖ p(z)), averaged over the images."""
    n, latent = ε.shape
    h = F.relu(F.conv2d(x, *layer(p, "encoder.0"), stride=2, padding=1))
    h = F.relu(F.conv2d(h, *layer(p, "encoder.2"), stride=2, padding=1))
    h = F.linear(F.flatten(h), *layer(p, "encoder.5"))
    μ, ln_var = h[:, :latent], h[:, latent:]
    y = decoder(F, p, μ + F.exp(0.5 * ln_var) * ε)
    bce = F.softplus(y) - x * y  # = −x ln σ(y) − (1 − x) ln(1 − σ(y))
    kl = 0.5 * (μ**2 + F.exp(ln_var) - 1 - ln_var)
    return (F.sum(bce) + F.sum(kl)) / n


def decoder(F: Any, p: Weights, z: Any) -> Any:
    """The VAE's: codes (n, 20) → logits (n, 1, H, W)."""
    width = p["decoder.3.weight"].shape[0]
    h = F.relu(F.linear(z, *layer(p, "decoder.0")))
    h = F.images(h, width, math.isqrt(h.shape[1] // width))
    h = F.relu(F.conv_transpose2d(h, *layer(p, "decoder.3"), stride=2, padding=1))
    return F.conv_transpose2d(h, *layer(p, "decoder.5"), stride=2, padding=1)


def vae_sample(F: Any, p: Weights, z: Any) -> Any:
    """Images from codes."""
    return F.sigmoid(decoder(F, p, z))


def generator(F: Any, p: Weights, z: Any, train: bool = True) -> Any:
    """z (n, 64) → images (n, 1, H, W) in (−1, 1)."""

    def norm(name: str, h: Any) -> Any:
        γ, β = layer(p, f"generator.{name}")
        if train:  # (running averages are not kept: a little less work than tinygen and PyTorch do)
            return F.batch_norm(h, γ, β)
        scale = γ / F.sqrt(p[f"generator.{name}.running_var"] + 1e-5)
        shift = β - p[f"generator.{name}.running_mean"] * scale
        return h * F.per_channel(scale) + F.per_channel(shift)

    width = p["generator.2.weight"].shape[0]
    h = F.linear(z, *layer(p, "generator.0"))
    h = F.relu(norm("2", F.images(h, width, math.isqrt(h.shape[1] // width))))
    h = F.relu(norm("5", F.conv_transpose2d(h, *layer(p, "generator.4"), stride=2, padding=1)))
    return F.tanh(F.conv_transpose2d(h, *layer(p, "generator.7"), stride=2, padding=1))


def gan_sample(F: Any, p: Weights, z: Any) -> Any:
    """Images, with BatchNorm's running averages."""
    return generator(F, p, z, train=False)


def discriminator(F: Any, p: Weights, x: Any) -> Any:
    """Images (n, 1, H, W) → logits (n, 1)."""
    h = F.leaky_relu(F.conv2d(x, *layer(p, "discriminator.0"), stride=2, padding=1), 0.2)
    h = F.batch_norm(F.conv2d(h, *layer(p, "discriminator.2"), stride=2, padding=1), *layer(p, "discriminator.3"))
    return F.linear(F.flatten(F.leaky_relu(h, 0.2)), *layer(p, "discriminator.6"))


def discriminator_loss(F: Any, p: Weights, x: Any, fake: Any) -> Any:
    """softplus(−D(x)) + softplus(D(G(z))), averaged; the fake images are given."""
    real = F.mean(F.softplus(-discriminator(F, p, 2 * x - 1)))
    return real + F.mean(F.softplus(discriminator(F, p, fake)))


def generator_loss(F: Any, p: Weights, fake: Any) -> Any:
    """softplus(−D(G(z))), averaged; the fake images are given."""
    return F.mean(F.softplus(-discriminator(F, p, fake)))


def ddpm(F: Any, p: Weights, x: Any, ε: Any, A: Any) -> Any:
    """‖ε − ε̂(√A x + √(1−A) ε, 1000 A)‖², averaged."""
    x_t = F.sqrt(A) * (2 * x - 1) + F.sqrt(1 - A) * ε
    return F.mean((unet(F, p, x_t, 1000 * A.reshape(-1)) - ε) ** 2)


def unet(F: Any, p: Weights, x: Any, t: Any) -> Any:
    """x_t (n, 1, H, W), t (n,) → ε̂ (n, 1, H, W)."""

    def conv(name: str, h: Any, stride: int = 1, padding: int = 1) -> Any:
        return F.conv2d(h, *layer(p, name), stride=stride, padding=padding)

    def norm(name: str, h: Any) -> Any:
        return F.group_norm(h, 8, *layer(p, name))

    def linear(name: str, h: Any) -> Any:
        return F.linear(h, *layer(p, name))

    def block(name: str, h: Any, e: Any) -> Any:
        shift = F.per_channel(linear(f"{name}.time", e))
        inner = conv(f"{name}.conv1", F.silu(norm(f"{name}.norm1", h))) + shift
        skip = conv(f"{name}.skip", h, padding=0) if f"{name}.skip.weight" in p else h
        return skip + conv(f"{name}.conv2", F.silu(norm(f"{name}.norm2", inner)))

    def attend(h: Any) -> Any:
        c = p["attend.norm.weight"].shape[0]
        qkv = linear("attend.qkv", F.tokens(norm("attend.norm", h))).reshape(n, -1, 3, 4, c // 4)
        qkv = F.permute(qkv, (2, 0, 3, 1, 4))
        found = F.permute(F.attention(qkv[0], qkv[1], qkv[2]), (0, 2, 1, 3)).reshape(n, -1, c)
        return h + F.from_tokens(linear("attend.out", found), h.shape)

    n, half = x.shape[0], p["first.weight"].shape[1] // 2
    ω = F.array([math.exp(-math.log(10_000) * i / half) for i in range(half)])
    angle = t.reshape(n, 1) * ω.reshape(1, half)
    e = F.silu(linear("second", F.silu(linear("first", F.cat([F.cos(angle), F.sin(angle)])))))
    high = block("high", conv("enter", x), e)
    low = block("middle", attend(block("low", conv("down", high, stride=2), e)), e)
    up = F.conv_transpose2d(low, *layer(p, "up"), stride=2, padding=1)
    return conv("leave", F.silu(norm("norm", block("back", F.cat([up, high]), e))))


def ddim_step(F: Any, p: Weights, x: Any, t: Any) -> Any:
    """One of the fifty steps of the sampling row."""
    return x - 0.01 * unet(F, p, x, t)


LOSSES: dict[str, Callable[..., Any]] = {
    "dense autoencoder": dense_autoencoder, "convolutional VAE": conv_vae, "DDPM U-Net": ddpm,
}
"""The families that descend one loss; DCGAN alternates between two."""

SAMPLERS: dict[str, Callable[..., Any]] = {
    "convolutional VAE": vae_sample, "DCGAN": gan_sample, "DDPM U-Net": ddim_step,
}
"""What makes images, or one step towards them."""


def noise(family: str, x: Shape) -> list[tuple[str, Shape]]:
    """What a training step draws, in order: its distribution and shape."""
    n = x[0]
    return {
        "dense autoencoder": [],
        "convolutional VAE": [("normal", (n, 20))],
        "DCGAN": [("normal", (n, 64))],
        "DDPM U-Net": [("normal", x), ("uniform", (n, 1, 1, 1))],
    }[family]

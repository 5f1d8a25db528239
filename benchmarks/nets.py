"""The four families' networks, each written once: tinygen's names are PyTorch's, so the same lines build both.

``lib`` is the module ``tinygen`` or ``torch``. The peers with other names have theirs in functional.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinygen

LATENT = 20


@dataclass
class Training:
    """A network and its training step.

    Attributes:
        net: whose ``state_dict`` has the weights that the other peers begin with.
        step: (*noise) → the loss, after one update.
        draw: () → the noise of one step.
    """

    net: Any
    step: Callable[..., Any]
    draw: Callable[[], tuple[Any, ...]] = tuple

    def __call__(self) -> Any:
        """One step with new noise."""
        return self.step(*self.draw())


def dense_autoencoder(lib: Any, x: Any, width: int = 256) -> Training:
    """784 – width – 64 – 20 and back; the loss is the mean square error."""
    nn, F = lib.nn, lib.nn.functional
    widths = [x.shape[-1] * x.shape[-2], width, 64, LATENT]
    layers: list[Any] = []
    for a, b in [*zip(widths, widths[1:]), *zip(widths[::-1], widths[-2::-1])]:
        layers += [nn.Linear(a, b), nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    flat = x.reshape(len(x), -1)
    return _trained(lib, net, lambda: F.mse_loss(net(flat), flat))


def conv_vae(lib: Any, x: Any, width: int = 32) -> Training:
    """Two convolutions down, a code of twenty numbers, two transposed convolutions up; the negative ELBO."""
    nn, F = lib.nn, lib.nn.functional
    side = x.shape[-1] // 4
    encoder = nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(2 * width * side * side, 2 * LATENT),
    )
    decoder = nn.Sequential(
        nn.Linear(LATENT, 2 * width * side * side), nn.ReLU(), nn.Unflatten(1, (2 * width, side, side)),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(width, 1, 4, 2, 1),
    )

    def loss(ε: Any) -> Any:
        μ, ln_var = encoder(x).split(LATENT, 1)
        z = μ + (0.5 * ln_var).exp() * ε
        kl = 0.5 * (μ * μ + ln_var.exp() - 1 - ln_var).sum()
        return (F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum") + kl) / len(x)

    net = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    return _trained(lib, net, loss, lambda: (lib.randn(len(x), LATENT),))


def dcgan(lib: Any, x: Any, width: int = 32) -> Training:
    """One step of the discriminator and one of the generator, non-saturating loss, BatchNorm, Adam (0.5, 0.999)."""
    nn, F = lib.nn, lib.nn.functional
    side = x.shape[-1] // 4
    generator = nn.Sequential(
        nn.Linear(64, 2 * width * side * side), nn.Unflatten(1, (2 * width, side, side)), nn.BatchNorm2d(2 * width),
        nn.ReLU(), nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, 2, 1), nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(2 * width * side * side, 1),
    )
    adams = [lib.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (generator, discriminator)]

    def step(z: Any) -> Any:
        real, fake = 2 * x - 1, generator(z)
        loss_d = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake.detach())).mean()
        adams[1].zero_grad()
        loss_d.backward()
        adams[1].step()
        loss_g = F.softplus(-discriminator(fake)).mean()
        adams[0].zero_grad()
        loss_g.backward()
        adams[0].step()
        return loss_g

    net = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    return Training(net, step, lambda: (lib.randn(len(x), 64),))


def ddpm(lib: Any, x: Any, width: int = 32) -> Training:
    """‖ε − ε̂‖² of a two-level U-Net with GroupNorm, SiLU, attention at the lower level and a skip."""
    net = unet(lib, width)
    F = lib.nn.functional

    def loss(ε: Any, A: Any) -> Any:
        x_t = A.sqrt() * (2 * x - 1) + (1 - A).sqrt() * ε
        return F.mse_loss(net(x_t, 1000 * A.reshape(-1)), ε)

    return _trained(lib, net, loss, lambda: (lib.randn(*x.shape), lib.rand(len(x), 1, 1, 1)))


def _trained(lib: Any, net: Any, loss: Callable[..., Any], draw: Callable[[], tuple[Any, ...]] = tuple) -> Training:
    adam = lib.optim.Adam(net.parameters(), lr=1e-3)

    def step(*noise: Any) -> Any:
        L = loss(*noise)
        adam.zero_grad()
        L.backward()
        adam.step()
        return L

    return Training(net, step, draw)


def unet(lib: Any, width: int) -> Any:
    """The denoiser of :func:`ddpm`: net(x_t (N, 1, H, W), t (N)) → (N, 1, H, W), for even H and W."""
    nn, F = lib.nn, lib.nn.functional
    dim = 4 * width

    class Block(nn.Module):
        def __init__(self, c: int, out: int) -> None:
            super().__init__()
            self.norm1, self.conv1 = nn.GroupNorm(8, c), nn.Conv2d(c, out, 3, padding=1)
            self.time = nn.Linear(dim, out)
            self.norm2, self.conv2 = nn.GroupNorm(8, out), nn.Conv2d(out, out, 3, padding=1)
            self.skip = nn.Conv2d(c, out, 1) if c != out else nn.Identity()

        def forward(self, x: Any, e: Any) -> Any:
            h = self.conv1(F.silu(self.norm1(x))) + self.time(e)[:, :, None, None]
            return self.skip(x) + self.conv2(F.silu(self.norm2(h)))

    class Attention(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.norm, self.qkv, self.out = nn.GroupNorm(8, c), nn.Linear(c, 3 * c), nn.Linear(c, c)

        def forward(self, x: Any) -> Any:
            n, c, h, w = x.shape
            tokens = self.norm(x).flatten(2).transpose(1, 2)
            q, k, v = self.qkv(tokens).reshape(n, h * w, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
            found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
            return x + self.out(found).transpose(1, 2).reshape(n, c, h, w)

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            w = width
            self.first, self.second = nn.Linear(w, dim), nn.Linear(dim, dim)
            self.enter, self.high = nn.Conv2d(1, w, 3, padding=1), Block(w, w)
            self.down, self.low = nn.Conv2d(w, w, 3, 2, 1), Block(w, 2 * w)
            self.attend, self.middle = Attention(2 * w), Block(2 * w, 2 * w)
            self.up, self.back = nn.ConvTranspose2d(2 * w, w, 4, 2, 1), Block(2 * w, w)
            self.norm, self.leave = nn.GroupNorm(8, w), nn.Conv2d(w, 1, 3, padding=1)

        def forward(self, x: Any, t: Any) -> Any:
            ω = lib.exp(lib.arange(width // 2) * (-math.log(10_000) / (width // 2)))
            angle = t[:, None] * ω
            e = F.silu(self.second(F.silu(self.first(lib.cat([angle.cos(), angle.sin()], 1)))))
            high = self.high(self.enter(x), e)
            low = self.middle(self.attend(self.low(self.down(high), e)), e)
            return self.leave(F.silu(self.norm(self.back(lib.cat([self.up(low), high], 1), e))))

    return UNet()


FAMILIES: dict[str, Callable[..., Training]] = {
    "dense autoencoder": dense_autoencoder,
    "convolutional VAE": conv_vae,
    "DCGAN": dcgan,
    "DDPM U-Net": ddpm,
}


def width(family: str, weights: Mapping[str, Any]) -> int:
    """The width that a family's weights were made with."""
    first = dict(zip(FAMILIES, ("0", "encoder.0", "discriminator.0", "enter")))[family]
    return int(weights[f"{first}.weight"].shape[0])


def weights(family: str, size: int = 28, width: int | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """Freshly drawn weights, as NumPy arrays under their names, for images (n, 1, size, size)."""
    tinygen.manual_seed(seed)
    options = {} if width is None else {"width": width}
    training = FAMILIES[family](tinygen, tinygen.zeros(1, 1, size, size), **options)
    return {name: np.array(w.numpy()) for name, w in training.net.state_dict().items()}

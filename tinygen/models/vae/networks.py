"""The networks of the variational autoencoders: dense and convolutional.

An encoder takes images (N, *image_shape) and gives (N, 2·latent): μ and log σ² side by side. A decoder takes codes
(N, latent) and gives (N, *image_shape). Where the model is told a class, both get it as a second argument, the rows
y (N, classes) of the identity matrix. Any module that keeps to this can stand in for those of this file.

Source: Kingma & Welling (2013), appendix C, for the dense ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinygen import nn
from tinygen.ops.shape import cat
from tinygen.random import Generator
from tinygen.tensor import Tensor


def _beside(h: Tensor, y: Tensor | None) -> Tensor:
    """[h, y]: what is said of the image or the code, and its class."""
    return h if y is None else cat([h, y], 1)


def _dense(sizes: Sequence[int], rng: Generator | None) -> list[nn.Module]:
    """Linear layers of these sizes with SiLU between them."""
    layers: list[nn.Module] = []
    for n, m in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(n, m, rng=rng), nn.SiLU()]
    return layers[:-1]


def _checked(who: str, image_shape: Sequence[int], widths: Sequence[int], latent: int) -> None:
    if not widths or min(widths) < 1 or latent < 1 or not image_shape or min(image_shape) < 1:
        raise ValueError(
            f"{who}: expected positive sizes, got image_shape={tuple(image_shape)}, widths={tuple(widths)}, "
            f"latent={latent}"
        )


class DenseEncoder(nn.Module):
    """h₀ = [x, y], h_k = SiLU(W_k h_{k−1} + b_k), (μ, log σ²) = W h_K + b.

    Args:
        image_shape: (C, H, W), or (D,) for data that are no images.
        widths: of the layers h₁ … h_K.
        latent: the code's length.
        classes: how many classes y tells apart; 0 where there is no y.
        rng: what draws the initial weights.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (256, 256),
        latent: int = 16,
        classes: int = 0,
        rng: Generator | None = None,
    ) -> None:
        super().__init__()
        _checked("DenseEncoder", image_shape, widths, latent)
        self.layers = nn.Sequential(*_dense([math.prod(image_shape) + classes, *widths, 2 * latent], rng))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (N, *image_shape), y (N, classes) → (N, 2·latent)."""
        return self.layers(_beside(x.flatten(1), y))


class DenseDecoder(nn.Module):
    """a = W h_K + b, h_k = SiLU(W_k h_{k−1} + b_k), h₀ = [z, y]: backwards. Arguments as in :class:`DenseEncoder`."""

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (256, 256),
        latent: int = 16,
        classes: int = 0,
        rng: Generator | None = None,
    ) -> None:
        super().__init__()
        _checked("DenseDecoder", image_shape, widths, latent)
        self.layers = nn.Sequential(*_dense([latent + classes, *widths[::-1], math.prod(image_shape)], rng))
        self.image_shape = tuple(image_shape)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (N, latent), y (N, classes) → (N, *image_shape)."""
        return self.layers(_beside(z, y)).unflatten(1, self.image_shape)


def halved(size: tuple[int, int], times: int) -> list[tuple[int, int]]:
    """The sizes (H, W), ⌈H/2⌉ × ⌈W/2⌉, … of an image halved so many times.

    Raises:
        ValueError: a side of one pixel would be halved.
    """
    sizes = [size]
    for _ in range(times):
        h, w = sizes[-1]
        if min(h, w) < 2:
            raise ValueError(f"an image of {size[0]}×{size[1]} pixels cannot be halved {times} times")
        sizes.append(((h + 1) // 2, (w + 1) // 2))
    return sizes


def halvings(channels: Sequence[int], rng: Generator | None) -> list[nn.Module]:
    """3×3 convolutions of stride 2, n → ⌈n/2⌉ pixels, with SiLU after each."""
    layers: list[nn.Module] = []
    for n, m in zip(channels[:-1], channels[1:], strict=True):
        layers += [nn.Conv2d(n, m, 3, stride=2, padding=1, rng=rng), nn.SiLU()]
    return layers


def doublings(channels: Sequence[int], sizes: Sequence[tuple[int, int]], rng: Generator | None) -> list[nn.Module]:
    """The same way back, by transposed convolutions, SiLU between them; channels and sizes as on the way down.

    output_padding is 1 for an even target size and 0 for an odd one, so that any size comes back exactly.
    """
    layers: list[nn.Module] = []
    for k in reversed(range(len(channels) - 1)):
        extra = tuple(1 - side % 2 for side in sizes[k])
        layers += [
            nn.ConvTranspose2d(channels[k + 1], channels[k], 3, stride=2, padding=1, output_padding=extra, rng=rng),
            nn.SiLU(),
        ]
    return layers[:-1]


class ConvEncoder(nn.Module):
    """h_k = SiLU(w_k ⋆ h_{k−1} + b_k) of stride 2, then (μ, log σ²) = W SiLU(V [h_K, y] + c) + b.

    Args:
        image_shape: (C, H, W), any size that can be halved so often.
        widths: channels after each halving.
        latent, classes, rng: as in :class:`DenseEncoder`.
        hidden: the width of the dense layer.

    Raises:
        ValueError: a size is not positive, or the image is too small.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (32, 64),
        latent: int = 16,
        classes: int = 0,
        rng: Generator | None = None,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        _checked("ConvEncoder", image_shape, widths, latent)
        c, h, w = image_shape
        inner = (widths[-1], *halved((h, w), len(widths))[-1])
        self.down = nn.Sequential(*halvings([c, *widths], rng), nn.Flatten())
        self.layers = nn.Sequential(*_dense([math.prod(inner) + classes, hidden, 2 * latent], rng))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W), y (N, classes) → (N, 2·latent)."""
        return self.layers(_beside(self.down(x), y))


class ConvDecoder(nn.Module):
    """a = w₁ ⋆ᵀ SiLU(… w_K ⋆ᵀ SiLU(W SiLU(V [z, y]))): the same backwards. Arguments as in :class:`ConvEncoder`."""

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (32, 64),
        latent: int = 16,
        classes: int = 0,
        rng: Generator | None = None,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        _checked("ConvDecoder", image_shape, widths, latent)
        c, h, w = image_shape
        sizes = halved((h, w), len(widths))
        inner = (widths[-1], *sizes[-1])
        self.layers = nn.Sequential(
            *_dense([latent + classes, hidden, math.prod(inner)], rng),
            nn.SiLU(),
            nn.Unflatten(1, inner),
            *doublings([c, *widths], sizes, rng),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Codes (N, latent), y (N, classes) → (N, C, H, W)."""
        return self.layers(_beside(z, y))

"""Generators and discriminators: dense ones, and the convolutional ones of DCGAN, for images of any size.

A generator maps noise z (N, latent), and a label where it has classes, to images in [−1, 1]; a discriminator maps
images to one number a each. Any two modules with these calls can play::

    generator(z, y) → (N, *shape)        discriminator(x, y) → (N)        y is None, or labels (N)

How a label gets in. Generator: its first layer adds a learned vector E[y] to W z, which is what W would make of the
label written as a one-hot vector beside z (Mirza & Osindero 2014). Discriminator: by projection (Miyato & Koyama 2018),

    a(x, y) = ⟨w, φ(x)⟩ + b + ⟨V[y], φ(x)⟩,

with φ(x) its last features. This is the form of ln p(x|y)/q(x|y) + ln p(x)/q(x) when ln p(y|x) is linear in φ.

Source: Goodfellow et al. (2014); Radford, Metz & Chintala (2016); Miyato & Koyama (2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinygen import nn
from tinygen.nn import init
from tinygen.nn.utils import spectral_norm
from tinygen.ops.reduction import sum as total
from tinygen.random import Generator
from tinygen.tensor import Tensor

LINEAR = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def init_normal(module: nn.Module, std: float = 0.02, rng: Generator | None = None) -> nn.Module:
    """w ~ N(0, std²), BatchNorm's γ ~ N(1, std²), b = 0, for the whole module, which is returned.

    With layers whose scale BatchNorm sets anyway, small weights make D nearly constant at first, so that neither side
    has a lead. A network without BatchNorm gets almost no signal through weights this small if it is deep.

    Raises:
        ValueError: std < 0.

    Source: Radford, Metz & Chintala (2016), section 4.
    """
    for part in module.modules():
        if isinstance(part, LINEAR + BATCH_NORMS) and part.weight is not None:
            init.normal_(part.weight, 1.0 if isinstance(part, BATCH_NORMS) else 0.0, std, rng=rng)
            if getattr(part, "bias", None) is not None:
                init.zeros_(part.bias)  # type: ignore[arg-type]
    return module


class _Labelled(nn.Module):
    """What all four networks share: the shape of an image, and whether there are classes."""

    def __init__(self, shape: Sequence[int], classes: int | None) -> None:
        super().__init__()
        if not shape or min(shape) < 1:
            raise ValueError(f"{type(self).__name__}: expected a shape of positive lengths, got {tuple(shape)}")
        if classes is not None and classes < 1:
            raise ValueError(f"{type(self).__name__}: expected classes ≥ 1, or None, got {classes}")
        self.shape, self.classes = tuple(shape), classes

    def _check_labels(self, y: Tensor | None) -> None:
        if (y is None) != (self.classes is None):
            wanted = "no labels: it has no classes" if self.classes is None else f"labels 0 … {self.classes - 1}"
            raise ValueError(f"{type(self).__name__} expects {wanted}, got {'labels' if y is not None else 'none'}")


class _Generator(_Labelled):
    """z, y → x = tanh(rest(W z + b + E[y])), values in [−1, 1]."""

    first: nn.Linear
    label: nn.Embedding | None
    rest: nn.Sequential

    def __init__(self, shape: Sequence[int], latent: int, classes: int | None) -> None:
        super().__init__(shape, classes)
        if latent < 1:
            raise ValueError(f"{type(self).__name__}: expected latent ≥ 1, got {latent}")
        self.latent = latent

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise (N, latent), labels (N) or None → images (N, *shape).

        Raises:
            ValueError: z has another length; labels without classes, or classes without labels.
        """
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"{type(self).__name__}: expected noise of shape (N, {self.latent}), got {z.shape}")
        self._check_labels(y)
        h = self.first(z)
        return self.rest(h if self.label is None else h + self.label(y))


class _Discriminator(_Labelled):
    """x, y → a = ⟨w + V[y], φ(x)⟩ + b."""

    features: nn.Sequential
    last: nn.Module
    label: nn.Module | None

    def _finish(self, width: int, spectral: bool, std: float | None, rng: Generator | None) -> None:
        """The layers after φ(x) (N, width); then the start of all weights, and their normalisation."""
        self.last = nn.Linear(width, 1, rng=rng)
        self.label = nn.Embedding(self.classes, width, rng=rng) if self.classes is not None else None
        if std is not None:
            init_normal(self, std, rng)
        if spectral:
            for part in list(self.modules()):
                if isinstance(part, LINEAR):
                    spectral_norm(part, rng=rng)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (N, *shape), labels (N) or None → a (N).

        Raises:
            ValueError: the images have another shape; labels without classes, or classes without labels.
        """
        if x.shape[1:] != self.shape:
            expected = ", ".join(map(str, self.shape))
            raise ValueError(f"{type(self).__name__}: expected images of shape (N, {expected}), got {x.shape}")
        self._check_labels(y)
        φ = self.features(x)
        a = self.last(φ).squeeze(1)
        return a if self.label is None else a + total(self.label(y) * φ, 1)


# ---------------------------------------------------------------------------------------------- dense


class DenseGenerator(_Generator):
    """x̃ = tanh(W h_K + b), h_k = ReLU(W_k h_{k−1} + b_k), h₁ = ReLU(W₁ z + b₁ + E[y]): an image (or array) from noise.

    Args:
        shape: of what is made, such as (C, H, W), or (2,) for points of the plane.
        latent: the number of numbers in z.
        widths: of the hidden layers, at least one.
        classes: how many labels there are; None for no labels.
        bounded: end in tanh; False for data that is not in [−1, 1].
        std: the initial weights' standard deviation (:func:`init_normal`); None keeps nn.Linear's own start.
        rng: what draws the initial weights.

    Raises:
        ValueError: a length is not positive, or there are no widths.

    Source: Goodfellow et al. (2014).
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int = 32,
        widths: Sequence[int] = (128, 128),
        classes: int | None = None,
        bounded: bool = True,
        std: float | None = None,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(shape, latent, classes)
        _check_widths(self, widths)
        self.first = nn.Linear(latent, widths[0], rng=rng)
        self.label = nn.Embedding(classes, widths[0], rng=rng) if classes is not None else None
        layers: list[nn.Module] = [nn.ReLU()]
        for n, m in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(n, m, rng=rng), nn.ReLU()]
        layers += [nn.Linear(widths[-1], math.prod(shape), rng=rng), nn.Unflatten(1, self.shape)]
        self.rest = nn.Sequential(*layers, *([nn.Tanh()] if bounded else []))
        if std is not None:
            init_normal(self, std, rng)


class DenseDiscriminator(_Discriminator):
    """a = ⟨w, h_K⟩ + b + ⟨V[y], h_K⟩, h_k = LeakyReLU(W_k h_{k−1} + b_k), h₀ = x: one number from an image.

    Args:
        shape: of what is judged.
        widths: of the hidden layers, at least one.
        classes, std, rng: as :class:`DenseGenerator`.
        spectral: divide every weight by its largest singular value (:func:`tinygen.nn.utils.spectral_norm`).

    Raises:
        ValueError: a length is not positive, or there are no widths.
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int] = (128, 128),
        classes: int | None = None,
        spectral: bool = False,
        std: float | None = None,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(shape, classes)
        _check_widths(self, widths)
        layers: list[nn.Module] = [nn.Flatten()]
        for n, m in zip([math.prod(shape), *widths[:-1]], widths, strict=True):
            layers += [nn.Linear(n, m, rng=rng), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self._finish(widths[-1], spectral, std, rng)


# -------------------------------------------------------------------------------------- convolutional


def halvings(image_shape: Sequence[int], times: int) -> list[tuple[int, int]]:
    """(H, W) before each halving n → ⌈n/2⌉ and after the last, ``times`` + 1 of them.

    Raises:
        ValueError: the image cannot be halved that often, or is not (C, H, W).
    """
    if len(image_shape) != 3:
        raise ValueError(f"expected an image shape (C, H, W), got {tuple(image_shape)}")
    sizes = [(image_shape[1], image_shape[2])]
    for _ in range(times):
        h, w = sizes[-1]
        if min(h, w) < 2:
            raise ValueError(f"images of {image_shape[1]}×{image_shape[2]} cannot be halved {times} times")
        sizes.append(((h + 1) // 2, (w + 1) // 2))
    return sizes


def kernel(size: tuple[int, int]) -> tuple[int, int]:
    """The window, along each axis, that takes n to ⌈n/2⌉ and back with stride 2 and padding 1: 4 for even n, 3 for odd.

    Down: ⌊(n + 2 − k)/2⌋ + 1, which is n/2 for k = 4 and even n, (n + 1)/2 for k = 3 and odd n. Up from m = ⌈n/2⌉:
    (m − 1)·2 − 2 + k, which is 2m for k = 4 and 2m − 1 for k = 3. A window that the stride divides paints every pixel
    equally often and leaves no checkerboard (Odena et al. 2016), so 4 is used wherever it fits.
    """
    h, w = size
    return 4 - h % 2, 4 - w % 2


class ConvGenerator(_Generator):
    """DCGAN's generator: x̃ = tanh(w_K ⋆ᵀ h_{K−1}), h_k = ReLU(BN(w_k ⋆ᵀ h_{k−1})), h₀ = ReLU(BN(W z + E[y])).

    A dense layer makes a small picture, and transposed convolutions of stride 2 double it.

    Args:
        image_shape: (C, H, W), of any size that can be halved as often as there are widths.
        latent: the number of numbers in z.
        widths: channels after each halving, seen from the image as in :class:`ConvDiscriminator`.
        classes: how many labels there are; None for no labels.
        batch_norm: False leaves BatchNorm out.
        std: of the initial weights, N(0, std²); None keeps the layers' own start.
        rng: what draws the initial weights.

    Raises:
        ValueError: the image is too small to be halved that often, or a length is not positive.

    Source: Radford, Metz & Chintala, *Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks* (2016), section 3 and figure 1.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent: int = 64,
        widths: Sequence[int] = (32, 64),
        classes: int | None = None,
        batch_norm: bool = True,
        std: float | None = 0.02,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(image_shape, latent, classes)
        _check_widths(self, widths)
        sizes = halvings(image_shape, len(widths))
        inner = (widths[-1], *sizes[-1])
        self.first = nn.Linear(latent, math.prod(inner), rng=rng)
        self.label = nn.Embedding(classes, math.prod(inner), rng=rng) if classes is not None else None
        channels = [image_shape[0], *widths]
        layers: list[nn.Module] = [nn.Unflatten(1, inner)]
        for k in reversed(range(len(widths))):
            # BatchNorm subtracts what a bias would add.
            layers += [nn.BatchNorm2d(channels[k + 1])] if batch_norm else []
            layers += [nn.ReLU()]
            bias = k == 0 or not batch_norm
            layers += [nn.ConvTranspose2d(channels[k + 1], channels[k], kernel(sizes[k]), 2, 1, bias=bias, rng=rng)]
        self.rest = nn.Sequential(*layers, nn.Tanh())
        if std is not None:
            init_normal(self, std, rng)


class ConvDiscriminator(_Discriminator):
    """DCGAN's discriminator: a = ⟨w, h_K⟩ + b + ⟨V[y], h_K⟩, h_k = LeakyReLU(w_k ⋆ h_{k−1} + b_k), h₀ = x.

    Convolutions of stride 2 halve the picture, and a dense layer makes one number of what is left.

    Args:
        image_shape: (C, H, W), of any size that can be halved as often as there are widths.
        widths: channels after each halving.
        classes: how many labels there are; None for no labels.
        batch_norm: BatchNorm after each convolution but the first, as DCGAN has it; not with a gradient penalty.
        spectral: divide every weight by its largest singular value.
        std: of the initial weights, N(0, std²); None keeps the layers' own start.
        rng: what draws the initial weights.

    Raises:
        ValueError: the image is too small to be halved that often, or a length is not positive.

    Source: Radford, Metz & Chintala (2016), section 3; Miyato et al., *Spectral Normalization for Generative
    Adversarial Networks* (2018).
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (32, 64),
        classes: int | None = None,
        batch_norm: bool = False,
        spectral: bool = False,
        std: float | None = 0.02,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(image_shape, classes)
        _check_widths(self, widths)
        sizes = halvings(image_shape, len(widths))
        channels = [image_shape[0], *widths]
        layers: list[nn.Module] = []
        for k, size in enumerate(sizes[:-1]):
            normed = batch_norm and k > 0
            layers += [nn.Conv2d(channels[k], channels[k + 1], kernel(size), 2, 1, bias=not normed, rng=rng)]
            # BatchNorm2d(n, 0.8), which many copies of this network have, sets ε = 0.8 and not the momentum.
            layers += [nn.BatchNorm2d(channels[k + 1])] if normed else []
            layers += [nn.LeakyReLU(0.2)]
        layers += [nn.Flatten()]
        self.features = nn.Sequential(*layers)
        self._finish(widths[-1] * math.prod(sizes[-1]), spectral, std, rng)


def _check_widths(network: nn.Module, widths: Sequence[int]) -> None:
    if not widths or min(widths) < 1:
        raise ValueError(f"{type(network).__name__}: expected positive widths, got {tuple(widths)}")

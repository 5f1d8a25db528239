"""The classifier that judges drawn digits: what an image shows, how surely, and 64 numbers that say how it looks.

A Fréchet distance needs features in which two images are near when they look alike. The usual ones come from
Inception, a network trained on photographs, and mean little on digits; so these come from a small network of our own,
trained on digits alone:

    h = ReLU(W₁ · conv(x) + b₁) ∈ ℝ⁶⁴,    p(y | x) = softmax(W₂ h + b₂)

h are the features, p the probabilities of the ten digits. The weights are shipped; ``train_classifier.py`` beside this
file made them, and this folder's README states how well they do. Figures found with them compare with figures found
with the same weights, and with no others.

Source: Heusel et al., *GANs Trained by a Two Time-Scale Update Rule …* (2017), §3 for features of a classifier;
Bińkowski et al., *Demystifying MMD GANs* (2018), §5, who judge MNIST by a LeNet's features for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygen import nn
from tinygen.nn import functional as F
from tinygen.ops.shape import cat
from tinygen.random import Generator
from tinygen.recording import no_grad
from tinygen.serialization import CheckpointError, load
from tinygen.tensor import Tensor

FOLDER = Path(__file__).parent
KINDS = ("digits", "mnist")
FEATURES = 64
CLASSES = 10
CHUNK = 500  # images computed at a time, so that 10,000 of them need little memory


class DigitClassifier(nn.Module):
    """p = softmax(W h(x) + b): a small convolutional network, images x → 64 features h → ten probabilities p.

    Each width w is a stage conv 3×3 → ReLU → conv 3×3 → ReLU → max-pool 2×2, so that H and W are halved (rounded down)
    once a stage; a dense layer then makes the features. Dropout stands before and behind the features while training.

    Args:
        image_shape: (C, H, W).
        widths: the channels of each stage.
        dropout: the share of numbers dropped while training.
        rng: what draws the initial weights.

    Raises:
        ValueError: the image is too small for that many stages, or (when called) images have another shape.

    Source: LeCun et al., *Gradient-Based Learning Applied to Document Recognition* (1998), for the form.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (1, 8, 8),
        widths: Sequence[int] = (24, 40),
        dropout: float = 0.3,
        rng: Generator | None = None,
    ) -> None:
        super().__init__()
        self.image_shape, self.widths = tuple(image_shape), tuple(widths)
        channels, height, width = self.image_shape
        stages: list[nn.Module] = []
        for w in self.widths:
            stages += [nn.Conv2d(channels, w, 3, padding=1, rng=rng), nn.ReLU()]
            stages += [nn.Conv2d(w, w, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2)]
            channels, height, width = w, height // 2, width // 2
        if height < 1 or width < 1:
            raise ValueError(f"DigitClassifier: images of {self.image_shape} cannot be halved {len(self.widths)} times")
        self.stages = nn.Sequential(*stages, nn.Flatten())
        self.embedding = nn.Linear(channels * height * width, FEATURES, rng=rng)
        self.head = nn.Linear(FEATURES, CLASSES, rng=rng)
        self.dropout = dropout

    def embed(self, x: Tensor, rng: Generator | None = None) -> Tensor:
        """h, the features, differentiable: images (N, C, H, W) in [0, 1] → (N, 64).

        Args:
            rng: draws what is dropped, while training only.

        Raises:
            ValueError: the images have another shape.
        """
        if x.shape[1:] != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(f"DigitClassifier: expected images of shape (N, {expected}), got {x.shape}")
        return F.relu(self.embedding(F.dropout(self.stages(x), self.dropout, self.training, rng=rng)))

    def forward(self, x: Tensor, rng: Generator | None = None) -> Tensor:
        """The logits W₂ h + b₂, of which p(y | x) is the softmax: (N, C, H, W) → (N, 10). See :meth:`embed`."""
        return self.head(F.dropout(self.embed(x, rng), self.dropout, self.training, rng=rng))

    def features(self, images: Any) -> Tensor:
        """h for any number of images, without dropout and without a graph.

        Args:
            images: (N, C, H, W), values in [0, 1]: a Tensor or an array, N ≥ 1.

        Returns:
            float32 (N, 64), each ≥ 0, where the classifier's weights are.

        Raises:
            ValueError: the images have another shape, or there are none.
        """
        return self._over(images, self.embed)

    def probabilities(self, images: Any) -> Tensor:
        """p(y | x) for any number of images, (N, 10), each row with sum 1; arguments as in :meth:`features`."""
        return self._over(images, lambda x: F.softmax(self(x), dim=1))

    @no_grad()
    def _over(self, images: Any, f: Any) -> Tensor:
        weight = self.head.weight
        raw = images.detach() if isinstance(images, Tensor) else Tensor(images)
        x = raw.to(weight.dtype).to(weight.device)
        if x.ndim == 0 or x.shape[0] == 0:
            raise ValueError(f"DigitClassifier: expected at least one image (N, C, H, W), got shape {x.shape}")
        was_training = self.training
        self.eval()
        try:
            return cat([f(x[i : i + CHUNK]) for i in range(0, x.shape[0], CHUNK)])
        finally:
            self.train(was_training)


def digit_classifier(kind: str = "digits", device: str = "cpu") -> DigitClassifier:
    """The trained classifier that comes with tinygen, not to be trained further: ``eval()``, no gradients of weights.

    Args:
        kind: ``"digits"`` for images (N, 1, 8, 8), ``"mnist"`` for (N, 1, 28, 28).
        device: where its weights go.

    Raises:
        ValueError: kind is neither.
        CheckpointError: the shipped file is missing or damaged.
        DeviceError: the device cannot be used.
    """
    state, about = _read(kind)
    model = DigitClassifier(about["image_shape"], about["widths"])
    model.load_state_dict({name: values.to("float32") for name, values in state.items()})
    return model.eval().requires_grad_(False).to(device=device)


def about_classifier(kind: str = "digits") -> dict[str, Any]:
    """How the shipped classifier was made and how well it does, as its file says.

    Args:
        kind: as in :func:`digit_classifier`.

    Returns:
        image_shape, widths, data, steps, seed; ``test_accuracy`` and ``train_accuracy`` in [0, 1], measured with the
        weights as shipped; ``test_images``, how many were held out; ``test_confident``,
        the share of them given a class with p ≥ 0.9.

    Raises:
        ValueError, CheckpointError: as :func:`digit_classifier`.
    """
    return _read(kind)[1]


def classifier_file(kind: str) -> Path:
    """Where the weights of a kind are.

    Raises:
        ValueError: kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"digit_classifier: expected kind to be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    return FOLDER / f"classifier_{kind}.npz"


def _read(kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = classifier_file(kind)
    try:
        found = load(path, "cpu")
        return found["state"], found["about"]
    except (OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: expected the classifier that comes with tinygen ({error}); install it again"
                              ) from error

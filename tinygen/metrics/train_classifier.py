"""Train the classifier that the metrics look through, and write the file that is shipped.

    python -m tinygen.metrics.train_classifier digits
    python -m tinygen.metrics.train_classifier mnist --data-dir DIR

Cross-entropy, AdamW, one cosine down to 0; every image is turned, stretched, sheared and shifted a little each time it
is seen. Held-out images are looked at once, at the end, with the weights as they are shipped (rounded to float16).
Equal seeds give equal files on the same machine.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import data
from tinygen.metrics.classifier import KINDS, DigitClassifier, classifier_file
from tinygen.nn import functional as F
from tinygen.optim import AdamW
from tinygen.optim.lr_scheduler import CosineAnnealingLR
from tinygen.random import Generator
from tinygen.serialization import save
from tinygen.tensor import Tensor
from tinygen.training.progress import Progress

SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"widths": (24, 40), "steps": 3000, "batch_size": 64, "lr": 2e-3},
    "mnist": {"widths": (12, 20, 32), "steps": 4000, "batch_size": 64, "lr": 2e-3},
}
TURN, STRETCH, SHEAR, SHIFT = 0.2, 0.12, 0.15, 0.07  # radians, ln of a factor, dx/dy, share of the width


def augment(images: np.ndarray, rng: Generator) -> np.ndarray:
    """Each image under an affine map of its own, read off between pixels: x̃(u) = x(A u + b).

    u is the place of a pixel measured from the centre, in units of half the width. A = R(θ)·S·diag(eᵃ, eᶜ) with
    θ ~ U[−0.2, 0.2], shear ~ U[−0.15, 0.15], a, c ~ U[−0.12, 0.12]; b ~ U[−0.14, 0.14]² (a shift by up to 7 % of the
    width). Between pixels the value is bilinear; beyond the border it is 0.

    Args:
        images: (N, C, H, W).
        rng: what draws the maps.

    Returns:
        As many images, of the same dtype.

    Source: Simard et al., *Best Practices for Convolutional Neural Networks …* (2003), §2.
    """
    n, _, h, w = images.shape

    def draw(limit: float) -> np.ndarray:
        return np.asarray(rng.uniform((n,), "float64", -limit, limit))

    θ, shear, a, c, by, bx = (draw(limit) for limit in (TURN, SHEAR, STRETCH, STRETCH, 2 * SHIFT, 2 * SHIFT))
    cos, sin, a, c = np.cos(θ), np.sin(θ), np.exp(a), np.exp(c)
    A = np.array([[cos * a, (shear * cos - sin) * c], [sin * a, (shear * sin + cos) * c]]).transpose(2, 0, 1)
    rows, columns = np.meshgrid((np.arange(h) + 0.5) * 2 / h - 1, (np.arange(w) + 0.5) * 2 / w - 1, indexing="ij")
    u = A @ np.stack([rows.ravel(), columns.ravel()]) + np.stack([by, bx], 1)[:, :, None]  # (N, 2, H·W)
    y, x = (u[:, 0] + 1) * h / 2 - 0.5, (u[:, 1] + 1) * w / 2 - 0.5
    padded = np.pad(images, ((0, 0), (0, 0), (1, 2), (1, 2)))
    y, x = np.clip(y + 1, 0, h + 1), np.clip(x + 1, 0, w + 1)
    i, j = y.astype(int), x.astype(int)
    dy, dx = (y - i)[:, None], (x - j)[:, None]
    each = np.arange(n)[:, None]

    def at(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return padded[each, :, i, j].transpose(0, 2, 1)  # (N, C, H·W)

    above = at(i, j) * (1 - dx) + at(i, j + 1) * dx
    below = at(i + 1, j) * (1 - dx) + at(i + 1, j + 1) * dx
    return (above * (1 - dy) + below * dy).reshape(images.shape).astype(images.dtype)


def train(
    dataset: data.Dataset, widths: tuple[int, ...], steps: int, batch_size: int, lr: float, seed: int = 0,
    progress: bool = True,
) -> DigitClassifier:
    """A classifier fitted to ``dataset``: minimise −ln p(y | x̃) over batches of augmented images.

    Args:
        dataset: images (N, C, H, W) in [0, 1] with labels 0..9.
        widths: as of :class:`DigitClassifier`.
        steps, batch_size, lr: of AdamW, whose rate follows half a cosine down to 0.
        seed: of everything random.

    Raises:
        ArithmeticError: the loss is no longer finite.
    """
    rng, drops = Generator(seed), Generator(seed)
    images, labels = dataset.images, dataset.labels
    model = DigitClassifier(images.shape[1:], widths, rng=rng)
    adam = AdamW(model.parameters(), lr=lr, weight_decay=1e-2)
    schedule = CosineAnnealingLR(adam, steps)
    loader = data.DataLoader((np.arange(len(labels)),), batch_size, shuffle=True, drop_last=True, rng=rng)
    bar = Progress(0, steps, progress)
    for step, (index,) in zip(range(1, steps + 1), loader.forever()):
        x = Tensor(augment(images[index.numpy()], rng))
        loss = F.cross_entropy(model(x, drops), Tensor(labels[index.numpy()]))
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        if step % 100 == 0:
            if not math.isfinite(loss.item()):
                raise ArithmeticError(f"the loss became {loss.item()} at step {step}; nothing was written")
            bar.show({"loss": loss.item()})
        bar.update(step)
    bar.close()
    return model.eval()


def rounded(model: DigitClassifier) -> dict[str, Tensor]:
    """The weights in float16, half the bytes; the model itself is set to what these say."""
    state = {name: values.to("float16") for name, values in model.state_dict().items()}
    model.load_state_dict({name: values.to("float32") for name, values in state.items()})
    return state


def accuracy(model: DigitClassifier, dataset: data.Dataset) -> float:
    """The share of images whose likeliest class is the right one."""
    return float((model.probabilities(dataset.images).numpy().argmax(1) == dataset.labels).mean())


def main(argv: list[str] | None = None) -> None:
    """Read the command line, train, measure, write."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tinygen.metrics.train_classifier", description=about)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--data-dir", type=Path, help="the folder of MNIST's IDX files")
    parser.add_argument("--out", type=Path, help="the file to write (default: the one that tinygen loads)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    settings = SETTINGS[args.kind] | ({} if args.steps is None else {"steps": args.steps})
    if args.kind == "digits":
        fit, held_out = data.digits("train"), data.digits("test")
    else:
        # The official test file alone, split 8,000 / 2,000: whoever has the demos' MNIST has these images.
        fit, held_out = data.mnist(args.data_dir, "t10k-train"), data.mnist(args.data_dir, "t10k-test")
    model = train(fit, seed=args.seed, **settings)
    state = rounded(model)
    made = {
        "image_shape": fit.images.shape[1:],
        **settings,
        "seed": args.seed,
        "data": fit.name,
        "train_accuracy": accuracy(model, fit),
        "test_images": len(held_out),
        "test_accuracy": accuracy(model, held_out),
        "test_confident": float((model.probabilities(held_out.images).numpy().max(1) >= 0.9).mean()),
    }
    path = args.out or classifier_file(args.kind)
    save({"state": state, "about": made}, path)
    print(f"{path}: {made}")


if __name__ == "__main__":
    main()

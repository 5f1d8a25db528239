"""One protocol for the samples of every model, so that their figures stand side by side.

1,000 samples (or as many as you have), the real images that the model was trained on, and the shipped classifier:

- *confident*: the share of samples to which the classifier gives a class with p ≥ 0.9; the same of real images beside.
- *smallest, largest class share*: of all samples, by the likeliest class.
- *Fréchet distance*: all samples against all real images in the 64 features. *Floor*: two disjoint random parts of the
  real images, each a half of them or, where that is more, as many as there are samples; mean of 20 splits. *Ratio*: one
  over the other. As the floor compares fewer images than the distance it has more of the bias that few samples bring;
  so beside it stands the *ratio, equal sizes*, in which samples and real images are as many as in a part of the floor:
  that one is 1 for perfect samples drawn at random. (Much of both is how often each digit came; samples of which each
  digit was asked for equally often are spared that, and may fall below 1.)
- *precision, recall, density, coverage*: k = 3 in the features, samples against equally many real images.
- *MMD² p-value*: 199 permutations, features, samples against equally many real images. 0.005 is the least that can be.
- *nearer than held-out*, where held-out images are given: c of :func:`copying`, in pixels; ½ for new images, 1 for
  copies.
"""

from __future__ import annotations

from typing import Any

from tinygen.metrics.classes import class_report
from tinygen.metrics.classifier import DigitClassifier, digit_classifier
from tinygen.metrics.copying import copying
from tinygen.metrics.frechet import frechet_between, frechet_distance, frechet_floor
from tinygen.metrics.manifold import precision_recall
from tinygen.metrics.mmd import mmd_test
from tinygen.metrics.points import shuffled
from tinygen.random import Generator
from tinygen.tensor import Tensor

KIND_OF = {(1, 8, 8): "digits", (1, 28, 28): "mnist"}
LEAST = 8
MOST_IN_TEST = 1000  # of each side, where a matrix of all pairs is needed


def judge_samples(
    samples: Any,
    real_images: Any,
    labels: Any = None,
    classifier: DigitClassifier | None = None,
    rng: Generator | None = None,
    held_out: Any = None,
) -> dict[str, float]:
    """All figures of the protocol above for a model's samples, by name, in the order of a demo's closing table.

    Args:
        samples: images (N, 1, 8, 8) or (N, 1, 28, 28), values in [0, 1], N ≥ 8; 1,000 for figures to report.
        real_images: (M, …) of the same size, those that the model was trained on, M ≥ 16.
        labels: the classes that were asked for, (N,), where the model is conditional; adds "wanted class shown".
        classifier: what judges; the shipped one for that size where omitted.
        rng: splits the real images and shuffles the test; ``Generator(0)`` where omitted, so that equal samples get
            equal figures.
        held_out: real images that the model was not trained on; adds "nearer than held-out".

    Returns:
        "confident", "confident, real images", "smallest class share", "largest class share",
        ["wanted class shown",] "Fréchet distance", "Fréchet floor", "Fréchet ratio", "Fréchet ratio, equal sizes",
        "precision", "recall", "density", "coverage", "MMD²", "MMD² p-value"[, "nearer than held-out"].

    Raises:
        ValueError: the images are of a size that no shipped classifier knows, differ in size, or are too few.
        TypeError, DeviceError: as the metrics themselves.
    """
    samples, real = (x.detach() if isinstance(x, Tensor) else Tensor(x) for x in (samples, real_images))
    if classifier is None:
        if samples.shape[1:] not in KIND_OF:
            raise ValueError(
                f"judge_samples: there is a classifier for images (N, 1, 8, 8) and (N, 1, 28, 28), the samples are "
                f"{samples.shape}; pass classifier="
            )
        classifier = digit_classifier(KIND_OF[samples.shape[1:]], device=samples.device)
    if samples.shape[0] < LEAST or real.shape[0] < 2 * LEAST:
        raise ValueError(
            f"judge_samples: expected at least {LEAST} samples and {2 * LEAST} real images, got {samples.shape[0]} "
            f"and {real.shape[0]}"
        )
    rng = Generator(0) if rng is None else rng
    seen = class_report(classifier.probabilities(samples), labels=labels)
    a, b = classifier.features(samples), classifier.features(real)
    half = min(len(a), len(b) // 2)
    floor = frechet_floor(b, size=half, rng=rng)
    distance = frechet_distance(a, b)
    n = min(len(a), len(b), MOST_IN_TEST)
    some, others = a[shuffled(len(a), rng)[:n]], b[shuffled(len(b), rng)[:n]]
    near = precision_recall(others, some)
    test = mmd_test(some, others, rng=rng)
    return {
        "confident": seen.confident,
        "confident, real images": class_report(classifier.probabilities(real)).confident,
        "smallest class share": seen.smallest,
        "largest class share": seen.largest,
        **({} if seen.right is None else {"wanted class shown": seen.right}),
        "Fréchet distance": distance,
        "Fréchet floor": floor,
        "Fréchet ratio": distance / floor,
        "Fréchet ratio, equal sizes": frechet_between(a, b, half, rng=rng) / floor,
        "precision": near.precision,
        "recall": near.recall,
        "density": near.density,
        "coverage": near.coverage,
        "MMD²": test.mmd2,
        "MMD² p-value": test.p_value,
        **({} if held_out is None else {"nearer than held-out": copying(samples, real, held_out).share}),
    }

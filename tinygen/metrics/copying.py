"""Does a model draw new images, or hand back those it was trained on?

A model that memorised its training images is perfect by every figure that compares samples with them. So compare
distances: how near is a sample to the nearest training image, and how near are real images that were *not* trained on?

    c = P( d(sample) < d(held-out) ) + ½ P( d(sample) = d(held-out) ),    d(x) = min over training images t of ‖x − t‖

is ½ where samples are as far from the training images as other real images are, 1 where each of them is nearer than
any, 0 where each is farther. It is the Mann–Whitney statistic U/(nm), so under equal distributions it lies around ½
with standard deviation √((n + m + 1)/(12nm)). Blurred samples are near to everything, and raise it too: look at both.

Source: Meehan, Chaudhuri & Dasgupta, *A Non-Parametric Test to Detect Data-Copying in Generative Models* (2020), §3.1,
without its division of the space into cells.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tinygen.backend import array_module
from tinygen.metrics.points import as_pair, squared_distances

CHUNK = 1000  # rows of the matrix of distances that are there at a time


class Copying(NamedTuple):
    """What :func:`copying` found: c in [0, 1], and its z-score (c − ½)/√((n + m + 1)/(12nm))."""

    share: float
    z: float


def copying(samples: Any, train: Any, held_out: Any) -> Copying:
    """c = P(d(sample) < d(held-out)) + ½ P(equal), with d the distance to the nearest training image.

    Args:
        samples: (N, d) or images (N, C, H, W).
        train: (T, …), what the model was trained on.
        held_out: (M, …), real images that it was not trained on.

    Returns:
        ``Copying(share, z)``: share is ½ for new images; z > 3 is copying (or blur) beyond chance.

    Raises:
        TypeError, ValueError: they are not points of one length, or hold nan.
        DeviceError: they are on several devices.

    Source: Meehan et al. (2020), §3.1; Mann & Whitney (1947).
    """
    x, t = as_pair(samples, train, "copying", ("samples", "train"))
    y, _ = as_pair(held_out, train, "copying", ("held_out", "train"))
    xp = array_module(x)
    near, far = xp.sort(_nearest(x, t)), xp.sort(_nearest(y, t))
    n, m = len(near), len(far)
    # For each held-out image: how many samples are nearer, and how many at most as far.
    less = xp.searchsorted(near, far, side="left").astype("float64")
    at_most = xp.searchsorted(near, far, side="right").astype("float64")
    share = float((less + at_most).sum()) / (2 * n * m)
    return Copying(share, (share - 0.5) / math.sqrt((n + m + 1) / (12 * n * m)))


def _nearest(x: Any, t: Any) -> Any:
    """d(x)², (N). What is smaller than rounding is 0, so that two exact copies are equally near."""
    xp = array_module(x)
    found = [squared_distances(x[i : i + CHUNK], t).min(axis=1) for i in range(0, len(x), CHUNK)]
    d2 = xp.concatenate(found)
    spread = t - t.mean(axis=0)
    return xp.where(d2 <= 1e-12 * (spread * spread).sum(1).max(), 0.0, d2)

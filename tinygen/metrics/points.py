"""What the metrics take: two clouds of points in ℝᵈ, checked and in float64.

The figures are differences of nearly equal numbers, so all of them are computed in float64 whatever comes in; on the
device where the points are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.backend import DeviceError, array_module, device_of, is_array, to_numpy
from tinygen.random import Generator, randperm
from tinygen.tensor import Tensor


def as_points(values: Any, who: str, name: str, least: int = 1) -> Any:
    """Points (N, d) as a float64 array of their own device; images (N, C, H, W) are flattened to d = C·H·W.

    Args:
        values: a Tensor or an array, first axis N.
        who, name: the function and the argument, for errors.
        least: how many points are needed.

    Raises:
        TypeError: it is neither, or its numbers are not real.
        ValueError: it has no second axis, fewer than ``least`` points, or holds nan or infinities.
    """
    raw = values.data if isinstance(values, Tensor) else values
    if not is_array(raw):
        raise TypeError(f"{who}: expected {name} as a Tensor or an array (N, d), got {type(values).__name__}")
    if raw.dtype.kind not in "biuf":
        raise TypeError(f"{who}: expected {name} to hold real numbers, got {raw.dtype}")
    if raw.ndim < 2:
        raise ValueError(f"{who}: expected {name} of shape (N, d), one point a row, got {tuple(raw.shape)}")
    if raw.shape[0] < least or 0 in raw.shape:
        raise ValueError(f"{who}: expected {name} to hold at least {least} point(s), got shape {tuple(raw.shape)}")
    points = raw.reshape(raw.shape[0], -1).astype("float64")
    if not bool(array_module(points).isfinite(points).all()):
        raise ValueError(f"{who}: {name} holds numbers that are nan or infinite; did the model that made them diverge?")
    return points


def as_pair(a: Any, b: Any, who: str, names: tuple[str, str], least: int = 1) -> tuple[Any, Any]:
    """Two clouds in one space: (N, d) and (M, d), float64, on one device.

    Raises:
        TypeError, ValueError: as :func:`as_points`; or d differs.
        DeviceError: they are on two devices.
    """
    first, second = as_points(a, who, names[0], least), as_points(b, who, names[1], least)
    if device_of(first) != device_of(second):
        raise DeviceError(
            f"{who}: {names[0]} is on {device_of(first)}, {names[1]} on {device_of(second)}; move one with x.to(device)"
        )
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{who}: {names[0]} has points of {first.shape[1]} numbers, {names[1]} of {second.shape[1]}: they must lie "
            "in one space"
        )
    return first, second


def squared_distances(a: Any, b: Any) -> Any:
    """D[i, j] = ‖aᵢ − bⱼ‖² = ‖aᵢ‖² + ‖bⱼ‖² − 2 aᵢ·bⱼ: (N, d), (M, d) → (N, M).

    Measured from b's mean, which changes no distance and saves the digits that a far-away cloud would lose to
    rounding; what rounding still makes negative is 0.
    """
    xp = array_module(a)
    centre = b.mean(axis=0)
    a, b = a - centre, b - centre
    return xp.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T), 0)


def shuffled(n: int, rng: Generator | None) -> np.ndarray:
    """The numbers 0 … n − 1 in random order, for indexing an array of any device."""
    return to_numpy(randperm(n, rng=rng).data)

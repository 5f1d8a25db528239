"""Noise schedules: how fast a diffusion loses the image, as curves and on an image itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.viz.canvas import INK, PALETTE, as_array, new_figure, plain_axes, require_finite, save_figure, to_pixels


def save_schedule(
    path: str | os.PathLike,
    schedules: Mapping[str, Any],
    image: Any = None,
    noise: Any = None,
    steps: int = 9,
    value_range: tuple[float, float] | None = None,
    title: str = "",
) -> Path:
    """Save what noise schedules do: signal and noise, their ratio, and an image that goes under.

    Left √ᾱ_t (full lines) and √(1 − ᾱ_t) (dashed) against t/T, right log₁₀ SNR_t = log₁₀ ᾱ_t/(1 − ᾱ_t). With an image,
    one row below for each schedule: x_t = √ᾱ_t·x₀ + √(1 − ᾱ_t)·ε at evenly spaced t, with x₀ in [−1, 1] and one ε for
    all, so that nothing but t differs.

    Shapes: each schedule's ``alpha_bar`` (T + 1); image and noise (C, H, W), C = 1 or 3.

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        schedules: label → a :class:`tinygen.models.NoiseSchedule`, or ᾱ₀ = 1, ᾱ₁, …, ᾱ_T itself.
        image: x₀, values in ``value_range``; None draws the curves alone.
        noise: ε ~ N(0, I), such as ``tg.randn(1, 8, 8, rng=rng)``; wanted with an image.
        steps: how many x_t, from t = 0 to T.
        value_range: (low, high) of the image, as in :func:`tinygen.viz.save_grid`.
        title: above everything.

    Returns:
        The path.

    Raises:
        ValueError: no schedule, ᾱ that does not begin with 1 and fall towards 0, an image without noise or of another
            shape, values that are not finite, or steps < 2.
        TypeError: not real numbers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.

    Source: Ho, Jain & Abbeel, *Denoising Diffusion Probabilistic Models* (2020), eq. 4; Nichol & Dhariwal (2021),
    fig. 3 and 5.
    """
    if not schedules:
        raise ValueError("schedules: expected at least one, got none")
    if steps < 2:
        raise ValueError(f"steps: expected at least 2, got {steps}")
    kept = {label: _alpha_bar(label, given) for label, given in schedules.items()}
    x0, ε = _drawn(image, noise, value_range)

    rows = len(kept) if x0 is not None else 0
    figure = new_figure(9.2, 3.5 + 1.15 * rows + 0.3 * bool(title))
    curves, pictures = figure, None
    if rows:
        curves, pictures = figure.subfigures(2, 1, height_ratios=[3.5, 1.15 * rows])
    left, right = curves.subplots(1, 2)
    for axes, text in ((left, "√ᾱ: image, √(1 − ᾱ): noise (dashed)"), (right, "log₁₀ of the signal-to-noise ratio")):
        plain_axes(axes, "t / T")
        axes.set_title(text, fontsize=11, color=INK, loc="left", pad=10)
    for i, (label, A) in enumerate(kept.items()):
        share, colour = np.arange(len(A)) / (len(A) - 1), PALETTE[i % len(PALETTE)]
        left.plot(share, np.sqrt(A), color=colour, linewidth=1.8, label=label)
        left.plot(share, np.sqrt(1 - A), color=colour, linewidth=1.4, linestyle="--")
        inside = (A > 0) & (A < 1)
        right.plot(share[inside], np.log10(A[inside] / (1 - A[inside])), color=colour, linewidth=1.8, label=label)
    for axes in (left, right):
        if len(kept) > 1:
            axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    if pictures is not None and x0 is not None:
        grid = pictures.subplots(rows, steps, squeeze=False)
        for row, (label, A) in zip(grid, kept.items(), strict=True):
            for k, axes in enumerate(row):
                t = round(k * (len(A) - 1) / (steps - 1))
                x_t = np.sqrt(A[t]) * x0 + np.sqrt(1 - A[t]) * ε
                drawn = to_pixels(x_t[None], "image", (-2.0, 2.0) if t else (-1.0, 1.0))[0]
                axes.imshow(drawn, interpolation="nearest")
                axes.set_axis_off()
                axes.set_title(f"{label}, t = 0" if not k else f"{t}", fontsize=8, color=INK, pad=3)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    return save_figure(path, figure)


def _alpha_bar(label: str, given: Any) -> np.ndarray:
    """ᾱ₀ … ᾱ_T of a schedule, checked."""
    A = as_array(getattr(given, "alpha_bar", given), f"schedules[{label!r}]").astype(np.float64)
    if A.ndim != 1 or len(A) < 2 or A[0] != 1 or not (np.diff(A) < 0).all() or not A[-1] >= 0:
        raise ValueError(
            f"schedules[{label!r}]: expected ᾱ₀ = 1, ᾱ₁, …, ᾱ_T falling towards 0, got "
            + (f"shape {A.shape}" if A.ndim != 1 or len(A) < 2 else f"{A[0]:.4g}, {A[1]:.4g}, …, {A[-1]:.4g}")
        )
    return A


def _drawn(image: Any, noise: Any, value_range: tuple[float, float] | None) -> tuple[Any, Any]:
    """x₀ in [−1, 1] and ε, both (C, H, W) of float64, or two Nones."""
    if image is None:
        return None, None
    x0 = as_array(image, "image")
    if x0.ndim != 3 or x0.shape[0] not in (1, 3) or 0 in x0.shape:
        raise ValueError(f"image: expected shape (C, H, W) with C = 1 or 3, got {x0.shape}")
    if noise is None:
        raise ValueError("noise: expected ε of the image's shape, such as tg.randn(1, 8, 8, rng=rng), got None")
    ε = as_array(noise, "noise").astype(np.float64)
    if ε.shape != x0.shape:
        raise ValueError(f"noise: expected the image's shape {x0.shape}, got {ε.shape}")
    require_finite(x0, "image")
    require_finite(ε, "noise")
    low, high = value_range if value_range is not None else (0, 255 if x0.dtype == np.uint8 else 1)
    if not low < high:
        raise ValueError(f"value_range: expected (low, high) with low < high, got ({low}, {high})")
    return (x0.astype(np.float64) - low) * (2 / (high - low)) - 1, ε

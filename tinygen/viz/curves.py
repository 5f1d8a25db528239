"""Curves over training steps: losses, learning rates, anything that has a history."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.viz.canvas import FAINT, INK, PALETTE, as_array, new_figure, plain_axes, save_figure


def smoothed(steps: np.ndarray, values: np.ndarray, beta: float, unit: float = 1.0) -> np.ndarray:
    """Exponential moving average, not biased towards its start, that forgets by the step, not by the point.

    With d_t = β^((x_t − x_{t−1}) / unit):  s_t = d_t s_{t−1} + (1 − d_t) v_t and w_t = d_t w_{t−1} + (1 −
    d_t) from s_0 = w_0 = 0, d_1 = β; the result is s_t / w_t. For steps one unit apart w_t = 1 − βᵗ, the
    correction that Adam makes. A value that is not finite is left out of the average and stays as it is.

    Shapes: steps x (n,), values v (n,) → (n,).

    Source: Kingma & Ba, *Adam* (2014), section 3, for w_t.
    """
    result, s, w, last = np.array(values, dtype=np.float64), 0.0, 0.0, steps[0] - unit
    for t, (x, v) in enumerate(zip(steps, values, strict=True)):
        if np.isfinite(v):
            d = beta ** (abs(x - last) / unit)
            s, w, last = d * s + (1 - d) * v, d * w + (1 - d), x
            result[t] = s / w if w > 0 else v
    return result


def save_curves(
    path: str | os.PathLike,
    series: Mapping[str, Any],
    smooth: float = 0.0,
    logy: bool = False,
    xlabel: str = "step",
    ylabel: str = "loss",
    title: str = "",
) -> Path:
    """Save one or more curves in one plot.

    A value that is not finite leaves a gap, and the legend says how many there are: a loss that blew up is
    worth seeing.

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        series: label → values (n,), or → (steps (n,), values (n,)). One number is drawn as a point.
        smooth: β in [0, 1) of an exponential moving average, by which a value counts less for each step that
            has passed since, where one step is that of the densest series; the raw values stay visible behind
            it.
        logy: a logarithmic vertical axis.
        xlabel, ylabel, title: texts.

    Returns:
        The path.

    Raises:
        ValueError: no series; steps and values of different lengths; a series with no finite value; with
            ``logy`` a series with no positive value; steps that are not finite; smooth outside [0, 1).
        TypeError: not real numbers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    if not series:
        raise ValueError("series: expected at least one curve, got none")
    if not 0 <= smooth < 1:
        raise ValueError(f"smooth: expected a number in [0, 1), got {smooth}")
    curves = {label: _read(label, given, logy) for label, given in series.items()}

    spacings = [np.median(np.abs(np.diff(steps))) for steps, _, _ in curves.values() if len(steps) > 1]
    unit = float(min((spacing for spacing in spacings if spacing > 0), default=1.0))

    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    plain_axes(axes, xlabel, ylabel, title)
    for i, (label, (steps, values, lost)) in enumerate(curves.items()):
        colour = PALETTE[i % len(PALETTE)]
        text = f"{label} ({lost} not drawn: {'not positive or ' if logy else ''}not finite)" if lost else label
        marker = "o" if np.isfinite(values).sum() == 1 else None
        if smooth and len(values) > 1:
            axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
            axes.plot(steps, smoothed(steps, values, smooth, unit), color=colour, linewidth=1.8, label=text)
        else:
            axes.plot(steps, values, color=colour, linewidth=1.5, marker=marker, label=text)
    if logy:
        axes.set_yscale("log")
    if len(curves) > 1 or any(lost for _, _, lost in curves.values()):
        axes.legend(frameon=False, fontsize=10, labelcolor=INK)
    if smooth:
        axes.annotate(
            f"smoothed, β = {smooth:g}",
            (1, 1.01),
            xycoords="axes fraction",
            ha="right",
            va="bottom",
            fontsize=8,
            color=FAINT,
        )
    return save_figure(path, figure)


def _read(label: str, given: Any, logy: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """(steps, values with NaN for what cannot be drawn, how many those are) of one entry of ``series``."""
    name = f"series[{label!r}]"
    pair = isinstance(given, tuple) and len(given) == 2 and all(np.ndim(part) == 1 for part in given)
    values = as_array(given[1] if pair else given, name).astype(np.float64)
    steps = as_array(given[0], f"{name} steps").astype(np.float64) if pair else np.arange(values.size, dtype=float)
    if values.ndim != 1 or steps.shape != values.shape:
        raise ValueError(
            f"{name}: expected values (n,) or a pair of steps (n,) and values (n,), got "
            + (f"steps {steps.shape} and values {values.shape}" if pair else f"shape {values.shape}")
        )
    if not np.isfinite(steps).all():
        raise ValueError(f"{name}: the steps hold values that are not finite")
    drawable = np.isfinite(values) & ((values > 0) | (not logy))
    if not drawable.any():
        kind = "finite positive" if logy else "finite"
        raise ValueError(f"{name}: none of its {values.size} values is {kind}, there is nothing to draw")
    return steps, np.where(drawable, values, np.nan), int((~drawable).sum())

"""Numbers side by side: how scores are distributed, and one bar for each of a few results."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.viz.canvas import (
    INK,
    PALETTE,
    as_array,
    new_figure,
    optional,
    plain_axes,
    require_finite,
    save_figure,
)


def save_histogram(
    path: str | os.PathLike,
    series: Mapping[str, Any],
    bins: int = 40,
    threshold: float | None = None,
    logx: bool = False,
    xlabel: str = "score",
    ylabel: str = "",
    title: str = "",
) -> Path:
    """Save histograms of several sets of numbers over each other, on the same bins.

    Each is drawn as shares: the height of a bar is the part of that set that falls into the bin, so that sets
    of different sizes can be compared; the heights of a set sum to 1.

    Shapes: each (n,), n ≥ 1; the sets may differ in size.

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        series: label → numbers, such as ``{"normal": scores, "anomaly": scores}``.
        bins: how many, over the range of all sets together.
        threshold: a vertical line, with its value.
        logx: bins of equal width on a logarithmic axis, for positive numbers of several orders of magnitude.
        xlabel, ylabel, title: texts; ``ylabel`` is by default "share of each set".

    Returns:
        The path.

    Raises:
        ValueError: no set, an empty one, another shape, values that are not finite, bins < 1, or with
            ``logx`` values (or a threshold) that are not positive.
        TypeError: not real numbers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    if not series:
        raise ValueError("series: expected at least one set of numbers, got none")
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    sets = {}
    for label, given in series.items():
        values = as_array(given, f"series[{label!r}]").astype(np.float64)
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"series[{label!r}]: expected shape (n,) with n ≥ 1, got {values.shape}")
        require_finite(values, f"series[{label!r}]")
        sets[label] = values
    together = np.concatenate(list(sets.values()))
    if logx and (together.min() <= 0 or (threshold is not None and threshold <= 0)):
        raise ValueError(f"logx: expected positive numbers, the smallest is {together.min():g}")
    low, high = float(together.min()), float(together.max())
    if low == high:
        low, high = (low * 0.9, high * 1.1) if logx else (low - 0.5, high + 0.5)
    edges = np.geomspace(low, high, bins + 1) if logx else np.linspace(low, high, bins + 1)

    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    plain_axes(axes, xlabel, ylabel or "share of each set", title)
    for i, (label, values) in enumerate(sets.items()):
        colour = PALETTE[i % len(PALETTE)]
        heights = np.histogram(values, edges)[0] / values.size
        text = f"{label} ({values.size:,})"
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(heights, edges, color=colour, linewidth=1.6, label=text)
    if logx:
        axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label=f"threshold {threshold:.3g}")
    axes.legend(frameon=False, fontsize=10, labelcolor=INK)
    return save_figure(path, figure)


def save_bars(
    path: str | os.PathLike,
    values: Mapping[str, float],
    reference: Mapping[str, float] | None = None,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    ylim: tuple[float, float] | None = None,
    number_format: str = ".2f",
) -> Path:
    """Save one bar for each result, with its number above it.

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        values: label → number, from left to right, such as the ROC AUC for each held-out digit.
        reference: label → number, each a dashed line across, such as ``{"chance": 0.5}``.
        xlabel, ylabel, title: texts.
        ylim: (low, high) of the vertical axis. By default it begins at 0, as bars should.
        number_format: how the numbers are written above the bars.

    Returns:
        The path.

    Raises:
        ValueError: no value, a value that is not finite, or low ≥ high.
        TypeError: not real numbers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    if not values:
        raise ValueError("values: expected at least one bar, got none")
    heights = as_array([float(v) for v in values.values()], "values")
    require_finite(heights, "values")
    lines = {label: float(v) for label, v in (reference or {}).items()}
    require_finite(as_array(list(lines.values()), "reference"), "reference")
    if ylim is not None and not ylim[0] < ylim[1]:
        raise ValueError(f"ylim: expected (low, high) with low < high, got {ylim}")

    figure = new_figure(max(5.0, 1.6 + 0.62 * len(heights)), 4.2)
    axes = figure.add_subplot()
    plain_axes(axes, xlabel, ylabel, title, grid="y")
    positions = np.arange(len(heights))
    axes.bar(positions, heights, width=0.72, color=PALETTE[0])
    base = ylim[0] if ylim else 0.0
    outline = optional("matplotlib.patheffects", "matplotlib").withStroke(linewidth=2.5, foreground="white")
    for x, height in zip(positions, heights, strict=True):
        up = height >= 0
        axes.annotate(
            format(float(height), number_format).replace("-", "−"),
            (x, max(height, base) if up else height),
            xytext=(0, 3 if up else -3),
            textcoords="offset points",
            ha="center",
            va="bottom" if up else "top",
            fontsize=9,
            color=INK,
            clip_on=False,
            zorder=5,
            path_effects=[outline],
        )
    axes.set_xticks(positions, list(values))
    longest = max(len(label) for label in values)
    if longest > 8:
        axes.tick_params(axis="x", labelrotation=35)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    for i, (label, level) in enumerate(lines.items()):
        axes.axhline(level, color=PALETTE[(2 + 2 * i) % len(PALETTE)], linewidth=1.4, linestyle="--", label=label)
    if lines:
        axes.legend(
            frameon=False,
            fontsize=10,
            labelcolor=INK,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            borderaxespad=0,
        )
    if ylim is not None:
        axes.set_ylim(*ylim)
    elif heights.min() >= 0 and min(lines.values(), default=0) >= 0:
        axes.set_ylim(0, max(heights.max(), max(lines.values(), default=0)) * 1.1 or 1)
    else:
        axes.margins(y=0.12)
        axes.axhline(0, color=INK, linewidth=0.8)
    return save_figure(path, figure)

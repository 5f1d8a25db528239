"""How optimisers walk: the path of each on a surface of two variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.backend import float64
from tinygen.creation import tensor
from tinygen.nn.parameter import Parameter
from tinygen.recording import no_grad
from tinygen.tensor import Tensor
from tinygen.viz.canvas import (
    INK,
    PALETTE,
    as_array,
    as_points,
    new_figure,
    optional,
    plain_axes,
    require_finite,
    save_figure,
)

Surface = Callable[[Tensor, Tensor], Tensor]

_GRID = 161  # points along each axis at which the surface is computed


def descend(
    f: Surface, start: Sequence[float], optimizer: Callable[[list[Parameter]], Any], steps: int = 100
) -> np.ndarray:
    """The path w₀, w₁, …, w_steps that an optimiser takes from ``start`` down f(x, y).

    Each step is ``loss = f(x, y); zero_grad(); loss.backward(); step()``, in float64. A path that leaves the finite
    numbers ends with the last point that did not.

    Shapes: start (2) → (n + 1, 2) of float64, n ≤ steps.

    Args:
        f: two tensors of one shape → a tensor of that shape, such as ``lambda x, y: x**2 + 10 * y**2``.
        start: (x, y).
        optimizer: makes one of a list of parameters, such as ``lambda w: tg.optim.Adam(w, lr=0.1)``.
        steps: how many.

    Raises:
        ValueError: start is not two finite numbers, steps < 1, or f gives something else than one number.
    """
    point = as_array(start, "start").astype(np.float64)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise ValueError(f"start: expected two finite numbers (x, y), got {start!r}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    w = [Parameter(tensor(value, dtype=float64, device="cpu")) for value in point.tolist()]
    walker = optimizer(w)
    path = [point]
    for _ in range(steps):
        loss = f(*w)
        if not isinstance(loss, Tensor) or loss.shape != ():
            found = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"f: expected one number for one point (x, y), got {found}")
        walker.zero_grad()
        loss.backward()
        walker.step()
        point = np.array([part.item() for part in w])
        if not np.isfinite(point).all():
            break
        path.append(point)
    return np.stack(path)


def save_descent(
    path: str | os.PathLike,
    f: Surface,
    paths: Mapping[str, Any],
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    minimum: Sequence[float] | None = None,
    xlabel: str = "x",
    ylabel: str = "y",
    title: str = "",
) -> Path:
    """Save the contour lines of a surface with paths on it, such as :func:`descend` gives.

    Contours are at equal steps of ln(1 + (f − min f)/s), s the tenth part of f's median height over its lowest point,
    so that a narrow valley is seen as well as the slopes above it.

    Shapes: f takes two tensors (n, n) → (n, n); each path (steps + 1, 2).

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        f: the surface, computed elementwise.
        paths: label → points. The label gets the height f of the last one.
        x_range, y_range: what is shown; by default all paths and a margin.
        minimum: (x, y), marked with a star.
        xlabel, ylabel, title: texts.

    Returns:
        The path.

    Raises:
        ValueError: no path, another shape, values that are not finite, an empty range, or f gives another shape.
        TypeError: not real numbers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    if not paths:
        raise ValueError("paths: expected at least one, got none")
    walks = {label: as_points(given, f"paths[{label!r}]", "steps + 1") for label, given in paths.items()}
    shown = [*walks.values()] + ([np.array([minimum], np.float64)] if minimum is not None else [])
    everything = np.concatenate(shown)
    (x0, x1), (y0, y1) = (
        _range(name, given, everything[:, i])
        for i, (name, given) in enumerate((("x_range", x_range), ("y_range", y_range)))
    )
    x, y = np.meshgrid(np.linspace(x0, x1, _GRID), np.linspace(y0, y1, _GRID))
    z = _heights(f, x, y)
    s = max(float(np.median(z - z.min())) / 10, 1e-12)
    levels = np.log1p((z - z.min()) / s)

    figure = new_figure(7.2, 5.2)
    axes = figure.add_subplot()
    plain_axes(axes, xlabel, ylabel, title, grid="")
    axes.contourf(x, y, levels, 18, cmap="Greys", alpha=0.3, zorder=0)
    axes.contour(x, y, levels, 18, colors="white", linewidths=0.6, zorder=1)
    outline = optional("matplotlib.patheffects", "matplotlib").withStroke(linewidth=3.2, foreground="white")
    colours = (PALETTE[0], PALETTE[2], PALETTE[1], PALETTE[4], *PALETTE[5:])
    for i, (label, walk) in enumerate(walks.items()):
        height = f"{_heights(f, *walk[-1:].T)[0]:.2g}".replace("-", "−")
        axes.plot(
            *walk.T, color=colours[i % len(colours)], linewidth=1.6, marker="o", markersize=2.6, zorder=3,
            label=f"{label}: f = {height} after {len(walk) - 1} steps", path_effects=[outline],
        )  # fmt: skip
        axes.plot(*walk[-1], color=colours[i % len(colours)], marker="o", markersize=7, mec="white", zorder=5)
    axes.plot(*next(iter(walks.values()))[0], color=INK, marker="s", markersize=6, zorder=4)
    if minimum is not None:
        axes.plot(*minimum, color=INK, marker="*", markersize=13, markeredgecolor="white", zorder=6)
    axes.set_xlim(x0, x1)
    axes.set_ylim(y0, y1)
    axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=9, labelcolor=INK)
    return save_figure(path, figure)


def _range(name: str, given: tuple[float, float] | None, values: np.ndarray) -> tuple[float, float]:
    """What is shown of one axis."""
    if given is None:
        low, high = float(values.min()), float(values.max())
        margin = 0.15 * (high - low) or 1.0
        return low - margin, high + margin
    if not given[0] < given[1]:
        raise ValueError(f"{name}: expected (low, high) with low < high, got {given}")
    return given


def _heights(f: Surface, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """f at many points at once."""
    with no_grad():
        z = f(tensor(x, dtype=float64, device="cpu"), tensor(y, dtype=float64, device="cpu"))
    heights = as_array(z, "f(x, y)")
    if heights.shape != x.shape:
        raise ValueError(f"f: expected a tensor of shape {x.shape} for x and y of it, got {heights.shape}")
    require_finite(heights, "f(x, y)")
    return heights.astype(np.float64)

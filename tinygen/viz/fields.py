"""Fields of arrows in the plane, such as a score: where points are, and where the arrows around them lead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.viz.canvas import FAINT, INK, PALETTE, as_points, new_figure, plain_axes, save_figure


def save_fields(
    path: str | os.PathLike,
    panels: Mapping[str, Mapping[str, Any]],
    limit: float | None = None,
    title: str = "",
) -> Path:
    """Save panels side by side, each with points and a field of arrows, all on the same square of the plane.

    An arrow begins where it was measured and is as long as there is room for; its colour is its true length ‖v‖, on
    a logarithmic scale in each panel, dark for the longest.

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        panels: title → what to draw, from left to right: ``{"points": (N, 2), "at": (M, 2), "arrows": (M, 2)}``, where
            either the points or the two others may be missing.
        limit: the square is [−limit, limit]²; by default it holds everything.
        title: above everything.

    Returns:
        The path.

    Raises:
        ValueError: no panel, an empty one, an unknown entry, another shape, ``at`` without ``arrows`` (or the other way
            round), values that are not finite, or limit ≤ 0.
        TypeError: not real numbers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    if not panels:
        raise ValueError("panels: expected at least one, got none")
    if limit is not None and not limit > 0:
        raise ValueError(f"limit: expected a number above 0, got {limit}")
    read = {name: _read(name, panel) for name, panel in panels.items()}
    if limit is None:
        limit = 1.05 * max(float(np.abs(array).max()) for panel in read.values() for key, array in panel.items()
                           if key != "arrows") or 1.0
    figure = new_figure(3.4 * len(read), 3.7 + 0.35 * bool(title))
    for i, (name, panel) in enumerate(read.items(), start=1):
        axes = figure.add_subplot(1, len(read), i)
        plain_axes(axes, title=name, grid="")
        axes.set_xlim(-limit, limit)
        axes.set_ylim(-limit, limit)
        axes.set_aspect("equal")
        if "points" in panel:
            axes.scatter(*panel["points"].T, s=3, color=PALETTE[0], alpha=0.5, linewidths=0, zorder=1)
        if "at" in panel:
            at, v = panel["at"], panel["arrows"]
            length = np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
            room = 2 * limit / max(np.sqrt(len(at)), 1)
            arrow = 0.8 * room * v / length
            axes.quiver(
                *at.T, *arrow.T, np.log(length[:, 0]), angles="xy", scale_units="xy", scale=1, width=0.006,
                cmap="Greys", clim=_shades(length), zorder=2,
            )  # fmt: skip
        axes.tick_params(labelsize=8, colors=FAINT)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    return save_figure(path, figure)


def _shades(length: np.ndarray) -> tuple[float, float]:
    """The logarithms that are drawn white and black; nothing is drawn so light that it could not be seen."""
    low, high = float(np.log(length.min())), float(np.log(length.max()))
    return low - max(1.5 * (high - low), 1.0), high + 1e-6


def _read(name: str, panel: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of one panel, checked."""
    unknown = set(panel) - {"points", "at", "arrows"}
    if unknown or not panel or ("at" in panel) != ("arrows" in panel):
        raise ValueError(f"panels[{name!r}]: expected points, or at and arrows, or all three, got {sorted(panel)}")
    arrays = {key: as_points(value, f"panels[{name!r}][{key!r}]") for key, value in panel.items()}
    if "at" in arrays and arrays["at"].shape != arrays["arrows"].shape:
        raise ValueError(
            f"panels[{name!r}]: at {arrays['at'].shape} and arrows {arrays['arrows'].shape} must have one shape"
        )
    return arrays

"""Latent spaces: where the data lie in them, and what a decoder makes of each place."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from tinygen.backend import get_default_device, get_default_dtype, move
from tinygen.recording import no_grad
from tinygen.tensor import Tensor
from tinygen.viz.canvas import (
    FAINT,
    INK,
    PALETTE,
    as_array,
    new_figure,
    optional,
    plain_axes,
    require_finite,
    save_figure,
    to_pixels,
)
from tinygen.viz.grids import enlarge


def principal_axes(z: Any, k: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k directions along which the points spread most (principal component analysis).

    With the centred points Z − μ = U S Vᵀ, the directions are the first k rows of Vᵀ, and direction i
    explains Sᵢ² / Σⱼ Sⱼ² of the variance. Coordinates on them are (z − μ) Aᵀ. Each direction's sign is chosen
    so that its largest component is positive, so that the same points give the same picture.

    Shapes: z (N, D) → mean μ (D,), axes A (k, D), explained (k,), all float64.

    Raises:
        ValueError: another shape, fewer than k dimensions or points, or values that are not finite.
        TypeError: not real numbers.

    Source: Pearson, *On Lines and Planes of Closest Fit* (1901).
    """
    points = as_array(z, "z").astype(np.float64)
    if points.ndim != 2 or min(points.shape) < k or k < 1:
        raise ValueError(f"z: expected shape (N, D) with N and D of at least k = {k}, got {points.shape}")
    require_finite(points, "z")
    mean = points.mean(axis=0)
    _, s, vt = np.linalg.svd(points - mean, full_matrices=False)
    axes = vt[:k]
    axes = axes * np.where(axes[np.arange(k), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    total = float((s**2).sum())
    explained = s[:k] ** 2 / total if total > 0 else np.zeros(k)
    return mean, axes, explained


def save_latent_map(
    path: str | os.PathLike,
    z: Any,
    labels: Any = None,
    title: str = "",
    class_names: Sequence[str] | None = None,
    label_name: str = "",
) -> Path:
    """Save a scatter plot of latent points, coloured by class.

    More than two dimensions are projected on their two principal axes (:func:`principal_axes`); the axis
    labels then say so, with the share of the variance that each explains. Whole numbers as labels are
    classes: each has a colour, an entry in the legend and its name at the median of its points. Floating
    labels are a scale, with a colour bar.

    Shapes: z (N, D), D ≥ 2; labels (N,).

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        z: the points.
        labels: integers (at most 20 different ones), floating numbers, or None for one colour.
        title: above the plot.
        class_names: a name for each class, in the order of the sorted labels; by default the numbers.
        label_name: what the labels are, above the legend or beside the colour bar.

    Returns:
        The path.

    Raises:
        ValueError: another shape, values that are not finite, more than 20 classes, the wrong number of
            names, or names without classes.
        TypeError: not real numbers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    points = as_array(z, "z")
    if points.ndim != 2 or points.shape[1] < 2 or points.shape[0] < 1:
        raise ValueError(f"z: expected shape (N, D) with N ≥ 1 and D ≥ 2, got {points.shape}")
    require_finite(points, "z")
    if points.shape[1] > 2:
        mean, axes_of, explained = principal_axes(points)
        points = (points - mean) @ axes_of.T
        names = [f"principal axis {i + 1} ({100 * share:.0f} % of the variance)" for i, share in enumerate(explained)]
    else:
        names = ["z₁", "z₂"]
    given = None if labels is None else as_array(labels, "labels")
    if given is not None and given.shape != points.shape[:1]:
        raise ValueError(f"labels: expected shape ({len(points)},), one for each point, got {given.shape}")
    by_class = given is not None and given.dtype.kind != "f"
    classes = np.unique(given) if given is not None and by_class else np.array([])
    if len(classes) > 20:
        raise ValueError(f"labels: {len(classes)} classes cannot be told apart by colour, at most 20 can")
    if class_names is not None and len(class_names) != len(classes):
        raise ValueError(f"class_names: expected {len(classes)} names, one for each class, got {len(class_names)}")

    figure = new_figure(7.2, 6)
    axes = figure.add_subplot()
    plain_axes(axes, names[0], names[1], title)
    size = float(np.clip(9000 / len(points), 6, 30))
    style = {"s": size, "linewidths": 0, "alpha": 0.75, "rasterized": True}
    if given is None:
        axes.scatter(points[:, 0], points[:, 1], color=PALETTE[0], **style)
    elif not by_class:
        require_finite(given, "labels")
        drawn = axes.scatter(points[:, 0], points[:, 1], c=given, cmap="viridis", **style)
        bar = figure.colorbar(drawn, ax=axes, label=label_name)
        bar.outline.set_visible(False)
        bar.solids.set_alpha(1)
    else:
        colours = class_colours(len(classes))
        texts = list(class_names) if class_names is not None else [str(c) for c in classes.tolist()]
        # In one call and in a shuffled order, so that the last class does not lie on top of the others.
        order = np.random.default_rng(0).permutation(len(points))
        index = np.searchsorted(classes, given)
        axes.scatter(points[order, 0], points[order, 1], color=np.array(colours)[index[order]], **style)
        outline = optional("matplotlib.patheffects", "matplotlib").withStroke(linewidth=3, foreground="white")
        for i, (colour, text) in enumerate(zip(colours, texts, strict=True)):
            axes.scatter([], [], color=colour, s=40, label=text)
            x, y = np.median(points[index == i], axis=0)
            axes.text(
                x,
                y,
                text,
                fontsize=13,
                fontweight="bold",
                color=INK,
                ha="center",
                va="center",
                path_effects=[outline],
            )
        legend = axes.legend(
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            frameon=False,
            fontsize=10,
            labelcolor=INK,
            title=label_name or None,
            handletextpad=0.3,
        )
        legend.get_title().set_color(INK)
    return save_figure(path, figure)


def class_colours(n: int) -> list:
    """n colours that can be told apart: the accessible ten, and the same ten darkened for up to 20."""
    to_rgb = optional("matplotlib.colors", "matplotlib").to_rgb
    return [tuple(part * (1.0 if i < 10 else 0.55) for part in to_rgb(PALETTE[i % 10])) for i in range(n)]


def save_manifold(
    path: str | os.PathLike,
    decode: Callable[[Tensor], Any],
    n: int = 16,
    x_range: tuple[float, float] = (-2.0, 2.0),
    y_range: tuple[float, float] = (-2.0, 2.0),
    quantiles: bool = False,
    origin: Any = None,
    axes: Any = None,
    value_range: tuple[float, float] | None = None,
    scale: int | None = None,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
) -> Path:
    """Save what a decoder makes of a regular grid in a plane of its latent space.

    The picture in column i and row j shows decode(o + xᵢ a + yⱼ b), with y growing upwards. The xᵢ are n
    evenly spaced numbers over ``x_range``; with ``quantiles`` they are Φ⁻¹ of n evenly spaced probabilities
    between Φ(x_range[0]) and Φ(x_range[1]), so that under a standard normal prior every cell is equally
    likely.

    Shapes: decode takes (n², D) in the default dtype on the default device, and gives (n², C, H, W), C = 1 or
    3.

    Args:
        path: ends in ``.png``.
        decode: the decoder; it is called once, with recording off.
        n: pictures along each axis, at least 2.
        x_range, y_range: where the grid begins and ends, in the plane's coordinates.
        quantiles: space the grid by the normal distribution's quantiles.
        origin: o, of shape (D,); by default 0.
        axes: a and b, of shape (2, D), such as :func:`principal_axes` gives; by default the two axes of a
            two-dimensional latent space.
        value_range: as in :func:`tinygen.viz.save_grid`.
        scale: screen pixels for each pixel; by default enough for about 800 along the longer side.
        title, xlabel, ylabel: texts; the labels are by default z₁ and z₂.

    Returns:
        The path.

    Raises:
        ValueError: n < 2, an empty range, shapes that do not fit, or what the decoder gave cannot be drawn.
        TypeError: not real numbers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.

    Source: Kingma & Welling, *Auto-Encoding Variational Bayes* (2013), figure 4.
    """
    if n < 2:
        raise ValueError(f"n: expected at least 2 pictures along each axis, got {n}")
    for name, (low, high) in (("x_range", x_range), ("y_range", y_range)):
        if not low < high:
            raise ValueError(f"{name}: expected (low, high) with low < high, got ({low}, {high})")
    plane = np.eye(2) if axes is None else as_array(axes, "axes").astype(np.float64)
    if plane.ndim != 2 or plane.shape[0] != 2:
        raise ValueError(f"axes: expected shape (2, D), got {plane.shape}")
    o = np.zeros(plane.shape[1]) if origin is None else as_array(origin, "origin").astype(np.float64)
    if o.shape != plane.shape[1:]:
        raise ValueError(f"origin: expected shape ({plane.shape[1]},), as wide as the axes, got {o.shape}")

    xs, ys = (_spaced(low, high, n, quantiles) for low, high in (x_range, y_range))
    x, y = np.meshgrid(xs, ys[::-1])
    points = o + x.reshape(-1, 1) * plane[0] + y.reshape(-1, 1) * plane[1]
    with no_grad():
        decoded = decode(Tensor(move(points.astype(get_default_dtype()), get_default_device())))
    tiles = to_pixels(decoded, "decode(z)", value_range)
    if len(tiles) != n * n:
        raise ValueError(f"decode(z): expected {n * n} images, one for each of n² = {n}² points, got {len(tiles)}")

    _, h, w, _ = tiles.shape
    scale = scale or max(1, round(800 / (n * max(h, w))))
    h, w = h * scale, w * scale
    rim = max(1, scale // 4)  # white, around each picture: without it black pictures run into each other
    framed = np.full((n * n, h + 2 * rim, w + 2 * rim, 3), 255, dtype=np.uint8)
    framed[:, rim : rim + h, rim : rim + w] = enlarge(tiles, scale)
    h, w = h + 2 * rim, w + 2 * rim
    mosaic = framed.reshape(n, n, h, w, 3).transpose(0, 2, 1, 3, 4).reshape(n * h, n * w, 3)
    left, right, bottom, top = 115, 25, 80, 70 if title else 25  # pixels
    figure = new_figure(1, 1, layout=None)
    plot = figure.add_axes((0, 0, 1, 1))
    plain_axes(plot, xlabel or "z₁", ylabel or "z₂", title, grid="")
    if quantiles:
        # Unevenly spaced coordinates: the axes count cells, and some of them are named.
        extent = (-0.5, n - 0.5, -0.5, n - 0.5)
        half = np.linspace(0, (n - 1) // 2, min(3, (n + 1) // 2)).round().astype(int)
        ticks = np.unique(np.concatenate([half, n - 1 - half]))
        plot.set_xticks(ticks, [_short(xs[t]) for t in ticks])
        plot.set_yticks(ticks, [_short(ys[t]) for t in ticks])
    else:
        dx, dy = (xs[1] - xs[0]) / 2, (ys[1] - ys[0]) / 2
        extent = (xs[0] - dx, xs[-1] + dx, ys[0] - dy, ys[-1] + dy)
    plot.set_xlim(extent[:2])
    plot.set_ylim(extent[2:])
    plot.set_facecolor("none")
    plot.spines[:].set_visible(False)
    plot.tick_params(color=FAINT, labelsize=10)

    def place(left: int) -> None:
        width, height = left + n * w + right, bottom + n * h + top
        figure.set_size_inches(width / figure.dpi, height / figure.dpi)
        plot.set_position((left / width, bottom / height, n * w / width, n * h / height))

    place(left)
    left += max(0, round(10 - plot.get_tightbbox(figure.canvas.get_renderer()).x0))
    place(left)  # with room for labels that turned out wider than the margin
    # Not imshow: figimage copies pixel for pixel, where even a nearest-neighbour resampling may shift some by one.
    figure.figimage(mosaic, xo=left, yo=bottom, origin="upper")
    return save_figure(path, figure, (".png",))


def _spaced(low: float, high: float, n: int, quantiles: bool) -> np.ndarray:
    """n coordinates from low to high: evenly spaced, or evenly spaced in probability."""
    if not quantiles:
        return np.linspace(low, high, n)
    normal = NormalDist()
    return np.array([normal.inv_cdf(p) for p in np.linspace(normal.cdf(low), normal.cdf(high), n)])


def _short(value: float) -> str:
    """Two digits, a proper minus sign, and no rounding error that looks like a number."""
    return f"{round(value, 9) + 0.0:.2g}".replace("-", "−")

"""What every picture stands on: arrays from tensors, pixels from numbers, a figure, a file written whole."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tinygen.backend import is_array, to_numpy
from tinygen.files import whole_file
from tinygen.tensor import Tensor

INK = "#222222"
FAINT = "#8a8a8a"

# Ten colours that stay apart for readers with any of the common colour-vision deficiencies, in the order that
# keeps neighbours furthest apart. Source: M. A. Petroff, Accessible Color Sequences for Data Visualization,
# arXiv:2107.02270, the ten-colour sequence.
PALETTE = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


def optional(module: str, package: str) -> Any:
    """Import a drawing library when the first picture needs it.

    Args:
        module: its import name, such as ``"PIL.Image"``.
        package: its name for pip, such as ``"Pillow"``.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise ImportError(
            f"drawing needs {package}, which is not installed; install what the pictures need with "
            'python -m pip install "tinygen[demos]"',
            name=error.name,
        ) from error


def as_array(value: Any, name: str) -> np.ndarray:
    """Read a tensor, a NumPy or CuPy array or nested numbers as a NumPy array, from whatever device.

    Raises:
        TypeError: ``value`` holds something other than real numbers.
        ValueError: nested numbers of uneven lengths.
    """
    if isinstance(value, Tensor):
        value = value.data
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) or is_array(item) for item in value):
        items = [as_array(item, f"{name}[{i}]") for i, item in enumerate(value)]
        shapes = [item.shape for item in items]
        if len(set(shapes)) > 1:
            raise ValueError(f"{name}: expected arrays of one shape, got {', '.join(map(str, shapes))}")
        value = np.stack(items)
    array = to_numpy(value) if is_array(value) else np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array


class NotFiniteError(ValueError):
    """nan and infinity cannot be drawn."""


def require_finite(array: np.ndarray, name: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        NotFiniteError: with how many there are and where the first one is.
    """
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), array.shape))
        raise NotFiniteError(
            f"{name}: {int(bad.sum())} of {array.size} values are not finite, the first, {array[where]}, at "
            f"{list(where)}; NaN and infinity cannot be drawn"
        )


def as_points(value: Any, name: str, rows: str = "N") -> np.ndarray:
    """Points of the plane as float64, (N, 2) with N ≥ 1; ``rows`` is what the message calls N.

    Raises:
        TypeError: ``value`` holds something other than real numbers.
        ValueError: another shape, or values that are not finite.
    """
    points = as_array(value, name).astype(np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"{name}: expected shape ({rows}, 2), got {points.shape}")
    require_finite(points, name)
    return points


def to_pixels(images: Any, name: str, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """Images as bytes in drawing order: p = round(255·(x − low)/(high − low)), clipped to 0…255.

    Shapes: (N, C, H, W) with C = 1 (grey) or 3 (red, green, blue) → (N, H, W, 3) of uint8.

    Args:
        images: a tensor or array, or a list of N images of shape (C, H, W).
        name: the argument's name, for messages.
        value_range: (low, high), drawn black and white; values outside are clipped. By default (0, 1), and
            for uint8 (0, 255).

    Raises:
        ValueError: another shape, no image at all, a value that is not finite, or low ≥ high.
        TypeError: neither floating numbers, bool nor uint8.
    """
    array = as_array(images, name)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        hint = "; add the channel axis with x[:, None]" if array.ndim == 3 else ""
        raise ValueError(f"{name}: expected shape (N, C, H, W) with C = 1 or 3, got {array.shape}{hint}")
    if array.dtype.kind != "f" and array.dtype not in (np.dtype(bool), np.dtype(np.uint8)):
        raise TypeError(f"{name}: expected floating numbers, bool or uint8, got {array.dtype}")
    require_finite(array, name)
    low, high = value_range if value_range is not None else (0, 255 if array.dtype == np.uint8 else 1)
    if not low < high:
        raise ValueError(f"value_range: expected (low, high) with low < high, got ({low}, {high})")
    pixels = np.rint((array.astype(np.float64) - low) * (255.0 / (high - low))).clip(0, 255).astype(np.uint8)
    return np.broadcast_to(pixels.transpose(0, 2, 3, 1), (*pixels.shape[:1], *pixels.shape[2:], 3))


def write_picture(path: str | os.PathLike, suffixes: Sequence[str], write: Callable[[BinaryIO], None]) -> Path:
    """Write a picture whole or not at all, creating its folder: a failure leaves the old file as it was.

    Args:
        path: where to.
        suffixes: the endings that this kind of picture can have, such as ``(".png",)``.
        write: called with the open binary file.

    Returns:
        ``path`` as a ``Path``.

    Raises:
        ValueError: another ending.
        OSError: the folder or the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise ValueError(f"path: expected a name that ends in {' or '.join(suffixes)}, got {target.name!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        write(file)
    return target


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Any:
    """A matplotlib figure of its own, with its own Agg canvas: no pyplot, no display, nothing to close.

    Args:
        width, height: in inches, at 150 dots per inch.
        layout: ``"constrained"`` moves the axes so that no label is cut; None leaves them where they are put.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure_class = optional("matplotlib.figure", "matplotlib").Figure
    canvas_class = optional("matplotlib.backends.backend_agg", "matplotlib").FigureCanvasAgg
    figure = figure_class(figsize=(width, height), dpi=150, layout=layout, facecolor="white")
    canvas_class(figure)
    return figure


def plain_axes(axes: Any, xlabel: str = "", ylabel: str = "", title: str = "", grid: str = "both") -> None:
    """The look that every plot shares: two spines, a faint grid behind, labels of one size."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=10, length=3, width=0.8)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, axis=grid, color="#e6e6e6", linewidth=0.8)
    axes.set_xlabel(xlabel, fontsize=11, color=INK)
    axes.set_ylabel(ylabel, fontsize=11, color=INK)
    if title:
        axes.set_title(title, fontsize=13, color=INK, loc="left", pad=10)


def save_figure(path: str | os.PathLike, figure: Any, suffixes: Sequence[str] = (".png", ".svg", ".pdf")) -> Path:
    """Write a figure in the format that the path's ending names, whole or not at all.

    Raises:
        ValueError: an ending that is not among ``suffixes``.
        OSError: the file cannot be written.
    """
    kind = Path(path).suffix.lower().lstrip(".")

    def write(file: BinaryIO) -> None:
        figure.savefig(file, format=kind, dpi="figure", facecolor="white", bbox_inches=None)

    return write_picture(path, suffixes, write)

"""Matrices as they are written on a blackboard: every number in its cell, some of them framed in a colour."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygen.viz.canvas import FAINT, INK, PALETTE, as_array, new_figure, optional, require_finite, save_figure

Mark = tuple[int, int, int, int]  # first row, first column, rows, columns

MOST = 40_000  # cells in one picture
WRITTEN = 700  # cells in one picture, up to which the numbers are written
_NEGATIVE, _POSITIVE = "#f6b26b", "#8fc1ee"
_TITLE, _LABEL, _GAP, _SIGN, _MARGIN = 0.3, 0.24, 0.3, 0.42, 0.2  # inches
_MARKS = (PALETTE[2], PALETTE[4], PALETTE[6], "#1a7f37", PALETTE[8], PALETTE[5])


class Panel(NamedTuple):
    """One matrix of a picture.

    Attributes:
        array: (rows, columns).
        title: above it.
        marks: rectangles (first row, first column, rows, columns), the k-th of each panel in one colour.
        faint: None, or where (rows, columns) a number was only put in, such as padding: written in grey.
        sign: what stands between this matrix and the one on its left.
        row_labels, column_labels: a text for each row, or for each column, or none.
    """

    array: np.ndarray
    title: str = ""
    marks: Sequence[Mark] = ()
    faint: np.ndarray | None = None
    sign: str = ""
    row_labels: Sequence[str] = ()
    column_labels: Sequence[str] = ()


def save_matrices(
    path: str | os.PathLike,
    matrices: Mapping[str, Any],
    signs: Sequence[str] = (),
    marks: Mapping[str, Sequence[Mark]] | None = None,
    title: str = "",
) -> Path:
    """Save matrices side by side with their numbers, such as A · B = C with what makes one number of C framed.

    The colour of a cell is x/max |x| within its matrix: blue above 0, white at 0, orange below. Numbers are written
    where there are no more than 700.

    Shapes: each (rows, columns), or (n) for one row.

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        matrices: title → matrix, from left to right.
        signs: what stands between them, one fewer than there are matrices, such as ``("·", "=")``.
        marks: title → rectangles ``(first row, first column, rows, columns)``. The k-th rectangle of every matrix has
            the k-th colour, so that what belongs together is seen.
        title: above everything.

    Returns:
        The path.

    Raises:
        ValueError: no matrix, another shape, values that are not finite, a wrong number of signs, marks of a matrix
            that is not there or that reach outside theirs, or more than 40,000 cells.
        TypeError: not real numbers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    if not matrices:
        raise ValueError("matrices: expected at least one, got none")
    if signs and len(signs) != len(matrices) - 1:
        raise ValueError(f"signs: expected {len(matrices) - 1}, one between every two matrices, got {len(signs)}")
    marks = marks or {}
    unknown = sorted(set(marks) - set(matrices))
    if unknown:
        raise ValueError(f"marks: there is no matrix {unknown[0]!r}; there are {', '.join(map(repr, matrices))}")
    panels = []
    for i, (name, matrix) in enumerate(matrices.items()):
        array = np.atleast_2d(as_array(matrix, f"matrices[{name!r}]"))
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"matrices[{name!r}]: expected shape (rows, columns), got {array.shape}")
        require_finite(array, f"matrices[{name!r}]")
        framed = tuple(marks.get(name, ()))
        for row, column, rows, columns in framed:
            last = (row + rows, column + columns)
            if min(row, column) < 0 or min(rows, columns) < 1 or last[0] > array.shape[0] or last[1] > array.shape[1]:
                raise ValueError(
                    f"marks[{name!r}]: the rectangle of {rows} rows and {columns} columns from ({row}, {column}) "
                    f"reaches outside the matrix of shape {array.shape}"
                )
        panels.append(Panel(array, name, framed, sign=signs[i - 1] if signs and i else ""))
    return draw_panels(path, [panels], title)


def draw_panels(path: str | os.PathLike, rows: Sequence[Sequence[Panel]], title: str = "") -> Path:
    """Save rows of matrices, each row centred on its middle line.

    Raises:
        ValueError: more than ``MOST`` cells, which nobody could read.
    """
    panels = [panel for row in rows for panel in row]
    cells = sum(panel.array.size for panel in panels)
    if cells > MOST:
        raise ValueError(f"{cells} cells cannot be read in one picture, at most {MOST} can; draw a smaller part")
    written = cells <= WRITTEN
    texts = [[_number(value, panel.array) for value in panel.array.flat] for panel in panels] if written else []
    longest = max((len(text) for each in texts for text in each), default=1)
    cells_of = [max(0.34, 0.12 + 0.085 * longest) if written else _small(row) for row in rows]

    sizes = [[_size(panel, cell) for panel in row] for row, cell in zip(rows, cells_of, strict=True)]
    widths = [
        sum(width for width, _, _ in row) + sum(_gap(panel) for panel in panels[1:])
        for row, panels in zip(sizes, rows, strict=True)
    ]
    heights = [max(height for _, height, _ in row) for row in sizes]
    top = 0.38 * bool(title)
    width = max([*widths, 0.105 * len(title)]) + 2 * _MARGIN
    height = sum(heights) + _GAP * (len(rows) - 1) + 2 * _MARGIN + top

    figure = new_figure(width, height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    if title:
        axes.text(_MARGIN, _MARGIN + 0.08, title, fontsize=12, color=INK, va="center")
    y = _MARGIN + top
    for row, cell, size, row_height in zip(rows, cells_of, sizes, heights, strict=True):
        x = _MARGIN
        for i, (panel, (w, h, left)) in enumerate(zip(row, size, strict=True)):
            above = _above(panel)
            body = y + (row_height - h) / 2 + above
            if i:
                if panel.sign:
                    middle = body + cell * panel.array.shape[0] / 2
                    points = 26 if panel.sign == "·" else 15
                    axes.text(x + _gap(panel) / 2, middle, panel.sign, fontsize=points, color=INK, ha="center",
                              va="center")  # fmt: skip
                x += _gap(panel)
            _draw(axes, panel, x + left, body, cell, written)
            x += w
        y += row_height + _GAP
    return save_figure(path, figure)


def _above(panel: Panel) -> float:
    """How much room the texts above a matrix need."""
    return (_TITLE if panel.title else 0.0) + (_LABEL if len(panel.column_labels) else 0.0)


def _gap(panel: Panel) -> float:
    return _SIGN + 0.13 * (len(panel.sign) - 1) if panel.sign else _GAP


def _small(row: Sequence[Panel]) -> float:
    """The side of a cell without a number, in inches: so that a row of matrices is about ten wide and three high."""
    wide, high = sum(panel.array.shape[1] for panel in row), max(panel.array.shape[0] for panel in row)
    return float(np.clip(min(10 / wide, 3 / high), 0.015, 0.2))


def _size(panel: Panel, cell: float) -> tuple[float, float, float]:
    """Width and height of a panel with its texts, and how much of the width is left of the matrix."""
    rows, columns = panel.array.shape
    left = 0.1 + 0.075 * max((len(text) for text in panel.row_labels), default=0) if len(panel.row_labels) else 0.0
    return left + max(columns * cell, 0.088 * len(panel.title)), _above(panel) + rows * cell, left


def _number(value: Any, array: np.ndarray) -> str:
    """A number as it is written in its cell: whole numbers as such, others with two digits."""
    whole = array.dtype.kind != "f" or bool((array == np.rint(array)).all())
    if whole:
        text = str(int(value))
    elif np.abs(array).max() < 100:
        text = f"{round(float(value), 2) + 0.0:g}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "−")


def _overlap(one: Mark, other: Mark) -> bool:
    """Whether two rectangles have a cell in common."""
    return all(max(one[i], other[i]) < min(one[i] + one[i + 2], other[i] + other[i + 2]) for i in (0, 1))


def _draw(axes: Any, panel: Panel, x: float, y: float, cell: float, written: bool) -> None:
    """One matrix with its upper left corner at (x, y), in inches; y grows downwards."""
    patches = optional("matplotlib.patches", "matplotlib")
    colours = optional("matplotlib.colors", "matplotlib").LinearSegmentedColormap
    array = panel.array.astype(np.float64)
    rows, columns = array.shape
    most = float(np.abs(array).max()) or 1.0
    shown = np.ma.array(array, mask=panel.faint) if panel.faint is not None else array
    if panel.faint is not None:
        axes.add_patch(patches.Rectangle((x, y), columns * cell, rows * cell, facecolor="#f2f2f2", zorder=0))
    axes.pcolormesh(
        x + cell * np.arange(columns + 1), y + cell * np.arange(rows + 1), shown,
        cmap=colours.from_list("signs", [_NEGATIVE, "white", _POSITIVE]), vmin=-most, vmax=most,
        edgecolors="#d5d5d5" if written else "none", linewidth=0.6, zorder=1, antialiased=written,
    )  # fmt: skip
    axes.add_patch(
        patches.Rectangle((x, y), columns * cell, rows * cell, fill=False, edgecolor=FAINT, linewidth=0.8, zorder=2)
    )
    if written:
        for i in range(rows):
            for j in range(columns):
                grey = panel.faint is not None and panel.faint[i, j]
                axes.text(
                    x + (j + 0.5) * cell, y + (i + 0.52) * cell, _number(panel.array[i, j], panel.array),
                    fontsize=10, color="#a0a0a0" if grey else INK, ha="center", va="center", zorder=4,
                )  # fmt: skip
    for k, (row, column, height, width) in enumerate(panel.marks):
        covered = sum(_overlap(panel.marks[j], (row, column, height, width)) for j in range(k))
        inset = 0.03 + 0.035 * (covered % 3) if written else 0.0  # so that frames which overlap can be told apart
        corner = (x + column * cell + inset, y + row * cell + inset)
        axes.add_patch(
            patches.Rectangle(
                corner, width * cell - 2 * inset, height * cell - 2 * inset,
                fill=False, edgecolor=_MARKS[k % len(_MARKS)], linewidth=2.2, zorder=3,
            )
        )  # fmt: skip
    if panel.title:
        axes.text(x, y - _above(panel) + 0.08, panel.title, fontsize=10, color=INK, va="center")
    for i, text in enumerate(panel.row_labels):
        axes.text(x - 0.07, y + (i + 0.5) * cell, text, fontsize=8, color="#555555", ha="right", va="center")
    for j, text in enumerate(panel.column_labels):
        axes.text(x + (j + 0.5) * cell, y - 0.1, text, fontsize=8, color="#555555", ha="center", va="center")

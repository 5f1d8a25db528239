"""Grids of images: as an array, as a picture with captions, as labelled rows for before and after."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.viz.canvas import INK, as_array, optional, require_finite, to_pixels, write_picture

TEXT, TITLE, GAP, MARGIN = 15, 19, 3, 12  # pixels


def make_grid(
    images: Any,
    nrow: int = 8,
    padding: int = 2,
    normalize: bool = False,
    value_range: tuple[float, float] | None = None,
    scale_each: bool = False,
    pad_value: float = 0.0,
) -> np.ndarray:
    """Lay a batch of images out as one image, row by row.

    With r = ⌈N / nrow⌉ rows of c = min(nrow, N) columns and p = ``padding``, image k has its upper left pixel
    at (p + (k div c)(H + p), p + (k mod c)(W + p)). Cells left over hold ``pad_value``.

    Shapes: (N, C, H, W), a list of N images (C, H, W), one image (C, H, W) or (H, W)
    → (C′, r(H + p) + p, c(W + p) + p), where C′ is C, or 3 for C = 1: grey is repeated. One image alone comes
    back without a border, (C′, H, W).

    Args:
        images: a tensor or array.
        nrow: images in a row.
        padding: pixels between images and around them.
        normalize: map ``value_range`` to (0, 1) and clip what lies outside.
        value_range: (low, high) for ``normalize``; by default the smallest and largest value.
        scale_each: take the smallest and largest value of each image, not of the whole batch.
        pad_value: the value between the images.

    Returns:
        A NumPy array of the same dtype (``torchvision`` gives a tensor); floating where ``normalize`` is set.

    Raises:
        ValueError: another shape, nrow < 1, padding < 0, a value that is not finite while ``normalize`` is
            set, low ≥ high, or a ``value_range`` or ``scale_each`` without ``normalize``, which would do nothing.
        TypeError: not real numbers.

    Source: ``torchvision.utils.make_grid``.
    """
    array = as_array(images, "images")
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(f"images: expected shape (N, C, H, W), (C, H, W) or (H, W), got {array.shape}")
    if nrow < 1 or padding < 0:
        raise ValueError(f"expected nrow ≥ 1 and padding ≥ 0, got nrow={nrow}, padding={padding}")
    if not normalize and (value_range is not None or scale_each):
        raise ValueError("value_range and scale_each act only with normalize=True")
    if normalize:
        require_finite(array, "images")
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError(f"value_range: expected (low, high) with low < high, got {tuple(value_range)}")
        array = array if array.dtype.kind == "f" else array.astype(np.float32)
        axes = (1, 2, 3) if scale_each else (0, 1, 2, 3)
        low = value_range[0] if value_range else array.min(axis=axes, keepdims=True)
        high = value_range[1] if value_range else array.max(axis=axes, keepdims=True)
        # 1e-5 keeps an image of one value from dividing by zero, as torchvision does.
        array = (array.clip(low, high) - low) / np.maximum(high - low, 1e-5).astype(array.dtype)
    if array.shape[1] == 1:
        array = np.repeat(array, 3, axis=1)
    n, c, h, w = array.shape
    if n == 1:
        return array[0].copy()
    columns = min(nrow, n)
    rows = -(-n // columns)
    shape = (c, rows * (h + padding) + padding, columns * (w + padding) + padding)
    grid = np.full(shape, pad_value, dtype=array.dtype)
    for k in range(n):
        top, left = padding + k // columns * (h + padding), padding + k % columns * (w + padding)
        grid[:, top : top + h, left : left + w] = array[k]
    return grid


def default_scale(height: int, width: int) -> int:
    """How many pixels of the screen show one pixel of the image, so that its longer side is 56 or more."""
    return max(1, -(-56 // max(height, width)))


def font(size: int) -> Any:
    """DejaVu Sans, ``size`` in pixels: it comes with matplotlib and has Greek and mathematical signs."""
    folder = optional("matplotlib", "matplotlib").get_data_path()
    return optional("PIL.ImageFont", "Pillow").truetype(os.path.join(folder, "fonts", "ttf", "DejaVuSans.ttf"), size)


def enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Nearest-neighbour enlargement: every pixel becomes a square of scale × scale. (..., H, W, C)."""
    return pixels.repeat(scale, axis=-3).repeat(scale, axis=-2)


def draw_grid(
    tiles: np.ndarray,
    ncols: int,
    scale: int | None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    title: str = "",
) -> Any:
    """Draw tiles of pixels on white paper, with their texts, as a Pillow image.

    Shapes: (N, H, W, 3) of uint8. A column is as wide as its widest tile or text, so that no text is cut.

    Raises:
        ValueError: a number of labels that differs from the number of things to label; ncols or scale below
            1.
        ImportError: Pillow or matplotlib (for its font) is not installed.
    """
    n, h, w, _ = tiles.shape
    if ncols < 1 or (scale is not None and scale < 1):
        raise ValueError(f"expected ncols ≥ 1 and scale ≥ 1, got ncols={ncols}, scale={scale}")
    ncols = min(ncols, n)
    nrows = -(-n // ncols)
    for name, texts, expected in (
        ("row_labels", row_labels, nrows),
        ("column_labels", column_labels, ncols),
        ("captions", captions, n),
    ):
        if texts is not None and len(texts) != expected:
            raise ValueError(f"{name}: expected {expected} texts, got {len(texts)}")

    image_module = optional("PIL.Image", "Pillow")
    draw_module = optional("PIL.ImageDraw", "Pillow")
    text_font, title_font = font(TEXT), font(TITLE)
    ruler = draw_module.Draw(image_module.new("RGB", (1, 1)))

    def size(texts: Sequence[str] | None, f: Any = text_font) -> tuple[int, int]:
        """The largest width and height among some texts; nothing takes no room."""
        boxes = [ruler.multiline_textbbox((0, 0), t, font=f, spacing=2) for t in texts or () if t]
        width, height = np.ceil(np.array(boxes)[:, 2:].max(axis=0)) if boxes else (0, 0)
        return int(width), int(height)

    scale = scale or default_scale(h, w)
    tile_h, tile_w = h * scale, w * scale
    caption_w, caption_h = size(captions)
    header_w, header_h = size(column_labels)
    label_w, label_h = size(row_labels)
    title_w, title_h = size([title], title_font)
    between = 8  # pixels between a text and what it labels

    cell_w = max(tile_w, caption_w + between if caption_w else 0, header_w + between if header_w else 0)
    cell_h = max(tile_h, label_h) + (caption_h + between if caption_h else 0)
    left = MARGIN + (label_w + between if label_w else 0)
    top = MARGIN + (title_h + between if title_h else 0) + (header_h + between // 2 if header_h else 0)
    width = max(left + ncols * (cell_w + GAP) - GAP, MARGIN + title_w) + MARGIN
    height = top + nrows * (cell_h + GAP) - GAP + MARGIN

    picture = image_module.new("RGB", (width, height), "white")
    draw = draw_module.Draw(picture)
    if title:
        draw.multiline_text((MARGIN, MARGIN), title, fill=INK, font=title_font, spacing=2)
    for k, tile in enumerate(enlarge(tiles, scale)):
        row, column = divmod(k, ncols)
        x = left + column * (cell_w + GAP) + (cell_w - tile_w) // 2
        y = top + row * (cell_h + GAP)
        picture.paste(image_module.fromarray(np.ascontiguousarray(tile)), (x, y))
        middle = x + tile_w // 2
        if captions is not None:
            draw.multiline_text(
                (middle, y + tile_h + 3),
                captions[k],
                fill=INK,
                font=text_font,
                anchor="ma",
                align="center",
                spacing=2,
            )
        if column_labels is not None and row == 0:
            draw.multiline_text(
                (middle, top - header_h - between // 2),
                column_labels[column],
                fill=INK,
                font=text_font,
                anchor="ma",
                align="center",
                spacing=2,
            )
        if row_labels is not None and column == 0:
            draw.multiline_text(
                (left - between, y + tile_h // 2),
                row_labels[row],
                fill=INK,
                font=text_font,
                anchor="rm",
                align="right",
                spacing=2,
            )
    return picture


def save_grid(
    path: str | os.PathLike,
    images: Any,
    ncols: int = 8,
    scale: int | None = None,
    value_range: tuple[float, float] | None = None,
    captions: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str = "",
) -> Path:
    """Save a batch of images as one PNG, enlarged so that an 8×8 digit can be seen, with texts around them.

    Pixels are enlarged by squares (nearest neighbour), so that what is seen is what the model made.

    Shapes: (N, C, H, W), C = 1 or 3, or a list of N images (C, H, W).

    Args:
        path: ends in ``.png``.
        images: a tensor or array.
        ncols: images in a row.
        scale: screen pixels for each pixel; by default enough for a longer side of 56 or more.
        value_range: (low, high), drawn black and white, values outside clipped; by default (0, 1), for uint8
            (0, 255). Pictures in [−1, 1] need ``value_range=(-1, 1)``.
        captions: N texts, under the images.
        row_labels, column_labels: a text for each row, on its left, and each column, above it.
        title: above everything.

    Returns:
        The path.

    Raises:
        ValueError: another shape, values that are not finite, the wrong number of texts, another ending.
        TypeError: neither floating numbers, bool nor uint8.
        ImportError: Pillow or matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    tiles = to_pixels(images, "images", value_range)
    picture = draw_grid(tiles, ncols, scale, row_labels, column_labels, captions, title)
    return write_picture(path, (".png",), lambda file: picture.save(file, format="PNG"))


def save_rows(
    path: str | os.PathLike,
    rows: Mapping[str, Any],
    scale: int | None = None,
    value_range: tuple[float, float] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str = "",
) -> Path:
    """Save labelled rows of images, one above the other: before and after, column by column.

    ``save_rows(path, {"original": x, "noisy": x̃, "denoised": x̂})`` draws three rows of N images. Rows may
    differ in their channels (grey above, colour below), not in their number or size.

    Shapes: each row (N, C, H, W), C = 1 or 3.

    Args:
        path: ends in ``.png``.
        rows: label → images, from top to bottom.
        scale, value_range, column_labels, title: as in :func:`save_grid`.

    Returns:
        The path.

    Raises:
        ValueError: no row, rows of different number or size of images, or as :func:`save_grid`.
        TypeError, ImportError, OSError: as :func:`save_grid`.
    """
    if not rows:
        raise ValueError("rows: expected at least one row of images, got none")
    tiles = {label: to_pixels(images, f"rows[{label!r}]", value_range) for label, images in rows.items()}
    shapes = {label: pixels.shape[:3] for label, pixels in tiles.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{label!r}: {n} of {h}×{w}" for label, (n, h, w) in shapes.items())
        raise ValueError(f"rows: expected the same number and size of images in every row, got {found}")
    columns = next(iter(shapes.values()))[0]
    picture = draw_grid(np.concatenate(list(tiles.values())), columns, scale, list(rows), column_labels, None, title)
    return write_picture(path, (".png",), lambda file: picture.save(file, format="PNG"))

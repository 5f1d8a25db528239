"""Animations: frames as a GIF that any browser plays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.viz.canvas import optional, to_pixels, write_picture
from tinygen.viz.grids import default_scale, draw_grid, enlarge


def save_gif(
    path: str | os.PathLike,
    frames: Any,
    duration_ms: int = 100,
    scale: int | None = None,
    hold_last: int = 1000,
    value_range: tuple[float, float] | None = None,
    captions: Sequence[str] | None = None,
    loop: int = 0,
) -> Path:
    """Save frames as an animated GIF.

    Grey frames keep all their 256 levels; of coloured frames each gets the 256 colours that suit it best, as
    the format has no more. A frame equal to the one before it prolongs that one.

    Shapes: (T, C, H, W), C = 1 or 3, or a list of T images (C, H, W), such as :func:`tinygen.viz.make_grid`
    gives.

    Args:
        path: ends in ``.gif``.
        frames: a tensor or array.
        duration_ms: how long each frame stays, in milliseconds. The format counts in hundredths of a second,
            so it is rounded to tens; browsers slow down anything below 20.
        scale: screen pixels for each pixel, enlarged by squares; by default enough for a longer side of 56 or
            more.
        hold_last: how much longer the last frame stays, in milliseconds.
        value_range: (low, high), drawn black and white, values outside clipped; by default (0, 1), for uint8
            (0, 255).
        captions: T texts, one under each frame, such as the step.
        loop: how often it is repeated; 0 is for ever.

    Returns:
        The path.

    Raises:
        ValueError: another shape, values that are not finite, duration_ms < 20, a negative hold_last or loop,
            a scale below 1, the wrong number of captions, another ending.
        TypeError: neither floating numbers, bool nor uint8.
        ImportError: Pillow is not installed, or matplotlib, whose font the captions use.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.
    """
    if duration_ms < 20 or hold_last < 0 or loop < 0:
        raise ValueError(
            "expected duration_ms ≥ 20, hold_last ≥ 0 and loop ≥ 0, got "
            f"duration_ms={duration_ms}, hold_last={hold_last}, loop={loop}"
        )
    if scale is not None and scale < 1:
        raise ValueError(f"scale: expected at least 1, got {scale}")
    pixels = to_pixels(frames, "frames", value_range)
    if captions is not None and len(captions) != len(pixels):
        raise ValueError(f"captions: expected {len(pixels)} texts, one for each frame, got {len(captions)}")
    image_module = optional("PIL.Image", "Pillow")
    scale = scale or default_scale(*pixels.shape[1:3])
    grey = bool((pixels == pixels[..., :1]).all())
    if captions is not None:
        pictures = [
            draw_grid(tile[None], 1, scale, captions=[text]) for tile, text in zip(pixels, captions, strict=True)
        ]
        # Captions of different widths give frames of different widths; white paper makes up the difference.
        width = max(picture.width for picture in pictures)
        height = max(picture.height for picture in pictures)
        sheets = [image_module.new("RGB", (width, height), "white") for _ in pictures]
        for sheet, picture in zip(sheets, pictures, strict=True):
            sheet.paste(picture, ((width - picture.width) // 2, 0))
    else:
        sheets = [image_module.fromarray(np.ascontiguousarray(frame)) for frame in enlarge(pixels, scale)]
    images = [sheet.convert("L") if grey else sheet.quantize(256, dither=0) for sheet in sheets]
    durations = [round(duration_ms, -1)] * len(images)
    durations[-1] += round(hold_last, -1)
    return write_picture(
        path,
        (".gif",),
        lambda file: images[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=durations,
            loop=loop,
            optimize=False,
        ),
    )

"""Convolutions drawn number by number: the im2col matrix, and the zeros of a transposed convolution."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.ops.convolution import conv2d_by_im2col, conv_transpose2d_by_zero_insertion, insert_zeros
from tinygen.ops.unfold import pair, sliding, unfold
from tinygen.recording import no_grad
from tinygen.tensor import Tensor
from tinygen.viz.canvas import as_array, require_finite
from tinygen.viz.matrices import WRITTEN, Panel, draw_panels

Lengths = int | Sequence[int]


def save_im2col(
    path: str | os.PathLike,
    image: Any,
    filter: Any,
    bias: float = 0.0,
    stride: Lengths = 1,
    padding: Lengths = 0,
    dilation: Lengths = 1,
    marked: Sequence[int] = (0, -1),
    title: str = "",
) -> Path:
    """Draw a convolution twice: as a sliding window, and as one product with the im2col matrix.

    Above, the picture x (with its padding in grey), the filter w and the result y. Below, the same numbers as

        Y = W X + b,    X[(u, v), (i, j)] = x[s·i + d·u − p, s·j + d·v − p],    W the filter as one row.

    The window of each marked position has one colour in x, in its column of X and in its number of y.

    Shapes: image (H, W), filter (kh, kw).

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        image, filter: a tensor or array.
        bias: b.
        stride, padding, dilation: s, p, d as in :func:`tinygen.nn.functional.conv2d`.
        marked: which window positions are framed, counted row by row; −1 is the last.
        title: above everything.

    Returns:
        The path.

    Raises:
        ValueError: another shape, values that are not finite, lengths that do not fit together, a marked position that
            is not there, or more cells than can be read.
        TypeError: not real numbers, or lengths that are not integers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.

    Source: Chellapilla, Puri & Simard, *High performance convolutional neural networks for document processing* (2006).
    """
    x, w = _plane(image, "image"), _plane(filter, "filter")
    s, p, d = (
        pair(value, "save_im2col", name, least)
        for value, name, least in ((stride, "stride", 1), (padding, "padding", 0), (dilation, "dilation", 1))
    )
    window = sliding(x.shape, w.shape, s, p, d, "save_im2col")
    (kh, kw), (oh, ow) = w.shape, window.out
    with no_grad():
        batch, weight = Tensor(x[None, None]), Tensor(w[None, None])
        X = unfold(batch, (kh, kw), d, p, s).data[0]
        y = conv2d_by_im2col(batch, weight, Tensor(np.array([float(bias)])), s, p, d).data[0, 0]
    positions = [_position(k, oh * ow) for k in marked]
    places = [divmod(k, ow) for k in positions]
    seen = [(s[0] * i, s[1] * j, d[0] * (kh - 1) + 1, d[1] * (kw - 1) + 1) for i, j in places]
    padded, faint = _padded(x, ((p[0], p[0]), (p[1], p[1])))
    taps = [f"{u},{v}" for u in range(kh) for v in range(kw)]
    equals = f"{bias:+g} =".replace("-", "−") if bias else "="
    above = [
        Panel(padded, f"x: {_size(x)}" + (f", padded by {p[0]}×{p[1]}" if any(p) else ""), seen, faint),
        Panel(w, f"w: {_size(w)}", sign="∗"),
        Panel(y, f"y: {_size(y)}", [(i, j, 1, 1) for i, j in places], sign=equals),
    ]
    columns = [(0, k, kh * kw, 1) for k in positions]
    if sum(panel.array.size for panel in above) + X.size + w.size + y.size <= WRITTEN:
        below = [
            Panel(w.reshape(1, -1), f"W: 1×{kh * kw}", column_labels=taps),
            Panel(X, f"X: {_size(X)}", columns, None, "·", taps, [f"{i},{j}" for i in range(oh) for j in range(ow)]),
            Panel(y.reshape(1, -1), f"Y: 1×{oh * ow}", [(0, k, 1, 1) for k in positions], sign=equals),
        ]
    else:
        below = [Panel(X, f"X: {_size(X)}, a row for each number of w and a column for each window", columns)]
    return draw_panels(path, [above, below], title)


def save_zero_insertion(
    path: str | os.PathLike,
    image: Any,
    filter: Any,
    stride: Lengths = 2,
    padding: Lengths = 0,
    flip: bool = True,
    marked: Sequence[int] = (0, -1),
    title: str = "",
) -> Path:
    """Draw a transposed convolution step by step: put zeros between, put zeros around, slide a filter with stride 1.

    With z[s·i, s·j] = x[i, j] and 0 elsewhere, k − 1 − p zeros around it, and the filter turned by 180°,

        y[m, n] = Σ_{u,v} w[k − 1 − u, k − 1 − v] · z[m + u, n + v].

    The window of each marked position has one colour in z and in its number of y.

    Shapes: image (H, W), filter (kh, kw).

    Args:
        path: ends in ``.png``, ``.svg`` or ``.pdf``.
        image, filter: a tensor or array.
        stride, padding: s, p as in :func:`tinygen.nn.functional.conv_transpose2d`.
        flip: turn the filter, which makes the result the adjoint of conv2d: what PyTorch and tinygen call
            ``conv_transpose2d(x, w)``. Without it the filter slides as it is given, as some texts have it: that is
            ``conv_transpose2d`` of the filter turned by 180°.
        marked: which positions of y are framed, counted row by row; −1 is the last.
        title: above everything.

    Returns:
        The path.

    Raises:
        ValueError: another shape, values that are not finite, padding > k − 1, a marked position that is not there, or
            more cells than can be read.
        TypeError: not real numbers, or lengths that are not integers.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written. On any failure an older file of that name is left as it was.

    Source: Dumoulin & Visin, *A guide to convolution arithmetic for deep learning* (2016), chapter 4.
    """
    x, w = _plane(image, "image"), _plane(filter, "filter")
    s, p = pair(stride, "save_zero_insertion", "stride", 1), pair(padding, "save_zero_insertion", "padding")
    (kh, kw) = w.shape
    around = (kh - 1 - p[0], kw - 1 - p[1])
    if min(around) < 0:
        raise ValueError(f"padding: expected at most the filter's size less 1, {(kh - 1, kw - 1)}, got {p}")
    slid = w[::-1, ::-1] if flip else w
    with no_grad():
        batch, weight = Tensor(x[None, None]), Tensor(np.ascontiguousarray(slid[::-1, ::-1])[None, None])
        z = insert_zeros(batch, s).data[0, 0]
        y = conv_transpose2d_by_zero_insertion(batch, weight, None, s, p).data[0, 0]
    put_in = np.ones(z.shape, dtype=bool)
    put_in[:: s[0], :: s[1]] = False
    framed, outside = _padded(z, ((around[0],) * 2, (around[1],) * 2))
    outside[around[0] : around[0] + z.shape[0], around[1] : around[1] + z.shape[1]] |= put_in
    places = [divmod(_position(k, y.size), y.shape[1]) for k in marked]
    panels = [
        Panel(x, f"x: {_size(x)}"),
        Panel(z, "zeros between", faint=put_in, sign="→"),
        Panel(framed, "zeros around: z", [(i, j, kh, kw) for i, j in places], outside, sign="→"),
        Panel(slid, "w turned by 180°" if flip else "w as it is", sign="∗"),
        Panel(y, f"y: {_size(y)}", [(i, j, 1, 1) for i, j in places], sign="="),
    ]
    return draw_panels(path, [panels], title)


def _plane(value: Any, name: str) -> np.ndarray:
    """A picture or filter as float64 (H, W)."""
    array = as_array(value, name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: expected shape (H, W), got {array.shape}")
    require_finite(array, name)
    return array.astype(np.float64)


def _padded(x: np.ndarray, width: Any) -> tuple[np.ndarray, np.ndarray]:
    """x with zeros around it, and where these are."""
    return np.pad(x, width), np.pad(np.zeros(x.shape, dtype=bool), width, constant_values=True)


def _position(k: int, n: int) -> int:
    if not -n <= k < n:
        raise ValueError(f"marked: there are {n} window positions, 0 to {n - 1}, got {k}")
    return k % n


def _size(array: np.ndarray) -> str:
    return "×".join(map(str, array.shape))

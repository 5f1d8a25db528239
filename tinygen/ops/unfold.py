"""Sliding windows: unfold (im2col) gathers what every window sees, fold (col2im) adds it back.

Both are linear, and each is the other's adjoint, hence the other's vjp.

Shapes: pictures (N, C, H, W), columns (N, C·kh·kw, L), L = Ho·Wo windows.

Source: ``torch.nn.functional.unfold`` and ``fold``; Chellapilla, Puri & Simard, *High performance
convolutional neural networks for document processing* (2006).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tinygen.backend import array_module
from tinygen.kernels.windows import Pair, Window, add_patches, patches
from tinygen.op import op
from tinygen.ops.shape import squeeze, unsqueeze
from tinygen.tensor import Tensor


def pair(value: Any, who: str, name: str, least: int = 0) -> Pair:
    """An argument given as one number for both directions, or as two (vertical, horizontal).

    Raises:
        TypeError: it is neither an integer nor two of them.
        ValueError: a number is below ``least``.
    """
    both = value if isinstance(value, (tuple, list)) else (value, value)
    try:
        if len(both) != 2:
            raise TypeError
        a, b = operator.index(both[0]), operator.index(both[1])
    except TypeError:
        raise TypeError(f"{who}: {name} must be an integer or a pair of them, got {value!r}") from None
    if a < least or b < least:
        raise ValueError(f"{who}: {name} must be at least {least}, got {value!r}")
    return a, b


def hashable(value: Any) -> Any:
    """A list as a tuple, so that it can be looked up in a cache."""
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=512)
def sliding(size: Pair, kernel: Pair, stride: Any, padding: Any, dilation: Any, who: str) -> Window:
    """The window of a filter that takes every position where it fits: out = ⌊(size + 2p − d(k − 1) − 1)/s⌋ + 1.

    ``padding`` may also be ``"valid"`` (none) or ``"same"`` (as much as keeps the size; where that is odd, the
    additional row or column of zeros comes after the picture, as in PyTorch).

    Raises:
        TypeError, ValueError: an argument is malformed, or the filter fits nowhere.
    """
    stride = pair(stride, who, "stride", 1)
    dilation = pair(dilation, who, "dilation", 1)
    span = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f'{who}: padding must be "same", "valid", an integer or a pair, got {padding!r}')
        if padding == "same":
            if stride != (1, 1):
                raise ValueError(f'{who}: padding="same" keeps the size only with stride=1, got stride={stride}')
            before = (span[0] // 2, span[1] // 2)
            return Window(size, kernel, size, stride, before, dilation)
        padding = 0
    before = pair(padding, who, "padding")
    full = tuple(n + 2 * p for n, p in zip(size, before, strict=True))
    if full[0] <= span[0] or full[1] <= span[1]:
        raise ValueError(
            f"{who}: the filter spans {span[0] + 1}×{span[1] + 1} (kernel {kernel}, dilation {dilation}), more than "
            f"the padded input's {full[0]}×{full[1]} (size {size}, padding {before})"
        )
    out = ((full[0] - span[0] - 1) // stride[0] + 1, (full[1] - span[1] - 1) // stride[1] + 1)
    return Window(size, kernel, out, stride, before, dilation)


@op
def _unfold(input, window):
    """y = P x: column l of y holds what window l sees. See unfold.

    A tap of a window is one number of x or a zero, so y = P x with a matrix P of zeros and ones; ∂L/∂x = Pᵀ g adds
    every g to the number that it was read from: fold.
    """
    patch = patches(input, window)
    N, oh, ow, kh, kw, C = patch.shape
    y = array_module(input).empty((N, C, kh, kw, oh, ow), input.dtype)
    y[...] = patch.transpose(0, 5, 3, 4, 1, 2)
    return y.reshape(N, C * kh * kw, oh * ow)


@_unfold.vjp("input")
def _(g, window):
    return _fold(g, window)


@op
def _fold(input, window):
    """y = Pᵀ x, with the P of unfold: every number of column l added where window l reads. See fold.

    Linear, so ∂L/∂x = P g: unfold. Shapes: (N, C·kh·kw, L) → (N, C, H, W).
    """
    (kh, kw), (oh, ow) = window.kernel, window.out
    N, D, _ = input.shape
    patch = input.reshape(N, D // (kh * kw), kh, kw, oh, ow)
    return add_patches(patch.transpose(0, 4, 5, 2, 3, 1), window)


@_fold.vjp("input")
def _(g, window):
    return _unfold(g, window)


def unfold(
    input: Tensor,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Tensor:
    """What a sliding window sees, one column for each of its positions (im2col).

    y[n, (c, u, v), (i, j)] = x[n, c, s·i + d·u − p, s·j + d·v − p], 0 outside x.    ∂L/∂x = fold(g).

    Shapes: (N, C, H, W) → (N, C·kh·kw, Ho·Wo), or both without N. Ho = ⌊(H + 2p − d(kh − 1) − 1)/s⌋ + 1.

    Raises:
        ValueError: the input is not 3-D or 4-D, a number is out of range, or the window fits nowhere.
        TypeError: an argument is not an integer or a pair of them.

    Source: ``torch.nn.functional.unfold``.
    """
    if input.ndim not in (3, 4):
        raise ValueError(f"unfold: expected input (N, C, H, W) or (C, H, W), got shape {input.shape}")
    if input.ndim == 3:
        return squeeze(unfold(unsqueeze(input, 0), kernel_size, dilation, padding, stride), 0)
    kernel = pair(kernel_size, "unfold", "kernel_size", 1)
    pair(padding, "unfold", "padding")
    window = sliding(input.shape[2:], kernel, hashable(stride), hashable(padding), hashable(dilation), "unfold")
    return _unfold(input, window)


def fold(
    input: Tensor,
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
) -> Tensor:
    """The adjoint of unfold (col2im): every number is added to the place that its window's tap reads.

    y[n, c, s·i + d·u − p, s·j + d·v − p] += x[n, (c, u, v), (i, j)].    ∂L/∂x = unfold(g).

    fold(unfold(x)) is x times the number of windows that see each place.

    Shapes: (N, C·kh·kw, L) → (N, C, H, W) with (H, W) = output_size, or both without N; L = Ho·Wo of unfold.

    Raises:
        ValueError: the input is not 2-D or 3-D, or its lengths do not fit kernel_size and output_size.
        TypeError: an argument is not an integer or a pair of them.

    Source: ``torch.nn.functional.fold``.
    """
    if input.ndim not in (2, 3):
        raise ValueError(f"fold: expected input (N, C·kh·kw, L) or (C·kh·kw, L), got shape {input.shape}")
    if input.ndim == 2:
        return squeeze(fold(unsqueeze(input, 0), output_size, kernel_size, dilation, padding, stride), 0)
    size = pair(output_size, "fold", "output_size", 1)
    kernel = pair(kernel_size, "fold", "kernel_size", 1)
    pair(padding, "fold", "padding")
    window = sliding(size, kernel, hashable(stride), hashable(padding), hashable(dilation), "fold")
    taps, positions = kernel[0] * kernel[1], window.out[0] * window.out[1]
    if input.shape[1] % taps:
        raise ValueError(
            f"fold: axis 1 of the input, {input.shape[1]}, must be a multiple of the {kernel[0]}·{kernel[1]} taps "
            f"of kernel_size; the input has shape {input.shape}"
        )
    if input.shape[2] != positions:
        raise ValueError(
            f"fold: output_size={size} has {window.out[0]}·{window.out[1]} = {positions} window positions, so the "
            f"input's last axis must be that long; the input has shape {input.shape}"
        )
    return _fold(input, window)

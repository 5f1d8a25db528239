"""The three products of a convolution on a GPU, as kernels/windows.py has them for any library.

What no kernel fits (float16, arrays of more than 2³¹ numbers, the kernels switched off) is computed by those.

By default they are implicit GEMMs (convolution_source.py). Where TF32 is allowed, float32 convolutions whose matrices
are worth it go to the tensor cores instead: im2col, a product of cuBLAS for each chunk of pictures, col2im.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels import windows
from tinygen.kernels.gpu import blas, normalization
from tinygen.kernels.gpu.convolution_source import SOURCE
from tinygen.kernels.gpu.launch import blocks, dense, function, structure, usable
from tinygen.kernels.windows import Window

METHODS = ("auto", "implicit", "gemm")
_method = "auto"
_THREADS, _COLUMNS = 128, 128  # as in the source
_CHUNK = 32 << 20  # bytes of im2col at a time, which stay in a large GPU's second-level cache
_BLOCKS = 512  # that a weight gradient is split into: about four for each multiprocessor of a large GPU
_INT = 2**31 - 1


def set_method(method: str) -> str:
    """How convolutions are computed: ``"implicit"``, ``"gemm"`` (im2col and cuBLAS), or ``"auto"``.

    Returns: what it was.

    Raises:
        ValueError: another method is named.
    """
    global _method
    if method not in METHODS:
        raise ValueError(f"set_method: expected one of {', '.join(METHODS)}, got {method!r}")
    before, _method = _method, method
    return before


def conv2d(x: Any, w: Any, b: Any, window: Window, groups: int) -> Any:
    """y = ∂T/∂y(x, w) + b: (N, C, H, W), (O, C/g, kh, kw), (O) or None → (N, O, Ho, Wo)."""
    y = _conv2d(array_module(x), x, w, b, window, groups)
    return windows.conv2d(x, w, b, window, groups) if y is None else y


def conv_transpose2d(y: Any, w: Any, b: Any, window: Window, groups: int) -> Any:
    """x = ∂T/∂x(w, y) + b: (N, O, Ho, Wo), (O, C/g, kh, kw), (C) or None → (N, C, H, W)."""
    x = _conv_transpose2d(array_module(y), y, w, b, window, groups)
    return windows.conv_transpose2d(y, w, b, window, groups) if x is None else x


def conv2d_weight_gradient(x: Any, y: Any, window: Window, groups: int) -> Any:
    """w = ∂T/∂w(x, y): (N, C, H, W), (N, O, Ho, Wo) → (O, C/g, kh, kw)."""
    w = _conv2d_weight_gradient(array_module(x), x, y, window, groups)
    return windows.conv2d_weight_gradient(x, y, window, groups) if w is None else w


def channel_sums(y: Any) -> Any:
    """Σ over pictures and positions: (N, C, H, W) → (C)."""
    sums = normalization.channel_sums(array_module(y), y)
    return windows.channel_sums(y) if sums is None else sums


@lru_cache(maxsize=1024)
def _shape(N: int, C: int, O: int, window: Window, groups: int) -> np.ndarray | None:
    """The structure that the kernels take; None where a number would not fit into an int."""
    (H, W), (kh, kw), (oh, ow), (sh, sw), (ph, pw), (dh, dw) = window
    o, c = O // groups, C // groups
    if max(N * C * H * W, N * O * oh * ow, O * c * kh * kw) > _INT - (1 << 20) or 0 in (N, C, O, H, W, oh, ow):
        return None
    tiles = max(-(-o // 8), -(-c // 8))
    if tiles > 65535 or groups * sh * sw > 65535:
        return None
    return structure(
        N=N, C=C, H=H, W=W, O=O, kh=kh, kw=kw, oh=oh, ow=ow, sh=sh, sw=sw, ph=ph, pw=pw, dh=dh, dw=dw, groups=groups
    )  # fmt: skip


def _tile(rows: int) -> int:
    """The height BM of a block's part of the result: no more than there are rows, in the three sizes compiled."""
    return 64 if rows > 32 else 32 if rows > 8 else 8


def _kernel(xp: Any, dtype: np.dtype, name: str) -> Any:
    return function(xp, "convolution", SOURCE, dtype, name)


def _by_gemm(a: Any, contraction: int, rows: int, each: int) -> bool:
    """Whether cuBLAS does it: asked for, or where tensor cores may be used and find enough to do.

    Args:
        each: how many numbers the windows of one picture are.
    """
    if each > _INT:
        return False
    if _method != "auto":
        return _method == "gemm"
    return a.dtype.char == "f" and blas.tf32_allowed() and contraction >= 32 and rows >= 16


def _conv2d(xp: Any, x: Any, w: Any, b: Any, window: Window, groups: int) -> Any:
    """y = ∂T/∂y(x, w) + b: (N, C, H, W), (O, C/g, kh, kw), (O) or None → (N, O, Ho, Wo); None if not applicable."""
    if not usable(xp, x, w, *([] if b is None else [b])):
        return None
    N, C = x.shape[:2]
    O, c, kh, kw = w.shape
    q = _shape(N, C, O, window, groups)
    if q is None:
        return None
    x, w = dense(xp, x), dense(xp, w)
    b = None if b is None else dense(xp, b)
    oh, ow = window.out
    y = xp.empty((N, O, oh, ow), x.dtype)
    o, K, P = O // groups, c * kh * kw, oh * ow
    if _by_gemm(x, K, o, K * groups * P):
        for n0, n1, columns in _chunks(xp, x, K * groups * P, N):
            _im2col(xp, columns, x[n0:n1], q, groups * K * P * (n1 - n0))
            for g in range(groups):
                blas.gemm(
                    xp, blas.Operand(w[g * o : (g + 1) * o], False, K, 0),
                    blas.Operand(columns[g * K * P :], False, P, groups * K * P),
                    y[n0:n1, g * o : (g + 1) * o], o, P, K, n1 - n0, P, O * P,
                )  # fmt: skip
        if b is not None:
            y += b[:, None, None]
        return y
    BM = _tile(o)
    grid = (-(-N * P // _COLUMNS), -(-o // BM), groups)
    _kernel(xp, x.dtype, f"conv2d_{BM}")(grid, (_THREADS,), (y, x, w, b, q))
    return y


def _conv_transpose2d(xp: Any, y: Any, w: Any, b: Any, window: Window, groups: int) -> Any:
    """x = ∂T/∂x(w, y) + b: (N, O, Ho, Wo), (O, C/g, kh, kw), (C) or None → (N, C, H, W); None if not applicable."""
    if not usable(xp, y, w, *([] if b is None else [b])):
        return None
    N, O = y.shape[:2]
    c, kh, kw = w.shape[1:]
    C = c * groups
    q = _shape(N, C, O, window, groups)
    if q is None:
        return None
    y, w = dense(xp, y), dense(xp, w)
    b = None if b is None else dense(xp, b)
    (H, W), (oh, ow), (sh, sw) = window.size, window.out, window.stride
    x = xp.empty((N, C, H, W), y.dtype)
    o, K, P = O // groups, c * kh * kw, oh * ow
    if _by_gemm(y, o, K, K * groups * P):
        for n0, n1, columns in _chunks(xp, y, K * groups * P, N):
            for g in range(groups):
                blas.gemm(
                    xp, blas.Operand(w[g * o : (g + 1) * o], True, K, 0),
                    blas.Operand(y[n0:n1, g * o : (g + 1) * o], False, P, O * P),
                    columns[g * K * P :], K, P, o, n1 - n0, P, groups * K * P,
                )  # fmt: skip
            part = x[n0:n1]
            _kernel(xp, y.dtype, "col2im")((blocks(part.size, 256),), (256,), (part, columns, b, q, part.size))
        return x
    BM = _tile(c)
    most = -(-H // sh) * -(-W // sw)  # pixels of the largest phase
    grid = (-(-N * most // _COLUMNS), -(-c // BM), groups * sh * sw)
    _kernel(xp, y.dtype, f"conv_transpose2d_{BM}")(grid, (_THREADS,), (x, y, w, b, q))
    return x


def _conv2d_weight_gradient(xp: Any, x: Any, y: Any, window: Window, groups: int) -> Any:
    """w = ∂T/∂w(x, y): (N, C, H, W), (N, O, Ho, Wo) → (O, C/g, kh, kw); None where it does not apply."""
    if not usable(xp, x, y):
        return None
    N, C = x.shape[:2]
    O = y.shape[1]
    q = _shape(N, C, O, window, groups)
    if q is None:
        return None
    x, y = dense(xp, x), dense(xp, y)
    kh, kw = window.kernel
    c, o = C // groups, O // groups
    w = xp.empty((O, c, kh, kw), x.dtype)
    K, P = c * kh * kw, window.out[0] * window.out[1]
    if _by_gemm(x, P, min(o, K), K * groups * P):
        sums = xp.empty((N, O, K), x.dtype)  # one product for each picture, then their sum, in a fixed order
        for n0, n1, columns in _chunks(xp, x, K * groups * P, N):
            _im2col(xp, columns, x[n0:n1], q, groups * K * P * (n1 - n0))
            for g in range(groups):
                blas.gemm(
                    xp, blas.Operand(y[n0:n1, g * o : (g + 1) * o], False, P, O * P),
                    blas.Operand(columns[g * K * P :], True, P, groups * K * P),
                    sums[n0:n1, g * o : (g + 1) * o], o, K, P, n1 - n0, K, O * K,
                )  # fmt: skip
        _sum_splits(xp, w, sums, N)
        return w
    BM = _tile(o)
    tiles = -(-K // _COLUMNS)
    rows = -(-o // BM)
    splits = max(1, min(-(-_BLOCKS // (tiles * rows * groups)), -(-N * P // 256)))
    each = -(-N * P // splits)
    each = -(-each // 32) * 32
    splits = -(-N * P // each)
    partial = w if splits == 1 else xp.empty((splits, w.size), x.dtype)
    grid = (tiles * splits, rows, groups)
    _kernel(xp, x.dtype, f"weight_gradient_{BM}")(grid, (_THREADS,), (partial, x, y, q, each))
    if splits > 1:
        _sum_splits(xp, w, partial, splits)
    return w


def _sum_splits(xp: Any, w: Any, partial: Any, splits: int) -> None:
    _kernel(xp, w.dtype, "sum_splits")((-(-w.size // 256),), (256,), (w, partial, splits, w.size))


def _im2col(xp: Any, columns: Any, x: Any, q: np.ndarray, n: int) -> None:
    _kernel(xp, x.dtype, "im2col")((blocks(n, 256),), (256,), (columns, x, q, n))


def _chunks(xp: Any, x: Any, each: int, N: int) -> Any:
    """(from, to, memory for their windows) of a few pictures at a time, all in the same memory."""
    at_once = max(1, min(N, _CHUNK // (each * x.itemsize)))
    columns = xp.empty(at_once * each, x.dtype)
    for n0 in range(0, N, at_once):
        yield n0, min(n0 + at_once, N), columns

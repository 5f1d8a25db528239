"""softmax and its relatives along the last axis: one warp for each row, three looks at it in one launch.

Rows are read with stride 32 by the threads of a warp, so neighbouring threads read neighbouring numbers. The formulas
are ops/softmax.py's.
"""

from __future__ import annotations

import math
from typing import Any

from tinygen.kernels.gpu.launch import PRELUDE, dense, function, usable

_WARPS = 4  # rows in a block

SOURCE = PRELUDE + r"""
// The row of a warp; a row past the last reads nothing and writes nothing, but takes part in the sums.
#define ROW long long row = blockIdx.x * 4ll + (threadIdx.x >> 5); \
    int lane = threadIdx.x & 31; int length = row < rows ? n : 0; long long at = row * n;

// y = e^(x − m)/Σ e^(x − m), m = max x. With `safe`, 0 along a row that is −∞ throughout.
extern "C" __global__ void softmax(T* y, const T* x, long long rows, long long n, long long safe) {
    ROW
    T m = -INFINITY, total = 0;
    for (int i = lane; i < length; i += 32) { T v = x[at + i]; m = (v > m || v != v) ? v : m; }
    m = warp_max(m);
    if (safe && m == -INFINITY) m = 0;
    for (int i = lane; i < length; i += 32) { T e = exp(x[at + i] - m); y[at + i] = e; total += e; }
    total = warp_sum(total);
    if (safe && total == 0) total = 1;
    for (int i = lane; i < length; i += 32) y[at + i] /= total;
}

// z = y(g − Σ g·y)
extern "C" __global__ void softmax_vjp(T* z, const T* g, const T* y, long long rows, long long n) {
    ROW
    T s = 0;
    for (int i = lane; i < length; i += 32) s += g[at + i] * y[at + i];
    s = warp_sum(s);
    for (int i = lane; i < length; i += 32) z[at + i] = y[at + i] * (g[at + i] - s);
}

// y = x − m − ln Σ e^(x − m)
extern "C" __global__ void log_softmax(T* y, const T* x, long long rows, long long n) {
    ROW
    T m = -INFINITY, total = 0;
    for (int i = lane; i < length; i += 32) { T v = x[at + i]; m = (v > m || v != v) ? v : m; }
    m = warp_max(m);
    for (int i = lane; i < length; i += 32) total += exp(x[at + i] - m);
    total = log(warp_sum(total));
    for (int i = lane; i < length; i += 32) y[at + i] = x[at + i] - m - total;
}

// z = g − e^y Σ g
extern "C" __global__ void log_softmax_vjp(T* z, const T* g, const T* y, long long rows, long long n) {
    ROW
    T s = 0;
    for (int i = lane; i < length; i += 32) s += g[at + i];
    s = warp_sum(s);
    for (int i = lane; i < length; i += 32) z[at + i] = g[at + i] - exp(y[at + i]) * s;
}
"""


def compute(xp: Any, name: str, dim: int | None, *arrays: Any, numbers: tuple[int, ...] = ()) -> Any:
    """``softmax``, ``softmax_vjp``, ``log_softmax`` or ``log_softmax_vjp``; None where it does not apply.

    Args:
        dim: the axis, counted from 0: only the last one has a kernel.
        arrays: x, or g and y, of equal shapes.
        numbers: for softmax, whether it is the safe one (0 or 1).
    """
    x = arrays[0]
    if dim is None or dim != x.ndim - 1 or not usable(xp, *arrays) or any(a.shape != x.shape for a in arrays):
        return None
    out = xp.empty(x.shape, x.dtype)
    n = x.shape[-1]
    rows = math.prod(x.shape[:-1])
    if rows and n:
        kernel = function(xp, "rows", SOURCE, x.dtype, name)
        kernel((-(-rows // _WARPS),), (32 * _WARPS,), (out, *[dense(xp, a) for a in arrays], rows, n, *numbers))
    return out

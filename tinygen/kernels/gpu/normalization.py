"""Normalisation in two launches forward and two backward: one block of threads for each group of numbers.

An array (N, C, P) in C order, P positions. The group that a number belongs to is an arithmetic pattern: ``outer`` runs
of ``run`` neighbouring numbers, ``stride`` apart, from an offset that the group's number gives:

    batch_norm      C groups:        N runs of P,             C·P apart, from c·P
    instance_norm   N·C groups:      1 run of P,                         from (n·C + c)·P
    group_norm      N·G groups:      1 run of (C/G)·P,                   from (n·G + g)·(C/G)·P
    layer_norm      as many groups as rows of the last axes:  1 run

so one kernel serves all four. μ, σ² and r are kept once for each channel of an example, as the ops want them: (1, C)
for batch_norm, (N, C) for instance_norm and group_norm (repeated within a group). The formulas are derived in
ops/standardization.py, whose equation (2) is ``normalize_vjp``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tinygen.kernels.gpu.launch import PRELUDE, dense, function, structure, usable

_INT = 2**31

SOURCE = PRELUDE + r"""
// See the top of normalization.py. kept: how many μ a group has; shared: whether all examples have the same.
struct Group { int outer, run, stride, step, kept, positions, channels, shared; };

#define EACH(i) for (int outer = 0; outer < q.outer; outer++) \
    for (long long begin = base + (long long)outer * q.stride, end = begin + q.run, i = begin + threadIdx.x; i < end; \
         i += blockDim.x)
#define BASE (long long)blockIdx.x * q.step
#define CHANNEL(i) ((unsigned)(i) / (unsigned)q.positions % (unsigned)q.channels)  // 64-bit divisions are slow

// μ = Mx, then σ² = M(x − μ)²: in two passes, as the squares' mean less the mean's square would lose σ².
extern "C" __global__ void __launch_bounds__(512) statistics(
    const T* x, T* mean, T* var, T* rstd, const Group q, double eps) {
    __shared__ T shared[32];
    long long base = BASE;
    T count = (T)q.outer * (T)q.run;
    T s = 0;
    EACH(i) s += x[i];
    T m = block_sum(s, shared) / count;
    s = 0;
    EACH(i) { T d = x[i] - m; s += d * d; }
    T v = block_sum(s, shared) / count;
    for (int c = threadIdx.x; c < q.kept; c += blockDim.x) {
        long long at = (long long)blockIdx.x * q.kept + c;
        mean[at] = m;
        var[at] = v;
        rstd[at] = 1 / sqrt(v + (T)eps);
    }
}

// y = x·s + b,  s = r·γ,  b = β − μ·s
extern "C" __global__ void __launch_bounds__(512) normalize(
    T* y, const T* x, const T* mean, const T* rstd, const T* weight, const T* bias, const Group q, long long n) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        unsigned row = i / (unsigned)q.positions, c = row % (unsigned)q.channels, at = q.shared ? c : row;
        T scale = weight ? rstd[at] * weight[c] : rstd[at];
        T shift = -mean[at] * scale;
        y[i] = x[i] * scale + (bias ? bias[c] + shift : shift);
    }
}

// h(γ·g, x) = r(γg − M(γg) − x̂·M(x̂·γg)), with x̂ = r(x − μ)
extern "C" __global__ void __launch_bounds__(512) normalize_vjp(
    T* out, const T* g, const T* x, const T* mean, const T* rstd, const T* weight, const Group q) {
    __shared__ T shared[32];
    long long base = BASE;
    long long first = (long long)blockIdx.x * q.kept;
    T m = mean[first], r = rstd[first], count = (T)q.outer * (T)q.run;
    T sum = 0, product = 0;
    EACH(i) {
        T k = weight ? g[i] * weight[CHANNEL(i)] : g[i];
        sum += k;
        product += k * (x[i] - m);
    }
    T mean_g = block_sum(sum, shared) / count;
    T slope = r * r * (block_sum(product, shared) / count);
    EACH(i) {
        T k = weight ? g[i] * weight[CHANNEL(i)] : g[i];
        out[i] = r * (k - mean_g - slope * (x[i] - m));
    }
}

// ∂L/∂γ_c = Σ g·x̂ over n and positions: a block for each channel.
extern "C" __global__ void __launch_bounds__(512) weight_gradient(
    T* out, const T* g, const T* x, const T* mean, const T* rstd, const Group q, long long examples) {
    __shared__ T shared[32];
    unsigned c = blockIdx.x, each = (unsigned)examples * q.positions;
    T s = 0;
    for (unsigned e = threadIdx.x; e < each; e += blockDim.x) {
        unsigned row = e / (unsigned)q.positions * q.channels + c;
        unsigned i = row * q.positions + e % (unsigned)q.positions;
        unsigned at = q.shared ? c : row;
        s += g[i] * (x[i] - mean[at]) * rstd[at];
    }
    s = block_sum(s, shared);
    if (threadIdx.x == 0) out[c] = s;
}

// Σ over n and positions for each channel.
extern "C" __global__ void __launch_bounds__(512) channel_sums(
    T* out, const T* x, long long examples, long long channels_, long long positions_) {
    __shared__ T shared[32];
    unsigned c = blockIdx.x, channels = channels_, positions = positions_, each = examples * positions;
    T s = 0;
    for (unsigned e = threadIdx.x; e < each; e += blockDim.x)
        s += x[(e / positions * channels + c) * positions + e % positions];
    s = block_sum(s, shared);
    if (threadIdx.x == 0) out[c] = s;
}
"""

_THREADS = 512


@lru_cache(maxsize=1024)
def _layout(shape: tuple[int, ...], dims: tuple[int, ...], channel_groups: int | None) -> Any:
    """(the structure, groups, the shape of μ) of an array's groups, or None where no kernel fits."""
    size = math.prod(shape)
    if not 0 < size < _INT or len(shape) < 2:
        return None
    N, C, P = shape[0], shape[1], math.prod(shape[2:])
    positions = tuple(range(2, len(shape)))
    reduced = dims if channel_groups is None else positions
    kept_shape = tuple(1 if d in reduced else n for d, n in enumerate(shape))
    if channel_groups is None and dims == (0, *positions):  # batch_norm
        q = dict(outer=N, run=P, stride=C * P, step=P, kept=1, positions=P, channels=C, shared=1)
        return structure(**q), C, kept_shape
    if channel_groups is not None and dims == (1, *positions):  # group_norm
        each = C // channel_groups
        q = dict(outer=1, run=each * P, stride=0, step=each * P, kept=each, positions=P, channels=C, shared=0)
        return structure(**q), N * channel_groups, kept_shape
    if channel_groups is None and dims == positions and positions:  # instance_norm
        q = dict(outer=1, run=P, stride=0, step=P, kept=1, positions=P, channels=C, shared=0)
        return structure(**q), N * C, kept_shape
    if channel_groups is None and dims and dims == tuple(range(dims[0], len(shape))):  # layer_norm without its γ
        run = math.prod(shape[dims[0] :])
        rows = size // run
        q = dict(outer=1, run=run, stride=0, step=run, kept=1, positions=run, channels=rows, shared=0)
        return structure(**q), rows, kept_shape
    return None


def _found(xp: Any, group: Any, *arrays: Any) -> Any:
    if not usable(xp, *arrays) or any(a.shape != arrays[0].shape for a in arrays):
        return None
    return _layout(arrays[0].shape, tuple(group.dims), group.channel_groups)


def _per_channel(weight: Any, q: np.ndarray) -> bool:
    """Whether γ is one number for each channel, as the kernels want it (layer_norm's is one for each position)."""
    if weight is None:
        return True
    return weight.size == int(q["channels"][0]) and weight.ndim > 1 and weight.shape[1] == weight.size


def statistics(xp: Any, x: Any, group: Any, eps: float) -> Any:
    """(μ, σ², r), with length 1 on the axes of the group; None where no kernel fits."""
    found = _found(xp, group, x)
    if found is None:
        return None
    q, groups, shape = found
    mean, var, rstd = (xp.empty(shape, x.dtype) for _ in range(3))
    kernel = function(xp, "normalization", SOURCE, x.dtype, "statistics")
    kernel((groups,), (_threads(q),), (dense(xp, x), mean, var, rstd, q, float(eps)))
    return mean, var, rstd


def normalize(xp: Any, x: Any, weight: Any, bias: Any, group: Any, statistics: Any) -> Any:
    """y = γ·x̂ + β; None where no kernel fits."""
    rest = [a for a in (weight, bias) if a is not None]
    found = _found(xp, group, x)
    if found is None or not usable(xp, x, *statistics, *rest):
        return None
    q, _, shape = found
    if statistics.mean.shape != shape or not _per_channel(weight, q) or not _per_channel(bias, q):
        return None
    y = xp.empty(x.shape, x.dtype)
    kernel = function(xp, "normalization", SOURCE, x.dtype, "normalize")
    parts = [None if a is None else dense(xp, a) for a in (x, statistics.mean, statistics.rstd, weight, bias)]
    kernel((-(-y.size // _THREADS),), (_THREADS,), (y, *parts, q, y.size))
    return y


def normalize_vjp(xp: Any, g: Any, x: Any, weight: Any, group: Any, statistics: Any) -> Any:
    """h(γ·g, x); None where no kernel fits."""
    rest = [] if weight is None else [weight]
    found = _found(xp, group, g, x)
    if found is None or not usable(xp, x, *statistics, *rest):
        return None
    q, groups, shape = found
    if statistics.mean.shape != shape or not _per_channel(weight, q):
        return None
    out = xp.empty(x.shape, x.dtype)
    kernel = function(xp, "normalization", SOURCE, x.dtype, "normalize_vjp")
    parts = [None if a is None else dense(xp, a) for a in (g, x, statistics.mean, statistics.rstd, weight)]
    kernel((groups,), (_threads(q),), (out, *parts, q))
    return out


def weight_gradient(xp: Any, g: Any, x: Any, group: Any, statistics: Any) -> Any:
    """∂L/∂γ as (1, C, 1, …); None where no kernel fits."""
    found = _found(xp, group, g, x)
    if found is None or not usable(xp, x, *statistics):
        return None
    q, _, shape = found
    C = x.shape[1]
    if statistics.mean.shape != shape or int(q["channels"][0]) != C:
        return None
    out = xp.empty([C if d == 1 else 1 for d in range(x.ndim)], x.dtype)
    kernel = function(xp, "normalization", SOURCE, x.dtype, "weight_gradient")
    parts = [dense(xp, a) for a in (g, x, statistics.mean, statistics.rstd)]
    kernel((C,), (_THREADS,), (out, *parts, q, x.shape[0]))
    return out


def channel_sums(xp: Any, x: Any) -> Any:
    """Σ over examples and positions, (N, C, …) → (C); None where no kernel fits."""
    if not usable(xp, x) or x.ndim < 3 or not 0 < x.size < _INT:
        return None
    out = xp.empty(x.shape[1], x.dtype)
    kernel = function(xp, "normalization", SOURCE, x.dtype, "channel_sums")
    kernel((out.size,), (_THREADS,), (out, dense(xp, x), x.shape[0], out.size, math.prod(x.shape[2:])))
    return out


def _threads(q: np.ndarray) -> int:
    """As many threads as a group has use for: whole warps, 512 at most."""
    run = int(q["run"][0])
    return min(_THREADS, max(32, -(-run // 32) * 32))

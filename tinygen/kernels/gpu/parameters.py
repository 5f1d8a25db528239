"""One launch that moves all parameters: a table of pointers goes along by value, up to 64 arrays at a time.

Each block takes one piece of one array. A step's numbers (the rate, the corrections for the start, the decay) travel
in the table too, except in a captured step: there they are read from an array on the device, which is rewritten before
each replay (:mod:`tinygen.cuda.graphs`).

The formulas are those of optim/adam.py, sgd.py, rmsprop.py and ema.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygen.kernels.gpu.launch import PRELUDE, function, usable

_ARRAYS = 64  # in one launch
_KINDS = 5  # pointers for each: w, g and three averages
_NUMBERS = 8
_THREADS = 256
_PIECE = _THREADS * 8  # numbers of a block

SOURCE = PRELUDE + r"""
struct Table {
    unsigned long long at[5][64];   // w, g, and the averages a, b, c
    long long first[65];            // the number of the first piece of each array, and of all
    long long size[64];
    double numbers[8];
    long long arrays;
};

#define PIECE 2048
#define BEGIN \
    int which = 0; \
    for (int step = 32; step > 0; step >>= 1) \
        if (which + step < table.arrays && table.first[which + step] <= (long long)blockIdx.x) which += step; \
    long long from = ((long long)blockIdx.x - table.first[which]) * PIECE; \
    long long to = from + PIECE < table.size[which] ? from + PIECE : table.size[which]; \
    const double* k = live ? live : table.numbers; \
    T* w = (T*)table.at[0][which]; const T* g_ = (const T*)table.at[1][which]; \
    T* a = (T*)table.at[2][which]; T* b = (T*)table.at[3][which]; T* c = (T*)table.at[4][which]; \
    for (long long i = from + threadIdx.x; i < to; i += blockDim.x)

// Adam. k: β₁, β₂, αₜ = α√(1 − β₂ᵗ)/(1 − β₁ᵗ), ε̂ = ε√(1 − β₂ᵗ), λ, the factor 1 − αλ of decoupled decay, ±1.
extern "C" __global__ void adam(const Table table, const double* live) {
    BEGIN {
        T p = w[i] * (T)k[5];
        T g = (T)k[6] * g_[i] + (T)k[4] * p;
        T m = (T)k[0] * a[i] + (T)(1 - k[0]) * g;
        T v = (T)k[1] * b[i] + (T)(1 - k[1]) * (g * g);
        a[i] = m;
        b[i] = v;
        if (c) { v = fmax(c[i], v); c[i] = v; }
        w[i] = p - (T)k[2] * (m / (sqrt(v) + (T)k[3]));
    }
}

// SGD. k: γ, μ, the share of g in b (1 in the first step, else 1 − τ), λ, ±1, whether Nesterov's.
extern "C" __global__ void sgd(const Table table, const double* live) {
    BEGIN {
        T g = (T)k[4] * g_[i] + (T)k[3] * w[i];
        if (a) {
            T m = (T)k[1] * a[i] + (T)k[2] * g;
            a[i] = m;
            g = k[5] != 0 ? g + (T)k[1] * m : m;
        }
        w[i] -= (T)k[0] * g;
    }
}

// RMSprop. k: α, ε, γ, λ, ±1, μ. a: v, b: the mean of g where centered, c: momentum.
extern "C" __global__ void rmsprop(const Table table, const double* live) {
    BEGIN {
        T g = (T)k[4] * g_[i] + (T)k[3] * w[i];
        T v = (T)k[0] * a[i] + (T)(1 - k[0]) * (g * g);
        a[i] = v;
        if (b) {
            T mean = (T)k[0] * b[i] + (T)(1 - k[0]) * g;
            b[i] = mean;
            v -= mean * mean;
        }
        T d = g / (sqrt(v) + (T)k[1]);
        if (c) { d = (T)k[5] * c[i] + d; c[i] = d; }
        w[i] -= (T)k[2] * d;
    }
}

// s ← d s + (1 − d) w, the average being the first array, and w the second. k: d.
extern "C" __global__ void average(const Table table, const double* live) {
    BEGIN { w[i] = (T)k[0] * w[i] + (T)(1 - k[0]) * g_[i]; }
}

// The sum of squares of each piece, and the arrays times a number on the device: clipping.
extern "C" __global__ void squares(const Table table, const double* live, T* partial) {
    __shared__ T shared[32];
    T s = 0;
    BEGIN s += w[i] * w[i];
    s = block_sum(s, shared);
    if (threadIdx.x == 0) partial[blockIdx.x] = s;
}

extern "C" __global__ void scaled(const Table table, const double* live, const T* factor) {
    BEGIN w[i] = g_[i] * factor[0];
}
"""

_TABLE = np.dtype(
    [
        ("at", np.uint64, (_KINDS, _ARRAYS)),
        ("first", np.int64, (_ARRAYS + 1,)),
        ("size", np.int64, (_ARRAYS,)),
        ("numbers", np.float64, (_NUMBERS,)),
        ("arrays", np.int64),
    ]
)


def fits(xp: Any, arrays: Sequence[Any]) -> bool:
    """Whether a parameter and what belongs to it (None where there is nothing) can go into the table."""
    return usable(xp, *[x for x in arrays if x is not None]) and all(
        x is None or x.flags.c_contiguous for x in arrays
    )


def update(
    xp: Any, name: str, rows: Sequence[Sequence[Any]], numbers: Sequence[float], live: Any = None
) -> None:
    """Run ``adam``, ``sgd``, ``rmsprop`` or ``average`` on many arrays at once, in place.

    Args:
        rows: for each parameter its arrays w, g and averages, None where there is none; all of one dtype, dense, and
            within a row of one size.
        numbers: the formula's, in its order.
        live: an array of 8 float64 on the device to read the numbers from instead.
    """
    for table, pieces, dtype in _tables(rows, numbers):
        function(xp, "parameters", SOURCE, dtype, name)((pieces,), (_THREADS,), (table, live))


def norm(xp: Any, arrays: Sequence[Any]) -> Any:
    """√Σ x² over all numbers of all arrays, as an array of one number; the arrays are as :func:`update` wants them."""
    sums = []
    for table, pieces, dtype in _tables([(x,) for x in arrays]):
        partial = xp.empty(pieces, dtype)
        function(xp, "parameters", SOURCE, dtype, "squares")((pieces,), (_THREADS,), (table, None, partial))
        sums.append(partial.sum(keepdims=True))
    if not sums:
        return xp.zeros(1, arrays[0].dtype)
    total = sums[0]
    for s in sums[1:]:
        total = total + s
    return xp.sqrt(total)


def scaled(xp: Any, arrays: Sequence[Any], factor: Any) -> list[Any]:
    """New arrays, each the old one times the one number in ``factor``, of their dtype."""
    made = [xp.empty(x.shape, x.dtype) for x in arrays]
    for table, pieces, dtype in _tables(list(zip(made, arrays, strict=True))):
        function(xp, "parameters", SOURCE, dtype, "scaled")((pieces,), (_THREADS,), (table, None, factor))
    return made


def _tables(rows: Sequence[Sequence[Any]], numbers: Sequence[float] = ()) -> Iterator[tuple[np.ndarray, int, np.dtype]]:
    """(the table, how many pieces, the dtype) of up to 64 rows at a time."""
    rows = [row for row in rows if row[0].size]
    for begin in range(0, len(rows), _ARRAYS):
        part = rows[begin : begin + _ARRAYS]
        table = np.zeros(1, _TABLE)
        at, first, size = table["at"][0], table["first"][0], table["size"][0]
        piece = 0
        for j, row in enumerate(part):
            for kind, x in enumerate(row):
                if x is not None:
                    at[kind, j] = x.data.ptr
            first[j], size[j] = piece, row[0].size
            piece += -(-row[0].size // _PIECE)
        first[len(part)] = piece
        table["numbers"][0, : len(numbers)] = numbers
        table["arrays"][0] = len(part)
        yield table, piece, part[0][0].dtype

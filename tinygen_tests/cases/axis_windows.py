"""Cases of tinygen.ops.axis_windows."""

import numpy as np

from tinygen.ops import axis_windows as ops
from tinygen.testing import Case, declare, real

# (height, width), kernel, stride, padding, dilation, ceil
WINDOWS = [
    ops.pool_windows("test", *arguments)
    for arguments in [
        ((4, 4), 2, None, 0, 1, False),
        ((3, 4), (2, 3), 1, (1, 0), 1, False),
        ((5, 3), 2, 2, 1, 1, True),
        ((5, 4), (3, 2), (1, 3), 0, (2, 1), False),
        ((2, 2), 1, 1, 0, 1, False),
    ]
]


def matrix(windows):
    """A with A[o, i] = 1 where window o holds place i, both flat."""
    A = np.ones((1, 1))
    for n, K, s, p, d, m in windows:
        axis = np.zeros((m, n))
        for o in range(m):
            for k in range(K):
                if 0 <= o * s - p + k * d < n:
                    axis[o, o * s - p + k * d] = 1
        A = np.kron(A, axis)
    return A


def sums(x, windows):
    out = [w.out for w in windows]
    return (x.reshape(*x.shape[:-2], -1) @ matrix(windows).T).reshape(*x.shape[:-2], *out)


def spread(x, windows):
    n = [w.n for w in windows]
    return (x.reshape(*x.shape[:-2], -1) @ matrix(windows)).reshape(*x.shape[:-2], *n)


def planes(windows, lengths):
    return [real(1, 2, *lengths(windows)), real(1, *lengths(windows)), real(0, 1, *lengths(windows))]


DECLARATIONS = [
    declare(
        ops.sum_windows,
        *[Case(real(1, 1 + k % 2, *(w.n for w in windows)), windows) for k, windows in enumerate(WINDOWS)],
        Case(real(1, 2, 2), WINDOWS[-1]),
        constants="windows",
        linear="input",
        analytic=True,
        value=sums,
    ),
    declare(
        ops.spread_windows,
        *[Case(real(1, 1 + k % 2, *(w.out for w in windows)), windows) for k, windows in enumerate(WINDOWS)],
        Case(real(1, 2, 2), WINDOWS[-1]),
        constants="windows",
        linear="input",
        analytic=True,
        value=spread,
    ),
]

"""Cases of tinygen.ops.resampling."""

import numpy as np

from tinygen.ops import resampling as ops
from tinygen.testing import Case, declare, real

SINGLE = np.dtype("float32")
# shape, axis, mode, new length, step, dtype of nearest's places
SETTINGS = [
    ((2, 3), -1, "nearest", 5, 3 / 5, SINGLE),
    ((1, 2, 4, 2), -2, "nearest", 3, 4 / 3, SINGLE),
    ((2, 3), -1, "bilinear", 5, 3 / 5, None),
    ((1, 2, 4, 2), -2, "bilinear", 3, 4 / 3, None),
    ((2, 3), -1, "corners", 5, 2 / 4, None),
    ((1, 2, 2, 4), -1, "corners", 1, 0.0, None),
    ((0, 1, 2), -1, "bilinear", 3, 2 / 3, None),
]


def matrix(mode, n, m, step):
    """A[o, i], the weight with which place o of m reads place i of n."""
    A = np.zeros((m, n))
    for o in range(m):
        if mode == "nearest":
            A[o, min(int(np.floor(np.float32(o) * np.float32(step))), n - 1)] = 1
            continue
        place = o * step if mode == "corners" else max((o + 0.5) * step - 0.5, 0)
        i = min(int(place), n - 1)
        A[o, i] += 1 - (place - i)
        A[o, min(i + 1, n - 1)] += place - i
    return A


def along(A, x, dim):
    return np.moveaxis(np.moveaxis(x, dim, -1) @ A.T, -1, dim)


def shuffle(x, r):
    *lead, c, h, w = x.shape
    y = np.zeros((*lead, c // r**2, h * r, w * r))
    for i in range(r):
        for j in range(r):
            y[..., :, i::r, j::r] = x[..., i * r + j :: r * r, :, :]
    return y


def unshuffle(x, r):
    *lead, c, h, w = x.shape
    y = np.zeros((*lead, c * r**2, h // r, w // r))
    for i in range(r):
        for j in range(r):
            y[..., i * r + j :: r * r, :, :] = x[..., :, i::r, j::r]
    return y


def resized(shape, dim, m):
    return [m if d == len(shape) + dim else n for d, n in enumerate(shape)]


DECLARATIONS = [
    declare(
        ops._resample,
        *[Case(real(*shape), dim, mode, m, step, dtype) for shape, dim, mode, m, step, dtype in SETTINGS],
        constants="dim mode m step dtype",
        linear="input",
        analytic=True,
        slack=2,
        value=lambda x, dim, mode, m, step, dtype: along(matrix(mode, x.shape[dim], m, step), x, dim),
    ),
    declare(
        ops._resample_adjoint,
        *[
            Case(real(*resized(shape, dim, m)), dim, mode, shape[dim], step, dtype)
            for shape, dim, mode, m, step, dtype in SETTINGS
        ],
        constants="dim mode n step dtype",
        linear="input",
        analytic=True,
        slack=2,
        value=lambda x, dim, mode, n, step, dtype: along(matrix(mode, n, x.shape[dim], step).T, x, dim),
    ),
    declare(
        ops._shuffle,
        Case(real(4, 2, 1), 2),
        Case(real(1, 8, 1, 2), 2),
        Case(real(1, 2, 2, 2), 1),
        Case(real(0, 4, 1, 1), 2),
        constants="r",
        linear="input",
        analytic=True,
        value=shuffle,
    ),
    declare(
        ops._unshuffle,
        Case(real(1, 4, 2), 2),
        Case(real(1, 2, 2, 4), 2),
        Case(real(1, 2, 2, 2), 1),
        Case(real(0, 1, 2, 2), 2),
        constants="r",
        linear="input",
        analytic=True,
        value=unshuffle,
    ),
]

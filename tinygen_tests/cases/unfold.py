"""Cases of tinygen.ops.unfold."""

import numpy as np

from tinygen.ops import unfold as ops
from tinygen.testing import Case, declare, real

# size, kernel, stride, padding, dilation
WINDOWS = [
    ops.sliding(*arguments, "test")
    for arguments in [
        ((3, 3), (2, 2), 1, 0, 1),
        ((3, 4), (2, 1), (2, 1), (1, 0), 1),
        ((4, 3), (2, 2), 1, 1, (2, 1)),
        ((2, 2), (1, 1), 1, 0, 1),
        ((4, 4), (1, 2), (3, 2), 0, 1),  # some places in no window
    ]
]


def places(window):
    """(channel-free) column, and the place of the picture that it reads, one after another."""
    for u in range(window.kernel[0]):
        for v in range(window.kernel[1]):
            for i in range(window.out[0]):
                for j in range(window.out[1]):
                    h = window.stride[0] * i + window.dilation[0] * u - window.padding[0]
                    w = window.stride[1] * j + window.dilation[1] * v - window.padding[1]
                    if 0 <= h < window.size[0] and 0 <= w < window.size[1]:
                        yield (u * window.kernel[1] + v, i * window.out[1] + j), (h, w)


def unfold(x, window):
    (kh, kw), (oh, ow) = window.kernel, window.out
    y = np.zeros((*x.shape[:2], kh * kw, oh * ow))
    for (tap, position), (h, w) in places(window):
        y[:, :, tap, position] = x[:, :, h, w]
    return y.reshape(len(x), x.shape[1] * kh * kw, oh * ow)


def fold(x, window):
    (kh, kw), (oh, ow) = window.kernel, window.out
    columns = x.reshape(len(x), x.shape[1] // (kh * kw), kh * kw, oh * ow)
    y = np.zeros((*columns.shape[:2], *window.size))
    for (tap, position), (h, w) in places(window):
        y[:, :, h, w] += columns[:, :, tap, position]
    return y


def columns(window, n, c):
    return real(n, c * window.kernel[0] * window.kernel[1], window.out[0] * window.out[1])


DECLARATIONS = [
    declare(
        ops._unfold,
        *[Case(real(1, 2, *window.size), window) for window in WINDOWS],
        Case(real(0, 1, *WINDOWS[0].size), WINDOWS[0]),
        constants="window",
        linear="input",
        analytic=True,
        value=unfold,
    ),
    declare(
        ops._fold,
        *[Case(columns(window, 1, 2), window) for window in WINDOWS],
        Case(columns(WINDOWS[0], 0, 1), WINDOWS[0]),
        constants="window",
        linear="input",
        analytic=True,
        value=fold,
    ),
]

"""Cases of tinygen.ops.convolution: T(x, w, y), the trilinear form, in its three derivatives."""

import numpy as np

from tinygen.ops import convolution as ops
from tinygen.ops.unfold import sliding
from tinygen.testing import Case, declare, real

# size, kernel, stride, padding, dilation; groups, channels and filters of one group; batch
SETTINGS = [
    (((3, 3), (2, 2), 1, 0, 1), 1, 1, 2, 2),
    (((3, 4), (2, 1), (2, 1), (1, 0), 1), 1, 2, 1, 1),
    (((4, 3), (2, 2), 1, 1, (2, 1)), 2, 1, 1, 1),
    (((2, 2), (1, 1), 1, 0, 1), 1, 2, 2, 1),
    (((4, 4), (1, 2), (3, 2), 0, 1), 1, 1, 1, 1),
    (((3, 3), (2, 2), 2, 1, 1), 2, 1, 2, 1),
    (((2, 2), (2, 2), 1, 0, 1), 1, 1, 1, 0),
]


def shapes(geometry, groups, c, o, n):
    """The shapes of x, w and y, and the window."""
    window = sliding(*geometry, "test")
    return (n, groups * c, *window.size), (groups * o, c, *window.kernel), (n, groups * o, *window.out), window


def cases(f):
    return [f(*shapes(*setting), setting[1]) for setting in SETTINGS]


def terms(x, w, y, window, groups):
    """The places in x, w and y of every product in T."""
    c, o = x[1] // groups, y[1] // groups
    for group in range(groups):
        for k in range(o):
            for m in range(c):
                for u in range(window.kernel[0]):
                    for v in range(window.kernel[1]):
                        for i in range(window.out[0]):
                            for j in range(window.out[1]):
                                h = window.stride[0] * i + window.dilation[0] * u - window.padding[0]
                                l = window.stride[1] * j + window.dilation[1] * v - window.padding[1]
                                if 0 <= h < window.size[0] and 0 <= l < window.size[1]:
                                    every = slice(None)
                                    yield (
                                        (every, group * c + m, h, l),
                                        (group * o + k, m, u, v),
                                        (every, group * o + k, i, j),
                                    )


def conv2d(x, w, b, window, groups):
    y = np.zeros((len(x), len(w), *window.out)) + (0 if b is None else b.reshape(-1, 1, 1))
    for at_x, at_w, at_y in terms(x.shape, w.shape, y.shape, window, groups):
        y[at_y] += w[at_w] * x[at_x]
    return y


def conv_transpose2d(y, w, b, window, groups):
    x = np.zeros((len(y), w.shape[1] * groups, *window.size)) + (0 if b is None else b.reshape(-1, 1, 1))
    for at_x, at_w, at_y in terms(x.shape, w.shape, y.shape, window, groups):
        x[at_x] += w[at_w] * y[at_y]
    return x


def weight_gradient(x, y, window, groups):
    w = np.zeros((y.shape[1], x.shape[1] // groups, *window.kernel))
    for at_x, at_w, at_y in terms(x.shape, w.shape, y.shape, window, groups):
        w[at_w] += (x[at_x] * y[at_y]).sum()
    return w


DECLARATIONS = [
    declare(
        ops._conv2d,
        *cases(lambda x, w, y, window, groups: Case(real(*x), real(*w), real(y[1]), window, groups)),
        Case(real(1, 2, 3, 3), real(1, 2, 2, 2), None, shapes(*SETTINGS[0])[3], 1),
        constants="window groups",
        linear="input weight bias",
        analytic=True,
        slack=2,
        value=conv2d,
    ),
    declare(
        ops._conv_transpose2d,
        *cases(lambda x, w, y, window, groups: Case(real(*y), real(*w), real(x[1]), window, groups)),
        Case(real(1, 2, 2, 2), real(2, 1, 2, 2), None, shapes(*SETTINGS[0])[3], 1),
        constants="window groups",
        linear="input weight bias",
        analytic=True,
        slack=2,
        value=conv_transpose2d,
    ),
    declare(
        ops._conv2d_weight_gradient,
        *cases(lambda x, w, y, window, groups: Case(real(*x), real(*y), window, groups)),
        constants="window groups",
        linear="input output",
        analytic=True,
        slack=2,
        value=weight_gradient,
    ),
    declare(
        ops._channel_sums,
        Case(real(2, 3, 2, 1)),
        Case(real(0, 2, 3, 3)),
        linear="input",
        analytic=True,
        value=lambda x: x.sum((0, 2, 3)),
    ),
]

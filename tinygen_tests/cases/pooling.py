"""Cases of tinygen.ops.pooling."""

import math

import numpy as np

from tinygen.ops import pooling as ops
from tinygen.testing import Case, declare, distinct, real
from tinygen_tests.cases.axis_windows import WINDOWS

LEAD = (1, 2)


def sizes(windows):
    return [w.n for w in windows], [w.out for w in windows]


def choices(windows):
    """Choices that some planes lead to."""
    x = distinct(*LEAD, *sizes(windows)[0]).draw(np.random.default_rng(0))
    return tuple(ops._choose(x, windows)[1:])


def places(choices, windows):
    """The flat place in its plane that each window chose."""
    n, m = sizes(windows)
    grid = np.broadcast_to(np.arange(math.prod(n)).reshape(n), (*LEAD, *n)).copy()
    return ops._pick.op.forward(grid, choices, windows).reshape(*LEAD, -1)


def unpool(x, choices, windows):
    n, _ = sizes(windows)
    y = np.zeros((*LEAD, math.prod(n)))
    for lead in np.ndindex(*LEAD):
        np.add.at(y[lead], places(choices, windows)[lead], x[lead].reshape(-1))
    return y.reshape(*LEAD, *n)


def pick(x, choices, windows):
    flat = x.reshape(*LEAD, -1)
    return np.take_along_axis(flat, places(choices, windows), -1).reshape(*LEAD, *sizes(windows)[1])


def bins(n, m):
    """A[o, i] = 1/length where bin o of m holds place i of n."""
    A = np.zeros((m, n))
    for o in range(m):
        low, high = math.floor(o * n / m), math.ceil((o + 1) * n / m)
        A[o, low:high] = 1 / (high - low)
    return A


def along(A, x, dim):
    return np.moveaxis(np.moveaxis(x, dim, -1) @ A.T, -1, dim)


DECLARATIONS = [
    declare(
        ops._max_pool,
        *[Case(distinct(*LEAD, *sizes(windows)[0]), windows, True) for windows in WINDOWS],
        Case(distinct(1, 2, 2), WINDOWS[-1], True),
        constants="windows choose",
        value=lambda x, windows, choose: ops.max_pool2d_by_definition(x, windows)[0],
    ),
    declare(
        ops._unpool,
        *[Case(real(*LEAD, *sizes(windows)[1]), choices(windows), windows) for windows in WINDOWS],
        constants="choices windows",
        linear="input",
        value=unpool,
    ),
    declare(
        ops._pick,
        *[Case(real(*LEAD, *sizes(windows)[0]), choices(windows), windows) for windows in WINDOWS],
        constants="choices windows",
        linear="input",
        value=pick,
    ),
    declare(
        ops._bin_means,
        Case(real(2, 5), -1, 2),
        Case(real(1, 2, 3, 2), -2, 2),
        Case(real(2, 2), -1, 3),
        Case(real(0, 3), -1, 2),
        constants="dim out",
        linear="input",
        analytic=True,
        value=lambda x, dim, out: along(bins(x.shape[dim], out), x, dim),
    ),
    declare(
        ops._bin_spread,
        Case(real(2, 2), -1, 5),
        Case(real(1, 2, 2, 2), -2, 3),
        Case(real(2, 3), -1, 2),
        Case(real(0, 2), -1, 3),
        constants="dim n",
        linear="input",
        analytic=True,
        value=lambda x, dim, n: along(bins(n, x.shape[dim]).T, x, dim),
    ),
]

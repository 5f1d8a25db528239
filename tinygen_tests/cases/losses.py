"""Cases of tinygen.ops.losses."""

import numpy as np

from tinygen.ops import losses as ops
from tinygen.testing import Case, declare, real
from tinygen_tests.cases.elementwise import apart

SHAPES = [((2, 3), (3,)), ((2, 2), (2, 2)), ((1, 2, 2, 2), (2, 1, 1)), ((), ()), ((0, 2), (2,))]
EQUAL = [((2, 3), (2, 3)), ((1, 2, 2, 2), (1, 2, 2, 2)), ((), ()), ((0, 2), (0, 2))]


def probability(*shape):
    return real(*shape, low=0.1, high=0.9)


def from_zero_and_one(x, t):
    """x and t whose difference is neither near 0 nor near ±1, where the Huber loss bends."""
    d = real(*x, low=-1.7, high=1.7, away=[-1, 0, 1]).draw(np.random.default_rng(1))
    target = real(*t).draw(np.random.default_rng(2))
    return Case(target + d, target, 1.0)


def huber(x, t, delta):
    d = np.abs(x - t)
    return np.where(d <= delta, 0.5 * d**2, delta * (d - 0.5 * delta))


DECLARATIONS = [
    declare(
        ops._squared_error,
        *[Case(real(*x), real(*t)) for x, t in SHAPES],
        analytic=True,
        value=lambda x, t: (x - t) ** 2,
    ),
    declare(
        ops._twice_the_difference,
        *[Case(real(*np.broadcast_shapes(x, t)), real(*x), real(*t)) for x, t in SHAPES],
        analytic=True,
        value=lambda g, x, t: 2 * g * (x - t),
    ),
    declare(ops._absolute_error, *[Case(*apart(x, t)) for x, t in SHAPES], value=lambda x, t: np.abs(x - t)),
    declare(ops._huber, *[from_zero_and_one(x, t) for x, t in EQUAL], constants="delta", value=huber),
    declare(
        ops._binary_cross_entropy,
        *[Case(probability(*x), probability(*t)) for x, t in SHAPES],
        linear="target",
        slack=2,
        value=lambda x, t: -t * np.log(x) - (1 - t) * np.log(1 - x),
    ),
    declare(
        ops._bce_with_logits,
        *[Case(real(*x), probability(*t)) for x, t in SHAPES],
        linear="target",
        value=lambda x, t: np.log(1 + np.exp(x)) - t * x,
    ),
    declare(
        ops._bce_with_logits_slope,
        *[Case(real(*np.broadcast_shapes(x, t)), real(*x), probability(*t)) for x, t in SHAPES],
        analytic=True,
        linear="g",
        value=lambda g, x, t: g * (1 / (1 + np.exp(-x)) - t),
    ),
]

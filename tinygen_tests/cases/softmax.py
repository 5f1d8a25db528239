"""Cases of tinygen.ops.softmax."""

import numpy as np

from tinygen.ops import softmax as ops
from tinygen.testing import Case, declare, real

SHAPES = [((2, 3), 1), ((3, 2), 0), ((1, 2, 2, 2), 1), ((), None), ((0, 3), 1)]


def softmax(x, dim, safe=False):
    e = np.exp(x)
    return e / e.sum(axis=dim, keepdims=True)


DECLARATIONS = [
    declare(
        ops._softmax,
        *[Case(real(*shape), dim, safe) for shape, dim in SHAPES for safe in (False, True)],
        constants="dim safe",
        analytic=True,
        value=softmax,
    ),
    declare(
        ops._softmax_vjp,
        *[Case(real(*shape), real(*shape), dim) for shape, dim in SHAPES],
        constants="dim",
        linear="g",
        analytic=True,
        slack=2,
        value=lambda g, y, dim: y * (g - (g * y).sum(axis=dim, keepdims=True)),
    ),
    declare(
        ops._log_softmax,
        *[Case(real(*shape), dim) for shape, dim in SHAPES],
        constants="dim",
        analytic=True,
        value=lambda x, dim: np.log(softmax(x, dim)),
    ),
    declare(
        ops._log_softmax_vjp,
        *[Case(real(*shape), real(*shape), dim) for shape, dim in SHAPES],
        constants="dim",
        linear="g",
        analytic=True,
        slack=2,
        value=lambda g, y, dim: g - np.exp(y) * g.sum(axis=dim, keepdims=True),
    ),
]

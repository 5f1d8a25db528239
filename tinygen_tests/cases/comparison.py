"""Cases of tinygen.ops.comparison."""

import math

import numpy as np

from tinygen.ops import comparison as ops
from tinygen.testing import Case, booleans, declare, integers, real

SPECIAL = np.array([0.0, -1.5, math.inf, -math.inf, math.nan])


def compares(op, value):
    cases = [
        Case(integers(2, 3), integers(3)),
        Case(real(2, 2), real(2, 2)),
        Case(np.array([1.0, 2.0, math.nan]), np.array([1.0, 3.0, math.nan])),
        Case(np.array([1.0, 2.0, 3.0]), 2.0),
        Case(integers(0, 2), integers(2)),
    ]
    return declare(op, *cases, differentiable=False, value=value)


def bitwise(op, value):
    cases = [Case(booleans(2, 3), booleans(3)), Case(integers(4, high=16), integers(4, high=16))]
    return declare(op, *cases, differentiable=False, value=value)


DECLARATIONS = [
    *[
        compares(op, value)
        for op, value in [
            (ops.eq, np.equal),
            (ops.ne, np.not_equal),
            (ops.lt, np.less),
            (ops.le, np.less_equal),
            (ops.gt, np.greater),
            (ops.ge, np.greater_equal),
        ]
    ],
    bitwise(ops.bitwise_and, np.bitwise_and),
    bitwise(ops.bitwise_or, np.bitwise_or),
    bitwise(ops.bitwise_xor, np.bitwise_xor),
    declare(
        ops.bitwise_not,
        Case(booleans(2, 3)),
        Case(integers(4, low=-3, high=16)),
        differentiable=False,
        value=np.invert,
    ),
    declare(
        ops.logical_not, Case(booleans(3)), Case(integers(4)), Case(SPECIAL), differentiable=False, value=np.logical_not
    ),
    declare(ops.isnan, Case(SPECIAL), Case(real(2, 3)), differentiable=False, value=np.isnan),
    declare(ops.isfinite, Case(SPECIAL), Case(real(2, 3)), differentiable=False, value=np.isfinite),
]

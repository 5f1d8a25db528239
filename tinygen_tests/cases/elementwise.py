"""Cases of tinygen.ops.elementwise."""

import math

import numpy as np

from tinygen.ops import elementwise as ops
from tinygen.testing import Case, booleans, declare, distinct, positive, real

HALVES = [-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2]  # where floor, ceil or round jumps


def unary(values):
    """A matrix, a number, nothing at all, planes."""
    return [Case(values(*shape)) for shape in [(2, 3), (), (0, 3), (1, 3, 2, 2)]]


def binary(a=real, b=real):
    """Repeated operands, equal shapes, planes, Python numbers on either side, no axes, nothing at all."""
    return [
        Case(a(2, 3), b(3)),
        Case(a(2, 2), b(2, 2)),
        Case(a(1, 2, 2, 2), b(2, 1, 1)),
        Case(a(3), 1.5),
        Case(1.5, b(3)),
        Case(a(), b(1, 2)),
        Case(a(0, 2), b(2)),
    ]


def apart(*shapes):
    """Arrays of these shapes without a tie, within one or between two."""
    sizes = [math.prod(shape) for shape in shapes]
    numbers = distinct(sum(sizes)).draw(np.random.default_rng(0))
    return [part.reshape(shape) for part, shape in zip(np.split(numbers, np.cumsum(sizes)[:-1]), shapes)]


def off_zero(*shape):
    return real(*shape, away=[0], gap=0.3)


def smooth(op, value, values=real):
    return declare(op, *unary(values), analytic=True, value=value)


DECLARATIONS = [
    # arithmetic
    declare(ops.add, *binary(), linear="input other", analytic=True, value=lambda a, b: a + b),
    declare(ops.sub, *binary(), linear="input other", analytic=True, value=lambda a, b: a - b),
    declare(ops.mul, *binary(), linear="input other", analytic=True, value=lambda a, b: a * b),
    declare(ops.div, *binary(b=off_zero), linear="input", analytic=True, value=lambda a, b: a / b),
    declare(
        ops.pow,
        *binary(positive),
        *[Case(off_zero(2, 3), power) for power in (0, 1, 2, 3.0, -1, -2)],
        Case(positive(3), 0.5),
        Case(off_zero(4), np.array([2, 0, -1, 3])),
        Case(0.0, positive(3)),
        slack=4,
        value=lambda a, b: np.power(a, b, dtype=np.result_type(a, b) if np.ndim(b) == 0 else np.asarray(a).dtype),
    ),
    declare(ops.neg, *unary(real), linear="input", analytic=True, value=np.negative),
    declare(ops.abs, *unary(lambda *shape: real(*shape, kinks=[0])), value=np.abs),
    declare(ops.sign, *unary(off_zero), value=np.sign),
    *[
        declare(op, *unary(lambda *shape: real(*shape, away=HALVES)), value=value)
        for op, value in [(ops.floor, np.floor), (ops.ceil, np.ceil), (ops.round, np.round)]
    ],
    declare(ops.zeros_like, *unary(real), differentiable=False, value=np.zeros_like),
    # exponentials, logarithms, roots
    smooth(ops.exp, np.exp),
    smooth(ops.expm1, np.expm1),
    smooth(ops.log, np.log, positive),
    smooth(ops.log1p, np.log1p, lambda *shape: real(*shape, low=-0.7)),
    smooth(ops.sqrt, np.sqrt, positive),
    smooth(ops.rsqrt, lambda a: 1 / np.sqrt(a), positive),
    smooth(ops.square, np.square),
    smooth(ops.reciprocal, lambda a: 1 / a, off_zero),
    # trigonometric, sigmoidal
    smooth(ops.sin, np.sin),
    smooth(ops.cos, np.cos),
    smooth(ops.tanh, np.tanh),
    smooth(ops.sigmoid, lambda a: 1 / (1 + np.exp(-a))),
    declare(ops.erf, *unary(real), value=np.vectorize(math.erf, otypes=["float64"])),
    # choosing
    *[
        declare(
            op,
            *[Case(*apart(*shapes)) for shapes in [((2, 3), (3,)), ((2, 2), (2, 2)), ((1, 2, 2, 2), (2, 1, 1))]],
            Case(off_zero(3), 0.0),
            Case(0.0, off_zero(3)),
            Case(real(0, 2), real(2)),
            value=value,
        )
        for op, value in [(ops.maximum, np.maximum), (ops.minimum, np.minimum)]
    ],
    declare(
        ops.where,
        Case(booleans(2, 3), real(2, 3), real(3)),
        Case(booleans(2, 1), real(2, 2), real(2, 2)),
        Case(booleans(2, 1, 1), real(1, 2, 2, 2), 0.5),
        Case(booleans(3), -0.5, real(3)),
        Case(booleans(0, 2), real(2), real()),
        constants="condition",
        linear="input other",
        analytic=True,
        value=np.where,
    ),
]

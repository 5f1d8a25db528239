"""Cases of tinygen.ops.activations."""

import math

import numpy as np

from tinygen.ops import activations as ops
from tinygen.testing import Case, declare, derived, real

_erf = np.vectorize(math.erf, otypes=["float64"])


def cases(values=real, **options):
    return [Case(values(*shape), **options) for shape in [(2, 3), (), (0, 3), (1, 3, 2, 2)]]


def kinked(*shape):
    return real(*shape, kinks=[0])


def off_zero(*shape):
    return real(*shape, away=[0])


def pairs(values=real, *more):
    """A cotangent and an argument of one shape."""
    return [Case(real(*shape), values(*shape), *more) for shape in [(2, 3), (), (0, 3), (1, 2, 2, 2)]]


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu_tanh_vjp(g, x):
    """The product rule on ½x(1 + tanh u), u = √(2/π)·(x + 0.044715x³)."""
    u, slope = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3), math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return g * 0.5 * (1 + np.tanh(u) + x * slope * (1 - np.tanh(u) ** 2))


DECLARATIONS = [
    declare(ops.relu, *cases(kinked), value=lambda x: np.where(x > 0, x, 0)),
    declare(ops._where_positive, *pairs(off_zero), constants="y", linear="g", value=lambda g, y: np.where(y > 0, g, 0)),
    declare(
        ops.leaky_relu,
        *cases(kinked),
        *cases(kinked, negative_slope=-0.5),
        Case(kinked(3), 1.5),
        constants="negative_slope",
        value=lambda x, s: np.where(x > 0, x, s * x),
    ),
    declare(
        ops._leaky,
        *pairs(off_zero, 0.1),
        *pairs(off_zero, -2.0),
        constants="x slope",
        linear="g",
        value=lambda g, x, s: np.where(x > 0, g, s * g),
    ),
    declare(
        ops.elu,
        *cases(off_zero),
        Case(kinked(2, 3), alpha=0.5),
        constants="alpha",
        value=lambda x, alpha: np.where(x > 0, x, alpha * (np.exp(x) - 1)),
    ),
    declare(
        ops.softplus,
        *cases(),
        Case(real(2, 3), beta=2),
        Case(real(6, away=[0.5]), beta=2, threshold=1),  # above it y = x: a jump
        constants="beta threshold",
        value=lambda x, beta, threshold: np.where(beta * x > threshold, x, np.log(1 + np.exp(beta * x)) / beta),
    ),
    declare(ops.logsigmoid, *cases(), value=lambda x: np.log(_sigmoid(x))),
    declare(ops.silu, *cases(), analytic=True, value=lambda x: x * _sigmoid(x)),
    declare(
        ops._silu_vjp,
        *pairs(),
        linear="g",
        analytic=True,
        value=lambda g, x: g * _sigmoid(x) * (1 + x * (1 - _sigmoid(x))),
    ),
    declare(ops._gelu, *cases(), value=lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2)))),
    declare(
        ops._gelu_vjp,
        *pairs(real, derived(lambda x: ops._gelu.op.forward(x)[1])),
        linear="g",
        slack=2,
        value=lambda g, x: g * (0.5 * (1 + _erf(x / math.sqrt(2))) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)),
    ),
    declare(
        ops._gelu_tanh,
        *cases(),
        analytic=True,
        value=lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    declare(ops._gelu_tanh_vjp, *pairs(), linear="g", analytic=True, slack=2, value=gelu_tanh_vjp),
]

"""Cases of tinygen.ops.reduction."""

import numpy as np

from tinygen.ops import reduction as ops
from tinygen.testing import Case, booleans, declare, distinct, integers, real


def cases(values=real, empty=True):
    """No axis named, one, a negative one, several, axes kept or not, planes, a number, nothing at all."""
    return [
        Case(values(2, 3), None, False),
        Case(values(2, 3), 0, False),
        Case(values(2, 3), -1, True),
        Case(values(2, 3, 2), (0, -1), False),
        Case(values(2, 2, 2, 1), (2, 3), True),
        Case(values(), None, False),
    ] + [Case(values(0, 3), 0, False), Case(values(2, 0), None, True)] * empty


def over(f):
    """NumPy's reduction with PyTorch's arguments."""
    return lambda x, dim, keepdim: f(x, axis=dim, keepdims=keepdim)


def one_axis(values):
    return [Case(values(2, 3), None, False), Case(values(2, 3), 1, True), Case(values(2, 2, 2, 2), -3, False)]


DECLARATIONS = [
    declare(ops._sum, *cases(), constants="dim keepdim", linear="input", analytic=True, value=over(np.sum)),
    declare(
        ops._mean,
        *cases(empty=False),
        Case(real(0, 3), 1, False),
        constants="dim keepdim",
        linear="input",
        analytic=True,
        value=over(np.mean),
    ),
    declare(
        ops.sum_to_size,
        Case(real(2, 3), (3,)),
        Case(real(2, 3), (2, 1)),
        Case(real(2, 3), ()),
        Case(real(1, 2, 2, 2), (2, 1, 2)),
        Case(real(0, 3), (1, 3)),
        constants="size",
        linear="input",
        analytic=True,
        value=lambda x, size: (
            np.einsum("ij->" + {(3,): "j", (2, 1): "i", (): "", (1, 3): "j"}[size], x).reshape(size)
            if x.ndim == 2
            else x[0].sum(1, keepdims=True)
        ),
    ),
    declare(
        ops._cumsum,
        Case(real(2, 3), 0),
        Case(real(2, 3), 1),
        Case(real(1, 2, 3, 2), 2),
        Case(real(0, 3), 1),
        constants="dim",
        linear="input",
        analytic=True,
        value=np.cumsum,
    ),
    declare(ops._amax, *cases(distinct, empty=False), constants="dim keepdim", value=over(np.max)),
    declare(ops._amin, *cases(distinct, empty=False), constants="dim keepdim", value=over(np.min)),
    *[
        declare(
            op,
            *one_axis(distinct),
            *one_axis(lambda *shape: integers(*shape, high=2)),  # ties: the first
            differentiable=False,
            value=over(value),
        )
        for op, value in [(ops._argmax, np.argmax), (ops._argmin, np.argmin)]
    ],
    *[
        declare(
            op,
            *cases(booleans),
            *cases(lambda *shape: integers(*shape, high=2)),
            Case(np.array([0.0, np.nan]), 0, False),
            differentiable=False,
            value=over(value),
        )
        for op, value in [(ops._all, np.all), (ops._any, np.any)]
    ],
    declare(
        ops._logsumexp,
        *cases(empty=False),
        Case(real(0, 3), 1, False),
        constants="dim keepdim",
        analytic=True,
        value=over(lambda x, axis, keepdims: np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))),
    ),
]

"""Cases of tinygen.ops.shape: all of them linear."""

import numpy as np

from tinygen.ops import shape as ops
from tinygen.testing import Case, declare, real

LINEAR = {"linear": "input", "analytic": True}


def crop(x, dim, start, length):
    return np.take(x, range(start, start + length), axis=dim)


def pad_axis(x, dim, before, after):
    return np.pad(x, [(before, after) if d == dim else (0, 0) for d in range(x.ndim)])


DECLARATIONS = [
    declare(
        ops._reshape,
        Case(real(2, 3), (3, 2)),
        Case(real(2, 3), (-1,)),
        Case(real(), (1, 1)),
        Case(real(1, 2, 2, 3), (2, 6)),
        Case(real(0, 3), (3, 0)),
        constants="shape",
        **LINEAR,
        value=lambda x, shape: x.reshape(shape),
    ),
    declare(
        ops._permute,
        Case(real(2, 3), (1, 0)),
        Case(real(), ()),
        Case(real(1, 2, 3, 2), (0, 2, 3, 1)),
        Case(real(2, 3, 2), (2, 0, 1)),
        Case(real(0, 2), (1, 0)),
        constants="dims",
        **LINEAR,
        value=np.transpose,
    ),
    declare(
        ops._broadcast_to,
        Case(real(3), (2, 3)),
        Case(real(2, 1), (2, 3)),
        Case(real(), (2,)),
        Case(real(1, 2, 1, 2), (2, 2, 3, 2)),
        Case(real(1), (0,)),
        constants="shape",
        **LINEAR,
        value=np.broadcast_to,
    ),
    declare(
        ops._crop,
        Case(real(4, 2), 0, 1, 2),
        Case(real(2, 4), 1, 0, 3),
        Case(real(1, 2, 3, 2), 2, 2, 1),
        Case(real(3), 0, 1, 0),
        constants="dim start length",
        **LINEAR,
        value=crop,
    ),
    declare(
        ops._pad_axis,
        Case(real(2, 3), 0, 1, 2),
        Case(real(2, 3), 1, 0, 1),
        Case(real(1, 2, 2, 2), 3, 2, 0),
        Case(real(0, 2), 0, 1, 1),
        constants="dim before after",
        **LINEAR,
        value=pad_axis,
    ),
    declare(
        ops._cat,
        Case([real(2, 3), real(1, 3), real(0, 3)], 0),
        Case([real(2, 1), real(2, 2)], 1),
        Case([real(3), real(3)], 0),
        Case([real(1, 2, 2, 1), real(1, 1, 2, 1)], 1),
        Case([real(2)], 0),
        constants="dim",
        linear="tensors",
        analytic=True,
        value=np.concatenate,
    ),
    declare(
        ops._flip,
        Case(real(2, 3), (0,)),
        Case(real(2, 3), (0, 1)),
        Case(real(1, 2, 3, 2), (2, 3)),
        Case(real(0, 2), (1,)),
        constants="dims",
        **LINEAR,
        value=np.flip,
    ),
    declare(
        ops._roll,
        Case(real(2, 3), (1,), (1,)),
        Case(real(2, 3), (-1, 4), (0, 1)),
        Case(real(1, 2, 3, 2), (2, -1), (2, 1)),
        Case(real(0, 2), (1,), (1,)),
        constants="shifts dims",
        **LINEAR,
        value=np.roll,
    ),
]

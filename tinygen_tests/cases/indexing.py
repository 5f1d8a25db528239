"""Cases of tinygen.ops.indexing: reading places and adding to them, adjoint to each other."""

import numpy as np

from tinygen.ops import indexing as ops
from tinygen.testing import Case, declare, real

# shape → index expressions, raw: integer arrays name places twice, masks hold some, slices go backwards
INDICES = [
    ((2, 3), (0,)),
    ((2, 3), (slice(None), -1)),
    ((2, 3), (Ellipsis, slice(0, 3, 2), None)),
    ((3, 2), (slice(None, None, -1),)),
    ((3, 2), (np.array([0, 2, 2, -1]),)),
    ((3, 3), (np.array([[0, 1], [2, 2]]), np.array([0, 2]))),
    ((2, 3), (np.array([[True, False, True], [False, False, True]]),)),
    ((2, 3), (slice(None), np.array([True, False, True]))),
    ((2, 2, 2, 2), (slice(None), np.array([1, 1]), slice(None), slice(1, None))),
    ((), (None,)),
    ((3,), (np.array([], dtype="int64"),)),
    ((0, 2), (slice(None), 1)),
]


def put(x, index, shape):
    y = np.zeros(shape, x.dtype)
    np.add.at(y, index, x)
    return y


DECLARATIONS = [
    declare(
        ops._getitem,
        *[Case(real(*shape), index) for shape, index in INDICES],
        constants="index",
        linear="input",
        value=lambda x, index: x[index],
    ),
    declare(
        ops._put,
        *[Case(real(*np.zeros(shape)[index].shape), index, shape) for shape, index in INDICES],
        constants="index shape",
        linear="input",
        value=put,
    ),
]

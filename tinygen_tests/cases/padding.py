"""Cases of tinygen.ops.padding: (before, after) of every axis."""

import numpy as np

from tinygen.ops import padding as ops
from tinygen.testing import Case, declare, real

CONSTANT = [
    ((2, 3), ((0, 0), (1, 2))),
    ((3, 3), ((1, 0), (-1, 2))),
    ((3, 3), ((-1, -1), (0, -1))),
    ((1, 2, 2, 2), ((0, 0), (0, 0), (1, 1), (0, 2))),
    ((), ()),
    ((0, 2), ((1, 1), (0, 0))),
]
BORDERS = [
    ((2, 3), ((0, 0), (1, 2))),
    ((2, 3), ((0, 0), (0, 1))),
    ((1, 2, 3), ((0, 0), (1, 1), (2, 1))),
    ((1, 1, 2, 3), ((0, 0), (0, 0), (1, 0), (0, 2))),
]
MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # ours → NumPy's


def cropped_or_padded(x, pads, value):
    x = x[tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(x.shape, pads))]
    return np.pad(x, [(max(b, 0), max(a, 0)) for b, a in pads], constant_values=value) if pads else x


def fold(x, pads, mode):
    """The adjoint of np.pad, column by column of its matrix."""
    inside = tuple(n - b - a for n, (b, a) in zip(x.shape, pads))
    units = np.eye(int(np.prod(inside))).reshape(-1, *inside)
    return np.array([(np.pad(unit, pads, MODES[mode]) * x).sum() for unit in units]).reshape(inside)


def longer(shape, pads):
    return tuple(n + b + a for n, (b, a) in zip(shape, pads))


DECLARATIONS = [
    declare(
        ops._pad_constant,
        *[Case(real(*shape), pads, value) for shape, pads in CONSTANT for value in (0, 1.5)],
        constants="pads value",
        linear="input",
        analytic=True,
        value=cropped_or_padded,
    ),
    declare(
        ops._extend,
        *[Case(real(*shape), pads, mode) for shape, pads in BORDERS for mode in MODES],
        constants="pads mode",
        linear="input",
        analytic=True,
        value=lambda x, pads, mode: np.pad(x, pads, MODES[mode]),
    ),
    declare(
        ops._fold,
        *[Case(real(*longer(shape, pads)), pads, mode) for shape, pads in BORDERS for mode in MODES],
        constants="pads mode",
        linear="input",
        analytic=True,
        value=fold,
    ),
]

"""Cases of tinygen.ops.embedding."""

import numpy as np

from tinygen.ops import embedding as ops
from tinygen.testing import Case, declare, integers

DECLARATIONS = [
    declare(
        ops._one_hot,
        *[Case(integers(*shape, high=3), 4) for shape in [(5,), (2, 3), (), (0,)]],
        differentiable=False,
        value=lambda index, n: np.eye(n, dtype="int64")[index],
    )
]

"""Cases of tinygen.ops.conversion: all of them linear."""

import numpy as np

from tinygen.backend import device_of
from tinygen.ops import conversion as ops
from tinygen.testing import Case, declare, derived, real

LINEAR = {"linear": "input", "analytic": True}

DECLARATIONS = [
    declare(
        ops._astype,
        Case(real(2, 3), "float64"),
        Case(real(1, 2, 2, 2), "float64"),
        Case(real(), "float64"),
        constants="dtype",
        linear="input",
        same_dtype=False,
        value=lambda x, dtype: x.astype(dtype),
    ),
    declare(
        ops._to_device,
        Case(real(2, 3), derived(lambda input: device_of(input))),
        Case(real(), derived(lambda input: device_of(input))),
        **LINEAR,
        value=np.array,
    ),
    *[
        declare(op, *[Case(real(*shape)) for shape in [(2, 3), (), (0, 3), (1, 2, 3, 2)]], **LINEAR, value=np.array)
        for op in (ops.clone, ops.contiguous)
    ],
]

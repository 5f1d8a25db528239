"""Cases of tinygen.ops.matmul."""

import numpy as np

from tinygen.ops import matmul as ops
from tinygen.testing import Case, declare, real

# operands' shapes, their letters, the result's
PRODUCTS = [
    ([(2, 3), (3, 2)], ["ij", "jk"], "ik"),
    ([(2, 3), (3,)], ["ij", "j"], "i"),
    ([(3,), (3,)], ["i", "i"], ""),
    ([(2,), (3,)], ["i", "j"], "ji"),
    ([(2, 2), (2, 2), (2, 2)], ["ij", "jk", "ki"], ""),
    ([(2, 3)], ["ij"], "ji"),
    ([(2, 1, 2, 2), (2, 2)], ["abcd", "cd"], "adb"),
    ([(), (2,)], ["", "i"], "i"),
    ([(0, 2), (2,)], ["ij", "j"], "i"),
]

DECLARATIONS = [
    declare(
        ops._matmul,
        Case(real(2, 3), real(3, 2)),
        Case(real(2, 2), real(2, 2)),
        Case(real(2, 1, 2, 2), real(2, 2, 1)),
        Case(real(1, 3), real(2, 3, 1)),
        Case(real(2, 0), real(0, 2)),
        linear="input other",
        analytic=True,
        slack=2,
        value=np.matmul,
    ),
    declare(
        ops._einsum,
        *[Case([real(*shape) for shape in shapes], letters, result) for shapes, letters, result in PRODUCTS],
        constants="inputs output",
        linear="operands",
        analytic=True,
        slack=2,
        value=lambda operands, inputs, output: np.einsum(f"{','.join(inputs)}->{output}", *operands),
    ),
]

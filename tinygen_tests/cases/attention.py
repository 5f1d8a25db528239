"""Cases of tinygen.ops.attention."""

import numpy as np

from tinygen.ops import attention as ops
from tinygen.testing import Case, declare, real


def attention(query, key, value, scale):
    S = scale * np.einsum("...id,...jd->...ij", query, key)
    A = np.exp(S) / np.exp(S).sum(axis=-1, keepdims=True)
    return np.einsum("...ij,...je->...ie", A, value)


DECLARATIONS = [
    declare(
        ops._attention,
        Case(real(3, 2), real(4, 2), real(4, 3), 0.7),
        Case(real(2, 1, 2, 2), real(2, 1, 3, 2), real(2, 1, 3, 1), 0.5),
        constants="scale",
        linear="value",
        analytic=True,
        value=attention,
        slack=2,
    ),
]

"""Cases of tinygen.ops.linear."""

from tinygen.ops import linear as ops
from tinygen.testing import Case, declare, real

DECLARATIONS = [
    declare(
        ops._linear,
        Case(real(2, 3), real(2, 3), real(2)),
        Case(real(2, 3), real(2, 3), None),
        Case(real(3), real(1, 3), real(1)),
        Case(real(2, 1, 2, 2), real(3, 2), real(3)),
        Case(real(0, 3), real(2, 3), real(2)),
        linear="input weight bias",
        analytic=True,
        slack=2,
        value=lambda x, w, b: x @ w.T + (0 if b is None else b),
    ),
    declare(
        ops._input_gradient,
        Case(real(2, 3), real(3, 2)),
        Case(real(3), real(3, 1)),
        Case(real(2, 1, 2, 2), real(2, 3)),
        Case(real(0, 3), real(3, 2)),
        linear="g weight",
        analytic=True,
        slack=2,
        value=lambda g, w: g @ w,
    ),
    declare(
        ops._row_sums,
        Case(real(2, 3)),
        Case(real(3)),
        Case(real(2, 1, 2, 2)),
        Case(real(0, 3)),
        linear="g",
        analytic=True,
        slack=2,
        value=lambda g: g.sum(tuple(range(g.ndim - 1))),
    ),
    declare(
        ops._weight_gradient,
        Case(real(3, 2), real(3, 2)),
        Case(real(2), real(3)),
        Case(real(2, 1, 2, 1), real(2, 1, 2, 2)),
        Case(real(0, 2), real(0, 3)),
        linear="g input",
        analytic=True,
        slack=2,
        value=lambda g, x: g.reshape(-1, g.shape[-1]).T @ x.reshape(-1, x.shape[-1]) if g.size else g.T @ x,
    ),
]

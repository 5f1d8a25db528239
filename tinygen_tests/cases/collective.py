"""Cases of tinygen.ops.collective: linear, and its own adjoint; the ranks are played by copies of this one."""

from tinygen.ops import collective as ops
from tinygen.testing import Case, declare, real


class Alike:
    """Three ranks that have the same numbers."""

    def sum(self, array):
        return 3 * array


DECLARATIONS = [
    declare(
        ops.all_sum,
        Case(real(2, 3), Alike()),
        Case(real(), Alike()),
        Case(real(1, 2, 2, 2), Alike()),
        Case(real(0), Alike()),
        constants="ranks",
        linear="input",
        analytic=True,
        value=lambda x, ranks: 3 * x,
    ),
]

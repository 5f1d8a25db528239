"""Cases of tinygen.ops.layer_normalization: small arrays, where the ops compute the definition.

The kernel behind large ones is compared with it in tinygen_tests/kernels/test_layer_norms.py.
"""

from tinygen.ops import layer_normalization as ops
from tinygen.ops.standardization import Group
from tinygen.testing import Case, declare, real
from tinygen_tests.cases.standardization import KNOWN, normalize, normalize_vjp, statistics_of

# shape of x; the group; the shape of γ and β
GROUPS = [((3, 2), Group((1,)), (2,)), ((2, 3, 2), Group((2,)), (2,)), ((2, 3, 2), Group((1, 2)), (3, 2))]


def weight_gradient(g, x, group):
    return (g * normalize(x, None, None, group)).reshape(-1, *x.shape[group.dims[0] :]).sum(axis=0)


DECLARATIONS = [
    declare(
        ops._layer_norm,
        *[Case(real(*x), real(*γ), real(*γ), group, statistics_of("input")) for x, group, γ in GROUPS],
        Case(real(3, 2), None, None, Group((1,)), statistics_of("input")),
        Case(real(0, 2), real(2), real(2), Group((1,)), statistics_of("input")),
        linear="weight bias",
        value=normalize,
        **KNOWN,
    ),
    declare(
        ops._layer_norm_vjp,
        *[Case(real(*x), real(*x), real(*γ), group, statistics_of("x")) for x, group, γ in GROUPS],
        Case(real(3, 2), real(3, 2), None, Group((1,)), statistics_of("x")),
        linear="g weight",
        value=normalize_vjp,
        **KNOWN,
    ),
    declare(
        ops._layer_weight_gradient,
        *[Case(real(*x), real(*x), group, statistics_of("x")) for x, group, _ in GROUPS],
        linear="g",
        value=weight_gradient,
        **KNOWN,
    ),
]

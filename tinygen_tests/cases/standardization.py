"""Cases of tinygen.ops.standardization: statistics are shortcuts, computed from x again whenever x moves."""

import numpy as np

from tinygen.ops import standardization as ops
from tinygen.ops.standardization import Group
from tinygen.testing import Case, declare, derived, real

EPS = 0.1  # far from 0, so that a group of equal numbers does not amplify rounding
# shape of x; the group; the shape of γ and β
GROUPS = [
    ((2, 3), Group((0,)), (1, 3)),
    ((2, 2, 2, 2), Group((0, 2, 3)), (1, 2, 1, 1)),
    ((1, 2, 2, 2), Group((2, 3)), (1, 2, 1, 1)),
    ((1, 4, 2), Group((1, 2), 2), (1, 4, 1)),
]
KNOWN = {"constants": "group", "analytic": True, "dtypes": ("float64", "float32"), "slack": 4}


def statistics_of(x):
    """Statistics as derived from the argument of that name."""
    if x == "input":
        return derived(lambda input, group: ops._statistics(input, group, EPS))
    return derived(lambda x, group: ops._statistics(x, group, EPS))


def mean(x, group):
    if group.channel_groups is None:
        return x.mean(axis=group.dims, keepdims=True)
    split = x.reshape(len(x), group.channel_groups, -1).mean(axis=2, keepdims=True)
    return np.repeat(split, x.shape[1] // group.channel_groups, axis=1).reshape(len(x), x.shape[1], *[1] * (x.ndim - 2))


def r(x, group):
    return 1 / np.sqrt(mean((x - mean(x, group)) ** 2, group) + EPS)


def normalize(x, weight, bias, group):
    return r(x, group) * (x - mean(x, group)) * (1 if weight is None else weight) + (0 if bias is None else bias)


def normalize_vjp(g, x, weight, group):
    g, x_hat = g if weight is None else g * weight, normalize(x, None, None, group)
    return r(x, group) * (g - mean(g, group) - x_hat * mean(x_hat * g, group))


DECLARATIONS = [
    declare(
        ops._normalize,
        *[Case(real(*x), real(*γ), real(*γ), group, statistics_of("input")) for x, group, γ in GROUPS],
        Case(real(3, 2), None, None, Group((1,)), statistics_of("input")),
        Case(real(0, 2), None, None, Group((1,)), statistics_of("input")),
        linear="weight bias",
        value=normalize,
        **KNOWN,
    ),
    declare(
        ops._normalize_vjp,
        *[Case(real(*x), real(*x), real(*γ), group, statistics_of("x")) for x, group, γ in GROUPS],
        Case(real(3, 2), real(3, 2), None, Group((1,)), statistics_of("x")),
        linear="g weight",
        value=normalize_vjp,
        **KNOWN,
    ),
    declare(
        ops._weight_gradient,
        *[Case(real(*x), real(*x), group, statistics_of("x")) for x, group, _ in GROUPS],
        linear="g",
        value=lambda g, x, group: (g * normalize(x, None, None, group)).sum(
            axis=tuple(d for d in range(x.ndim) if d != 1), keepdims=True
        ),
        **KNOWN,
    ),
    declare(
        ops._bias_gradient,
        *[Case(real(*x), real(*x), γ, None) for x, _, γ in GROUPS],
        linear="g",
        value=lambda g, x, shape, statistics: g.sum(axis=tuple(d for d in range(g.ndim) if d != 1), keepdims=True),
        constants="x shape statistics",
        analytic=True,
        dtypes=("float64", "float32"),
    ),
    declare(
        ops._rstd,
        *[Case(real(*x), group, statistics_of("input")) for x, group, _ in GROUPS],
        Case(real(3, 2), Group((1,)), statistics_of("input")),
        value=r,
        **KNOWN,
    ),
    declare(
        ops._average,
        *[Case(real(*x), group) for x, group, _ in GROUPS],
        Case(real(3, 2), Group((1,))),
        linear="input",
        value=mean,
        **KNOWN,
    ),
]

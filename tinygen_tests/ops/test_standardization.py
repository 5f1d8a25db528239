"""Standardisation: three orders of derivatives for each kind of group, and each op's own."""

import pytest

import tinygen as tg
from tinygen.ops.standardization import Group, _average, _rstd, _shared, _statistics, _weight_gradient, standardize
from tinygen.testing import check_adjoint, check_grad
from tinygen_tests.draws import numbers

GROUPS = {
    "batch": Group((0, 2, 3)),
    "group": Group((1, 2, 3), 2),
    "instance": Group((2, 3)),
    "layer": Group((1, 2, 3)),
}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_gradients_of_three_orders(group):
    weight = numbers(1, (4,), 0.5, 2) if group is not GROUPS["layer"] else None

    def f(x, *wb):
        return standardize(x, *(wb or (None, None)), group, 1e-2)[0]

    arrays = [numbers(0, (2, 4, 2, 1))] + ([] if weight is None else [weight, numbers(2, (4,))])
    check_grad(f, *arrays, order=3)


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_each_op_of_the_family_has_its_own_right_gradient(group):
    x = numbers(0, (2, 4, 2, 1))
    g = numbers(1, (2, 4, 2, 1))

    def of(op):
        return lambda x, *more: op(x, *more, group, _statistics(x.data, group, 1e-2))

    check_grad(of(_rstd), x)
    check_grad(lambda x: _average(x, group), x)
    if group is not GROUPS["layer"]:
        check_grad(lambda g, x: _weight_gradient(g, x, group, _statistics(x.data, group, 1e-2)), g, x)
    y = _average(tg.Tensor(x), group)
    check_adjoint(lambda x: _average(x, group), lambda y: _shared(y, x.shape, group), x, numbers(2, y.shape))

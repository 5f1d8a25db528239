"""linear: PyTorch's values and gradients over leading axes, the adjoint identity, memory, errors."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.nn import functional as F
from tinygen.ops import linear
from tinygen.ops.linear import _weight_gradient
from tinygen.testing import check_adjoint, check_grad, strict_cupy
from tinygen_tests.draws import numbers
from tinygen_tests.judge import judge, strided, torch


@pytest.mark.parametrize("lead", [(), (1,), (4,), (2, 3), (0,), (2, 0), (2, 1, 3)])
@pytest.mark.parametrize("sizes", [(5, 2), (1, 1), (0, 3), (3, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_agrees_with_pytorch(lead, sizes, bias):
    n, m = sizes
    inputs = [numbers(0, (*lead, n)), numbers(1, (m, n))] + [numbers(2, (m,))] * bias
    judge(F.linear, torch.nn.functional.linear, *inputs)


def test_gradients_of_three_orders_without_pytorch():
    check_grad(F.linear, numbers(0, (2, 2, 3)), numbers(1, (2, 3)), numbers(2, (2,)), order=3)
    check_grad(lambda x: F.linear(x, x), numbers(0, (3, 3)))


def test_adjoints():
    w = tg.Tensor(numbers(0, (4, 3)))
    x = tg.Tensor(numbers(1, (2, 5, 3)))
    y = numbers(2, (2, 5, 4))
    check_adjoint(lambda x: F.linear(x, w), lambda y: F.linear(y, w.T), x, y)
    check_adjoint(lambda w: F.linear(x, w), lambda y: _weight_gradient(y, x), w, y)


@pytest.mark.parametrize("rows", [0, 1, 5, 127, 128, 300])
def test_the_gradient_of_the_bias_sums_any_number_of_rows(rows):
    g = numbers(0, (rows, 7))
    for lead in ((rows,), (rows, 1), (1, rows)):
        for array in (g.reshape(*lead, 7), strided(g.reshape(*lead, 7))):
            np.testing.assert_allclose(linear._row_sums(tg.Tensor(array)).numpy(), g.sum(0), rtol=1e-12, atol=1e-12)


def test_a_batch_of_any_shape_is_one_product(monkeypatch):
    shapes = []
    real = linear.matrix_product
    monkeypatch.setattr(linear, "matrix_product", lambda a, b: shapes.append((a.shape, b.shape)) or real(a, b))
    x = tg.Tensor(numbers(0, (2, 3, 5)), requires_grad=True)
    w = tg.Tensor(numbers(1, (4, 5)), requires_grad=True)
    F.linear(x, w).sum().backward()
    assert shapes == [((6, 5), (5, 4)), ((6, 4), (4, 5)), ((4, 6), (6, 5))]


def test_on_the_strict_stand_in_for_cupy():
    a, b, c = (numbers(i, s).astype("float32") for i, s in enumerate([(2, 3, 5), (4, 5), (4,)]))
    expected = F.linear(tg.Tensor(a), tg.Tensor(b), tg.Tensor(c)).numpy()
    with strict_cupy():
        x, w, d = (tg.Tensor(t).to("cuda").requires_grad_() for t in (a, b, c))
        y = F.linear(x, w, d)
        g = tg.grad((y * y).sum(), [x, w, d], create_graph=True)
        tg.grad((g[0] * g[0]).sum(), [w])
        np.testing.assert_allclose(y.detach().to("cpu"), expected, rtol=1e-5)


def test_errors_name_the_shapes():
    x, w = tg.zeros(2, 3), tg.zeros(4, 3)
    with pytest.raises(ValueError, match=r"got input \(2, 5\) and weight \(4, 3\)"):
        F.linear(tg.zeros(2, 5), w)
    with pytest.raises(ValueError, match=r"weight \(3,\)"):
        F.linear(x, tg.zeros(3))
    with pytest.raises(ValueError, match=r"got input \(\)"):
        F.linear(tg.zeros(()), w)
    with pytest.raises(ValueError, match=r"bias \(4,\) for weight \(4, 3\), got \(3,\)"):
        F.linear(x, w, tg.zeros(3))
    with pytest.raises(TypeError, match="input float32, weight float64"):
        F.linear(x, w.double())
    with pytest.raises(TypeError, match="bias float64"):
        F.linear(x, w, tg.zeros(4, dtype="float64"))

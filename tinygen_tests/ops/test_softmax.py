"""softmax and log_softmax: PyTorch's values and gradients over every axis, large inputs, −∞, dtypes, errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.nn import functional as F
from tinygen.ops.softmax import safe_softmax
from tinygen.testing import check_grad, strict_cupy
from tinygen_tests.draws import numbers, seeds, shapes
from tinygen_tests.judge import judge, torch

NAMES = ["softmax", "log_softmax"]
INF = math.inf


@st.composite
def calls(draw):
    shape = draw(shapes)
    n = len(shape) or 1
    return shape, draw(st.integers(-n, n - 1)), draw(seeds)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(call=calls())
def test_agree_with_pytorch_over_every_axis(name, call):
    shape, dim, seed = call
    judge(
        lambda x: getattr(F, name)(x, dim),
        lambda x: getattr(torch.nn.functional, name)(x, dim),
        numbers(seed, shape, -3, 3),
    )


@pytest.mark.parametrize("f", [F.softmax, F.log_softmax, safe_softmax])
def test_gradients_of_three_orders_without_pytorch(f):
    check_grad(lambda x: f(x, 1), numbers(0, (2, 3, 2)), order=3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_thousand_apart_is_exact_to_second_order(dtype):
    x = tg.tensor([1000.0, 0.0, -1000.0], dtype=dtype, requires_grad=True)
    g = tg.tensor([0.3, -2.0, 5.0], dtype=dtype)
    y, z = F.softmax(x, 0), F.log_softmax(x, 0)
    assert y.tolist() == [1.0, 0.0, 0.0]
    assert z.tolist() == [0.0, -1000.0, -2000.0]
    (d,) = tg.grad(y, [x], g, create_graph=True)
    assert d.tolist() == [0.0, 0.0, 0.0]
    (dd,) = tg.grad((d * g).sum(), [x])
    assert np.isfinite(dd.numpy()).all()
    (d,) = tg.grad(z, [x], g, create_graph=True)
    np.testing.assert_allclose(d.detach().numpy(), [0.3 - 3.3, -2.0, 5.0], rtol=1e-6)
    (dd,) = tg.grad((d * g).sum(), [x])
    assert np.isfinite(dd.numpy()).all()


def test_sums_to_one_and_ignores_a_shift():
    x = numbers(0, (4, 5), -50, 50)
    y = F.softmax(tg.Tensor(x), 1).numpy()
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-14)
    np.testing.assert_allclose(F.softmax(tg.Tensor(x + 300), 1).numpy(), y, rtol=1e-12)


def test_minus_infinity_gets_probability_zero_and_no_gradient():
    x = tg.tensor([0.0, -INF, 1.0], dtype="float64", requires_grad=True)
    y = F.softmax(x, 0)
    y.backward(tg.tensor([1.0, 2.0, 3.0], dtype="float64"))
    assert y.tolist()[1] == 0 and x.grad.tolist()[1] == 0
    assert np.isfinite(x.grad.numpy()).all()


def test_an_axis_of_minus_infinity_is_nan_as_in_pytorch_and_zero_in_the_safe_one():
    x = np.full((2, 2), -INF)
    with pytest.warns(RuntimeWarning):
        assert np.isnan(F.softmax(tg.Tensor(x), 1).numpy()).all()
    assert torch.softmax(torch.from_numpy(x), 1).isnan().all()
    x[1] = [0.0, -INF]
    t = tg.Tensor(x, requires_grad=True)
    y = safe_softmax(t, 1)
    y.backward(tg.Tensor(np.array([[1.0, 2.0], [3.0, 4.0]])))
    assert y.tolist() == [[0, 0], [1, 0]]
    assert t.grad.tolist() == [[0, 0], [0, 0]]


def test_methods():
    x = tg.tensor([[1.0, -2.0]])
    assert x.softmax(1).tolist() == F.softmax(x, 1).tolist()
    assert x.log_softmax(dim=1).tolist() == F.log_softmax(x, 1).tolist()
    assert x.relu().tolist() == [[1, 0]]


@pytest.mark.parametrize("name", NAMES)
def test_dtype_argument_and_integers(name):
    f = getattr(F, name)
    assert f(tg.tensor([1, 2]), 0).dtype == tg.float32
    assert f(tg.tensor([1.0, 2.0]), 0, dtype=tg.float64).dtype == tg.float64
    assert f(tg.tensor(3.0), 0).shape == ()


@pytest.mark.parametrize("name", NAMES)
def test_on_the_strict_stand_in_for_cupy(name):
    a = numbers(0, (3, 4)).astype("float32")
    expected = getattr(F, name)(tg.Tensor(a), 1).numpy()
    with strict_cupy():
        x = tg.Tensor(a).to("cuda").requires_grad_()
        y = getattr(F, name)(x, 1)
        (d,) = tg.grad((y * y).sum(), [x], create_graph=True)
        tg.grad(d.sum(), [x])
        np.testing.assert_allclose(y.detach().to("cpu"), expected, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_errors(name):
    f = getattr(F, name)
    with pytest.raises(IndexError, match="dim=2 is out of range"):
        f(tg.zeros(2, 3), 2)
    with pytest.raises(TypeError, match="dim as an integer, got None"):
        f(tg.zeros(2), None)
    with pytest.raises(TypeError, match="dim"):
        f(tg.zeros(2))


@pytest.mark.parametrize("n", range(1, 10))
def test_the_largest_counts_wherever_it_stands(n):
    """Of an odd number in a row, too: a maximum that is missed overflows e^x."""
    x = tg.tensor(2000 * np.eye(n, dtype=np.float32))
    np.testing.assert_array_equal(F.softmax(x, -1).numpy(), np.eye(n))
    np.testing.assert_array_equal(F.log_softmax(x, -1).numpy(), 2000 * np.eye(n) - 2000)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 39.9, 40.1, 95, 1000])
def test_small_and_large_numbers_have_the_same_softmax(dtype, size):
    """Small ones are not shifted by their maximum: shifted from outside, the results are the same."""
    x = numbers(0, (200, 37))
    x = (x * (size / np.abs(x).max())).astype(dtype)
    for f in (F.softmax, safe_softmax):
        y = f(tg.Tensor(x), 1).numpy()
        e = np.exp(x.astype("float64") - x.max(axis=1, keepdims=True))
        np.testing.assert_allclose(
            y, e / e.sum(axis=1, keepdims=True), rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-37
        )


def test_missing_numbers_spread_over_their_axis_alone():
    x = numbers(0, (3, 4))
    x[1, 2] = math.nan
    assert np.isnan(F.softmax(tg.Tensor(x), 1).numpy()).tolist() == [[False] * 4, [True] * 4, [False] * 4]

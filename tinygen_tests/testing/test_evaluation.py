"""Functions of tensors as functions of arrays, on whichever device."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.testing import GradientError
from tinygen.testing.evaluation import array_of, gradients, place_of, run_at, value

X = np.array([0.5, -1.0, 2.0])


def test_arrays_of_whatever_comes():
    for given in (tg.tensor([1.0, 2.0], requires_grad=True), np.array([1.0, 2.0]), [1.0, 2.0]):
        found = array_of(given)
        assert type(found) is np.ndarray and found.tolist() == [1, 2]
        found[0] = 7
        assert array_of(given).tolist() == [1, 2]
    assert array_of(3.0).shape == ()


def test_values_and_gradients():
    assert value(lambda x: x * 2, [X]).tolist() == [1, -2, 4]
    g = np.array([1.0, 10.0, 100.0])
    (d,) = gradients(lambda x, i: x[i] ** 2, [X, np.array([0, 2, 2])], [0], g)
    assert d.tolist() == [1 * 1.0, 0, 2 * 2 * 110]
    assert gradients(lambda x, y: x * 2, [X, X], [0, 1], g)[1].tolist() == [0, 0, 0]
    assert gradients(lambda x: (x > 0).to(x.dtype), [X], [0], g)[0].tolist() == [0, 0, 0]
    with pytest.raises(TypeError, match="f returned ndarray, expected a Tensor"):
        value(lambda x: np.ones(2), [X])


def test_a_cotangent_that_is_written_to():
    @tg.op
    def double(x):
        return x * 2

    @double.vjp("x")
    def _(g):
        g.data[...] = 0
        return g * 2

    with pytest.raises(GradientError, match="wrote to the gradient that it was given"):
        gradients(double, [X], [0], np.ones(3))


def test_the_place_is_that_of_the_first_tensor_or_the_default():
    assert place_of([X, tg.ones(2, device="cpu")]) == "cpu"
    assert place_of([X]).type == tg.get_default_device().type


@pytest.mark.cpu_only("makes the stand-in itself")
def test_functions_run_elsewhere_between_two_differentiable_moves():
    seen = []

    def f(x, y):
        seen.append((x.device, x is y))
        return x * y

    with tg.testing.strict_cupy():
        there = run_at("cuda", f)
        x = tg.tensor(X, requires_grad=True)
        y = there(x, x)
        assert y.device == "cpu" and seen == [("cuda:0", True)]
        np.testing.assert_allclose(array_of(tg.grad(y.sum(), x)[0]), 2 * X)
    assert run_at("cpu", f) is f

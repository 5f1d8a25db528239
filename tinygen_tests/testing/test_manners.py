"""What a gradient must be whatever its value; the cases of test_gradcheck.py go through check_grad."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.testing import GradientError
from tinygen.testing.manners import check_manners, check_repeated, close

A, B = np.random.default_rng(0).uniform(0.5, 1.5, (2, 3))
G = np.array([0.3, -0.7, 1.1])


def named(i):
    return f"argument {i}"


def pairwise(rule_a, rule_b):
    @tg.op
    def product(a, b):
        return a * b

    product.vjp("a")(rule_a)
    product.vjp("b")(rule_b)
    return product


def test_one_tensor_passed_twice_gets_both_gradients():
    check_repeated(tg.mul, [A, B], [0, 1], G, named)
    check_repeated(lambda a, b, c: a * b + c, [A, B, A[:1]], [0, 1, 2], G, named)
    check_repeated(lambda a, b: a[:2].sum() * b, [A, B[:1]], [0, 1], G[:1], named)  # no two of one shape
    overwrites = pairwise(lambda g, a, b: g * b * (2 if a is b else 1), lambda g, a: g * a)
    with pytest.raises(GradientError, match="passed as argument 0 and as argument 1 must get the sum of both"):
        check_repeated(overwrites, [A, B], [0, 1], G, named)


def test_functions_that_refuse_equal_values_or_tell_tensors_apart_are_left_alone():
    def refuses(a, b):
        if np.array_equal(a.detach().numpy(), b.detach().numpy()):
            raise ValueError("a and b must differ")
        return a * b

    check_repeated(refuses, [A, B], [0, 1], G, named)

    def partial_derivative(a, b):
        (d,) = tg.grad((a * b).sum(), [a], create_graph=True)  # of both, where b is a
        return d

    check_repeated(partial_derivative, [A, B], [0, 1], G, named)


def test_manners_are_checked_in_order_and_named():
    check_manners(tg.mul, [A, B], [0, 1], G, named)
    buffer = np.empty(3)

    def shared(g):
        buffer[...] = g.data
        return tg.Tensor(buffer)

    with pytest.raises(GradientError, match="the gradient of argument 1 shares memory with an input or another"):
        check_manners(pairwise(shared, shared), [A, B], [0, 1], G, named)


@pytest.mark.parametrize(
    "a, b, same",
    [
        ([1.0, 2.0], [1.0, 2.0 + 1e-9], True),
        ([1.0, 2.0], [1.0, 2.001], False),
        ([1e-9, 2.0], [0.0, 2.0], True),  # beside 2
        ([1e-3], [0.0], False),
        ([np.nan, 1.0], [np.nan, 1.0], True),
        ([np.nan, 1.0], [1.0, 1.0], False),
        ([1.0, 1.0], [np.nan, 1.0], False),
        ([np.inf, 1.0], [np.inf, 1.0], True),
        ([np.inf, 1.0], [-np.inf, 1.0], False),
        ([1.0, 1.0], [np.inf, 1.0], False),
        ([[1.0, 2.0]], [1.0, 2.0], False),
        ([], [], True),
        ([1, 2], [1, 3], False),
        ([True], [True], True),
    ],
)
def test_close(a, b, same):
    assert close(np.array(a), np.array(b), 1e-8) is same


def test_close_beside_a_least_scale():
    assert close(np.array([1e-6]), np.array([0.0]), 1e-5, least=0.1) and not close(
        np.array([1e-5]), np.array([0.0]), 1e-5, least=0.1
    )

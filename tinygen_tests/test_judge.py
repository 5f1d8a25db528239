"""The judge itself: it passes what is right, and fails what is wrong in any of the ways that it promises to find."""

import numpy as np
import pytest

import tinygen as tg
from tinygen_tests.draws import numbers
from tinygen_tests.judge import judge, same, strided, torch

pytestmark = pytest.mark.cpu_only("the seeded faults are written with NumPy")

X = numbers(0, (3, 4), 0.4, 1.6)


def op(rule, forward=np.sin):
    declared = tg.op(lambda x: forward(x))
    declared.vjp("x")(rule)
    return declared


def theirs(x):
    return torch.sin(x)


def test_what_is_right_passes():
    judge(tg.sin, theirs, X)
    judge(op(lambda g, x: g * tg.cos(x)), theirs, X)
    judge(lambda x, i, k: x[i] * k, lambda x, i, k: x[i] * k, X, np.array([0, 2, 0]), 3)
    judge(lambda x: x > 1, lambda x: x > 1, X)
    judge(tg.exp, lambda x: torch.exp(x), np.float64(1.5))


WRONG = {
    "value": (op(lambda g, x: g * tg.cos(x), lambda x: np.sin(x) + 1e-8), "value"),
    "shape": (lambda x: tg.sin(x).reshape(4, 3), "shape"),
    "dtype": (lambda x: tg.sin(x).float(), "dtype float32"),
    "digits that went through float32": (lambda x: tg.sin(x.float()).double(), "value"),
    "sign": (op(lambda g, x: -g * tg.cos(x)), "gradient of argument 0"),
    "factor": (op(lambda g, x: g * tg.cos(x) * 1.00001), "gradient of argument 0"),
    "ignored cotangent": (op(lambda g, x: tg.cos(x)), "gradient of argument 0"),
    "NaN": (op(lambda g, x: g * float("nan")), "gradient of argument 0"),
    "no gradient": (lambda x: tg.sin(x.detach()), "PyTorch's result has a gradient, ours has none"),
    "lost gradient": (lambda x: tg.sin(x.detach()) + 0 * x, "gradient of argument 0"),
    "raw array in a vjp": (op(lambda g, x: tg.Tensor(g.data * np.cos(x.data))), "second gradient"),
    "half a raw array in a vjp": (op(lambda g, x: g * tg.Tensor(np.cos(x.data))), "second gradient"),
    "constant cotangent": (op(lambda g, x: g.detach() * tg.cos(x)), "second gradient of argument g"),
    "float64 leak": (lambda x: tg.sin(x) * tg.ones(1, dtype="float64"), "from float32 inputs the value is float64"),
}


@pytest.mark.parametrize("ours, message", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_fails(ours, message):
    with pytest.raises(AssertionError, match=message):
        judge(ours, theirs, X)


def test_a_gradient_that_pytorch_has_not_fails():
    with pytest.raises(AssertionError, match="PyTorch's result has no gradient, ours has"):
        judge(tg.sin, lambda x: torch.sin(x.detach()), X)


def test_an_argument_without_gradient_fails():
    f = tg.op(lambda a, b: a * b)
    f.vjp("a")(lambda g, b: g * b)
    f.vjp("b")(lambda g, a: g * 0)
    with pytest.raises(AssertionError, match="gradient of argument 1"):
        judge(f, lambda a, b: a * b, X, X)
    with pytest.raises(AssertionError, match="gradient of argument 0"):
        judge(lambda x: f(x, x), lambda x: x * x, X)
    with pytest.raises(AssertionError, match="gradient of argument 1"):
        judge(lambda a, b: a * b.detach() + 0 * b, lambda a, b: a * b, X, X)


def test_a_second_gradient_that_only_one_side_has_is_compared():
    squared = op(lambda g, x: g * 2 * tg.Tensor(x.data), lambda x: x * x)
    with pytest.raises(AssertionError, match="second gradient of argument 0"):
        judge(squared, lambda x: x * x, X)
    with pytest.raises(AssertionError, match="second gradient"):
        judge(lambda x: x * x, lambda x: 2 * x * x.detach() - (x * x).detach(), X)


def test_writes_to_inputs_fail():
    def forward(x):
        y = np.sin(x)
        x += 1
        return y

    with pytest.raises(AssertionError, match="argument 0 was written to|gradient"):
        judge(op(lambda g, x: g * tg.cos(x - 1), forward), theirs, X, order=1)


def test_shared_gradients_fail():
    buffer = np.empty(X.shape)

    def rule(g):
        buffer[...] = g.data
        return tg.Tensor(buffer)

    f = tg.op(lambda a, b: a + b)
    f.vjp("a", "b")(rule)
    with pytest.raises(AssertionError, match="gradient 1 shares memory"):
        judge(f, lambda a, b: a + b, X, X, order=1)


def test_what_depends_on_the_memory_layout_fails():
    by_memory = op(lambda g, x: g * tg.cos(x), lambda x: np.sin(x.ravel(order="K").reshape(x.shape)))
    with pytest.raises(AssertionError, match="the value for non-contiguous inputs"):
        judge(by_memory, theirs, X)
    rule = lambda g, x: g * tg.Tensor(np.cos(x.data.ravel(order="K").reshape(x.shape)))
    with pytest.raises(AssertionError, match="gradient 0 for non-contiguous inputs"):
        judge(op(rule), theirs, X, order=1)


def test_manners_can_be_left_out():
    judge(lambda x: tg.sin(x) * tg.ones(1, dtype="float64"), theirs, X, manners=False)


def test_same_compares_shapes_dtypes_and_numbers_that_are_none():
    same(tg.tensor([1.0, float("nan"), float("inf")]), torch.tensor([1.0, float("nan"), float("inf")]))
    for ours in ([1.0, float("nan")], [float("nan"), 1.0], [1.0, float("-inf")]):
        with pytest.raises(AssertionError):
            same(tg.tensor(ours), torch.tensor([1.0, float("inf")]))
    with pytest.raises(AssertionError, match="shape"):
        same(tg.ones(2), torch.ones(1, 2))
    with pytest.raises(AssertionError, match="dtype"):
        same(tg.ones(2), torch.ones(2, dtype=torch.int64))


def test_strided_has_the_same_numbers_in_another_layout():
    for shape in [(), (3,), (2, 3), (2, 3, 4), (0, 2)]:
        a = numbers(0, shape)
        b = strided(a)
        np.testing.assert_array_equal(a, b)
        if len(shape) > 1 and a.size:
            assert not b.flags.c_contiguous and not b.flags.f_contiguous

"""Activations: PyTorch's values and gradients to second order, kinks, far tails, dtypes, memory order, errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.nn import functional as F
from tinygen.testing import check_grad, strict_cupy
from tinygen_tests.draws import numbers, off_zero, seeds, shapes
from tinygen_tests.judge import judge, same, torch

NAMES = ["relu", "leaky_relu", "elu", "silu", "gelu", "softplus", "logsigmoid", "sigmoid", "tanh"]
SMOOTH = ["silu", "gelu", "softplus", "logsigmoid", "sigmoid", "tanh"]


def both(name, *args, **kwargs):
    return (
        lambda x: getattr(F, name)(x, *args, **kwargs),
        lambda x: getattr(torch.nn.functional, name)(x, *args, **kwargs),
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@given(shape=shapes, seed=seeds)
def test_agree_with_pytorch(name, shape, seed):
    """Proves: gelu."""
    judge(*both(name), off_zero(seed, shape, high=4.0))


@pytest.mark.parametrize("slope", [0.2, 0.0, 1.0, 1.7, -0.3])
def test_leaky_relu_agrees_with_pytorch_for_any_slope(slope):
    judge(*both("leaky_relu", slope), off_zero(0, (3, 4)))
    judge(*both("leaky_relu", negative_slope=slope), off_zero(1, (3, 4)))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_elu_agrees_with_pytorch_for_any_alpha(alpha):
    judge(*both("elu", alpha), off_zero(0, (3, 4)))


@settings(max_examples=20)
@given(beta=st.sampled_from([0.3, 1, 2.0, 10.0]), threshold=st.sampled_from([0.5, 2.0, 20, 50.0]), seed=seeds)
def test_softplus_agrees_with_pytorch_for_any_beta_and_threshold(beta, threshold, seed):
    judge(*both("softplus", beta, threshold), off_zero(seed, (3, 4), high=4.0))


def test_gelu_tanh_agrees_with_pytorch():
    judge(*both("gelu", approximate="tanh"), off_zero(0, (3, 4), high=4.0))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_three_orders_without_pytorch(name):
    check_grad(getattr(F, name), off_zero(3, (2, 3), high=3.0), order=3, rtol=1e-5, step=1e-3)


def test_gelu_tanh_gradients_of_three_orders_without_pytorch():
    check_grad(lambda x: F.gelu(x, "tanh"), off_zero(3, (2, 3)), order=3, rtol=1e-5, step=1e-3)


# -------------------------------------------------------------------------------------- kinks and far out


@pytest.mark.parametrize(
    ("f", "value", "slope"),
    [
        (F.relu, 0.0, 0.0),
        (F.leaky_relu, 0.0, 0.01),
        (lambda x: F.leaky_relu(x, 0.2), 0.0, 0.2),
        (lambda x: F.elu(x, 2.0), 0.0, 2.0),
        (F.silu, 0.0, 0.5),
        (F.gelu, 0.0, 0.5),
        (F.softplus, math.log(2), 0.5),
        (F.logsigmoid, -math.log(2), 0.5),
    ],
)
def test_at_zero(f, value, slope):
    x = tg.zeros(2, dtype="float64").requires_grad_()
    y = f(x)
    y.backward(tg.tensor([1.0, -3.0], dtype="float64"))
    np.testing.assert_allclose(y.detach().numpy(), [value, value], rtol=1e-15)
    np.testing.assert_allclose(x.grad.numpy(), [slope, -3 * slope], rtol=1e-15)


def test_exact_where_nothing_is_to_be_computed():
    x = tg.tensor([-2.0, 3.0], requires_grad=True)
    y = F.leaky_relu(x, 0.1)
    y.backward(tg.tensor([7.0, 7.0]))
    assert y.tolist() == [-2 * np.float32(0.1), 3.0]
    assert x.grad.tolist() == [7 * np.float32(0.1), 7.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "low", "high", "slope_low", "slope_high"),
    [
        ("relu", 0.0, 1000.0, 0.0, 1.0),
        ("leaky_relu", -10.0, 1000.0, 0.01, 1.0),
        ("elu", -1.0, 1000.0, 0.0, 1.0),
        ("silu", 0.0, 1000.0, 0.0, 1.0),
        ("gelu", 0.0, 1000.0, 0.0, 1.0),
        ("softplus", 0.0, 1000.0, 0.0, 1.0),
        ("logsigmoid", -1000.0, 0.0, 1.0, 0.0),
        ("sigmoid", 0.0, 1.0, 0.0, 0.0),
        ("tanh", -1.0, 1.0, 0.0, 0.0),
    ],
)
def test_exact_and_finite_at_a_thousand_to_second_order(name, low, high, slope_low, slope_high, dtype):
    x = tg.tensor([-1000.0, 1000.0], dtype=dtype, requires_grad=True)
    y = getattr(F, name)(x)
    (d,) = tg.grad(y.sum(), [x], create_graph=True)
    np.testing.assert_allclose(y.detach().numpy(), [low, high], rtol=1e-6, atol=1e-300)
    np.testing.assert_allclose(d.detach().numpy(), [slope_low, slope_high], rtol=1e-6, atol=1e-300)
    if d.requires_grad:
        (dd,) = tg.grad(d.sum(), [x])
        assert dd.tolist() == [0.0, 0.0]


def test_gelu_tanh_is_finite_at_a_thousand():
    x = tg.tensor([-1000.0, 1000.0], requires_grad=True)
    (d,) = tg.grad(F.gelu(x, "tanh").sum(), [x], create_graph=True)
    (dd,) = tg.grad(d.sum(), [x])
    assert d.tolist() == [0.0, 1.0] and dd.tolist() == [0.0, 0.0]


def test_softplus_without_a_threshold_never_overflows():
    x = tg.tensor([-1000.0, 0.0, 1000.0], dtype="float64", requires_grad=True)
    y = F.softplus(x, 1, math.inf)
    y.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), [0.0, math.log(2), 1000.0], rtol=1e-15)
    assert x.grad.tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("name", ["silu", "softplus", "logsigmoid"])
def test_small_values_keep_their_digits(name):
    judge(*both(name), np.array([-40.0, -30.0, -20.0, -1e-3, 1e-12, 30.0]))
    x = np.array([-60.0, -50.0, -40.0])
    y = getattr(F, name)(tg.Tensor(x)).numpy()
    expected = {"silu": x * np.exp(x), "softplus": np.exp(x), "logsigmoid": x}[name]
    np.testing.assert_allclose(y, expected, rtol=1e-14)


def test_small_gradients_keep_their_digits():
    for f, sign in ((F.softplus, -1), (F.logsigmoid, 1)):
        x = tg.Tensor(sign * np.array([40.0, 50.0, 60.0]), requires_grad=True)
        f(x).sum().backward()
        np.testing.assert_allclose(x.grad, np.exp(-np.array([40.0, 50.0, 60.0])), rtol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinity_come_through_as_in_pytorch(name):
    x = np.array([math.nan, math.inf, -math.inf])
    with np.errstate(invalid="ignore"):
        ours = getattr(F, name)(tg.Tensor(x))
    same(ours, getattr(torch.nn.functional, name)(torch.from_numpy(x)))


# ---------------------------------------------------------------------------------- dtypes, memory, errors


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_is_kept_also_by_0_d_tensors(name, dtype):
    for shape in [(), (3,)]:
        x = tg.full(shape, 0.7, dtype=dtype).requires_grad_()
        y = getattr(F, name)(x)
        y.sum().backward()
        assert y.dtype == dtype and x.grad.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_memory_stays_so_forward_and_back(name):
    a = np.random.default_rng(0).standard_normal((8, 24, 24, 16)).astype("float32").transpose(0, 3, 1, 2)
    g = np.random.default_rng(1).standard_normal((8, 24, 24, 16)).astype("float32").transpose(0, 3, 1, 2)
    x = tg.Tensor(a, requires_grad=True)
    y = getattr(F, name)(x)
    (d,) = tg.grad(y, [x], tg.Tensor(g))
    assert y.data.strides == a.strides and d.data.strides == a.strides
    # A large array goes block by block, a small one in one go: the same numbers.
    part = tg.Tensor(a[:1, :, :2], requires_grad=True)
    z = getattr(F, name)(part)
    np.testing.assert_allclose(y.data[:1, :, :2], z.data, rtol=1e-6, atol=1e-7)
    (e,) = tg.grad(z, [part], tg.Tensor(g[:1, :, :2]))
    np.testing.assert_allclose(d.data[:1, :, :2], e.data, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_on_the_strict_stand_in_for_cupy(name):
    a = off_zero(0, (3, 4)).astype("float32")
    expected = getattr(F, name)(tg.Tensor(a)).numpy()
    with strict_cupy():
        x = tg.Tensor(a).to("cuda").requires_grad_()
        y = getattr(F, name)(x)
        (d,) = tg.grad(y.sum(), [x], create_graph=True)
        if d.requires_grad:
            tg.grad(d.sum(), [x])
        np.testing.assert_allclose(y.detach().to("cpu"), expected, rtol=1e-5, atol=1e-6)


def test_integers_compute_in_the_default_dtype():
    x = tg.tensor([-1, 2])
    assert F.relu(x).dtype == tg.int64 and F.relu(x).tolist() == [0, 2]
    assert F.silu(x).dtype == tg.float32


def test_errors_name_the_argument():
    x = tg.zeros(2)
    with pytest.raises(ValueError, match="approximate='none' or 'tanh', got 'erf'"):
        F.gelu(x, "erf")
    for name in ("relu", "leaky_relu", "elu", "silu"):
        with pytest.raises(TypeError, match="inplace"):
            getattr(F, name)(x, inplace=True)


def test_relu_of_a_large_tensor_in_its_memory_order():
    x = numbers(0, (40, 50, 100)).transpose(2, 0, 1)
    y = F.relu(tg.Tensor(x))
    np.testing.assert_array_equal(y.numpy(), np.maximum(x, 0))
    assert y.data.strides == x.strides
    counts = (numbers(0, (400, 500)) * 10).astype("int64")
    np.testing.assert_array_equal(F.relu(tg.Tensor(counts)).numpy(), np.maximum(counts, 0))

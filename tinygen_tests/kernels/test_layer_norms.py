"""Layer normalisation of large arrays: by rows and by BLAS, it equals the single steps, PyTorch and the closed form."""

import numpy as np
import pytest

import tinygen as tg
import tinygen.nn.functional as F
from tinygen.kernels import layer_norms, threads
from tinygen.ops import layer_normalization
from tinygen.ops.standardization import Group
from tinygen_tests.judge import torch

pytestmark = pytest.mark.cpu_only("NumPy's kernel")
SHAPES = [((40, 30, 33), 1), ((12, 5, 24, 26), 2), ((4000, 9), 1), ((3, 20000), 1), ((1, 40, 900), 2)]


@pytest.fixture(params=[1, 2])
def shared(request, monkeypatch):
    """By so many threads, in many blocks."""
    monkeypatch.setattr(layer_norms, "_BLOCK", 5000)
    monkeypatch.setattr(layer_norms, "_SERIAL", 0)
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield
    threads.set_num_threads(before)


def draw(shape, last, dtype, offset=0.0):
    r = np.random.default_rng(len(shape))
    x = (r.standard_normal(shape) + offset).astype(dtype)
    γ, β = (r.standard_normal(shape[-last:]).astype(dtype) for _ in range(2))
    return x, γ, β, r.standard_normal(shape).astype(dtype)


def results(arrays, g, last, judge=None):
    """y, the gradients of x, γ and β, and two second gradients: of tinygen, or of PyTorch."""
    lib = judge or tg
    leaves = [lib.tensor(a).requires_grad_() for a in arrays]
    layer_norm = (judge.nn.functional if judge else F).layer_norm
    y = layer_norm(leaves[0], tuple(arrays[0].shape[-last:]), *leaves[1:], eps=0.1)
    grad = judge.autograd.grad if judge else tg.grad
    first = grad(y, leaves, lib.tensor(g), create_graph=True)
    second = grad(sum((d * d * d).sum() for d in first[:2]), leaves[: min(len(leaves), 2)])
    return [a.detach().numpy() for a in (y, *first, *second)]


def close(found, expected, dtype):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=(1e-12 if dtype == "float64" else 2e-5) * max(abs(b).max(), 1))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape, last", SHAPES)
def test_values_and_gradients_of_both_orders_are_pytorchs(shared, shape, last, dtype, affine):
    x, γ, β, g = draw(shape, last, dtype)
    assert layer_normalization.suits(tg.tensor(x), Group(tuple(range(len(shape) - last, len(shape)))))
    arrays = (x, γ, β) if affine else (x,)
    close(results(arrays, g, last), results(arrays, g, last, torch), dtype)


@pytest.mark.parametrize("shape, last", SHAPES)
def test_single_steps_give_the_same(shared, monkeypatch, shape, last):
    *arrays, g = draw(shape, last, "float64")
    found = results(arrays, g, last)
    monkeypatch.setattr(layer_norms, "rows", lambda x, d: None)
    close(found, results(arrays, g, last), "float64")


@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_a_large_mean_costs_no_more_digits_than_the_rounding_of_x(offset):
    x, γ, β, _ = draw((64, 40, 33), 1, "float32", offset)
    exact = x.astype(float)
    exact = (exact - exact.mean(2, keepdims=True)) / np.sqrt(exact.var(2, keepdims=True) + 0.1) * γ + β
    found = F.layer_norm(tg.tensor(x), (33,), tg.tensor(γ), tg.tensor(β), 0.1).numpy()
    np.testing.assert_allclose(found, exact, rtol=0, atol=7e-7 * offset)  # PyTorch's: 3e-7, 6e-7


def test_equal_numbers_are_zero():
    x = np.full((64, 40, 33), 0.1, np.float32) * np.arange(1, 41, dtype=np.float32)[:, None]
    assert abs(F.layer_norm(tg.tensor(x), (33,)).numpy()).max() < 2e-3  # σ² + ε is ε: rounding of μ, 316 times


def test_the_gradient_of_gamma_alone():
    """Where x needs no gradient, only the sums are computed."""
    x, γ, β, g = draw((40, 30, 33), 1, "float64")
    weight = tg.tensor(γ, requires_grad=True)
    F.layer_norm(tg.tensor(x), (33,), weight, tg.tensor(β)).backward(tg.tensor(g))
    x_hat = (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5)
    np.testing.assert_allclose(weight.grad.numpy(), (g * x_hat).sum((0, 1)), rtol=1e-10, atol=1e-10)


def test_two_sweeps_have_gradients_of_their_own():
    x, γ, β, g = draw((40, 30, 33), 1, "float64")
    weight = tg.tensor(γ, requires_grad=True)
    y = F.layer_norm(tg.tensor(x), (33,), weight, tg.tensor(β))
    (once,) = tg.grad(y, [weight], tg.tensor(g), retain_graph=True)
    (again,) = tg.grad(y, [weight], tg.tensor(-2 * g))
    np.testing.assert_allclose(again.numpy(), -2 * once.numpy(), rtol=1e-12, atol=1e-12)


def test_a_gradient_in_another_memory_order():
    x, γ, β, g = draw((40, 33, 30), 1, "float64")
    g = np.asfortranarray(g)
    close(results((x, γ, β), g, 1), results((x, γ, β), g, 1, torch), "float64")


@pytest.mark.parametrize("threads_", [1, 2, 3])
def test_the_number_of_threads_does_not_change_a_bit(monkeypatch, threads_):
    monkeypatch.setattr(layer_norms, "_SERIAL", 0)
    *arrays, g = draw((300, 30, 33), 1, "float32")
    before = threads.get_num_threads()
    try:
        found = []
        for n in (1, threads_):
            threads.set_num_threads(n)
            found.append(results(arrays, g, 1))
    finally:
        threads.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_left_to_single_steps():
    x = np.zeros((40, 30, 33))
    assert layer_norms.rows(x, 33).shape == (1200, 33)
    assert layer_norms.rows(x[:2], 33) is None
    assert layer_norms.rows(x.transpose(1, 0, 2), 33) is None
    assert layer_norms.rows(x, 3) is None
    assert layer_norms.rows(x.astype(np.float16), 33) is None
    assert layer_norms.rows(x.astype(complex), 33) is None

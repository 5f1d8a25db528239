"""Normalisation: PyTorch's values, gradients and running statistics; near-equal numbers; memory order; errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.kernels import norms
from tinygen.nn import functional as F
from tinygen.testing import strict_cupy
from tinygen_tests.draws import numbers, off_zero, seeds
from tinygen_tests.judge import judge, same, strided, torch

C = 6
SHAPES = [(4, C), (1, C, 3), (3, C, 5), (2, C, 3, 2), (2, C, 2, 1, 3)]
affine = st.sampled_from([(True, True), (True, False), (False, True), (False, False)])


def both(name, *before, weight=False, bias=False, **kwargs):
    """The same call of a function in both libraries, its arguments x and, where wanted, weight and bias."""

    def ours(x, *given):
        w, b = parameters(given, weight, bias)
        return getattr(F, name)(x, *before, weight=w, bias=b, **kwargs)

    def theirs(x, *given):
        w, b = parameters(given, weight, bias)
        # PyTorch's second order fails for a bias without a weight.
        w = torch.ones_like(b) if bias and not weight else w
        return getattr(torch.nn.functional, name)(x, *before, weight=w, bias=b, **kwargs)

    return ours, theirs


def parameters(given, weight, bias):
    given = list(given)
    return given.pop(0) if weight else None, given.pop(0) if bias else None


def inputs(seed, shape, parameters, weight, bias):
    return [
        numbers(seed, shape),
        *([numbers(seed + 1, parameters)] * weight),
        *([numbers(seed + 2, parameters)] * bias),
    ]


# ----------------------------------------------------------------------------------------- against PyTorch


@settings(max_examples=30)
@given(shape=st.sampled_from(SHAPES), wb=affine, eps=st.sampled_from([1e-5, 1e-2]), seed=seeds)
def test_batch_norm_training_agrees_with_pytorch(shape, wb, eps, seed):
    f = both("batch_norm", None, None, weight=wb[0], bias=wb[1], training=True, eps=eps)
    judge(*f, *inputs(seed, shape, (C,), *wb))


@settings(max_examples=20)
@given(shape=st.sampled_from(SHAPES), wb=affine, seed=seeds)
def test_batch_norm_evaluation_agrees_with_pytorch(shape, wb, seed):
    m, v = numbers(seed, (C,)), numbers(seed + 3, (C,), 0.5, 2)

    def ours(x, *given):
        stats = tg.Tensor(m).to(x), tg.Tensor(v).to(x)
        return F.batch_norm(x, *stats, *parameters(given, *wb), eps=1e-3)

    def theirs(x, *given):
        stats = torch.from_numpy(m).to(x.dtype), torch.from_numpy(v).to(x.dtype)
        w, b = parameters(given, *wb)
        w = torch.ones_like(b) if wb[1] and not wb[0] else w
        return torch.nn.functional.batch_norm(x, *stats, w, b, eps=1e-3)

    judge(ours, theirs, *inputs(seed, shape, (C,), *wb))


@settings(max_examples=30)
@given(shape=st.sampled_from(SHAPES), groups=st.sampled_from([1, 2, 3]), wb=affine, seed=seeds)
def test_group_norm_agrees_with_pytorch(shape, groups, wb, seed):
    judge(*both("group_norm", groups, weight=wb[0], bias=wb[1], eps=1e-3), *inputs(seed, shape, (C,), *wb))


@settings(max_examples=20)
@given(shape=st.sampled_from(SHAPES[1:]), wb=affine, seed=seeds)
def test_instance_norm_agrees_with_pytorch(shape, wb, seed):
    judge(*both("instance_norm", weight=wb[0], bias=wb[1], eps=1e-3), *inputs(seed, shape, (C,), *wb))


@settings(max_examples=30)
@given(
    shape=st.sampled_from([(5,), (4, 5), (2, 3, 4), (2, 3, 4, 2)]),
    axes=st.integers(1, 3),
    wb=affine,
    seed=seeds,
)
def test_layer_norm_agrees_with_pytorch(shape, axes, wb, seed):
    last = shape[-axes:]
    judge(*both("layer_norm", last, weight=wb[0], bias=wb[1], eps=1e-3), *inputs(seed, shape, last, *wb))


@settings(max_examples=30)
@given(
    shape=st.sampled_from([(4, 3), (2, 3, 4)]),
    p=st.sampled_from([1.0, 2.0, 3.0, math.inf]),
    dim=st.sampled_from([0, 1, -1]),
    seed=seeds,
)
def test_normalize_agrees_with_pytorch(shape, p, dim, seed):
    judge(
        lambda x: F.normalize(x, p, dim),
        lambda x: torch.nn.functional.normalize(x, p, dim),
        off_zero(seed, shape),
    )


@pytest.mark.parametrize("shape", [(0, C), (0, C, 3)])
def test_empty_inputs_agree_with_pytorch(shape):
    w = numbers(0, (C,))
    judge(*both("group_norm", 2, weight=True), np.zeros(shape), w, order=1)
    judge(*both("batch_norm", None, None, weight=True, training=True), np.zeros(shape), w, order=1)
    judge(*both("layer_norm", shape[1:]), np.zeros(shape), order=1)


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_agree_with_pytorch(name, momentum):
    for shape in SHAPES[1:]:
        stats = numbers(0, (C,)), numbers(1, (C,), 0.5, 2)
        ours = [tg.Tensor(a.copy()) for a in stats]
        theirs = [torch.from_numpy(a.copy()) for a in stats]
        for seed in (2, 3):
            x = numbers(seed, shape, -1, 3)
            kwargs = {"training": True} if name == "batch_norm" else {"use_input_stats": True}
            y = getattr(F, name)(tg.Tensor(x), *ours, momentum=momentum, **kwargs)
            z = getattr(torch.nn.functional, name)(torch.from_numpy(x), *theirs, momentum=momentum, **kwargs)
            same(y, z)
            same(ours[0], theirs[0])
            same(ours[1], theirs[1])
        kwargs = {"training": False} if name == "batch_norm" else {"use_input_stats": False}
        y = getattr(F, name)(tg.Tensor(x), *ours, **kwargs)
        same(y, getattr(torch.nn.functional, name)(torch.from_numpy(x), *theirs, **kwargs))
        same(ours[0], theirs[0])


# --------------------------------------------------------------------------------- without another library


def test_results_have_mean_zero_and_variance_one():
    x = tg.Tensor(numbers(0, (8, 4, 5, 5), -3, 7))
    y = F.batch_norm(x, None, None, training=True, eps=0.0)
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-14)
    np.testing.assert_allclose(y.var((0, 2, 3), correction=0), 1, rtol=1e-14)
    y = F.group_norm(x, 2, eps=0.0).reshape(8, 2, -1)
    np.testing.assert_allclose(y.mean(2), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(2, correction=0), 1, rtol=1e-14)


NORMS = {
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": lambda x: F.instance_norm(x),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
}


@pytest.mark.parametrize("f", NORMS.values(), ids=NORMS)
def test_near_equal_float32_numbers_keep_their_variance(f):
    # 4096 + {0, 1, 2}: E[x²] − μ² would subtract numbers near 2²⁴, where float32 has steps of 1 or 2.
    x = (4096 + np.random.default_rng(0).integers(0, 3, (4, 6, 8, 8))).astype("float32")
    y = f(tg.Tensor(x)).numpy()
    np.testing.assert_allclose(y, f(tg.Tensor(x.astype("float64"))).numpy(), atol=2e-3)


@pytest.mark.parametrize("f", NORMS.values(), ids=NORMS)
def test_equal_numbers_give_zero_and_finite_gradients(f):
    x = tg.full((2, 6, 2, 2), 3.0, dtype="float64").requires_grad_()
    (d,) = tg.grad(f(x), [x], tg.tensor(numbers(0, x.shape)), create_graph=True)
    (dd,) = tg.grad(d, [x], tg.tensor(numbers(1, x.shape)))
    assert f(x).tolist() == np.zeros(x.shape).tolist()
    assert np.isfinite(d.detach().numpy()).all() and np.isfinite(dd.numpy()).all()


def test_normalize_leaves_vectors_shorter_than_eps_short():
    x = off_zero(0, (4, 3), 0.1, 2.0)  # lengths on either side of 1.5
    assert (np.linalg.norm(x, axis=1) < 1.5).any() and (np.linalg.norm(x, axis=1) > 1.5).any()
    judge(lambda x: F.normalize(x, eps=1.5), lambda x: torch.nn.functional.normalize(x, eps=1.5), x)


def test_normalize_leaves_zero_at_zero():
    x = tg.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    y = F.normalize(x)
    y.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), [[0, 0], [0.6, 0.8]], rtol=1e-6)
    assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("f", NORMS.values(), ids=NORMS)
def test_memory_order_is_kept_and_large_arrays_agree_with_small_ones(f):
    a = np.random.default_rng(0).standard_normal((8, 20, 20, 12)).astype("float32").transpose(0, 3, 1, 2)
    x = tg.Tensor(a, requires_grad=True)
    y = f(x)
    (d,) = tg.grad(y, [x], tg.Tensor(a[::-1].copy(order="K")))
    assert y.data.strides == a.strides and d.data.strides == a.strides
    # The same, in float64 and C order, in one go.
    z = tg.Tensor(np.ascontiguousarray(a, dtype="float64"), requires_grad=True)
    w = f(z)
    (e,) = tg.grad(w, [z], tg.Tensor(np.ascontiguousarray(a[::-1], dtype="float64")))
    np.testing.assert_allclose(y.detach(), w.detach(), atol=2e-5)
    np.testing.assert_allclose(d, e, atol=2e-5)


@pytest.mark.cpu_only("about NumPy memory")
def test_group_norm_makes_no_copy_in_another_memory_order(monkeypatch):
    a = np.random.default_rng(0).standard_normal((8, 20, 20, 12)).astype("float32").transpose(0, 3, 1, 2)
    seen = []
    real = norms.like

    def spy(x, g):
        seen.append((g, real(x, g)))
        return seen[-1][1]

    monkeypatch.setattr(norms, "like", spy)
    x = tg.Tensor(a, requires_grad=True)
    w = tg.ones(12, requires_grad=True)
    y = F.group_norm(x, 4, w)
    tg.grad(y, [x, w], tg.Tensor(a))
    assert seen and all(before is after for before, after in seen)


@pytest.mark.parametrize("f", NORMS.values(), ids=NORMS)
def test_gaps_in_memory_change_nothing(f):
    a = numbers(0, (2, 6, 3, 4))
    np.testing.assert_allclose(f(tg.Tensor(strided(a))), f(tg.Tensor(a)), rtol=1e-12)


@pytest.mark.parametrize("f", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_is_kept(f, dtype):
    x = tg.Tensor(numbers(0, (2, 6, 3, 4)).astype(dtype), requires_grad=True)
    y = f(x)
    (d,) = tg.grad((y * y * y).sum(), [x])
    assert y.dtype == d.dtype == dtype
    np.testing.assert_allclose(y.detach(), f(tg.Tensor(x.data.astype("float64"))), atol=5e-3)


@pytest.mark.parametrize("f", NORMS.values(), ids=NORMS)
def test_float16_squares_do_not_overflow(f):
    x = numbers(0, (2, 6, 3, 4), -900, 900).astype("float16")  # 900² is beyond float16's 65504
    y = f(tg.Tensor(x))
    assert y.dtype == "float16"
    np.testing.assert_allclose(y, f(tg.Tensor(x.astype("float64"))), atol=5e-3)


def test_float16_parameters_get_float16_gradients():
    x = tg.tensor(numbers(0, (2, 6, 3, 4)).astype("float16"))
    w, b = (tg.ones(6, dtype="float16", requires_grad=True) for _ in range(2))
    F.group_norm(x, 2, w, b).sum().backward()
    assert w.grad.dtype == b.grad.dtype == "float16"


# --------------------------------------------------------------------------------- running statistics, errors


def test_running_statistics_are_marked_as_written():
    m, v = tg.zeros(C), tg.ones(C)
    x = tg.tensor(numbers(0, (4, C)).astype("float32"), requires_grad=True)
    y = (x * m).sum() + F.batch_norm(x, m, v, training=True).sum()
    assert not m.requires_grad and m.data.any()
    with pytest.raises(RuntimeError, match="written to in place"):
        y.backward()


def test_evaluation_and_refused_calls_write_nothing():
    m, v = tg.zeros(C), tg.ones(C)
    F.batch_norm(tg.randn(4, C), m, v)
    F.instance_norm(tg.randn(4, C, 2), m, v, use_input_stats=False)
    F.batch_norm(tg.zeros(0, C), m, v, training=True)
    for bad in (lambda: F.batch_norm(tg.randn(4, C), m, v, tg.ones(3), training=True),
                lambda: F.batch_norm(tg.randn(1, C), m, v, training=True),
                lambda: F.instance_norm(tg.randn(4, C, 2), m, v, bias=tg.ones(3))):  # fmt: skip
        with pytest.raises(ValueError):
            bad()
    assert m.tolist() == [0] * C and v.tolist() == [1] * C


def test_running_statistics_of_the_evaluation_are_constants():
    m, v = tg.zeros(C, requires_grad=True), tg.ones(C, requires_grad=True)
    x = tg.randn(4, C, requires_grad=True)
    F.batch_norm(x, m, v).sum().backward()
    assert m.grad is None and v.grad is None and x.grad is not None


@pytest.mark.parametrize("f", [*NORMS.values(), lambda x: F.normalize(x)], ids=[*NORMS, "normalize"])
def test_on_the_strict_stand_in_for_cupy(f):
    a = numbers(0, (2, 6, 3, 4)).astype("float32")
    expected = f(tg.Tensor(a)).numpy()
    with strict_cupy():
        x = tg.Tensor(a).to("cuda").requires_grad_()
        y = f(x)
        (d,) = tg.grad((y * y * y).sum(), [x], create_graph=True)
        tg.grad((d * d).sum(), [x])
        np.testing.assert_allclose(y.detach().to("cpu"), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_with_parameters_on_the_strict_stand_in_for_cupy():
    with strict_cupy(default=True):
        x, w, b = (tg.randn(*s).requires_grad_() for s in [(4, C, 3, 3), (C,), (C,)])
        m, v = tg.zeros(C), tg.ones(C)
        y = F.batch_norm(x, m, v, w, b, training=True)
        g = tg.grad((y * y).sum(), [x, w, b], create_graph=True)
        tg.grad((g[0] * g[0]).sum(), [x, w])
        F.batch_norm(x, m, v, w, b)
        assert m.numpy().any()


def test_errors_name_what_came():
    x, c = tg.zeros(2, C, 3), tg.ones(C)
    with pytest.raises(ValueError, match=r"batch_norm: expected input \(N, C\) or \(N, C, …\), got shape \(6,\)"):
        F.batch_norm(c, None, None, training=True)
    with pytest.raises(ValueError, match=r"instance_norm: .* with positions, got shape \(2, 6\)"):
        F.instance_norm(tg.zeros(2, C))
    with pytest.raises(ValueError, match=r"batch_norm: expected running_mean and running_var when not training"):
        F.batch_norm(x, None, None)
    with pytest.raises(ValueError, match=r"batch_norm: expected running_mean and running_var, or neither"):
        F.batch_norm(x, c, None, training=True)
    with pytest.raises(ValueError, match=r"instance_norm: .* when not use_input_stats"):
        F.instance_norm(x, use_input_stats=False)
    with pytest.raises(ValueError, match=r"batch_norm: expected running_var of shape \(6,\).*got \(3,\)"):
        F.batch_norm(x, c, tg.ones(3), training=True)
    with pytest.raises(ValueError, match=r"group_norm: expected weight of shape \(6,\).*got \(3,\)"):
        F.group_norm(x, 2, tg.ones(3))
    with pytest.raises(ValueError, match=r"layer_norm: expected bias of shape \(6, 3\).*got \(3,\)"):
        F.layer_norm(x, (C, 3), bias=tg.ones(3))
    with pytest.raises(TypeError, match="group_norm: input is float32 and weight float64"):
        F.group_norm(x, 2, c.double())
    with pytest.raises(TypeError, match="layer_norm: expected a floating input, got int64"):
        F.layer_norm(x.long(), (3,))
    for bad in (4, 0, -1, 2.0):
        with pytest.raises(ValueError, match=f"num_groups={bad} must be positive and divide the 6 channels"):
            F.group_norm(x, bad)
    with pytest.raises(ValueError, match=r"normalized_shape \(2, 3\) is not the end of .* \(2, 6, 3\)"):
        F.layer_norm(x, (2, 3))
    with pytest.raises(ValueError, match=r"normalized_shape \(\)"):
        F.layer_norm(x, ())
    with pytest.raises(TypeError, match=r"expected normalized_shape as a tuple, such as \(3,\)"):
        F.layer_norm(x, 3)
    with pytest.raises(ValueError, match="batch_norm: expected more than one number per channel when training"):
        F.batch_norm(tg.zeros(1, C), None, None, training=True)
    with pytest.raises(ValueError, match="instance_norm: expected more than one number per channel of an example"):
        F.instance_norm(tg.zeros(2, C, 1))
    with pytest.raises(ValueError, match="group_norm: expected more than one number per group"):
        F.group_norm(tg.zeros(1, C), C)
    with pytest.raises(IndexError, match="dim=3 is out of range"):
        F.normalize(x, dim=3)

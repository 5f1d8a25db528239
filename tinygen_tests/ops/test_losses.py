"""Losses between numbers: PyTorch's values and gradients for every reduction, kinks, far tails, dtypes, errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.nn import functional as F
from tinygen.testing import check_grad, strict_cupy
from tinygen_tests.draws import filled_shapes, numbers, seeds
from tinygen_tests.judge import judge, torch

REDUCTIONS = ["none", "mean", "sum"]
NAMES = [
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "kl_div",
]
PLAIN = NAMES[:4]
reductions = st.sampled_from(REDUCTIONS)


def both(name, **kwargs):
    return (
        lambda *a: getattr(F, name)(*a, **kwargs),
        lambda *a: getattr(torch.nn.functional, name)(*a, **kwargs),
    )


def predictions(name, seed, shape):
    """Input and target away from every kink: |x − t| is not near 0 or 1, probabilities not near 0 or 1."""
    rng = np.random.default_rng(seed)
    if name in PLAIN:
        target = rng.uniform(-2, 2, shape)
        size = rng.choice([0.3, 0.6, 1.4, 3.0], shape) + rng.uniform(-0.1, 0.1, shape)
        return np.asarray(target + size * rng.choice([-1, 1], shape)), np.asarray(target)
    if name == "binary_cross_entropy":
        return numbers(seed, shape, 0.1, 0.9), numbers(seed + 1, shape, 0.1, 0.9)
    return numbers(seed, shape, -3, 3), numbers(seed + 1, shape, 0.1, 0.9)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(shape=filled_shapes, reduction=reductions, seed=seeds)
@pytest.mark.filterwarnings("ignore:reduction. 'mean':UserWarning")
def test_agree_with_pytorch(name, shape, reduction, seed):
    judge(*both(name, reduction=reduction), *predictions(name, seed, shape))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_agree_with_pytorch_on_an_empty_batch(name, reduction):
    judge(*both(name, reduction=reduction), np.zeros((0, 3)), np.zeros((0, 3)))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_three_orders_without_pytorch(name):
    x, t = predictions(name, 5, (2, 3))
    check_grad(getattr(F, name), x, t, order=3, rtol=1e-5, step=1e-3)


@pytest.mark.parametrize("delta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_huber_and_smooth_l1_agree_with_pytorch_for_any_width(delta, reduction):
    """Proves: huber_loss, smooth_l1_loss."""
    x, t = predictions("huber_loss", 0, (3, 4))
    judge(*both("huber_loss", delta=delta, reduction=reduction), x, t)
    judge(*both("smooth_l1_loss", beta=delta, reduction=reduction), x, t)


def test_smooth_l1_with_beta_zero_is_l1():
    judge(*both("smooth_l1_loss", beta=0.0), *predictions("l1_loss", 0, (3, 4)))


def test_huber_is_half_the_square_near_zero_and_linear_far_out():
    x = tg.tensor([0.0, 0.5, 2.0, 10.0, -10.0], dtype="float64", requires_grad=True)
    y = F.huber_loss(x, tg.zeros(5, dtype="float64"), "none", 2.0)
    (d,) = tg.grad(y.sum(), [x], create_graph=True)
    (dd,) = tg.grad(d.sum(), [x])
    assert y.tolist() == [0, 0.125, 2, 18, 18]
    assert d.tolist() == [0, 0.5, 2, 2, -2]
    assert dd.tolist() == [1, 1, 1, 0, 0]


def test_absolute_error_has_gradient_zero_at_a_tie():
    x = tg.zeros(2, requires_grad=True)
    F.l1_loss(x, tg.zeros(2), reduction="sum").backward()
    assert x.grad.tolist() == [0, 0]


# ------------------------------------------------------------------------------------ binary cross entropy


WEIGHTS = [None, (), (3,), (1, 3), (4, 1), (4, 3)]


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights_agree_with_pytorch(weight, reduction):
    """Proves: binary_cross_entropy, binary_cross_entropy_with_logits."""
    w = None if weight is None else numbers(9, weight, 0.5, 2)
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        x, t = predictions(name, 1, (4, 3))

        def ours(x, t, name=name):
            return getattr(F, name)(x, t, None if w is None else tg.Tensor(w).to(x), reduction=reduction)

        def theirs(x, t, name=name):
            f = getattr(torch.nn.functional, name)
            return f(x, t, None if w is None else torch.from_numpy(w).to(x.dtype), reduction=reduction)

        judge(ours, theirs, x, t)


@pytest.mark.parametrize("pos_weight", WEIGHTS[1:])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_pos_weight_agrees_with_pytorch(pos_weight, weighted, reduction):
    x, t = predictions("binary_cross_entropy_with_logits", 1, (4, 3))
    p, w = numbers(9, pos_weight, 0.5, 2), numbers(8, (3,), 0.5, 2)

    def ours(x, t):
        weight = tg.Tensor(w).to(x) if weighted else None
        return F.binary_cross_entropy_with_logits(x, t, weight, reduction=reduction, pos_weight=tg.Tensor(p).to(x))

    def theirs(x, t):
        weight = torch.from_numpy(w).to(x.dtype) if weighted else None
        return torch.nn.functional.binary_cross_entropy_with_logits(
            x, t, weight, reduction=reduction, pos_weight=torch.from_numpy(p).to(x.dtype)
        )

    judge(ours, theirs, x, t)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pos_weight", [None, 1.0])
def test_logits_of_a_thousand_are_exact_to_second_order(dtype, pos_weight):
    x = tg.tensor([1000.0, 1000.0, -1000.0, -1000.0, 1000.0], dtype=dtype, requires_grad=True)
    t = tg.tensor([1.0, 0.0, 1.0, 0.0, 0.25], dtype=dtype)
    p = None if pos_weight is None else tg.tensor(pos_weight, dtype=dtype)
    y = F.binary_cross_entropy_with_logits(x, t, reduction="none", pos_weight=p)
    (d,) = tg.grad(y.sum(), [x], create_graph=True)
    (dd,) = tg.grad(d.sum(), [x])
    assert y.tolist() == [0, 1000, 1000, 0, 750]
    assert d.tolist() == [0, 1, -1, 0, 0.75]
    assert dd.tolist() == [0, 0, 0, 0, 0]


def test_small_losses_keep_their_digits():
    x = np.array([40.0, -40.0, 30.0])
    t = np.array([1.0, 0.0, 1.0])
    for p in (None, 1.0):
        pos_weight = None if p is None else tg.tensor(p, dtype="float64")
        y = F.binary_cross_entropy_with_logits(
            tg.tensor(x), tg.tensor(t), reduction="none", pos_weight=pos_weight
        ).numpy()
        np.testing.assert_allclose(y, np.exp(-np.abs(x)), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_at_zero_and_one_as_in_pytorch(dtype):
    x = np.array([0.0, 0.0, 1.0, 1.0, 0.5, 1e-30, 0.0], dtype=dtype)
    t = np.array([0.0, 1.0, 0.0, 1.0, 0.5, 1.0, 0.5], dtype=dtype)
    a = tg.Tensor(x.copy(), requires_grad=True)
    b = torch.from_numpy(x.copy()).requires_grad_()
    y = F.binary_cross_entropy(a, tg.Tensor(t), reduction="none")
    z = torch.nn.functional.binary_cross_entropy(b, torch.from_numpy(t), reduction="none")
    y.sum().backward()
    z.sum().backward()
    np.testing.assert_allclose(y.detach(), z.detach(), rtol=1e-6)
    np.testing.assert_allclose(a.grad, b.grad, rtol=1e-6)
    assert y.tolist()[:4] == [0, 100, 100, 0]


# ---------------------------------------------------------------------------------------------------- KL


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
@pytest.mark.filterwarnings("ignore:reduction. 'mean':UserWarning")
def test_kl_div_agrees_with_pytorch(reduction, log_target, shape):
    target = numbers(1, shape, -3, 0) if log_target else numbers(1, shape, 0.1, 1)
    judge(*both("kl_div", reduction=reduction, log_target=log_target), numbers(0, shape, -3, 0), target)


def test_kl_div_of_zero_is_zero():
    x = tg.tensor([-1.0, -2.0], requires_grad=True)
    t = tg.tensor([0.0, 1.0], requires_grad=True)
    y = F.kl_div(x, t, reduction="none")
    y.sum().backward()
    assert y.tolist() == [0, 2] and x.grad.tolist() == [0, -1]
    assert t.grad.tolist() == [1, 3]


def test_kl_div_of_two_distributions_is_what_the_formula_says():
    p, q = np.array([[0.2, 0.8], [0.5, 0.5]]), np.array([[0.4, 0.6], [0.9, 0.1]])
    y = F.kl_div(tg.Tensor(np.log(q)), tg.Tensor(p), reduction="batchmean")
    np.testing.assert_allclose(y.item(), (p * np.log(p / q)).sum() / 2, rtol=1e-14)


# ---------------------------------------------------------------------------------------- dtypes and errors


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_float32_is_kept(name, reduction):
    x, t = (tg.Tensor(a.astype("float32"), requires_grad=True) for a in predictions(name, 0, (2, 3)))
    y = getattr(F, name)(x, t, reduction=reduction)
    dx, dt = tg.grad(y.sum(), [x, t])
    assert y.dtype == dx.dtype == dt.dtype == tg.float32


@pytest.mark.parametrize("name", NAMES)
def test_the_same_tensor_twice(name):
    x = tg.Tensor(np.full((2, 3), 0.4), requires_grad=True)
    y = getattr(F, name)(x, x)
    y.backward()
    a = torch.full((2, 3), 0.4, dtype=torch.float64, requires_grad=True)
    b = getattr(torch.nn.functional, name)(a, a, reduction="sum") / 6
    b.backward()
    np.testing.assert_allclose(x.grad, a.grad, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_on_the_strict_stand_in_for_cupy(name):
    x, t = (a.astype("float32") for a in predictions(name, 0, (2, 3)))
    expected = getattr(F, name)(tg.Tensor(x), tg.Tensor(t)).item()
    with strict_cupy():
        a, b = tg.Tensor(x).to("cuda").requires_grad_(), tg.Tensor(t).to("cuda").requires_grad_()
        y = getattr(F, name)(a, b)
        d, _ = tg.grad(y, [a, b], create_graph=True)
        if d.requires_grad:
            tg.grad(d.sum(), [a], allow_unused=True)
        assert math.isclose(y.item(), expected, rel_tol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_errors_name_what_came(name):
    f = getattr(F, name)
    x = tg.full((2, 1), 0.5)
    with pytest.raises(ValueError, match=rf"{name}: input has shape \(2, 1\) and target \(2,\)"):
        f(x, tg.full((2,), 0.5))
    with pytest.raises(ValueError, match=f"{name}: expected reduction='none', 'mean' or 'sum', got 'avg'"):
        f(x, x, reduction="avg")
    with pytest.raises(TypeError, match=f"{name}: expected target to be a floating tensor, got int64"):
        f(x, tg.tensor([[1], [0]]))
    with pytest.raises(TypeError, match=f"{name}: expected target to be a Tensor, got float 0.5"):
        f(x, 0.5)
    for left_out in ("size_average", "reduce"):
        with pytest.raises(TypeError, match=left_out):
            f(x, x, **{left_out: True})


@pytest.mark.cpu_only("a GPU does not look at the numbers")
def test_probabilities_outside_zero_to_one_are_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\], got numbers from 0.5 to 1.5"):
        F.binary_cross_entropy(tg.tensor([0.5, 1.5]), tg.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        F.binary_cross_entropy(tg.tensor([0.5, math.nan]), tg.tensor([0.5, 0.5]))


def test_errors_of_single_arguments():
    x = tg.full((2, 3), 0.5)
    with pytest.raises(ValueError, match="expected delta > 0, got 0"):
        F.huber_loss(x, x, delta=0)
    with pytest.raises(ValueError, match="expected beta ≥ 0, got -1"):
        F.smooth_l1_loss(x, x, beta=-1)
    for name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        with pytest.raises(ValueError, match=rf"{name}: weight of shape \(2,\) does not broadcast.*\(2, 3\)"):
            getattr(F, name)(x, x, tg.ones(2))
        with pytest.raises(ValueError, match=r"weight of shape \(4, 2, 3\)"):
            getattr(F, name)(x, x, tg.ones(4, 2, 3))
    with pytest.raises(ValueError, match=r"pos_weight of shape \(2,\)"):
        F.binary_cross_entropy_with_logits(x, x, pos_weight=tg.ones(2))

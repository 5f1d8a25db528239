"""cross_entropy and nll_loss: PyTorch's values and gradients over the whole grid of arguments; ignored; errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.nn import functional as F
from tinygen.testing import check_grad, strict_cupy
from tinygen_tests.draws import numbers, seeds
from tinygen_tests.judge import judge, same, torch

REDUCTIONS = ["none", "mean", "sum"]
LEADS = [None, (1,), (5,), (2, 3), (2, 2, 3)]  # the target's shape; None for the input (C)
C = 4


def scores(seed, lead):
    return numbers(seed, (C,) if lead is None else (lead[0], C, *lead[1:]), -2, 2)


def indices(seed, lead, ignore=None):
    rng = np.random.default_rng(seed)
    t = np.asarray(rng.integers(0, C, () if lead is None else lead))
    if ignore is not None and t.ndim:
        t[rng.random(t.shape) < 0.4] = ignore
        t.reshape(-1)[0] = (ignore + 1) % C  # not all of them, which the next tests are for
    return t


def both(name, weight=None, **kwargs):
    def ours(x, t):
        w = None if weight is None else tg.Tensor(weight).to(x)
        return getattr(F, name)(x, t, w, **kwargs)

    def theirs(x, t):
        w = None if weight is None else torch.from_numpy(weight).to(x.dtype)
        return getattr(torch.nn.functional, name)(x, t, w, **kwargs)

    return ours, theirs


grid = {
    "lead": st.sampled_from(LEADS),
    "weighted": st.booleans(),
    "reduction": st.sampled_from(REDUCTIONS),
    "seed": seeds,
}


@settings(max_examples=60)
@given(ignore=st.sampled_from([None, -100, 2, -1]), smoothing=st.sampled_from([0.0, 0.1, 1.0]), **grid)
def test_cross_entropy_of_indices_agrees_with_pytorch(lead, weighted, ignore, smoothing, reduction, seed):
    kwargs = {"reduction": reduction, "label_smoothing": smoothing} | (
        {} if ignore is None else {"ignore_index": ignore}
    )
    w = numbers(seed, (C,), 0.5, 2) if weighted else None
    judge(*both("cross_entropy", w, **kwargs), scores(seed, lead), indices(seed, lead, ignore))


@settings(max_examples=40)
@given(ignore=st.sampled_from([None, -100, 2, -1]), **grid)
def test_nll_loss_agrees_with_pytorch(lead, weighted, ignore, reduction, seed):
    kwargs = {"reduction": reduction} | ({} if ignore is None else {"ignore_index": ignore})
    w = numbers(seed, (C,), 0.5, 2) if weighted else None
    judge(*both("nll_loss", w, **kwargs), scores(seed, lead), indices(seed, lead, ignore))


@settings(max_examples=40)
@given(smoothing=st.sampled_from([0.0, 0.1, 1.0]), **grid)
def test_cross_entropy_of_probabilities_agrees_with_pytorch(lead, weighted, smoothing, reduction, seed):
    x = scores(seed, lead)
    q = np.exp(scores(seed + 1, lead))
    q /= q.sum(0 if lead is None else 1, keepdims=True)
    w = numbers(seed, (C,), 0.5, 2) if weighted else None
    judge(*both("cross_entropy", w, reduction=reduction, label_smoothing=smoothing), x, q)


def test_gradients_of_three_orders_without_pytorch():
    x, t = scores(0, (3,)), np.array([0, 3, 1])
    w = numbers(1, (C,), 0.5, 2)
    check_grad(lambda x: F.cross_entropy(x, tg.tensor(t), label_smoothing=0.1), x, order=3)
    check_grad(lambda x: F.nll_loss(x, tg.tensor(t), tg.Tensor(w).to(x)), x)
    check_grad(F.cross_entropy, x, numbers(2, (3, C), 0, 1), order=3)


def test_the_gradient_is_probability_minus_target():
    x = tg.tensor(scores(0, (3,)), requires_grad=True)
    t = tg.tensor([0, 3, 1])
    F.cross_entropy(x, t, reduction="sum").backward()
    expected = F.softmax(x.detach(), 1) - F.one_hot(t, C)
    np.testing.assert_allclose(x.grad.numpy(), expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_all_ignored_is_nan_in_the_mean_and_zero_in_the_sum(smoothing):
    x, t = scores(0, (3,)), np.full(3, -100)
    kwargs = {"label_smoothing": smoothing}
    with pytest.warns(RuntimeWarning):
        ours = F.cross_entropy(tg.Tensor(x), tg.Tensor(t), **kwargs)
    same(ours, torch.nn.functional.cross_entropy(torch.from_numpy(x), torch.from_numpy(t), **kwargs))
    assert math.isnan(ours.item())
    judge(*both("cross_entropy", reduction="sum", **kwargs), x, t)
    judge(*both("cross_entropy", reduction="none", **kwargs), x, t)


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_an_empty_batch(reduction):
    judge(*both("cross_entropy", reduction=reduction), np.zeros((0, C)), np.zeros(0, "int64"))
    judge(*both("nll_loss", reduction=reduction), np.zeros((0, C)), np.zeros(0, "int64"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_a_thousand_are_exact_to_second_order(dtype):
    x = tg.tensor([[1000.0, 0.0, -1000.0]] * 2, dtype=dtype, requires_grad=True)
    y = F.cross_entropy(x, tg.tensor([0, 2]), reduction="none")
    assert y.tolist() == [0, 2000]
    (d,) = tg.grad(y.sum(), [x], create_graph=True)
    assert d.tolist() == [[0, 0, 0], [1, 0, -1]]
    (dd,) = tg.grad((d * d).sum(), [x])
    assert np.isfinite(dd.numpy()).all()


def test_an_impossible_class_that_is_ignored_costs_nothing():
    x = tg.tensor([[-math.inf, 0.0], [0.0, -math.inf]], requires_grad=True)
    y = F.nll_loss(x, tg.tensor([-100, 0]), reduction="sum")
    y.backward()
    assert y.item() == 0 and x.grad.tolist() == [[0, 0], [-1, 0]]


def test_float32_and_small_integer_targets():
    x = tg.tensor(scores(0, (3,)).astype("float32"), requires_grad=True)
    w = tg.ones(C)
    for dtype in ("int32", "int64", "uint8"):
        y = F.cross_entropy(x, tg.tensor([0, 3, 1]).to(dtype), w, label_smoothing=0.1)
        (d,) = tg.grad(y, [x])
        assert y.dtype == d.dtype == tg.float32


def test_on_the_strict_stand_in_for_cupy():
    x, t = scores(0, (3,)).astype("float32"), np.array([0, 3, -100])
    expected = F.cross_entropy(tg.Tensor(x), tg.Tensor(t), label_smoothing=0.1).item()
    with strict_cupy():
        a, b = tg.Tensor(x).to("cuda").requires_grad_(), tg.Tensor(t).to("cuda")
        y = F.cross_entropy(a, b, tg.ones(C, device="cuda"), label_smoothing=0.1)
        (d,) = tg.grad(y, [a], create_graph=True)
        tg.grad((d * d).sum(), [a])
        assert math.isclose(y.item(), expected, rel_tol=1e-5)


@pytest.mark.cpu_only("a GPU does not look at the targets")
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_targets_outside_are_named(name):
    f, x = getattr(F, name), tg.zeros(2, C)
    for bad in (4, -1):
        with pytest.raises(IndexError, match=rf"{name}: target {bad} is outside \[0, 4\) and not ignore_index=-100"):
            f(x, tg.tensor([0, bad]))


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_errors_name_what_came(name):
    f = getattr(F, name)
    x, t = tg.zeros(2, C), tg.tensor([0, 1])
    with pytest.raises(ValueError, match=rf"{name}: expected a target of shape \(2,\) for input \(2, 4\).*got \(3,\)"):
        f(x, tg.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match=f"{name}: expected integer class indices as target, got float32"):
        f(x, tg.zeros(2))
    with pytest.raises(ValueError, match=rf"{name}: expected weight of shape \(4,\)"):
        f(x, t, tg.ones(3))
    with pytest.raises(ValueError, match=f"{name}: expected reduction='none', 'mean' or 'sum', got 'batchmean'"):
        f(x, t, reduction="batchmean")
    with pytest.raises(TypeError, match=f"{name}: expected input to be a floating tensor.*got int64"):
        f(tg.tensor([[1, 2]]), tg.tensor([0]))
    with pytest.raises(ValueError, match=rf"{name}: expected input to be a floating tensor \(C\).*got float32 \(\)"):
        f(tg.zeros(()), tg.tensor(0))
    for left_out in ("size_average", "reduce"):
        with pytest.raises(TypeError, match=left_out):
            f(x, t, **{left_out: True})


def test_errors_of_cross_entropy():
    x = tg.zeros(2, C)
    with pytest.raises(ValueError, match=r"label_smoothing in \[0, 1\], got 1.5"):
        F.cross_entropy(x, tg.tensor([0, 1]), label_smoothing=1.5)
    with pytest.raises(TypeError, match=r"probabilities, which are floating; got int64 \(class indices have the shape"):
        F.cross_entropy(x, x.long())
    with pytest.raises(ValueError, match="ignore_index=1 is for class indices"):
        F.cross_entropy(x, x, ignore_index=1)
    with pytest.raises(ValueError, match=r"expected weight of shape \(4,\)"):
        F.cross_entropy(x, x, tg.ones(3))

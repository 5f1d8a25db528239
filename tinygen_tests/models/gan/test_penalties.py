"""Penalties on D's slope: linear and quadratic critics where all is known, PyTorch for the rest, and norm 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tinygen import nn
from tinygen.models.gan import clip_weights, gradient_penalty, input_gradient, interpolates, r1_penalty
from tinygen.models.gan.penalties import slopes
from tinygen.testing import check_grad
from tinygen_tests.draws import examples, numbers, seeds, stream
from tinygen_tests.judge import host, same, torch


def f64(values) -> tg.Tensor:
    return tg.tensor(np.asarray(values, dtype=np.float64))


def linear(w: tg.Tensor):
    """D(x) = ⟨w, x⟩, whose gradient is w everywhere."""
    return lambda x: (x * w).flatten(1).sum(1)


shapes = st.sampled_from([(3,), (1, 2, 2), (2, 1, 3)])


@given(seed=seeds, shape=shapes, n=st.integers(1, 5))
@examples(20)
def test_a_linear_critic_has_the_penalty_of_its_norm(seed, shape, n):
    w = f64(numbers(seed, shape)).requires_grad_()
    real, fake = f64(numbers(seed + 1, (n, *shape))), f64(numbers(seed + 2, (n, *shape)))
    penalty = gradient_penalty(linear(w), real, fake, rng=stream(seed))
    norm = np.linalg.norm(host(w))
    assert host(penalty) == pytest.approx((norm - 1) ** 2, rel=1e-10)
    penalty.backward()
    np.testing.assert_allclose(host(w.grad), 2 * (norm - 1) * host(w) / norm, rtol=1e-9, atol=1e-12)
    w.grad = None
    r1 = r1_penalty(linear(w), real)
    assert host(r1) == pytest.approx(norm**2, rel=1e-10)
    r1.backward()
    np.testing.assert_allclose(host(w.grad), 2 * host(w), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_at_norm_0_the_penalty_is_1_and_its_gradient_finite(dtype):
    w = tg.zeros(1, 2, 2, dtype=dtype).requires_grad_()
    x = tg.tensor(numbers(0, (3, 1, 2, 2)), dtype=dtype)
    penalty = gradient_penalty(linear(w), x, -x, rng=stream(0))
    penalty.backward()
    assert host(penalty) == 1 and penalty.dtype == dtype
    np.testing.assert_array_equal(host(w.grad), 0)
    w.grad = None
    r1 = r1_penalty(linear(w), x)
    r1.backward()
    assert host(r1) == 0
    np.testing.assert_array_equal(host(w.grad), 0)


def test_one_flat_image_of_a_batch_spoils_none_of_the_gradient():
    """D(x) = w·relu(x): slope 0 for a dark image, w·1 for a bright one."""
    w = f64(1.5).requires_grad_()
    critic = lambda x: (w * nn.functional.relu(x)).flatten(1).sum(1)
    x = f64([[-1.0, -2.0], [1.0, 2.0]])
    penalty = gradient_penalty(critic, x, x, rng=stream(0))
    penalty.backward()
    norm = 1.5 * np.sqrt(2)
    assert host(penalty) == pytest.approx((1 + (norm - 1) ** 2) / 2)
    assert host(w.grad) == pytest.approx(2 * (norm - 1) * np.sqrt(2) / 2)


def test_the_norm_is_over_an_image_and_not_over_the_batch_or_one_axis():
    """D(x) = ½‖x‖² has the gradient x: each image's penalty is (‖x‖ − 1)², over channels and both sides."""
    x = f64(numbers(1, (4, 2, 3, 2)))
    penalty = gradient_penalty(lambda x: 0.5 * (x * x).flatten(1).sum(1), x, x, rng=stream(0))
    norms = np.sqrt((host(x) ** 2).sum(axis=(1, 2, 3)))
    assert host(penalty) == pytest.approx(((norms - 1) ** 2).mean(), rel=1e-10)
    np.testing.assert_allclose(host(slopes(lambda x: 0.5 * (x * x).flatten(1).sum(1), x)), norms, rtol=1e-10)
    for wrong in [(1,), (0,), (2, 3), (0, 1, 2, 3)]:
        other = ((np.sqrt((host(x) ** 2).sum(axis=wrong)) - 1) ** 2).mean()
        assert host(penalty) != pytest.approx(other, rel=1e-3), f"the norm over {wrong} would pass too"


def test_the_penalty_is_taken_between_real_and_fake():
    """With the gradient x and images of one number, real 0 and fake 4, the slopes are 4(1 − ε): neither 0 nor 4."""
    n = 20_000
    real, fake = tg.zeros(n, 1, dtype=tg.float64), tg.full((n, 1), 4.0, dtype=tg.float64)
    critic = lambda x: 0.5 * (x * x).sum(1)
    penalty = float(host(gradient_penalty(critic, real, fake, rng=stream(0))))
    between = np.mean((4 * np.linspace(0, 1, 100_001) - 1) ** 2)  # ∫(4u − 1)² du = 16/3 − 4 + 1
    assert penalty == pytest.approx(between, rel=0.03)
    assert abs(penalty - 1) > 1 and abs(penalty - 9) > 1, "on real points it is 1, on fake ones 9"
    assert host(r1_penalty(critic, fake)) == pytest.approx(16), "R1 is on the images that it is given"


def test_each_pair_has_an_epsilon_of_its_own_and_one_for_all_its_numbers():
    real, fake = tg.ones(50, 2, 3, dtype=tg.float64), tg.zeros(50, 2, 3, dtype=tg.float64)
    x = host(interpolates(real, fake, rng=stream(0)))
    assert x.shape == (50, 2, 3)
    assert (x == x[:, :1, :1]).all()
    assert len(np.unique(x[:, 0, 0])) == 50 and x.min() >= 0 and x.max() < 1
    assert (x == host(interpolates(real, fake, rng=stream(0)))).all()
    a, b = numbers(1, (50, 2, 3)), numbers(2, (50, 2, 3))
    np.testing.assert_allclose(host(interpolates(f64(a), f64(b), rng=stream(0))), x * a + (1 - x) * b, rtol=1e-12)
    grown = interpolates(real.clone().requires_grad_(), fake, rng=stream(0))
    assert not grown.requires_grad


def test_the_second_derivative_is_right_by_finite_differences():
    x = f64(numbers(0, (3, 4)))

    def penalty(v, w):
        critic = lambda t: (tg.tanh(t @ v) @ w).squeeze(1)
        points = x.to(v.dtype)  # between equal points there is only one: no ε, which float32 would draw otherwise
        return gradient_penalty(critic, points, points) + 0.5 * r1_penalty(critic, points)

    check_grad(penalty, numbers(2, (4, 5)), numbers(3, (5, 1)))


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_pytorch_has_the_same_penalties_and_gradients(kind):
    def network(lib):
        nn = lib.nn
        if kind == "dense":
            return nn.Sequential(nn.Flatten(), nn.Linear(18, 6), nn.Tanh(), nn.Linear(6, 1))
        return nn.Sequential(
            nn.Conv2d(2, 3, 3, 2, 1), nn.LeakyReLU(0.2), nn.GroupNorm(1, 3), nn.SiLU(), nn.Flatten(), nn.Linear(12, 1)
        )

    torch.manual_seed(0)
    theirs = network(torch).double()
    ours = network(tg).double()
    ours.load_state_dict(theirs.state_dict())
    real, fake = numbers(0, (4, 2, 3, 3)), numbers(1, (4, 2, 3, 3))
    ε = host(tg.rand(4, 1, 1, 1, rng=stream(3), dtype=tg.float64))

    x = torch.tensor(ε * real + (1 - ε) * fake, requires_grad=True)
    (g,) = torch.autograd.grad(theirs(x).sum(), x, create_graph=True)
    t = torch.tensor(real, requires_grad=True)
    (h,) = torch.autograd.grad(theirs(t).sum(), t, create_graph=True)
    expected = 10 * ((g.flatten(1).norm(dim=1) - 1) ** 2).mean() + 0.5 * (h**2).sum((1, 2, 3)).mean()
    expected.backward()

    found = 10 * gradient_penalty(ours, f64(real), f64(fake), rng=stream(3)) + 0.5 * r1_penalty(ours, f64(real))
    found.backward()
    same(found, expected, 1e-10)
    same(input_gradient(ours, f64(real)), h, 1e-10)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters()):
        theirs_grad = torch.zeros_like(q) if q.grad is None else q.grad
        same(tg.zeros_like(p) if p.grad is None else p.grad, theirs_grad, 1e-9, name)


def test_the_target_slope_can_be_another():
    w = f64([3.0, 4.0])
    x = f64(numbers(0, (2, 2)))
    assert host(gradient_penalty(linear(w), x, x, rng=stream(0), target=0.0)) == pytest.approx(25)


def test_it_records_also_where_recording_was_switched_off():
    w = f64([3.0, 4.0]).requires_grad_()
    with tg.no_grad():
        assert host(gradient_penalty(linear(w), f64([[1.0, 2.0]]), f64([[0.0, 1.0]]))) == pytest.approx(16)


def test_clipping_changes_what_is_outside_and_nothing_else():
    module = nn.Linear(3, 2, rng=stream(0))
    with tg.no_grad():
        module.weight.copy_(tg.tensor([[-2.0, -0.01, 0.005], [0.3, 0.01, -0.002]]))
        module.bias.copy_(tg.tensor([5.0, -0.001]))
    weight = module.weight
    clip_weights(module, 0.01)
    assert module.weight is weight and module.weight.requires_grad and module.weight.is_leaf
    np.testing.assert_array_equal(
        host(module.weight), np.array([[-0.01, -0.01, 0.005], [0.01, 0.01, -0.002]], dtype=np.float32)
    )
    np.testing.assert_array_equal(host(module.bias), np.array([0.01, -0.001], dtype=np.float32))


def test_errors_name_what_came():
    x = tg.zeros(3, 1, 4, 4)
    with pytest.raises(ValueError, match=r"got \(2, 1, 4, 4\) beside \(3, 1, 4, 4\)"):
        gradient_penalty(linear(tg.ones(1, 4, 4)), x, x[:2])
    with pytest.raises(ValueError, match=r"one number of D for each of 3 images, got shape \(3, 2\)"):
        r1_penalty(lambda x: x.flatten(1)[:, :2], x)
    with pytest.raises(ValueError, match="c > 0, got 0"):
        clip_weights(nn.Linear(1, 1), 0)

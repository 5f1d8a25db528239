"""L_K from importance weights: a model whose ln p(x) is known, the bound's order, its gradient, and extremes."""

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen.metrics import importance_log_likelihood, iwae_bound

pytestmark = pytest.mark.cpu_only("test_on_a_gpu.py runs there")


def normal(x, mean, var):
    return -0.5 * (np.log(2 * np.pi * var) + (x - mean) ** 2 / var)


def linear_gaussian(seed, S, N, width=1.4):
    """z ~ N(0, 1), x | z ~ N(2z, 1), so x ~ N(0, 5) and z | x ~ N(0.4 x, 0.2); q is the posterior, spread too wide."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(N) * math.sqrt(5)
    var = 0.2 * width**2
    z = 0.4 * x + math.sqrt(var) * rng.standard_normal((S, N))
    log_w = normal(z, 0, 1) + normal(x, 2 * z, 1) - normal(z, 0.4 * x, var)
    return log_w, normal(x, 0, 5)


def test_exact_posterior_gives_the_likelihood_from_one_draw():
    log_w, log_p = linear_gaussian(0, 4, 20, width=1)
    np.testing.assert_allclose(iwae_bound(tg.tensor(log_w)).numpy(), log_p, rtol=1e-12)
    np.testing.assert_allclose(iwae_bound(tg.tensor(log_w), k=1).numpy(), log_p, rtol=1e-12)
    found = importance_log_likelihood(log_w)
    assert found.mean == pytest.approx(log_p.mean(), rel=1e-12)
    assert found.effective_samples == pytest.approx(4, rel=1e-9)


def test_the_bound_rises_with_k_to_the_likelihood():
    log_w, log_p = linear_gaussian(1, 1000, 200, width=2)
    w = tg.tensor(log_w)
    gaps = [(log_p - iwae_bound(w, k=k).numpy()).mean() for k in (1, 5, 50, 1000)]
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] > -0.01
    kl = math.log(1 / 2) + (4 - 1) / 2  # KL(q ‖ posterior), what the ELBO lacks
    assert gaps[0] == pytest.approx(kl, abs=0.02)
    assert abs(gaps[3]) < 0.01


def test_it_is_the_log_of_the_mean_weight_over_groups():
    """Proves: iwae_bound, importance_log_likelihood."""
    log_w = np.random.default_rng(0).standard_normal((6, 3))
    groups = np.exp(log_w).reshape(2, 3, 3)
    expected = np.log(groups.mean(1)).mean(0)
    np.testing.assert_allclose(iwae_bound(tg.tensor(log_w), k=3).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(iwae_bound(tg.tensor(log_w), k=1).numpy(), log_w.mean(0), rtol=1e-12)
    assert importance_log_likelihood(log_w).mean == pytest.approx(np.log(np.exp(log_w).mean(0)).mean(), rel=1e-12)
    assert iwae_bound(tg.tensor(log_w.astype("float32"))).dtype == tg.float32


def test_its_gradient_is_the_normalised_weight():
    log_w = tg.tensor(np.random.default_rng(1).standard_normal((6, 2)), requires_grad=True)
    cotangent = tg.tensor([0.7, -1.3], dtype=tg.float64)
    (iwae_bound(log_w, k=3) * cotangent).sum().backward()
    w = np.exp(log_w.detach().numpy()).reshape(2, 3, 2)
    expected = (w / w.sum(1, keepdims=True) / 2).reshape(6, 2) * cotangent.numpy()
    np.testing.assert_allclose(log_w.grad.numpy(), expected, rtol=1e-12)
    tg.testing.check_grad(lambda a: iwae_bound(a, k=2), log_w.detach().numpy().copy())


def test_weights_that_overflow_or_are_impossible():
    for shift in (-5000.0, 5000.0):
        found = importance_log_likelihood(np.full((3, 2), shift))
        assert found == (shift, 0.0, pytest.approx(3))
    one_of_four = np.full((4, 2), -math.inf)
    one_of_four[1] = -3.0
    assert importance_log_likelihood(one_of_four).mean == pytest.approx(-3 - math.log(4))
    assert importance_log_likelihood(one_of_four).effective_samples == 1
    never = importance_log_likelihood(np.full((4, 2), -math.inf))
    assert never.mean == -math.inf and math.isnan(never.standard_error) and never.effective_samples == 0


def test_effective_samples_and_standard_error():
    log_w = np.log(np.array([[1.0, 1.0], [3.0, 1.0]]))
    found = importance_log_likelihood(tg.tensor(log_w))
    assert found.effective_samples == pytest.approx((16 / 10 + 2) / 2)
    assert found.standard_error == pytest.approx(np.std([math.log(2), 0]) / math.sqrt(2))


def test_errors_say_what_is_needed():
    w = tg.tensor(np.zeros((6, 2)))
    for k in (0, 4, 7):
        with pytest.raises(ValueError, match=f"divide the 6 draws, got k={k}"):
            iwae_bound(w, k=k)
    with pytest.raises(ValueError, match="the draws first"):
        iwae_bound(tg.tensor(0.0))
    with pytest.raises(TypeError, match="Tensor or an array, got list"):
        importance_log_likelihood([[0.0]])
    for bad in (np.zeros(3), np.zeros((0, 2)), np.zeros((2, 0))):
        with pytest.raises(ValueError, match=r"expected log_weights \(K, N\)"):
            importance_log_likelihood(bad)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="nan or"):
            importance_log_likelihood(np.array([[0.0], [bad]]))

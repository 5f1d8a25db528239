"""Likelihoods: the densities of their formulas, σ learned or fixed."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.vae.likelihoods import BernoulliLikelihood, GaussianLikelihood, made_likelihood
from tinygen.testing import check_grad
from tinygen_tests.draws import numbers
from tinygen_tests.judge import host


def test_the_bernoulli_is_the_cross_entropy():
    """Proves: BernoulliLikelihood."""
    a, x = numbers(0, (2, 5)), numbers(1, (2, 5), 0, 1)
    p = BernoulliLikelihood()(tg.tensor(a))
    mean = 1 / (1 + np.exp(-a))
    np.testing.assert_allclose(host(p.mean), mean, rtol=1e-12)
    expected = x * np.log(mean) + (1 - x) * np.log(1 - mean)
    np.testing.assert_allclose(host(p.log_prob(tg.tensor(x))), expected, rtol=1e-10)


@pytest.mark.parametrize("squash", [True, False])
def test_the_gaussian_is_its_formula(squash):
    a, x = numbers(0, (2, 5)), numbers(1, (2, 5), 0, 1)
    p = GaussianLikelihood(0.3, squash=squash).double()(tg.tensor(a))
    mean = 1 / (1 + np.exp(-a)) if squash else a
    np.testing.assert_allclose(host(p.mean), mean, rtol=1e-12)
    expected = -((x - mean) ** 2) / (2 * 0.09) - math.log(0.3) - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(host(p.log_prob(tg.tensor(x))), expected, rtol=1e-6)


def test_sigma_is_learned_or_fixed():
    learned, fixed = GaussianLikelihood(start=0.5), GaussianLikelihood(0.2)
    assert [name for name, _ in learned.named_parameters()] == ["log_sigma"]
    assert not list(fixed.parameters())
    assert "log_sigma" in fixed.state_dict()
    assert learned.sigma.item() == pytest.approx(0.5) and fixed.sigma.item() == pytest.approx(0.2)
    with tg.no_grad():
        fixed.log_sigma.copy_(tg.tensor(0.0))


def test_the_best_sigma_is_the_mean_square_error():
    a, x = tg.tensor(numbers(0, (50,))), tg.tensor(numbers(1, (50,)))
    error = (a - x).square().mean().item() ** 0.5
    p = GaussianLikelihood(start=error, squash=False).double()
    with tg.no_grad():
        p.log_sigma.copy_(tg.tensor(math.log(error), dtype=tg.float64))
    p(a).log_prob(x).sum().backward()
    assert p.log_sigma.grad.item() == pytest.approx(0, abs=1e-9)


def test_gradients():
    x = tg.tensor(numbers(1, (4,), 0, 1))
    for p_x in (BernoulliLikelihood(), GaussianLikelihood(0.7)):
        check_grad(lambda a, p_x=p_x: p_x(a).log_prob(x.to(a.dtype)), numbers(0, (4,)))


def test_by_name():
    assert isinstance(made_likelihood("bernoulli"), BernoulliLikelihood)
    assert isinstance(made_likelihood("gaussian"), GaussianLikelihood)
    own = GaussianLikelihood(0.1)
    assert made_likelihood(own) is own
    for options in ({"sigma": 0.0}, {"start": -1.0}):
        with pytest.raises(ValueError, match="> 0, got"):
            GaussianLikelihood(**options)

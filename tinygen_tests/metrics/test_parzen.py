"""The Parzen window: the direct sum, a density that integrates to 1, and the protocol's choice of σ."""

import math

import numpy as np
import pytest
import scipy.stats

import tinygen as tg
from tinygen.metrics import parzen, parzen_log_likelihood

pytestmark = pytest.mark.cpu_only("test_on_a_gpu.py runs there")


def clouds(seed, d=4, n=30, m=17, v=11):
    rng = np.random.default_rng(seed)
    return rng.random((n, d)), rng.random((m, d)), rng.random((v, d))


def direct(samples, test, σ):
    """Goodfellow's formula, with SciPy's Gaussian, one test point at a time."""
    d = samples.shape[1]
    density = [np.mean([scipy.stats.multivariate_normal.pdf(x, s, σ**2 * np.eye(d)) for s in samples]) for x in test]
    return np.log(density)


@pytest.mark.parametrize("σ", [0.1, 0.35, 1.0])
def test_it_is_the_direct_sum(σ, monkeypatch):
    samples, test, _ = clouds(0)
    values = direct(samples, test, σ)
    found = parzen_log_likelihood(samples, test, sigma=σ)
    assert found == pytest.approx((values.mean(), values.std() / math.sqrt(17), σ), rel=1e-10)
    images = tg.tensor(samples.reshape(30, 1, 2, 2)), tg.tensor(test.reshape(17, 1, 2, 2))
    assert parzen_log_likelihood(*images, sigma=σ) == pytest.approx(found, rel=1e-12)
    monkeypatch.setattr(parzen, "CHUNK", 5)
    assert parzen_log_likelihood(samples, test, sigma=σ) == pytest.approx(found, rel=1e-12)


def test_the_density_integrates_to_one():
    samples = np.array([[0.2], [0.9]])
    grid = np.linspace(-3, 4, 7001)[:, None]
    total = sum(math.exp(parzen_log_likelihood(samples, x[None], sigma=0.2).mean) for x in grid[::10]) * 0.01
    assert total == pytest.approx(1, abs=1e-6)


def test_nothing_underflows_where_every_sample_is_far():
    found = parzen_log_likelihood(np.zeros((3, 784)), np.ones((2, 784)), sigma=0.1)
    assert found.mean == pytest.approx(-784 / 0.02 - 392 * math.log(2 * math.pi * 0.01), rel=1e-12)
    assert found.standard_error == 0


def test_sigma_is_the_one_of_ten_under_which_validation_images_are_likeliest():
    samples, test, validation = clouds(1)
    scores = [direct(samples, validation, σ).mean() for σ in parzen.SIGMAS]
    best = parzen.SIGMAS[int(np.argmax(scores))]
    found = parzen_log_likelihood(samples, test, validation)
    assert found.sigma == best
    assert found == pytest.approx(parzen_log_likelihood(samples, test, sigma=best), rel=1e-12)
    np.testing.assert_allclose(parzen.SIGMAS, np.logspace(-1, 0, 10), rtol=1e-12)


def test_test_images_have_no_say_in_sigma():
    """What is tight in validation and wide in the test set keeps the validation's σ."""
    samples = np.random.default_rng(0).random((40, 2))
    found = parzen_log_likelihood(samples, samples * 3, validation=samples)
    assert found.sigma == pytest.approx(0.1)
    assert parzen_log_likelihood(samples, samples, validation=samples * 3).sigma > 0.4
    assert parzen_log_likelihood(samples, samples, samples, sigmas=[0.7]).sigma == 0.7


def test_errors_say_what_is_needed():
    samples, test, validation = clouds(0)
    for given in ({}, {"validation": validation, "sigma": 0.2}):
        with pytest.raises(ValueError, match="either validation images .* or sigma"):
            parzen_log_likelihood(samples, test, **given)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="expected σ > 0"):
            parzen_log_likelihood(samples, test, sigma=bad)
        with pytest.raises(ValueError, match="expected σ > 0"):
            parzen_log_likelihood(samples, test, validation, sigmas=[0.1, bad])
    with pytest.raises(ValueError, match="expected σ > 0"):
        parzen_log_likelihood(samples, test, validation, sigmas=[])
    with pytest.raises(ValueError, match="validation has points of 3 numbers, samples of 4"):
        parzen_log_likelihood(samples, test, validation[:, :3])

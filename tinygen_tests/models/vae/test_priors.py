"""Priors: densities that integrate to 1 and fit their draws, beside PyTorch's, and that they learn where codes are."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen.distributions import Normal
from tinygen.models import DenseVAE, MixturePrior, NormalPrior, VampPrior
from tinygen.models.vae.priors import NormalMixture, StandardNormal
from tinygen_tests.draws import numbers, stream
from tinygen_tests.judge import host, judge, same, torch


def mixture(K=4, D=2):
    weights = tg.log_softmax(tg.tensor(numbers(1, (K,))), 0)
    return NormalMixture(weights, tg.tensor(numbers(2, (K, D))), tg.tensor(numbers(3, (K, D), 0.3, 0.8)))


def test_the_standard_normal_is_the_sum_over_the_code():
    z = tg.tensor(numbers(0, (5, 2, 3)))
    p = StandardNormal(3, z)
    expected = -0.5 * (host(z) ** 2 + math.log(2 * math.pi)).sum(-1)
    np.testing.assert_allclose(host(p.log_prob(z)), expected, rtol=1e-12)
    assert p.sample((4,), stream(0)).shape == (4, 3)


def test_a_mixture_is_pytorchs():
    def theirs(z, a, m, s):
        D = torch.distributions
        parts = D.Independent(D.Normal(m, s), 1)
        return D.MixtureSameFamily(D.Categorical(logits=a), parts).log_prob(z)

    judge(
        lambda z, a, m, s: NormalMixture(tg.log_softmax(a, 0), m, s).log_prob(z),
        theirs,
        numbers(0, (5, 3)),
        numbers(1, (4,)),
        numbers(2, (4, 3)),
        numbers(3, (4, 3), 0.5, 2),
    )


def test_a_mixture_has_all_its_mass_and_draws_where_it_is():
    p = mixture()
    side = np.linspace(-6, 6, 301)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    density = np.exp(host(p.log_prob(tg.tensor(grid))))
    cell = (side[1] - side[0]) ** 2
    assert density.sum() * cell == pytest.approx(1, abs=1e-6)
    mean = (grid * density[:, None]).sum(0) * cell
    square = (grid**2 * density[:, None]).sum(0) * cell
    z = host(p.sample((40_000,), stream(0)))
    np.testing.assert_allclose(z.mean(0), mean, atol=0.03)
    np.testing.assert_allclose((z**2).mean(0), square, rtol=0.03)


@pytest.mark.parametrize("kind", [NormalPrior, MixturePrior])
def test_priors_that_do_not_ask_the_encoder(kind):
    p = kind(3)(None)
    assert p.sample((6,), stream(0)).shape == (6, 3)
    assert p.log_prob(tg.zeros(2, 6, 3)).shape == (2, 6)
    double = kind(3).double()(None).sample((2,), stream(0))
    assert double.dtype == tg.float64


def test_priors_are_pytorchs_with_the_same_numbers():
    """Proves: NormalPrior, MixturePrior."""
    D, z = torch.distributions, numbers(0, (5, 2, 3))
    prior = MixturePrior(3, 4, rng=stream(0)).double()
    with tg.no_grad():
        prior.logits.copy_(tg.tensor(numbers(1, (4,))))
        prior.log_var.copy_(tg.tensor(numbers(2, (4, 3))))
    π, μ, log_var = (torch.from_numpy(host(p).copy()) for p in (prior.logits, prior.loc, prior.log_var))
    mixture = D.MixtureSameFamily(D.Categorical(logits=π), D.Independent(D.Normal(μ, (log_var / 2).exp()), 1))
    same(prior(None).log_prob(tg.tensor(z)), mixture.log_prob(torch.from_numpy(z)))
    normal = D.Independent(D.Normal(torch.zeros(3, dtype=torch.float64), 1.0), 1)
    same(NormalPrior(3).double()(None).log_prob(tg.tensor(z)), normal.log_prob(torch.from_numpy(z)))


def test_the_vamp_prior_is_the_mean_posterior_of_its_images():
    u = tg.rand(3, 1, 2, 2, rng=stream(0), dtype=tg.float64) * 0.9 + 0.05
    prior = VampPrior(u).double()
    np.testing.assert_allclose(host(prior.pseudo_inputs), host(u), rtol=1e-9)
    encode = lambda x: Normal(x.flatten(1)[:, :2], 0.1 + x.flatten(1)[:, 2:])
    z = tg.tensor(numbers(1, (5, 2)))
    each = encode(u).log_prob(z.unsqueeze(1)).sum(-1)
    np.testing.assert_allclose(host(prior(encode).log_prob(z)), host(each.exp().mean(1).log()), rtol=1e-8)
    # Black and white pixels have no finite logit: they begin a hundredth away.
    edge = VampPrior(tg.tensor([[0.0, 1.0]])).pseudo_inputs
    np.testing.assert_allclose(host(edge), [[0.01, 0.99]], rtol=1e-4)


@pytest.mark.parametrize("kind", ["mixture", "vamp"])
def test_a_learned_prior_fits_the_codes_better_than_the_normal(kind):
    x = tg.tensor(tg.data.digits("train").images[:200])
    prior = MixturePrior(4, 20, rng=stream(0)) if kind == "mixture" else VampPrior(x[:20])
    model = DenseVAE((1, 8, 8), (32,), 4, beta=0.2, prior=prior, rng=stream(1))
    adam = tg.optim.Adam(model.parameters(), lr=1e-2)
    rng = stream(2)
    for _ in range(150):
        adam.zero_grad()
        model.training_step(x, rng=rng)["loss"].backward()
        adam.step()
    assert all(p.grad is not None and host(p.grad).any() for p in prior.parameters())
    with tg.no_grad():
        z = model.encode(x).sample((), stream(3))
        learned = model.prior(model.encode).log_prob(z).mean().item()
        normal = StandardNormal(4, z).log_prob(z).mean().item()
    assert learned > normal + 0.3, (learned, normal)
    assert model.sample(5, rng=stream(0)).shape == (5, 1, 8, 8)


def test_what_is_learned_is_saved():
    x = tg.rand(6, 1, 8, 8, rng=stream(0))
    one, other = (DenseVAE((1, 8, 8), (5,), 3, prior=VampPrior(x[k:]), rng=stream(k)) for k in (1, 1))
    with tg.no_grad():
        one.prior.pixels.copy_(one.prior.pixels + 1.0)
    other.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(host(one.sample(4, rng=stream(2))), host(other.sample(4, rng=stream(2))))


def test_errors_name_what_came():
    with pytest.raises(ValueError, match="components ≥ 1, got 0"):
        MixturePrior(3, 0)
    with pytest.raises(ValueError, match=r"expected images \(K, \*image_shape\) to begin with, got \(4,\)"):
        VampPrior(tg.zeros(4))

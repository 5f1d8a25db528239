"""The VAE: its bounds where ln p(x) is known, its loss by hand and beside PyTorch's, and that it learns and draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn
from tinygen.distributions import Normal
from tinygen.models import (
    VAE,
    BernoulliLikelihood,
    ConvVAE,
    DenseVAE,
    GaussianLikelihood,
    MixturePrior,
)
from tinygen_tests.draws import numbers, stream
from tinygen_tests.judge import host

SHAPE = (1, 8, 8)


def images(n, shape=SHAPE, seed=0, dtype=tg.float32):
    return tg.rand(n, *shape, rng=stream(seed), dtype=dtype)


def digits(n=128):
    return tg.tensor(tg.data.digits("train").images[:n])


KINDS = {
    "dense": lambda shape, **options: DenseVAE(shape, widths=(12, 9), latent=5, **options),
    "conv": lambda shape, **options: ConvVAE(shape, widths=(4, 6), latent=5, hidden=7, **options),
}


# ----------------------------------------------------------------- a model of which everything is known
#
# z ~ N(0, I), x|z ~ N(Wz + b, s²I): then x ~ N(b, WWᵀ + s²I), and z|x ~ N(M⁻¹Wᵀ(x − b)/s², M⁻¹), M = I + WᵀW/s².


class LinearEncoder(nn.Module):
    """μ = A x + c and a log σ² that is the same for every x."""

    def __init__(self, A, c, log_var):
        super().__init__()
        self.A, self.c, self.log_var = A, c, log_var

    def forward(self, x):
        μ = x @ self.A.mT + self.c
        return tg.cat([μ, tg.broadcast_to(self.log_var, μ.shape)], 1)


class LinearDecoder(nn.Module):
    """W z + b."""

    def __init__(self, W, b):
        super().__init__()
        self.W, self.b = W, b

    def forward(self, z):
        return z @ self.W.mT + self.b


def linear_gaussian(seed=0, D=6, L=2, s=0.7, exact=False, beta=1.0, k=1, off=0.4):
    """The VAE, and with NumPy ln p(x) and the posterior; with ``exact``, q is the posterior, otherwise it is off it."""
    rng = np.random.default_rng(seed)
    W, _ = np.linalg.qr(rng.standard_normal((D, L)))
    W = W * np.array([1.5, 0.6])  # orthogonal columns: the posterior's covariance is diagonal
    b = rng.standard_normal(D)
    M = np.eye(L) + W.T @ W / s**2
    A = np.linalg.solve(M, W.T) / s**2
    c, log_var = -A @ b, np.log(np.diag(np.linalg.inv(M)))
    if not exact:
        c, log_var = c + off, log_var + off
    t = lambda a: tg.tensor(a)
    model = VAE(
        LinearEncoder(t(A), t(c), t(log_var)),
        LinearDecoder(t(W), t(b)),
        (D,),
        L,
        GaussianLikelihood(s, squash=False),
        beta,
        k,
    ).double()
    x = rng.standard_normal((7, D)) * 1.5 + b
    C = W @ W.T + s**2 * np.eye(D)
    difference = x - b
    mahalanobis = (difference * np.linalg.solve(C, difference.T).T).sum(1)
    log_p = -0.5 * (mahalanobis + np.linalg.slogdet(C)[1] + D * math.log(2 * math.pi))
    posterior = Normal(t((x - b) @ A.T), t(np.sqrt(np.diag(np.linalg.inv(M)))))
    return model, t(x), log_p, posterior


def test_with_the_posterior_for_q_every_bound_is_the_likelihood_itself():
    model, x, log_p, _ = linear_gaussian(exact=True)
    for k in (1, 5, 50):
        np.testing.assert_allclose(host(model.iwae(x, k=k, rng=stream(k))), log_p, rtol=1e-6)
    np.testing.assert_allclose(host(model.log_likelihood(x, 3, rng=stream(0))), log_p, rtol=1e-6)
    reconstruction, kl = model.elbo(x, k=4000, rng=stream(1))
    np.testing.assert_allclose(-host(reconstruction + kl), log_p, atol=0.25)


def test_likelihood_less_elbo_is_the_divergence_from_the_posterior():
    """ln p(x) − ELBO(x) = KL(q ‖ posterior) ≥ 0, for each image, to within five standard errors."""
    model, x, log_p, posterior = linear_gaussian()
    gap = host(tg.distributions.kl_divergence(model.encode(x), posterior).sum(1))
    assert (gap > 0.1).all()
    n, rng = 400, stream(2)
    found = np.array([host(-sum(model.elbo(x, k=20, rng=rng))) for _ in range(n)])
    error = 5 * found.std(0) / math.sqrt(n)
    assert (error < 0.15).all()
    assert (np.abs(log_p - found.mean(0) - gap) < error).all()


def test_more_draws_make_a_tighter_bound():
    """L_1 ≤ L_5 ≤ L_50 ≤ ln p(x) in expectation, each step by more than its standard error."""
    model, x, log_p, _ = linear_gaussian(off=0.7)
    mean, error = {}, {}
    for k, n in ((1, 4000), (5, 2000), (50, 500)):
        rng = stream(k)
        each = np.array([host(model.iwae(x, k=k, rng=rng)).mean() for _ in range(n // 10)])
        mean[k], error[k] = each.mean(), each.std() / math.sqrt(len(each))
    assert mean[1] + 3 * error[1] < mean[5] - 3 * error[5]
    assert mean[5] + 3 * error[5] < mean[50] - 3 * error[50]
    assert mean[50] < log_p.mean() + 3 * error[50]
    estimate = host(model.log_likelihood(x, 20_000, rng=stream(9)))
    np.testing.assert_allclose(estimate, log_p, atol=0.1)


def test_a_learned_linear_model_comes_to_the_posterior_and_the_likelihood():
    """Trained by the ELBO alone, q meets the posterior: the bound closes."""
    model, x, log_p, posterior = linear_gaussian(off=0.5)
    encoder = model.encoder
    encoder.c, encoder.log_var = nn.Parameter(encoder.c), nn.Parameter(encoder.log_var)
    adam = tg.optim.Adam(encoder.parameters(), lr=0.02)
    rng = stream(0)
    for _ in range(500):
        adam.zero_grad()
        reconstruction, kl = model.elbo(x, k=20, rng=rng)
        (reconstruction + kl).mean().backward()
        adam.step()
    q = model.encode(x)
    np.testing.assert_allclose(host(q.mean), host(posterior.mean), atol=0.05)
    np.testing.assert_allclose(host(q.stddev)[0], host(posterior.stddev)[0], rtol=0.05)


def test_the_chunks_of_the_likelihood_are_all_counted(monkeypatch):
    """With the posterior for q all weights are p(x) itself, so that one that is missing would show."""
    from tinygen.models.vae import vae

    model, x, log_p, _ = linear_gaussian(exact=True)
    for at_once in (8192, 7 * 30, 1):  # 1 chunk, 4 of which the last is smaller, 100
        monkeypatch.setattr(vae, "_AT_ONCE", at_once)
        np.testing.assert_allclose(host(model.log_likelihood(x, 100, rng=stream(3))), log_p, rtol=1e-6)


# ------------------------------------------------------------------------------- the loss, written by hand


class Constant(nn.Module):
    """A network that says the same of everything."""

    def __init__(self, says):
        super().__init__()
        self.says = says

    def forward(self, x, y=None):
        return tg.broadcast_to(self.says, (x.shape[0], *self.says.shape))


def test_sigma_is_the_square_root_of_the_variance():
    """Where others had exp(log σ²) for σ: with log σ² = ln 4, σ = 2.

    Proves: VAE.encode.
    """
    model = VAE(Constant(tg.tensor([0.5, math.log(4.0)])), Constant(tg.zeros(*SHAPE)), SHAPE, 1)
    q = model.encode(images(3))
    np.testing.assert_allclose(host(q.mean), 0.5)
    np.testing.assert_allclose(host(q.stddev), 2, rtol=1e-6)
    kl = model.training_step(images(3), rng=stream(0))["kl"].item()
    assert kl == pytest.approx(0.5 * (0.25 + 4 - 1 - math.log(4)), rel=1e-5)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_both_parts_are_summed_over_pixels_and_code_and_averaged_over_images(likelihood):
    """Not over pixels: where that was done, the divergence was hundreds of times too weak.

    Proves: VAE.
    """
    a, log_var = numbers(1, SHAPE), numbers(2, (5,))
    μ = numbers(3, (5,))
    p_x = BernoulliLikelihood() if likelihood == "bernoulli" else GaussianLikelihood(0.3)
    says = tg.tensor(np.concatenate([μ, log_var]))
    model = VAE(Constant(says), Constant(tg.tensor(a)), SHAPE, 5, p_x, beta=0.7).double()
    x = images(6, dtype=tg.float64)
    found = {name: value.item() for name, value in model.training_step(x, rng=stream(0)).items()}
    mean, t = 1 / (1 + np.exp(-a)), host(x)
    if likelihood == "bernoulli":
        each = -(t * np.log(mean) + (1 - t) * np.log(1 - mean))
    else:
        each = (t - mean) ** 2 / (2 * 0.3**2) + np.log(0.3) + 0.5 * np.log(2 * np.pi)
    reconstruction = each.sum((1, 2, 3)).mean()
    kl = 0.5 * (μ**2 + np.exp(log_var) - 1 - log_var).sum()
    assert found["reconstruction"] == pytest.approx(reconstruction, rel=1e-7)
    assert found["kl"] == pytest.approx(kl, rel=1e-9)
    assert found["loss"] == pytest.approx(reconstruction + 0.7 * kl, rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_divergence_is_what_its_draws_say(kind):
    model = KINDS[kind](SHAPE, rng=stream(1)).double()
    x = images(2, dtype=tg.float64)
    drawn = model._draw(x, None, 20_000, stream(2), weights=True)
    each = host(drawn.log_qz - drawn.log_pz)
    assert (np.abs(each.mean(0) - host(drawn.kl)) < 5 * each.std(0) / math.sqrt(20_000)).all()


def test_one_draw_of_the_importance_weighted_bound_is_the_elbo_of_that_draw():
    model = KINDS["dense"](SHAPE, prior=MixturePrior(5, 3, rng=stream(4)), rng=stream(1)).double()
    x = images(4, dtype=tg.float64)
    reconstruction, kl = model.elbo(x, rng=stream(7))
    np.testing.assert_allclose(host(model.iwae(x, k=1, rng=stream(7))), -host(reconstruction + kl), rtol=1e-10)


def test_beta_weighs_the_divergence_and_can_change():
    model = KINDS["dense"](SHAPE, rng=stream(0))
    for β in (0.0, 0.2, 4.0):
        model.beta = β
        terms = {name: value.item() for name, value in model.training_step(images(5), rng=stream(1)).items()}
        assert terms["loss"] == pytest.approx(terms["reconstruction"] + β * terms["kl"], rel=1e-6)
    for value in model.training_step(images(5)).values():
        assert value.shape == () and value.dtype == tg.float32
    terms = model.training_step(images(5))
    assert [name for name, value in terms.items() if value.requires_grad] == ["loss"]


def test_the_draw_moves_with_mean_and_spread():
    """A gradient reaches μ through z, and log σ² through ε: the numerical derivative of the loss, ε held still."""
    model = KINDS["dense"](SHAPE, rng=stream(0)).double()
    x = images(3, dtype=tg.float64)
    model.training_step(x, rng=stream(5))["loss"].backward()
    last = model.encoder.layers[-1]
    for i in (1, 7):  # a mean, and a log-variance
        found = last.bias.grad[i].item()
        h, values = 1e-5, []
        for sign in (1, -1):
            with tg.no_grad():
                last.bias[i] = last.bias[i] + sign * h
                values.append(model.training_step(x, rng=stream(5))["loss"].item())
                last.bias[i] = last.bias[i] - sign * h
        assert found == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


# ------------------------------------------------------------------------------------- shapes, sampling


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 9, 7), (2, 5, 12)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_every_size_comes_back_in_its_own_shape(kind, shape, likelihood):
    model = KINDS[kind](shape, likelihood=likelihood, rng=stream(0))
    x = images(3, shape)
    assert model.encode(x).batch_shape == (3, 5)
    for y in (model(x), model.sample(3, rng=stream(0))):
        assert y.shape == x.shape and y.dtype == tg.float32
        assert ((y > 0) & (y < 1)).all()
    assert not model.sample(3).requires_grad
    loss = model.training_step(x, rng=stream(0))["loss"]
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == tg.float32 for p in model.parameters())


def test_samples_are_decoded_from_the_prior_and_are_the_same_again():
    """Proves: VAE.sample."""
    model = KINDS["dense"](SHAPE, rng=stream(0))
    drawn = model.sample(6, rng=stream(3))
    expected = model.decode(tg.randn(6, 5, rng=stream(3)))
    np.testing.assert_array_equal(host(drawn), host(expected))
    fresh = KINDS["dense"](SHAPE, rng=stream(9))
    fresh.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(host(fresh.sample(6, rng=stream(3))), host(drawn))


@pytest.mark.parametrize("kind", KINDS)
def test_a_conditional_model_draws_what_it_is_asked_for(kind):
    model = KINDS[kind](SHAPE, classes=3, rng=stream(0))
    x, y = images(4), tg.tensor([0, 2, 1, 1])
    assert model(x, y).shape == x.shape
    assert model.sample(4, y, stream(0)).shape == x.shape
    np.testing.assert_array_equal(
        host(model.sample(4, 2, stream(0))), host(model.sample(4, tg.tensor([2] * 4), stream(0)))
    )
    assert not np.array_equal(host(model.sample(4, 2, stream(0))), host(model.sample(4, 1, stream(0))))
    assert model.sample(50, rng=stream(0)).shape == (50, *SHAPE)
    assert model.log_likelihood(x, 3, y, stream(0)).shape == model.iwae(x, y, 3).shape == (4,)
    assert model.path(x[0], x[1], 4, y=1)[0].shape == (4, *SHAPE)
    # With several draws each keeps its own image and class.
    reconstruction, _ = model.elbo(x, y, k=2000, rng=stream(1))
    alone = [model.elbo(x[i : i + 1], y[i : i + 1], k=2000, rng=stream(i))[0].item() for i in range(4)]
    np.testing.assert_allclose(host(reconstruction), alone, rtol=0.01)


def test_several_draws_keep_their_images_apart():
    """(k, N) and (N, k) are not to be mixed up: bright and dark images have unlike likelihoods."""
    model = KINDS["dense"](SHAPE, rng=stream(0)).double()
    x = tg.stack([tg.zeros(*SHAPE, dtype=tg.float64), tg.ones(*SHAPE, dtype=tg.float64)])
    with tg.no_grad():
        model.decoder.layers[-1].bias.copy_(tg.full((64,), -3.0, dtype=tg.float64))
    for found in (-host(model.elbo(x, k=50, rng=stream(0))[0]), host(model.iwae(x, k=50, rng=stream(0)))):
        assert found[0] > found[1] + 50


def test_a_path_begins_and_ends_at_the_two_reconstructions():
    model = KINDS["conv"](SHAPE, rng=stream(0))
    a, b = images(2)
    frames, distances = model.path(a, b, steps=6)
    ends = model(tg.stack([a, b])).detach()
    np.testing.assert_allclose(host(frames)[[0, -1]], host(ends), rtol=1e-5)
    steps = np.diff(host(frames).reshape(6, -1), axis=0)
    np.testing.assert_allclose(host(distances), np.linalg.norm(steps, axis=1), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_is_straight_from_code_to_code(kind):
    """Proves: VAE.path."""
    model = KINDS[kind](SHAPE, rng=stream(0)).double()
    a, b = images(2, dtype=tg.float64)
    μ_a, μ_b = (host(model.encode(x.unsqueeze(0)).mean) for x in (a, b))
    z = np.concatenate([(1 - j / 4) * μ_a + j / 4 * μ_b for j in range(5)])
    logits = host(model.decoder(tg.tensor(z))).reshape(5, *SHAPE)
    frames, distances = model.path(a, b, steps=5)
    np.testing.assert_allclose(host(frames), 1 / (1 + np.exp(-logits)), rtol=1e-10)
    between = np.sqrt((np.diff(host(frames), axis=0) ** 2).sum((1, 2, 3)))
    np.testing.assert_allclose(host(distances), between, rtol=1e-10)


@pytest.mark.parametrize("squash", [True, False])
def test_a_code_is_decoded_to_the_mean_of_its_pixels(squash):
    """W z + b itself under a Gaussian that does not squash it, else its sigmoid; the same by a Bernoulli's.

    Proves: VAE.decode.
    """
    W, b, z = numbers(1, (6, 2)), numbers(2, (6,)), numbers(3, (4, 2))
    a = z @ W.T + b
    p_x = [GaussianLikelihood(0.7, squash=squash), *([BernoulliLikelihood()] if squash else [])]
    for likelihood in p_x:
        model = VAE(Constant(tg.zeros(4)), LinearDecoder(tg.tensor(W), tg.tensor(b)), (6,), 2, likelihood)
        found = host(model.decode(tg.tensor(z)))
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-a)) if squash else a, rtol=1e-12)


def test_active_units_are_those_whose_mean_moves():
    """Code 0 says nothing (a variance of 0 over the images), 1 very little, 2 a great deal."""

    class Says(nn.Module):
        def forward(self, x):
            ink = x.flatten(1).mean(1, keepdim=True)
            return tg.cat([0 * ink + 3, 0.1 * ink, 10 * ink, tg.broadcast_to(0 * ink, (x.shape[0], 3))], 1)

    model = VAE(Says(), Constant(tg.zeros(*SHAPE)), SHAPE, 3)
    x = images(40) * tg.linspace(0, 1, 40).reshape(-1, 1, 1, 1)
    ink = host(x).reshape(40, -1).mean(1)
    np.testing.assert_allclose(host(model.activity(x)), np.array([0, 0.01, 100]) * ink.var(), rtol=1e-4, atol=1e-10)
    assert model.active_units(x) == 1
    assert model.active_units(x, threshold=1e-5) == 2


def test_reconstruction_error_is_one_number_an_image():
    model = KINDS["conv"](SHAPE, rng=stream(0))
    x = images(4)
    expected = ((host(model(x).detach()) - host(x)) ** 2).reshape(4, -1).mean(1)
    np.testing.assert_allclose(host(model.reconstruction_error(x)), expected, rtol=1e-5)


# ------------------------------------------------------------------------------------------- it learns


def trained(model, x, y=None, steps=250, lr=3e-3):
    adam = tg.optim.Adam(model.parameters(), lr=lr)
    rng = stream(1)
    for _ in range(steps):
        adam.zero_grad()
        model.training_step(x, y, rng)["loss"].backward()
        adam.step()
    return model


@pytest.mark.parametrize("kind, options", [
    ("dense", {}), ("conv", {}), ("dense", {"k": 5}), ("dense", {"likelihood": "gaussian"}),
])
def test_it_learns_a_bound_that_no_code_could_reach(kind, options):
    x = digits()
    bounds = []
    for blind in (False, True):
        widths = {"dense": (64,), "conv": (8, 16)}[kind]
        model = {"dense": DenseVAE, "conv": ConvVAE}[kind](SHAPE, widths, latent=5, rng=stream(1), **options)
        if blind:  # the best that can be said of a digit without having seen it
            model.encoder = Constant(tg.zeros(10))
        trained(model, x, steps=200, lr=5e-3)
        bounds.append(model.log_likelihood(x, 20, rng=stream(2)).mean().item())
    assert bounds[0] > bounds[1] + 0.3, bounds


def test_a_learned_sigma_finds_the_error_that_is_left():
    x = digits()
    model = trained(KINDS["dense"](SHAPE, likelihood="gaussian", rng=stream(0)), x, steps=600, lr=1e-2)
    with tg.no_grad():
        z = model.encode(x).sample((), stream(3))
        error = (model.decode(z) - x).square().mean().item()
    assert model.p_x.sigma.item() ** 2 == pytest.approx(error, rel=0.15)


def test_a_class_that_is_told_need_not_be_in_the_code():
    """Ten pictures, one for each class: the divergence of the conditional model goes to nothing."""
    data = tg.data.digits("train")
    first = [int(np.flatnonzero(data.labels == d)[0]) for d in range(10)]
    x, y = tg.tensor(data.images[first]), tg.tensor(data.labels[first])
    model = trained(KINDS["dense"](SHAPE, classes=10, rng=stream(0)), x, y, steps=1200, lr=1e-2)
    assert model.training_step(x, y, stream(0))["kl"].item() < 0.5
    seven = model.sample(8, 7, stream(0))
    distance = ((host(seven)[:, None] - host(x)[None]) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == 7).all()


# ---------------------------------------------------------------------------------------------- errors


def test_errors_name_what_came():
    model = KINDS["conv"](SHAPE)
    with pytest.raises(ValueError, match=r"ConvVAE: expected images of shape \(N, 1, 8, 8\), got \(2, 1, 28, 28\)"):
        model(tg.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match=r"expected images of shape \(N, 1, 8, 8\), got \(1, 8, 8\)"):
        model.encode(tg.zeros(1, 8, 8))
    with pytest.raises(ValueError, match=r"expected codes of shape \(N, 5\), got \(2, 4\)"):
        model.decode(tg.zeros(2, 4))
    with pytest.raises(ValueError, match="y was given, but the model is not conditional"):
        model.training_step(images(2), tg.tensor([0, 1]))
    with pytest.raises(ValueError, match="y was given, but the model is not conditional"):
        model.sample(2, 7)
    for call in (lambda: model.path(*images(2), steps=1), lambda: model.log_likelihood(images(2), 0)):
        with pytest.raises(ValueError, match="≥"):
            call()
    with pytest.raises(ValueError, match="at least one draw, got k=0"):
        model.elbo(images(2), k=0)
    told = KINDS["dense"](SHAPE, classes=3)
    with pytest.raises(ValueError, match="y is missing: this model is conditional on one of 3 classes"):
        told.training_step(images(2))
    with pytest.raises(ValueError, match=r"expected a class y in 0..2, got 3"):
        told.sample(2, 3)
    with pytest.raises(ValueError, match=r"expected y of shape \(2,\), a class for each image, got \(3,\)"):
        told(images(2), tg.tensor([0, 1, 2]))
    for options in ({"latent": 0}, {"k": 0}, {"beta": -1}, {"classes": 0}):
        with pytest.raises(ValueError, match=r"expected.*(latent|positive)"):
            DenseVAE(SHAPE, **options)
    with pytest.raises(ValueError, match="beta=0.5 does not go with k=5"):
        DenseVAE(SHAPE, k=5, beta=0.5)
    with pytest.raises(ValueError, match="prior: a conditional model"):
        DenseVAE(SHAPE, classes=10, prior=MixturePrior(16))
    with pytest.raises(ValueError, match="likelihood to be one of bernoulli, gaussian, or a module, got 'poisson'"):
        DenseVAE(SHAPE, likelihood="poisson")

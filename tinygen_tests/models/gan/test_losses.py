"""Adversarial losses: their formulas, their optima on discrete distributions, their slopes, and extreme outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

import tinygen as tg
from tinygen.models.gan import (
    LOSSES,
    AdversarialLoss,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Wasserstein,
    adversarial_loss,
    jensen_shannon,
    optimal_discriminator,
)
from tinygen_tests.draws import examples, numbers, seeds
from tinygen_tests.judge import host, judge, torch

σ = lambda a: 1 / (1 + np.exp(-a))

FORMULAS = {  # f, g, h of the module's table, written anew
    "minimax": (lambda a: -np.log(σ(a)), lambda a: -np.log(1 - σ(a)), lambda a: np.log(1 - σ(a))),
    "non-saturating": (lambda a: -np.log(σ(a)), lambda a: -np.log(1 - σ(a)), lambda a: -np.log(σ(a))),
    "least-squares": (lambda a: (a - 1) ** 2 / 2, lambda a: a**2 / 2, lambda a: (a - 1) ** 2 / 2),
    "hinge": (lambda a: np.maximum(0, 1 - a), lambda a: np.maximum(0, 1 + a), lambda a: -a),
    "wasserstein": (lambda a: -a, lambda a: a, lambda a: -a),
}


def f64(values) -> tg.Tensor:
    return tg.tensor(np.asarray(values, dtype=np.float64))


def densities(seed: int, k: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Two distributions over k outcomes, some of which one or both of them never give."""
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(k)), rng.dirichlet(np.ones(k))
    p[0] = q[1] = p[2] = q[2] = 0
    return p / p.sum(), q / q.sum()


def test_there_is_a_formula_for_every_loss():
    assert set(FORMULAS) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds)
@examples(20)
def test_both_sides_are_their_formulas(name, seed):
    """Proves: Minimax, Minimax.discriminator, Minimax.generator, Minimax.score, NonSaturating,
    NonSaturating.generator, LeastSquares, LeastSquares.discriminator, LeastSquares.generator, Hinge,
    Hinge.discriminator, Hinge.generator, Wasserstein, Wasserstein.discriminator, Wasserstein.generator.
    """
    f, g, h = FORMULAS[name]
    loss = adversarial_loss(name)
    real, fake = numbers(seed, 6, -4, 4), numbers(seed + 1, 9, -4, 4)
    assert host(loss.discriminator(f64(real), f64(fake))) == pytest.approx(f(real).mean() + g(fake).mean(), rel=1e-12)
    assert host(loss.generator(f64(fake))) == pytest.approx(h(fake).mean(), rel=1e-12)
    probability = isinstance(loss, Minimax)
    np.testing.assert_allclose(host(loss.score(f64(real))), σ(real) if probability else real, rtol=1e-12)


THEIRS = {
    "minimax": (
        lambda F, a, b: F.binary_cross_entropy_with_logits(a, torch.ones_like(a))
        + F.binary_cross_entropy_with_logits(b, torch.zeros_like(b)),
        lambda F, b: -F.binary_cross_entropy_with_logits(b, torch.zeros_like(b)),
    ),
    "non-saturating": (
        lambda F, a, b: F.binary_cross_entropy_with_logits(a, torch.ones_like(a))
        + F.binary_cross_entropy_with_logits(b, torch.zeros_like(b)),
        lambda F, b: F.binary_cross_entropy_with_logits(b, torch.ones_like(b)),
    ),
    "least-squares": (
        lambda F, a, b: (F.mse_loss(a, torch.ones_like(a)) + F.mse_loss(b, torch.zeros_like(b))) / 2,
        lambda F, b: F.mse_loss(b, torch.ones_like(b)) / 2,
    ),
    "hinge": (lambda F, a, b: F.relu(1 - a).mean() + F.relu(1 + b).mean(), lambda F, b: -b.mean()),
    "wasserstein": (lambda F, a, b: b.mean() - a.mean(), lambda F, b: -b.mean()),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(5,), (4, 1), (2, 3, 2)])
def test_pytorch_agrees_to_the_second_order(name, shape):
    loss, (d, g) = adversarial_loss(name), THEIRS[name]
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=shape) * 2, rng.normal(size=shape) * 2
    F = torch.nn.functional
    judge(loss.discriminator, lambda x, y: d(F, x, y), a, b)
    judge(loss.generator, lambda y: g(F, y), b)


# --------------------------------------------------------------------------- the optimum, outcome by outcome


def split(loss: AdversarialLoss) -> tuple:
    """f and g up to the constant that moves between them; p and q sum to 1, so the sum is unchanged."""
    zero = float(host(loss.discriminator(f64([0.0]), f64([0.0]))))
    f = lambda a: float(host(loss.discriminator(f64([a]), f64([0.0])))) - zero / 2
    g = lambda b: float(host(loss.discriminator(f64([0.0]), f64([b])))) - zero / 2
    return f, g


@pytest.mark.parametrize("name", ["minimax", "non-saturating", "least-squares", "hinge"])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_discriminator_of_the_table_is_the_best(name, seed):
    p, q = densities(seed)
    f, g = split(adversarial_loss(name))
    grid = np.linspace(-12, 12, 2401)
    F, G = np.array([f(a) for a in grid]), np.array([g(a) for a in grid])
    # an outcome that neither gives costs nothing, whatever D says
    table = p[:, None] * F + q[:, None] * G
    least = table.min(1).sum()
    D = host(optimal_discriminator(f64(p), f64(q)))
    if name == "hinge":
        expected = 2 * np.minimum(p, q).sum()
        a = np.sign(p - q)
    elif name == "least-squares":
        both = np.where(p + q > 0, p + q, 1)
        expected, a = 0.5 * (p * q / both).sum(), D
    else:
        expected = math.log(4) - 2 * float(host(jensen_shannon(f64(p), f64(q))))
        with np.errstate(divide="ignore"):
            a = np.clip(np.log(D) - np.log1p(-D), -40, 40)
    at_best = sum(p_k * f(a_k) + q_k * g(a_k) for p_k, q_k, a_k in zip(p, q, a))
    assert at_best == pytest.approx(expected, abs=1e-9)
    assert least == pytest.approx(expected, abs=2e-4)
    assert least >= expected - 1e-9


def test_at_equilibrium_the_losses_have_their_known_values():
    """D = ½ everywhere: L_D = 1.386, L_G = 0.693."""
    a = tg.zeros(4, dtype=tg.float64)
    for loss in (Minimax(), NonSaturating()):
        assert host(loss.discriminator(a, a)) == pytest.approx(2 * math.log(2))
        assert host(loss.score(a)) == pytest.approx(0.5)
    assert host(NonSaturating().generator(a)) == pytest.approx(math.log(2))
    assert host(Minimax().generator(a)) == pytest.approx(-math.log(2))
    half = tg.full((4,), 0.5, dtype=tg.float64)
    assert host(LeastSquares().discriminator(half, half)) == pytest.approx(0.25)
    assert host(Hinge().discriminator(a, a)) == pytest.approx(2)
    assert host(Wasserstein().discriminator(a, a)) == 0


def slope(loss: AdversarialLoss, a: float) -> float:
    x = f64([a]).requires_grad_()
    loss.generator(x).backward()
    return float(host(x.grad)[0])


def test_minimax_saturates_where_d_is_sure_of_a_fake_and_the_other_does_not():
    assert abs(slope(Minimax(), -10.0)) < 1e-4
    assert slope(NonSaturating(), -10.0) == pytest.approx(-1, abs=1e-4)
    for a in (-3.0, 0.0, 2.0):
        assert slope(Minimax(), a) == pytest.approx(-σ(a))
        assert slope(NonSaturating(), a) == pytest.approx(-(1 - σ(a)))
        assert slope(Minimax(), a) < 0 and slope(NonSaturating(), a) < 0, "both want a larger a"


@pytest.mark.parametrize("name", LOSSES)
def test_the_generator_wants_larger_outputs_and_the_discriminator_wants_them_apart(name):
    loss = adversarial_loss(name)
    real, fake = f64([0.2, -0.3]).requires_grad_(), f64([0.1, 0.4, -0.2]).requires_grad_()
    loss.generator(fake).backward()
    assert (host(fake.grad) < 0).all()
    fake.grad = None
    loss.discriminator(real, fake).backward()
    assert (host(real.grad) < 0).all()
    want_smaller = host(fake.grad) > 0
    assert want_smaller[:2].all() and (want_smaller[2] or name == "least-squares"), "toward 0 in least squares"


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [tg.float32, tg.float64])
def test_huge_outputs_give_finite_losses_and_gradients_of_the_same_dtype(name, dtype):
    loss = adversarial_loss(name)
    a = tg.tensor([-500.0, 500.0, 0.0], dtype=dtype).requires_grad_()
    b = tg.tensor([500.0, -500.0, 0.0], dtype=dtype).requires_grad_()
    total = loss.discriminator(a, b) + loss.generator(b)
    total.backward()
    assert total.dtype == dtype and np.isfinite(host(total))
    assert np.isfinite(host(a.grad)).all() and np.isfinite(host(b.grad)).all()
    assert loss.score(a).dtype == dtype


def test_a_loss_by_name_and_one_of_ones_own():
    assert isinstance(adversarial_loss("hinge"), Hinge)
    own = Hinge()
    assert adversarial_loss(own) is own
    with pytest.raises(ValueError, match="no adversarial loss 'vanilla'; there are minimax, non-saturating"):
        adversarial_loss("vanilla")
    with pytest.raises(TypeError, match="got type"):
        adversarial_loss(Hinge)
    with pytest.raises(NotImplementedError, match="AdversarialLoss defines no generator"):
        AdversarialLoss().generator(f64([0.0]))
    with pytest.raises(NotImplementedError, match="AdversarialLoss defines no discriminator"):
        AdversarialLoss().discriminator(f64([0.0]), f64([0.0]))
    assert repr(own) == "Hinge()"

"""Distributions beside torch.distributions, their identities, and both ways to differentiate an expectation."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen import distributions
from tinygen.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Normal,
    kl_divergence,
    pathwise_expectation,
    score_function_expectation,
)
from tinygen.testing import check_grad
from tinygen_tests.draws import numbers, stream
from tinygen_tests.judge import host, judge, same, torch


def theirs(name):
    return getattr(torch.distributions, name)


SHAPES = [((), (), ()), ((3,), (3,), (3,)), ((2, 3), (3,), (2, 1)), ((4, 1), (1, 3), (2, 1, 1)), ((0, 3), (3,), (3,))]


# ------------------------------------------------------------------------ density, entropy, moments: PyTorch


@pytest.mark.parametrize("loc, scale, value", SHAPES)
def test_normal_is_pytorchs(loc, scale, value):
    """Proves: Normal, Normal.mean, Normal.variance, Normal.log_prob, Normal.entropy."""
    μ, σ, z = numbers(1, loc), numbers(2, scale, 0.3, 2), numbers(3, value)
    judge(lambda m, s, x: Normal(m, s).log_prob(x), lambda m, s, x: theirs("Normal")(m, s).log_prob(x), μ, σ, z)
    for name in ("mean", "stddev", "variance"):
        a = getattr(Normal(tg.tensor(μ), tg.tensor(σ)), name)
        same(a, getattr(theirs("Normal")(torch.tensor(μ), torch.tensor(σ)), name), what=name)
    judge(lambda m, s: Normal(m, s).entropy() + 0 * m, lambda m, s: theirs("Normal")(m, s).entropy() + 0 * m, μ, σ)


@pytest.mark.parametrize("shape, value", [((), ()), ((3,), (2, 3)), ((2, 1), (1, 3)), ((0,), (0,))])
def test_bernoulli_is_pytorchs(shape, value):
    """Proves: Bernoulli, Bernoulli.probs, Bernoulli.mean, Bernoulli.log_prob, Bernoulli.entropy."""
    a, x = 3 * numbers(1, shape), np.round(numbers(2, value, 0, 1))
    x = tg.tensor(x), torch.tensor(x)
    judge(
        lambda a: Bernoulli(logits=a).log_prob(x[0]),
        lambda a: theirs("Bernoulli")(logits=a).log_prob(x[1]),
        a,
        manners=False,
    )
    judge(lambda a: Bernoulli(logits=a).entropy(), lambda a: theirs("Bernoulli")(logits=a).entropy(), a)
    p = numbers(3, shape, 0.05, 0.95)
    judge(
        lambda p: Bernoulli(p).log_prob(x[0]),
        lambda p: theirs("Bernoulli")(p).log_prob(x[1]),
        p,
        manners=False,
    )
    for name in ("mean", "variance", "probs", "logits"):
        same(getattr(Bernoulli(tg.tensor(p)), name), getattr(theirs("Bernoulli")(torch.tensor(p)), name), what=name)
    for edge in (0.0, 1.0):
        ours, other = Bernoulli(tg.tensor([edge])), theirs("Bernoulli")(torch.tensor([edge]))
        same(ours.log_prob(tg.tensor([1.0])), other.log_prob(torch.tensor([1.0])), 1e-6)


@pytest.mark.parametrize("batch, value", [((), ()), ((3,), (3,)), ((2, 1), (4, 1, 3)), ((2, 3), (3,))])
def test_categorical_is_pytorchs(batch, value):
    """Proves: Categorical, Categorical.log_prob, Categorical.entropy."""
    C = 5
    a = numbers(1, (*batch, C))
    x = np.random.default_rng(2).integers(0, C, value)
    log_prob = lambda a, x: Categorical(logits=a).log_prob(x)
    judge(log_prob, lambda a, x: theirs("Categorical")(logits=a).log_prob(x), a, x)
    judge(lambda a: Categorical(logits=a).entropy(), lambda a: theirs("Categorical")(logits=a).entropy(), a)
    w = numbers(3, (*batch, C), 0.1, 3)
    judge(lambda w, x: Categorical(w).log_prob(x), lambda w, x: theirs("Categorical")(w).log_prob(x), w, x)
    same(Categorical(tg.tensor(w)).probs, theirs("Categorical")(torch.tensor(w)).probs)
    for name in ("mean", "variance"):
        same(getattr(Categorical(tg.tensor(w)), name), getattr(theirs("Categorical")(torch.tensor(w)), name))


def test_an_impossible_class_costs_no_entropy_and_no_divergence():
    p, q = [0.5, 0.5, 0.0], [0.25, 0.5, 0.25]
    a, b = tg.tensor([0.0, 0.0, -math.inf]), torch.tensor([0.0, 0.0, -math.inf])
    assert Categorical(logits=a).entropy().item() == pytest.approx(math.log(2))
    same(Categorical(logits=a).entropy(), theirs("Categorical")(logits=b).entropy(), 1e-6)
    found = kl_divergence(Categorical(tg.tensor(p)), Categorical(tg.tensor(q))).item()
    assert found == pytest.approx(0.5 * math.log(2), rel=1e-6)


PAIRS = {
    "Normal": lambda lib, a, b, c, d: (lib.Normal(a, b.exp()), lib.Normal(c, d.exp())),
    "Bernoulli": lambda lib, a, b, c, d: (lib.Bernoulli(logits=a + b), lib.Bernoulli(logits=c + d)),
    "Categorical": lambda lib, a, b, c, d: (lib.Categorical(logits=a + b), lib.Categorical(logits=c + d)),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("one, other", [((2, 3), (2, 3)), ((3,), (2, 3)), ((3, 1, 4), (1, 2, 4)), ((2, 1), (2, 1))])
def test_divergences_are_pytorchs(kind, one, other):
    if kind != "Normal":  # PyTorch writes into one of the two with a mask of the other: it broadcasts for Normal only
        other = one = np.broadcast_shapes(one, other)
    judge(
        lambda *x: kl_divergence(*PAIRS[kind](distributions, *x)),
        lambda *x: torch.distributions.kl_divergence(*PAIRS[kind](torch.distributions, *x)),
        *(numbers(k, shape, -1, 1) for k, shape in enumerate((one, one, other, other))),
    )


@pytest.mark.cpu_only("torch's numbers of float32")
def test_float32_stays_and_numbers_become_the_default():
    σ = tg.tensor([0.5, 2.0])
    for d in (Normal(0.0, σ), Bernoulli(tg.tensor([0.2, 0.7])), Categorical(tg.tensor([[0.2, 0.8]]))):
        whole = isinstance(d, Categorical)
        x = d.sample((4,), stream(0))
        assert x.dtype == (tg.int64 if whole else tg.float32)
        for value in (d.log_prob(x), d.entropy(), d.mean, d.variance, d.stddev):
            assert value.dtype == tg.float32
        assert kl_divergence(d, d).dtype == tg.float32
    assert Normal(0, 1).sample(rng=stream(0)).shape == ()
    assert Normal(0, 1).loc.dtype == tg.float32


# ------------------------------------------------------------------------------------------- identities


def drawn(d, n, seed=0):
    return d.sample((n,), stream(seed))


FAMILIES = {
    "Normal": lambda: (
        Normal(tg.tensor([0.3, -1.0]), tg.tensor([0.5, 2.0])),
        Normal(tg.tensor([0.0, 0.5]), tg.tensor([1.0, 1.5])),
    ),
    "Bernoulli": lambda: (Bernoulli(tg.tensor([0.2, 0.9])), Bernoulli(tg.tensor([0.5, 0.6]))),
    "Categorical": lambda: (
        Categorical(tg.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])),
        Categorical(tg.tensor([[0.3, 0.3, 0.4], [0.4, 0.3, 0.3]])),
    ),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_divergence_and_entropy_are_what_draws_say(kind):
    p, q = FAMILIES[kind]()
    n = 40_000
    x = drawn(p, n)
    for exact, each in ((kl_divergence(p, q), p.log_prob(x) - q.log_prob(x)), (p.entropy(), -p.log_prob(x))):
        each, exact = host(each), host(exact)
        assert (np.abs(each.mean(0) - exact) < 5 * each.std(0) / math.sqrt(n)).all()
        assert each.std() > 0
    assert (host(kl_divergence(p, q)) > 0.05).all()
    np.testing.assert_allclose(host(kl_divergence(p, p)), 0, atol=1e-6)


@pytest.mark.parametrize("kind", ["Normal", "Bernoulli"])
def test_moments_are_what_draws_say(kind):
    """Proves: Normal.sample, Bernoulli.sample."""
    p, _ = FAMILIES[kind]()
    x = host(drawn(p, 40_000))
    np.testing.assert_allclose(x.mean(0), host(p.mean), atol=0.04)
    np.testing.assert_allclose(x.var(0), host(p.variance), rtol=0.04)


def test_classes_are_drawn_as_often_as_their_probability_says():
    """Proves: Categorical.sample."""
    p = np.array([0.0, 0.3, 0.0, 0.6, 0.1, 0.0])
    x = host(drawn(Categorical(tg.tensor(p)), 40_000))
    np.testing.assert_allclose(np.bincount(x, minlength=6) / 40_000, p, atol=0.012)
    assert set(np.unique(x)) == {1, 3, 4}, "a class of probability 0 was drawn"


def test_the_divergence_from_the_standard_normal_is_the_papers_formula_and_never_negative():
    μ, log_var = (tg.tensor(numbers(k, (50,), -3, 3)) for k in (1, 2))
    found = kl_divergence(Normal(μ, (0.5 * log_var).exp()), Normal(0.0, 1.0))
    expected = 0.5 * (μ**2 + log_var.exp() - 1 - log_var)
    np.testing.assert_allclose(host(found), host(expected), rtol=1e-12, atol=1e-14)
    assert (found >= 0).all()


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_same_generator_draws_the_same_and_no_gradient_goes_through(kind):
    p, _ = FAMILIES[kind]()
    assert (drawn(p, 9, 3) == drawn(p, 9, 3)).all()
    assert not (drawn(p, 9, 3) == drawn(p, 9, 4)).all()
    shape = p.batch_shape
    assert p.sample((2, 3), stream(0)).shape == (2, 3, *shape)
    assert p.sample(rng=stream(0)).shape == shape
    μ = tg.zeros(3, requires_grad=True)
    assert not Normal(μ, 1.0).sample().requires_grad
    assert Normal(μ, 1.0).rsample().requires_grad


@pytest.mark.parametrize("kind", PAIRS)
def test_divergences_broadcast(kind):
    a, b, c, d = (tg.tensor(numbers(k, shape)) for k, shape in enumerate([(3, 4), (3, 4), (2, 1, 4), (2, 1, 4)]))
    found = kl_divergence(*PAIRS[kind](distributions, a, b, c, d))
    same(found, host(kl_divergence(*PAIRS[kind](distributions, a + 0 * c, b + 0 * c, c + 0 * a, d + 0 * a))))
    assert found.shape == ((2, 3) if kind == "Categorical" else (2, 3, 4))


def test_nothing_drawn_is_nothing():
    assert Normal(tg.zeros(0, 3), tg.ones(3)).sample((2,)).shape == (2, 0, 3)
    assert Categorical(tg.ones(0, 3)).sample((2,)).shape == (2, 0)
    assert Categorical(tg.ones(0, 3)).log_prob(tg.zeros(0, dtype=tg.int64)).shape == (0,)
    assert kl_divergence(Bernoulli(tg.ones(0)), Bernoulli(0.5)).shape == (0,)


def test_a_normal_draw_moves_with_its_parameters():
    """Proves: Normal.rsample."""
    μ, σ = numbers(0, (3,)), numbers(1, (3,), 0.5, 2)
    # The draws themselves depend on the dtype, so they are made in float64 and rounded.
    ε = tg.randn(2, 3, rng=stream(5), dtype=tg.float64)
    check_grad(lambda m, s: m + s * ε.to(m.dtype), μ, σ)
    z = Normal(tg.tensor(μ), tg.tensor(σ)).rsample((2,), stream(5))
    np.testing.assert_allclose(host(z), μ + σ * host(ε), rtol=1e-12)
    m, s = tg.tensor(μ, requires_grad=True), tg.tensor(σ, requires_grad=True)
    z = Normal(m, s).rsample(rng=stream(5))
    z.sum().backward()
    ε = tg.randn(3, rng=stream(5), dtype=tg.float64)
    np.testing.assert_allclose(host(m.grad), 1)
    np.testing.assert_allclose(host(s.grad), host(ε))


# ------------------------------------------------------------------- expectations that can be differentiated


ESTIMATORS = {"pathwise": pathwise_expectation, "score function": score_function_expectation}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("baseline", [0.0, 1.5])
def test_the_gradient_of_the_mean_square_is_twice_the_parameters(name, baseline):
    """E[z²] = μ² + σ², so ∇_μ = 2μ and ∇_σ = 2σ, each found to within five standard errors."""
    if name == "pathwise" and baseline:
        pytest.skip("the pathwise estimator has no baseline")
    batches, n = 400, 200
    μ0, σ0 = 0.7, 1.3
    found = []
    rng = stream(1)
    for _ in range(batches):
        μ, σ = (tg.tensor(v, dtype=tg.float64, requires_grad=True) for v in (μ0, σ0))
        options = {"baseline": baseline} if baseline else {}
        mean = ESTIMATORS[name](lambda z: z * z, Normal(μ, σ), n, rng, **options)
        mean.backward()
        found.append([mean.item(), μ.grad.item(), σ.grad.item()])
    found = np.array(found)
    expected = [μ0**2 + σ0**2, 2 * μ0, 2 * σ0]
    error = 5 * found.std(0) / math.sqrt(batches)
    assert (np.abs(found.mean(0) - expected) < error).all(), (found.mean(0), expected, error)
    assert (error < 0.25).all()


def test_the_pathwise_gradient_has_the_smaller_variance_and_a_baseline_lowers_the_others():
    def spread(estimator, **options):
        rng, found = stream(2), []
        for _ in range(300):
            μ = tg.tensor(2.0, dtype=tg.float64, requires_grad=True)
            estimator(lambda z: z * z, Normal(μ, 1.0), 10, rng, **options).backward()
            found.append(μ.grad.item())
        return np.var(found)

    pathwise, score = spread(pathwise_expectation), spread(score_function_expectation)
    with_baseline = spread(score_function_expectation, baseline=5.0)
    assert pathwise < 0.5 * with_baseline < 0.4 * score, (pathwise, with_baseline, score)


def test_the_score_function_differentiates_what_has_no_derivative():
    """A step, P(z > 0) = Φ(μ), whose slope is the normal density; and a coin, E[f] = p f(1) + (1 − p) f(0)."""
    n = 200_000
    μ = tg.tensor(0.4, dtype=tg.float64, requires_grad=True)
    score_function_expectation(lambda z: (z > 0).to(z.dtype), Normal(μ, 1.0), n, stream(0)).backward()
    assert μ.grad.item() == pytest.approx(math.exp(-0.08) / math.sqrt(2 * math.pi), abs=0.01)
    p = tg.tensor(0.3, dtype=tg.float64, requires_grad=True)
    mean = score_function_expectation(lambda x: 5 * x + 1, Bernoulli(p), n, stream(1))
    mean.backward()
    assert mean.item() == pytest.approx(2.5, abs=0.03)
    assert p.grad.item() == pytest.approx(5, abs=0.1)


def test_the_score_function_adds_nothing_to_the_value_and_sums_what_f_has_summed():
    μ = tg.zeros(4, 3, dtype=tg.float64, requires_grad=True)
    q = Normal(μ, 1.0)
    f = lambda z: (z * z).sum(-1)
    a, b = (e(f, q, 7, stream(3)) for e in ESTIMATORS.values())
    assert a.shape == b.shape == (4,)
    np.testing.assert_array_equal(host(a), host(b))
    b.sum().backward()
    z = host(q.sample((7,), stream(3)))
    np.testing.assert_allclose(host(μ.grad), ((z * z).sum(-1)[..., None] * z).mean(0), rtol=1e-10)


def test_the_score_functions_surrogate_has_the_derivatives_of_its_formula():
    """With the draws held still, ∇ = (1/n) Σ (f − b) ∇ln q, against the formula differentiated by hand."""
    σ = 1.7
    μ = tg.tensor(0.2, dtype=tg.float64, requires_grad=True)
    q = Normal(μ, σ)
    score_function_expectation(lambda z: z.exp(), q, 50, stream(4), baseline=0.5).backward()
    z = host(q.sample((50,), stream(4)))
    assert μ.grad.item() == pytest.approx(((np.exp(z) - 0.5) * (z - 0.2) / σ**2).mean(), rel=1e-10)


def test_the_score_functions_second_derivative_is_that_of_the_density():
    """∇² = (1/n) Σ f ∇²q/q + 2 ∇f ∇ln q + ∇²f: for q = N(μ, σ²) and f = a·z², with a = μ² as a parameter of f."""
    σ = 1.7
    μ = tg.tensor(0.2, dtype=tg.float64, requires_grad=True)
    q = Normal(μ, σ)
    mean = score_function_expectation(lambda z: μ * μ * z * z, q, 50, stream(4))
    (first,) = tg.grad(mean, [μ], create_graph=True)
    (second,) = tg.grad(first, [μ])
    z = host(q.sample((50,), stream(4)))
    s = (z - 0.2) / σ**2
    assert first.item() == pytest.approx((0.04 * z**2 * s + 0.4 * z**2).mean(), rel=1e-10)
    expected = 0.04 * z**2 * (s**2 - 1 / σ**2) + 2 * 0.4 * z**2 * s + 2 * z**2
    assert second.item() == pytest.approx(expected.mean(), rel=1e-10)


# ---------------------------------------------------------------------------------------------- errors


def test_errors_name_what_came():
    with pytest.raises(NotImplementedError, match="Bernoulli has no rsample"):
        Bernoulli(0.5).rsample()
    with pytest.raises(NotImplementedError, match="Categorical has no rsample"):
        pathwise_expectation(lambda z: z, Categorical(tg.ones(3)), 1)
    with pytest.raises(NotImplementedError, match="no formula for Normal and Bernoulli"):
        kl_divergence(Normal(0.0, 1.0), Bernoulli(0.5))
    for kind in (Bernoulli, Categorical):
        with pytest.raises(ValueError, match="either probs or logits, got neither"):
            kind()
        with pytest.raises(ValueError, match="either probs or logits, got both"):
            kind(tg.ones(2), tg.ones(2))
    with pytest.raises(ValueError, match=r"Normal: loc \(2,\) and scale \(3,\) do not broadcast"):
        Normal(tg.zeros(2), tg.ones(3))
    with pytest.raises(ValueError, match="the classes on the last axis"):
        Categorical(tg.tensor(1.0))
    with pytest.raises(TypeError, match="expected an integer tensor of classes, got float32"):
        Categorical(tg.ones(3)).log_prob(tg.ones(2))
    with pytest.raises(ValueError, match="n ≥ 1 draws, got 0"):
        pathwise_expectation(lambda z: z, Normal(0.0, 1.0), 0)
    with pytest.raises(TypeError, match="validate_args"):
        Normal(0.0, 1.0, validate_args=False)
    for name in ("sample", "rsample", "entropy"):
        with pytest.raises(NotImplementedError):
            getattr(Distribution(), name)()


@pytest.mark.cpu_only("a GPU's numbers are not looked at")
def test_errors_about_numbers():
    with pytest.raises(ValueError, match=r"scale > 0, got -1; from a log-variance it is exp\(log_var / 2\)"):
        Normal(0.0, tg.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="scale > 0, got 0"):
        Normal(0.0, 0.0)
    with pytest.raises(ValueError, match=r"probs in \[0, 1\], got numbers from 0.5 to 1.5"):
        Bernoulli(tg.tensor([0.5, 1.5]))
    for w in ([1.0, -1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match="probs ≥ 0 with at least one above 0"):
            Categorical(tg.tensor(w))
    with pytest.raises(IndexError, match=r"class 3 is outside \[0, 3\)"):
        Categorical(tg.ones(3)).log_prob(tg.tensor([3]))

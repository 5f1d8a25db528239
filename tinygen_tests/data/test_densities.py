"""Densities: samples follow log p, log p integrates to 1, and both agree with independent judges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.data.densities import Checkerboard, Density, GaussianMixture, NoisyCurves, Pinwheel, require_positive
from tinygen.data.toy import moons, spirals, swiss_roll
from tinygen.random import Generator

MIXTURE = GaussianMixture(
    [[-1.0, 0.5], [1.0, -0.5], [0.2, 1.5]],
    [[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.4]], [[0.1, 0.0], [0.0, 0.6]]],
    [0.5, 0.2, 0.3],
)
KNOWN = {
    "mixture": (MIXTURE, 6),
    "checkerboard": (Checkerboard(), 4.5),
    "moons": (moons(), 3.5),
    "spirals": (spirals(), 4.5),
    "swiss_roll": (swiss_roll(), 4.5),
}
known = pytest.mark.parametrize("name", KNOWN)


@known
def test_log_prob_integrates_to_one(name):
    density, reach = KNOWN[name]
    edges = np.linspace(-reach, reach, 181)
    middle = (edges[1:] + edges[:-1]) / 2
    x = np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2)
    total = np.exp(density.log_prob(x)).sum() * (edges[1] - edges[0]) ** 2
    np.testing.assert_allclose(total, 1, atol=1e-6)


@known
def test_samples_follow_log_prob(name):
    """Counts in a coarse grid against the integral of p over each cell: χ² not beyond 5σ of its degrees of freedom."""
    density, reach = KNOWN[name]
    n, cells, fine = 20000, 12, 12
    x = density.sample(n, Generator(1)).astype(np.float64)
    counts, edges, _ = np.histogram2d(x[:, 0], x[:, 1], bins=cells, range=[[-reach, reach]] * 2)
    step = 2 * reach / (cells * fine)
    middle = -reach + step * (np.arange(cells * fine) + 0.5)
    p = np.exp(density.log_prob(np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2))) * step**2
    expected = n * p.reshape(cells, fine, cells, fine).sum((1, 3))
    use = expected > 5
    assert expected[use].sum() > 0.99 * n
    χ2 = ((counts - expected)[use] ** 2 / expected[use]).sum()
    assert abs(χ2 - use.sum()) < 5 * math.sqrt(2 * use.sum()), (χ2, use.sum())


@pytest.mark.parametrize("density", [*(d for d, _ in KNOWN.values()), Pinwheel()], ids=[*KNOWN, "pinwheel"])
def test_samples_have_their_dtype_shape_parts_and_seed(density):
    x, part = density.sample_with_labels(300, Generator(0))
    assert x.dtype == np.float32 and x.shape == (300, 2) and np.isfinite(x).all()
    assert part.dtype == np.int64 and set(part) == set(range(density.n_parts))
    np.testing.assert_array_equal(x, density.sample(300, Generator(0)))
    assert not np.array_equal(x, density.sample(300, Generator(1)))
    assert density.sample(0, Generator(0)).shape == (0, 2)


@known
def test_log_prob_keeps_dtype_and_takes_any_layout(name):
    density, _ = KNOWN[name]
    x = density.sample(50, Generator(2))
    assert density.log_prob(x).dtype == np.float32
    log_p = density.log_prob(x.astype(np.float64))
    assert log_p.dtype == np.float64 and log_p.shape == (50,)
    np.testing.assert_allclose(density.log_prob(x), log_p, rtol=1e-6)
    np.testing.assert_array_equal(density.log_prob(np.asfortranarray(x.astype(np.float64))[::-1]), log_p[::-1])
    assert density.log_prob(x[:0]).shape == (0,)
    strange = np.array([[np.nan, 0], [np.inf, 0], [np.inf, np.nan], [1e200, -1e200]])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(density.log_prob(strange), [np.nan, -np.inf, np.nan, -np.inf])


@pytest.mark.parametrize("n", [-1, 2.5, True, "3"])
def test_a_bad_number_of_points(n):
    with pytest.raises(ValueError, match="whole number >= 0"):
        MIXTURE.sample(n)


def test_bad_points():
    with pytest.raises(ValueError, match=r"shape \(N, 2\), got \(3,\)"):
        MIXTURE.log_prob(np.ones(3))
    with pytest.raises(ValueError, match=r"shape \(N, 2\), got \(4, 3\)"):
        MIXTURE.log_prob(np.ones((4, 3)))
    with pytest.raises(TypeError, match="floating, got int64"):
        MIXTURE.log_prob(np.ones((4, 2), np.int64))


# ---------------------------------------------------------------------------------------- Gaussian mixture


def test_mixture_against_scipy():
    multivariate_normal = pytest.importorskip("scipy.stats", reason="SciPy is the judge").multivariate_normal
    rng = np.random.default_rng(0)
    for D in (1, 2, 5):
        A = rng.normal(size=(3, D, D))
        mixture = GaussianMixture(rng.normal(size=(3, D)), A @ A.mT + 0.1 * np.eye(D), [0.2, 0.3, 0.5])
        x = 3 * rng.normal(size=(40, D))
        parts = [multivariate_normal(m, S).logpdf(x) for m, S in zip(mixture.means, mixture.covs)]
        joint = np.stack(parts, 1).reshape(40, 3) + np.log(mixture.weights)
        np.testing.assert_allclose(mixture.log_joint(x), joint, rtol=1e-10)
        np.testing.assert_allclose(mixture.log_prob(x), np.logaddexp.reduce(joint, 1), rtol=1e-10)


def test_mixture_score_is_the_gradient_of_log_prob():
    x = np.random.default_rng(0).normal(size=(20, 2)) * 2
    h = 1e-5
    for i in range(2):
        e = np.eye(2)[i] * h
        numeric = (MIXTURE.log_prob(x + e) - MIXTURE.log_prob(x - e)) / (2 * h)
        np.testing.assert_allclose(MIXTURE.score(x)[:, i], numeric, rtol=1e-6, atol=1e-8)


def test_mixture_moments_and_responsibilities():
    x, k = MIXTURE.sample_with_labels(40000, Generator(5))
    np.testing.assert_allclose(np.bincount(k) / len(k), MIXTURE.weights, atol=0.01)
    for j in range(3):
        np.testing.assert_allclose(x[k == j].mean(0), MIXTURE.means[j], atol=0.03)
        np.testing.assert_allclose(np.cov(x[k == j].T), MIXTURE.covs[j], atol=0.03)
    r = MIXTURE.responsibilities(x)
    np.testing.assert_allclose(r.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(r.mean(0), MIXTURE.weights, atol=0.01)  # E[p(k|x)] = π_k


def test_mixture_far_from_every_mode():
    x = np.array([[1e3, 0.0], [-1e4, 1e4]])
    assert np.isfinite(MIXTURE.log_prob(x)).all() and np.isfinite(MIXTURE.score(x)).all()
    np.testing.assert_allclose(MIXTURE.responsibilities(x).sum(1), 1)


@pytest.mark.parametrize(
    "means, covs, weights, message",
    [
        ([0.0, 1.0], np.eye(2), None, r"means must have shape \(K, D\)"),
        (np.zeros((2, 2)), np.eye(2), None, r"covs must have shape \(2, 2, 2\), got \(2, 2\)"),
        (np.zeros((1, 2)), [[[1.0, 0.5], [0.0, 1.0]]], None, "symmetric"),
        (np.zeros((1, 2)), [[[1.0, 2.0], [2.0, 1.0]]], None, "positive definite"),
        (np.full((1, 2), np.nan), [np.eye(2)], None, "finite"),
        (np.zeros((2, 2)), [np.eye(2)] * 2, [0.5, 0.4], "sum to 1"),
        (np.zeros((2, 2)), [np.eye(2)] * 2, [1.0, 0.0], "positive"),
        (np.zeros((2, 2)), [np.eye(2)] * 2, [1.0], "2 positive numbers"),
    ],
)
def test_bad_mixtures(means, covs, weights, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(means, covs, weights)


# -------------------------------------------------------------------------------------------- checkerboard


def test_checkerboard_entropy():
    board = Checkerboard()
    assert board.entropy == pytest.approx(3.4657, abs=5e-5)
    x, square = board.sample_with_labels(20000, Generator(0))
    np.testing.assert_allclose(-board.log_prob(x.astype(np.float64)), math.log(32), rtol=1e-15)  # every one is on dark
    np.testing.assert_allclose(np.bincount(square) / 20000, 1 / 8, atol=0.012)
    assert x.min() < -3.99 and x.max() > 3.99
    i, j = (np.clip(np.floor((x + 4) / 2), 0, 3)).astype(int).T
    assert ((i + j) % 2 == 0).all()
    assert len({(a, b, s) for a, b, s in zip(i, j, square)}) == 8  # the label names the square


@given(st.floats(-5, 5, width=32), st.floats(-5, 5, width=32))
def test_checkerboard_by_its_definition(a, b):
    dark = any(
        -4 + 2 * i <= a <= -2 + 2 * i and -4 + 2 * j <= b <= -2 + 2 * j
        for i in range(4)
        for j in range(4)
        if (i + j) % 2 == 0
    )
    log_p = Checkerboard().log_prob(np.array([[a, b]]))
    assert log_p[0] == (-math.log(32) if dark else -np.inf)


@pytest.mark.parametrize(
    "a, b, dark",
    [
        (-4, -4, True),
        (4, 4, True),
        (-4, 4, False),
        (-3, 4, False),
        (-1, 4, True),
        (0, 0, True),
        (0, 1, True),
        (-2, -1, True),
        (4.0001, 3, False),
    ],
)
def test_checkerboard_edges(a, b, dark):
    log_p = Checkerboard().log_prob(np.array([[a, b]], np.float64))
    assert np.isfinite(log_p[0]) == dark


# -------------------------------------------------------------------------------------------- noisy curves


@pytest.mark.parametrize("density", [moons(), moons(0.02), moons(3.0), spirals(3), swiss_roll(0.05)])
def test_curve_quadrature_against_a_fine_midpoint_rule(density):
    σ, (a, b) = density.std, density.span
    x = density.sample(25, Generator(0)).astype(np.float64)
    x = np.concatenate([x, x + 3 * σ])
    m = 100_000
    t = a + (b - a) * (np.arange(m) + 0.5) / m
    p = np.zeros(len(x))
    for curve in density.curves:
        c = curve(t)
        p += [np.exp(-((xi - c) ** 2).sum(1) / (2 * σ**2)).mean() / (2 * np.pi * σ**2 * density.n_parts) for xi in x]
    np.testing.assert_allclose(density.log_prob(x), np.log(p), atol=1e-6)


def test_a_straight_line_has_a_closed_form():
    """c(t) = (t, 0) on [0, 1]:  p = N(x₂; 0, σ²) · (Φ(x₁/σ) − Φ((x₁−1)/σ))."""
    σ = 0.2
    line = NoisyCurves([lambda t: np.stack([t, 0 * t], 1)], (0.0, 1.0), σ)
    x = np.random.default_rng(0).normal(size=(30, 2))
    Φ = np.vectorize(lambda u: 0.5 * (1 + math.erf(u / math.sqrt(2))))
    p = np.exp(-(x[:, 1] ** 2) / (2 * σ**2)) / (σ * math.sqrt(2 * np.pi)) * (Φ(x[:, 0] / σ) - Φ((x[:, 0] - 1) / σ))
    np.testing.assert_allclose(np.exp(line.log_prob(x)), p, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    "curves, span, std",
    [
        ([], (0, 1), 0.1),
        ([np.sin], (1, 1), 0.1),
        ([np.sin], (0, 1), 0.0),
        ([np.sin], (0, 1), float("nan")),
        ([np.sin], (0, 1), float("inf")),
    ],
)
def test_bad_curves(curves, span, std):
    with pytest.raises(ValueError, match="at least one curve, a < b and std > 0"):
        NoisyCurves(curves, span, std)


# ------------------------------------------------------------------------------------------------ pinwheel


def test_pinwheel_unwinds():
    """Undoing the turn by hand gives back the Gaussian it was made of."""
    pinwheel = Pinwheel(5, 0.3, 0.05, 0.25)
    x, j = pinwheel.sample_with_labels(20000, Generator(0))
    x = x.astype(np.float64) / 2
    r, angle = np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0])
    u = np.stack([r, 0 * r], 1)
    for _ in range(60):  # u₁ = r cos(angle − θ(u₁)), solved by iteration
        φ = angle - (2 * np.pi * j / 5 + 0.25 * np.exp(u[:, 0]))
        u = r[:, None] * np.stack([np.cos(φ), np.sin(φ)], 1)
    np.testing.assert_allclose(u.mean(0), [1, 0], atol=0.01)
    np.testing.assert_allclose(u.std(0), [0.3, 0.05], atol=0.01)
    np.testing.assert_allclose(np.bincount(j) / len(j), 0.2, atol=0.015)


def test_without_a_known_density_the_class_is_named():
    with pytest.raises(NotImplementedError, match="Pinwheel has no known log density"):
        Pinwheel().log_prob(np.ones((1, 2)))
    with pytest.raises(ValueError, match="pinwheel: tangential_std must be positive, got 0"):
        Pinwheel(tangential_std=0)


def test_require_positive_names_the_argument():
    require_positive("f", k=3, std=0.1)
    for values, message in [
        ({"std": 0}, "f: std must be positive, got 0"),
        ({"std": float("nan")}, "got nan"),
        ({"k": 2.5}, "f: k must be a whole number, got 2.5"),
        ({"r": -1}, "f: r must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            require_positive("f", **values)


def test_a_bare_density_draws_nothing():
    with pytest.raises(NotImplementedError):
        Density().sample(3, Generator(0))

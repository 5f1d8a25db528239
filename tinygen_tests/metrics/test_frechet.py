"""The Fréchet distance: closed forms, SciPy's matrix square root as the judge, and the floor."""

import numpy as np
import pytest
import scipy.linalg

import tinygen as tg
from tinygen.metrics import frechet_between, frechet_distance, frechet_floor

pytestmark = pytest.mark.cpu_only("test_on_a_gpu.py runs there")


def cloud(seed, n=60, d=6):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)


def by_sqrtm(a, b):
    """Heusel's own code: tr of the square root of the product C_a C_b, which is not symmetric."""
    C, D = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(C @ D)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(C + D - 2 * root.real))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_scipy_computes(seed):
    a, b = cloud(seed), cloud(seed + 100, n=45)
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)
    assert frechet_distance(tg.tensor(a), tg.tensor(b)) == frechet_distance(a, b)


def test_equal_covariances_leave_the_distance_of_the_means():
    a, shift = cloud(0), np.arange(6.0)
    assert frechet_distance(a, a + shift) == pytest.approx((shift**2).sum(), rel=1e-10)


def test_a_cloud_is_at_no_distance_from_itself_in_any_order():
    for seed in range(20):  # rounding alone would leave some of them below 0
        a = cloud(seed)
        assert 0 <= frechet_distance(a, a) < 1e-11
        assert 0 <= frechet_distance(a, a[::-1]) < 1e-11


def test_diagonal_gaussians():
    """d² = Σ (μ − ν)² + (σ − τ)², on clouds whose moments are exactly those: ±1 in each axis, 2d points."""
    d = 4
    corners = np.concatenate([np.eye(d), -np.eye(d)]) * np.sqrt((2 * d - 1) / 2)  # unbiased covariance I
    σ, τ, μ, ν = np.array([[1, 2, 3, 0.5], [2, 1, 0, 0.25], [0, 1, 2, 3], [1, 1, 1, 1]])
    found = frechet_distance(corners * σ + μ, corners * τ + ν)
    assert found == pytest.approx(((μ - ν) ** 2 + (σ - τ) ** 2).sum(), rel=1e-12)


def test_singular_covariances_are_no_trouble():
    """More numbers than points, a dead feature, and two features that are one."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 20)), rng.standard_normal((4, 20)) + 1
    a[:, 3] = b[:, 3] = 7
    a[:, 5], b[:, 5] = a[:, 6], b[:, 6]
    C, D = np.cov(a.T), np.cov(b.T)
    S = scipy.linalg.sqrtm(C + 1e-14 * np.eye(20)).real
    λ = np.linalg.eigvalsh(S @ D @ S)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(C + D) - 2 * np.sqrt(np.maximum(λ, 0)).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    still = np.full((3, 20), 2.0)
    assert frechet_distance(still, still + 1) == pytest.approx(20)


def test_it_does_not_depend_on_axes_or_dtype_and_scales_with_the_square():
    a, b = cloud(2), cloud(3)
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    d2 = frechet_distance(a, b)
    assert frechet_distance(a @ Q, b @ Q) == pytest.approx(d2, rel=1e-9)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * d2, rel=1e-10)
    assert frechet_distance(a.astype("float32"), b.astype("float32")) == pytest.approx(d2, rel=1e-4)
    assert frechet_distance(np.asfortranarray(a), b[:, ::-1][:, ::-1]) == pytest.approx(d2, rel=1e-12)


def test_the_floor_is_the_mean_distance_of_disjoint_halves():
    x = cloud(4, n=41)
    rng = tg.Generator(5)
    expected = []
    for _ in range(3):
        order = tg.randperm(41, rng=rng).numpy()
        assert not set(order[:20]) & set(order[20:40])
        expected.append(by_sqrtm(x[order[:20]], x[order[20:40]]))
    assert frechet_floor(x, repeats=3, rng=tg.Generator(5)) == pytest.approx(np.mean(expected), rel=1e-9)


def test_the_floor_falls_as_one_over_n():
    """The bias of few samples: in both, N is what a reader must be told."""
    x = np.random.default_rng(0).standard_normal((4000, 5))
    small, large = (frechet_floor(x, size=n, repeats=30, rng=tg.Generator(0)) for n in (100, 800))
    assert 5 < small / large < 12


def test_perfect_samples_get_the_floor_where_sizes_are_equal_and_less_where_all_are_used():
    rng = np.random.default_rng(1)
    real, perfect = rng.standard_normal((600, 8)), rng.standard_normal((500, 8))
    floor = frechet_floor(real, rng=tg.Generator(0))
    assert frechet_between(perfect, real, 300, rng=tg.Generator(0)) / floor == pytest.approx(1, abs=0.25)
    assert frechet_distance(perfect, real) < 0.8 * floor


def test_frechet_between_draws_that_many_of_each():
    a, b = cloud(6, n=30), cloud(7, n=25)
    assert frechet_between(a, b[:25], 25, repeats=1) != frechet_distance(a, b)
    assert frechet_between(a[:25], b, 25, repeats=2) == pytest.approx(frechet_distance(a[:25], b), rel=1e-9)
    rng, expected = tg.Generator(4), []
    for _ in range(3):
        i, j = (tg.randperm(n, rng=rng).numpy()[:9] for n in (30, 25))
        expected.append(by_sqrtm(a[i], b[j]))
    assert frechet_between(a, b, 9, repeats=3, rng=tg.Generator(4)) == pytest.approx(np.mean(expected), rel=1e-9)
    one_apart = np.concatenate([b, b[:1] + 1000])
    draws = [frechet_between(a, one_apart, 13, repeats=1, rng=tg.Generator(seed)) for seed in range(10)]
    assert min(draws) < 100 < max(draws), "always the same of b are drawn"
    draws = [frechet_between(one_apart, a, 13, repeats=1, rng=tg.Generator(seed)) for seed in range(10)]
    assert min(draws) < 100 < max(draws), "always the same of a are drawn"
    fixed = [frechet_between(a, b, 10, rng=tg.Generator(3)) for _ in range(2)]
    assert fixed[0] == fixed[1]


def test_errors_say_what_is_needed():
    x = cloud(0, n=10)
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(x[:1], x)
    for size in (1, 6):
        with pytest.raises(ValueError, match=f"2 ≤ size ≤ 5.*got {size}"):
            frechet_floor(x, size=size)
    with pytest.raises(ValueError, match="at least 4"):
        frechet_floor(x[:3])
    with pytest.raises(ValueError, match="2 ≤ size ≤ 7, got 8"):
        frechet_between(x, x[:7], 8)
    with pytest.raises(ValueError, match="repeats ≥ 1"):
        frechet_floor(x, repeats=0)
    with pytest.raises(ValueError, match="repeats ≥ 1"):
        frechet_between(x, x, 5, repeats=0)

"""MMD²: the definition by loops, unbiasedness, and a p-value that is uniform where the two clouds are alike."""

import itertools

import numpy as np
import pytest
import scipy.stats

import tinygen as tg
from tinygen.metrics import median_distance, mmd2, mmd_test

pytestmark = pytest.mark.cpu_only("test_on_a_gpu.py runs there")


def clouds(seed, n=9, m=7, d=3, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((m, d)) + shift


def by_loops(a, b, bandwidths):
    def k(x, y):
        return np.mean([np.exp(-((x - y) ** 2).sum() / (2 * s * s)) for s in bandwidths])

    n, m = len(a), len(b)
    xx = sum(k(a[i], a[j]) for i, j in itertools.permutations(range(n), 2)) / (n * (n - 1))
    yy = sum(k(b[i], b[j]) for i, j in itertools.permutations(range(m), 2)) / (m * (m - 1))
    xy = sum(k(x, y) for x in a for y in b) / (n * m)
    return xx + yy - 2 * xy


@pytest.mark.parametrize("bandwidths", [[1.0], [0.3, 0.7, 2.0]])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_its_definition(seed, bandwidths):
    a, b = clouds(seed, shift=0.5)
    expected = by_loops(a, b, bandwidths)
    assert mmd2(a, b, bandwidths) == pytest.approx(expected, rel=1e-10, abs=1e-14)
    assert mmd2(b, a, bandwidths) == pytest.approx(expected, rel=1e-10, abs=1e-14)
    assert mmd_test(a, b, 3, bandwidths=bandwidths).mmd2 == pytest.approx(expected, rel=1e-10, abs=1e-14)
    assert mmd2(tg.tensor(a), tg.tensor(b), bandwidths) == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_bandwidths_default_to_multiples_of_the_median_distance():
    a, b = clouds(4, shift=1)
    pairs = itertools.combinations(np.concatenate([a, b]), 2)
    median = np.median([((x - y) ** 2).sum() for x, y in pairs]) ** 0.5
    assert median_distance(a, b) == pytest.approx(median, rel=1e-12)
    assert mmd2(a, b) == pytest.approx(by_loops(a, b, [median / 2, median, 2 * median]), rel=1e-10)


def test_the_median_of_points_that_mostly_coincide():
    a = np.zeros((8, 2))
    assert median_distance(a, a) == 1
    b = np.concatenate([np.zeros((3, 2)), [[3.0, 4.0]]])
    assert median_distance(a, b) == 5
    assert np.isfinite(mmd2(a, b)) and np.isfinite(mmd2(a, a))


def test_it_is_unbiased_where_the_distributions_are_equal():
    """E MMD²_u = 0; the biased estimate, with the diagonal, would be at (1 − E k)(1/n + 1/m) > 0."""
    values = np.array([mmd2(*clouds(seed, 10, 8), [1.0]) for seed in range(600)])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    assert 3 * error < 0.05 * (1 / 10 + 1 / 8), "too few draws to tell it from the biased estimate"
    assert (values < 0).mean() > 0.4


def test_it_is_unbiased_where_they_differ():
    """Gaussians N(0, 1) and N(δ, 1), k of width s: E k = √(s²/(s² + 2)) exp(−Δ²/(2(s² + 2))) with Δ = 0 or δ."""
    s, δ = 1.3, 0.8
    values = np.array([mmd2(*clouds(seed, 12, 9, 1, shift=δ), [s]) for seed in range(600)])
    same = np.sqrt(s * s / (s * s + 2))
    expected = 2 * same * (1 - np.exp(-δ * δ / (2 * (s * s + 2))))
    assert values.mean() == pytest.approx(expected, abs=3 * values.std() / np.sqrt(len(values)))


def test_p_values_are_uniform_where_the_distributions_are_equal():
    """Proves: mmd_test."""
    B = 19
    p = np.array([mmd_test(*clouds(seed, 8, 11), B, tg.Generator(seed)).p_value for seed in range(400)])
    ranks = np.round(p * (B + 1)).astype(int)
    assert ((ranks >= 1) & (ranks <= B + 1)).all()
    counts = np.bincount(ranks - 1, minlength=B + 1)
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    # Never more often below a level than the level says: the test is exact.
    assert (p <= 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(p))


def test_p_value_is_the_share_of_orders_at_least_as_extreme():
    a, b = clouds(2, 5, 4, shift=0.1)
    x = np.concatenate([a, b])
    median = median_distance(a, b)
    found = by_loops(a, b, [median / 2, median, 2 * median])
    rng = tg.Generator(7)
    first = np.arange(9) < 5
    drawn = []
    for _ in range(70):  # more than one block of them
        chosen = first[tg.randperm(9, rng=rng).numpy()]
        drawn.append(by_loops(x[chosen], x[~chosen], [median / 2, median, 2 * median]))
    expected = (1 + np.sum(np.array(drawn) >= found - 1e-12)) / 71
    assert mmd_test(a, b, 70, tg.Generator(7)).p_value == pytest.approx(expected, rel=1e-12)


def test_different_distributions_are_found():
    a, b = clouds(0, 60, 60, shift=0.8)
    test = mmd_test(a, b, 99, tg.Generator(0))
    assert test.p_value == 0.01, "the least that 99 permutations can give"
    assert test.mmd2 > 0.05
    narrow = np.random.default_rng(1).standard_normal((60, 3)) * 0.4  # equal means: only the spread differs
    assert mmd_test(a, narrow, 99, tg.Generator(0)).p_value == 0.01


def test_identical_clouds_are_as_alike_as_can_be():
    a, _ = clouds(0, 30)
    test = mmd_test(a, a, 49, tg.Generator(0))
    assert test.mmd2 < 0 and test.p_value > 0.9
    still = np.zeros((6, 2))
    assert mmd_test(still, still, 49, tg.Generator(0)) == (0.0, 1.0)


def test_errors_say_what_is_needed():
    a, b = clouds(0)
    with pytest.raises(ValueError, match="at least 2"):
        mmd2(a[:1], b)
    for bad in ([], [0.0], [1.0, -1.0], [float("nan")]):
        with pytest.raises(ValueError, match="mmd2: expected bandwidths > 0"):
            mmd2(a, b, bad)
        with pytest.raises(ValueError, match="mmd_test: expected bandwidths > 0"):
            mmd_test(a, b, bandwidths=bad)
    with pytest.raises(ValueError, match="permutations ≥ 1, got 0"):
        mmd_test(a, b, permutations=0)

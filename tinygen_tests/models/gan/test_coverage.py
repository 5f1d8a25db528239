"""Mode coverage: true samples, collapsed ones, ones between the modes, and the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen.data.toy import ring
from tinygen.models.gan import mode_coverage
from tinygen_tests.draws import stream


@pytest.mark.parametrize("radius, least", [(3.0, 1), (1.0, 4)])
def test_it_is_its_definition(radius, least):
    """Proves: mode_coverage."""
    rng = np.random.default_rng(0)
    modes, points = rng.standard_normal((5, 3)), rng.standard_normal((60, 3))
    n = np.zeros(5, int)
    for x in points:
        distances = [math.dist(x, μ) for μ in modes]
        k = int(np.argmin(distances))
        n[k] += distances[k] <= radius * 0.4
    found = mode_coverage(points, modes, 0.4, radius, least)
    np.testing.assert_array_equal(found.counts, n)
    assert 0 < n.sum() < 60 and found.covered == (n >= least).sum() and found.modes == 5
    assert found.high_quality == pytest.approx(n.sum() / 60)
    shares = n[n > 0] / n.sum()
    assert found.imbalance == pytest.approx(math.log(5) + (shares * np.log(shares)).sum())


def test_true_samples_cover_all_modes_and_989_in_1000_lie_within_three_sigma():
    density = ring(8, std=0.05)
    found = mode_coverage(density.sample(20_000, tg.Generator(0)), density.modes, 0.05)
    assert (found.covered, found.modes) == (8, 8)
    assert found.high_quality == pytest.approx(1 - math.exp(-4.5), abs=0.003)
    assert found.counts.sum() == round(found.high_quality * 20_000)
    assert found.imbalance < 0.002
    wider = mode_coverage(density.sample(20_000, tg.Generator(0)), density.modes, 0.05, radius=1.0)
    assert wider.high_quality == pytest.approx(1 - math.exp(-0.5), abs=0.01)


def test_a_collapsed_generator_covers_one_mode():
    modes = ring(8).modes
    found = mode_coverage(np.repeat(modes[3:4], 100, axis=0), modes, 0.02)
    assert found.covered == 1 and found.high_quality == 1
    np.testing.assert_array_equal(found.counts, [0, 0, 0, 100, 0, 0, 0, 0])
    assert found.imbalance == pytest.approx(math.log(8))


def test_points_between_the_modes_count_for_none():
    modes = ring(8).modes
    found = mode_coverage(np.zeros((50, 2)), modes, 0.02)
    assert found.covered == 0 and found.high_quality == 0 and found.imbalance == math.inf


def test_the_radius_is_in_units_of_sigma_and_counts_its_rim():
    modes = np.zeros((1, 2))
    points = np.array([[0.0, 0.29], [0.3, 0.0], [0.0, 0.31]])
    assert mode_coverage(points, modes, 0.1, radius=3.0 + 1e-9).high_quality == pytest.approx(2 / 3)
    assert mode_coverage(points, modes, 0.1, least=3).covered == 0
    assert mode_coverage(points, modes, 0.1, least=2).covered == 1


def test_tensors_on_any_device_and_more_dimensions():
    modes = np.eye(3) * 5
    points = tg.tensor(modes.astype(np.float32)) + 0.01 * tg.randn(3, 3, rng=stream(0))
    found = mode_coverage(points, modes, 0.1)
    assert found.covered == 3 and found.imbalance == pytest.approx(0)


@pytest.mark.parametrize("arguments", [
    (np.zeros((3, 2)), np.zeros((4, 3)), 1.0), (np.zeros((0, 2)), np.zeros((4, 2)), 1.0),
    (np.zeros(3), np.zeros((4, 3)), 1.0),
])
def test_shapes_that_do_not_fit(arguments):
    with pytest.raises(ValueError, match=r"expected points \(N, D\) and modes \(K, D\)"):
        mode_coverage(*arguments)


@pytest.mark.parametrize("options", [{"std": 0}, {"std": 1, "radius": 0}, {"std": 1, "least": 0}])
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match="std > 0, radius > 0 and least ≥ 1"):
        mode_coverage(np.zeros((3, 2)), np.zeros((4, 2)), **options)

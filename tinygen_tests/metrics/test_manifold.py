"""Precision, recall, density and coverage: the definitions by loops, and toys whose figures are known."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.metrics import manifold, precision_recall

pytestmark = pytest.mark.cpu_only("test_on_a_gpu.py runs there")


def by_loops(real, fake, k):
    def radius(x, cloud):
        return sorted(np.linalg.norm(x - c) for c in cloud)[k]  # [0] is the point itself

    r = [radius(x, real) for x in real]
    s = [radius(y, fake) for y in fake]
    distance = [[np.linalg.norm(x - y) for y in fake] for x in real]
    N, M = len(real), len(fake)
    precision = np.mean([any(distance[i][j] <= r[i] for i in range(N)) for j in range(M)])
    recall = np.mean([any(distance[i][j] <= s[j] for j in range(M)) for i in range(N)])
    density = np.mean([sum(distance[i][j] <= r[i] for i in range(N)) for j in range(M)]) / k
    coverage = np.mean([any(distance[i][j] <= r[i] for j in range(M)) for i in range(N)])
    return precision, recall, density, coverage


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_its_definition(seed, k, monkeypatch):
    rng = np.random.default_rng(seed)
    real, fake = rng.standard_normal((30, 3)), rng.standard_normal((22, 3)) * 0.8 + 0.7
    expected = by_loops(real, fake, k)
    assert precision_recall(real, fake, k) == pytest.approx(expected, rel=1e-12)
    assert precision_recall(tg.tensor(real), tg.tensor(fake), k=k) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(manifold, "CHUNK", 7)  # pieces that do not divide the clouds
    assert precision_recall(real, fake, k) == pytest.approx(expected, rel=1e-12)


def test_a_copy_has_all_four_at_their_best():
    """Points on spheres of their own balls are inside, whatever rounding does: a lattice, far from the origin."""
    x = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), -1).reshape(-1, 2) / 3 + 1000
    found = precision_recall(x, x.copy())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density >= 1
    assert found == pytest.approx(by_loops((x - 1000) * 3, (x - 1000) * 3, 3))


def test_clouds_that_are_apart_have_nothing():
    x = np.random.default_rng(0).standard_normal((20, 2))
    assert precision_recall(x, x + 100) == (0, 0, 0, 0)


def test_half_of_the_modes_halves_recall_and_coverage_but_not_precision():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((40, 2)), rng.standard_normal((40, 2)) + 50
    found = precision_recall(np.concatenate([left, right]), rng.permutation(left + 1e-9))
    assert found.precision == 1
    assert found.recall == 0.5 and found.coverage == 0.5
    swapped = precision_recall(rng.permutation(left + 1e-9), np.concatenate([left, right]))
    assert swapped.precision == 0.5 and swapped.recall == 1


def test_one_lone_bad_sample_raises_recall_but_not_coverage():
    """Why coverage is there: k + 1 scattered samples have huge balls and "recall" everything."""
    rng = np.random.default_rng(1)
    real = rng.standard_normal((50, 2))
    scattered = np.array([[60.0, 0], [-60, 0], [0, 60], [0, -60]])
    found = precision_recall(real, scattered)
    assert found.precision == 0 and found.recall == 1 and found.coverage == 0


def test_coinciding_points_count_as_neighbours():
    x = np.repeat(np.array([[0.0, 0], [5, 5]]), 4, axis=0)  # three neighbours at distance 0: every radius is 0
    inside = precision_recall(x, x.copy())
    assert inside[:2] == (1, 1)
    assert precision_recall(x, x + 0.1)[:2] == (0, 0)
    assert precision_recall(x[:4], x[:4].copy())[:2] == (1, 1)


def test_errors_say_what_is_needed():
    x = np.random.default_rng(0).standard_normal((6, 2))
    for k in (0, 5, 6):
        with pytest.raises(ValueError, match=f"1 ≤ k < 5.*got k={k}"):
            precision_recall(x, x[:5], k)

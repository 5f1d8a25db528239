"""copying: the definition by loops, SciPy's Mann-Whitney test, copies and new images told apart."""

import sys

import numpy as np
import pytest
import scipy.stats

import tinygen as tg
from tinygen.metrics import copying

pytestmark = pytest.mark.cpu_only("test_on_a_gpu.py runs there")


def nearest(x, train):
    return np.array([min(np.linalg.norm(a - t) for t in train) for a in x])


@pytest.mark.parametrize("seed", range(3))
def test_it_is_its_definition_and_scipys_statistic(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    samples, train, held_out = rng.random((15, 3)) * 0.9, rng.random((20, 3)), rng.random((12, 3))
    d, e = nearest(samples, train), nearest(held_out, train)
    share = np.mean([(a < b) + 0.5 * (a == b) for a in d for b in e])
    test = scipy.stats.mannwhitneyu(e, d, use_continuity=False, method="asymptotic", alternative="greater")
    found = copying(samples, train, tg.tensor(held_out))
    assert found.share == pytest.approx(share, rel=1e-12) == pytest.approx(test.statistic / (15 * 12))
    assert scipy.stats.norm.sf(found.z) == pytest.approx(test.pvalue, rel=1e-9)
    monkeypatch.setattr(sys.modules[copying.__module__], "CHUNK", 4)
    assert copying(samples, train, held_out) == pytest.approx(found, rel=1e-12)


def test_copies_are_1_and_what_lies_beyond_is_0():
    rng = np.random.default_rng(0)
    train, held_out = rng.random((30, 4)) + 1000, rng.random((20, 4)) + 1000
    assert copying(train[:10], train, held_out).share == 1
    assert copying(train[:10], train, held_out).z > 3
    assert copying(train[:10] + 50, train, held_out).share == 0


def test_two_copies_are_equally_near():
    train = np.random.default_rng(0).random((30, 4)) + 1000
    assert copying(train[:7], train, train[7:20]) == (0.5, 0)


def test_new_images_are_at_one_half_as_often_as_chance_says():
    z = []
    for seed in range(200):
        x = np.random.default_rng(seed).standard_normal((90, 3))
        z.append(copying(x[:30], x[30:60], x[60:]).z)
    assert abs(np.mean(z)) < 0.25 and 0.85 < np.std(z) < 1.2


def test_errors_say_what_is_needed():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match="copying: held_out has points of 1 numbers, train of 2"):
        copying(x, x, x[:, :1])
    with pytest.raises(ValueError, match="copying: samples has points of 1 numbers, train of 2"):
        copying(x[:, :1], x, x)

"""The named toy sets: what each is made of, and what is refused."""

import numpy as np
import pytest

from tinygen.data.dataset import Dataset
from tinygen.data.toy import grid, moons, ring, spirals, swiss_roll, toy, toy_density, toy_names
from tinygen.random import Generator, manual_seed


@pytest.mark.parametrize("name", toy_names())
def test_every_name_gives_a_labelled_dataset(name):
    d = toy(name, 200, rng=Generator(0))
    assert isinstance(d, Dataset) and d.name == name
    assert d.points.shape == (200, 2) and d.points.dtype == np.float32 and d.y.dtype == np.int64
    assert len(d.classes) == toy_density(name).n_parts
    assert np.abs(d.points).max() < 7
    np.testing.assert_array_equal(d.points, toy(name, 200, rng=Generator(0)).points)
    manual_seed(0)
    np.testing.assert_array_equal(d.points, toy(name, 200).points)


def test_the_names():
    assert toy_names() == ("ring", "grid", "checkerboard", "moons", "spirals", "swiss_roll", "pinwheel")
    with pytest.raises(ValueError, match="there is no toy density 'circle'; there are ring, grid"):
        toy("circle", 10)
    with pytest.raises(TypeError, match="noise"):
        toy("moons", 10, noise=0.1)


def test_options_reach_the_density():
    assert toy_density("ring", k=5).n_parts == 5
    far = toy("ring", 100, rng=Generator(0), radius=10.0)
    assert np.hypot(*far.points.T).min() > 9


def test_ring_of_eight():
    density = ring()
    assert density.modes.shape == (8, 2)
    np.testing.assert_allclose(np.hypot(*density.modes.T), 2)
    np.testing.assert_allclose(density.modes[[0, 2]], [[2, 0], [0, 2]], atol=1e-15)
    x, k = density.sample_with_labels(4000, Generator(0))
    distance = np.linalg.norm(x - density.modes[k], axis=1)
    np.testing.assert_allclose((distance**2).mean(), 2 * 0.02**2, rtol=0.1)
    assert (np.linalg.norm(x[:, None] - density.modes, axis=2).argmin(1) == k).all()


def test_grid_is_centred():
    density = grid(3, 2.0)
    np.testing.assert_allclose(sorted(map(tuple, density.modes)), [(a, b) for a in (-2, 0, 2) for b in (-2, 0, 2)])


def test_moons_as_scikit_learn_has_them():
    make_moons = pytest.importorskip("sklearn.datasets", reason="scikit-learn is the judge").make_moons
    theirs, labels = make_moons(400, noise=None)
    density = moons(0.01)
    for arm, curve in enumerate(density.curves):
        t = np.linspace(*density.span, 200)
        np.testing.assert_allclose(sorted(map(tuple, curve(t))), sorted(map(tuple, theirs[labels == arm])), atol=1e-12)


def test_swiss_roll_as_scikit_learn_has_it():
    make_swiss_roll = pytest.importorskip("sklearn.datasets", reason="scikit-learn is the judge").make_swiss_roll
    theirs, t = make_swiss_roll(100, random_state=0)
    density = swiss_roll()
    assert density.span[0] <= t.min() and t.max() <= density.span[1]
    np.testing.assert_allclose(density.curves[0](t), theirs[:, [0, 2]] / 5, atol=1e-12)


def test_spirals_turn_and_are_even():
    density = spirals(k=3, turns=1.0, radius=2.0)
    end = np.array([c(np.array([1.0]))[0] for c in density.curves])
    third = np.array([0, 2 * np.pi / 3, 4 * np.pi / 3])
    np.testing.assert_allclose(end, 2 * np.stack([np.cos(third), np.sin(third)], 1), atol=1e-12)
    inside = np.hypot(*density.sample(20000, Generator(0)).T) < 1
    np.testing.assert_allclose(inside.mean(), 0.25, atol=0.03)  # half the radius, a quarter of the points


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("ring", {"k": 0}, "ring: k must be positive, got 0"),
        ("ring", {"k": 2.5}, "ring: k must be a whole number"),
        ("ring", {"std": 0.0}, "ring: std must be positive"),
        ("ring", {"radius": -1.0}, "ring: radius must be at least 0, got -1.0"),
        ("grid", {"side": -2}, "grid: side must be positive"),
        ("moons", {"std": -0.1}, "std > 0"),
        ("spirals", {"turns": 0}, "spirals: turns must be positive"),
        ("swiss_roll", {"std": float("nan")}, "std > 0"),
    ],
)
def test_options_out_of_range(name, options, message):
    with pytest.raises(ValueError, match=message):
        toy(name, 10, **options)

"""What the metrics take, and what they refuse."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import tinygen as tg
from tinygen.backend import DeviceError
from tinygen.metrics import frechet_distance, mmd2, parzen_log_likelihood, precision_recall
from tinygen.metrics.points import as_pair, as_points, shuffled, squared_distances

pytestmark = pytest.mark.cpu_only("brings the stand-in itself")


def cloud(seed, n=12, d=5, dtype="float32"):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


def test_images_are_flattened_and_everything_is_float64():
    images = tg.tensor(cloud(0, 3, 8).reshape(3, 2, 2, 2))
    points = as_points(images, "f", "a")
    assert points.dtype == np.float64
    assert (points == cloud(0, 3, 8)).all()
    assert as_points(np.arange(6).reshape(2, 3), "f", "a").dtype == np.float64


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_squared_distances_are_those_of_scipy_also_far_from_the_origin(offset):
    a, b = cloud(1, dtype="float64") + offset, cloud(2, 7, dtype="float64") + offset
    np.testing.assert_allclose(squared_distances(a, b), cdist(a, b, "sqeuclidean"), rtol=1e-9)
    assert (np.diag(squared_distances(a, a)) < 1e-6).all()
    assert (squared_distances(a, a) >= 0).all()


def test_the_inputs_are_not_written_to():
    a, b = cloud(1, 20), cloud(2, 20)
    before = a.copy(), b.copy()
    frechet_distance(a, b), mmd2(a, b), precision_recall(a, b), parzen_log_likelihood(a, b, sigma=0.3)
    assert (a == before[0]).all() and (b == before[1]).all()


def test_shuffled_is_a_permutation_that_the_seed_fixes():
    assert sorted(shuffled(20, tg.Generator(0))) == list(range(20))
    assert (shuffled(20, tg.Generator(0)) == shuffled(20, tg.Generator(0))).all()
    assert (shuffled(20, tg.Generator(0)) != shuffled(20, tg.Generator(1))).any()


METRICS = {
    "frechet_distance": frechet_distance,
    "mmd2": mmd2,
    "precision_recall": precision_recall,
    "parzen_log_likelihood": lambda a, b: parzen_log_likelihood(a, b, sigma=0.2),
}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_refuses_what_is_no_cloud_of_points_and_names_itself(name):
    f, good = METRICS[name], cloud(0)
    with pytest.raises(TypeError, match=f"{name}: expected .* Tensor or an array"):
        f(good.tolist(), good)
    with pytest.raises(TypeError, match=f"{name}: expected .* real numbers, got complex64"):
        f(good.astype("complex64"), good)
    with pytest.raises(ValueError, match=rf"{name}: expected .* \(N, d\)"):
        f(good[0], good)
    with pytest.raises(ValueError, match=rf"{name}: expected .* at least .*\(0, 5\)"):
        f(good[:0], good)
    with pytest.raises(ValueError, match=f"{name}: .* one space"):
        f(good[:, :4], good)
    for bad in (np.nan, np.inf):
        spoiled = good.copy()
        spoiled[3, 2] = bad
        with pytest.raises(ValueError, match=f"{name}: .* nan or infinite"):
            f(spoiled, good)
        with pytest.raises(ValueError, match=f"{name}: .* nan or infinite"):
            f(good, spoiled)


def test_two_devices_are_named():
    with tg.testing.strict_cupy():
        there = tg.tensor(cloud(0), device="cuda")
        with pytest.raises(DeviceError, match="f: a is on cpu, b on cuda:0"):
            as_pair(cloud(0), there, "f", ("a", "b"))

"""The metrics where a GPU's array library computes: the strict stand-in for CuPy, in every run, beside the CPU."""

import numpy as np
import pytest

import tinygen as tg
from tinygen import metrics

pytestmark = pytest.mark.cpu_only("brings the stand-in itself")


def clouds():
    rng = np.random.default_rng(0)
    return rng.random((24, 6)), rng.random((20, 6)) + 0.1


FIGURES = {
    "frechet_distance": lambda a, b: metrics.frechet_distance(a, b),
    "frechet_floor": lambda a, b: metrics.frechet_floor(a, repeats=3, rng=tg.Generator(0)),
    "frechet_between": lambda a, b: metrics.frechet_between(a, b, 8, 3, tg.Generator(0)),
    "median_distance": lambda a, b: metrics.median_distance(a, b),
    "mmd2": lambda a, b: metrics.mmd2(a, b),
    "mmd_test": lambda a, b: metrics.mmd_test(a, b, 19, tg.Generator(0)),
    "precision_recall": lambda a, b: metrics.precision_recall(a, b),
    "parzen_log_likelihood": lambda a, b: metrics.parzen_log_likelihood(a, b[:10], b[10:]),
    "importance_log_likelihood": lambda a, b: metrics.importance_log_likelihood(a),
    "iwae_bound": lambda a, b: tuple(metrics.iwae_bound(a, k=4).tolist()),
    "copying": lambda a, b: metrics.copying(a, b[:10], b[10:]),
    "class_report": lambda a, b: metrics.class_report(a / a.sum(1, keepdim=True), 0.3).confident,
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_figures_are_the_same_there(name):
    a, b = clouds()
    here = FIGURES[name](tg.tensor(a), tg.tensor(b))
    with tg.testing.strict_cupy():
        there = FIGURES[name](tg.tensor(a, device="cuda"), tg.tensor(b, device="cuda"))
    assert there == pytest.approx(here, rel=1e-9)
    assert all(type(value) is float for value in (there if isinstance(there, tuple) else (there,)))


def test_the_classifier_and_the_protocol_are_the_same_there():
    real = tg.data.digits("train").images[:60]
    samples = tg.data.digits("test").images[:30]
    here = metrics.judge_samples(samples, real, labels=tg.data.digits("test").labels[:30])
    with tg.testing.strict_cupy():
        model = metrics.digit_classifier(device="cuda")
        assert model.features(tg.tensor(samples)).device == "cuda:0", "images come to where the weights are"
        labels = tg.tensor(tg.data.digits("test").labels[:30], device="cuda")
        there = metrics.judge_samples(tg.tensor(samples, device="cuda"), tg.tensor(real, device="cuda"), labels)
        mixed = metrics.judge_samples(tg.tensor(samples, device="cuda"), real)
    assert there == pytest.approx(here, rel=1e-3)
    assert mixed["Fréchet distance"] == pytest.approx(here["Fréchet distance"], rel=1e-3)

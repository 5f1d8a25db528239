"""One protocol: which figures there are, what each of them is, and that better samples get better ones."""

import numpy as np
import pytest

import tinygen as tg
from tinygen import metrics
from tinygen.metrics import judge_samples

pytestmark = pytest.mark.cpu_only("test_on_a_gpu.py runs there")

NAMES = [
    "confident", "confident, real images", "smallest class share", "largest class share", "Fréchet distance",
    "Fréchet floor", "Fréchet ratio", "Fréchet ratio, equal sizes", "precision", "recall", "density", "coverage",
    "MMD²", "MMD² p-value",
]  # fmt: skip


@pytest.fixture(scope="module")
def real():
    return tg.data.digits("train").images


@pytest.fixture(scope="module")
def held_out():
    return tg.data.digits("test")


def test_real_digits_are_judged_real(real, held_out):
    found = judge_samples(held_out.images, real)
    assert list(found) == NAMES and all(type(value) is float for value in found.values())
    assert found["confident"] > 0.98 and found["confident, real images"] > 0.99
    assert 0.08 < found["smallest class share"] <= 0.1 <= found["largest class share"] < 0.12
    assert found["Fréchet ratio, equal sizes"] < 1.3
    assert found["precision"] > 0.8 and found["recall"] > 0.8 and found["coverage"] > 0.8
    assert found["MMD² p-value"] > 0.05
    assert found == judge_samples(tg.tensor(held_out.images), tg.tensor(real)), "equal samples, equal figures"


def test_spoiled_digits_are_found_out(real, held_out):
    rng = np.random.default_rng(0)
    noisy = np.clip(held_out.images + 0.25 * rng.standard_normal(held_out.images.shape), 0, 1).astype("float32")
    good, bad = judge_samples(held_out.images, real), judge_samples(noisy, real)
    for name in ("confident", "precision", "density", "coverage", "MMD² p-value"):
        assert bad[name] < good[name], name
    for name in ("Fréchet distance", "Fréchet ratio", "Fréchet ratio, equal sizes", "MMD²"):
        assert bad[name] > good[name], name
    assert bad["Fréchet floor"] == good["Fréchet floor"]
    assert bad["MMD² p-value"] == 1 / 200


def test_missing_classes_are_found_out(real, held_out):
    found = judge_samples(held_out.images[held_out.labels < 5], real)
    assert found["smallest class share"] < 0.02 and found["largest class share"] > 0.17
    assert found["precision"] > 0.8 and found["coverage"] < 0.6


def test_each_figure_is_what_its_own_function_gives(real, held_out):
    samples = held_out.images
    found = judge_samples(samples, real, labels=held_out.labels)
    judge = metrics.digit_classifier("digits")
    a, b = judge.features(samples), judge.features(real)
    report = metrics.class_report(judge.probabilities(samples), labels=held_out.labels)
    assert found["confident"] == report.confident
    assert found["smallest class share"] == report.smallest and found["largest class share"] == report.largest
    assert found["wanted class shown"] == report.right > 0.99
    assert list(found)[4] == "wanted class shown"
    assert found["Fréchet distance"] == metrics.frechet_distance(a, b)
    assert found["Fréchet floor"] == metrics.frechet_floor(b, size=297, rng=tg.Generator(0))
    assert found["Fréchet ratio"] == found["Fréchet distance"] / found["Fréchet floor"]
    between = metrics.frechet_between(a, b, 297, rng=tg.Generator(9)) / found["Fréchet floor"]
    assert found["Fréchet ratio, equal sizes"] == pytest.approx(between, rel=0.3)


def test_copies_are_found_out_where_there_are_held_out_images(real, held_out):
    copies = judge_samples(real[:100], real, held_out=held_out.images)
    assert copies["nearer than held-out"] == 1
    assert list(copies) == [*NAMES, "nearer than held-out"]
    share = metrics.copying(held_out.images[:100], real, held_out.images[100:]).share
    assert judge_samples(held_out.images[:100], real, held_out=held_out.images[100:])["nearer than held-out"] == share
    assert 0.4 < share < 0.6


def test_the_floor_is_half_against_half_where_there_are_samples_enough(real):
    found = judge_samples(np.concatenate([real[:700], real[:300]]), real)
    features = metrics.digit_classifier().features(real)
    assert found["Fréchet floor"] == metrics.frechet_floor(features, rng=tg.Generator(0))


def test_other_sizes_are_judged_by_a_classifier_of_ones_own():
    rng = np.random.default_rng(0)
    images = rng.random((40, 2, 9, 9)).astype("float32")
    judge = metrics.DigitClassifier((2, 9, 9), (3,), rng=tg.Generator(0))
    assert list(judge_samples(images[:20], images[20:], classifier=judge)) == NAMES
    with pytest.raises(ValueError, match=r"the samples are \(20, 2, 9, 9\); pass classifier="):
        judge_samples(images[:20], images[20:])


def test_mnist_is_judged_by_its_own(mnist_folder):
    x = tg.data.mnist(mnist_folder, "t10k-test").images
    found = judge_samples(x[:300], x[300:900])
    assert found["confident"] > 0.95 and found["MMD² p-value"] > 0.005


def test_errors_say_what_is_needed(real):
    for samples, images in ((real[:7], real), (real[:8], real[:15])):
        with pytest.raises(ValueError, match="at least 8 samples and 16 real images"):
            judge_samples(samples, images)
    with pytest.raises(ValueError, match="expected images of shape"):
        judge_samples(real[:20], np.zeros((30, 1, 28, 28), dtype="float32"))
    with pytest.raises(ValueError, match="nan"):
        judge_samples(np.full((20, 1, 8, 8), np.nan, dtype="float32"), real)

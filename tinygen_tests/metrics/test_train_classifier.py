"""The script that made the shipped weights: its augmentation, that it learns, and that it writes whole files."""

import numpy as np
import pytest
import scipy.ndimage

import tinygen as tg
from tinygen.metrics import DigitClassifier, train_classifier
from tinygen.metrics.train_classifier import augment, main, rounded, train

pytestmark = pytest.mark.cpu_only("data starts on the CPU")


def still(monkeypatch, **limits):
    for name in ("TURN", "STRETCH", "SHEAR", "SHIFT"):
        monkeypatch.setattr(train_classifier, name, limits.get(name, 0.0))


class Fixed:
    """Gives every map the largest value of its range."""

    def uniform(self, size, dtype, low, high):
        return np.full(size, high, dtype)


def test_no_map_at_all_gives_the_image(monkeypatch):
    x = tg.data.digits("test").images[:5]
    still(monkeypatch)
    y = augment(x, tg.Generator(0))
    np.testing.assert_allclose(y, x, atol=1e-6)
    assert y.dtype == np.float32


def test_a_shift_of_one_pixel_moves_the_image_and_fills_with_zeros(monkeypatch):
    x = np.random.default_rng(0).random((2, 3, 8, 10)).astype("float32")
    still(monkeypatch, SHIFT=1 / 8)
    y = augment(x, Fixed())  # reads one pixel below, and 10/8 of a pixel to the right
    row = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 2)))[:, :, 1:]
    np.testing.assert_allclose(y, 0.75 * row[..., 1:-1] + 0.25 * row[..., 2:], atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (9, 9)])
def test_it_is_scipys_affine_map(monkeypatch, shape):
    x = np.random.default_rng(0).random((1, 1, *shape)).astype("float32")
    still(monkeypatch, TURN=0.3, STRETCH=0.1, SHEAR=0.2, SHIFT=0.04)
    R = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    A = R @ np.array([[1, 0.2], [0, 1]]) * np.exp(0.1)
    centre = (np.array(shape) - 1) / 2
    offset = centre - A @ centre + 0.08 * np.array(shape) / 2
    expected = scipy.ndimage.affine_transform(
        np.pad(x[0, 0].astype("float64"), 6), A, offset + 6 - A @ np.array([6, 6]), order=1
    )[6:-6, 6:-6]
    np.testing.assert_allclose(augment(x, Fixed())[0, 0], expected, atol=1e-5)


def test_every_image_gets_a_map_of_its_own_and_the_seed_fixes_them():
    x = np.repeat(tg.data.digits("test").images[:1], 4, axis=0)
    y = augment(x, tg.Generator(0))
    assert len({image.tobytes() for image in y}) == 4
    assert (y == augment(x, tg.Generator(0))).all()
    assert y.min() >= 0 and y.max() <= 1


def test_it_learns_and_equal_seeds_give_equal_weights():
    digits = tg.data.digits("train")
    settings = {"widths": (6, 10), "steps": 120, "batch_size": 32, "lr": 1e-2, "progress": False}
    tg.manual_seed(1)
    model = train(digits, **settings)
    tg.manual_seed(2)
    again = train(digits, **settings)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert (a.detach().numpy() == b.detach().numpy()).all(), "it draws from the default generator"
    assert train_classifier.accuracy(model, tg.data.digits("test")) > 0.3, "chance is 0.1"
    assert not model.training


def test_rounding_sets_the_model_to_what_is_stored():
    model = DigitClassifier(rng=tg.Generator(0))
    before = model.head.weight.detach().numpy().copy()
    state = rounded(model)
    assert all(values.dtype == tg.float16 for values in state.values())
    stored = state["head.weight"].numpy().astype("float32")
    assert (model.head.weight.detach().numpy() == stored).all() and (stored != before).any()
    np.testing.assert_allclose(stored, before, atol=1e-3)


def test_the_script_writes_a_file_that_says_what_it_is(tmp_path, capsys):
    out = tmp_path / "c.npz"
    main(["digits", "--steps", "3", "--seed", "4", "--out", str(out)])
    found = tg.load(out)
    assert found["about"]["steps"] == 3 and found["about"]["seed"] == 4
    assert found["about"]["data"] == "digits (train)" and found["about"]["test_images"] == 297
    model = DigitClassifier(found["about"]["image_shape"], found["about"]["widths"])
    model.load_state_dict({name: v.to("float32") for name, v in found["state"].items()})
    assert train_classifier.accuracy(model, tg.data.digits("test")) == found["about"]["test_accuracy"]
    assert str(out) in capsys.readouterr().out


def test_a_diverging_run_writes_nothing(tmp_path, monkeypatch):
    settings = {"widths": (2,), "batch_size": 8, "lr": 1e30, "steps": 100}
    monkeypatch.setitem(train_classifier.SETTINGS, "digits", settings)
    with np.errstate(all="ignore"), pytest.raises(ArithmeticError, match="nothing was written"):
        main(["digits", "--out", str(tmp_path / "c.npz")])
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(tg.data.DataFileError, match="t10k"):
        main(["mnist", "--data-dir", str(tmp_path)])

"""Noise schedules on paper: the curves are ᾱ's, the images are x_t."""

import numpy as np
import pytest

import tinygen as tg
from tinygen import viz
from tinygen.models import NoiseSchedule
from tinygen.viz import schedules
from tinygen_tests.draws import stream
from tinygen_tests.judge import host

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")

LINEAR, COSINE = NoiseSchedule.linear(100), NoiseSchedule.cosine(50)


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved."""
    drawn = []
    monkeypatch.setattr(schedules, "save_figure", lambda path, figure: drawn.append(figure))
    return drawn


def test_the_curves_are_signal_noise_and_their_ratio(figures):
    viz.save_schedule("a.png", {"linear": LINEAR, "cosine": COSINE.alpha_bar})
    left, right = figures[0].axes
    for k, s in enumerate((LINEAR, COSINE)):
        signal, noise = left.lines[2 * k].get_xydata(), left.lines[2 * k + 1].get_xydata()
        np.testing.assert_allclose(signal, np.stack([np.arange(s.T + 1) / s.T, s.signal], 1))
        np.testing.assert_allclose(noise[:, 1], s.noise)
        np.testing.assert_allclose(right.lines[k].get_ydata(), np.log10(s.snr[1:]))


def test_the_images_are_x_t_with_one_noise_for_all(figures):
    rng = stream(0)
    image, noise = tg.rand(1, 4, 4, rng=rng), tg.randn(1, 4, 4, rng=rng)
    viz.save_schedule("a.png", {"linear": LINEAR, "cosine": COSINE}, image, noise, steps=3)
    figure = figures[0]
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 6
    x0, ε = 2 * host(image)[0] - 1, host(noise)[0]
    for axes, s, t in zip(pictures, [LINEAR] * 3 + [COSINE] * 3, (0, 50, 100, 0, 25, 50), strict=True):
        x_t = s.signal[t] * x0 + s.noise[t] * ε
        limit = 2 if t else 1
        expected = np.clip(np.rint((x_t + limit) * 255 / (2 * limit)), 0, 255)
        assert np.abs(axes.images[0].get_array()[:, :, 0].astype(float) - expected).max() <= 1
        assert axes.get_title().endswith(f"{t}")


def test_a_schedule_that_ends_in_pure_noise_and_colour_can_be_drawn(tmp_path):
    rng = stream(0)
    path = viz.save_schedule(tmp_path / "a.png", {"zero": LINEAR.zero_terminal_snr()}, tg.rand(3, 5, 5, rng=rng),
                             tg.randn(3, 5, 5, rng=rng), title="To nothing")  # fmt: skip
    assert path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("arguments, message", [
    (({},), "at least one, got none"),
    (({"a": [1.0]},), r"expected ᾱ₀ = 1.* got shape \(1,\)"),
    (({"a": [0.9, 0.5]},), "expected ᾱ₀ = 1.*got 0.9, 0.5"),
    (({"a": [1.0, 0.5, 0.6]},), "falling towards 0"),
    (({"a": [1.0, -0.5]},), "falling towards 0"),
    (({"a": LINEAR}, np.ones((2, 4, 4)), np.ones((2, 4, 4))), r"image: expected shape \(C, H, W\)"),
    (({"a": LINEAR}, np.ones((1, 4, 4))), "noise: expected ε of the image's shape"),
    (({"a": LINEAR}, np.ones((1, 4, 4)), np.ones((1, 4))), r"the image's shape \(1, 4, 4\), got \(1, 4\)"),
    (({"a": LINEAR}, np.ones((1, 4, 4)), np.full((1, 4, 4), np.nan)), "noise: 16 of 16 values are not finite"),
    (({"a": LINEAR}, np.ones((1, 4, 4)), np.ones((1, 4, 4)), 1), "steps: expected at least 2, got 1"),
    (({"a": LINEAR}, np.ones((1, 4, 4)), np.ones((1, 4, 4)), 5, (1, 1)), "value_range: expected"),
])
def test_errors(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        viz.save_schedule(tmp_path / "a.png", *arguments)
    assert not list(tmp_path.iterdir())

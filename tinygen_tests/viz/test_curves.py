"""Curves: the smoothing formula, gaps, and bad input."""

import numpy as np
import pytest

from tinygen import viz
from tinygen.tensor import Tensor
from tinygen.viz import curves

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")


@pytest.fixture
def figure(monkeypatch):
    """The figures that would have been saved."""
    drawn = []
    monkeypatch.setattr(curves, "save_figure", lambda path, figure: drawn.append(figure))
    return drawn


def test_smoothing_is_the_corrected_average():
    v = np.random.default_rng(0).standard_normal(6)
    beta, s = 0.7, 0.0
    for t, got in enumerate(curves.smoothed(np.arange(6.0), v, beta), start=1):
        s = beta * s + (1 - beta) * v[t - 1]
        assert got == pytest.approx(s / (1 - beta**t), rel=1e-12)


def test_smoothing_forgets_by_the_step():
    """A value repeated at each step in between gives what one value after a longer step gives."""
    steps, v = np.array([0.0, 1.0, 4.0, 10.0]), np.array([1.0, -2.0, 5.0, 3.0])
    dense = np.repeat(v, [1, 1, 3, 6])
    got = curves.smoothed(steps, v, 0.8)
    assert got == pytest.approx(curves.smoothed(np.arange(11.0), dense, 0.8)[[0, 1, 4, 10]], rel=1e-12)
    assert got == pytest.approx(curves.smoothed(steps * 50, v, 0.8, unit=50.0), rel=1e-12)


def test_smoothing_leaves_constants_and_steps_over_gaps():
    v = np.array([2.0, 2.0, np.nan, 2.0, np.inf, 2.0])
    got = curves.smoothed(np.arange(6.0), v, 0.9)
    assert got[[0, 1, 3, 5]] == pytest.approx(2.0, rel=1e-12)
    assert np.isnan(got[2]) and np.isinf(got[4])


def test_what_is_drawn_is_what_was_given(figure):
    steps, values = np.array([0.0, 10.0, 20.0]), np.array([3.0, 1.0, 2.0])
    viz.save_curves("a.png", {"loss": (Tensor(steps), Tensor(values)), "plain": [5.0, 4.0]}, title="T", xlabel="X")
    axes = figure[0].axes[0]
    first, second = axes.lines
    assert (first.get_xdata() == steps).all() and (first.get_ydata() == values).all()
    assert second.get_xdata().tolist() == [0, 1] and second.get_ydata().tolist() == [5, 4]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["loss", "plain"]
    assert axes.get_xlabel() == "X" and axes.get_title(loc="left") == "T"


def test_smoothing_keeps_the_raw_curve_behind(figure):
    viz.save_curves("a.png", {"loss": [4.0, 2.0, 3.0]}, smooth=0.5)
    raw, smooth = figure[0].axes[0].lines
    assert raw.get_ydata().tolist() == [4, 2, 3]
    assert smooth.get_ydata() == pytest.approx(curves.smoothed(np.arange(3.0), np.array([4.0, 2.0, 3.0]), 0.5))


def test_gaps_are_counted_in_the_legend(figure):
    viz.save_curves("a.png", {"loss": [4.0, np.nan, 3.0, np.inf]})
    assert figure[0].axes[0].get_legend().get_texts()[0].get_text() == "loss (2 not drawn: not finite)"
    viz.save_curves("a.png", {"loss": [4.0, 0.0, -3.0]}, logy=True)
    axes = figure[1].axes[0]
    assert "2 not drawn: not positive" in axes.get_legend().get_texts()[0].get_text()
    assert axes.get_yscale() == "log"
    assert np.isnan(axes.lines[0].get_ydata()).tolist() == [False, True, True]


def test_a_single_value_is_a_point(figure):
    viz.save_curves("a.png", {"loss": [4.0]})
    assert figure[0].axes[0].lines[0].get_marker() == "o"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"series": {}}, "at least one curve"),
        ({"series": {"a": [1.0]}, "smooth": 1.0}, r"smooth: expected a number in \[0, 1\), got 1.0"),
        ({"series": {"a": ([1.0, 2.0], [1.0])}}, r"series\['a'\].*steps \(2,\) and values \(1,\)"),
        ({"series": {"a": np.zeros((2, 2))}}, r"series\['a'\].*got shape \(2, 2\)"),
        ({"series": {"a": [np.nan, np.inf]}}, r"series\['a'\]: none of its 2 values is finite"),
        ({"series": {"a": []}}, "none of its 0 values is finite"),
        ({"series": {"a": [0.0, -1.0]}, "logy": True}, "none of its 2 values is finite positive"),
        ({"series": {"a": ([0.0, np.nan], [1.0, 2.0])}}, "steps hold values that are not finite"),
    ],
)
def test_curves_that_cannot_be_drawn_are_named(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        viz.save_curves(tmp_path / "a.png", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_no_label_is_cut(figure):
    viz.save_curves(
        "a.png", {"training loss": [1e5, 1e4], "validation loss": [2e5, 3e4]}, smooth=0.9,
        xlabel="optimisation step", ylabel="nats per image\n(lower is better)", title="A title, gjpqy",
    )  # fmt: skip
    drawn = figure[0]
    box = drawn.get_tightbbox(drawn.canvas.get_renderer())
    width, height = drawn.get_size_inches()
    drawn.canvas.draw()
    box = drawn.get_tightbbox(drawn.canvas.get_renderer())
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height

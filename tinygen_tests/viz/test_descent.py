"""Paths of optimisers: each step is the optimiser's own, and the picture shows all of them."""

import numpy as np
import pytest

import tinygen as tg
from tinygen import viz
from tinygen.viz import descent

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")

VALLEY = lambda x, y: 0.5 * x**2 + 2 * y**2


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved."""
    drawn = []
    monkeypatch.setattr(descent, "save_figure", lambda path, figure: drawn.append(figure))
    return drawn


def test_gradient_descent_takes_the_steps_of_its_formula():
    """w ← w − γ(x, 4y): each coordinate shrinks by its own factor."""
    walk = viz.descend(VALLEY, (3, -1), lambda w: tg.optim.SGD(w, lr=0.1), 5)
    t = np.arange(6)
    np.testing.assert_allclose(walk, np.stack([3 * 0.9**t, -(0.6**t)], 1), rtol=1e-12)


def test_adams_first_step_has_length_lr_in_each_coordinate_whatever_the_slope():
    walk = viz.descend(VALLEY, (3, -1), lambda w: tg.optim.Adam(w, lr=0.1), 1)
    np.testing.assert_allclose(walk, [[3, -1], [2.9, -0.9]], rtol=1e-8)


def test_a_path_ends_with_its_last_finite_point():
    with np.errstate(over="ignore", invalid="ignore"):
        walk = viz.descend(lambda x, y: x**4 + y**4, (3, 3), lambda w: tg.optim.SGD(w, lr=1.0), 50)
    assert np.isfinite(walk).all() and 2 <= len(walk) < 51


def test_the_picture_has_every_point_of_every_path_and_tells_the_height(figures):
    paths = {"a": [[2, 1], [1, 0.5], [0, 0]], "b": [[2, 1], [2, 0]]}
    viz.save_descent("a.png", VALLEY, paths, minimum=(0, 0), title="A valley")
    (axes,) = figures[0].axes
    drawn = [line.get_xydata().tolist() for line in axes.lines]
    assert all(points in drawn for points in paths.values()) and [[0, 0]] in drawn
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["a: f = 0 after 2 steps", "b: f = 2 after 1 steps"]
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    assert x0 < 0 < 2 < x1 and y0 < 0 < 1 < y1


def test_the_surface_is_fs(figures):
    viz.save_descent("a.png", VALLEY, {"a": [[0, 0]]}, x_range=(-3, 3), y_range=(-1, 2))
    (axes,) = figures[0].axes
    assert axes.get_xlim() == (-3, 3) and axes.get_ylim() == (-1, 2)
    lines = [c for c in axes.collections if type(c).__name__ == "QuadContourSet"][-1]
    for path in lines.get_paths()[3:6]:  # a contour is a line of equal height
        x, y = path.vertices[np.isfinite(path.vertices).all(1)].T
        heights = VALLEY(x, y)
        assert np.ptp(heights) < 0.02 * heights.mean()


def test_a_file_is_written_for_the_flat_surface_too(tmp_path):
    assert viz.save_descent(tmp_path / "a.png", lambda x, y: 0 * x, {"a": [[1, 1]]}).stat().st_size > 0


@pytest.mark.parametrize("call, message", [
    (lambda path: viz.descend(VALLEY, (1, 2, 3), tg.optim.SGD), "two finite numbers"),
    (lambda path: viz.descend(VALLEY, (1, np.nan), tg.optim.SGD), "two finite numbers"),
    (lambda path: viz.descend(VALLEY, (1, 2), tg.optim.SGD, 0), "steps: expected at least 1, got 0"),
    (lambda path: viz.descend(lambda x, y: tg.stack([x, y]), (1, 2), tg.optim.SGD), r"one number .*, got shape \(2,\)"),
    (lambda path: viz.save_descent(path, VALLEY, {}), "at least one, got none"),
    (lambda path: viz.save_descent(path, VALLEY, {"a": [1, 2]}), r"shape \(steps \+ 1, 2\), got \(2,\)"),
    (lambda path: viz.save_descent(path, VALLEY, {"a": [[1, np.inf]]}), "not finite"),
    (lambda path: viz.save_descent(path, VALLEY, {"a": [[1, 2]]}, x_range=(1, 1)), "x_range: expected .* low < high"),
    (lambda path: viz.save_descent(path, lambda x, y: x.sum(), {"a": [[1, 2]]}), r"f: expected .* got \(\)"),
    (lambda path: viz.save_descent(path, lambda x, y: x / 0, {"a": [[1, 2]]}), "not finite"),
])
def test_errors(tmp_path, call, message):
    with pytest.raises(ValueError, match=message), np.errstate(all="ignore"):
        call(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())

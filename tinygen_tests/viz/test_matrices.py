"""Matrices on paper: each number in its cell, frames where they were asked for, and bad input."""

import numpy as np
import pytest

from tinygen import viz
from tinygen.tensor import Tensor
from tinygen.viz import matrices

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")

A, B = np.array([[1, 2, 3], [4, -5, 6]]), np.array([[1.5, 0], [0.25, 1], [-2, 100]])


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved."""
    drawn = []
    monkeypatch.setattr(matrices, "save_figure", lambda path, figure: drawn.append(figure))
    return drawn


def cells(figure):
    """The patches' frames and the texts of a picture: [(text, x, y)], [(x, y, width, height, colour)]."""
    axes = figure.axes[0]
    texts = [(t.get_text(), *t.get_position()) for t in axes.texts]
    frames = [(*p.get_xy(), p.get_width(), p.get_height(), p.get_edgecolor()) for p in axes.patches
              if type(p).__name__ == "Rectangle" and p.get_linewidth() > 2]
    return texts, frames


def test_every_number_stands_in_its_cell_and_the_signs_between(figures):
    viz.save_matrices("a.png", {"A": Tensor(A), "B": B, "C": A @ B}, ("·", "="), title="A product")
    texts, _ = cells(figures[0])
    written = [text for text, _, _ in texts]
    assert {"A product", "A", "B", "C", "·", "="} <= set(written)
    assert "−5" in written and "0.25" in written and "1.5" in written and "−4" in written
    x = {text: x for text, x, _ in texts}
    y = {text: y for text, _, y in texts}
    assert x["1.5"] < x["="] < x["−4"] and x["6"] < x["·"] < x["1.5"]
    assert y["1.5"] < y["0.25"] < y["−2"], "rows go down, as they are read"


def test_numbers_have_two_digits_and_no_minus_before_zero(figures):
    viz.save_matrices("a.png", {"A": [[0.256, -0.001, 1.0], [-1.5, 2.0, 7.25]]})
    assert [text for text, _, _ in cells(figures[0])[0]] == ["0.26", "0", "1", "−1.5", "2", "7.25", "A"]


def test_the_kth_frame_of_every_matrix_has_the_kth_colour_and_its_place(figures):
    marks = {"A": [(0, 0, 1, 3), (1, 1, 1, 1)], "B": [(0, 1, 3, 1)]}
    viz.save_matrices("a.png", {"A": A, "B": B}, marks=marks)
    texts, frames = cells(figures[0])
    colours = [colour for *_, colour in frames]
    assert len(frames) == 3 and colours[0] == colours[2] != colours[1]
    inside = [[text for text, a, b in texts if x < a < x + w and y < b < y + h] for x, y, w, h, _ in frames]
    assert inside == [["1", "2", "3"], ["−5"], ["0", "1", "100"]]


def test_colours_say_the_sign_and_the_size_within_the_matrix(figures):
    viz.save_matrices("a.png", {"A": [[-2.0, 0.0, 2.0]]})
    mesh = figures[0].axes[0].collections[0]
    mesh.update_scalarmappable()
    below, zero, above = mesh.get_facecolors()[:, :3]
    assert (zero > 0.99).all() and below[0] > below[2] and above[2] > above[0]


def test_texts_stay_on_the_paper_and_off_each_other(figures):
    viz.save_matrices("a.png", {"a title that is longer than its matrix": [[1]], "B": 1000 * B}, ("·",), title="g" * 60)
    figure = figures[0]
    figure.canvas.draw()
    boxes = [t.get_window_extent(figure.canvas.get_renderer()) for t in figure.axes[0].texts]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_many_numbers_are_colours_only_and_too_many_are_refused(figures, tmp_path):
    viz.save_matrices("a.png", {"A": np.ones((30, 30))})
    assert [t.get_text() for t in figures[0].axes[0].texts] == ["A"]
    with pytest.raises(ValueError, match="40401 cells cannot be read in one picture, at most 40000"):
        viz.save_matrices(tmp_path / "a.png", {"A": np.ones((201, 201))})


def test_a_file_is_written(tmp_path):
    assert viz.save_matrices(tmp_path / "a.png", {"row": [1, 2]}).read_bytes()[:4] == b"\x89PNG"
    assert viz.save_matrices(tmp_path / "a.svg", {"zeros": np.zeros((2, 2))}).stat().st_size > 0


@pytest.mark.parametrize("arguments, message", [
    (({},), "at least one, got none"),
    (({"A": A, "B": B}, ("·", "=")), "expected 1, one between every two matrices, got 2"),
    (({"A": A}, (), {"B": [(0, 0, 1, 1)]}), "there is no matrix 'B'; there are 'A'"),
    (({"A": A[None]},), r"shape \(rows, columns\), got \(1, 2, 3\)"),
    (({"A": A[:0]},), r"got \(0, 3\)"),
    (({"A": [[np.nan]]},), "not finite"),
    (({"A": A}, (), {"A": [(1, 0, 2, 1)]}), r"2 rows and 1 columns from \(1, 0\) reaches outside .* \(2, 3\)"),
    (({"A": A}, (), {"A": [(0, 3, 1, 1)]}), "reaches outside"),
    (({"A": A}, (), {"A": [(-1, 0, 1, 1)]}), "reaches outside"),
    (({"A": A}, (), {"A": [(0, 0, 0, 1)]}), "reaches outside"),
])
def test_errors(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        viz.save_matrices(tmp_path / "a.png", *arguments)
    assert not list(tmp_path.iterdir())

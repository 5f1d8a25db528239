"""What the pictures of a convolution say is what the convolution computes."""

import numpy as np
import pytest

import tinygen as tg
import tinygen.nn.functional as F
from tinygen import viz
from tinygen.viz import windows
from tinygen_tests.draws import stream
from tinygen_tests.judge import host

pytest.importorskip("matplotlib", reason="the pictures are drawn with matplotlib")

X, W = np.arange(1.0, 17).reshape(4, 4), np.array([[1, 1, 1], [2, 0, 1], [-1, -1, 0]])


@pytest.fixture
def drawn(monkeypatch):
    """The rows of panels that would have been drawn."""
    rows = []
    monkeypatch.setattr(windows, "draw_panels", lambda path, panels, title="": rows.append(panels))
    return rows


def framed(panel, k):
    row, column, rows, columns = panel.marks[k]
    return panel.array[row : row + rows, column : column + columns]


def test_im2col_of_the_lectures_example(drawn):
    viz.save_im2col("a.png", X, W, bias=3)
    (x, w, y), (flat, columns, result) = drawn[0]
    assert y.array.tolist() == [[7, 11], [23, 27]] and result.array.tolist() == [[7, 11, 23, 27]]
    np.testing.assert_array_equal(flat.array @ columns.array + 3, result.array)
    assert (x.faint is None or not x.faint.any()) and y.sign == result.sign == "+3 ="


@pytest.mark.parametrize("s, p, d", [(1, 0, 1), (2, 1, 1), ((1, 2), (0, 2), (1, 1)), (1, 2, 2), (3, 1, 1)])
def test_a_framed_window_holds_what_its_column_holds_and_gives_the_framed_number(drawn, s, p, d):
    image = tg.randn(5, 6, rng=stream(0), dtype=tg.float64)
    viz.save_im2col("a.png", image, W, -0.5, s, p, d, marked=(0, 1, -1))
    (x, w, y), (flat, columns, result) = drawn[0]
    weight, bias = tg.tensor(W, dtype=tg.float64)[None, None], tg.tensor([-0.5], dtype=tg.float64)
    expected = F.conv2d(image[None, None], weight, bias, s, p, d)
    np.testing.assert_allclose(y.array, host(expected)[0, 0])
    step = (d, d) if isinstance(d, int) else d
    for k in range(3):
        column = framed(columns, k)
        np.testing.assert_array_equal(framed(x, k)[:: step[0], :: step[1]].reshape(-1, 1), column)
        np.testing.assert_allclose(flat.array @ column - 0.5, framed(y, k))
        np.testing.assert_allclose(framed(result, k), framed(y, k))
    assert (x.array[x.faint] == 0).all() and (~x.faint).sum() == 30


def test_a_large_picture_shows_its_columns_without_numbers(drawn, tmp_path):
    viz.save_im2col("a.png", np.ones((20, 20)), W)
    above, below = drawn[0]
    assert [panel.array.shape for panel in below] == [(9, 324)] and len(above) == 3


def test_zero_insertion_of_the_lectures_example(drawn):
    """Unflipped it is the lectures' matrix, flipped it is conv_transpose2d."""
    viz.save_zero_insertion("a.png", [[1, 2], [3, 4]], [[1, -1], [2, 1]], flip=False)
    viz.save_zero_insertion("a.png", [[1, 2], [3, 4]], [[1, -1], [2, 1]])
    (_, between, around, w, y), (*_, turned, z) = drawn[0][0], drawn[1][0]
    assert y.array.tolist() == [[1, 2, 2, 4], [-1, 1, -2, 2], [3, 6, 4, 8], [-3, 3, -4, 4]]
    assert z.array.tolist() == [[1, -1, 2, -2], [2, 1, 4, 2], [3, -3, 4, -4], [6, 3, 8, 4]]
    assert w.array.tolist() == [[1, -1], [2, 1]] and turned.array.tolist() == [[1, 2], [-1, 1]]
    assert between.array.tolist() == [[1, 0, 2], [0, 0, 0], [3, 0, 4]] and around.array.shape == (5, 5)
    assert around.array[~around.faint].tolist() == between.array[~between.faint].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("s", [1, 2, (3, 1)])
@pytest.mark.parametrize("p", [0, 1, (2, 0)])
@pytest.mark.parametrize("flip", [True, False])
def test_the_shown_filter_slid_over_the_shown_zeros_gives_the_framed_numbers(drawn, s, p, flip):
    image = tg.randn(3, 4, rng=stream(1), dtype=tg.float64)
    viz.save_zero_insertion("a.png", image, W, s, p, flip, marked=(0, 2, -1))
    (_, _, z, w, y), = drawn[0]
    weight = tg.tensor(W if flip else W[::-1, ::-1].copy(), dtype=tg.float64)[None, None]
    np.testing.assert_allclose(y.array, host(F.conv_transpose2d(image[None, None], weight, None, s, p))[0, 0])
    for k in range(3):
        np.testing.assert_allclose((framed(z, k) * w.array).sum(), framed(y, k).item(), atol=1e-12)


def test_files_are_written(tmp_path):
    viz.save_im2col(tmp_path / "a.png", X, W, padding=1, title="A title")
    viz.save_zero_insertion(tmp_path / "b.svg", X, W, padding=1)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("call, message", [
    (lambda path: viz.save_im2col(path, X[0], W), r"image: expected shape \(H, W\), got \(4,\)"),
    (lambda path: viz.save_im2col(path, X, W[:0]), r"filter: expected shape \(H, W\), got \(0, 3\)"),
    (lambda path: viz.save_im2col(path, X + np.inf, W), "image: 16 of 16 values are not finite"),
    (lambda path: viz.save_im2col(path, X[:2], W), "the filter spans 3×3"),
    (lambda path: viz.save_im2col(path, X, W, stride=0), "stride must be at least 1"),
    (lambda path: viz.save_im2col(path, X, W, marked=(4,)), "there are 4 window positions, 0 to 3, got 4"),
    (lambda path: viz.save_im2col(path, np.ones((300, 300)), W), "cells cannot be read"),
    (lambda path: viz.save_zero_insertion(path, X[None], W), r"image: expected shape \(H, W\), got \(1, 4, 4\)"),
    (lambda path: viz.save_zero_insertion(path, X, W, padding=3), r"at most .* \(2, 2\), got \(3, 3\)"),
    (lambda path: viz.save_zero_insertion(path, X, W, marked=(-82,)), "there are 81 window positions"),
])
def test_errors(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())

"""The batch-last convolution computes what the portable kernels define, for odd sizes, edges and many pictures."""

import numpy as np
import pytest

from tinygen.kernels import batch_last, batch_last_tiles, threads, windows
from tinygen.kernels.windows import Window

pytestmark = pytest.mark.cpu_only("NumPy's kernels")


def _window(size, kernel, stride, padding):
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding))
    return Window(size, kernel, out, stride, padding, (1, 1))


# (N, C, O), size, kernel, stride, padding. The comments name the path that each is there for.
CASES = [
    ((32, 23, 7), (9, 8), (3, 3), (1, 1), (1, 1)),  # one product for each column of taps
    ((32, 23, 7), (9, 8), (3, 3), (1, 1), (0, 0)),  # no edge at all
    ((16, 1, 8), (9, 8), (4, 4), (2, 2), (1, 1)),  # few numbers in a window: gathered
    ((48, 40, 24), (10, 12), (4, 4), (2, 2), (1, 1)),  # a stride: place by place
    ((20, 33, 16), (7, 7), (3, 2), (2, 1), (2, 3)),  # windows beside the picture; no multiple of 16 pictures
    ((400, 20, 16), (7, 7), (3, 3), (1, 1), (1, 1)),  # pictures divided among tasks
    ((16, 64, 1), (7, 9), (3, 3), (1, 1), (1, 1)),  # one channel out: multiplied first, then added
    ((16, 6, 4), (5, 5), (1, 1), (2, 2), (0, 0)),
    ((16, 70, 5), (5, 5), (5, 5), (1, 1), (4, 4)),  # no tap is inside for every place
    ((64, 192, 64), (4, 4), (3, 3), (1, 1), (1, 1)),  # weight gradient for a part of the channels out at a time
    ((200, 70, 128), (5, 5), (3, 3), (1, 1), (1, 1)),  # a window too large for a product without packing
    ((16, 3, 70), (6, 1), (3, 1), (3, 1), (0, 0)),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("counts", "size", "kernel", "stride", "padding"), CASES)
@pytest.mark.parametrize("shared", [True, False])
def test_the_three_products_are_those_of_the_definition(
    monkeypatch, shared, counts, size, kernel, stride, padding, dtype
):
    """Cut into tasks for several threads, or for one alone."""
    monkeypatch.setattr(batch_last_tiles, "_SERIAL", 0 if shared else 1 << 60)
    N, C, O = counts
    draw = np.random.default_rng(0)
    window = _window(size, kernel, stride, padding)
    x = draw.standard_normal((N, C, *size)).astype(dtype)
    w = draw.standard_normal((O, C, *kernel)).astype(dtype)
    g = draw.standard_normal((N, O, *window.out)).astype(dtype)
    b, c = draw.standard_normal(O).astype(dtype), draw.standard_normal(C).astype(dtype)
    assert batch_last.suits(x, window, 1) == (N >= 16)
    for bias, shift in ((b, c), (None, None)):
        _close(batch_last.conv2d(x, w, bias, window), windows.conv2d(x, w, bias, window, 1))
        _close(batch_last.conv_transpose2d(g, w, shift, window), windows.conv_transpose2d(g, w, shift, window, 1))
    _close(batch_last.conv2d_weight_gradient(x, g, window), windows.conv2d_weight_gradient(x, g, window, 1))


def _close(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    accuracy = 1e-12 if found.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found, expected, rtol=0, atol=accuracy * np.abs(expected).max())


def test_results_lie_batch_last_on_a_cache_line_and_are_taken_as_they_lie():
    x, window = np.ones((16, 8, 6, 6), np.float32), _window((6, 6), (3, 3), (1, 1), (1, 1))
    y = batch_last.conv2d(x, np.ones((8, 8, 3, 3), np.float32), None, window)
    assert y.transpose(2, 1, 3, 0).flags.c_contiguous and y.ctypes.data % 64 == 0
    assert np.shares_memory(batch_last.batch_last(y), y)
    assert not np.shares_memory(batch_last.batch_last(x), x)
    np.testing.assert_array_equal(batch_last.batch_last(x + np.arange(6)), (x + np.arange(6)).transpose(2, 1, 3, 0))


def test_an_array_off_the_cache_line_gives_the_same_bits():
    draw, window = np.random.default_rng(1), _window((5, 6), (3, 3), (1, 1), (1, 1))
    w = draw.standard_normal((8, 16, 3, 3)).astype(np.float32)
    room = np.empty(5 * 16 * 6 * 32 + 32, np.float32)
    found = []
    for k in range(2):
        start = (-room.ctypes.data // 4) % 16 + k
        x = room[start : start + 5 * 16 * 6 * 32].reshape(5, 16, 6, 32)
        x[...] = np.random.default_rng(2).standard_normal(x.shape)
        found.append(batch_last.conv2d(x.transpose(3, 1, 0, 2), w, None, window))
    np.testing.assert_array_equal(*found)


def test_the_number_of_threads_does_not_change_a_bit(monkeypatch):
    monkeypatch.setattr(batch_last_tiles, "_SERIAL", 0)
    draw, window = np.random.default_rng(3), _window((14, 14), (3, 3), (1, 1), (1, 1))
    x = draw.standard_normal((64, 32, 14, 14)).astype(np.float32)
    w = draw.standard_normal((32, 32, 3, 3)).astype(np.float32)
    before, found = threads.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            y = batch_last.conv2d(x, w, None, window)
            found.append((y, batch_last.conv_transpose2d(y, w, None, window), batch_last.channel_sums(y)))
            found[-1] += (batch_last.conv2d_weight_gradient(x, y, window),)
    finally:
        threads.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_channel_sums_of_every_row():
    y = np.random.default_rng(4).standard_normal((5, 3, 7, 16)).transpose(3, 1, 0, 2)
    np.testing.assert_allclose(batch_last.channel_sums(y), y.sum((0, 2, 3)), rtol=1e-12)


def test_what_is_left_to_the_other_kernels():
    window = _window((6, 6), (3, 3), (1, 1), (1, 1))
    x = np.zeros((16, 4, 6, 6), np.float32)
    assert batch_last.suits(x, window, 1)
    assert not batch_last.suits(x[:15], window, 1)
    assert not batch_last.suits(x[:, :0], window, 1)
    assert not batch_last.suits(x, window, 2)
    assert not batch_last.suits(x, window._replace(dilation=(2, 1)), 1)

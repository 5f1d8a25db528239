"""Convolution in small groups computes what the portable kernels define, for odd sizes, edges and many pictures."""

import numpy as np
import pytest

from tinygen.kernels import cpu, grouped, threads, windows
from tinygen.kernels.windows import Window
from tinygen_tests.judge import strided

pytestmark = pytest.mark.cpu_only("NumPy's kernels")


def _window(size, kernel, stride, padding):
    out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding))
    return Window(size, kernel, out, stride, padding, (1, 1))


# (N, groups, c, o), size, kernel, stride, padding. The comments name what each is there for.
CASES = [
    ((32, 23, 1, 1), (9, 8), (3, 3), (1, 1), (1, 1)),  # depthwise
    ((32, 5, 1, 1), (9, 19), (5, 3), (1, 1), (2, 1)),  # several runs in a row, the last one shorter
    ((32, 3, 1, 2), (8, 7), (3, 4), (2, 1), (1, 2)),  # a vertical stride, and two filters for each channel
    ((32, 6, 1, 3), (8, 9), (3, 3), (1, 1), (0, 0)),  # several filters for each channel, no edge
    ((48, 3, 4, 2), (10, 13), (4, 4), (2, 2), (1, 1)),  # a stride, which the sizes are no multiple of
    ((33, 2, 2, 5), (7, 7), (3, 2), (2, 3), (2, 3)),  # windows beside the picture; no multiple of 16 pictures
    ((400, 3, 1, 1), (5, 6), (3, 3), (1, 1), (1, 1)),  # pictures divided among steps
    ((32, 2, 16, 16), (40, 6), (3, 3), (1, 1), (1, 1)),  # rows divided among steps
    ((32, 4, 1, 1), (7, 9), (1, 2), (4, 5), (0, 0)),  # remainders of the transposed that no tap meets
    ((32, 2, 3, 2), (4, 4), (5, 5), (1, 1), (4, 4)),  # no tap is inside for every place
    ((32, 2, 1, 1), (3, 3), (1, 1), (1, 1), (2, 2)),  # windows that see nothing at all
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("counts", "size", "kernel", "stride", "padding"), CASES)
def test_the_three_products_are_those_of_the_definition(counts, size, kernel, stride, padding, dtype):
    N, groups, c, o = counts
    C, O = groups * c, groups * o
    draw = np.random.default_rng(0)
    window = _window(size, kernel, stride, padding)
    x = draw.standard_normal((N, C, *size)).astype(dtype)
    w = draw.standard_normal((O, c, *kernel)).astype(dtype)
    g = draw.standard_normal((N, O, *window.out)).astype(dtype)
    a, b = draw.standard_normal(C).astype(dtype), draw.standard_normal(O).astype(dtype)
    for bias, shift in ((b, a), (None, None)):
        _close(grouped.conv2d(x, w, bias, window, groups), windows.conv2d(x, w, bias, window, groups))
        expected = windows.conv_transpose2d(g, w, shift, window, groups)
        _close(grouped.conv_transpose2d(g, w, shift, window, groups), expected)
    expected = windows.conv2d_weight_gradient(x, g, window, groups)
    _close(grouped.conv2d_weight_gradient(x, g, window, groups), expected)
    _close(grouped.conv2d_weight_gradient(strided(x), strided(g), window, groups), expected)


def _close(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    accuracy = 1e-12 if found.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found, expected, rtol=0, atol=accuracy * np.abs(expected).max())


def poisoned(name, shape, dtype):
    """Scratch memory that holds NaN, as it may."""
    array = threads.scratch(name, shape, dtype)
    array[...] = np.nan
    return array


@pytest.mark.parametrize("step", [1, 20000])
def test_steps_of_any_size_cover_everything_once(step, monkeypatch):
    monkeypatch.setattr(grouped, "_STEP", step)
    monkeypatch.setattr(grouped, "scratch", poisoned)
    grouped._steps.cache_clear()
    for counts, size, kernel, stride, padding in CASES[1:6]:
        test_the_three_products_are_those_of_the_definition(counts, size, kernel, stride, padding, np.float64)
    grouped._steps.cache_clear()


def test_the_number_of_threads_does_not_change_a_bit_and_results_lie_batch_last():
    draw, window = np.random.default_rng(3), _window((14, 14), (3, 3), (1, 1), (1, 1))
    x = draw.standard_normal((64, 32, 14, 14)).astype(np.float32)
    w = draw.standard_normal((32, 1, 3, 3)).astype(np.float32)
    before, found = threads.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            y = cpu.conv2d(x, w, w[:, 0, 0, 0], window, 32)
            found.append((y, cpu.conv_transpose2d(y, w, None, window, 32)))
            found[-1] += (cpu.conv2d_weight_gradient(x, y, window, 32),)
    finally:
        threads.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    for y in found[0][:2]:
        assert y.transpose(2, 1, 3, 0).flags.c_contiguous and y.ctypes.data % 64 == 0


def test_what_is_left_to_the_other_kernels():
    window = _window((6, 6), (3, 3), (1, 1), (1, 1))
    x = np.zeros((16, 8, 6, 6), np.float32)
    assert grouped.suits(x, 1, 2, window, 8)
    assert not grouped.suits(x, 8, 8, window, 1)
    assert not grouped.suits(x[:15], 1, 2, window, 8)
    assert not grouped.suits(x[:, :0], 1, 2, window, 8)
    assert not grouped.suits(x, 4, 17, window, 2)
    assert not grouped.suits(x, 1, 2, window._replace(dilation=(2, 1)), 8)

"""Windows on raw arrays: what they see, padding, and the products for any array library."""

import numpy as np
import pytest
from hypothesis import given, settings

from tinygen.kernels import windows
from tinygen.kernels.windows import Window, add_patches, padded, patches
from tinygen_tests.draws import numbers, seeds
from tinygen_tests.kernels.test_cpu import geometries, operands, reference


def test_patches_are_a_view_where_nothing_is_padded():
    x = numbers(0, (2, 5, 6, 3)).transpose(0, 3, 1, 2)
    seen = patches(x, Window((5, 6), (2, 3), (2, 2), (2, 2), (0, 0), (1, 1)))
    assert np.shares_memory(seen, x) and seen.shape == (2, 2, 2, 2, 3, 3)
    np.testing.assert_array_equal(seen[1, 1, 0, 1, 2], x[1, :, 3, 2])


def test_padded_reads_no_more_than_the_windows_do():
    x = np.ones((1, 1, 4, 4))
    assert padded(x, Window((4, 4), (2, 2), (1, 1), (2, 2), (1, 1), (1, 1))).shape == (1, 2, 2, 1)
    far = padded(x, Window((4, 4), (1, 1), (2, 2), (1, 1), (3, 3), (1, 1)))
    np.testing.assert_array_equal(far[0, :, :, 0], np.zeros((2, 2)))


@settings(max_examples=50)
@given(geometry=geometries(), seed=seeds)
def test_add_patches_is_the_adjoint_of_patches(geometry, seed):
    (x, _, _), _, window, _ = operands(geometry, seed)
    seen = patches(x, window)
    p = numbers(seed, seen.shape)
    assert (seen * p).sum() == pytest.approx((x * add_patches(p, window)).sum(), abs=1e-10)


def test_sums_of_float16_keep_their_digits():
    """2048 + 1 is 2048 in float16."""
    window = Window((1, 4199), (1, 2100), (1, 2100), (1, 1), (0, 0), (1, 1))
    y = add_patches(np.ones((1, 1, 2100, 1, 2100, 1), "float16"), window)
    assert y.dtype == "float16" and y[0, 0, 0, 2099] == 2100
    assert windows.channel_sums(np.ones((3000, 1, 1, 1), "float16")) == np.array([3000], "float16")


@settings(max_examples=50)
@given(geometry=geometries(), seed=seeds)
def test_products_are_the_derivatives_of_the_form(geometry, seed):
    (x, w, y), (b, c), window, groups = operands(geometry, seed)
    expected = reference(x, w, y, window, groups)
    np.testing.assert_allclose(windows.conv2d(x, w, b, window, groups), expected[0] + b[:, None, None])
    np.testing.assert_allclose(windows.conv_transpose2d(y, w, c, window, groups), expected[1] + c[:, None, None])
    np.testing.assert_allclose(windows.conv2d_weight_gradient(x, y, window, groups), expected[2], atol=1e-12)
    np.testing.assert_allclose(windows.channel_sums(y), y.sum((0, 2, 3)))

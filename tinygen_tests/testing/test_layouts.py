"""Layouts: the same numbers, elsewhere in memory."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.backend import move
from tinygen.testing.layouts import LAYOUTS, laid_out, layouts_of
from tinygen_tests.judge import host


@pytest.mark.parametrize("ndim", range(5))
def test_layouts_differ_in_memory_and_not_in_numbers(ndim):
    a = np.random.default_rng(0).standard_normal((2, 3, 4, 5)[:ndim])
    seen = {}
    for layout in layouts_of(ndim):
        b = laid_out(a, layout)
        assert not np.may_share_memory(a, b)
        if layout != "broadcast":
            np.testing.assert_array_equal(a, b)
            seen[b.strides] = layout
        else:
            assert 0 in b.strides and not b.flags.writeable
    assert len(seen) == len([k for k in layouts_of(ndim) if k != "broadcast"])
    assert set(layouts_of(4)) == set(LAYOUTS)
    with pytest.raises(ValueError, match="expected a layout of contiguous, .*; got 'diagonal'"):
        laid_out(a, "diagonal")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "bool"])
def test_layouts_are_made_where_the_array_is(layout, dtype):
    a = np.arange(12).reshape(2, 3, 2).astype(dtype)
    b = laid_out(move(a, tg.get_default_device()), layout)
    expected = np.broadcast_to(a[:, :, :1], a.shape) if layout == "broadcast" else a
    np.testing.assert_array_equal(host(tg.Tensor(b)), expected)
    assert b.dtype == dtype


def test_a_copy_is_made_where_there_is_nothing_to_repeat():
    for shape in [(), (1,), (0, 1)]:
        a = np.zeros(shape)
        for layout in LAYOUTS:
            assert laid_out(a, layout).shape == shape and laid_out(a, layout) is not a


def test_gaps_are_poisoned():
    """What is read between the numbers is NaN, so an op that ignores strides does not go unnoticed."""
    b = laid_out(np.ones((2, 3)), "gaps")
    assert np.isnan(b.base).sum() == b.base.size - 6

"""Copies into another order of memory: equal to an assignment, in slices, on any number of threads."""

from itertools import permutations

import numpy as np
import pytest

from tinygen.kernels import reordering, threads
from tinygen.kernels.reordering import concatenate, copy_into
from tinygen_tests.draws import numbers
from tinygen_tests.judge import strided

pytestmark = pytest.mark.cpu_only("the order of axes in memory")


def lying(a, order):
    """The same numbers, with the axes in this order in memory, the last innermost."""
    return np.ascontiguousarray(a.transpose(order)).transpose([order.index(d) for d in range(a.ndim)])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", [(5, 3, 4, 70), (70, 3, 4, 5), (65, 1, 3, 130), (64, 7, 2, 3)])
def test_equals_an_assignment_whatever_the_orders(shape, count, monkeypatch):
    monkeypatch.setattr(reordering, "_WORTH", 0)
    before = threads.get_num_threads()
    threads.set_num_threads(count)
    try:
        a = numbers(0, shape)
        for order in permutations(range(4)):
            for x, y in [
                (lying(a, list(order)), np.zeros(shape)),
                (a, lying(np.zeros(shape), list(order))),
                (a[::-1], lying(np.zeros(shape), list(order))[:, :, ::-1]),
                (lying(strided(a), list(order)), strided(np.zeros(shape))),
                (lying(a.astype("float32"), list(order)), np.zeros(shape)),
            ]:
                copy_into(y, x)
                np.testing.assert_array_equal(y, x)
    finally:
        threads.set_num_threads(before)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (3, 0, 2), (1, 1, 4), (200,), (1, 300, 1)])
def test_small_and_empty_shapes(shape):
    x, y = numbers(0, shape), np.full(shape, np.nan)
    copy_into(y, x)
    np.testing.assert_array_equal(y, x)


def test_a_broadcast_gradient_is_written_out():
    x, y = np.broadcast_to(numbers(0, (1, 40, 1)), (70, 40, 3)), np.zeros((3, 40, 70)).T
    copy_into(y, x)
    np.testing.assert_array_equal(y, x)


def test_slices_are_thin_enough_for_the_cache(monkeypatch):
    copies = []
    monkeypatch.setattr(reordering.np, "copyto", lambda y, x, copy=np.copyto: copies.append(x.shape) or copy(y, x))
    pictures = numbers(0, (128, 8, 5, 7))
    inner = lying(pictures, [2, 1, 3, 0])
    copy_into(inner, pictures)
    assert copies == [(32, 2, 5, 7)] * 16  # two cache lines of each place and channel at a time
    copies.clear()
    pictures = numbers(0, (128, 16, 12, 12))
    copy_into(np.empty(pictures.shape), lying(pictures, [2, 1, 3, 0]))
    assert copies == [(1, 128, 12, 12)] * 16  # one channel at a time


def test_large_copies_are_shared_and_small_ones_are_not(monkeypatch):
    shared = []
    monkeypatch.setattr(reordering, "run", lambda tasks, worth: shared.append(worth) or threads.run(tasks, worth))
    for n in (64, 4096):
        copy_into(np.empty((64, n)), numbers(0, (n, 64)).T)
    assert shared == [False, True]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_concatenate_keeps_the_first_ones_order(axis, order):
    shapes = [tuple(n if d == axis else 4 for d in range(3)) for n in (3, 0, 1, 5)]
    arrays = [lying(numbers(i, shape), list(order) if i != 2 else [0, 1, 2]) for i, shape in enumerate(shapes)]
    y = concatenate(arrays, axis)
    np.testing.assert_array_equal(y, np.concatenate(arrays, axis))
    assert sorted(range(3), key=lambda d: -y.strides[d]) == list(order)

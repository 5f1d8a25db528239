"""The tasks of a batch-last convolution: nothing is left out or done twice, and threads get equal shares."""

import numpy as np
import pytest

from tinygen.kernels.batch_last_tiles import cut, reached, spans, worth

pytestmark = pytest.mark.cpu_only("NumPy's kernels")


@pytest.mark.parametrize("work", [9, 1 << 14, 1 << 18, 1 << 20])
@pytest.mark.parametrize("N", [16, 33, 128, 400])
@pytest.mark.parametrize("shared", [True, False])
def test_tasks_cover_every_row_of_every_picture_once(shared, N, work):
    for oh in range(1, 30):
        times = np.zeros((N, oh), int)
        for n0, n1, i0, i1 in cut(N, oh, work, shared):
            times[n0:n1, i0:i1] += 1
        assert (times == 1).all(), oh


def test_an_odd_number_of_rows_is_shared_by_two_threads():
    tiles = cut(128, 7, 1 << 19, True)
    assert [n1 - n0 for n0, n1, _, _ in tiles] == [128] * 6 + [64] * 2
    assert [i1 - i0 for _, _, i0, i1 in tiles] == [1] * 8


def test_little_work_is_done_in_four_tasks():
    assert [i1 - i0 for _, _, i0, i1 in cut(128, 7, 1 << 18, True)] == [2, 2, 2, 1]
    assert len(cut(128, 28, 1 << 18, True)) == 28


def test_one_thread_takes_all_rows_of_some_pictures():
    assert cut(128, 28, 9, False) == ((0, 128, 0, 28),)
    assert cut(400, 28, 1 << 20, False) == ((0, 128, 0, 28), (128, 256, 0, 28), (256, 400, 0, 28))


@pytest.mark.parametrize("padding", [-1, 0, 1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("size", "taps", "out"), [(7, 3, 6), (5, 5, 9), (1, 4, 3)])
def test_taps_inside_the_picture_are_those_of_the_definition(size, taps, out, stride, padding):
    inside = {(i, u) for i in range(out) for u in range(taps) if 0 <= stride * i - padding + u < size}
    found = spans(0, out, size, taps, stride, padding)
    assert {(i, u) for a, b, first, last in found for i in range(a, b) for u in range(first, last)} == inside
    assert [i for a, b, *_ in found for i in range(a, b)] == list(range(out))
    assert {(i, u) for u, a, b in reached(out, size, taps, stride, padding) for i in range(a, b)} == inside


def test_numbers_moved_count_as_work():
    n = 1 << 19  # as long as 2²⁵ multiplications
    assert not worth((3 << 24) - 1, n) and worth(3 << 24, n)
    assert not worth(0, 2 * n) and worth(0, 3 * n)

"""New arrays: aligned, in the order of their model, and told from views."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.kernels.arrays import empty_like, owns_memory
from tinygen_tests.draws import numbers


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_array_begins_on_a_cache_line_in_the_same_order(order, dtype):
    x = np.zeros((30, 40, 50), dtype).transpose(order)
    for y in [empty_like(x) for _ in range(4)]:
        assert (y.shape, y.dtype, y.strides) == (x.shape, x.dtype, x.strides)
        assert y.ctypes.data % 64 == 0
        y[...] = 1  # all of it is ours
        assert y.sum() == y.size


def test_axes_of_length_one_keep_their_strides():
    x = np.zeros((128, 28, 28, 1), "float32").transpose(0, 3, 1, 2)
    assert empty_like(x).strides == x.strides


@pytest.mark.parametrize("x", [np.zeros((300, 200))[:, ::2], np.broadcast_to(np.zeros(200), (200, 200)), np.zeros(())])
def test_gaps_repetitions_and_small_arrays_are_left_to_numpy(x):
    y = empty_like(x)
    assert y.shape == x.shape and y.base is None


def test_an_array_is_told_from_a_view():
    y = empty_like(np.zeros((100, 300)))
    assert y.base is not None and owns_memory(y) and owns_memory(np.zeros(3))
    assert not any(map(owns_memory, (y[1:], y.reshape(-1), y.T, np.zeros(3)[:2])))


@pytest.mark.cpu_only("memory of NumPy's arrays")
def test_a_gradient_in_an_array_of_its_own_is_handed_over_without_a_copy(monkeypatch):
    x = tg.tensor(numbers(0, (300, 200)), requires_grad=True)
    monkeypatch.setattr(tg.Tensor, "clone", lambda self: pytest.fail("copied"))
    (g,) = tg.grad(tg.nn.functional.silu(x), x, tg.ones_like(x))
    assert g.data.base is not None and owns_memory(g.data)

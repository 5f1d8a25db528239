"""Sums over positions and scales per channel equal the formulas, in any memory order."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.kernels import blocks, channels
from tinygen.kernels.channels import pairwise, row_sum, scaled_sum, sum_product
from tinygen_tests.draws import numbers
from tinygen_tests.judge import strided


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def batch_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 0, -1)).transpose(x.ndim - 1, *range(x.ndim - 1))


SHAPES = [(3, 4, 6, 6), (2, 5, 7, 3), (5, 3, 16), (1, 1, 1, 1), (0, 3, 2, 2), (2, 3, 0, 4), (2, 3, 4, 2, 2)]


@pytest.mark.parametrize("order", [np.ascontiguousarray, channels_last, strided])
@pytest.mark.parametrize("shape", SHAPES)
def test_scaled_sum(order, shape, monkeypatch):
    monkeypatch.setattr(blocks, "_SMALL", 0)
    monkeypatch.setattr(blocks, "_BLOCK", 200)
    x, z = (order(numbers(i, shape)) for i in range(2))
    wide = (*shape[:2], *[1] * (len(shape) - 2))
    s, t, b = numbers(2, wide), numbers(3, (1, *wide[1:])), numbers(4, wide)
    np.testing.assert_allclose(scaled_sum([x], [s]), x * s, rtol=1e-15)
    np.testing.assert_allclose(scaled_sum([x], [t], b), x * t + b, rtol=1e-14, atol=1e-15)
    y = scaled_sum([x, z], [s, t], b)
    np.testing.assert_allclose(y, x * s + z * t + b, rtol=1e-14, atol=1e-15)
    if order is not strided and x.size:
        assert y.strides == x.strides


def test_scaled_sum_with_scales_that_differ_from_place_to_place():
    """As in a layer norm, whose groups are not channels."""
    x = numbers(0, (4, 1, 3, 5))
    s = numbers(1, (4, 1, 3, 1))
    np.testing.assert_allclose(scaled_sum([x], [s]), x * s, rtol=1e-15)
    np.testing.assert_allclose(scaled_sum([x[:, 0]], [s[:, 0]], s[:, 0]), x[:, 0] * s[:, 0] + s[:, 0], rtol=1e-14)
    np.testing.assert_allclose(scaled_sum([x[:, 0, 0]], [s[:, 0, 0]]), x[:, 0, 0] * s[:, 0, 0], rtol=1e-15)


def test_several_rows_lie_side_by_side():
    assert channels.side_by_side(64, 32) == 8
    assert channels.side_by_side(49, 4) == 1 and channels.side_by_side(784, 64) == 16
    assert channels.side_by_side(1, 5000) == 1


@pytest.mark.parametrize("order", [np.ascontiguousarray, channels_last, strided])
@pytest.mark.parametrize("shape", SHAPES)
def test_sum_product(order, shape):
    x, z = (order(numbers(i, shape)) for i in range(2))
    positions = tuple(range(2, len(shape)))
    np.testing.assert_allclose(sum_product(positions, x), x.sum(positions), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(sum_product(positions, x, z), (x * z).sum(positions), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(sum_product((0, *positions), x, z), (x * z).sum((0, *positions)), rtol=1e-12, atol=1e-13)


def test_row_sum_and_what_it_leaves_to_others():
    x = numbers(0, (6, 5, 4))
    for dims in (1, 2, 3):
        np.testing.assert_allclose(row_sum(x, dims), x.sum(axis=tuple(range(dims))), rtol=1e-13)
    for other in (x.T, x.astype(int), x.astype("float16"), x[:0], x.tolist()):
        assert row_sum(other, 1) is None


SECOND = [
    (5, 3, 4, 4),
    (5, 3, 1, 1),
    (1, 3, 1, 1),
    (1, 3, 4, 4),
    (5, 1, 4, 4),
    (1, 1, 1, 4),
    (5, 1, 1, 4),
    (4,),
    (),
    (2, 5, 3, 4, 4),
]


@pytest.mark.parametrize("f", [np.add, np.subtract, np.multiply, np.divide])
@pytest.mark.parametrize(
    "orders", [(a, b) for a in (np.array, channels_last, batch_last, strided) for b in (np.array, strided)]
)
@pytest.mark.parametrize("second", SECOND)
def test_pairwise_equals_the_operation(f, orders, second, monkeypatch):
    for module in (blocks, channels):
        monkeypatch.setattr(module, "_STEP" if module is channels else "_BLOCK", 100)
    monkeypatch.setattr(blocks, "_SMALL", 0)
    monkeypatch.setattr(blocks, "_SERIAL", 0)
    a = orders[0](numbers(0, (5, 3, 4, 4)))
    b = orders[1](numbers(1, second)) if len(second) > 1 else numbers(1, second)
    monkeypatch.setattr(channels, "_REPEATED", 2)
    y = pairwise(f, a, b)
    np.testing.assert_array_equal(y, f(a, b))
    if orders[0] in (channels_last, batch_last) and second in SECOND[:4]:
        assert y.strides == a.strides


def test_pairwise_leaves_other_operands_to_the_operation():
    x = numbers(0, (40, 50))
    np.testing.assert_array_equal(pairwise(np.multiply, x, 2.0), x * 2.0)
    np.testing.assert_array_equal(pairwise(np.add, x.astype(int), x.astype(int)), x.astype(int) * 2)
    np.testing.assert_array_equal(pairwise(np.add, np.broadcast_to(x[:1], x.shape), x), x[:1] + x)
    with pytest.raises(ValueError, match="broadcast"):
        pairwise(np.add, x, x[:, :7])


def test_large_operands_take_this_way(monkeypatch):
    calls = []
    real = channels.pairwise
    monkeypatch.setattr("tinygen.ops.elementwise.pairwise", lambda *a: calls.append(a) or real(*a))
    x = tg.tensor(numbers(0, (400, 500)))
    for y, expected in ((x + x, 2 * x.numpy()), (x - x, 0 * x.numpy()), (x * x, x.numpy() ** 2), (x / x, 1)):
        np.testing.assert_array_equal(y.numpy(), expected)
    assert len(calls) == 4

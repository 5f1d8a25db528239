"""Block by block: the same numbers as in one go, in the same memory order, on any number of threads."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.kernels import blocks, threads
from tinygen.kernels.blocks import along_first, along_first_into, elementwise, reshaped
from tinygen_tests.draws import numbers
from tinygen_tests.judge import strided


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_SMALL", 0)
    monkeypatch.setattr(blocks, "_SERIAL", 0)
    monkeypatch.setattr(blocks, "_BLOCK", 100)


@pytest.fixture(params=[1, 2, 3])
def several_threads(request):
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield
    threads.set_num_threads(before)


def f(x, y):
    return x * (1 + y)


def into(z, x, y):
    np.add(1, y, out=z)
    z *= x


ORDERS = [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)]


@pytest.mark.parametrize("order", ORDERS)
def test_elementwise_in_any_memory_order(order, several_threads):
    x, y = (numbers(i, (5, 7, 11)).transpose(order) for i in range(2))
    calls = []
    z = elementwise(lambda *a: calls.append(a) or into(*a), x, y)
    np.testing.assert_array_equal(z, f(x, y))
    assert z.strides == x.strides
    assert len(calls) > 10 and all(a.ndim == 1 and a.nbytes <= 100 for a, *_ in calls)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (3, 0), (2, 1, 30), (1, 1, 60), (60, 1, 1)])
def test_elementwise_over_shapes(shape):
    x, y = numbers(0, shape), numbers(1, shape)
    z = elementwise(into, x, y)
    np.testing.assert_array_equal(z, f(x, y))
    assert type(z) is np.ndarray and z.shape == shape


def test_elementwise_in_one_go_where_the_last_array_has_gaps():
    x = numbers(0, (6, 10))
    for a, b in [(x, strided(x)), (strided(x), strided(x)), (x[:, ::-1], x[:, ::-1])]:
        calls = []
        z = elementwise(lambda *a, calls=calls: calls.append(a) or into(*a), a, b)
        np.testing.assert_array_equal(z, f(a, b))
        assert len(calls) == 1


def test_elementwise_in_the_order_of_the_last_array():
    x, y = numbers(0, (6, 10)), numbers(1, (10, 6)).T
    for a in (x, strided(x), np.broadcast_to(x[:1], x.shape), x[::-1]):
        calls = []
        z = elementwise(lambda *a, calls=calls: calls.append(a) or into(*a), a, y)
        np.testing.assert_array_equal(z, f(a, y))
        assert z.strides == y.strides and len(calls) > 4


def test_along_first_into_writes_every_slice(several_threads):
    x, each, shared = numbers(0, (9, 4, 5)), numbers(1, (9, 4, 1)), numbers(2, (1, 4, 1))
    sizes = []

    def g(y, x, each, shared):
        assert shared.shape == (1, 4, 1) and len(y) == len(x) == len(each)
        sizes.append(len(y))
        np.multiply(x, each, out=y)
        y += shared

    y = np.full_like(x, np.nan)
    assert along_first_into(y, g, x, each, shared) is y
    np.testing.assert_array_equal(y, x * each + shared)
    assert sum(sizes) == 9 and len(sizes) > 1


def test_along_first_hands_arrays_of_length_one_on_whole(several_threads):
    x, each, shared = numbers(0, (9, 4, 5)), numbers(1, (9, 4, 1)), numbers(2, (1, 4, 1))

    def g(x, each, shared):
        assert shared.shape == (1, 4, 1) and len(x) == len(each) < 9
        return x * each + shared, x.sum(axis=2)

    y, s = along_first(g, x, each, shared)
    np.testing.assert_array_equal(y, x * each + shared)
    np.testing.assert_array_equal(s, x.sum(axis=2))


def test_along_first_keeps_the_memory_order_of_the_blocks():
    x = numbers(0, (6, 4, 5, 3)).transpose(0, 3, 1, 2)
    y = along_first(lambda x: x + 1, x)
    assert y.strides == x.strides


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_along_first_cuts_the_leading_axis_that_is_outermost_in_memory(order, several_threads):
    x = numbers(0, tuple((6, 7, 5)[d] for d in order)).transpose(np.argsort(order))
    outermost = 0 if order.index(0) < order.index(1) else 1
    shapes = []

    def f(x, y):
        shapes.append(x.shape)
        return x * y, y.sum(axis=2)

    y, s = along_first(f, x, x + 1, leading=2)
    np.testing.assert_array_equal(y, x * (x + 1))
    np.testing.assert_array_equal(s, (x + 1).sum(axis=2))
    assert y.strides == x.strides
    assert len(shapes) > 5 and all(shape[1 - outermost] == x.shape[1 - outermost] for shape in shapes)


def test_an_error_in_a_block_is_raised(several_threads):
    def bad(x):
        raise FloatingPointError("in a block")

    with pytest.raises(FloatingPointError, match="in a block"):
        along_first(bad, numbers(0, (50, 20)))


def test_error_state_holds_in_every_thread(several_threads):
    with np.errstate(divide="ignore"):
        y = elementwise(lambda y, x: np.divide(1, x, out=y), np.zeros(1000))
    assert np.isinf(y).all()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 3, 2)])
@pytest.mark.parametrize("shape", [(5, -1), (-1,), (35, 3, 37), (37, 105), (5, 7, 3, 37)])
def test_reshaped_equals_reshape(order, shape, several_threads):
    x = numbers(0, (5, 7, 3, 37)).transpose(order)
    z = x.transpose([order.index(d) for d in range(4)])  # any axis innermost
    for a in (np.ascontiguousarray(x).transpose([order.index(d) for d in range(4)]), z, z[:, :, ::-1], strided(z)):
        y = reshaped(a, shape)
        np.testing.assert_array_equal(y, a.reshape(shape))
        assert np.shares_memory(y, a) == np.shares_memory(a.reshape(shape), a)
    with pytest.raises(ValueError, match="reshape"):
        reshaped(x, (4, -1))


@pytest.mark.cpu_only("the order of axes in memory")
def test_large_reshapes_of_other_orders_take_this_way(monkeypatch):
    copies = []
    copy = blocks.copy_into
    monkeypatch.setattr(blocks, "copy_into", lambda y, x: copies.append(x.shape) or copy(y, x))
    x = tg.tensor(numbers(0, (40, 10, 20, 20)).transpose(3, 1, 2, 0).copy()).permute(3, 1, 2, 0)
    np.testing.assert_array_equal(x.flatten(1).numpy(), x.numpy().reshape(40, -1))
    assert copies == [(40, 10, 20, 20)]


@pytest.mark.parametrize("n", [0, 1, 7, 60, 385, 1000])
@pytest.mark.parametrize("whole", [1, 8])
def test_parts_are_even_in_number_and_nearly_equal(n, whole):
    parts = blocks._parts(n, 8 * n, whole)
    assert [i for part in parts for i in range(n)[part]] == list(range(n))
    lengths = [part.stop - part.start for part in parts]
    assert len(parts) < 2 or len(parts) % 2 == 0 or len(parts) == -(-n // whole)
    assert all(part.start % whole == 0 for part in parts)
    assert all(8 * length <= max(100, 8 * whole) for length in lengths)
    assert not lengths or max(lengths) - min(lengths[:-1] or lengths) <= whole

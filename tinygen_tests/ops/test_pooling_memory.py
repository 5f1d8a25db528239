"""Pooling in memory: the order of axes stays, large batches in blocks are what their pictures are, no aliases."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.ops.pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from tinygen_tests.draws import numbers


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, 3, 1, 2)


def batch_last(x):
    return np.ascontiguousarray(x.transpose(2, 1, 3, 0)).transpose(3, 1, 0, 2)


def lies_as(order, x):
    return x.strides == order(np.empty_like(x)).strides


@pytest.mark.cpu_only("the order of axes in memory")
@pytest.mark.parametrize("order", [channels_last, batch_last])
@pytest.mark.parametrize("n", [2, 40])  # in one go, and block by block
@pytest.mark.parametrize(
    "f",
    [
        lambda x: max_pool2d(x, 2),
        lambda x: max_pool2d(x, 3, 2, 1),
        lambda x: avg_pool2d(x, 2),
        lambda x: avg_pool2d(x, 3, 1, 1),
        lambda x: adaptive_avg_pool2d(x, (4, 3)),
    ],
)
def test_the_order_of_memory_stays(f, n, order):
    x = numbers(0, (n, 16, 8, 8)).astype("float32")
    a, b = tg.Tensor(x, requires_grad=True), tg.Tensor(order(x), requires_grad=True)
    ya, yb = f(a), f(b)
    g = numbers(1, ya.shape).astype("float32")
    (ga,), (gb,) = tg.grad(ya, [a], tg.Tensor(g)), tg.grad(yb, [b], tg.Tensor(order(g)))
    np.testing.assert_allclose(ya.data, yb.data, rtol=1e-6)
    np.testing.assert_allclose(ga.data, gb.data, rtol=1e-5, atol=1e-6)
    assert lies_as(order, yb.data) and lies_as(order, gb.data)
    assert ya.data.flags.c_contiguous and ga.data.flags.c_contiguous


@pytest.mark.cpu_only("blocks are for NumPy")
@pytest.mark.parametrize("arguments", [(2,), (3, 2, 1), (3, 1, 1), (2, 3)])
def test_a_batch_that_is_done_in_blocks_is_what_its_pictures_are(arguments):
    x = np.round(numbers(0, (30, 8, 20, 20), -4, 4)).astype("float32")
    for f in (lambda x: max_pool2d(x, *arguments), lambda x: avg_pool2d(x, *arguments)):
        whole = tg.Tensor(x, requires_grad=True)
        y = f(whole)
        g = numbers(1, y.shape).astype("float32")
        (d,) = tg.grad(y, [whole], tg.Tensor(g))
        assert y.dtype == d.dtype == "float32"
        for i in (0, 7, 29):
            one = tg.Tensor(x[i : i + 1], requires_grad=True)
            np.testing.assert_array_equal(y.data[i], f(one).data[0])
            np.testing.assert_array_equal(d.data[i], tg.grad(f(one), [one], tg.Tensor(g[i : i + 1]))[0].data[0])


@pytest.mark.cpu_only("NumPy memory")
def test_the_result_is_never_the_inputs_memory():
    x = tg.Tensor(numbers(0, (1, 2, 3, 3)))
    for f in (
        lambda x: max_pool2d(x, 1),
        lambda x: avg_pool2d(x, 1),
        lambda x: max_pool2d(x, 1, return_indices=True)[0],
        lambda x: adaptive_avg_pool2d(x, 3),
    ):
        assert not np.may_share_memory(f(x).data, x.data)

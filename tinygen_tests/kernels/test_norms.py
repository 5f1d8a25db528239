"""Normalisation in few passes equals the definition in tinygen.ops.standardization, in value and in every gradient."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.kernels import blocks, norms, norms_batch_last, threads
from tinygen.ops import standardization
from tinygen.ops.standardization import Group, standardize
from tinygen_tests.draws import numbers


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def batch_last(x):
    order = (2, 1, *range(3, x.ndim), 0)
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


CASES = [
    ((7, 6, 6, 8), Group((1, 2, 3), 3)),
    ((7, 6, 6, 8), Group((1, 2, 3), 6)),
    ((7, 6, 6, 8), Group((0, 2, 3))),
    ((7, 6, 6, 8), Group((2, 3))),
    ((4, 2, 64), Group((1, 2), 1)),
    ((1, 4, 5, 1), Group((0, 2, 3))),
    ((3, 2, 2, 3, 4), Group((0, 2, 3, 4))),
]


ORDERS = [(channels_last,) * 2, (np.array,) * 2, (channels_last, np.array), (batch_last,) * 2, (batch_last, np.array)]


@pytest.fixture(params=[1, 2])
def tiny_blocks(request, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 700)
    monkeypatch.setattr(blocks, "_SERIAL", 0)
    monkeypatch.setattr(norms_batch_last, "_SERIAL", 0)
    monkeypatch.setattr(norms_batch_last, "_TASK", 2000)
    monkeypatch.setattr(norms_batch_last, "_STEP", 2000)
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield
    threads.set_num_threads(before)


def all_of(x, weight, bias, g, group):
    """y, the statistics, and all first and some second gradients."""
    leaves = [tg.Tensor(a, requires_grad=True) for a in (x, *([] if weight is None else [weight, bias]))]
    y, statistics = standardize(leaves[0], *(leaves[1:] or (None, None)), group, 0.1)
    first = tg.grad(y, leaves, tg.Tensor(g), create_graph=True)
    second = tg.grad(sum((d * d * d).sum() for d in first), leaves[:2])  # β is in none of them
    return statistics, [a.detach().numpy() for a in (y, *first, *second)]


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape, group", CASES)
def test_results_and_gradients_equal_the_definitions(shape, group, affine, orders, tiny_blocks, monkeypatch):
    x, g = (order(numbers(i, shape)) for i, order in enumerate(orders))
    x = x + 3
    weight, bias = (numbers(2, shape[1]), numbers(3, shape[1])) if affine else (None, None)
    kept, found = all_of(x, weight, bias, g, group)
    assert type(kept) is standardization.Statistics  # too small
    monkeypatch.setattr(norms, "_SMALL", 0)
    kept, quick = all_of(x, weight, bias, g, group)
    assert type(kept) is not standardization.Statistics
    for a, b in zip(quick, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
    assert quick[0].strides == quick[1].strides == x.strides


@pytest.mark.parametrize("group", [Group((1, 2, 3), 3), Group((0, 2, 3))])
def test_parameters_alone_get_the_same_gradients(group, monkeypatch):
    """Also from a second sweep with another cotangent: what is kept belongs to one."""
    monkeypatch.setattr(norms, "_SMALL", 0)
    x, *gs = (numbers(i, (7, 6, 6, 8)) for i in range(3))
    x, w, b = (tg.tensor(a, requires_grad=True) for a in (x, numbers(3, 6), numbers(4, 6)))
    first, second = map(tg.tensor, gs)
    _, *expected = tg.grad(standardize(x, w, b, group, 0.1)[0], [x, w, b], second)
    y = standardize(x, w, b, group, 0.1)[0]
    tg.grad(y, [x, w, b], first, retain_graph=True)
    for found, wanted in zip(tg.grad(y, [w, b], second), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-12)


@pytest.mark.parametrize("order", [channels_last, batch_last])
def test_the_number_of_threads_changes_no_bit(order, monkeypatch):
    monkeypatch.setattr(blocks, "_SERIAL", 0)
    monkeypatch.setattr(norms_batch_last, "_SERIAL", 0)
    x, g = (order(numbers(i, (40, 8, 12, 12)).astype("float32")) for i in range(2))
    before = threads.get_num_threads()
    try:
        for group in (Group((1, 2, 3), 2), Group((0, 2, 3))):
            runs = []
            for count in (1, 3):
                threads.set_num_threads(count)
                runs.append(all_of(x, numbers(2, 8).astype("float32"), numbers(3, 8).astype("float32"), g, group)[1])
            for a, b in zip(*runs, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        threads.set_num_threads(before)


@pytest.mark.parametrize("order", [np.array, batch_last])
@pytest.mark.parametrize("outlier", [0, 500])
@pytest.mark.parametrize("group", [Group((1, 2, 3), 2), Group((0, 2, 3))])
def test_near_equal_numbers_keep_their_variance(group, outlier, order):
    """Far from 0, also where one example is far from all others."""
    x = 1000 + numbers(0, (40, 8, 12, 12))
    x[0] += outlier
    x = order(x)
    single = x.astype("float32")
    y, exact = (standardize(tg.Tensor(a), None, None, group, 1e-5)[0].numpy() for a in (single, single.astype(float)))
    np.testing.assert_allclose(y, exact, rtol=0, atol=5e-4 * np.abs(exact).max())
    equal = standardize(tg.Tensor(order(np.full((8, 4, 20, 20), 0.1, "float32"))), None, None, group, 1e-5)[0].numpy()
    assert np.abs(equal).max() < 1e-4


def test_the_three_orders_of_memory_are_told_apart():
    x = np.zeros((4, 8, 30, 30))
    assert [norms.layout(f(x)).__class__.__name__ for f in (np.array, channels_last, batch_last)] == [
        "Layout",
        "Layout",
        "BatchLast",
    ]


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((4, 8, 60, 60), "float16"),
        np.zeros((4, 8, 60, 60), complex),
        np.zeros((600, 100)),
        np.zeros((4, 8, 60, 120))[..., ::2],
    ],
)
def test_other_arrays_are_left_to_the_definition(x):
    assert norms.layout(x) is None

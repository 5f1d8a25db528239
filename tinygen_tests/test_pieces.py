"""The gradients of slices, collected, equal those of an index, which is summed in the plain way."""

import numpy as np
import pytest

import tinygen as tg
from tinygen import pieces
from tinygen_tests.draws import numbers

CUTS = {
    "all": [(1, 0, 2), (1, 2, 3), (1, 5, 1)],
    "in another order": [(1, 5, 1), (1, 2, 3), (1, 0, 2)],
    "one": [(1, 2, 2)],
    "with gaps": [(1, 3, 1), (1, 1, 1)],
    "none at the end": [(1, 0, 2), (1, 2, 1)],
    "overlapping": [(1, 0, 4), (1, 2, 3)],
    "the same twice": [(1, 1, 2), (1, 1, 2)],
    "along several axes": [(0, 1, 2), (1, 0, 3), (2, 2, 2)],
    "empty ones": [(1, 2, 0), (1, 2, 3), (1, 5, 0)],
}


@pytest.fixture(params=["small", "large"], autouse=True)
def size(request, monkeypatch):
    monkeypatch.setattr(pieces, "_LARGE", 0 if request.param == "large" else 1 << 40)
    # Memory that was used before: what is forgotten is not zero by chance.
    monkeypatch.setattr(pieces, "aligned", lambda shape, dtype: np.full(shape, np.nan, dtype))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("leaf", [True, False])
@pytest.mark.parametrize("besides", [None, "before", "after"])
def test_the_sum_of_slices_gradients(name, order, leaf, besides):
    a = numbers(0, (4, 6, 5))
    array = np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))
    found = []
    for plain, again in [(True, False), (False, False), (False, True)]:
        x = tg.Tensor(array.copy(order="K"), requires_grad=True)
        y = x if leaf else x * x
        total = (y.sin() * 3).sum() if besides == "after" else 0
        for i, (dim, start, length) in enumerate(CUTS[name]):
            slices = (slice(None),) * dim + (slice(start, start + length),)
            part = y[slices] * 1.0 if plain else y.narrow(dim, start, length)
            total = total + (part * tg.Tensor(numbers(i + 1, part.shape))).sum()
        if besides == "before":
            total = total + (y.sin() * 3).sum()
        found.append(tg.grad(total, [x], create_graph=again)[0].detach().numpy())
    for quick in found[1:]:
        np.testing.assert_allclose(quick, found[0], rtol=1e-14, atol=1e-14)


def test_a_gradient_of_its_own():
    """Not the memory of what came in, also where the slice is the whole."""
    x = tg.Tensor(numbers(0, (3, 4)), requires_grad=True)
    g = tg.Tensor(numbers(1, (3, 4)))
    (found,) = tg.grad(x.narrow(0, 0, 3), [x], g)
    np.testing.assert_array_equal(found.numpy(), g.numpy())
    assert not np.shares_memory(found.data, g.data)


def test_it_lies_as_what_was_cut():
    x = tg.Tensor(numbers(0, (2, 3, 4, 5)).transpose(1, 3, 0, 2), requires_grad=True)
    (found,) = tg.grad(x.unbind(0), [x], [tg.Tensor(numbers(i, (5, 2, 4))) for i in range(3)])
    assert found.data.strides == x.data.strides


def test_again_along_a_kept_graph():
    x = tg.Tensor(numbers(0, (4, 3)), requires_grad=True)
    y = x.split(2)
    for _ in range(2):
        (y[0] * y[1]).sum().backward(retain_graph=True)
    halves = x.detach().numpy().reshape(2, 2, 3)
    np.testing.assert_allclose(x.grad.numpy(), 2 * halves[::-1].reshape(4, 3), rtol=1e-15)


def test_a_leaf_that_was_written_to():
    x = tg.Tensor(numbers(0, (4, 3)), requires_grad=True)
    total = sum(part.sum() for part in x.split(1))
    with tg.no_grad():
        x[0] = 0.0
    with pytest.raises(RuntimeError, match="written"):
        total.backward()

"""Attention without stored scores equals the definition, in value, gradients and second gradients."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.kernels import attention, threads
from tinygen.nn.functional import scaled_dot_product_attention
from tinygen_tests.draws import numbers


def plain(*shape):
    return [numbers(i, shape) for i in range(3)]


def side_by_side(n, heads, L, d):
    """Queries, keys and values as one linear layer gives them."""
    return list(numbers(0, (n, L, 3, heads, d)).transpose(2, 0, 3, 1, 4))


INPUTS = {
    "plain": lambda: plain(3, 2, 20, 4),
    "side by side": lambda: side_by_side(3, 2, 20, 4),
    "three axes": lambda: plain(5, 12, 3),
    "five axes": lambda: plain(2, 3, 2, 9, 3),
    "other lengths": lambda: [numbers(0, (2, 3, 7, 4)), numbers(1, (2, 3, 11, 4)), numbers(2, (2, 3, 11, 5))],
    "large scores": lambda: [60 * a for a in plain(3, 2, 20, 4)],
    "one position": lambda: plain(40, 2, 1, 3),
}


@pytest.fixture(params=[1, 2])
def small_blocks(request, monkeypatch):
    monkeypatch.setattr(attention, "_SMALL", 0)
    monkeypatch.setattr(attention, "_SERIAL", 0)
    monkeypatch.setattr(attention, "_BLOCK", 3000)
    monkeypatch.setattr(attention, "_TASK", 6000)
    before = threads.get_num_threads()
    threads.set_num_threads(request.param)
    yield
    threads.set_num_threads(before)


@pytest.mark.parametrize("name", INPUTS)
def test_equals_the_definition(name, small_blocks, monkeypatch):
    arrays = INPUTS[name]()
    g = None

    def all_of(scale):
        nonlocal g
        leaves = [tg.Tensor(a, requires_grad=True) for a in arrays]
        y = scaled_dot_product_attention(*leaves, scale=scale)
        g = numbers(5, y.shape) if g is None else g
        first = tg.grad(y, leaves, tg.Tensor(g), retain_graph=True)
        again = tg.grad(y, leaves, tg.Tensor(g), create_graph=True)
        second = tg.grad(sum((d * d).sum() for d in again), leaves)
        return [a.detach().numpy() for a in (y, *first, *again, *second)]

    for scale in (None, -0.3):
        quick = all_of(scale)
        monkeypatch.setattr(attention, "_SMALL", 1 << 40)
        slow = all_of(scale)
        monkeypatch.setattr(attention, "_SMALL", 0)
        for a, b in zip(quick, slow, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * max(1, np.abs(b).max()))


def test_infinite_and_missing_numbers_spread_as_in_the_definition(small_blocks):
    q, k, v = (tg.Tensor(a) for a in plain(1, 1, 4, 2))
    q.data[0, 0, 2] = np.nan
    y = scaled_dot_product_attention(q, k, v).numpy()
    assert np.isnan(y[0, 0, 2]).all() and np.isfinite(y[0, 0, [0, 1, 3]]).all()


def test_scores_that_would_overflow_float32(small_blocks):
    q, k, v = (tg.Tensor(a.astype("float32")) for a in plain(2, 2, 16, 4))
    for sign in (1, -1):
        y = scaled_dot_product_attention(q * (sign * 1e3), q, v, scale=1.0).numpy()
        exact = scaled_dot_product_attention(*(x.to(tg.float64) for x in (q * (sign * 1e3), q, v)), scale=1.0).numpy()
        np.testing.assert_allclose(y, exact, atol=2e-3)


def test_each_gradient_is_handed_out_once(small_blocks):
    """A write into one does not show in the next."""
    leaves = [tg.tensor(a, requires_grad=True) for a in plain(2, 2, 8, 4)]
    y = scaled_dot_product_attention(*leaves)
    g = tg.tensor(numbers(5, y.shape))
    first = tg.grad(y, leaves, g, retain_graph=True)
    copies = [a.numpy().copy() for a in first]
    for a in first:
        a.data[...] = 0
    for a, b in zip(tg.grad(y, leaves, g), copies, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)


def test_what_is_left_of_one_sweep_is_not_given_to_the_next(small_blocks):
    leaves = [tg.tensor(a, requires_grad=True) for a in plain(2, 2, 8, 4)]
    y = scaled_dot_product_attention(*leaves)
    tg.grad(y, leaves[:1], tg.ones(2, 2, 8, 4, dtype=tg.float64), retain_graph=True)
    g = tg.tensor(numbers(5, y.shape))
    found, wanted = tg.grad(y, leaves[1:], g, retain_graph=True), tg.grad(y, leaves[1:], g, create_graph=True)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-9)


def test_heads_side_by_side_stay_so(small_blocks):
    q, k, v = (tg.Tensor(a, requires_grad=True) for a in side_by_side(3, 2, 20, 4))
    y = scaled_dot_product_attention(q, k, v)
    assert np.shares_memory(y.transpose(1, 2).reshape(3, 20, 8).data, y.data)


def test_what_the_kernel_leaves_to_the_definition():
    q = np.zeros((2, 2, 64, 4), "float32")
    assert attention.fits(q, q, q)
    assert not attention.fits(q[:1], q, q) and not attention.fits(q.tolist(), q, q)
    for other in (q.astype("float16"), q.astype(complex), q[0, 0], q[:, :, :0], q[..., :1, :]):
        assert not attention.fits(other, other, other)


@pytest.mark.parametrize("lead", [(1,), (7,), (128, 4), (3, 20), (1, 5), (2, 1, 3), (2, 3, 4)])
@pytest.mark.parametrize("each", [100, 200_000, 600_000, 3_000_000])
def test_each_head_is_in_one_task(lead, each):
    count = np.zeros(lead, int)
    parts = list(attention._parts(lead, each))
    for part, step in parts:
        count[part] += 1
        assert step == 1 or step * each * count[part][0].size <= attention._BLOCK
    assert (count == 1).all()
    if lead == (128, 4):
        assert len(parts) % 2 == 0


def test_scores_are_shifted_where_they_must_be(small_blocks):
    q, k, v = (a.astype("float32") for a in plain(2, 2, 16, 4))
    assert attention.attention(q, k, v, 1.0)[1].shift is None
    assert attention.attention(q, 60 * k, v, 1.0)[1].shift is not None


def test_float32_is_as_exact_as_float32_can_be(small_blocks):
    arrays, g = side_by_side(3, 2, 20, 4), numbers(5, (3, 2, 20, 4))
    exact, saved = attention.attention(*arrays, 0.5)
    exact = [exact, *attention.gradients(g, exact, *arrays, 0.5, saved)]
    arrays, g = [a.astype("float32") for a in arrays], g.astype("float32")
    y, saved = attention.attention(*arrays, 0.5)
    for a, b in zip([y, *attention.gradients(g, y, *arrays, 0.5, saved)], exact, strict=True):
        assert a.dtype == "float32"
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)

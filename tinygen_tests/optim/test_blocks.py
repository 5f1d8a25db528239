from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn, optim
from tinygen.kernels import threads
from tinygen.optim import blocks

pytestmark = pytest.mark.cpu_only("about NumPy memory; the GPU computes in one go")


@pytest.fixture
def divided(monkeypatch):
    """Blocks so small that small arrays are divided, and shared by threads; none is joined."""
    monkeypatch.setattr(blocks, "_BLOCK", 64)
    monkeypatch.setattr(blocks, "_WHOLE", 0)
    monkeypatch.setattr(blocks, "_JOINED", -1)
    monkeypatch.setattr(blocks, "_SMALL", 0)


def laid_out(a):
    """The same numbers in several memory layouts: C, Fortran, channels last, with gaps, reversed."""
    last = np.ascontiguousarray(np.moveaxis(a, 1, -1))
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]))
    wide[..., ::2] = a
    return [a.copy(), np.asfortranarray(a), np.moveaxis(last, -1, 1), wide[..., ::2], a[::-1].copy()[::-1]]


def steps(w, gradients, make):
    p = tg.Tensor(w, requires_grad=True)
    optimizer = make([p])
    for g in gradients:
        p.grad = tg.Tensor(g)
        optimizer.step()
    return p.data


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.1),
        lambda ps: optim.RMSprop(ps, lr=0.1, momentum=0.9, centered=True),
        lambda ps: optim.Adam(ps, lr=0.1, amsgrad=True, maximize=True),
    ],
)
def test_the_numbers_do_not_depend_on_the_division(make, monkeypatch, divided):
    rng = np.random.default_rng(0)
    w, gradients = rng.standard_normal((3, 4, 5, 7)), rng.standard_normal((3, 3, 4, 5, 7))
    found = [steps(a, layout, make) for layout in zip(*(laid_out(g) for g in gradients)) for a in laid_out(w)]
    monkeypatch.undo()
    whole = steps(w.copy(), gradients, make)
    for a in found:
        np.testing.assert_array_equal(a, whole)
    before = threads.get_num_threads()
    try:
        threads.set_num_threads(1)
        monkeypatch.setattr(blocks, "_SMALL", 0)
        np.testing.assert_array_equal(steps(w.copy(), gradients, make), whole)
    finally:
        threads.set_num_threads(before)


def recorded(seen, n):
    """A job that writes down what it is called with."""

    def f(w, d, e):
        seen.append((n, w.shape, d.shape, d.dtype, np.shares_memory(d, e)))

    return f, [np.zeros(n, "float32")]


@pytest.mark.parametrize("count, blocks_expected", [(1, 2), (2, 2), (4, 4), (16, 8)])
def test_large_arrays_are_divided_so_that_every_thread_has_a_piece(count, blocks_expected):
    seen, before = [], threads.get_num_threads()
    try:
        threads.set_num_threads(count)
        blocks.in_place([recorded(seen, 10), recorded(seen, 500_000), recorded(seen, 0)])
    finally:
        threads.set_num_threads(before)
    sizes = {n: [shape for m, shape, *_ in seen if m == n] for n in (10, 500_000, 0)}
    assert sizes[10] == [(10,)] and sizes[0] == [(0,)]
    assert len(sizes[500_000]) == blocks_expected and sum(shape[0] for shape in sizes[500_000]) == 500_000
    assert all(w == d and dtype == "float32" and not shared for _, w, d, dtype, shared in seen)


@pytest.mark.parametrize("make", [lambda ps: optim.Adam(ps, lr=0.1, amsgrad=True), lambda ps: optim.SGD(ps, lr=0.1)])
def test_small_arrays_are_joined_and_move_as_they_would_alone(make, monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (), (5,), (0, 2), (2, 3, 4), (7, 1)]
    kinds = ["float64"] * 4 + ["float32"] * 2
    arrays = [np.asarray(rng.standard_normal(s), k, order="F") for s, k in zip(shapes, kinds)]
    gradients = [[np.asarray(rng.standard_normal(s), k) for s, k in zip(shapes, kinds)] for _ in range(3)]

    def steps_together():
        ps = [nn.Parameter(a) for a in arrays]
        optimizer = make(ps)
        for now in gradients:
            for p, g in zip(ps, now):
                p.grad = tg.Tensor(g[::-1].copy()[::-1] if g.ndim else g.copy())
            kept = [p.grad.data.copy() for p in ps]
            optimizer.step()
            for p, g in zip(ps, kept):
                np.testing.assert_array_equal(p.grad.data, g)
        return [p.data for p in ps]

    calls, real = [], blocks._on_block
    monkeypatch.setattr(blocks, "_on_block", lambda f, some: calls.append(some[0].size) or real(f, some))
    joined = steps_together()
    assert calls == [12 + 1 + 5 + 0, 24 + 7] * 3 or calls == [24 + 7, 12 + 1 + 5 + 0] * 3
    monkeypatch.setattr(blocks, "_JOINED", -1)
    for a, b in zip(joined, steps_together(), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_scalars_are_arrays(divided):
    p = nn.Parameter(np.array(2.0))
    p.grad = tg.Tensor(np.array(1.0))
    optim.Adam([p], lr=0.5).step()
    assert p.data.shape == () and isinstance(p.data, np.ndarray)
    np.testing.assert_allclose(p.data, 1.5, rtol=1e-7)


def test_an_error_in_a_thread_is_raised(divided):
    def fails(w, d, e):
        raise ZeroDivisionError("in a block")

    with pytest.raises(ZeroDivisionError, match="in a block"):
        blocks.in_place([(fails, [np.zeros(100)])])


def test_averages_of_weights_too(divided):
    rng = np.random.default_rng(0)
    p = nn.Parameter(np.asfortranarray(rng.standard_normal((9, 11))))
    old = p.data.copy()
    ema = optim.EMA([p], decay=0.75, warmup=False)
    p.data[...] = rng.standard_normal((9, 11))
    ema.update()
    np.testing.assert_allclose(ema.state_dict()["shadow"]["0"].data, 0.75 * old + 0.25 * p.data, rtol=1e-14)

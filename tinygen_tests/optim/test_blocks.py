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
    """Blocks so small that small arrays are divided, and shared by threads."""
    monkeypatch.setattr(blocks, "_BLOCK", 64)
    monkeypatch.setattr(blocks, "_WHOLE", 0)
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


def test_large_arrays_are_divided_and_small_ones_are_not():
    seen = []

    def job(n):
        return lambda w, d, e: seen.append((n, w.shape, d.shape, d.dtype, np.shares_memory(d, e))), [
            np.zeros(n, "float32")
        ]

    blocks.in_place([job(10), job(200_000), job(0)])
    sizes = {n: [shape for m, shape, *_ in seen if m == n] for n in (10, 200_000, 0)}
    assert sizes[10] == [(10,)] and sizes[0] == [(0,)]
    assert len(sizes[200_000]) == 4 and sum(shape[0] for shape in sizes[200_000]) == 200_000
    assert all(w == d and dtype == "float32" and not shared for _, w, d, dtype, shared in seen)


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

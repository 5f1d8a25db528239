"""What a graph keeps alive and for how long: freed graphs, saved arrays, no cycles; gradients own their memory."""

import gc
import tracemalloc
import weakref

import pytest

import tinygen as tg
from tinygen_tests.judge import shares_memory


def leaf(*values):
    return tg.tensor(list(values), dtype="float64", requires_grad=True)


# ------------------------------------------------------------------------------------- freed graphs


def test_a_second_sweep_through_a_freed_graph_says_what_to_do():
    x = leaf(1.0)
    y = x.exp()
    z = y * 2
    z.backward()
    for call in (z.backward, lambda: tg.grad(y, x), lambda: (z + 1).backward()):
        with pytest.raises(RuntimeError, match=r"graph behind <\w+> was freed.*pass retain_graph=True"):
            call()


def test_retain_graph_allows_more_sweeps():
    x = leaf(2.0)
    y = x * x * x
    for k in range(3):
        y.backward(retain_graph=True)
        assert x.grad.item() == 12 * (k + 1)
    y.backward()
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()
    z = x * x
    tg.grad(z, x, retain_graph=True)
    tg.grad(z, x, create_graph=True)  # keeps the graph too
    tg.grad(z, x, create_graph=True, retain_graph=False)
    with pytest.raises(RuntimeError, match="freed"):
        tg.grad(z, x)


def test_the_graph_behind_an_inner_input_is_not_freed():
    x, w = leaf(2.0), leaf(3.0)
    inner, aside = x * x, w * w
    assert tg.grad([inner * 2, aside], inner)[0].item() == 2
    inner.backward()
    aside.backward()
    assert (x.grad.item(), w.grad.item()) == (4, 6)


def test_a_shared_part_can_be_swept_again_if_it_was_kept():
    x = leaf(2.0)
    shared = x * x
    a, b = shared * 1, shared * 2
    a.backward(retain_graph=True)
    b.backward()
    assert x.grad.item() == 12


def test_saved_arrays_are_freed_during_the_sweep():
    x = tg.zeros(250_000, requires_grad=True)  # 1 MB
    tracemalloc.start()
    try:
        y = x
        for _ in range(20):
            y = y.sigmoid()
        y = y.sum()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        y.backward()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held > 20e6 and after < 3e6  # x.grad alone
    assert peak < held + 4e6


def test_saved_arrays_are_freed_though_somebody_holds_the_result():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0).detach()
    y = x * w
    saved = weakref.ref(w)
    del w
    y.sum().backward()
    assert saved() is None and y.grad_fn is not None


def test_training_for_a_thousand_steps_takes_constant_memory():
    w = tg.ones(1000, requires_grad=True)
    gc.disable()
    try:
        for step in range(1000):
            loss = ((w * 2).tanh() ** 2).sum()
            loss.backward()
            with tg.no_grad():
                w.copy_(w - 0.01 * w.grad)
            w.grad = None
            if step == 10:
                tracemalloc.start()
                before, _ = tracemalloc.get_traced_memory()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert after - before < 100_000


def test_everything_dies_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = (x * x).exp()
        z = y.sum()
        (g,) = tg.grad(z, x, create_graph=True)
        (h,) = tg.grad(g.sum(), x, create_graph=True)
        z.backward()
        kept = [weakref.ref(t) for t in (x, y, z, g, h)] + [weakref.ref(t.grad_fn) for t in (y, z, g, h)]
        kept.append(weakref.ref(x.grad))
        del x, y, z, g, h
        assert [r() for r in kept] == [None] * len(kept)
    finally:
        gc.enable()


def test_backward_leaves_no_cycle():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0)
        for _ in range(3):
            (x.exp() * x).sum().backward()
        dead = weakref.ref(x)
        del x
        assert dead() is None
    finally:
        gc.enable()


def test_failed_calls_leave_no_cycle():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        dead = weakref.ref(x)
        for fail in (
            lambda x: x.reshape(3),
            lambda x: x + [1.0],
            lambda x: x @ tg.ones(3, dtype="float64"),
            lambda x: (x * 2).backward(),
            lambda x: tg.cat([x, x[0]]),
            lambda x: x[5],
        ):
            try:
                fail(x)
            except (ValueError, TypeError, RuntimeError, IndexError):
                continue
            raise AssertionError("it did not fail")
        del x
        assert dead() is None
    finally:
        gc.enable()


# ------------------------------------------------------------------------------------ sharing memory


def test_no_two_gradients_share_memory():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x + w).sum().backward()
    assert not shares_memory(x.grad.data, w.grad.data)
    x.grad[0] = 100
    assert w.grad.tolist() == [1, 1]
    a, b = tg.grad((x + x).sum(), [x, x])
    assert a.tolist() == b.tolist() == [2, 2] and not shares_memory(a.data, b.data)
    y = x * 1
    a, b, c = tg.grad((y + 0).sum(), [y, x, y])
    assert not any(shares_memory(p.data, q.data) for p, q in ((a, b), (a, c), (b, c)))
    outer = (inner := x + 0) + 0
    a, b = tg.grad((outer * w).sum(), [inner, outer])
    assert a.tolist() == b.tolist() == [3, 4] and not shares_memory(a.data, b.data)


def test_a_saved_array_that_a_vjp_returns_is_not_handed_out():
    @tg.op
    def total(a, weight):
        return (a * weight).sum()

    @total.vjp("a")
    def _(g, weight):
        return weight  # right where g = 1

    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0).detach()
    total(x, w).backward()
    assert x.grad.tolist() == [3, 4] and not shares_memory(x.grad.data, w.data)


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: a + b,
        lambda a, b: tg.cat([a, b]),
        lambda a, b: tg.stack([a, b]),
        lambda a, b: a.reshape(2, 1) + b,
        lambda a, b: a.flip(0).expand(2, 2) + b.unsqueeze(0),
        lambda a, b: a.contiguous() - b.clone(),
        lambda a, b: tg.where(tg.tensor([True, False]), a, b),
        lambda a, b: a.T + b.view(2),
        lambda a, b: (a + b) + (b + a),
        lambda a, b: a[:] + b[...],
        lambda a, b: a.sum() + b.sum(),
        lambda a, b: a.mean() * 1 + b.amax(),
    ],
)
def test_gradients_are_writable_arrays_of_their_own(f):
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = f(a, b)
    g = tg.ones_like(y)
    found = [d.data for d in tg.grad(y, [a, b], g, retain_graph=True)]
    y.backward(g)
    arrays = [*found, a.grad.data, b.grad.data]
    for i, p in enumerate(arrays):
        assert getattr(p.flags, "writeable", True) and p.base is None
        assert not any(shares_memory(p, q) for q in [g.data, a.data, b.data, *arrays[:i]])


def test_gradients_with_a_graph_share_no_memory_either():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    a, b, c = tg.grad((x + w).sum(), [x, w, x], create_graph=True)
    assert not any(shares_memory(p.data, q.data) for p, q in ((a, b), (a, c), (b, c)))

"""The sweep: deep, wide and repeated graphs; what it returns and refuses; higher derivatives; threads and tasks."""

import asyncio
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tinygen_tests.draws import examples, numbers, seeds
from tinygen_tests.judge import judge, shares_memory, torch


def leaf(*values):
    return tg.tensor(list(values), dtype="float64", requires_grad=True)


# ------------------------------------------------------------------------------------ large graphs


def test_a_chain_of_100_000_steps_is_built_swept_and_dropped():
    x = tg.tensor(1.0, dtype="float64", requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + 1e-5
    y.backward()
    assert x.grad.item() == 1
    z = x
    for _ in range(100_000):
        z = -z
    assert tg.grad(z, x)[0].item() == 1
    assert sys.getrecursionlimit() < 100_000


def test_a_chain_of_100_000_steps_is_just_dropped():
    x = tg.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    node = weakref.ref(y.grad_fn)
    del y
    assert node() is None


def test_a_diamond_of_depth_50_takes_linear_time():
    start = time.perf_counter()
    x = tg.tensor(1.0, dtype="float64", requires_grad=True)
    y = x
    for _ in range(50):
        y = y + y
    assert tg.grad(y, x)[0].item() == 2.0**50
    y = x
    for _ in range(50):
        y = (y * 0.5) + (y * 0.5)
    (g,) = tg.grad(y, x, create_graph=True)
    assert g.item() == 1
    assert time.perf_counter() - start < 2


def test_a_wide_fan_out_sums_every_branch():
    x = leaf(1.0, 2.0)
    y = sum((x * k for k in range(1000)), tg.zeros(2, dtype="float64"))
    y.sum().backward()
    assert x.grad.tolist() == [499_500] * 2


def test_a_side_branch_that_nobody_uses_neither_counts_nor_stops_the_gradient():
    x = leaf(2.0)
    y = x * 3
    unused = y.exp()  # noqa: F841
    dead = (x * 7).log()
    del dead
    (y * y).sum().backward()
    assert x.grad.tolist() == [36]


STEPS = [
    lambda m, a, b: a + b,
    lambda m, a, b: a * b,
    lambda m, a, b: m.sin(a),
    lambda m, a, b: a - 2 * b,
    lambda m, a, b: m.tanh(a) * 0.1,
]


@examples(40)
@given(seed=seeds, n=st.integers(1, 12))
def test_random_graphs_agree_with_pytorch(seed, n):
    def build(module, *leaves):
        rng = np.random.default_rng(seed)
        pool = list(leaves)
        for _ in range(n):
            a, b = (pool[k] for k in rng.integers(0, len(pool), 2))
            f = rng.integers(0, 5)
            pool.append(STEPS[f](module, a, b))
        return pool[-1] * pool[rng.integers(0, len(pool))] + 0 * leaves[0]

    judge(
        lambda *xs: build(tg, *xs),
        lambda *xs: build(torch, *xs),
        *(numbers(seed + k, (2,), -1, 1) for k in range(2)),
        manners=False,
    )


# ------------------------------------------------------------------------------------------ backward


def test_backward_adds_to_grad_over_several_calls():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    assert x.grad.tolist() == [2, 4] and isinstance(x.grad, tg.Tensor) and not x.grad.requires_grad
    first = x.grad
    (3 * x).sum().backward()
    assert x.grad.tolist() == [5, 7]
    assert first.tolist() == [2, 4]  # whoever held the old gradient keeps it
    x.grad = None
    x.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_backward_reaches_leaves_alone():
    x, c = leaf(1.0), tg.ones(1, dtype="float64")
    y = x * c
    (y * 2).sum().backward()
    assert y.grad is None and c.grad is None and x.grad.tolist() == [2]


def test_backward_of_a_leaf_itself():
    x = leaf(3.0)
    x.backward()
    assert x.grad.tolist() == [1]
    x.backward(tg.tensor([5.0], dtype="float64"))
    assert x.grad.tolist() == [6]


def test_backward_into_chosen_leaves():
    x, w = leaf(2.0), leaf(3.0)
    (x * w).sum().backward(inputs=[w])
    assert x.grad is None and w.grad.tolist() == [2]
    (x * w).sum().backward(inputs=x)
    assert x.grad.tolist() == [3] and w.grad.tolist() == [2]


@pytest.mark.parametrize("inputs, message", [([], "inputs is empty"), (None, None)])
def test_backward_into_nothing_is_refused(inputs, message):
    x = leaf(1.0)
    y = x * 2
    if message:
        with pytest.raises(RuntimeError, match=message):
            y.backward(inputs=inputs)
    for wrong in ([y], [x.detach()], [x, tg.ones(1)]):
        with pytest.raises(RuntimeError, match=r"inputs\[\d\] is not a leaf that requires grad"):
            (y * 2).backward(inputs=wrong)


def test_seeds():
    x = leaf(1.0, 2.0)
    (x * x).backward(tg.tensor([1.0, 10.0], dtype="float64"))
    assert x.grad.tolist() == [2, 40]
    (x * x).backward(gradient=np.array([1.0, 0.0]))
    assert x.grad.tolist() == [4, 40]
    (x * x)[0].backward(2.0)
    assert x.grad.tolist() == [8, 40]
    (x * x).sum().reshape(1, 1).backward()
    assert x.grad.tolist() == [10, 44]


@pytest.mark.parametrize(
    "seed",
    [
        tg.ones(3, dtype="float64"),
        tg.ones(1, 2, dtype="float64"),
        tg.ones(2),
        tg.tensor(1.0, dtype="float64"),
        np.ones(3),
    ],
    ids=repr,
)
def test_seeds_of_another_shape_or_dtype_are_refused(seed):
    x = leaf(1.0, 2.0)
    for call in (lambda y: y.backward(seed), lambda y: tg.grad(y, x, seed)):
        with pytest.raises(RuntimeError, match=r"the gradient has shape .* the tensor shape \(2,\) and dtype float64"):
            call(x * 2)


def test_a_seed_is_not_written_to_and_not_shared():
    x = leaf(1.0, 2.0)
    seed = tg.tensor([3.0, 4.0], dtype="float64")
    x.backward(seed)
    (x + x).backward(seed)
    (y,) = tg.grad(x + 0, x, seed)
    assert seed.tolist() == [3, 4]
    assert not shares_memory(x.grad.data, seed.data) and not shares_memory(y.data, seed.data)


def test_more_numbers_than_one_need_a_seed():
    x = leaf(1.0, 2.0)
    for call in (lambda: (x * 2).backward(), lambda: tg.grad(x * 2, x)):
        with pytest.raises(RuntimeError, match=r"shape \(2,\) is not one number; reduce it, for example with .sum"):
            call()


@pytest.mark.parametrize("make", [lambda x: x.detach() * 2, lambda x: tg.ones(1), lambda x: (x > 0).float()])
def test_what_requires_no_grad_has_no_backward(make):
    x = leaf(1.0)
    y = make(x)
    for call in (lambda: y.backward(), lambda: tg.grad(y, x)):
        with pytest.raises(RuntimeError, match="does not require grad: nothing it was made of"):
            call()
    with tg.no_grad():
        z = x * 2
    with pytest.raises(RuntimeError, match="made under no_grad"):
        z.backward()


def test_create_graph_in_backward_is_refused_with_the_way_out():
    with pytest.raises(NotImplementedError, match=r"use tg.grad\(outputs, inputs, create_graph=True\)"):
        leaf(1.0).backward(create_graph=True)


def test_unknown_arguments_are_named():
    with pytest.raises(TypeError, match="is_grads_batched"):
        tg.grad(leaf(1.0), leaf(1.0), is_grads_batched=True)


# ------------------------------------------------------------------------------------------------ grad


def test_grad_touches_no_grad_attribute():
    x, w = leaf(2.0), leaf(3.0)
    gx, gw = tg.grad((x * w).sum(), [x, w])
    assert (gx.item(), gw.item(), x.grad, w.grad) == (3, 2, None, None)
    assert not gx.requires_grad


def test_grad_of_interior_tensors():
    x = leaf(2.0)
    y = x * 3
    z = y * y
    gx, gy, gz = tg.grad(z, [x, y, z])
    assert (gx.item(), gy.item(), gz.item()) == (36, 12, 1)
    assert tg.grad((x * 3).exp().log(), x)[0].item() == pytest.approx(3)


def test_grad_of_several_outputs_sums_them():
    x = leaf(1.0, 2.0)
    a, b = x * 2, x.sum()
    (g,) = tg.grad([a, b], x, [tg.tensor([1.0, 10.0], dtype="float64"), None], retain_graph=True)
    assert g.tolist() == [3, 21]
    (g,) = tg.grad([b, b], [x])
    assert g.tolist() == [2, 2]
    (g,) = tg.grad((x.sum(), (x * x).sum()), (x,))
    assert g.tolist() == [3, 5]


def test_an_input_that_was_not_used_is_named_or_none():
    x, w = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match=r"inputs\[1\], of shape \(1,\), was not used.*allow_unused=True"):
        tg.grad(x * 2, [x, w])
    assert tg.grad(x * 2, [w, x], allow_unused=True)[0] is None


def test_what_grad_refuses():
    x = leaf(1.0)
    with pytest.raises(RuntimeError, match=r"inputs\[0\], of shape \(1,\), does not require grad"):
        tg.grad(x * 2, [tg.ones(1)])
    with pytest.raises(RuntimeError, match="inputs is empty"):
        tg.grad(x * 2, [])
    with pytest.raises(ValueError, match="2 outputs, but 1 grad_outputs"):
        tg.grad([x * 2, x * 3], x, [tg.ones(1, dtype="float64")])


def counted(name="counted"):
    calls = []

    @tg.op
    def step(x):
        return x * 1

    @step.vjp("x")
    def _(g):
        calls.append(name)
        return g * 1

    return step, calls


def test_only_the_nodes_between_inputs_and_outputs_run():
    f, calls_f = counted()
    h, calls_h = counted()
    x, w = leaf(1.0), leaf(2.0)
    y = f(f(x)) * h(w)
    tg.grad(y, w, retain_graph=True)
    assert (len(calls_f), len(calls_h)) == (0, 1)
    tg.grad(y, x, retain_graph=True)
    assert (len(calls_f), len(calls_h)) == (2, 1)
    middle = f(x)
    tg.grad(f(middle), middle)
    assert len(calls_f) == 3
    y.backward(inputs=[w])
    assert (len(calls_f), len(calls_h)) == (3, 2)


def test_each_vjp_runs_once_however_often_its_result_was_used():
    f, calls = counted()
    x = leaf(1.0)
    y = f(x)
    for _ in range(10):
        y = y + y * 2
    y.backward()
    assert len(calls) == 1 and x.grad.item() == 3**10


# ----------------------------------------------------------------------------------- higher derivatives


def test_derivatives_of_every_order_of_a_composite_have_the_closed_form():
    x = leaf(0.3, -0.6, 1.1)
    a = x.detach().numpy()
    y = tg.sin(2 * x) * tg.exp(-x)
    # (e^{(−1+2i)x})⁽ⁿ⁾ = (−1+2i)ⁿ e^{(−1+2i)x}, of which y is the imaginary part
    for n in range(1, 6):
        (y,) = tg.grad(y.sum(), x, create_graph=True)
        expected = ((-1 + 2j) ** n * np.exp((-1 + 2j) * a)).imag
        np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-11)


def test_third_derivatives_through_matrix_products_agree_with_pytorch():
    def f(module, x, w):
        return module.tanh(x @ w).sum()

    def third(module, grad, x, w):
        (a,) = grad(f(module, x, w), x, create_graph=True)
        (b,) = grad((a * a).sum(), w, create_graph=True)
        (c,) = grad((b * b * b).sum(), x)
        return c

    arrays = numbers(0, (3, 2)), numbers(1, (2, 2))
    ours = third(tg, tg.grad, *(tg.tensor(a, requires_grad=True) for a in arrays))
    theirs = third(torch, lambda y, x, **k: torch.autograd.grad(y, x, **k), *(
        torch.from_numpy(a).requires_grad_() for a in arrays
    ))  # fmt: skip
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-10)


def test_a_gradient_penalty_trains():
    w, x = leaf(0.5, -0.3), leaf(1.0, 2.0)
    (g,) = tg.grad(((w * x) ** 2).sum(), x, create_graph=True)
    ((g.norm() - 1) ** 2).backward()
    ww, xx = w.detach().numpy(), x.detach().numpy()
    d = 2 * ww**2 * xx
    n = np.linalg.norm(d)
    np.testing.assert_allclose(w.grad.numpy(), 2 * (n - 1) * d / n * 4 * ww * xx, rtol=1e-12)


def test_create_graph_records_also_under_no_grad_and_plain_sweeps_never_do():
    x = leaf(2.0)
    y = x * x * x
    with tg.no_grad():
        (g,) = tg.grad(y, x, create_graph=True)
        assert g.requires_grad and not tg.is_grad_enabled()
        (h,) = tg.grad(g, x)
    assert h.item() == 12 and not h.requires_grad
    recorded = []

    @tg.op
    def watched(x):
        return x * 1

    @watched.vjp("x")
    def _(g):
        recorded.append(tg.is_grad_enabled())
        return g * 1

    watched(x).backward()
    tg.grad(watched(x), x, create_graph=True)
    assert recorded == [False, True]


def test_an_error_in_a_vjp_leaves_the_recording_flag_and_the_grads_alone():
    @tg.op
    def bad(x):
        return x * 1

    @bad.vjp("x")
    def _(g):
        raise ZeroDivisionError("in a vjp")

    x, w = leaf(1.0), leaf(1.0)
    for create in (False, True):
        with pytest.raises(ZeroDivisionError, match="in a vjp"):
            tg.grad(bad(x), x, create_graph=create)
        assert tg.is_grad_enabled()
    with pytest.raises(ZeroDivisionError):
        (bad(x) + w * 2).backward()
    assert x.grad is None and w.grad is None and tg.is_grad_enabled()


# -------------------------------------------------------------------------------- threads and tasks


def test_threads_sweep_graphs_of_their_own():
    results = {}

    def work(k):
        x = leaf(float(k))
        for _ in range(50):
            (g,) = tg.grad(tg.exp(x * 0) * x * x, x, create_graph=True)
            (h,) = tg.grad(g, x)
        results[k] = (g.item(), h.item())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {k: (2 * k, 2) for k in range(4)}


def test_tasks_sweep_graphs_of_their_own():
    async def work(k):
        x = leaf(float(k))
        y = x * x
        await asyncio.sleep(0)
        with tg.no_grad():
            await asyncio.sleep(0)
            assert not (y * 2).requires_grad
        await asyncio.sleep(0)
        return tg.grad(y, x)[0].item()

    async def main():
        return await asyncio.gather(*(work(k) for k in range(5)))

    assert asyncio.run(main()) == [0, 2, 4, 6, 8]

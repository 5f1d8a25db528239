from __future__ import annotations

import gc
import json
import sys
import weakref

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn, optim

pytestmark = pytest.mark.cpu_only("looks at NumPy memory; test_against_torch.py runs anywhere")

MAKERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True, weight_decay=0.1),
    "adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1, amsgrad=True),
    "adam_max": lambda p: optim.Adam(p, lr=0.1, maximize=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.1),
}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def set_gradients(parameters, gradients):
    for p, g in zip(parameters, gradients):
        p.grad = tg.Tensor(np.asarray(g, dtype=p.dtype))


# ------------------------------------------------------------------------------------------- the step


def test_nothing_but_the_parameter_is_written(make, parameters, gradients):
    ps = parameters()
    optimizer = make(ps)
    for step in range(3):
        given = [np.array(g) for g in gradients(step)]
        set_gradients(ps, given)
        arrays = [p.data for p in ps]
        grads = [p.grad.data for p in ps]
        before = [g.copy() for g in grads]
        optimizer.step()
        for p, array, g, kept in zip(ps, arrays, grads, before):
            assert p.data is array, "the step must be in place"
            assert p.grad.data is g
            np.testing.assert_array_equal(g, kept)
            for own in optimizer.state.get(p, {}).values():
                if isinstance(own, np.ndarray):
                    assert not np.shares_memory(own, g)
                    assert not np.shares_memory(own, p.data)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_stay(make, parameters, gradients, dtype):
    ps = parameters(dtype)
    optimizer = make(ps)
    optimizer.param_groups[0]["lr"] = np.float64(0.01)  # as np.linspace gives it
    if dtype == "float16" and "eps" in optimizer.defaults:
        optimizer.param_groups[0]["eps"] = 1e-3  # 1e-8 is 0 in float16
    for step in range(3):
        set_gradients(ps, [np.clip(g, -2, 2) for g in gradients(step)])
        optimizer.step()
    for p in ps:
        assert p.dtype == dtype
        for own in optimizer.state.get(p, {}).values():
            assert not isinstance(own, np.ndarray) or own.dtype == dtype


def test_memory_order_does_not_matter(make, gradients):
    rng = np.random.default_rng(3)
    w = rng.standard_normal((4, 3, 2, 5))
    plain, channels_last = (
        nn.Parameter(w),
        nn.Parameter(np.ascontiguousarray(w.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)),
    )
    a, b = make([plain]), make([channels_last])
    for _ in range(5):
        g = rng.standard_normal(w.shape)
        plain.grad, channels_last.grad = tg.Tensor(g), tg.Tensor(np.asfortranarray(g))
        a.step()
        b.step()
    np.testing.assert_array_equal(plain.data, channels_last.data)
    assert channels_last.data.strides != plain.data.strides
    for own in b.state.get(channels_last, {}).values():
        if isinstance(own, np.ndarray):
            assert own.strides == channels_last.data.strides


def test_large_and_small_parameters_share_scratch_without_harm(make):
    rng = np.random.default_rng(4)
    arrays = [rng.standard_normal(n) for n in (2, 100, 7)]
    together = [nn.Parameter(a) for a in arrays]
    alone = [nn.Parameter(a) for a in arrays]
    one, many = make(together), [make([p]) for p in alone]
    for _ in range(3):
        for p, q in zip(together, alone):
            p.grad = tg.Tensor(rng.standard_normal(p.shape))
            q.grad = tg.Tensor(p.grad.data.copy())
        one.step()
        for optimizer in many:
            optimizer.step()
    for p, q in zip(together, alone):
        np.testing.assert_array_equal(p.data, q.data)


def test_empty_parameters_are_left_alone(make):
    p = nn.Parameter(np.zeros((0, 3)))
    p.grad = tg.Tensor(np.zeros((0, 3)))
    make([p]).step()
    assert p.shape == (0, 3)


def test_runs_are_the_same_to_the_bit(make, parameters, gradients):
    def run():
        ps = parameters("float32")
        optimizer = make(ps)
        for step in range(10):
            set_gradients(ps, gradients(step))
            optimizer.step()
        return [p.data for p in ps]

    for a, b in zip(run(), run()):
        np.testing.assert_array_equal(a, b)


def test_parameters_without_gradient_are_skipped(make, parameters, gradients):
    ps = parameters()
    set_gradients(ps[:1], gradients(0))
    before = [p.data.copy() for p in ps]
    optimizer = make(ps)
    optimizer.step()
    assert not np.array_equal(ps[0].data, before[0])
    for p, kept in zip(ps[1:], before[1:]):
        np.testing.assert_array_equal(p.data, kept)
        assert p not in optimizer.state


def test_step_returns_what_the_closure_returns_and_records_inside_it():
    p = nn.Parameter(np.array([3.0]))
    optimizer = optim.SGD([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with tg.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 9.0
    np.testing.assert_array_equal(p.data, [0.0])
    assert optimizer.step() is None


def test_a_graph_recorded_before_the_step_cannot_be_swept_after_it(make):
    p = nn.Parameter(np.array([3.0, 4.0]))
    optimizer = make([p])
    loss = (p * p).sum()
    p.grad = tg.Tensor(np.ones(2))
    optimizer.step()
    with pytest.raises(RuntimeError, match="written to in place"):
        loss.backward()


def test_a_wrong_gradient_is_an_error_and_nothing_has_moved(make):
    a, b = nn.Parameter(np.ones(3)), nn.Parameter(np.ones(3))
    optimizer = make([a, b])
    a.grad = tg.Tensor(np.ones(3))
    for wrong in (np.ones(3, "float32"), np.ones(4)):
        b.grad = tg.Tensor(wrong)
        with pytest.raises(RuntimeError, match=r"gradient"):
            optimizer.step()
        np.testing.assert_array_equal(a.data, np.ones(3))


def test_zero_grad():
    p = nn.Parameter(np.ones(2))
    optimizer = optim.SGD([p])
    p.grad = kept = tg.Tensor(np.array([np.nan, 1.0]))
    optimizer.zero_grad(set_to_none=False)
    np.testing.assert_array_equal(p.grad.data, [0, 0])
    assert np.isnan(kept.data[0]), "a gradient that somebody kept must stay as it was"
    optimizer.zero_grad()
    assert p.grad is None


# ----------------------------------------------------------------------------------- parameters, groups


def test_groups_have_their_own_settings(parameters, gradients):
    ps = parameters()
    optimizer = optim.SGD([{"params": ps[:2]}, {"params": ps[2], "lr": 0.0}], lr=0.1)
    optimizer.add_param_group({"params": ps[3:], "lr": 1.0})
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.0, 1.0]
    before = [p.data.copy() for p in ps]
    set_gradients(ps, gradients(0))
    optimizer.step()
    for p, old, lr, g in zip(ps, before, [0.1, 0.1, 0.0, 1.0], gradients(0)):
        np.testing.assert_allclose(p.data, old - lr * g, rtol=1e-12)


@pytest.mark.parametrize(
    "params, error, message",
    [
        ([], ValueError, "no parameters"),
        (iter([]), ValueError, "no parameters"),
        ([{"params": []}], ValueError, "empty"),
        (nn.Parameter(np.ones(2)), TypeError, "iterable"),
        (nn.Sequential(), TypeError, r"model\.parameters\(\)"),
        ([np.ones(2)], TypeError, "expected a Tensor"),
        ([("name", nn.Parameter(np.ones(2)))], TypeError, "expected a Tensor"),
        ([nn.Parameter(np.ones(2)) * 2], ValueError, "leaves"),
        ([tg.tensor([1, 2])], ValueError, "int64"),
        ([tg.Tensor(np.broadcast_to(np.ones(1), (3,)))], ValueError, "read-only"),
        ([{"params": {nn.Parameter(np.ones(2))}}], TypeError, "set"),
        ([{"params": [nn.Parameter(np.ones(2))], "learning_rate": 1}], TypeError, "learning_rate"),
        ([{"lr": 1}], TypeError, "params"),
    ],
)
def test_parameters_that_cannot_be_optimized(params, error, message):
    with pytest.raises(error, match=message):
        optim.SGD(params)


def test_a_parameter_may_be_there_once():
    p = nn.Parameter(np.ones(2))
    with pytest.raises(ValueError, match="twice"):
        optim.SGD([p, p])
    with pytest.raises(ValueError, match="twice"):
        optim.SGD([{"params": [p]}, {"params": [p]}])
    optimizer = optim.SGD([p])
    with pytest.raises(ValueError, match="twice"):
        optimizer.add_param_group({"params": [p]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "make, settings",
    [
        (optim.SGD, {"lr": -1}),
        (optim.SGD, {"lr": float("nan")}),
        (optim.SGD, {"momentum": -0.1}),
        (optim.SGD, {"weight_decay": -1}),
        (optim.SGD, {"nesterov": True}),
        (optim.SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
        (optim.RMSprop, {"alpha": 1.0}),
        (optim.RMSprop, {"eps": -1}),
        (optim.Adam, {"betas": (1.0, 0.9)}),
        (optim.Adam, {"betas": (0.9, -0.1)}),
        (optim.Adam, {"betas": 0.9}),
        (optim.Adam, {"eps": -1e-8}),
        (optim.AdamW, {"weight_decay": -1}),
    ],
)
def test_settings_out_of_range(make, settings):
    p = nn.Parameter(np.ones(2))
    with pytest.raises(ValueError, match=next(iter(settings)).rstrip("s")):
        make([p], **settings)
    with pytest.raises(ValueError):
        make([{"params": [p], **settings}])


def test_settings_of_another_type():
    with pytest.raises(TypeError, match="lr must be a number"):
        optim.SGD([nn.Parameter(np.ones(2))], lr=tg.tensor(0.1))


@pytest.mark.parametrize(
    "make, name",
    [(optim.SGD, n) for n in ("foreach", "differentiable", "fused")]
    + [(optim.RMSprop, n) for n in ("foreach", "differentiable", "capturable")]
    + [(make, n) for make in (optim.Adam, optim.AdamW) for n in ("foreach", "differentiable", "fused", "capturable")],
)
def test_arguments_left_out_are_refused_by_name(make, name):
    p = nn.Parameter(np.ones(2))
    with pytest.raises(NotImplementedError, match=f"{make.__name__}.*{name}"):
        make([p], **{name: True})
    make([p], **{name: False})


# ----------------------------------------------------------------------------------- saving and loading


@pytest.mark.parametrize("in_groups", [False, True])
def test_resumed_runs_are_the_same_to_the_bit(make, parameters, gradients, in_groups):
    """In several groups too, where the state counts the parameters on from group to group."""

    def groups(ps):
        return [{"params": ps[:1]}, {"params": ps[1:3], "lr": 0.03}, {"params": ps[3:]}] if in_groups else ps

    def steps(ps, optimizer, numbers):
        for step in numbers:
            set_gradients(ps, gradients(step))
            optimizer.step()

    ps = parameters("float32")
    optimizer = make(groups(ps))
    steps(ps, optimizer, range(5))
    kept = [p.data.copy() for p in ps]
    state = optimizer.state_dict()
    arrays = {}
    text = json.dumps(_without_arrays(state, (), arrays))
    steps(ps, optimizer, range(5, 9))

    again = [nn.Parameter(a) for a in kept]
    resumed = make(groups(again))
    for group in resumed.param_groups:
        group["lr"] = 123.0
    resumed.load_state_dict(_with_arrays(json.loads(text), arrays))
    steps(again, resumed, range(5, 9))
    for p, q in zip(ps, again):
        np.testing.assert_array_equal(p.data, q.data)
    whole, parts = optimizer.state_dict(), resumed.state_dict()
    assert parts["param_groups"] == whole["param_groups"]
    assert [list(group) for group in parts["param_groups"]] == [list(group) for group in whole["param_groups"]]
    assert [list(own) for own in parts["state"].values()] == [list(own) for own in whole["state"].values()]


def _without_arrays(state, where, arrays):
    """The state as JSON, its arrays copied to ``arrays`` under the name of their place."""
    if isinstance(state, tg.Tensor):
        arrays["/".join(where)] = state.data.copy()
        return {"array": "/".join(where)}
    if isinstance(state, dict):
        return {str(key): _without_arrays(value, (*where, str(key)), arrays) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_without_arrays(value, (*where, str(i)), arrays) for i, value in enumerate(state)]
    return state


def _with_arrays(state, arrays):
    if isinstance(state, dict):
        return (
            arrays[state["array"]]
            if set(state) == {"array"}
            else {k: _with_arrays(v, arrays) for k, v in state.items()}
        )
    return [_with_arrays(v, arrays) for v in state] if isinstance(state, list) else state


def test_loading_copies(parameters, gradients):
    ps, qs = parameters(), parameters()
    a, b = optim.Adam(ps), optim.Adam(qs)
    set_gradients(ps, gradients(0))
    a.step()
    b.load_state_dict(a.state_dict())
    for p, q in zip(ps, qs):
        assert not np.shares_memory(a.state[p]["exp_avg"], b.state[q]["exp_avg"])
    b.param_groups[0]["lr"] = 7
    assert a.param_groups[0]["lr"] != 7


def test_what_does_not_fit_is_listed_and_changes_nothing(parameters, gradients):
    ps = parameters()
    optimizer = optim.Adam(ps, lr=0.1)
    set_gradients(ps, gradients(0))
    optimizer.step()
    before = optimizer.state_dict()
    kept = {i: s["exp_avg"].data.copy() for i, s in before["state"].items()}

    def broken(change):
        state = optimizer.state_dict()
        change(state)
        with pytest.raises(ValueError, match="nothing was loaded") as caught:
            optimizer.load_state_dict(state)
        after = optimizer.state_dict()
        assert after["param_groups"] == before["param_groups"]
        for i, s in after["state"].items():
            np.testing.assert_array_equal(s["exp_avg"].data, kept[i])
        return str(caught.value)

    def shapes(state):
        state["state"][0]["exp_avg"] = tg.zeros(2, 2)
        state["state"][1]["exp_avg_sq"] = tg.zeros(5, dtype="float32")
        state["param_groups"][0]["lr"] = 99.0

    message = broken(shapes)
    assert "parameter 0" in message and "parameter 1" in message
    assert "2 parameters" not in broken(lambda state: state["param_groups"].append(state["param_groups"][0]))
    assert "group 0 has 4 parameters" in broken(lambda state: state["param_groups"][0]["params"].pop())
    assert "'lr' is missing" in broken(lambda state: state["param_groups"][0].pop("lr"))
    assert "fused" in broken(lambda state: state["param_groups"][0].update(fused=True))
    assert "lr must be" in broken(lambda state: state["param_groups"][0].update(lr=-1.0))
    assert "momentum_buffer" in broken(lambda state: state["state"][0].update(momentum_buffer=tg.zeros(3, 4)))
    assert "'exp_avg' is missing" in broken(lambda state: state["state"][0].pop("exp_avg"))
    assert "'step' is missing" in broken(lambda state: state["state"][0].pop("step"))
    assert "no parameter 9" in broken(lambda state: state["state"].update({9: state["state"][0]}))
    with pytest.raises(ValueError, match="param_groups"):
        optimizer.load_state_dict({})


# ---------------------------------------------------------------------------------------------- memory


def test_a_loop_of_ten_thousand_steps_has_constant_memory():
    """Counted in Python's memory blocks: every array, tensor and node is at least one of them."""
    rng = np.random.default_rng(0)
    w = nn.Parameter(rng.standard_normal((8, 4)))
    x, y = tg.Tensor(rng.standard_normal((16, 8))), tg.Tensor(rng.standard_normal((16, 4)))
    optimizers = [make([w]) for make in MAKERS.values()]
    gc.collect()
    gc.disable()
    try:
        blocks = []
        for step in range(10_000):
            optimizer = optimizers[step % len(optimizers)]
            optimizer.zero_grad()
            d = x @ w - y
            (d * d).mean().backward()
            optimizer.step()
            if step in (4000, 7000, 9999):
                blocks.append(sys.getallocatedblocks())
    finally:
        gc.enable()
    assert max(blocks) - min(blocks) < 100, blocks


def test_everything_of_a_step_dies_without_the_garbage_collector():
    make = MAKERS["adam"]
    gc.collect()
    gc.disable()
    try:
        w = nn.Parameter(np.ones((3, 2)))
        optimizer = make([w])
        hidden = tg.Tensor(np.ones((4, 3))) @ w
        loss = (hidden * hidden).sum()
        loss.backward()
        optimizer.step()
        dying = [weakref.ref(hidden.data), weakref.ref(hidden), weakref.ref(loss), weakref.ref(w.grad.data)]
        optimizer.zero_grad()
        del hidden, loss
        assert [ref() for ref in dying] == [None] * 4
        dying = [weakref.ref(w), weakref.ref(optimizer)]
        del w, optimizer
        assert [ref() for ref in dying] == [None] * 2
    finally:
        gc.enable()

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn, optim
from tinygen.optim import lr_scheduler as ours

# PyTorch's own: it counts steps of the optimizer, and its SequentialLR calls what it deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),
    pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step"),
]

CASES = {
    "StepLR": ({"step_size": 3, "gamma": 0.5}, {"step_size": 1}),
    "LinearLR": (
        {},
        {"start_factor": 0.01, "end_factor": 0.5, "total_iters": 7},
        {"start_factor": 1.0, "end_factor": 0.0},
    ),
    "CosineAnnealingLR": ({"T_max": 10}, {"T_max": 4, "eta_min": 0.01}, {"T_max": 1}),
    "LambdaLR": ({"lr_lambda": lambda t: 0.9**t}, {"lr_lambda": [lambda t: 1 / (1 + t), lambda t: t]}),
}  # fmt: skip
FLAT = [(name, case) for name, cases in CASES.items() for case in cases]


def optimizer(lr=0.5):
    p, q = nn.Parameter(np.ones(2)), nn.Parameter(np.ones(2))
    return optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.125}], lr=lr, momentum=0.9)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is the judge here; pip install torch==2.13.0")


@pytest.fixture
def theirs(torch):
    p, q = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    return torch.optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.125}], lr=0.5, momentum=0.9)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def run(schedule, optimizer, steps=25):
    found = [rates(optimizer)]
    for _ in range(steps):
        schedule.step()
        found.append(rates(optimizer))
        assert schedule.get_last_lr() == found[-1]
    return found


@pytest.mark.parametrize("name, case", FLAT)
def test_as_pytorch(torch, theirs, name, case):
    a = optimizer()
    mine = run(getattr(ours, name)(a, **case), a)
    his = run(getattr(torch.optim.lr_scheduler, name)(theirs, **case), theirs)
    np.testing.assert_allclose(mine, his, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name, case", FLAT)
def test_the_closed_form_in_the_docstring(name, case):
    a = optimizer()
    schedule = getattr(ours, name)(a, **case)
    found = run(schedule, a)
    for t, both in enumerate(found):
        expected = [schedule._closed(t, base, i) for i, base in enumerate(schedule.base_lrs)]
        np.testing.assert_allclose(both, expected, rtol=1e-10, atol=1e-15)


def test_closed_forms_by_hand():
    a = optimizer(lr=1.0)
    found = [both[0] for both in run(ours.CosineAnnealingLR(a, T_max=4), a, 4)]
    np.testing.assert_allclose(found, [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)], atol=1e-15)
    a = optimizer(lr=1.0)
    np.testing.assert_allclose([both[0] for both in run(ours.StepLR(a, 2, 0.1), a, 5)], [1, 1, 0.1, 0.1, 0.01, 0.01])
    a = optimizer(lr=1.0)
    np.testing.assert_allclose(
        [both[0] for both in run(ours.LinearLR(a, 0.2, 1.0, 4), a, 5)], [0.2, 0.4, 0.6, 0.8, 1, 1]
    )


def sequence(module, optimizer):
    warm = module.LinearLR(optimizer, start_factor=0.1, total_iters=4)
    middle = module.StepLR(optimizer, 3, gamma=0.5)
    anneal = module.CosineAnnealingLR(optimizer, T_max=8, eta_min=0.001)
    own = module.LambdaLR(optimizer, lambda t: 1 / (2 + t))
    return module.SequentialLR(optimizer, [warm, middle, anneal, own], milestones=[4, 9, 17])


def test_sequences_as_pytorch(torch, theirs):
    a = optimizer()
    mine = run(sequence(ours, a), a)
    his = run(sequence(torch.optim.lr_scheduler, theirs), theirs)
    np.testing.assert_allclose(mine, his, rtol=1e-12, atol=1e-15)


def test_two_schedules_one_after_the_other_and_a_rate_changed_by_hand(torch, theirs):
    def both(module, optimizer):
        first, second = module.StepLR(optimizer, 2, 0.5), module.CosineAnnealingLR(optimizer, 12, 0.001)
        found = []
        for t in range(20):
            first.step()
            second.step()
            if t == 7:
                optimizer.param_groups[0]["lr"] = 0.3
            found.append(rates(optimizer))
        return found

    np.testing.assert_allclose(both(ours, optimizer()), both(torch.optim.lr_scheduler, theirs), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(
    "make", [*(lambda o, n=n, c=c: getattr(ours, n)(o, **c) for n, c in FLAT), lambda o: sequence(ours, o)]
)
def test_resumed_through_json_to_the_bit(make):
    a = optimizer()
    schedule = make(a)
    for _ in range(6):
        schedule.step()
    text = json.dumps([schedule.state_dict(), a.state_dict()["param_groups"]])
    expected = run(schedule, a, 15)

    b = optimizer()
    again = make(b)
    state, groups = json.loads(text)
    b.load_state_dict({"state": {}, "param_groups": groups})
    again.load_state_dict(state)
    assert again.last_epoch == 6
    assert run(again, b, 15) == expected


def test_states_that_do_not_fit():
    a = optimizer()
    step = ours.StepLR(a, 3)
    before = step.state_dict()
    with pytest.raises(ValueError, match="step_size"):
        step.load_state_dict(ours.CosineAnnealingLR(optimizer(), 5).state_dict())
    alone = ours.StepLR(optim.SGD([nn.Parameter(np.ones(1))]), 3)
    with pytest.raises(ValueError, match="1 parameter groups"):
        step.load_state_dict(alone.state_dict())
    assert step.state_dict() == before

    whole = sequence(ours, optimizer())
    for _ in range(3):
        whole.step()
    kept, state = whole.state_dict(), sequence(ours, optimizer()).state_dict()
    state["_schedulers"][2].pop("T_max")
    with pytest.raises(ValueError):
        whole.load_state_dict(state)
    with pytest.raises(ValueError, match="schedules"):
        whole.load_state_dict({})
    assert whole.state_dict() == kept


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda o: ours.StepLR(o, 0), "step_size"),
        (lambda o: ours.StepLR(o, 1.5), "step_size"),
        (lambda o: ours.LinearLR(o, 0.0), "start_factor"),
        (lambda o: ours.LinearLR(o, end_factor=1.5), "end_factor"),
        (lambda o: ours.LinearLR(o, total_iters=0), "total_iters"),
        (lambda o: ours.CosineAnnealingLR(o, 0), "T_max"),
        (lambda o: ours.LambdaLR(o, [lambda t: 1.0]), "1 functions for 2"),
        (lambda o: ours.SequentialLR(o, [], []), "at least one"),
        (lambda o: ours.SequentialLR(o, [ours.StepLR(o, 1)], [1]), "milestones"),
        (lambda o: ours.SequentialLR(o, [ours.StepLR(o, 1) for _ in range(3)], [4, 4]), "increasing"),
        (lambda o: ours.SequentialLR(o, [ours.StepLR(optimizer(), 1)], []), "this optimizer"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make(optimizer())


def test_mistakes_are_named():
    for make in (lambda o: ours.StepLR(o, 1), lambda o: ours.LambdaLR(o, abs), lambda o: ours.SequentialLR(o, [], [])):
        with pytest.raises(TypeError, match="expected an Optimizer"):
            make(nn.Linear(1, 1))
    for name, case in FLAT:
        with pytest.raises(NotImplementedError, match=f"{name}: last_epoch=3"):
            getattr(ours, name)(optimizer(), **case, last_epoch=3)
    a = optimizer()
    with pytest.raises(NotImplementedError, match="last_epoch"):
        ours.SequentialLR(a, [ours.StepLR(a, 1)], [], last_epoch=3)
    a = optimizer()
    schedule = ours.StepLR(a, 2)
    a.add_param_group({"params": [tg.Tensor(np.ones(1), requires_grad=True)]})
    with pytest.raises(RuntimeError, match="3 parameter groups"):
        schedule.step()

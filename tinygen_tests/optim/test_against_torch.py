"""Fifty steps of every optimizer, beside PyTorch's, over grids of their arguments."""

from __future__ import annotations

import itertools

import pytest

import tinygen as tg
from tinygen import optim
from tinygen_tests.judge import same, torch


def grid(**choices):
    return [dict(zip(choices, values)) for values in itertools.product(*choices.values())]


CASES = {
    "SGD": [
        case
        for case in grid(
            lr=[0.03], momentum=[0, 0.9], dampening=[0, 0.3], weight_decay=[0, 0.1], nesterov=[False, True],
            maximize=[False, True],
        )
        if not case["nesterov"] or (case["momentum"] and not case["dampening"])
    ],
    "RMSprop": grid(
        lr=[0.01], alpha=[0.9], eps=[1e-8, 1e-2], weight_decay=[0, 0.1], momentum=[0, 0.5],
        centered=[False, True], maximize=[False, True],
    ),
    "Adam": grid(
        lr=[0.02], betas=[(0.9, 0.999), (0.5, 0.9), (0.0, 0.0)], eps=[1e-3], weight_decay=[0, 0.1],
        amsgrad=[False, True], maximize=[False, True], decoupled_weight_decay=[False, True],
    ),
    "AdamW": grid(lr=[0.02], betas=[(0.9, 0.999), (0.5, 0.9)], weight_decay=[0.01, 0.3], amsgrad=[False, True]),
}  # fmt: skip


@pytest.mark.parametrize("name, case", [(name, case) for name, cases in CASES.items() for case in cases])
def test_fifty_steps(name, case, arrays, parameters, gradients):
    """Proves: SGD, RMSprop, AdamW."""
    ours = parameters()
    theirs = [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in arrays]
    a = getattr(optim, name)(ours, **case)
    b = getattr(torch.optim, name)(theirs, **case)
    for step in range(50):
        for i, (p, q, g) in enumerate(zip(ours, theirs, gradients(step))):
            if i == 1 and step % 3 == 2:  # a parameter that the loss did not reach this time
                p.grad, q.grad = None, None
            else:
                p.grad, q.grad = tg.tensor(g), torch.from_numpy(g.copy())
        if step == 25:
            for group in [*a.param_groups, *b.param_groups]:
                group["lr"] *= 0.3
        a.step()
        b.step()
        for p, q in zip(ours, theirs):
            same(p, q, 1e-10)


@pytest.mark.parametrize("name", CASES)
def test_defaults_are_the_same(name, parameters):
    ours = getattr(optim, name)(parameters()).param_groups[0]
    theirs = getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(2))]).param_groups[0]
    for key, value in ours.items():
        if key != "params":
            assert theirs[key] == value, key
    off = {key: theirs[key] for key in theirs if key not in ours}
    assert all(value in (None, False) for value in off.values()), off


@pytest.mark.parametrize(
    "name, case",
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9, "dampening": 0.4}),
        ("RMSprop", {"momentum": 0.9, "centered": True}),
        ("Adam", {"amsgrad": True}),
        ("AdamW", {}),
    ],
)
@pytest.mark.parametrize("in_groups", [False, True])
def test_state_dicts_of_pytorch_load_and_have_the_same_keys(name, case, in_groups, arrays, parameters, gradients):
    def groups(ps):
        return [{"params": ps[:3]}, {"params": ps[3:], "lr": 0.02}] if in_groups else ps

    theirs = [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in arrays]
    b = getattr(torch.optim, name)(groups(theirs), lr=0.01, **case)
    for step in range(4):
        for q, g in zip(theirs, gradients(step)):
            q.grad = torch.from_numpy(g.copy())
        b.step()
    ours = [tg.nn.Parameter(tg.tensor(q.detach().numpy())) for q in theirs]
    a = getattr(optim, name)(groups(ours), lr=0.5, **case)
    a.load_state_dict(b.state_dict())
    mine, other = a.state_dict(), b.state_dict()
    for place in other["state"]:
        made = {key for key, value in other["state"][place].items() if value is not None}
        assert made - {"step"} == set(mine["state"][place]) - {"step"}
    for step in range(4, 8):
        for p, q, g in zip(ours, theirs, gradients(step)):
            p.grad, q.grad = tg.tensor(g), torch.from_numpy(g.copy())
        a.step()
        b.step()
    for p, q in zip(ours, theirs):
        same(p, q, 1e-10)


def test_momentum_switched_on_later_begins_with_the_first_gradient(arrays, parameters, gradients):
    ours, theirs = parameters(), [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in arrays]
    a, b = optim.SGD(ours, lr=0.1, dampening=0.3), torch.optim.SGD(theirs, lr=0.1, dampening=0.3)
    for step in range(6):
        for p, q, g in zip(ours, theirs, gradients(step)):
            p.grad, q.grad = tg.tensor(g), torch.from_numpy(g.copy())
        if step == 3:
            a.param_groups[0]["momentum"] = b.param_groups[0]["momentum"] = 0.9
        a.step()
        b.step()
    for p, q in zip(ours, theirs):
        same(p, q, 1e-10)


def test_repr_names_the_same_settings(parameters):
    ours = repr(optim.SGD(parameters(), lr=0.1)).splitlines()
    theirs = repr(torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)).splitlines()
    assert set(ours) <= set(theirs)

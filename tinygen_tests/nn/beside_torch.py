"""A layer of ours beside PyTorch's with the same numbers: value, gradients, state and printed form."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygen as tg
from tinygen_tests.judge import host, torch


def numbers(value: Any) -> np.ndarray:
    """A tensor's or parameter's numbers, wherever they live."""
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else host(value)


def to_theirs(state: dict[str, Any]) -> dict[str, Any]:
    """Our state_dict as PyTorch's."""
    return {name: torch.from_numpy(numbers(tensor).copy()) for name, tensor in state.items()}


def randomize(module: Any, seed: int = 0) -> None:
    """Numbers without symmetry in all of PyTorch's parameters and floating buffers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.7)
        for b in module.buffers():
            if b.is_floating_point():
                b.copy_(torch.rand(b.shape, generator=generator, dtype=b.dtype) + 0.5)


def same_numbers(ours: Any, theirs: Any, tol: float, what: str) -> None:
    a, b = numbers(ours), numbers(theirs)
    assert a.shape == b.shape, f"{what}: shape {a.shape}, PyTorch's {b.shape}"
    assert a.dtype == b.dtype, f"{what}: dtype {a.dtype}, PyTorch's {b.dtype}"
    np.testing.assert_allclose(a, b, rtol=tol, atol=tol, err_msg=what)


def same_state(ours: Any, theirs: Any, tol: float = 1e-9) -> None:
    a, b = ours.state_dict(), theirs.state_dict()
    assert list(a) == list(b)
    for name in a:
        same_numbers(a[name], b[name], tol, name)


def compare(ours: Any, theirs: Any, *inputs: Any, tol: float = 1e-9, calls: int = 1, **options: Any) -> None:
    """Assert that two modules agree, given the same numbers through PyTorch's state_dict and back.

    ``calls``: how often both are called before their values, gradients and states are compared: for layers that
    change their state when called.
    """
    theirs = theirs.double()
    ours = ours.double()
    ours.training = theirs.training
    if not list(theirs.parameters()) and not list(theirs.buffers()):
        assert not ours.state_dict()
    randomize(theirs)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(to_theirs(ours.state_dict()))
    assert repr(ours) == repr(theirs)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_buffers()] == [n for n, _ in theirs.named_buffers()]

    rng = np.random.default_rng(0)
    xs, ys = [], []
    for x in inputs:
        floating = isinstance(x, np.ndarray) and x.dtype.kind == "f"
        made = isinstance(x, np.ndarray)
        xs.append(tg.tensor(x).requires_grad_(floating) if made else x)
        ys.append(torch.from_numpy(x.copy()).requires_grad_(floating) if made else x)
    for _ in range(calls):
        a, b = ours(*xs, **options), theirs(*ys, **options)
    several = isinstance(a, tuple)
    for i, (p, q) in enumerate(zip(a if several else [a], b if several else [b])):
        if q is None:
            assert p is None
            continue
        same_numbers(p, q, tol, f"result {i}")
        if q.requires_grad:
            g = rng.standard_normal(q.shape)
            p.backward(tg.tensor(g), retain_graph=True)
            q.backward(torch.from_numpy(g.copy()), retain_graph=True)
    for i, (x, y) in enumerate(zip(xs, ys)):
        if isinstance(x, tg.Tensor) and y.requires_grad and y.grad is not None:
            same_numbers(x.grad, y.grad, tol, f"gradient of input {i}")
    for (name, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters()):
        if q.grad is None:
            assert p.grad is None, name
        else:
            same_numbers(p.grad, q.grad, tol, f"gradient of {name}")
    same_state(ours, theirs, tol)

"""PyTorch as an independent judge: the same function in both, compared in float64 up to second order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygen as tg

torch = pytest.importorskip("torch", reason="PyTorch is the judge here; pip install torch==2.13.0")
torch.set_num_threads(1)


def same(ours: Any, theirs: Any, tol: float = 1e-6, what: str = "value") -> None:
    """Assert that a tinygen value equals a PyTorch value, in shape, kind of dtype and numbers."""
    a = np.asarray(ours.data if isinstance(ours, tg.Tensor) else ours)
    b = theirs.detach().resolve_conj().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert a.shape == b.shape, f"{what}: shape {a.shape}, PyTorch's {b.shape}"
    assert a.dtype == b.dtype, f"{what}: dtype {a.dtype}, PyTorch's {b.dtype}"
    scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0))) if b.dtype.kind == "f" else 1.0
    np.testing.assert_allclose(a, b, rtol=tol, atol=tol * scale, err_msg=what)


def judge(ours: Callable, theirs: Callable, *inputs: Any, order: int = 2, seed: int = 0, tol: float = 1e-6) -> None:
    """Assert that two functions of the same arrays agree in value, gradient and second gradient.

    Floating inputs are float64 and differentiated; integer and boolean arrays are passed on as tensors, anything
    else as it is. Cotangents are random: one for the value, and one for each first gradient, so that the second
    order compares ∇⟨v, ∇⟨g, f⟩⟩ with respect to every input and to g.
    """
    rng = np.random.default_rng(seed)

    def arguments(module: Any) -> list:
        made = []
        for x in inputs:
            if isinstance(x, np.ndarray):
                t = tg.Tensor(x.copy()) if module is tg else torch.from_numpy(x.copy())
                made.append(t.requires_grad_() if x.dtype.kind == "f" else t)
            else:
                made.append(x)
        return made

    ax, bx = arguments(tg), arguments(torch)
    ay, by = ours(*ax), theirs(*bx)
    same(ay, by, tol, "value")
    if not by.requires_grad:
        assert not ay.requires_grad, "PyTorch's result has no gradient, ours has"
        return
    assert ay.requires_grad, "PyTorch's result has a gradient, ours has none"
    active = [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    g = rng.standard_normal(by.shape)
    ag, bg = tg.Tensor(g.copy()).requires_grad_(), torch.from_numpy(g.copy()).requires_grad_()
    a1 = tg.grad(ay, [ax[i] for i in active], ag, create_graph=order > 1, allow_unused=True)
    b1 = torch.autograd.grad(by, [bx[i] for i in active], bg, create_graph=order > 1, allow_unused=True)
    for i, p, q in zip(active, a1, b1, strict=True):
        _same_gradient(p, q, inputs[i], tol, f"gradient of argument {i}")
    if order < 2:
        return
    v = [rng.standard_normal(inputs[i].shape) for i in active]
    pairs = [(p, q, w) for p, q, w in zip(a1, b1, v, strict=True) if p is not None and q is not None]
    pairs = [(p, q, w) for p, q, w in pairs if p.requires_grad and q.requires_grad]
    if not pairs:
        return
    a2 = tg.grad(
        [p for p, _, _ in pairs],
        [*(ax[i] for i in active), ag],
        [tg.Tensor(w.copy()) for _, _, w in pairs],
        allow_unused=True,
    )
    b2 = torch.autograd.grad(
        [q for _, q, _ in pairs],
        [*(bx[i] for i in active), bg],
        [torch.from_numpy(w.copy()) for _, _, w in pairs],
        allow_unused=True,
    )
    for i, p, q in zip([*active, "g"], a2, b2, strict=True):
        _same_gradient(p, q, g if i == "g" else inputs[i], tol, f"second gradient of argument {i}")


def _same_gradient(ours: Any, theirs: Any, x: np.ndarray, tol: float, what: str) -> None:
    """None means zero, on either side."""
    a = np.zeros_like(x) if ours is None else ours.data
    b = torch.zeros(x.shape, dtype=torch.float64) if theirs is None else theirs
    same(a, b, tol, what)

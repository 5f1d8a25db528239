"""PyTorch as an independent judge: the same function in both, compared in float64 up to second order.

``torch`` here is PyTorch, imported at its first use: a test that needs it is skipped, with a reason, where it is
not installed, and the other tests of the same file run.

Our side computes on the default device, so that ``pytest --backend strict`` judges what a GPU would be given. There
nothing that an op does may look at array contents on the host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import tinygen as tg
from tinygen.backend import array_module, is_array, move, to_numpy


class _Torch:
    """PyTorch, or the skipping of the test that asks for it."""

    def __getattr__(self, name: str) -> Any:
        torch = pytest.importorskip("torch", reason="PyTorch is the judge here; pip install torch==2.13.0")
        torch.set_num_threads(1)
        return getattr(torch, name)


torch: Any = _Torch()


def same(ours: Any, theirs: Any, tol: float = 1e-9, what: str = "value") -> None:
    """Assert that a tinygen value equals a PyTorch value, in shape, dtype and numbers (NaN equals NaN)."""
    a = host(ours)
    b = theirs.numpy(force=True) if isinstance(theirs, torch.Tensor) else np.asarray(theirs)
    assert a.shape == b.shape, f"{what}: shape {a.shape}, PyTorch's {b.shape}"
    assert a.dtype == b.dtype, f"{what}: dtype {a.dtype}, PyTorch's {b.dtype}"
    scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0))) if b.dtype.kind == "f" else 1.0
    np.testing.assert_allclose(a, b, rtol=tol, atol=tol * scale, err_msg=what)


def host(value: Any) -> np.ndarray:
    """The numbers of a Tensor or array, wherever it lives."""
    raw = value.data if isinstance(value, tg.Tensor) else value
    return to_numpy(raw) if is_array(raw) else np.asarray(raw)


def shares_memory(a: Any, b: Any) -> bool:
    """Whether two raw arrays of one library have numbers in common."""
    return bool(array_module(a).shares_memory(a, b))


def placed(x: np.ndarray) -> Any:
    """A copy of x on the default device, as a raw array."""
    return move(x.copy(), tg.get_default_device())


@contextmanager
def unseen(by: str = "", moves: bool = False) -> Iterator[None]:
    """Assert that the host looks at no array contents: a GPU would have to be waited for.

    Reading ``x[mask]`` must: the host needs to know how long the result is. An error message may, which prints an
    index. Counted on the strict stand-in alone.

    Args:
        by: a regular expression; code in other files may look.
        moves: ``x.to("cpu")`` is no looking.
    """
    with tg.testing.count_syncs() as syncs:
        yield
    seen = [f"{kind} at {place}" for kind, place in syncs.events if not (kind == "to" and moves)]
    seen = [event for event in seen if not re.match(r"(mask|repr) at .*ops/indexing\.py", event)]
    seen = [event for event in seen if re.search(by, event)]
    assert not seen, f"array contents were looked at by the host, {seen}"


def judge(
    ours: Callable,
    theirs: Callable,
    *inputs: Any,
    order: int = 2,
    seed: int = 0,
    tol: float = 1e-9,
    manners: bool = True,
) -> None:
    """Assert that two functions of the same arrays agree in value, gradient and second gradient.

    Floating inputs are float64 and differentiated; integer and boolean arrays are passed on as tensors, anything
    else as it is. Cotangents are random: one for the value, and one for each first gradient, so that the second
    order compares ∇⟨v, ∇⟨g, f⟩⟩ with respect to every input and to g. The tolerance is far below float32's
    precision, so that numbers which went through float32 on their way are found.

    With ``manners`` it also asserts that our function writes to no input, that no gradient shares memory, that
    arrays with gaps and reversed axes in memory give the same, and that from float32 inputs the value has
    PyTorch's dtype and the gradients float32.
    """
    rng = np.random.default_rng(seed)
    inputs = tuple(np.asarray(x) if isinstance(x, np.generic) else x for x in inputs)
    active = [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]

    ax, bx = _arguments(tg, inputs), _arguments(torch, inputs)
    with unseen():
        ay = ours(*ax)
    by = theirs(*bx)
    same(ay, by, tol, "value")
    if not by.requires_grad:
        assert not ay.requires_grad, "PyTorch's result has no gradient, ours has"
        return
    assert ay.requires_grad, "PyTorch's result has a gradient, ours has none"
    g = rng.standard_normal(by.shape).astype(str(by.dtype).removeprefix("torch."))
    ag, bg = tg.Tensor(placed(g)).requires_grad_(), torch.from_numpy(g.copy()).requires_grad_()
    with unseen():
        a1 = tg.grad(ay, [ax[i] for i in active], ag, create_graph=order > 1, allow_unused=True)
    b1 = torch.autograd.grad(by, [bx[i] for i in active], bg, create_graph=order > 1, allow_unused=True)
    for i, p, q in zip(active, a1, b1, strict=True):
        _same_gradient(p, q, inputs[i], tol, f"gradient of argument {i}")
    if manners:
        _check_manners(ours, theirs, inputs, active, ax, g, ay, a1, tol)
    if order < 2:
        return
    v = [rng.standard_normal(inputs[i].shape) for i in active]
    with unseen():
        a2 = _second(tg.grad, a1, [*(ax[i] for i in active), ag], [tg.Tensor(placed(w)) for w in v])
    b2 = _second(torch.autograd.grad, b1, [*(bx[i] for i in active), bg], [torch.from_numpy(w.copy()) for w in v])
    for i, p, q in zip([*active, "g"], a2, b2, strict=True):
        _same_gradient(p, q, g if i == "g" else inputs[i], tol, f"second gradient of argument {i}")


def _arguments(module: Any, inputs: Sequence) -> list:
    made = []
    for x in inputs:
        if isinstance(x, np.ndarray):
            t = tg.Tensor(placed(x)) if module is tg else torch.from_numpy(x.copy())
            made.append(t.requires_grad_() if x.dtype.kind == "f" else t)
        else:
            made.append(x)
    return made


def _second(grad: Callable, first: Sequence, inputs: Sequence, v: Sequence) -> Sequence:
    """∇⟨v, first⟩; a first gradient that is missing, or constant, contributes nothing."""
    pairs = [(d, w) for d, w in zip(first, v, strict=True) if d is not None and d.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    return grad([d for d, _ in pairs], inputs, [w for _, w in pairs], allow_unused=True)


def _same_gradient(ours: Any, theirs: Any, x: np.ndarray, tol: float, what: str) -> None:
    """None means zero, on either side."""
    a = np.zeros_like(x) if ours is None else ours
    b = torch.zeros(x.shape, dtype=torch.float64) if theirs is None else theirs
    same(a, b, tol, what)


def strided(a: Any) -> Any:
    """The same numbers with gaps between them, the axes reversed in memory."""
    wide = array_module(a).zeros([2 * n for n in reversed(a.shape)], dtype=a.dtype)
    view = wide.T[(..., *(slice(None, None, 2) for _ in a.shape))]
    view[...] = a
    return view


def _check_manners(
    ours: Callable,
    theirs: Callable,
    inputs: Sequence,
    active: list[int],
    ax: list,
    g: np.ndarray,
    y: Any,
    first: Sequence,
    tol: float,
) -> None:
    for i, x in enumerate(inputs):
        if isinstance(x, np.ndarray):
            np.testing.assert_array_equal(host(ax[i]), x, f"argument {i} was written to")
    held = [x.data for x in ax if isinstance(x, tg.Tensor)]
    for i, d in zip(active, first, strict=True):
        if d is not None:
            assert not any(shares_memory(d.data, h) for h in held), f"gradient {i} shares memory"
            held.append(d.data)

    def once(arrays: Sequence, g: Any) -> Any:
        xs = [tg.Tensor(x) if is_array(x) else x for x in arrays]
        for i in active:
            xs[i].requires_grad = True
        y = ours(*xs)
        return y, tg.grad(y, [xs[i] for i in active], tg.Tensor(g.astype(y.dtype)), allow_unused=True)

    y2, again = once([strided(placed(x)) if isinstance(x, np.ndarray) else x for x in inputs], strided(placed(g)))
    np.testing.assert_allclose(host(y2), host(y), rtol=tol, atol=tol, err_msg="the value for non-contiguous inputs")
    for i, d, e in zip(active, first, again, strict=True):
        assert (d is None) == (e is None)
        if d is not None:
            d, e = host(d), host(e)
            scale = max(1.0, float(np.abs(d[np.isfinite(d)]).max(initial=0)))
            np.testing.assert_allclose(
                e, d, rtol=tol, atol=tol * scale, err_msg=f"gradient {i} for non-contiguous inputs"
            )

    single = [x.astype("float32") if i in active else x for i, x in enumerate(inputs)]
    y3, low = once([placed(x) if isinstance(x, np.ndarray) else x for x in single], placed(g))
    expected = theirs(*_arguments(torch, single)).dtype
    assert f"torch.{y3.dtype}" == str(expected), f"from float32 inputs the value is {y3.dtype}, PyTorch's {expected}"
    for i, d in zip(active, low, strict=True):
        assert d is None or d.dtype == np.float32, f"from float32 inputs gradient {i} is {d.dtype}"

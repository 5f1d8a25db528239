"""Properties of functions and layers that say more than a gradient: inverses, and independence of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen.autograd import grad
from tinygen.backend import move
from tinygen.recording import no_grad
from tinygen.tensor import Tensor, wrap
from tinygen.testing.evaluation import GradientError, array_of, place_of
from tinygen.testing.manners import close

_PRECISION = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2}


def check_inverse(
    f: Callable[[Tensor], Tensor], g: Callable[[Tensor], Tensor], x: Any, rtol: float | None = None, seed: int = 0
) -> None:
    """Check g(f(x)) = x, in value, shape, dtype and derivative; return nothing where all is well.

    Where g undoes f near x, the Jacobian of g∘f is the identity, so ∂⟨v, g(f(x))⟩/∂x = v for every v. A function that
    is right in value and loses its gradient on the way is caught by that.

    Args:
        f, g: functions of one tensor.
        x: a floating Tensor or array, or a tensor of another dtype, whose values alone are compared. f and g run where
            it lives, if it is a Tensor; on the default device, if it is an array.
        rtol: in units of the largest number; by the dtype where omitted (1e-9 for float64, 1e-4 for float32).
        seed: of v.

    Raises:
        GradientError: g does not undo f.
    """
    array = array_of(x)
    place = place_of([x])
    t = wrap(move(array, place))
    if array.dtype.kind == "f":
        t.requires_grad = True
    back = g(f(t))
    found = array_of(back)
    if found.shape != array.shape or found.dtype != array.dtype:
        raise GradientError(f"x is {array.dtype} {array.shape}, but g(f(x)) is {found.dtype} {found.shape}")
    tolerance = _PRECISION.get(str(array.dtype), 0.0) if rtol is None else rtol
    if not close(found, array, tolerance):
        raise GradientError(f"g(f(x)) is not x: {_worst(found, array)}")
    if array.dtype.kind != "f":
        return
    if not back.requires_grad:
        raise GradientError("g(f(x)) has lost the gradient: it does not require grad, though x does")
    v = np.asarray(np.random.default_rng(seed).standard_normal(array.shape).astype(array.dtype))
    (d,) = grad([back], [t], [wrap(move(v, place))], allow_unused=True)
    derivative = np.zeros_like(v) if d is None else array_of(d)
    if not close(derivative, v, tolerance):
        raise GradientError(f"the derivative of g(f(x)) is not that of x: {_worst(derivative, v, 'vᵀJ', 'v')}")


def check_batch_consistency(
    layer: Callable[..., Tensor], *batch: Any, rtol: float | None = None, seed: int = 0
) -> None:
    """Check that a batch equals its items one by one: values, gradients, and gradients of the layer's parameters.

    With y = layer(x) and items along the first axis: layer(x[i : i+1]) is y[i : i+1]; ∂⟨g, y⟩/∂x at item i is that
    of the item alone; and ∂⟨g, y⟩/∂θ of a parameter θ is the sum of the items'.

    Args:
        layer: a Module (anything with ``parameters()``) or a function, of as many tensors as ``batch`` holds. In the
            mode in which it is to be independent of the batch: ``layer.eval()`` for BatchNorm and Dropout.
        batch: Tensors or arrays with a first axis of one length n ≥ 2. They live, or are put, where the layer computes.
        rtol: in units of the largest number; by the result's dtype where omitted.
        seed: of g.

    Raises:
        GradientError: an item alone gives something else than in the batch; the message names the first such item.
        ValueError: the inputs have no common first axis of two or more.
    """
    arrays = [array_of(x) for x in batch]
    lengths = {a.shape[:1] for a in arrays}
    if len(lengths) != 1 or next(iter(lengths), ()) in ((), (0,), (1,)):
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ValueError(f"check_batch_consistency: expected inputs of a common length n ≥ 2, got shapes {shapes}")
    (n,) = next(iter(lengths))
    parameters = [p for p in getattr(layer, "parameters", list)() if p.requires_grad]
    place = place_of([*batch, *parameters])

    def run(part: slice, g: np.ndarray | None) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """The value for a part of the batch, and the gradients of ⟨g, y⟩ in the inputs and in the parameters."""
        tensors = [wrap(move(a[part].copy(), place)) for a in arrays]
        inputs = [t.requires_grad_() for t in tensors if t.dtype.kind == "f"]
        if g is None:
            with no_grad():
                return array_of(layer(*tensors)), [], []
        y = layer(*tensors)
        if y.shape != g[part].shape:
            raise GradientError(f"item {part.start} alone gives the shape {y.shape}, in the batch {g[part].shape}")
        wanted = [*inputs, *parameters]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if y.requires_grad:
            found = grad([y], wanted, [wrap(move(g[part].astype(y.dtype), place))], allow_unused=True)
        numbers = [np.zeros(w.shape) if d is None else array_of(d) for w, d in zip(wanted, found, strict=True)]
        return array_of(y), numbers[: len(inputs)], numbers[len(inputs) :]

    whole = slice(0, n)
    y, _, _ = run(whole, None)
    if y.shape[:1] != (n,):
        raise GradientError(f"the batch has {n} items, but the result the shape {y.shape}")
    tolerance = _PRECISION.get(str(y.dtype), 1e-9) if rtol is None else rtol
    g = np.random.default_rng(seed).standard_normal(y.shape)
    again, in_x, in_parameters = run(whole, g)
    if not close(again, y, tolerance):
        raise GradientError("the layer gives another result the second time: does it draw random numbers?")
    total = [np.zeros_like(d) for d in in_parameters]
    for i in range(n):
        one = slice(i, i + 1)
        y_i, in_x_i, in_parameters_i = run(one, g)
        if not close(y_i, y[one], tolerance, least=_largest(y)):
            raise GradientError(f"item {i} depends on the rest of its batch: {_worst(y_i, y[one], *_WHERE)}")
        for k, (a, b) in enumerate(zip(in_x_i, in_x, strict=True)):
            if not close(a, b[one], tolerance, least=_largest(b)):
                raise GradientError(
                    f"the gradient of input {k} at item {i} depends on the rest of its batch: "
                    f"{_worst(a, b[one], *_WHERE)}"
                )
        total = [a + b for a, b in zip(total, in_parameters_i, strict=True)]
    for k, (a, b) in enumerate(zip(total, in_parameters, strict=True)):
        if not close(a, b, n * tolerance):
            raise GradientError(
                f"the gradient of parameter {k}, of shape {b.shape}, is not the sum over the items: "
                f"{_worst(a, b, 'summed over the items', 'in the batch')}"
            )


_WHERE = ("alone", "in the batch")


def _largest(a: np.ndarray) -> float:
    size = np.abs(a)
    return float(size.max(where=np.isfinite(size), initial=0.0))


def _worst(found: np.ndarray, expected: np.ndarray, first: str = "g(f(x))", second: str = "x") -> str:
    """The element that differs most, and both values."""
    with np.errstate(invalid="ignore"):
        gap = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    worst = np.unravel_index(int(np.argmax(np.where(np.isnan(gap), np.inf, gap))), gap.shape)
    place = tuple(int(n) for n in worst)
    return f"at element {place}, {first} {found[place]:.8g}, {second} {expected[place]:.8g}"

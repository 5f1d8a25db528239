"""Functions of tensors as functions of NumPy arrays: their values, and their gradients by reverse mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen.autograd import grad
from tinygen.backend import get_default_device, is_array, to_numpy
from tinygen.tensor import Tensor, wrap

Function = Callable[..., Tensor]


class GradientError(AssertionError):
    """A gradient is wrong: which argument, which element, the two values, and what the difference looks like."""


def array_of(x: Any) -> np.ndarray:
    """A copy of a tensor's or an array's numbers, from whichever device, or of a Python number's."""
    raw = x.data if isinstance(x, Tensor) else x
    return np.array(to_numpy(raw) if is_array(raw) else raw)


def place_of(inputs: Sequence) -> str:
    """Where the first Tensor among the inputs lives; the default device where there is none."""
    return next((x.device for x in inputs if isinstance(x, Tensor)), get_default_device())


def run_at(place: str, f: Function) -> Function:
    """f run on another device, between two moves, which are differentiable too; the numbers stay with NumPy.

    A tensor that is passed twice is one tensor there, too.
    """
    if place == "cpu":
        return f

    def moved(*tensors: Tensor) -> Tensor:
        there = {id(t): t.to(device=place) for t in tensors}
        y = f(*(there[id(t)] for t in tensors))
        return y.to(device="cpu") if isinstance(y, Tensor) else y

    return moved


def value(f: Function, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """f(arrays), as an array of its own."""
    y = f(*[_leaf(a) for a in arrays])
    if not isinstance(y, Tensor):
        raise TypeError(f"check_grad: f returned {type(y).__name__}, expected a Tensor")
    return np.array(y.data)


def _leaf(a: np.ndarray) -> Tensor:
    x = wrap(a)
    return x.requires_grad_() if a.dtype.kind in "fc" else x


def gradients(f: Function, arrays: Sequence[np.ndarray], active: Sequence[int], g: np.ndarray) -> list[np.ndarray]:
    """∂⟨g, f(x)⟩/∂xᵢ for the active i by reverse mode; zeros where f does not depend on xᵢ.

    Raises:
        GradientError: a vjp writes to g.
    """
    tensors = [wrap(a).requires_grad_() if i in active else wrap(a) for i, a in enumerate(arrays)]
    y = f(*tensors)
    wanted = [tensors[i] for i in active]
    if not y.requires_grad:
        return [np.zeros_like(x.data) for x in wanted]
    seed = g.astype(y.dtype)
    found = grad(y, wanted, wrap(seed), allow_unused=True)
    if not np.array_equal(seed, g.astype(y.dtype), equal_nan=True):
        raise GradientError("a vjp wrote to the gradient that it was given")
    return [np.zeros_like(x.data) if d is None else d.data for x, d in zip(wanted, found, strict=True)]

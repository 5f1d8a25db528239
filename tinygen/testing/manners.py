"""What a gradient must be whatever its value: its shape, its dtype, its memory, and the same again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen.testing.evaluation import Function, GradientError, gradients, value
from tinygen.testing.layouts import laid_out

Namer = Callable[[int], str]


def check_manners(
    f: Function,
    arrays: list[np.ndarray],
    active: Sequence[int],
    g: np.ndarray,
    named: Namer,
) -> None:
    """Check everything about the gradients of ⟨g, f⟩ at float64 arrays that needs no second opinion.

    Raises:
        GradientError: f loses float64 or float32, writes to an input or to g, or gives another value or gradient the
            second time, for non-contiguous inputs or for one tensor passed twice; or a gradient has another shape or
            dtype than its input, or shares memory.
    """
    before = [a.copy() for a in arrays]

    def check_unwritten() -> None:
        for i, (a, b) in enumerate(zip(arrays, before, strict=True)):
            if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                raise GradientError(f"f, or one of its vjps, wrote to its {named(i)}")

    y = value(f, arrays)
    check_unwritten()
    if y.dtype.kind == "f" and y.dtype != np.float64:
        raise GradientError(f"f of float64 inputs is {y.dtype}: somewhere float64 is lost")
    reference = gradients(f, arrays, active, g)
    check_unwritten()
    for k, (i, d) in enumerate(zip(active, reference, strict=True)):
        if d.shape != arrays[i].shape or d.dtype != arrays[i].dtype:
            raise GradientError(
                f"the gradient of {named(i)} has shape {d.shape} and dtype {d.dtype}, the argument "
                f"{arrays[i].shape} and {arrays[i].dtype}"
            )
        if any(np.may_share_memory(d, other) for other in [*arrays, *reference[:k]]):
            raise GradientError(f"the gradient of {named(i)} shares memory with an input or another gradient")
    kept = [d.copy() for d in reference]
    again = _same(f, arrays, active, y, g, reference, 1e-9, "the second time", named)
    for i, d, e, was in zip(active, reference, again, kept, strict=True):
        if np.may_share_memory(d, e) or not np.array_equal(d, was, equal_nan=True):
            raise GradientError(f"the gradient of {named(i)} shares memory with that of a later sweep")
    gaps = [laid_out(a, "gaps") if i in active else a for i, a in enumerate(arrays)]
    _same(f, gaps, active, y, laid_out(g, "gaps"), reference, 1e-9, "for non-contiguous inputs", named)
    single = [a.astype(np.float32) if i in active else a for i, a in enumerate(arrays)]
    low = value(f, single)
    if y.dtype == np.float64 and low.dtype != np.float32:
        raise GradientError(f"f of float32 inputs is {low.dtype}: somewhere float32 is lost")
    _same(f, single, active, y, g.astype(np.float32), reference, 1e-2, "for float32 inputs", named, np.float32)
    check_repeated(f, arrays, active, g, named)


def check_repeated(
    f: Function, arrays: Sequence[np.ndarray], active: Sequence[int], g: np.ndarray, named: Namer
) -> None:
    """Check that one tensor passed as two arguments gets the sum of what two equal tensors get.

    d f(x, x) = ∂₁f dx + ∂₂f dx. Done for each active input and the next of its shape, unless f refuses such values, or
    tells one tensor from two equal ones (as it does when it differentiates with respect to them itself).

    Raises:
        GradientError: it does not.
    """
    later = [(i, [j for j in active if j > i and arrays[j].shape == arrays[i].shape]) for i in active]
    for i, j in [(i, others[0]) for i, others in later if others]:
        twice = [arrays[i] if k == j else a for k, a in enumerate(arrays)]

        def repeated(*tensors: Any, i: int = i, j: int = j) -> Any:
            return f(*(tensors[i] if k == j else t for k, t in enumerate(tensors)))

        with np.errstate(all="ignore"):
            try:
                y, again = value(f, twice), value(repeated, twice)
            except ValueError:
                continue  # the values of one argument need not be legal for the other
            if not close(again, y, 1e-9):
                continue
            apart = gradients(f, twice, active, g)
            together = gradients(repeated, twice, active, g)[list(active).index(i)]
        expected = apart[list(active).index(i)] + apart[list(active).index(j)]
        if not close(together, expected, 1e-9):
            raise GradientError(
                f"one tensor passed as {named(i)} and as {named(j)} must get the sum of both gradients, "
                f"{_shown(expected)}; it gets {_shown(together)}"
            )


def _shown(a: np.ndarray) -> str:
    return np.array2string(a.reshape(-1)[:6], precision=6, separator=", ") + (" …" if a.size > 6 else "")


def _same(
    f: Function,
    arrays: list[np.ndarray],
    active: Sequence[int],
    y: np.ndarray,
    g: np.ndarray,
    reference: Sequence[np.ndarray],
    rtol: float,
    when: str,
    named: Namer,
    dtype: Any = np.float64,
) -> list[np.ndarray]:
    """The gradients again; value and gradients must be those already known."""
    least = 0.0 if dtype == np.float64 else 1e-3  # float32 numbers that cancel to 0 leave their rounding
    found = value(f, arrays)
    if found.shape != y.shape or not close(found, y, rtol, least):
        raise GradientError(f"the value is another one {when}")
    again = gradients(f, arrays, active, g)
    for i, d, e in zip(active, again, reference, strict=True):
        if d.dtype != dtype:
            raise GradientError(f"the gradient of {named(i)} is {d.dtype} {when}, expected {np.dtype(dtype)}")
        if not close(d, e, rtol, least):
            worst = float(np.abs(d - e).max())
            raise GradientError(f"the gradient of {named(i)} is another one {when}: it differs by {worst:.3g}")
    return again


def close(a: np.ndarray, b: np.ndarray, rtol: float, least: float = 0.0) -> bool:
    """Whether a is b, to rtol of b's largest number, or of ``least`` if that is larger; NaN is NaN."""
    if a.shape != b.shape:
        return False
    if b.dtype.kind not in "fc":
        return np.array_equal(a, b)
    with np.errstate(invalid="ignore"):
        size = np.abs(b)
        finite = np.isfinite(size)
        scale = float(size.max(where=finite, initial=least))
        near = finite & (np.abs(a - b) <= rtol * (size + scale) + 1e-12)
    return bool((near | (a == b) | ((a != a) & (b != b))).all())

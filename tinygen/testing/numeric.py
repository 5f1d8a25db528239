"""Directional derivatives from values alone: the numbers that a vjp is held to.

For a direction u and a cotangent g, ⟨g, J u⟩ with J = ∂f/∂x is computed

- by the complex step, ⟨g, Im f(x + ih·u)⟩ / h with h = 10⁻³⁰: no subtraction, so no cancellation, and exact to
  rounding, where f is analytic;
- by Richardson differences, with D(h) = ⟨g, f(x + hu) − f(x − hu)⟩ / 2h = ⟨g, Ju⟩ + c₁h² + c₂h⁴ + …, from which a
  table of (4ᵏD(h/2) − D(h))/(4ᵏ − 1) removes one power of h² after the other.

The complex step counts where the differences confirm it; elsewhere f is not analytic, and the differences count.

Source: Squire & Trapp, *Using complex variables to estimate derivatives of real functions* (1998); Richardson 1911;
Ridders, *Accurate computation of F'(x) and F'(x)F''(x)* (1982).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygen.testing.evaluation import Function, GradientError, value

_TINY = 1e-30  # the complex step: its square vanishes beside 1 in float64
_ROWS = 5  # of Richardson's table
_CONFIRM = 3  # rows that are enough to confirm a complex step


class Derivative(NamedTuple):
    """⟨g, J u⟩ by numbers.

    Attributes:
        value: the number.
        noise: how uncertain it is.
        step: how it was found, for messages.
    """

    value: float
    noise: float
    step: str


def derivative(
    f: Function,
    arrays: Sequence[np.ndarray],
    i: int,
    u: np.ndarray,
    g: np.ndarray,
    step: float,
    analytic: bool | None = None,
) -> Derivative:
    """⟨g, J u⟩ for a direction u of input i.

    Args:
        step: the first step of the differences, in units of the input's own size. Where they do not converge (a kink
            or a pole is within reach) smaller ones are tried.
        analytic: whether the complex step is to count: always (True), never (False), or where the differences confirm
            it (None).

    Raises:
        GradientError: f is said to be analytic, but the complex step fails or the differences contradict it.
    """

    def along(h: float) -> float:
        moved = [*arrays]
        moved[i] = np.asarray(arrays[i] + h * u)
        return float((g * value(f, moved)).sum())

    h = step * max(1.0, float(np.abs(arrays[i]).max())) / max(1.0, np.abs(u).max())
    exact = None if analytic is False else _complex_step(f, arrays, i, u, g)
    if exact is not None:
        rough, error = _richardson(along, h, _CONFIRM)
        if _agree(exact, rough, error):
            return Derivative(exact, 1e-13 * abs(exact), f"complex step {_TINY:g}")
    difference, error = _richardson(along, h, _ROWS)
    first = h
    for _ in range(4):
        if error <= 1e-6 * abs(difference) + 1e-9:
            break
        h /= 10
        again, smaller = _richardson(along, h, _ROWS)
        if smaller < error:
            difference, error, first = again, smaller, h
    if exact is not None and _agree(exact, difference, error):
        return Derivative(exact, 1e-13 * abs(exact), f"complex step {_TINY:g}")
    if analytic:
        found = "does not work" if exact is None else f"gives {exact:.10g}, and differences {difference:.10g}"
        raise GradientError(f"f is declared analytic, but the complex step {found}")
    return Derivative(difference, error, f"differences from step {first:.2g}")


def _agree(exact: float, difference: float, error: float) -> bool:
    size = max(abs(exact), abs(difference))
    converged = error <= 1e-4 * size + 1e-6  # at a jump they do not, and confirm nothing
    return converged and abs(exact - difference) <= 1e-5 * size + 10 * error + 1e-7


def _richardson(along: Callable[[float], float], h: float, rows: int) -> tuple[float, float]:
    """The derivative of ``along`` at 0 and an estimate of its error, from Ridders' table."""
    table: list[list[float]] = []
    best, error = np.nan, np.inf
    for row in range(rows):
        table.append([(along(h) - along(-h)) / (2 * h)])
        for k in range(1, row + 1):
            table[row].append((4**k * table[row][k - 1] - table[row - 1][k - 1]) / (4**k - 1))
            change = max(abs(table[row][k] - table[row][k - 1]), abs(table[row][k] - table[row - 1][k - 1]))
            if change < error:
                best, error = table[row][k], change
        h /= 2
    return best, float(error)


def _complex_step(f: Function, arrays: Sequence[np.ndarray], i: int, u: np.ndarray, g: np.ndarray) -> float | None:
    """⟨g, Im f(x + ih·u)⟩ / h, or None where f does not take complex numbers."""
    moved: list[Any] = [a.astype(np.complex128) if a.dtype.kind == "f" else a for a in arrays]
    moved[i] = np.asarray(moved[i] + 1j * _TINY * u)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)  # an imaginary part was dropped
            y = value(f, moved)
    except Exception:  # f is anybody's, and need not take complex numbers; the differences remain
        return None
    return float((g * y.imag).sum() / _TINY) if y.dtype.kind == "c" else None

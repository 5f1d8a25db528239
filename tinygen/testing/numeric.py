"""Directional derivatives from values alone: the numbers that a vjp is held to.

For a direction u and a cotangent g, ⟨g, J u⟩ with J = ∂f/∂x is computed

- by the complex step, ⟨g, Im f(x + ih·u)⟩ / h with h = 10⁻³⁰: no subtraction, so no cancellation, and exact to
  rounding, where f is analytic;
- by Richardson differences, with D(h) = ⟨g, f(x + hu) − f(x − hu)⟩ / 2h = ⟨g, Ju⟩ + c₁h² + c₂h⁴ + …, from which a
  table of (4ᵏD(h/2) − D(h))/(4ᵏ − 1) removes one power of h² after the other.

The complex step counts where the differences confirm it, along a random direction, which moves every number of x, or
along u itself. Elsewhere f is not analytic, and the differences count.

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


class Derivatives:
    """⟨g, J u⟩ for directions u of input i.

    Args:
        step: the first step of the differences, in units of the input's own size. Where they do not converge (a kink
            or a pole is within reach) smaller ones are tried.
        analytic: whether the complex step is to count: always (True), never (False), or where the differences confirm
            it (None).
        direction: a random one, along which differences confirm the complex step for all others: it moves everything.

    Raises:
        GradientError: f is said to be analytic, but the complex step fails or the differences contradict it.
    """

    def __init__(
        self,
        f: Function,
        arrays: Sequence[np.ndarray],
        i: int,
        g: np.ndarray,
        step: float,
        analytic: bool | None,
        direction: np.ndarray,
    ) -> None:
        self.f, self.arrays, self.i, self.g = f, arrays, i, g
        self.step = step * max(1.0, float(np.abs(arrays[i]).max(initial=0.0)))
        self.analytic = analytic
        self.confirmed = False
        if analytic is not False:
            exact = self._complex_step(direction)
            if exact is not None:
                self.confirmed = any(_agree(exact, *self._differences(direction, rows)[:2]) for rows in (3, _ROWS))
            if analytic and not self.confirmed:
                found = f"{self._differences(direction)[0]:.10g}, but the complex step "
                found += "does not work" if exact is None else f"gives {exact:.10g}"
                raise GradientError(f"f is declared analytic; along a random direction, differences give {found}")

    def along(self, u: np.ndarray) -> Derivative:
        """⟨g, J u⟩."""
        exact = None if self.analytic is False else self._complex_step(u)
        if exact is not None and self.confirmed:
            return Derivative(exact, 1e-13 * abs(exact), f"complex step {_TINY:g}")
        difference, error, first = self._differences(u)
        if exact is not None and _agree(exact, difference, error):
            return Derivative(exact, 1e-13 * abs(exact), f"complex step {_TINY:g}")
        return Derivative(difference, error, f"differences from step {first:.2g}")

    def _differences(self, u: np.ndarray, rows: int = _ROWS) -> tuple[float, float, float]:
        """The derivative, its estimated error, and the first step."""

        def value_at(h: float) -> float:
            moved = [*self.arrays]
            moved[self.i] = np.asarray(self.arrays[self.i] + h * u)
            return float((self.g * value(self.f, moved)).sum())

        h = self.step / max(1.0, np.abs(u).max(initial=0.0))
        difference, error = _richardson(value_at, h, rows)
        first = h
        for _ in range(4 if rows == _ROWS else 0):
            if error <= 1e-6 * abs(difference) + 1e-9:
                break
            h /= 10
            again, smaller = _richardson(value_at, h, rows)
            if smaller < error:
                difference, error, first = again, smaller, h
        return difference, error, first

    def _complex_step(self, u: np.ndarray) -> float | None:
        """⟨g, Im f(x + ih·u)⟩ / h, or None where f does not take complex numbers."""
        moved: list[Any] = [a.astype(np.complex128) if a.dtype.kind == "f" else a for a in self.arrays]
        moved[self.i] = np.asarray(moved[self.i] + 1j * _TINY * u)
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("error", np.exceptions.ComplexWarning)  # an imaginary part was dropped
                y = value(self.f, moved)
        except Exception:  # f is anybody's, and need not take complex numbers; the differences remain
            return None
        return float((self.g * y.imag).sum() / _TINY) if y.dtype.kind == "c" else None


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

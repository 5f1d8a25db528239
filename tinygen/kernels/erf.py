"""The error function on arrays, which NumPy lacks.

With x ≥ 0 and the scaled complement erfcx(x) = e^(x²)·erfc(x), which is smooth and slowly varying,

    erf(x) = (2x/√π) Σₖ (−x²)ᵏ / (k! (2k + 1))      for x < 1,
    erf(x) = 1 − e^(−x²) · erfcx(x)                 for x ≥ 1,

and erf(−x) = −erf(x). The series is Taylor's: e^(−t²), integrated term by term. erfcx is evaluated as a Chebyshev
series, whose coefficients are computed at first use from Python's own ``math.erfc``: the sum over N Chebyshev nodes
tₖ = cos(π(k + ½)/N) of

    c_j = (2/N) Σₖ f(tₖ) cos(j·arccos tₖ),       c₀ halved.

Source: Abramowitz & Stegun, *Handbook of Mathematical Functions* (1964), 7.1.5; Trefethen, *Approximation Theory and
Approximation Practice* (2013), ch. 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

from tinygen.backend import array_module

_SHIFT = 3.0  # erfcx is expanded in t = (x − s)/(x + s), which spreads [1, 6] well for s = 3
_LAST = 6.0  # from here on erf rounds to 1 in float64
# 2/√π · (−1)ᵏ / (k! (2k + 1)); the first term left out is below 10⁻¹⁷
_TAYLOR = tuple(2 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1)) for k in range(19))


def erf(x: Any) -> Any:
    """erf of a real floating array, to the precision of its dtype.

    Raises:
        TypeError: the array is complex.
    """
    if x.dtype.kind == "c":
        raise TypeError("erf: complex numbers are not supported")
    xp = array_module(x)
    if x.dtype.itemsize == 2:
        return erf(x.astype("float32")).astype(x.dtype)
    size = xp.abs(x)
    near = xp.minimum(size, 1)
    far = xp.clip(size, 1, _LAST)
    t_far = _rescale(far, 1.0, _LAST)
    single = x.dtype.itemsize == 4
    inside = x * _horner(_TAYLOR[:10] if single else _TAYLOR, near * near)
    outside = xp.copysign(1 - xp.exp(-far * far) * _clenshaw(_far_coefficients(8 if single else 22), t_far), x)
    # A NaN compares false and passes through the second branch.
    return xp.where(size < 1, inside, xp.where(size >= _LAST, xp.copysign(xp.ones_like(x), x), outside))


def _horner(coefficients: tuple[float, ...], t: Any) -> Any:
    """Σ_k c_k tᵏ, from the inside out."""
    result = coefficients[-1]
    for c in coefficients[-2::-1]:
        result = result * t + c
    return result


def _rescale(x: Any, first: float, last: float) -> Any:
    """x from [first, last] to [−1, 1], by way of (x − s)/(x + s)."""
    low, high = ((v - _SHIFT) / (v + _SHIFT) for v in (first, last))
    return (2 * (x - _SHIFT) / (x + _SHIFT) - (low + high)) / (high - low)


def _clenshaw(coefficients: tuple[float, ...], t: Any) -> Any:
    """Σ_j c_j T_j(t) by Clenshaw's recurrence b_j = c_j + 2t·b_{j+1} − b_{j+2}."""
    last, current = 0.0, coefficients[-1] + 0.0 * t
    twice = 2 * t
    for c in coefficients[-2:0:-1]:
        last, current = current, c + twice * current - last
    return coefficients[0] + t * current - last


def _series(f: Callable[[float], float], n: int) -> tuple[float, ...]:
    """The first n Chebyshev coefficients of f on [−1, 1]."""
    angles = [math.pi * (k + 0.5) / n for k in range(n)]
    values = [f(math.cos(angle)) for angle in angles]
    sums = [2 / n * math.fsum(v * math.cos(j * a) for v, a in zip(values, angles, strict=True)) for j in range(n)]
    return (sums[0] / 2, *sums[1:])


@cache
def _far_coefficients(n: int) -> tuple[float, ...]:
    low, high = ((v - _SHIFT) / (v + _SHIFT) for v in (1.0, _LAST))

    def scaled(t: float) -> float:
        r = ((high - low) * t + low + high) / 2
        x = _SHIFT * (1 + r) / (1 - r)
        return math.exp(x * x) * math.erfc(x)

    return _series(scaled, n)

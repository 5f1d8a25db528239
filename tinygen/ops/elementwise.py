"""Elementwise arithmetic: yᵢ = f(aᵢ, bᵢ).

The Jacobian of an elementwise op is diagonal, so every vjp here is a product: ∂L/∂aᵢ = gᵢ · ∂f/∂aᵢ, with
g = ∂L/∂y. Operands broadcast as in NumPy and PyTorch and meet in one dtype by PyTorch's rules
(:mod:`tinygen.promotion`); the gradient of a broadcast operand is summed back to its shape.

Shapes throughout: unary (*) → (*); binary (*), (*) → the broadcast shape. Source: ``torch.NAME``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen.backend import array_module, is_array
from tinygen.kernels.blocks import elementwise, unary
from tinygen.kernels.channels import LARGE, pairwise
from tinygen.kernels.erf import erf as erf_kernel
from tinygen.kernels.exponentials import one_plus_exp
from tinygen.kernels.gpu.pointwise import compute
from tinygen.op import op
from tinygen.ops.comparison import eq, ge, gt, lt
from tinygen.promotion import floating, result_type
from tinygen.tensor import Tensor

# ------------------------------------------------------------------------------------------ arithmetic


@op(broadcast=True)
def add(input, other):
    """y = a + b.    ∂L/∂a = g,  ∂L/∂b = g."""
    return input + other if getattr(input, "size", 0) < LARGE else pairwise(np.add, input, other)


@add.vjp("input", "other")
def _(g):
    return g


@op(broadcast=True)
def sub(input, other):
    """y = a − b.    ∂L/∂a = g,  ∂L/∂b = −g.

    Raises TypeError for two boolean tensors, as PyTorch does.
    """
    return input - other if getattr(input, "size", 0) < LARGE else pairwise(np.subtract, input, other)


@sub.vjp("input")
def _(g):
    return g


@sub.vjp("other")
def _(g):
    return -g


@op(broadcast=True)
def mul(input, other):
    """y = a·b.    ∂L/∂a = g·b,  ∂L/∂b = g·a."""
    return input * other if getattr(input, "size", 0) < LARGE else pairwise(np.multiply, input, other)


@mul.vjp("input")
def _(g, other):
    return g * other


@mul.vjp("other")
def _(g, input):
    return g * input


@op(broadcast=True)
def div(input, other):
    """y = a/b, floating also for integers.    ∂L/∂a = g/b,  ∂L/∂b = −g·a/b² = −g·y/b."""
    input, other = floating(input), floating(other)
    return input / other if getattr(input, "size", 0) < LARGE else pairwise(np.divide, input, other)


@div.vjp("input")
def _(g, other):
    return g / other


@div.vjp("other")
def _(g, y, other):
    return -g * y / other


@op(broadcast=True)
def pow(input, exponent):
    """y = aᵇ.    ∂L/∂a = g·b·aᵇ⁻¹ (0 where a = b = 0),  ∂L/∂b = g·y·ln a (0 where a = 0 and b ≥ 0).

    The two exceptions are the limits that keep 0·∞ = NaN out: 0⁰ = 1 has the derivative 0 in both arguments.
    """
    return input**exponent


@pow.vjp("input")
def _(g, input, exponent):
    if isinstance(exponent, (int, float, complex)):
        return zeros_like(g * input) if exponent == 0 else g * (exponent * input ** (exponent - 1))
    # Only where the base is 0 too: elsewhere b = 0 has the mixed derivative ∂²y/∂a∂b = 1/a, which a mask would lose.
    flat = eq(input, 0) & eq(exponent, 0)
    return where(flat, 0.0, g * (exponent * input ** (where(flat, 1.0, exponent) - 1)))


@pow.vjp("exponent")
def _(g, y, input, exponent):
    if isinstance(input, (int, float, complex)):
        if input == 0:
            return g * where(ge(exponent, 0), 0.0, -y)  # y = ∞ where b < 0
        return g * (y * (math.log(input) if input > 0 else math.nan))
    flat = eq(input, 0) & ge(exponent, 0)
    return where(flat, 0.0, g * (y * log(where(flat, 1.0, input))))


@op
def neg(input):
    """y = −a.    ∂L/∂a = −g."""
    return -input


@neg.vjp("input")
def _(g):
    return -g


@op
def abs(input):
    """y = |a|.    ∂L/∂a = g·sign a, with sign 0 = 0 as in PyTorch."""
    return array_module(input).abs(input)


@abs.vjp("input")
def _(g, input):
    return g * sign(input)


@op
def sign(input):
    """y = 1, 0 or −1 as a is positive, zero or negative.    ∂L/∂a = 0, almost everywhere."""
    return array_module(input).sign(input)


@op
def floor(input):
    """y = ⌊a⌋.    ∂L/∂a = 0, almost everywhere."""
    return input if input.dtype.kind in "biu" else array_module(input).floor(input)


@op
def ceil(input):
    """y = ⌈a⌉.    ∂L/∂a = 0, almost everywhere."""
    return input if input.dtype.kind in "biu" else array_module(input).ceil(input)


@op
def round(input):
    """y = a to the nearest integer, halves to even.    ∂L/∂a = 0, almost everywhere."""
    return input if input.dtype.kind in "biu" else array_module(input).round(input)


@sign.vjp("input")
@floor.vjp("input")
@ceil.vjp("input")
@round.vjp("input")
def _(g):
    return zeros_like(g)


@op
def zeros_like(input):
    """y = 0, in the shape and dtype of a. Not differentiable."""
    return array_module(input).zeros_like(input)


# ------------------------------------------------------------------- exponentials, logarithms, roots


@op
def exp(input):
    """y = eᵃ.    ∂L/∂a = g·y."""
    return unary(array_module(input).exp, floating(input))


@exp.vjp("input")
def _(g, y):
    return g * y


@op
def expm1(input):
    """y = eᵃ − 1, exact for small a.    ∂L/∂a = g·(y + 1)."""
    return unary(array_module(input).expm1, floating(input))


@expm1.vjp("input")
def _(g, y):
    return g * (y + 1)


@op
def log(input):
    """y = ln a; −∞ at 0, NaN below.    ∂L/∂a = g/a."""
    return unary(array_module(input).log, floating(input))


@log.vjp("input")
def _(g, input):
    return g / input


@op
def log1p(input):
    """y = ln(1 + a), exact for small a.    ∂L/∂a = g/(1 + a)."""
    return unary(array_module(input).log1p, floating(input))


@log1p.vjp("input")
def _(g, input):
    return g / (1 + input)


@op
def sqrt(input):
    """y = √a.    ∂L/∂a = g/(2y); infinite at 0, as in PyTorch."""
    return unary(array_module(input).sqrt, floating(input))


@sqrt.vjp("input")
def _(g, y):
    return g / (2 * y)


@op
def rsqrt(input):
    """y = 1/√a.    ∂L/∂a = −g·y³/2, because dy/da = −½a^(−3/2)."""
    input = floating(input)
    return 1 / array_module(input).sqrt(input)


@rsqrt.vjp("input")
def _(g, y):
    return g * (-0.5 * (y * y * y))


@op
def square(input):
    """y = a².    ∂L/∂a = 2·g·a."""
    return input * input


@square.vjp("input")
def _(g, input):
    return g * (2 * input)


@op
def reciprocal(input):
    """y = 1/a.    ∂L/∂a = −g·y²."""
    return 1 / floating(input)


@reciprocal.vjp("input")
def _(g, y):
    return -g * (y * y)


# --------------------------------------------------------------------------- trigonometric, sigmoidal


@op
def sin(input):
    """y = sin a.    ∂L/∂a = g·cos a."""
    return unary(array_module(input).sin, floating(input))


@sin.vjp("input")
def _(g, input):
    return g * cos(input)


@op
def cos(input):
    """y = cos a.    ∂L/∂a = −g·sin a."""
    return unary(array_module(input).cos, floating(input))


@cos.vjp("input")
def _(g, input):
    return -g * sin(input)


@op
def tanh(input):
    """y = tanh a.    ∂L/∂a = g·(1 − y²)."""
    return unary(array_module(input).tanh, floating(input))


@tanh.vjp("input")
def _(g, y):
    return g * (1 - y * y)


@op
def sigmoid(input):
    """y = σ(a) = 1/(1 + e⁻ᵃ).    ∂L/∂a = g·y·(1 − y), because σ' = σ(1 − σ).

    As it is written: where e⁻ᵃ overflows to ∞ the quotient is 0, as it should be, and small values keep their
    relative precision, which ½(1 + tanh(a/2)) rounds to 0.
    """
    input = floating(input)
    if (made := compute(array_module(input), "sigmoid", input)) is not None:
        return made
    if input.size >= LARGE and type(input) is np.ndarray:
        return elementwise(_sigmoid_block, input)
    with np.errstate(over="ignore"):
        return 1 / (1 + array_module(input).exp(-input))


def _sigmoid_block(y: np.ndarray, x: np.ndarray) -> None:
    np.negative(x, out=y)
    one_plus_exp(y, out=y)
    np.divide(1, y, out=y)


@sigmoid.vjp("input")
def _(g, y):
    return g * (y * (1 - y))


@op
def erf(input):
    """y = erf a = (2/√π) ∫₀ᵃ e^(−t²) dt.    ∂L/∂a = g·(2/√π)·e^(−a²).

    Source: Abramowitz & Stegun, *Handbook of Mathematical Functions* (1964), 7.1.1.
    """
    return erf_kernel(floating(input))


@erf.vjp("input")
def _(g, input):
    return g * (2 / math.sqrt(math.pi) * exp(-(input * input)))


# -------------------------------------------------------------------------------------- choosing

# Where a maximum is a tie, every tied argument is a subgradient and so is their mean, which PyTorch takes.


@op(broadcast=True)
def maximum(input, other):
    """y = max(a, b).    ∂L/∂a = g where a > b, g/2 where a = b, else 0; ∂L/∂b likewise."""
    return _module(input, other).maximum(input, other)


@op(broadcast=True)
def minimum(input, other):
    """y = min(a, b).    ∂L/∂a = g where a < b, g/2 where a = b, else 0; ∂L/∂b likewise."""
    return _module(input, other).minimum(input, other)


@maximum.vjp("input")
@minimum.vjp("other")
def _(g, input, other):
    return g * _greater_or_half(input, other, g.dtype)


@maximum.vjp("other")
@minimum.vjp("input")
def _(g, input, other):
    return g * _greater_or_half(other, input, g.dtype)


def _greater_or_half(a: Any, b: Any, dtype: Any) -> Tensor:
    """1 where a > b, ½ where a = b, 0 elsewhere."""
    return ((gt(a, b)).to(dtype) + (ge(a, b)).to(dtype)) * 0.5


@op(broadcast=True)
def where(condition, input, other):
    """y = a where the condition holds, else b.    ∂L/∂a = g where it holds, else 0; ∂L/∂b the other way round.

    Args:
        condition: a boolean tensor; all three broadcast.

    Raises:
        TypeError: the condition is not boolean.
    """
    if not is_array(condition) or condition.dtype.kind != "b":
        kind = condition.dtype if is_array(condition) else type(condition).__name__
        raise TypeError(f"where: expected a boolean tensor as the condition, got {kind}")
    y = _module(condition, input, other).where(condition, input, other)
    # Two Python numbers would give NumPy's float64.
    return y if is_array(input) or is_array(other) else y.astype(result_type(input, other))


@where.vjp("input")
def _(g, condition):
    return where(condition, g, 0.0)


@where.vjp("other")
def _(g, condition):
    return where(condition, 0.0, g)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """y = a limited to [min, max].

    ∂L/∂a = g where min ≤ a ≤ max, the bounds included (PyTorch's choice), else 0; a bound that is a tensor gets
    g where it is what y is.

    Args:
        min, max: numbers or tensors that broadcast; one may be omitted.

    Raises:
        ValueError: both are omitted.
    """
    if min is None and max is None:
        raise ValueError("clamp: expected min, max or both")
    if min is not None:
        input = where(lt(input, min), min, input)
    return input if max is None else where(gt(input, max), max, input)


def _module(*values: Any) -> Any:
    """The library of the first array among ``values``."""
    for value in values:
        if hasattr(value, "dtype"):
            return array_module(value)
    raise TypeError("expected at least one Tensor among the arguments; make one with tg.tensor(...)")

"""Comparisons and logic, elementwise: what they tell jumps, so none has a derivative.

Operands broadcast as in NumPy and PyTorch, and meet in one dtype before they are compared (:mod:`tinygen.promotion`).
Shapes throughout: unary (*) → (*); binary (*), (*) → the broadcast shape. Source: ``torch.NAME``.
"""

from __future__ import annotations

from tinygen.backend import array_module
from tinygen.op import op


@op(broadcast=True)
def eq(input, other):
    """y = [a = b], elementwise. Not differentiable."""
    return input == other


@op(broadcast=True)
def ne(input, other):
    """y = [a ≠ b], elementwise. Not differentiable."""
    return input != other


@op(broadcast=True)
def lt(input, other):
    """y = [a < b], elementwise. Not differentiable."""
    return input < other


@op(broadcast=True)
def le(input, other):
    """y = [a ≤ b], elementwise. Not differentiable."""
    return input <= other


@op(broadcast=True)
def gt(input, other):
    """y = [a > b], elementwise. Not differentiable."""
    return input > other


@op(broadcast=True)
def ge(input, other):
    """y = [a ≥ b], elementwise. Not differentiable."""
    return input >= other


@op(broadcast=True)
def bitwise_and(input, other):
    """y = a ∧ b of booleans, bit by bit of integers. Not differentiable."""
    return input & other


@op(broadcast=True)
def bitwise_or(input, other):
    """y = a ∨ b of booleans, bit by bit of integers. Not differentiable."""
    return input | other


@op(broadcast=True)
def bitwise_xor(input, other):
    """y = a ⊕ b of booleans, bit by bit of integers. Not differentiable."""
    return input ^ other


@op
def bitwise_not(input):
    """y = ¬a of booleans, bit by bit of integers. Not differentiable."""
    return array_module(input).invert(input)


@op
def logical_not(input):
    """y = ¬a: True where a is zero or False. Not differentiable."""
    return array_module(input).logical_not(input)


@op
def isnan(input):
    """y = [a is NaN], elementwise. Not differentiable."""
    return array_module(input).isnan(input)


@op
def isfinite(input):
    """y = [|a| < ∞], elementwise: neither infinite nor NaN. Not differentiable."""
    return array_module(input).isfinite(input)

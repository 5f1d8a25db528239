"""The reductions and operators of ``cupy.ndarray``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tinygen.testing.strict.memory import Memory, binary, fresh, in_place, into, number, operand, quiet, typed


class Reductions(Memory):
    """Sums, extremes and the like: arrays, of no axes where nothing is left."""

    __slots__ = ()

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        with quiet():
            return into(self._raw.sum(axis, dtype, keepdims=keepdims), out)

    def prod(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = None) -> Any:
        with quiet():
            return into(self._raw.prod(axis, dtype, keepdims=bool(keepdims)), out)

    def mean(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # "mean of empty slice": NaN without a word on a GPU
            return into(self._raw.mean(axis, dtype, keepdims=keepdims), out)

    def var(
        self, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: bool = False
    ) -> Any:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return into(self._raw.var(axis, dtype, None, ddof, keepdims=keepdims), out)

    def std(
        self, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: bool = False
    ) -> Any:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return into(self._raw.std(axis, dtype, None, ddof, keepdims=keepdims), out)

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return into(self._raw.max(axis, keepdims=keepdims), out)

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return into(self._raw.min(axis, keepdims=keepdims), out)

    def ptp(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return into(np.ptp(self._raw, axis, keepdims=keepdims), out)

    def argmax(self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return into(typed(self._raw.argmax(axis, keepdims=keepdims), dtype), out)

    def argmin(self, axis: Any = None, out: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return into(typed(self._raw.argmin(axis, keepdims=keepdims), dtype), out)

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return into(self._raw.all(axis, keepdims=keepdims), out)

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        return into(self._raw.any(axis, keepdims=keepdims), out)

    def cumsum(self, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        with quiet():
            return into(self._raw.cumsum(axis, dtype), out)

    def cumprod(self, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        with quiet():
            return into(self._raw.cumprod(axis, dtype), out)

    def trace(self, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
        return into(self._raw.trace(offset, axis1, axis2, dtype), out)

    def clip(self, min: Any = None, max: Any = None, out: Any = None) -> Any:
        low: Any
        high: Any
        low, high = (None if bound is None else operand(bound) for bound in (min, max))
        return into(self._raw.clip(low, high), out)

    def round(self, decimals: int = 0, out: Any = None) -> Any:
        return into(self._raw.round(decimals), out)

    def dot(self, b: Any, out: Any = None) -> Any:
        with quiet():
            return into(np.dot(self._raw, operand(b)), out)


class Operators(Memory):
    """``+``, ``@``, ``<`` and the others; ``in`` and ``@=`` CuPy has not, ``divmod`` nobody needs."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __neg__(self) -> Any:
        return fresh(np.negative(self._raw, order="C"))

    def __pos__(self) -> Any:
        return fresh(np.positive(self._raw, order="C"))

    def __abs__(self) -> Any:
        return fresh(np.absolute(self._raw, order="C"))

    def __invert__(self) -> Any:
        return fresh(np.invert(self._raw, order="C"))

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        shortcut = {2: np.square, 0.5: np.sqrt, -1.0: np.reciprocal}.get(other) if type(other) in (int, float) else None
        if shortcut is not None and self._raw.dtype.kind in "fc":
            with quiet():
                return fresh(shortcut(self._raw, order="C"))
        return binary(np.power, self, other)

    def __eq__(self, other: Any) -> Any:
        if _never_equal(other):
            return fresh(np.zeros(self._raw.shape, bool))
        return binary(np.equal, self, other)

    def __ne__(self, other: Any) -> Any:
        if _never_equal(other):
            return fresh(np.ones(self._raw.shape, bool))
        return binary(np.not_equal, self, other)


def _never_equal(other: Any) -> bool:
    """Whether it is None, ``...`` or the like, to which CuPy compares without complaint."""
    equal: Any = type(other).__eq__
    return other is None or (equal is object.__eq__ and not number(other))


def _operators() -> None:
    """``x + y``, ``y + x`` and ``x += y`` for every operator that CuPy has."""
    arithmetic = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
        "floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "and": np.bitwise_and,
        "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift,
    }  # fmt: skip
    for name, function in {**arithmetic, "matmul": np.matmul}.items():
        if name != "pow":
            setattr(Operators, f"__{name}__", lambda self, other, f=function: binary(f, self, other))
        setattr(Operators, f"__r{name}__", lambda self, other, f=function: binary(f, other, self))
    for name, function in arithmetic.items():
        setattr(Operators, f"__i{name}__", lambda self, other, f=function: in_place(f, self, other))
    for name, function in {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}.items():
        setattr(Operators, f"__{name}__", lambda self, other, f=function: binary(f, self, other))


_operators()

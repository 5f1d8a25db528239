"""The operators and methods of Tensor: each is an op of :mod:`tinygen.ops`, hung on the class by name."""

from __future__ import annotations

from typing import Any

from tinygen.backend import float16, float32, float64, int32, int64
from tinygen.ops import activations, comparison, conversion, elementwise, indexing, matmul, reduction, shape, softmax
from tinygen.tensor import Tensor

_METHODS = {
    elementwise: "add sub mul div pow neg abs sign floor ceil round exp expm1 log log1p sqrt rsqrt square reciprocal "
    "sin cos tanh sigmoid erf maximum minimum clamp",
    comparison: "eq ne lt le gt ge logical_not isnan isfinite",
    reduction: "sum mean var std prod amax amin max min argmax argmin all any logsumexp cumsum norm sum_to_size",
    shape: "reshape flatten unflatten permute transpose squeeze unsqueeze broadcast_to repeat narrow split chunk "
    "unbind flip roll",
    conversion: "to clone contiguous",
    indexing: "gather scatter_add index_select masked_fill tril triu",
    matmul: "matmul outer",
    activations: "relu",
    softmax: "softmax log_softmax",
}

_OPERATORS = {
    elementwise: "add sub mul pow neg abs",
    comparison: "lt le gt ge",
    matmul: "matmul",
}


def _comparable(value: Any) -> bool:
    return isinstance(value, (Tensor, int, float, complex)) or hasattr(value, "dtype")


def _attach() -> None:
    target: Any = Tensor
    for module, names in _METHODS.items():
        for name in names.split():
            setattr(target, name, getattr(module, name))
    for module, names in _OPERATORS.items():
        for name in names.split():
            setattr(target, f"__{name}__", getattr(module, name))
    e, c = elementwise, comparison
    target.__truediv__ = e.div
    target.__invert__ = c.bitwise_not
    target.__and__, target.__or__, target.__xor__ = c.bitwise_and, c.bitwise_or, c.bitwise_xor
    target.__rand__, target.__ror__, target.__rxor__ = c.bitwise_and, c.bitwise_or, c.bitwise_xor
    # `x == None` and the like are False, as in PyTorch, instead of an error.
    target.__eq__ = lambda self, other: c.eq(self, other) if _comparable(other) else NotImplemented
    target.__ne__ = lambda self, other: c.ne(self, other) if _comparable(other) else NotImplemented
    target.__radd__ = lambda self, other: e.add(other, self)
    target.__rsub__ = lambda self, other: e.sub(other, self)
    target.__rmul__ = lambda self, other: e.mul(other, self)
    target.__rtruediv__ = lambda self, other: e.div(other, self)
    target.__rpow__ = lambda self, other: e.pow(other, self)
    target.__rmatmul__ = lambda self, other: matmul.matmul(other, self)
    target.__pos__ = lambda self: self
    target.__getitem__ = indexing.getitem
    target.where = lambda self, condition, other: e.where(condition, self, other)
    target.expand = shape.broadcast_to
    target.view = shape.reshape
    target.movedim = shape.moveaxis
    target.dim = lambda self: self.ndim
    target.numel = lambda self: self.data.size
    target.size = lambda self, dim=None: self.shape if dim is None else self.shape[dim]
    target.T = property(shape.reverse_axes)
    target.mT = property(shape.matrix_transpose)
    for name, dtype in {
        "half": float16, "float": float32, "double": float64, "int": int32, "long": int64, "bool": "bool"
    }.items():  # fmt: skip
        setattr(target, name, lambda self, dtype=dtype: conversion.to(self, dtype))


_attach()

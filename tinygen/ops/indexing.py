"""Picking numbers out by position, and putting them back.

Picking is y = P x with one 1 in each row of P; its adjoint Pᵀ adds each number back to the place it came from.
A place that was picked twice receives both gradients: "put" means add, never overwrite. The two ops

    getitem(x, index)  and  put(g, index, shape)

are each other's vjp, and everything else here is made of them. Source: ``torch.NAME``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.backend import array_module, is_array
from tinygen.op import op
from tinygen.ops.elementwise import where
from tinygen.ops.shape import normal_dim
from tinygen.tensor import Tensor, index_steps, raw_index


@op
def _getitem(input, index):
    """y = x[index].    ∂L/∂x = g added into zeros at the places that index names."""
    return input[index]


@_getitem.vjp("input")
def _(g, input_shape, index):
    return _put(g, index, input_shape)


@op
def _put(input, index, shape):
    """y = zeros of a shape, y[index] += x.    ∂L/∂x = g[index]."""
    xp = array_module(input)
    y = xp.zeros(shape, dtype=input.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if any(hasattr(part, "dtype") and part.dtype.kind in "iu" and part.ndim for part in parts):
        xp.add.at(y, index, input)  # a place may be named twice
    else:
        y[index] = input
    return y


@_put.vjp("input")
def _(g, index):
    return _getitem(g, index)


def getitem(input: Tensor, index: Any) -> Tensor:
    """``x[index]``: integers, slices, None, …, integer and boolean arrays, Tensors among them.

    ∂L/∂x = g added into zeros at the places that ``index`` names, twice where it names one twice.

    Raises:
        IndexError: the index does not fit the shape.
    """
    for step in index_steps(raw_index(index, input.data)):
        input = _getitem(input, step)
    return input


def put(input: Tensor, index: Any, shape: tuple[int, ...]) -> Tensor:
    """Zeros of a shape with x added at ``index``: the adjoint of :func:`getitem`.    ∂L/∂x = g[index]."""
    steps = index_steps(raw_index(index, input.data))
    if len(steps) == 2:
        # The shape after the first step, read off an array of that shape without memory.
        integers = tuple(0 if hasattr(part, "dtype") else part for part in steps[0])
        input = _put(input, steps[1], np.broadcast_to(0, shape)[integers].shape)
    return _put(input, steps[0], tuple(shape))


def _integers(index: Any, who: str) -> Any:
    """The array of an integer tensor."""
    array = index.data if isinstance(index, Tensor) else index
    if not is_array(array) or array.dtype.kind not in "iu":
        kind = array.dtype if is_array(array) else type(index).__name__
        raise TypeError(f"{who}: expected the index as a Tensor of integers, got {kind}")
    return array


def _grid(index: Any, dim: int, who: str, shape: tuple[int, ...]) -> tuple:
    """The index expression that reads x[i₀, …, index[i₀, …], …], index in place ``dim``.

    Raises:
        TypeError: the index is not an integer array.
        ValueError: the index has another number of axes, or is longer than x in another axis than dim.
    """
    index = _integers(index, who)
    if index.ndim != len(shape) or any(
        n > m for d, (n, m) in enumerate(zip(index.shape, shape, strict=True)) if d != dim
    ):
        raise ValueError(
            f"{who}: index of shape {index.shape} does not fit x of shape {shape}: it needs as many axes, and "
            f"none but axis {dim} may be longer"
        )
    xp = array_module(index)
    grid = [xp.arange(n).reshape([n if k == d else 1 for k in range(index.ndim)]) for d, n in enumerate(index.shape)]
    grid[dim] = index
    return tuple(grid)


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """y[i, j, …] = x[i, …, index[i, j, …], …], the index standing in place ``dim``.

    ∂L/∂x = g added back at those places (``scatter_add``).

    Shapes: index (*), of as many axes as x, nowhere but in ``dim`` longer than x → y as index.

    Args:
        index: integers; a negative one counts from the end (PyTorch refuses it).

    Raises:
        TypeError: the index is not an integer tensor.
        ValueError: it does not fit.
        IndexError: (on the CPU) it points outside x.
    """
    dim = normal_dim(dim, input.ndim, "gather") if input.ndim else 0
    if input.ndim == 0:
        return getitem(input.reshape(1), _integers(index, "gather"))
    return getitem(input, _grid(index, dim, "gather", input.shape))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """y = x, with y[i, …, index[i, j, …], …] += src[i, j, …]: the adjoint of :func:`gather` in src.

    ∂L/∂x = g,  ∂L/∂src = gather(g, dim, index).

    Raises:
        TypeError: the index is not an integer tensor.
        ValueError: index does not fit x, or src is smaller than index.
    """
    dim = normal_dim(dim, input.ndim, "scatter_add")
    _integers(index, "scatter_add")
    if src.ndim != index.ndim or any(m < n for n, m in zip(index.shape, src.shape, strict=True)):
        raise ValueError(f"scatter_add: src of shape {src.shape} is smaller than index of shape {index.shape}")
    src = getitem(src, tuple(slice(n) for n in index.shape))
    return input + put(src, _grid(index, dim, "scatter_add", input.shape), input.shape)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """y[…, k, …] = x[…, index[k], …] along one axis.    ∂L/∂x = g added back, slice by slice.

    Shapes: index (k) → axis ``dim`` of y has length k.

    Raises:
        TypeError: the index is not an integer tensor.
        ValueError: it has more axes than one.
    """
    if _integers(index, "index_select").ndim > 1:
        raise ValueError(f"index_select: expected an index of one axis, got shape {index.shape}")
    dim = normal_dim(dim, input.ndim, "index_select")
    return getitem(input, (slice(None),) * dim + (index.reshape(-1),))


def masked_fill(input: Tensor, mask: Tensor, value: float) -> Tensor:
    """y = ``value`` where the mask holds, else x.    ∂L/∂x = g where it does not, else 0."""
    return where(mask, value, input)


def _tri(input: Tensor, diagonal: int, lower: bool) -> Tensor:
    if input.ndim < 2:
        raise ValueError(f"tril, triu: expected at least two axes, got shape {input.shape}")
    xp = array_module(input.data)
    n, m = input.shape[-2:]
    offset = xp.arange(m) - xp.arange(n)[:, None]
    zero = False if input.dtype.kind == "b" else 0
    return where(Tensor(offset <= diagonal if lower else offset >= diagonal), input, zero)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """y = x where column − row ≤ diagonal, else 0, in the last two axes.    ∂L/∂x = tril(g)."""
    return _tri(input, diagonal, True)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """y = x where column − row ≥ diagonal, else 0, in the last two axes.    ∂L/∂x = triu(g)."""
    return _tri(input, diagonal, False)

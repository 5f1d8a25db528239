"""Moving numbers without changing them: reshape, permute, broadcast, join, split, flip, roll, pad.

Each of these is linear, y = P x with a matrix P of zeros and ones, so the vjp is the transpose: ∂L/∂x = Pᵀ g. For
a rearrangement Pᵀ is the inverse rearrangement; for a copy (broadcast) it is a sum over the copies; for a
selection (crop, split) it is a padding with zeros. Source: ``torch.NAME``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import index
from typing import Any

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels.blocks import reshaped
from tinygen.kernels.channels import LARGE
from tinygen.kernels.reordering import concatenate
from tinygen.op import op
from tinygen.ops.conversion import to
from tinygen.pieces import Piece
from tinygen.promotion import result_type
from tinygen.recording import recording
from tinygen.tensor import Tensor

_FEW = 1024  # numbers that are copied sooner than a view of one number is made


def normal_dim(dim: int, ndim: int, who: str = "dim") -> int:
    """An axis counted from 0.

    Raises:
        IndexError: it is out of range.
    """
    if not -ndim <= dim < ndim:
        raise IndexError(f"{who}: dim={dim} is out of range for a tensor of {ndim} axes")
    return dim % ndim


def _listed(first: Any, rest: tuple) -> tuple[int, ...]:
    """Both spellings of a list of numbers: ``f(x, 2, 3)`` and ``f(x, (2, 3))``."""
    if rest or not isinstance(first, (tuple, list)):
        return (index(first), *(index(n) for n in rest))
    return tuple(index(n) for n in first)


# ------------------------------------------------------------------------------- shape, order of axes


@op
def _reshape(input, shape):
    """y = the numbers of x, last axis fastest, in another shape.    ∂L/∂x = g in x's shape."""
    return input.reshape(shape) if input.size < LARGE else reshaped(input, shape)


@_reshape.vjp("input")
def _(g, input_shape):
    return _reshape(g, input_shape)


def reshape(input: Tensor, shape: Any, *more: int) -> Tensor:
    """vec(y) = vec(x): the same numbers in the same order (last axis fastest) in another shape; one length may be −1.

    ∂L/∂x = g in x's shape.

    Raises:
        ValueError: the shape holds another number of numbers.
    """
    return _reshape(input, _listed(shape, more))


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """y[…, i·n + j, …] = x[…, i, j, …]: the axes start_dim … end_dim joined into one.    ∂L/∂x = g in x's shape.

    Raises:
        IndexError: an axis is out of range.
        ValueError: start_dim comes after end_dim.
    """
    if input.ndim == 0:
        return _reshape(input, (1,))
    first, last = (normal_dim(d, input.ndim, "flatten") for d in (start_dim, end_dim))
    if first > last:
        raise ValueError(f"flatten: start_dim={start_dim} comes after end_dim={end_dim}")
    shape = input.shape
    return _reshape(input, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """y[…, i, j, …] = x[…, i·n + j, …]: one axis split into several; one size may be −1.    ∂L/∂x = g in x's shape.

    Raises:
        ValueError: the sizes do not multiply to the axis' length.
    """
    dim = normal_dim(dim, input.ndim, "unflatten")
    wanted, known = input.shape[dim], math.prod(s for s in sizes if s != -1)
    if known != wanted if -1 not in sizes else (known == 0 or wanted % known):
        raise ValueError(f"unflatten: axis {dim} of length {wanted} cannot have the sizes {tuple(sizes)}")
    sizes = [wanted // known if s == -1 else s for s in sizes]
    return _reshape(input, (*input.shape[:dim], *sizes, *input.shape[dim + 1 :]))


@op
def _permute(input, dims):
    """y[i_p(0), i_p(1), …] = x[i₀, i₁, …].    ∂L/∂x = g with the axes in their old order."""
    return input.transpose(dims)


@_permute.vjp("input")
def _(g, dims):
    inverse = [0] * len(dims)
    for new, old in enumerate(dims):
        inverse[old] = new
    return _permute(g, tuple(inverse))


def permute(input: Tensor, dims: Any, *more: int) -> Tensor:
    """y[i_dims[0], i_dims[1], …] = x[i₀, i₁, …]: axis k of y is axis dims[k] of x.    ∂L/∂x = g in the old order.

    Raises:
        ValueError: dims is not an order of all axes.
    """
    order = tuple(d % input.ndim if -input.ndim <= d < input.ndim else d for d in _listed(dims, more))
    if sorted(order) != list(range(input.ndim)):
        raise ValueError(f"permute: dims={_listed(dims, more)} is not an order of {input.ndim} axes")
    return _permute(input, order)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """y[…, j, …, i, …] = x[…, i, …, j, …]: two axes swapped.    ∂L/∂x = g with them swapped back.

    Raises:
        IndexError: an axis is out of range.
    """
    order = list(range(input.ndim))
    if order:
        a, b = (normal_dim(d, input.ndim, "transpose") for d in (dim0, dim1))
        order[a], order[b] = order[b], order[a]
    return _permute(input, tuple(order))


def moveaxis(input: Tensor, source: int, destination: int) -> Tensor:
    """y[…, i, j] = x[i, …, j]: one axis moved to another place.    ∂L/∂x = g with it moved back."""
    source, destination = (normal_dim(d, input.ndim, "moveaxis") for d in (source, destination))
    order = [d for d in range(input.ndim) if d != source]
    order.insert(destination, source)
    return _permute(input, tuple(order))


def matrix_transpose(input: Tensor) -> Tensor:
    """``x.mT``: the last two axes swapped, every matrix of a stack transposed.    ∂L/∂x = gᵀ.

    Raises:
        ValueError: x has fewer than two axes.
    """
    if input.ndim < 2:
        raise ValueError(f"mT: expected at least two axes, got shape {input.shape}")
    return transpose(input, -2, -1)


def reverse_axes(input: Tensor) -> Tensor:
    """``x.T``: all axes in reverse order, a matrix transposed.    ∂L/∂x = gᵀ."""
    return _permute(input, tuple(reversed(range(input.ndim))))


def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """y[i, …] = x[i, 0, …]: without axes of length 1, all or those named (a named longer one stays, as in PyTorch).

    ∂L/∂x = g in x's shape.
    """
    shape = input.shape
    named = range(len(shape)) if dim is None else (dim,) if isinstance(dim, int) else dim
    drop = {normal_dim(d, input.ndim, "squeeze") for d in named} if shape else set()
    return _reshape(input, tuple(n for d, n in enumerate(shape) if not (n == 1 and d in drop)))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """y[i, 0, …] = x[i, …]: an axis of length 1 inserted at ``dim`` of the result.    ∂L/∂x = g in x's shape.

    Raises:
        IndexError: dim is not in [−ndim − 1, ndim].
    """
    dim = normal_dim(dim, input.ndim + 1, "unsqueeze")
    return _reshape(input, (*input.shape[:dim], 1, *input.shape[dim:]))


def expand_dims(input: Tensor, dims: Sequence[int]) -> Tensor:
    """Insert axes of length 1 so that they are the axes ``dims`` of the result."""
    shape = list(input.shape)
    for dim in sorted(dims):
        shape.insert(dim, 1)
    return _reshape(input, tuple(shape))


# --------------------------------------------------------------------------------------------- copies


@op
def _broadcast_to(input, shape):
    """y = x repeated along new axes and axes of length 1.    ∂L/∂x = g summed over the repetitions."""
    if type(input) is np.ndarray and input.size == 1 and 0 < math.prod(shape) <= _FEW:
        y = np.empty(shape, input.dtype)  # a copy is quicker than NumPy's way to a view
        y[...] = input
        return y
    return array_module(input).broadcast_to(input, shape)


@_broadcast_to.vjp("input")
def _(g, input_shape):
    return g.sum_to_size(input_shape)


def broadcast_to(input: Tensor, shape: Any, *more: int) -> Tensor:
    """y[k, i, j] = x[i, 0]: x repeated along new leading axes and along axes of length 1; −1 keeps an axis' length.

    ∂L/∂x = g summed over the repetitions: the adjoint, ``sum_to_size``.

    Raises:
        ValueError: the shape cannot be reached so.
    """
    wanted = _listed(shape, more)
    lead = len(wanted) - input.ndim
    known = [input.shape[d - lead] if n == -1 and d >= lead else n for d, n in enumerate(wanted)]
    return input if tuple(known) == input.shape else _broadcast_to(input, tuple(known))


def repeat(input: Tensor, repeats: Any, *more: int) -> Tensor:
    """x laid side by side: repeats[k] copies along axis k, new leading axes where there are more repeats.

    ∂L/∂x = g summed over the copies.

    Raises:
        ValueError: there are fewer repeats than axes.
    """
    times = _listed(repeats, more)
    lead = len(times) - input.ndim
    if lead < 0:
        raise ValueError(f"repeat: {len(times)} repeats for a tensor of {input.ndim} axes")
    shape = (1,) * lead + input.shape
    pairs = [n for t, s in zip(times, shape, strict=True) for n in (t, s)]
    split = [n for s in shape for n in (1, s)]
    return reshape(broadcast_to(reshape(input, split), pairs), [t * s for t, s in zip(times, shape, strict=True)])


# --------------------------------------------------------------------------------------- crop and pad


@op(aux=True)
def _crop(input, dim, start, length):
    """y = x[…, start : start + length, …] along one axis.    ∂L/∂x = g padded with zeros."""
    order = range(input.ndim)
    if not input.flags.c_contiguous:
        order = sorted(order, key=input.strides.__getitem__, reverse=True)
    return input[(slice(None),) * dim + (slice(start, start + length),)], order


@_crop.vjp("input")
def _(g, input_shape, dim, start, length, aux):
    if not recording.get():
        return Piece(g, dim, start, input_shape, aux)
    return _pad_axis(g, dim, start, input_shape[dim] - start - length)


@op
def _pad_axis(input, dim, before, after):
    """y = x with zeros before and after it along one axis.    ∂L/∂x = g cropped."""
    shape = list(input.shape)
    shape[dim] += before + after
    # empty_like keeps the order of the axes in memory (channels last stays channels last).
    y = array_module(input).empty_like(input, shape=tuple(shape))
    lead = (slice(None),) * dim
    y[(*lead, slice(0, before))] = 0
    y[(*lead, slice(before, shape[dim] - after))] = input
    y[(*lead, slice(shape[dim] - after, None))] = 0
    return y


@_pad_axis.vjp("input")
def _(g, input_shape, dim, before):
    return _crop(g, dim, before, input_shape[dim])


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """y = x[…, start : start + length, …] along one axis.    ∂L/∂x = g padded with zeros.

    Raises:
        IndexError: the range reaches outside the axis.
    """
    dim = normal_dim(dim, input.ndim, "narrow")
    n = input.shape[dim]
    start = start + n if start < 0 else start
    if not (0 <= start <= start + length <= n):
        raise IndexError(f"narrow: [{start}, {start + length}) is outside axis {dim} of length {n}")
    return _crop(input, dim, start, length)


def pad_zeros(input: Tensor, dim: int, before: int, after: int) -> Tensor:
    """x with zeros before and after it along one axis; negative numbers crop.    ∂L/∂x = g cropped."""
    dim = normal_dim(dim, input.ndim, "pad")
    if before < 0 or after < 0:
        start, stop = max(-before, 0), input.shape[dim] - max(-after, 0)
        input = narrow(input, dim, start, stop - start)
        before, after = max(before, 0), max(after, 0)
    return _pad_axis(input, dim, before, after) if before or after else input


# -------------------------------------------------------------------------------------- join and split


@op(sequence="tensors")
def _cat(tensors, dim):
    """y = x₀, x₁, … one after another along ``dim``.    ∂L/∂xᵢ = the i-th piece of g."""
    xp = array_module(tensors[0])
    if xp is np and sum(t.size for t in tensors) >= LARGE:
        return concatenate(tensors, dim)
    return xp.concatenate(tensors, axis=dim)


@_cat.vjp("tensors")
def _(g, i, tensors_shape, dim):
    start = 0
    for shape in tensors_shape[:i]:
        start += shape[dim]
    return _crop(g, dim, start, tensors_shape[i][dim])


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """y = [x₁, x₂, …]: tensors one after another along an axis that they all have; other lengths agree.

    ∂L/∂xᵢ = the piece of g where xᵢ went.

    Raises:
        ValueError: there are none, or their shapes differ elsewhere than in ``dim``.
        TypeError: one of them is not a Tensor.
        IndexError: dim is out of range.
    """
    tensors = list(tensors)
    if not tensors:
        raise ValueError("cat: expected at least one tensor")
    for t in tensors:
        if not isinstance(t, Tensor):
            raise TypeError(f"cat: expected Tensors, got {type(t).__name__}")
    first = tensors[0]
    dim = normal_dim(dim, first.ndim, "cat")
    for i, t in enumerate(tensors):
        if t.ndim != first.ndim or any(t.shape[d] != n for d, n in enumerate(first.shape) if d != dim):
            raise ValueError(
                f"cat: tensors[{i}] has shape {t.shape}, tensors[0] has {first.shape}; "
                f"they may differ in axis {dim} alone"
            )
    dtype = result_type(*(t.data for t in tensors))
    return _cat([t if t.dtype == dtype else to(t, dtype) for t in tensors], dim)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """y[…, i, …] = xᵢ: tensors of one shape along a new axis.    ∂L/∂xᵢ = g at index i of that axis.

    Raises:
        ValueError: there are none, or their shapes differ.
    """
    tensors = list(tensors)
    for i, t in enumerate(tensors):
        if t.shape != tensors[0].shape:
            raise ValueError(f"stack: tensors[{i}] has shape {t.shape}, tensors[0] has {tensors[0].shape}")
    return cat([unsqueeze(t, dim) for t in tensors], dim)


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """[y₁, y₂, …] = x: pieces of a given length (the last may be shorter), or of the given lengths.

    ∂L/∂x = the pieces' gradients joined.

    Raises:
        ValueError: a length is not positive, or the lengths do not sum to the axis'.
    """
    dim = normal_dim(dim, tensor.ndim, "split")
    n = tensor.shape[dim]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size <= 0:
            raise ValueError(f"split: expected a positive length, got {size}")
        lengths = [min(size, n - start) for start in range(0, n, size)] or [0]
    else:
        lengths = list(split_size_or_sections)
        if sum(lengths) != n or min(lengths, default=0) < 0:
            raise ValueError(f"split: the lengths {lengths} do not sum to {n}, the length of axis {dim}")
    starts = accumulate(lengths[:-1], initial=0)
    return tuple(_crop(tensor, dim, start, length) for start, length in zip(starts, lengths, strict=True))


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """[y₁, y₂, …] = x: at most ``chunks`` pieces of equal length, the last shorter.    ∂L/∂x = their gradients joined.

    An axis of length 0 gives ``chunks`` empty pieces, as in PyTorch.

    Raises:
        ValueError: chunks is not positive.
    """
    if chunks <= 0:
        raise ValueError(f"chunk: expected a positive number of pieces, got {chunks}")
    n = input.shape[normal_dim(dim, input.ndim, "chunk")]
    return split(input, -(-n // chunks) if n else [0] * chunks, dim)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """yᵢ = x[…, i, …]: the slices along an axis, without it.    ∂L/∂x = their gradients stacked."""
    return tuple(squeeze(piece, dim) for piece in split(input, 1, dim)) if input.shape[dim] else ()


# ----------------------------------------------------------------------------------------- flip and roll


@op
def _flip(input, dims):
    """y[i] = x[n − 1 − i] along ``dims``.    ∂L/∂x = g flipped: the op is its own inverse and its own adjoint."""
    return array_module(input).flip(input, dims)


@_flip.vjp("input")
def _(g, dims):
    return _flip(g, dims)


def flip(input: Tensor, dims: Any, *more: int) -> Tensor:
    """y[i] = x[n − 1 − i] along the named axes.    ∂L/∂x = g flipped.

    Raises:
        IndexError: an axis is out of range.
    """
    return _flip(input, tuple(normal_dim(d, input.ndim, "flip") for d in _listed(dims, more)))


@op
def _roll(input, shifts, dims):
    """y[(i + s) mod n] = x[i].    ∂L/∂x = g rolled back."""
    return array_module(input).roll(input, shifts, dims)


@_roll.vjp("input")
def _(g, shifts, dims):
    return _roll(g, tuple(-s for s in shifts), dims)


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """y[(i + s) mod n] = x[i] along axes: what falls off one end comes in at the other; without dims, of vec(x).

    ∂L/∂x = g rolled back.

    Raises:
        ValueError: the numbers of shifts and of axes differ.
    """
    amounts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if dims is None:
        if len(amounts) != 1:
            raise ValueError(f"roll: {len(amounts)} shifts, but no dims")
        return reshape(_roll(reshape(input, -1), amounts, (0,)), input.shape)
    places = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(amounts) != len(places):
        raise ValueError(f"roll: {len(amounts)} shifts for {len(places)} axes")
    return _roll(input, amounts, tuple(normal_dim(d, input.ndim, "roll") for d in places))

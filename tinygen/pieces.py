"""The gradients of slices, without the zeros beside them.

With y = x[…, a : b, …], ∂L/∂x is ∂L/∂y with zeros on both sides. Where x is cut into k slices, k such arrays would be
written and added up, each as large as x. So a vjp may return a :class:`Piece` instead; the sweep
(:mod:`tinygen.autograd`) collects those of one x, and writes each to its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels.reordering import copy_into
from tinygen.kernels.threads import aligned
from tinygen.tensor import Tensor, wrap

_LARGE = 1 << 15  # numbers of a slice that are worth a better way than ``y[…] = x``


class Piece(NamedTuple):
    """A gradient that is g from ``start`` on along one axis, and 0 elsewhere.

    Attributes:
        g: the slice's gradient.
        dim, start: its place.
        shape: of the whole.
        order: the axes of the whole as they lie in memory, outermost first.
    """

    g: Tensor
    dim: int
    start: int
    shape: tuple[int, ...]
    order: Sequence[int]

    @property
    def stop(self) -> int:
        return self.start + self.g.shape[self.dim]

    def of(self, whole: Any) -> Any:
        """Its place in a raw array of the whole's shape."""
        return whole[(*(slice(None),) * self.dim, slice(self.start, self.stop))]


class Pieces(list[Piece]):
    """Gradients to be added up, all of one shape."""

    def whole(self) -> Tensor:
        """Their sum, with its zeros, in memory of its own."""
        shape, order, g = self[0].shape, self[0].order, self[0].g.data
        make = aligned if type(g) is np.ndarray and g.size >= _LARGE else array_module(g).empty
        y = make(tuple(shape[d] for d in order), g.dtype).transpose([order.index(d) for d in range(len(shape))])
        dim, end = self[0].dim, 0
        lead = (slice(None),) * dim
        pieces = sorted(self, key=lambda piece: piece.start)
        if any(piece.dim != dim for piece in pieces) or any(a.stop > b.start for a, b in zip(pieces, pieces[1:])):
            y[...] = 0
            for piece in self:
                place = piece.of(y)
                place += piece.g.data
            return wrap(y)
        for piece in pieces:
            if end < piece.start:
                y[(*lead, slice(end, piece.start))] = 0
            end = piece.stop
            if make is aligned:
                copy_into(piece.of(y), piece.g.data)
            else:
                piece.of(y)[...] = piece.g.data
        if end < shape[dim]:
            y[(*lead, slice(end, None))] = 0
        return wrap(y)

"""Ranks: processes that train one model together, each on its share of every batch.

With W ranks a batch of N examples is dealt out like cards, the i-th to rank i mod W, and every rank computes the mean
loss L_r of its N/W. The loss of the whole batch is L = (1/W) Σ_r L_r, so its gradient is the mean of theirs:

    ∂L/∂w = (1/W) Σ_r ∂L_r/∂w

Everything else is arranged so that this is the only difference to one process with the whole batch: a random number
that belongs to an example is drawn by every rank for the whole batch, and each keeps its own rows; what is taken over
the whole batch (BatchNorm's statistics) is summed over the ranks; and a batch that W does not divide is computed whole
by every rank. Two ranks then follow one to float rounding.

:data:`together` is set while such a training loop runs, for its thread alone. How the processes talk is a
:class:`Link`'s affair: MPI in :mod:`tinygen.training.parallel`, threads in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from tinygen.backend import array_module, device_of, move, to_numpy


class Link(Protocol):
    """What the ranks need of each other. All make the same calls in the same order, and wait for each other."""

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Σ over the ranks, number by number, in the array's dtype; the same bits on every rank."""
        ...

    def max(self, array: np.ndarray) -> np.ndarray:
        """The largest over the ranks, number by number."""
        ...

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Every rank's array, of one shape, in the order of the ranks: (W, *shape)."""
        ...

    def broadcast(self, data: bytes | None) -> bytes:
        """The bytes that rank 0 has; the others give None."""
        ...

    def wait(self) -> None:
        """Return when every rank has called it; sleep meanwhile."""
        ...

    def abort(self, code: int) -> None:
        """End all ranks at once."""
        ...


class Ranks:
    """The processes that train together, as one of them sees them.

    Args:
        rank: which one this is, 0 … size − 1.
        size: W, how many there are.
        link: how they talk.
    """

    def __init__(self, rank: int, size: int, link: Link) -> None:
        self.rank, self.size, self.link = rank, size, link
        self._members: dict[int, Any] = {}
        self._parameters: dict[Any, int] = {}
        # How many examples of a batch are here → in how many parts it was dealt out: W, or 1 where every rank has all.
        self._parts: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"Ranks({self.rank} of {self.size})"

    def include(self, members: Iterable[Any], parameters: Iterable[Any]) -> None:
        """Name the loaders and generators whose batches and draws are dealt out, and what is learned together."""
        self._members.update({id(thing): thing for thing in members})
        for parameter in parameters:
            self._parameters.setdefault(parameter, len(self._parameters))

    def shares(self, thing: Any) -> bool:
        """Whether a loader's batches, or a generator's draws, are dealt out."""
        return id(thing) in self._members

    # -- batches

    def rows(self, n: int) -> slice:
        """Which of n examples are this rank's: every W-th, or all of them where W does not divide n."""
        if n % self.size:
            self._parts[n] = 1
            return slice(None)
        self._parts[n // self.size] = self.size
        return slice(self.rank, None, self.size)

    def cut(self, n: int) -> None:
        """n examples here are a part of a batch that was dealt out, and the others have parts like it."""
        self._parts[n] = self.size

    def parts(self, n: int) -> int:
        """In how many parts a batch was dealt out of which n examples are here; 1 where it is here as a whole."""
        return self._parts.get(n, 1)

    def draw(self, draw: Callable[[tuple[int, ...]], Any], size: tuple[int, ...]) -> Any:
        """This rank's part of random numbers of shape ``size``: the rows of its examples, or all, the same everywhere.

        The axis that counts examples is the first as long as a share that was dealt out.
        """
        axis = next((k for k, n in enumerate(size) if self.parts(n) > 1), None)
        if axis is None:
            return draw(size)
        whole = draw((*size[:axis], size[axis] * self.size, *size[axis + 1 :]))
        return whole[(slice(None),) * axis + (slice(self.rank, None, self.size),)].copy()

    # -- numbers

    def sum(self, array: Any) -> Any:
        """Σ over the ranks of an array, on its device."""
        total = self.link.sum(np.ascontiguousarray(to_numpy(array)).reshape(array.shape))
        return move(total, device_of(array))

    def gather(self, array: Any) -> Any:
        """The whole batch's array of the parts (n, …) that the ranks have: (n·W, …), its rows in their order."""
        every = self.link.gather(np.ascontiguousarray(to_numpy(array)))
        rows = every.swapaxes(0, 1).reshape(-1, *array.shape[1:])
        return move(np.ascontiguousarray(rows), device_of(array))

    def mean_gradients(self, found: dict[Any, Any]) -> dict[Any, Any]:
        """The gradients of shared parameters, averaged over the ranks in one flat buffer; the others as they are.

        Args:
            found: parameter → array.

        A parameter that only some ranks have a gradient for counts as 0 on the others, and gets one everywhere.
        """
        have = np.zeros(len(self._parameters), np.uint8)
        have[[self._parameters[p] for p in found if p in self._parameters]] = 1
        have = self.link.max(have)
        shared = [p for p, i in self._parameters.items() if have[i]]
        if not shared:
            return found
        single = all(p.dtype.itemsize <= 4 for p in shared)
        buffer = np.zeros(sum(p.data.size for p in shared), np.float32 if single else np.float64)
        start = 0
        for p in shared:
            if p in found:
                buffer[start : start + p.data.size] = to_numpy(found[p]).reshape(-1)
            start += p.data.size
        buffer = self.link.sum(buffer)
        buffer /= self.size
        found, start = dict(found), 0
        for p in shared:
            found[p] = g = array_module(p.data).empty_like(p.data)
            g[...] = move(buffer[start : start + p.data.size].reshape(p.shape), device_of(p.data))
            start += p.data.size
        return found


together: ContextVar[Ranks | None] = ContextVar("together", default=None)


def parts_of(n: int) -> tuple[Ranks, int] | None:
    """The ranks, and in how many parts the batch was dealt out of which n examples are here; None where it is whole."""
    ranks = together.get()
    if ranks is None or (parts := ranks.parts(n)) == 1:
        return None
    return ranks, parts


def whole(array: Any) -> Any:
    """The whole batch's rows (N, …), where this rank has a part (n, …) of them that was dealt out."""
    shared = parts_of(array.shape[0])
    return array if shared is None else shared[0].gather(array)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, nothing is dealt out: every rank draws and computes the same, the whole of it."""
    token = together.set(None)
    try:
        yield
    finally:
        together.reset(token)


def places(n: int) -> tuple[int, int, int]:
    """Where n examples stand in their batch: the first's place, the distance to the next, and the batch's size."""
    shared = parts_of(n)
    return (0, 1, n) if shared is None else (shared[0].rank, shared[1], n * shared[1])

"""DataLoader: shuffled batches of tensors, and a place to go on from that a checkpoint can hold.

A shuffled epoch is a pure function of two whole numbers, the loader's seed and the epoch's number. So "where
the loader stands" is (seed, epoch, position): nothing else need be saved, and no other user of a random
generator can change which batches follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.backend import array_module, device_of, is_array, module_for, move
from tinygen.backend import device as parse_device
from tinygen.data.dataset import Dataset
from tinygen.data.draws import HostDraws
from tinygen.data.prefetch import Batch as Travelling
from tinygen.data.prefetch import Prefetch
from tinygen.random import Generator
from tinygen.ranks import together
from tinygen.tensor import Tensor

Batch = Tensor | tuple[Tensor, ...]


@dataclass
class _Cursor:
    """Where one pass over the data stands: ``position`` batches of epoch ``epoch`` have been given out."""

    epoch: int = 0
    position: int = 0


class DataLoader:
    """Batches of a data set, each epoch in a new order if ``shuffle``.

    ``for x, y in loader`` is one epoch; the next loop is the next epoch. After a loop that was left early the
    next one also starts the next epoch. ``forever()`` is for training that counts steps. ``len(loader)`` is the
    number of batches in an epoch: ⌈N/B⌉, or ⌊N/B⌋ with ``drop_last``.

    Batches are fresh tensors of the data's dtype: writing to one never changes the data. Where processes train together
    (:mod:`tinygen.training.parallel`) each gets its share of every batch.

    Args:
        dataset: a ``Dataset`` (batches are (x, y), or x alone without labels), one array or tensor whose
            first axis counts examples (batches are x alone), or a tuple of them, equally long (batches are
            tuples).
        batch_size: B ≥ 1 examples in a batch; the last batch of an epoch holds what is left.
        shuffle: a new order each epoch. False: the order of the data.
        drop_last: leave out the last batch where it is smaller than B.
        rng: the ``tg.Generator`` from which the seed of all orders is drawn, once, now; None takes the
            default one. Without ``shuffle`` nothing is drawn.
        device: where batches go, ``"cpu"`` or ``"cuda"``; None leaves them where the data is. Data that is on
            the GPU already is indexed there.
        prefetch: for data on the CPU and batches on a GPU: while a batch is worked on, copy the next one, from pinned
            memory and on a stream of its own. Data written to meanwhile is seen a batch later.

    Raises:
        TypeError: dataset is none of these (lists are ambiguous, and refused), or holds no numbers;
            batch_size is not whole; a tensor requires grad; rng is not a ``tg.Generator``.
        ValueError: no examples; unequal lengths; batch_size < 1; drop_last leaves no batch at all.
        DeviceError: the device cannot be used.

    Source: the arguments of ``torch.utils.data.DataLoader``, of which this is a subset.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        rng: Generator | None = None,
        device: str | None = None,
        prefetch: bool = True,
    ) -> None:
        self.dataset = dataset
        self._arrays, self._alone = _arrays_of(dataset)
        self.size = _common_length(self._arrays)
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
            raise TypeError(f"batch_size must be a whole number, got {batch_size!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if drop_last and batch_size > self.size:
            raise ValueError(
                f"batch_size={batch_size} with drop_last=True leaves no batch of {self.size} examples; "
                f"use batch_size <= {self.size} or drop_last=False"
            )
        self.batch_size, self.shuffle, self.drop_last = int(batch_size), bool(shuffle), bool(drop_last)
        if device is not None:
            module_for(device)
        self.device = device
        self.prefetch = bool(prefetch)
        on_cpu = all(type(a) is np.ndarray for a in self._arrays)
        to_gpu = device is not None and parse_device(device).type == "cuda"
        self._ahead = Prefetch(device) if prefetch and to_gpu and on_cpu else None  # type: ignore[arg-type]
        # Below 2⁵³, so that every reader of JSON gives it back exactly.
        self._seed = int(HostDraws(rng).integers(2**53)) if self.shuffle else 0
        self._cursor = _Cursor()
        self._go_on = False  # the next loop continues at the cursor, which load_state_dict has set

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __repr__(self) -> str:
        return (
            f"DataLoader({self.size} examples, {len(self)} batches of {self.batch_size}, "
            f"shuffle={self.shuffle}, epoch {self.epoch})"
        )

    @property
    def epoch(self) -> int:
        """The number of the epoch that the loader is in, from 0."""
        return self._cursor.epoch

    def __iter__(self) -> Iterator[Batch]:
        """One epoch: the next one, or after ``load_state_dict`` what was left of the interrupted one.

        That is nothing where the state was saved with the last batch in hand. Several
        passes may be under way at once, each with its own place; the state is that of the newest.
        """
        left_early = self._cursor.position > 0 and not self._go_on
        self._go_on = False
        self._cursor = (
            _Cursor(self._cursor.epoch + 1) if left_early else _Cursor(self._cursor.epoch, self._cursor.position)
        )
        return self._one_epoch(self._cursor)

    def forever(self) -> Iterator[Batch]:
        """Batches without end, epoch after epoch, from where the loader stands: also mid-epoch."""
        self._go_on = False
        self._cursor = cursor = _Cursor(self._cursor.epoch, self._cursor.position)

        def endless() -> Iterator[Batch]:
            while True:
                yield from self._one_epoch(cursor)

        return endless()

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, in whole numbers and booleans that JSON or ``tg.save`` can hold.

        Taken inside a loop, it says that the batch now in hand is done: what follows is the next one.

        Keys: epoch; position, the batches of that epoch given out; seed, of all orders (0 without shuffle);
        and size, batch_size, shuffle, drop_last, which ``load_state_dict`` compares.
        """
        return {
            "epoch": self._cursor.epoch,
            "position": self._cursor.position,
            "seed": self._seed,
            "size": self.size,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the next loop, or ``forever()``, gives exactly the batches that would have followed.

        That holds in another process, and with another version of NumPy. Passes under way are not affected.

        Raises:
            KeyError: a key is missing.
            ValueError: the state is of data of another length, of another batch_size, shuffle or drop_last, or
                its numbers are out of range.

        After an error the loader is as it was.
        """
        missing = [key for key in self.state_dict() if key not in state]
        if missing:
            raise KeyError(
                f"this is no state of a DataLoader: {', '.join(missing)} missing, there is "
                f"{', '.join(map(str, state)) or 'nothing'}"
            )
        for key in ("size", "batch_size", "shuffle", "drop_last"):
            here, there = getattr(self, key), state[key]
            if here != there:
                raise ValueError(
                    f"the state was saved by a loader with {key}={there}, this one has {key}={here}; "
                    "build the loader with the same data and arguments to go on from it"
                )
        epoch, position, seed = int(state["epoch"]), int(state["position"]), int(state["seed"])
        if epoch < 0 or seed < 0 or not 0 <= position <= len(self):
            raise ValueError(
                f"expected epoch >= 0, seed >= 0 and position 0..{len(self)} in the state, got "
                f"epoch={epoch}, seed={seed}, position={position}"
            )
        self._seed, self._cursor, self._go_on = seed, _Cursor(epoch, position), True

    def _one_epoch(self, cursor: _Cursor) -> Iterator[Batch]:
        """What is left of the cursor's epoch; the cursor then stands at the start of the next."""
        order = epoch_order(self._seed, cursor.epoch, self.size) if self.shuffle else None
        following: Travelling | None = None
        while cursor.position < len(self):
            if self._ahead is None:
                index = self._index(order, cursor.position)
                batch = tuple(Tensor(self._take(array, index)) for array in self._arrays)
            else:
                now = following or self._ahead.start(self._arrays, self._index(order, cursor.position))
                after = cursor.position + 1
                following = None
                if after < len(self):
                    following = self._ahead.start(self._arrays, self._index(order, after))
                batch = tuple(Tensor(array) for array in now.arrays())
            cursor.position += 1  # before the yield: whoever saves the state has this batch already
            yield batch[0] if self._alone else batch
        cursor.epoch, cursor.position = cursor.epoch + 1, 0

    def _index(self, order: np.ndarray | None, position: int) -> Any:
        """The examples of a batch: a slice, or their numbers."""
        start = position * self.batch_size
        index: Any = slice(start, start + self.batch_size)
        if order is not None:
            index = order[index]
        if (ranks := together.get()) is not None and ranks.shares(self):
            whole = np.arange(self.size)[index] if order is None else index
            index = whole[ranks.rows(len(whole))]
        return index

    def _take(self, array: Any, index: Any) -> Any:
        if isinstance(index, np.ndarray):
            index = array_module(array).asarray(index)
            picked = array[index]
        else:
            picked = array[index].copy()
        return picked if self.device is None else move(picked, self.device)


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of one shuffled epoch: a permutation of 0..n−1, int64, a function of (seed, epoch, n) alone.

    Sort n random 64-bit words. NumPy may change the stream of Generator.permutation from version to version,
    but promises the raw words of PCG64 and of SeedSequence (NEP 19), and a checkpoint outlives a version.
    """
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(n)
    return np.argsort(words, kind="stable")


def _arrays_of(dataset: Any) -> tuple[tuple[Any, ...], bool]:
    """The raw arrays to take batches from, and whether a batch is one tensor alone."""
    if isinstance(dataset, Dataset):
        return ((dataset.x,), True) if dataset.y is None else ((dataset.x, dataset.y), False)
    parts = dataset if isinstance(dataset, tuple) else (dataset,)
    if not parts:
        raise ValueError("dataset is an empty tuple; expected at least one array")
    return tuple(_raw(part) for part in parts), not isinstance(dataset, tuple)


def _raw(part: Any) -> Any:
    if isinstance(part, Tensor):
        if part.requires_grad:
            raise TypeError(
                "a tensor that requires grad cannot be loaded from, its gradient would be lost; pass x.detach()"
            )
        part = part.data
    if not is_array(part):
        raise TypeError(
            f"dataset must be a Dataset, an array, a Tensor or a tuple of these, got a "
            f"{type(part).__name__}; turn lists into arrays, and [x, y] into (x, y)"
        )
    if part.dtype.kind not in "biufc":
        raise TypeError(f"dataset must hold numbers, got an array of {part.dtype}")
    if part.ndim == 0:
        raise ValueError("dataset must have a first axis that counts examples, got an array of shape ()")
    return part


def _common_length(arrays: tuple[Any, ...]) -> int:
    shapes = [tuple(a.shape) for a in arrays]
    if len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f"all arrays must hold equally many examples along the first axis, got shapes {shapes}")
    if len({device_of(a) for a in arrays}) != 1:
        raise ValueError(f"all arrays must be on one device, got {[str(device_of(a)) for a in arrays]}")
    if shapes[0][0] == 0:
        raise ValueError(f"there is nothing to load: the data holds 0 examples, shapes {shapes}")
    return shapes[0][0]

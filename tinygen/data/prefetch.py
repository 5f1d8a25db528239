"""The next batch travels to the GPU while this one is worked on.

A copy from ordinary memory makes the host wait until the copy engine has taken the numbers. From pinned memory it is an
order like any other, and on a stream of its own it goes on beside the kernels of the training step. Two pinned rooms
take turns: one is filled by the host while the other is being copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygen.backend import device, module_for


class Batch:
    """A batch under way: ``arrays()`` gives it to the current stream."""

    def __init__(self, xp: Any, arrays: list[Any], arrived: Any) -> None:
        self._xp, self._arrays, self._arrived = xp, arrays, arrived

    def arrays(self) -> list[Any]:
        """The arrays on the GPU; what the current stream does from now on waits for them, the host does not."""
        self._xp.cuda.get_current_stream().wait_event(self._arrived)
        return self._arrays


class Prefetch:
    """Copies batches to a GPU ahead of their use.

    Args:
        place: ``"cuda"`` or ``"cuda:N"``.

    Raises:
        DeviceError: the GPU cannot be used.
    """

    def __init__(self, place: str) -> None:
        self._xp = module_for(place)
        self._number = device(place).index
        with self._there():
            self._stream = self._xp.cuda.Stream(non_blocking=True)
        self._rooms: list[tuple[Any, Any]] = [(None, None), (None, None)]  # pinned memory, and when it is free again
        self._turn = 0

    def _there(self) -> Any:
        cuda = self._xp.cuda
        return cuda.Device(cuda.get_device_id() if self._number is None else self._number)

    def start(self, arrays: Sequence[np.ndarray], index: Any) -> Batch:
        """Begin to copy ``array[index]`` of each host array."""
        with self._there():
            return self._start(arrays, index)

    def _start(self, arrays: Sequence[np.ndarray], index: Any) -> Batch:
        cuda, stream = self._xp.cuda, self._stream
        chosen = np.arange(len(arrays[0]))[index] if isinstance(index, slice) else index
        shapes = [(len(chosen), *a.shape[1:]) for a in arrays]
        sizes = [math.prod(shape) * a.itemsize for shape, a in zip(shapes, arrays, strict=True)]
        begins = np.concatenate([[0], np.cumsum([-(-size // 64) * 64 for size in sizes])]).tolist()
        room = self._room(begins[-1])
        # On the current stream: its memory may still be read by work that was ordered before, so the copy comes after.
        made = [self._xp.empty(shape, a.dtype) for shape, a in zip(shapes, arrays, strict=True)]
        stream.wait_event(cuda.get_current_stream().record())
        for array, shape, begin, target in zip(arrays, shapes, begins, made, strict=False):
            host = np.frombuffer(room, array.dtype, math.prod(shape), begin).reshape(shape)
            np.take(array, chosen, axis=0, out=host, mode="clip")  # "raise" would make a copy first
            if host.size:
                target.set(host, stream)
        arrived = stream.record()
        self._rooms[self._turn] = room, arrived
        self._turn = 1 - self._turn
        return Batch(self._xp, made, arrived)

    def _room(self, size: int) -> Any:
        """Pinned memory that no copy reads from any more."""
        room, free = self._rooms[self._turn]
        if free is not None and not free.done:
            free.synchronize()  # of a copy that was ordered two batches ago
        if room is None or len(memoryview(room)) < size:
            room = self._xp.cuda.alloc_pinned_memory(max(size, 1))
        return room

"""As much of ``cupy.cuda`` as code needs that places arrays and waits for them: one device, which is never busy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

from tinygen.testing.strict import tape
from tinygen.testing.strict.syncs import synchronised


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for a device that is not there, and the like."""


class Device:
    """The one device, number 0; a context in which arrays are made on it.

    Raises:
        CUDARuntimeError: another number is used.
    """

    def __init__(self, device: Any = None) -> None:
        self.id = 0 if device is None else int(device)

    def use(self) -> Device:
        """Make it the current device."""
        if self.id != 0:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        return self

    __enter__ = use

    def __exit__(self, *exc: Any) -> None:
        pass

    def synchronize(self) -> None:
        """Wait until the device is idle."""
        synchronised("synchronize")

    @property
    def mem_info(self) -> tuple[int, int]:
        """Free and total memory, in bytes."""
        return memGetInfo()

    @property
    def compute_capability(self) -> str:
        """Major and minor version in one."""
        return "90"

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"


class Event:
    """A mark in a stream's queue."""

    done = True

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.seconds = 0.0

    def record(self, stream: Any = None) -> None:
        """Put the mark at the end of the queue."""
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        """Wait until the mark is reached."""
        synchronised("synchronize")


_numbers = count(1)


class Stream:
    """A queue of work, always empty; a context in which work goes into it."""

    null: Stream
    done = True

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        self.ptr = 0 if null else next(_numbers)
        self._before: list[Stream] = []

    def use(self) -> Stream:
        """Make it the current stream."""
        _current[0] = self
        return self

    def __enter__(self) -> Stream:
        self._before.append(_current[0])
        return self.use()

    def __exit__(self, *exc: Any) -> None:
        _current[0] = self._before.pop()

    def begin_capture(self, mode: Any = None) -> None:
        """Write down what goes into the queue, instead of doing it (tape.py)."""
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        tape.begin()

    def end_capture(self) -> Graph:
        """Stop that; what was written down."""
        return Graph(tape.end())

    def is_capturing(self) -> bool:
        """Whether what goes into the queue is written down."""
        return tape.capturing() and _current[0] is self

    def synchronize(self) -> None:
        """Wait until the queue is empty."""
        synchronised("synchronize")

    def record(self, event: Event | None = None) -> Event:
        """Put a mark at the end of the queue."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let the queue wait for a mark in another one."""


Stream.null = Stream(null=True)
_current = [Stream.null]


class Graph:
    """What was captured, to be run again and again."""

    def __init__(self, captured: tape.Tape) -> None:
        self._tape = captured

    def launch(self, stream: Any = None) -> None:
        """Run it."""
        self._tape.replay()

    def upload(self, stream: Any = None) -> None:
        """Bring it to the device."""


class MemoryPool:
    """Where CuPy keeps memory for reuse; here there is none."""

    def used_bytes(self) -> int:
        """Bytes in use."""
        return 0

    def total_bytes(self) -> int:
        """Bytes held."""
        return 0

    def free_bytes(self) -> int:
        """Bytes held and not in use."""
        return 0

    def free_all_blocks(self, stream: Any = None) -> None:
        """Give back what is not in use."""

    def malloc(self, size: int) -> Any:
        """Memory from the pool; here nobody asks for it."""
        raise NotImplementedError("the strict stand-in's memory is NumPy's")


@contextmanager
def using_allocator(allocator: Any = None) -> Iterator[None]:
    """Take memory from a pool for a while; here it is NumPy's all the same."""
    yield


def set_allocator(allocator: Any = None) -> None:
    """Take memory from somewhere else; here it is NumPy's all the same."""


def get_allocator() -> Any:
    """Where memory comes from."""
    return None


def alloc_pinned_memory(size: int) -> Any:
    """Host memory that a copy engine can reach: here any."""
    return bytearray(size)


def memGetInfo() -> tuple[int, int]:
    """Free and total memory, in bytes."""
    return 8 << 30, 8 << 30


def get_current_stream(device_id: int = -1) -> Stream:
    """The stream that work goes into."""
    return _current[0]


def get_device_id() -> int:
    """The number of the current device."""
    return 0


def is_available() -> bool:
    """Whether there is a device."""
    return True


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds from one mark to another."""
    return (end_event.seconds - start_event.seconds) * 1e3


runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    getDeviceCount=lambda: 1,
    getDevice=lambda: 0,
    setDevice=lambda device: Device(device).use(),
    getDeviceProperties=lambda device: {"name": b"strict stand-in", "totalGlobalMem": 8 << 30, "major": 9, "minor": 0},
    deviceSynchronize=lambda: synchronised("synchronize"),
    streamIsCapturing=lambda stream: tape.capturing(),
    memGetInfo=memGetInfo,
    runtimeGetVersion=lambda: 13000,
    driverGetVersion=lambda: 13000,
)

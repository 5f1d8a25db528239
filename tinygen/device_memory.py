"""A GPU's memory: where CuPy takes it from, watched, so that running out of it is explained and the peak is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class OutOfMemoryError(MemoryError):
    """A GPU has too little memory left; the message says what was asked for and what is free."""


class Watched:
    """An allocator for CuPy: another one's memory, with the peak noted and failures explained.

    Args:
        xp: CuPy.
        malloc: the allocator that is watched: ``size`` in bytes → memory.
        used: how many bytes its pool has given out.

    Attributes:
        peak: the most bytes that were given out at a time since the last :meth:`reset`.
    """

    def __init__(self, xp: Any, malloc: Callable[[int], Any], used: Callable[[], int]) -> None:
        self.xp, self.malloc, self.used = xp, malloc, used
        self.peak = 0

    def __call__(self, size: int) -> Any:
        """Memory of so many bytes.

        Raises:
            OutOfMemoryError: there is not so much.
        """
        try:
            memory = self.malloc(size)
        except MemoryError as error:
            raise OutOfMemoryError(self.explanation(size)) from error
        used = self.used()
        if used > self.peak:
            self.peak = used
        return memory

    def reset(self) -> None:
        """Forget the peak so far."""
        self.peak = self.used()

    def explanation(self, size: int) -> str:
        """What was asked for, what is free, and what can be done."""
        try:
            free, total = self.xp.cuda.runtime.memGetInfo()
            found = f"of the GPU's {amount(total)} {amount(free)} are free, and arrays hold {amount(self.used())}"
        except Exception:  # a GPU in trouble may not even answer this
            found = f"arrays hold {amount(self.used())}"
        return (
            f"out of GPU memory: {amount(size)} were asked for; {found}. Use a smaller batch, let go of tensors that "
            "are no longer needed (a loss that is kept keeps its graph), or run tg.cuda.empty_cache() where other "
            "libraries share the GPU"
        )


def amount(size: float) -> str:
    """Bytes for a reader: ``1.5 GiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.4g} {unit}"


_watched: dict[Any, Watched] = {}


def watch(xp: Any) -> Watched:
    """Let what CuPy allocates from now on be watched: done once, when its first array is about to be made.

    An allocator that the user has set before goes on to be used.
    """
    found = _watched.get(xp)
    if found is None:
        pool = xp.get_default_memory_pool()
        found = Watched(xp, xp.cuda.get_allocator(), pool.used_bytes)
        try:
            xp.cuda.set_allocator(found)
        except ValueError:  # inside the user's own `using_allocator`: another time
            return found
        _watched[xp] = found
    return found

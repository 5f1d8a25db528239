"""A small pool of threads that share the tiles of one computation.

NumPy lets go of the interpreter lock while it copies and multiplies, so threads that work on different tiles run
side by side. The caller works too: :func:`run` on T threads wakes T − 1 helpers, and everybody takes the next
task until none is left. A helper that comes late finds nothing to do, and nobody waits for one that has not
begun; hence calls from several threads at once, or from within a task, cannot block each other. The caller takes
tasks from the front, helpers from the back: what a thread has written is in the cache of its processor, and so each
finds the end of an array there that it worked on in the operation before.

The number of threads is ``TINYGEN_NUM_THREADS`` where that is set, else the number of processors that this
process may use; :func:`set_num_threads` changes it.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any

import numpy as np

LINE = 64  # bytes in a cache line
_SHAPES = 256  # of one piece of scratch memory that are remembered
_LONGEST = 256  # threads; a larger number is taken for a mistake


def _at_start() -> int:
    text = os.environ.get("TINYGEN_NUM_THREADS", "")
    if text:
        if not text.isdigit() or not 1 <= int(text) <= _LONGEST:
            raise ValueError(f"TINYGEN_NUM_THREADS: expected a number from 1 to {_LONGEST}, got {text!r}")
        return int(text)
    try:
        return max(1, min(_LONGEST, len(os.sched_getaffinity(0))))
    except AttributeError:  # macOS and Windows
        return max(1, min(_LONGEST, os.cpu_count() or 1))


class _Run:
    """One computation: its tasks, who works on it, and what went wrong."""

    def __init__(self, tasks: list[Callable[[], Any]]) -> None:
        self.tasks = deque(tasks)  # popleft and pop are atomic: every task is taken once
        self.lock = threading.Lock()
        self.working = 0
        self.finished = threading.Event()
        self.over = False
        self.error: BaseException | None = None

    def help(self) -> None:
        """Take tasks until none is left, as a helper that the caller waits for once it has begun."""
        with self.lock:
            if self.over:
                return
            self.working += 1
        self.work(self.tasks.pop)
        with self.lock:
            self.working -= 1
            if self.over and self.working == 0:
                self.finished.set()

    def work(self, take: Callable[[], Callable[[], Any]]) -> None:
        try:
            while self.tasks:
                try:
                    task = take()
                except IndexError:  # somebody was quicker
                    return
                task()
        except BaseException as error:  # raised again in the caller's thread
            self.error = error
            self.tasks.clear()

    def close(self) -> None:
        """Wait for the helpers that have begun; let the others go."""
        with self.lock:
            self.over = True
            idle = self.working == 0
        if not idle:
            self.finished.wait()
        if self.error is not None:
            raise self.error


class _Pool:
    """The helpers: threads that wait for work. They are daemons, so they never keep the interpreter alive."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.helpers = 0

    def ask(self, job: Callable[[], None], helpers: int) -> None:
        if self.helpers < helpers:
            with self.lock:
                while self.helpers < helpers:
                    name = f"tinygen-{self.helpers + 1}"
                    threading.Thread(target=self._serve, name=name, daemon=True).start()
                    self.helpers += 1
        for _ in range(helpers):
            # A copy of the caller's context: np.errstate holds in the helper too.
            context = copy_context()
            self.waiting.put(lambda context=context: context.run(job))  # type: ignore[misc]

    def _serve(self) -> None:
        while True:
            self.waiting.get()()


_threads = _at_start()
_pool = _Pool()
_local = threading.local()


def _forget() -> None:
    """After a fork the child has none of its parent's threads: start again with none, and with free locks."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def get_num_threads() -> int:
    """How many threads a large computation on the CPU is shared by (``torch.get_num_threads``)."""
    return _threads


def set_num_threads(count: int) -> None:
    """Share large computations by ``count`` threads, the caller's included; 1 switches helpers off.

    Results do not depend on it. The array library's own threads (OpenBLAS: ``OPENBLAS_NUM_THREADS``) are its own.

    Raises:
        ValueError: count is not an integer from 1 to 256.

    Source: ``torch.set_num_threads``.
    """
    global _threads
    if type(count) is not int or not 1 <= count <= _LONGEST:
        raise ValueError(f"set_num_threads: expected an integer from 1 to {_LONGEST}, got {count!r}")
    _threads = count


def run(tasks: list[Callable[[], Any]], worth: bool = True) -> None:
    """Do all tasks, in any order, on several threads; return when all are done.

    Args:
        worth: False where they are so little work that waking a thread costs what it saves: one thread does them.

    Raises:
        Exception: what a task raised (one of them, if several did); the tasks that had not begun are dropped.
    """
    helpers = min(_threads, len(tasks)) - 1 if worth else 0
    if helpers < 1:
        for task in tasks:
            task()
        return
    job = _Run(tasks)
    _pool.ask(job.help, helpers)
    job.work(job.tasks.popleft)
    job.close()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of the calling thread's own, with any contents; the next call with the same name overwrites it.

    Memory that was just used is in the cache still, and costs no page fault. It is kept, so ask for no more than a
    few megabytes.
    """
    store: dict[str, tuple[np.ndarray, dict[tuple, np.ndarray]]] = _local.__dict__
    room = store.get(name)
    key = (shape, dtype)
    if room is not None and (found := room[1].get(key)) is not None:
        return found
    size = math.prod(shape) * dtype.itemsize
    if room is None or room[0].nbytes < size or len(room[1]) >= _SHAPES:
        enough = room[0] if room is not None and room[0].nbytes >= size else aligned((size,), np.dtype(np.uint8))
        room = store[name] = (enough, {})
    found = room[1][key] = np.ndarray(shape, dtype, room[0])
    return found


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array with any contents that begins on a cache line (NumPy's own begin on any 16 bytes)."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + LINE, np.uint8)
    return np.ndarray(shape, dtype, room, -room.ctypes.data % LINE)

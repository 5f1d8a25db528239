"""Default: a setting of the whole process that a thread or an asyncio task can have differently for itself.

The default dtype, device and generators are tinygen's only global state. Set by the main program they hold everywhere,
as in PyTorch. Set in another thread, or in an asyncio task, they hold there alone: two trainings in two threads do not
reach into each other.
"""

from __future__ import annotations

import sys
import threading
from contextvars import ContextVar
from typing import Generic, TypeVar

T = TypeVar("T")


def apart() -> bool:
    """Whether this code runs beside the main program: in a thread of its own, or in an asyncio task.

    What a notebook's cell runs in is a task too, but a new one for each cell; it counts as the main program.
    """
    if threading.current_thread() is not threading.main_thread():
        return True
    asyncio = sys.modules.get("asyncio")  # a task cannot be running where nobody has imported it
    if asyncio is None or "ipykernel" in sys.modules:
        return False
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no loop is running
        return False


class Default(Generic[T]):
    """A value for the process, and one for each thread or task that has set its own.

    A new thread begins with the process's, a new task with that of the task that made it.

    Args:
        name: what it is called in debuggers.
        value: the process's, to begin with.
    """

    def __init__(self, name: str, value: T) -> None:
        self.value = value
        self._own: ContextVar[T | None] = ContextVar(name, default=None)

    def get(self) -> T:
        """The value that holds here."""
        own = self._own.get()
        return self.value if own is None else own

    def set(self, value: T) -> None:
        """Set it: for the process where the main program asks, else for this thread or task alone."""
        if apart():
            self._own.set(value)
        else:
            self.value = value

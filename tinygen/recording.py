"""Whether what is computed is remembered: the flag that every op reads, and the blocks that set it.

Recorded ops leave the graph by which :mod:`tinygen.autograd` finds derivatives; the others leave their result alone.
Each thread and each asyncio task has a flag of its own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any

recording: ContextVar[bool] = ContextVar("recording", default=True)


class _Recording(ContextDecorator):
    """Set the recording flag for a block of code or a function; for this thread or asyncio task only."""

    mode: bool

    def __new__(cls, func: Callable | None = None) -> Any:
        """A context manager; or the decorated function, for ``@tg.no_grad`` without parentheses."""
        return super().__new__(cls) if func is None else cls()(func)

    def __init__(self) -> None:
        self.tokens: list[Token] = []

    def _recreate_cm(self) -> _Recording:
        return type(self)()

    def __call__(self, func: Callable) -> Callable:  # type: ignore[override]
        """``func`` with the flag set while its body runs, also where that is later than the call.

        Raises:
            TypeError: func is an asynchronous generator, whose body runs in pieces that cannot be told apart.
        """
        if inspect.isasyncgenfunction(func):
            raise TypeError(f"{type(self).__name__}: {func.__name__} is an asynchronous generator; use `with` in it")
        if inspect.iscoroutinefunction(func):

            @functools.wraps(func)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with self._recreate_cm():
                    return await func(*args, **kwargs)

            return awaited
        if inspect.isgeneratorfunction(func):

            @functools.wraps(func)
            def generated(*args: Any, **kwargs: Any) -> Iterator:
                steps = func(*args, **kwargs)
                try:
                    while True:
                        with self._recreate_cm():  # not while the consumer has what was yielded
                            try:
                                value = next(steps)
                            except StopIteration as stop:
                                return stop.value
                        yield value
                finally:
                    steps.close()

            return generated
        return super().__call__(func)

    def __enter__(self) -> _Recording:
        self.tokens.append(recording.set(self.mode))
        return self

    def __exit__(self, *exc: object) -> None:
        recording.reset(self.tokens.pop())


class no_grad(_Recording):
    """Record nothing inside ``with tg.no_grad():`` or a function decorated with ``@tg.no_grad``.

    Holds for the current thread or asyncio task, and is undone also when the block raises.

    Source: ``torch.no_grad``.
    """

    mode = False


class enable_grad(_Recording):
    """Record again inside a ``no_grad`` block. Source: ``torch.enable_grad``."""

    mode = True


def is_grad_enabled() -> bool:
    """Whether ops are recorded here and now."""
    return recording.get()

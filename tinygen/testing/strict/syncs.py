"""Counting the moments at which the host waits for the device.

A GPU works through a queue while Python runs ahead and fills it. Asking for a number (``float(x)``, ``x.item()``,
``if x > 0:``, a boolean mask, whose result's size is a number) empties the queue first: both stand still in turn. No op
may do that, and no training step needs to.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HERE = str(Path(__file__).parent)
_counters: list[Syncs] = []


class Syncs:
    """What :func:`count_syncs` saw.

    Attributes:
        events: one ``(kind, place)`` for each synchronisation, in order: what asked for the contents (``"get"``,
            ``"bool"``, ``"mask"``, …), and the file and line that did so.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self.events)

    def __repr__(self) -> str:
        return f"{self.count} synchronisations" + "".join(f"\n  {kind} at {place}" for kind, place in self.events)


@contextmanager
def count_syncs() -> Iterator[Syncs]:
    """Count how often array contents on the stand-in are looked at by the host, in any thread.

    >>> with tg.testing.strict_cupy(), tg.testing.count_syncs() as syncs:
    ...     x = tg.ones(3, device="cuda")
    ...     y = (x * 2).sum()
    ...     assert syncs.count == 0
    ...     y.item()
    2.0

    Nested counters each see everything. The real CuPy is not watched.
    """
    counter = Syncs()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def synchronised(kind: str) -> None:
    """Note that the host has just waited for the device."""
    if _counters:
        place = _place()
        for counter in _counters:
            counter.events.append((kind, place))


def _place() -> str:
    """The innermost line of code outside this package."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"

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

from tinygen.testing.strict.tape import refuse

# Code that asks on behalf of its caller: the stand-in itself, to_numpy, x.item() and the like.
_TINYGEN = Path(__file__).parents[2]
_ON_BEHALF = (str(Path(__file__).parent), *(str(_TINYGEN / name) for name in ("backend.py", "tensor.py", "op.py")))
_MOVE = str(_TINYGEN / "ops" / "conversion.py"), "_to_device"
_counters: list[Syncs] = []


class Syncs:
    """What :func:`count_syncs` saw.

    Attributes:
        events: one ``(kind, place)`` for each synchronisation, in order. The kind is what asked for the contents:
            ``"get"``, ``"bool"``, ``"mask"``, …; ``"to"`` for ``x.to("cpu")``. The place is the file and line that
            did so, by way of a Tensor's method or not.
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
    6.0

    Nested counters each see everything. The real CuPy is not watched.
    """
    counter = Syncs()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def synchronised(kind: str) -> None:
    """Note that the host has just waited for the device.

    Raises:
        RuntimeError: a graph is being captured, where nobody can wait.
    """
    refuse("synchronous API calls")
    if _counters:
        kind, place = _asked(kind)
        for counter in _counters:
            counter.events.append((kind, place))


def _asked(kind: str) -> tuple[str, str]:
    """What was asked for, ``"to"`` in ``x.to("cpu")``, and the innermost line of code that asks for itself."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        code = frame.f_code
        if (code.co_filename, code.co_name) == _MOVE:
            kind = "to"
        elif not code.co_filename.startswith(_ON_BEHALF):
            break
        frame = frame.f_back
    return kind, f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"

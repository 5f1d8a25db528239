"""Stream capture on the stand-in: calls are written down while they run, and a graph runs them again.

Between ``begin_capture`` and ``end_capture`` every call of the stand-in that computes is noted with its arguments and
its result; ``Graph.launch`` calls them again in order, each result going to where the first one was. Numbers of
Python's are then what they were when the graph was made, arrays are what they hold now: as in a CUDA graph. On a GPU
nothing is computed while a graph is made; here the results that capturing leaves behind are spoilt, so that nobody can
use them, and what it wrote into older arrays is put back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen.testing.strict.memory import Memory, make

_state: dict[str, Any] = {"tape": None, "inside": False}


class Tape:
    """The calls of one capture: (function, args, kwargs, result)."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable, tuple, dict, Any]] = []
        self.before: dict[int, tuple[Any, np.ndarray]] = {}  # memory older than the capture, as it was
        self.made: set[int] = set()
        self.kept: list[Any] = []

    def keep(self, value: Any) -> None:
        """Remember what memory holds that a call may write to."""
        for array in _arrays(value):
            root = _root(array._raw)
            if id(root) not in self.made and id(root) not in self.before:
                self.before[id(root)] = (root, root.copy())

    def note(self, function: Callable, args: tuple, kwargs: dict, result: Any) -> None:
        """Write a call down."""
        for array in _arrays(result):
            root = _root(array._raw)
            if id(root) not in self.before:
                self.made.add(id(root))
        if getattr(function, "__name__", "") in ("empty", "empty_like"):  # memory is given out once, not at each replay
            self.kept.append(_twins(result))
            return
        self.calls.append((function, _twins(args), _twins(kwargs), _twins(result)))

    def close(self) -> None:
        """Undo what the calls did: nothing ran, says CUDA."""
        for root, was in self.before.values():
            if root.flags.writeable:
                root[...] = was
        for *_, result in self.calls:
            for array in _arrays(result):
                root = _root(array._raw)
                if id(root) in self.made and root.flags.writeable and root.dtype.kind in "fc":
                    root[...] = np.nan

    def replay(self) -> None:
        """Call everything again."""
        for function, args, kwargs, result in self.calls:
            new = function(*args, **kwargs)
            for old, now in zip(_arrays(result), _arrays(new), strict=True):
                if old is not now and _root(old._raw) is not _root(now._raw):
                    old._raw[...] = now._raw


def _root(raw: np.ndarray) -> np.ndarray:
    while isinstance(raw.base, np.ndarray):
        raw = raw.base
    return raw


def _twins(value: Any) -> Any:
    """The same with other array objects on the same memory: nobody's count of an array's holders is to change."""
    if isinstance(value, Memory):
        return make(value._raw, None)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_twins(part) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_twins(part) for part in value)
    if isinstance(value, dict):
        return {key: _twins(part) for key, part in value.items()}
    return value


def _arrays(value: Any) -> list[Any]:
    if isinstance(value, Memory):
        return [value]
    if isinstance(value, (list, tuple)):
        return [array for part in value for array in _arrays(part)]
    if isinstance(value, dict):
        return [array for part in value.values() for array in _arrays(part)]
    state = getattr(getattr(value, "bit_generator", None), "_state", None)
    return [] if state is None else [state]


def capturing() -> bool:
    """Whether a graph is being made."""
    return _state["tape"] is not None


def refuse(what: str) -> None:
    """Raise what CuPy raises for a thing that waits, or copies from the host, while a graph is being made."""
    if capturing():
        raise RuntimeError(f"the current stream is capturing, so {what} are disallowed")


def begin() -> None:
    """Start to write down."""
    if capturing():
        raise RuntimeError("cudaErrorIllegalState: the stream is capturing already")
    _state["tape"] = Tape()


def end() -> Tape:
    """Stop; what was written down."""
    tape = _state["tape"]
    if tape is None:
        raise RuntimeError("cudaErrorIllegalState: the stream is not capturing")
    _state["tape"] = None
    tape.close()
    return tape


def recorded(function: Any) -> Any:
    """A function of the stand-in that is written down when code calls it (not when the stand-in itself does)."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        tape = _state["tape"]
        if tape is None or _state["inside"]:
            return function(*args, **kwargs)
        tape.keep((args, kwargs))
        _state["inside"] = True
        try:
            result = function(*args, **kwargs)
        finally:
            _state["inside"] = False
        tape.note(function, args, kwargs, result)
        return result

    return call


def deferred(function: Any) -> Any:
    """A function that computes by addresses, and returns nothing: while a graph is made it is written down alone."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        tape = _state["tape"]
        if tape is None or _state["inside"]:
            return function(*args, **kwargs)
        tape.note(function, args, kwargs, None)
        return None

    return call


def record_methods(cls: type, skip: tuple[str, ...] = ()) -> None:
    """Let all methods of a class that compute be written down."""
    quiet = {"__init__", "__new__", "__getattr__", "__len__", "__bool__", "__repr__", "__setattr__", *skip}
    for name, value in list(vars(cls).items()):
        if callable(value) and name not in quiet and not isinstance(value, (staticmethod, classmethod, type)):
            setattr(cls, name, recorded(value))

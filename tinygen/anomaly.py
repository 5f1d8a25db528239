"""detect_anomaly: the first operation that makes nan or infinity is named, with its inputs and the line that called it.

A loss that is nan says nothing about where the nan was born, often hundreds of operations and a backward sweep before.
Inside ``with tg.detect_anomaly():`` every result and every gradient is looked at as it is made, and what is raised
names the operation, the size of its inputs' numbers, and the line of the user's program::

    AnomalyError: sqrt: its derivative with respect to 'input' holds 1 inf among 3 numbers, the first at [0]
      g = ∂L/∂(result): float32 (3,), from 1 to 1, mean 1
      result: float32 (3,), from 0 to 2, mean 1
    sqrt was called here:
      train.py:8, in length:  return (x * x).sum(1).sqrt()

While nothing is watched an operation asks one question more, whether :data:`watching` is empty.
"""

from __future__ import annotations

import linecache
import math
import os
import sys
from contextvars import ContextVar
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from tinygen.backend import CPU, array_module, device_of, is_array
from tinygen.tensor import Tensor

Place = tuple[tuple[CodeType, int], ...]  # code and line of each frame, the user's own first

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_MOST_LINES = 12  # that a message shows
# What every call passes through; it would only hide the lines that matter.
_PLUMBING = tuple(
    f"{_HERE}{name}.py" for name in ("op", "autograd", "tensor", "recording", "anomaly", "arguments", "methods")
)


class AnomalyError(RuntimeError):
    """An operation or its derivative made nan or infinity; the message says which, of what, and where it was called."""


class Watch(NamedTuple):
    """What is looked for in this thread or task; ``inside``: where the step was made whose derivative is running."""

    nan: bool
    inf: bool
    inside: Place | None = None


watching: list[object] = []  # one for each detect_anomaly that is open in any thread
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


class detect_anomaly:
    """Inside ``with tg.detect_anomaly():`` an operation that makes nan or infinity raises, forward and backward.

    Looked at is the result of every operation, recorded or not, and what every vjp returns. nan is always an anomaly;
    infinity is one where all inputs were finite: an overflow or a division by zero (a mask filled with −∞ passes).
    Lines are remembered for every operation that is recorded inside, and an error of any kind in its derivative is
    told with them. A step takes half as long again, one of tiny operations several times as long; on a GPU every
    operation is waited for.

    Holds for the current thread or asyncio task.

    Args:
        check_nan: raise; False only remembers lines, for the errors of derivatives.
        check_inf: infinity out of finite inputs is an anomaly too.

    Raises (inside):
        AnomalyError: with the operation, how many numbers are nan or infinite, the statistics of its inputs, and the
            line of the program that called it.

    Source: ``torch.autograd.detect_anomaly``, which looks for nan in gradients alone; check_inf is ours.
    """

    def __init__(self, check_nan: bool = True, check_inf: bool = True) -> None:
        self.watch = Watch(bool(check_nan), bool(check_nan and check_inf))
        self.before: list[tuple[Watch | None, Any]] = []

    def __enter__(self) -> detect_anomaly:
        quiet = np.errstate(all="ignore") if self.watch.nan else np.errstate()  # NumPy's warning knows less than we do
        quiet.__enter__()
        self.before.append((_watch.get(), quiet))
        _watch.set(self.watch)
        watching.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        watching.remove(self)
        before, quiet = self.before.pop()
        _watch.set(before)
        quiet.__exit__(*exc)


def current() -> Watch | None:
    """What is looked for here and now."""
    return _watch.get()


# ------------------------------------------------------------------------------------- the two questions


def check_result(op: Any, raw: Any, out: Any) -> None:
    """Raise AnomalyError where an operation's result holds what is looked for.

    Args:
        op: the :class:`tinygen.op.Op`. raw: its arguments, as arrays. out: its result.
    """
    watch = _watch.get()
    if watch is None or watch.inside is not None:
        return  # within a vjp: what it returns is looked at, what it meets on the way is its own affair
    inputs = list(_named(op.arguments, raw))
    if (found := _found(watch, out, [value for _, value in inputs])) is None:
        return
    lines = [f"{op.name}: its result holds {found}", *(f"  {name}: {statistics(value)}" for name, value in inputs)]
    if earlier := [name for name, value in inputs if _count(value)[0]]:
        lines.append(
            f"{' and '.join(earlier)} held nan before: it comes from data, from an optimizer's step, from outside of "
            "tinygen's operations, or from before detect_anomaly was switched on"
        )
    raise AnomalyError("\n".join([*lines, f"{op.name} was called here:", *written(here())]))


def check_gradient(node: Any, rule: Any, g: Any, saved: dict[int, Any], result: Any) -> None:
    """The same of what a vjp of a recorded step returned.

    Args:
        node: the step. rule: its vjp. g: the gradient that it received. saved: what it had kept, by pick.
    """
    watch = _watch.get()
    if watch is None:
        return
    op = node.op
    names = [*op.arguments, "result"]
    kept = [(names[k], part) for k in sorted(saved) if k < len(names) for part in _parts(saved[k])]
    inputs = [("g = ∂L/∂(result)", g.data), *((name, value) for name, value in kept if _counts(value))]
    if (found := _found(watch, result.data, [value for _, value in inputs])) is None:
        return
    plain = getattr(rule, "args", [rule])[0]  # an op of a sequence has one partial of its rule for each tensor
    of = " or ".join(repr(op.arguments[k]) for k, (known, _) in op.rules.items() if known is plain)
    lines = [f"{op.name}: its derivative with respect to {of} holds {found}"]
    lines += [f"  {name}: {statistics(value)}" for name, value in inputs]
    raise AnomalyError("\n".join([*lines, *called(node)]))


def remember(node: Any) -> None:
    """Let a step that was just recorded know the lines that led to it."""
    if node is not None and _watch.get() is not None:
        node.place = here()


def within(node: Any) -> Any:
    """Switch to the derivative of ``node``; :func:`leave` takes back what this returns."""
    watch = _watch.get()
    return None if watch is None else _watch.set(watch._replace(inside=getattr(node, "place", ())))


def leave(token: Any) -> None:
    """Undo :func:`within`."""
    if token is not None:
        _watch.reset(token)


def called(node: Any) -> list[str]:
    """Where a recorded step was made, as lines for a message."""
    place = getattr(node, "place", None)
    if not place:
        return [f"{node.op.name} was recorded outside of detect_anomaly, so that its line is not known"]
    return [f"{node.op.name} was called here:", *written(place)]


# ---------------------------------------------------------------------------------------------- places


def here() -> Place:
    """The line of the user's program that is running, and the lines of tinygen that it led to, outermost first."""
    watch = _watch.get()
    if watch is not None and watch.inside is not None:
        return watch.inside  # a derivative that is recorded belongs to the step that it is the derivative of
    found = []
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        ours = name.startswith(_HERE)
        if not ours or not (name.startswith(_PLUMBING) or frame.f_code.co_name == "__call__"):
            found.append((frame.f_code, frame.f_lineno))
            if not ours:
                break
        frame = frame.f_back
    return tuple(reversed(found))


def written(place: Place) -> list[str]:
    """Lines such as ``  train.py:8, in length:  return x.sqrt()``."""
    shown = place if len(place) <= _MOST_LINES else (place[0], *place[1 - _MOST_LINES :])
    lines = []
    for code, line in shown:
        name = code.co_filename
        text = linecache.getline(name, line).strip()
        under = os.getcwd() + os.sep
        if name.startswith(_HERE):
            name = os.path.join("tinygen", name[len(_HERE) :])
        lines.append(f"  {name.removeprefix(under)}:{line}, in {code.co_name}:  {text}".rstrip())
    return lines


# ------------------------------------------------------------------------------------------- statistics


def statistics(value: Any) -> str:
    """An array's dtype and shape, the range and mean of its finite numbers, and how many are nan or infinite."""
    if not is_array(value):
        return repr(value)
    text = f"{value.dtype} {tuple(value.shape)}"
    place = device_of(value)
    if place != CPU:
        text += f" on {place}"
    if not value.size:
        return f"{text}, empty"
    if value.dtype.kind not in "fiu":
        return text
    xp = array_module(value)
    finite = value[xp.isfinite(value)]
    if finite.size:
        mean = float(finite.mean(dtype="float64"))
        text += f", from {float(finite.min()):.4g} to {float(finite.max()):.4g}, mean {mean:.4g}"
    nan, inf = _count(value)
    return text + "".join(f", {n:,} {kind}" for n, kind in ((nan, "nan"), (inf, "inf")) if n)


def _found(watch: Watch, out: Any, inputs: list[Any]) -> str | None:
    """What is wrong with a result, in words; None where nothing is."""
    if not watch.nan or not is_array(out) or out.dtype.kind not in "fc" or not out.size:
        return None
    xp = array_module(out)
    fine = xp.isfinite(out)
    if bool(fine.all()):
        return None
    nan, inf = _count(out)
    if not nan and not (watch.inf and inf and all(_finite(value) for value in inputs)):
        return None
    wrong = xp.isnan(out) if nan else ~fine
    first = [int(i[0]) for i in xp.nonzero(wrong)] if out.ndim else []
    counted = " and ".join(f"{n:,} {kind}" for n, kind in ((nan, "nan"), (inf, "inf")) if n)
    where = f", the first at {first}" if out.ndim else ""
    return f"{counted} among {out.size:,} number{'s' * (out.size > 1)}{where}"


def _count(value: Any) -> tuple[int, int]:
    if isinstance(value, float):
        return int(math.isnan(value)), int(math.isinf(value))
    if not is_array(value) or value.dtype.kind not in "fc":
        return 0, 0
    xp = array_module(value)
    return int(xp.isnan(value).sum()), int(xp.isinf(value).sum())


def _finite(value: Any) -> bool:
    return not any(_count(value))


def _named(names: Any, values: Any) -> Any:
    """Every argument that holds numbers, by name; a sequence's tensors as NAME[0], NAME[1], …"""
    for name, value in zip(names, values):
        if isinstance(value, (list, tuple)) and any(is_array(part) for part in value):
            yield from ((f"{name}[{i}]", part) for i, part in enumerate(value) if is_array(part))
        elif _counts(value):
            yield name, value


def _counts(value: Any) -> bool:
    return is_array(value) or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _parts(value: Any) -> list[Any]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [part.data if isinstance(part, Tensor) else part for part in values]

"""The names that CuPy has, read from cupy_names.txt."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_name("cupy_names.txt")


class Entry(NamedTuple):
    """One line of the list.

    Attributes:
        kind: ``function``, ``ufunc``, ``class``, ``module``, ``property`` or ``value``.
        parameters: as CuPy declares them, such as ``(a, axis=None)``; empty where they are not listed.
        at: whether the ufunc has an ``at``.
    """

    kind: str
    parameters: str
    at: bool

    def signature(self) -> inspect.Signature:
        """The parameters, as an object that a call can be bound to. Defaults stand for themselves as text."""
        arguments = ast.parse(f"def f{self.parameters}: pass").body[0].args  # type: ignore[attr-defined]
        P = inspect.Parameter
        made = []
        plain: list[tuple] = [(a, P.POSITIONAL_ONLY) for a in arguments.posonlyargs]
        plain += [(a, P.POSITIONAL_OR_KEYWORD) for a in arguments.args]
        defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults
        for (argument, kind), default in zip(plain, defaults, strict=True):
            made.append(P(argument.arg, kind, default=P.empty if default is None else ast.unparse(default)))
        if arguments.vararg:
            made.append(P(arguments.vararg.arg, P.VAR_POSITIONAL))
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            made.append(P(argument.arg, P.KEYWORD_ONLY, default=P.empty if default is None else ast.unparse(default)))
        if arguments.kwarg:
            made.append(P(arguments.kwarg.arg, P.VAR_KEYWORD))
        return inspect.Signature(made)


@cache
def listed() -> dict[str, Entry]:
    """Full name (``cupy.linalg.norm``) → its entry."""
    entries = {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, kind, *rest = line.split(" ", 2)
            text = rest[0] if rest else ""
            entries[name] = Entry(kind, text if text.startswith("(") else "", text == "{at}")
    return entries


@cache
def members(part: str) -> dict[str, Entry]:
    """What is listed under a module or class: name → its entry."""
    found = {}
    for name, entry in listed().items():
        owner, _, last = name.rpartition(".")
        if owner == part:
            found[last] = entry
    return found

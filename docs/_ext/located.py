"""Where a dotted name is defined: the file, its lines, and its text, read from the source without importing it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Located(NamedTuple):
    """A definition: ``path`` relative to the checkout, lines counted from 1, ``last`` included."""

    path: str
    first: int
    last: int
    node: ast.AST | None

    def text(self) -> list[str]:
        """Its lines."""
        return lines_of(ROOT / self.path)[self.first - 1 : self.last]


@cache
def _read(path: Path, stamp: int) -> tuple[list[str], ast.Module]:
    text = path.read_text("utf-8")
    return text.splitlines(), ast.parse(text)


def lines_of(path: Path) -> list[str]:
    """The lines of a file."""
    return _read(path, path.stat().st_mtime_ns)[0]


def tree_of(path: Path) -> ast.Module:
    """A file as its syntax tree."""
    return _read(path, path.stat().st_mtime_ns)[1]


def _file_of(name: str) -> tuple[Path, list[str]]:
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        stem = ROOT.joinpath(*parts[:n])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return path, parts[n:]
    raise LookupError(f"{name}: no file of the checkout has this name")


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [t.id for t in targets if isinstance(t, ast.Name)]


def _span(node: ast.AST) -> tuple[int, int]:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(d.lineno for d in decorators)])  # type: ignore[attr-defined]
    return first, node.end_lineno  # type: ignore[attr-defined]


def locate(name: str) -> Located:
    """The definition of a module, function, class, method or module-level variable of the checkout.

    Raises:
        LookupError: there is no such file, or nothing of that name in it.
    """
    path, rest = _file_of(name)
    relative = path.relative_to(ROOT).as_posix()
    scope: ast.AST = tree_of(path)
    if not rest:
        return Located(relative, 1, len(lines_of(path)), scope)
    for part in rest:
        found = [node for node in getattr(scope, "body", []) if part in _names(node)]
        if not found:
            raise LookupError(f"{name}: {relative} defines no {part!r}")
        scope = found[-1]
    return Located(relative, *_span(scope), scope)


def vjps(name: str) -> list[Located]:
    """The rules that ``@NAME.vjp(...)`` declares beside an op.

    Raises:
        LookupError: the op is not there, or has no rules.
    """
    path, rest = _file_of(name)
    rules = []
    for node in tree_of(path).body:
        for decorator in getattr(node, "decorator_list", []):
            f = decorator.func if isinstance(decorator, ast.Call) else None
            if isinstance(f, ast.Attribute) and f.attr == "vjp" and ast.unparse(f.value) == rest[-1]:
                rules.append(Located(path.relative_to(ROOT).as_posix(), *_span(node), node))
    if not rules:
        raise LookupError(f"{name} has no @{rest[-1]}.vjp rules beside it")
    return rules


def docstring_span(found: Located) -> tuple[int, int] | None:
    """The first and last line of a definition's docstring, or None."""
    body = getattr(found.node, "body", [])
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        if isinstance(body[0].value.value, str):
            return body[0].lineno, body[0].end_lineno or body[0].lineno
    return None

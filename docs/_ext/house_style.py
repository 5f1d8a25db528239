"""What a docstring of the house must say, and what one does not: run as a program, it lists what is missing.

Every public function and class has a docstring, and names every exception that its own lines raise. What computes a
formula (the groups of *Find a formula*) states the formula, what goes in and comes out (shapes), and where it is from
(source). An op with rules derives them: its docstring, or its file's, says what ∂L/∂x is.

Said once is said: the file's docstring speaks for all that is in it ("Shapes throughout: …", "Source: …"), a base class
for its kinds, and "as :func:`other`" for what the other one says.

    python docs/_ext/house_style.py
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from docstrings import Docstring, elsewhere, errors_named, parse, says_shapes, says_source
from symbols import (
    Symbol,
    by_definition,
    groups,
    is_record,
    methods,
    module_docstring,
    ops,
    public,
    symbol_at,
)

# Groups whose members do not map arrays to arrays: their settings are in Args, with their ranges.
NO_SHAPES = {"Optimisers", "Learning-rate schedules", "Initial weights", "Other layers"}
NO_SHAPES |= {"Autoencoders", "Variational autoencoders", "GANs", "Other models", "Diffusion"}  # shapes are in Args


def speakers(symbol: Symbol) -> Iterator[Docstring]:
    """The docstrings that speak for a symbol: its own, its class', its file's, its bases', and those it refers to."""
    seen = set()
    queue = [symbol]
    while queue:
        current = queue.pop(0)
        if current.defined in seen:
            continue
        seen.add(current.defined)
        yield current.doc
        module = current.defined.rpartition(".")[0]
        if current.kind == "method":
            owner = symbol_at(module)
            queue += [owner] if owner else []
        elif current.kind == "class":
            bases = [f"{base.__module__}.{base.__qualname__}" for base in current.object.__mro__[1:]]
            queue += [known for base in bases if (known := by_definition().get(base))]
            for base in current.object.__mro__[1:]:
                if base.__module__.startswith("tinygen"):
                    yield parse(base.__doc__)
        for name in elsewhere(current.doc):
            known = _refers_to(current, name)
            queue += [known] if known else []
    yield file_docstring(symbol)


@cache
def _refers(module: str, name: str) -> Symbol | None:
    last = name.rpartition(".")[2]
    for candidate in (name, f"{module}.{name}"):
        if candidate.startswith("tinygen") and (found := symbol_at(candidate)):
            return found
    fits = [s for s in public().values() if s.short == last or s.name.endswith("." + name)]
    return fits[0] if fits else None


def _refers_to(symbol: Symbol, name: str) -> Symbol | None:
    module = symbol.object.__module__
    return _refers(module, name)


def file_docstring(symbol: Symbol) -> Docstring:
    """The docstring of the file that defines a symbol."""
    return parse(module_docstring(symbol.defined))


def _said(symbol: Symbol, what: Callable[[Docstring], bool]) -> bool:
    return any(what(doc) for doc in speakers(symbol))


def raised(symbol: Symbol) -> set[str]:
    """The exceptions that a function's own lines raise, or a class' ``__init__``."""
    node = symbol.located.node
    if symbol.kind == "class":
        node = next((n for n in getattr(node, "body", []) if getattr(n, "name", "") == "__init__"), None)
    found = set()
    for child in ast.walk(node) if node is not None else ():
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call) and isinstance(child.exc.func, ast.Name):
            found.add(child.exc.func.id)
    return {name for name in found if name[0].isupper()}


def missing(symbol: Symbol, group: str | None) -> Iterator[str]:
    """What the docstring of a symbol does not say, and should."""
    if not symbol.doc.text:
        yield "has no docstring"
        return
    if symbol.doc.text.splitlines()[0].strip()[-1] not in ".,:;)…" and not symbol.doc.body[0].literal:
        if "." not in symbol.doc.body[0].text:
            yield "does not begin with a sentence"
    named = set().union(*(errors_named(doc) for doc in speakers(symbol)))
    for error in sorted(raised(symbol) - named):
        yield f"raises {error} and does not say when"
    if group is None or is_record(symbol):
        return
    if not symbol.formula:
        yield "states no formula"
    if group not in NO_SHAPES and not _said(symbol, says_shapes):
        yield "says nothing of shapes"
    if not _said(symbol, says_source):
        yield "names no source"


def underived(op: Symbol) -> Iterator[str]:
    """What an op's docstring does not derive."""
    from tinygen.op import registry

    declared = registry.get(f"{op.object.__module__}.{op.short.lstrip('_')}")
    if declared is not None and declared.rules and "∂" not in op.doc.text and "Gradient" not in op.doc.text:
        yield "has vjps and does not derive them: ∂L/∂x = …"


def _said_by_a_base(owner: Symbol, method: Symbol) -> bool:
    """Whether a method without a docstring does what a base class says of it."""
    return any(getattr(base.__dict__.get(method.short), "__doc__", None) for base in owner.object.__mro__[1:])


def report() -> list[str]:
    """Every complaint, as ``file:line: name what``."""
    of = {symbol.defined: title for title, symbols in groups().items() for symbol in symbols}
    found = []
    everything = {symbol.defined: symbol for symbol in [*public().values(), *ops()]}
    for symbol in everything.values():
        mine = [symbol, *(methods(symbol) if symbol.kind == "class" else ())]
        for one in mine:
            if one is not symbol and not one.doc.text and _said_by_a_base(symbol, one):
                continue
            group = of.get(symbol.defined) if one is symbol else None
            for what in missing(one, group):
                found.append(f"{one.located.path}:{one.located.first}: {one.name} {what}")
    for op in ops():
        found += [f"{op.located.path}:{op.located.first}: {op.name} {what}" for what in underived(op)]
    return sorted(found, key=lambda line: (line.split(":")[0], int(line.split(":")[1])))


if __name__ == "__main__":
    complaints = report()
    print("\n".join(complaints))
    sys.exit(f"{len(complaints)} docstrings say too little" if complaints else 0)

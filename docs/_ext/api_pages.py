"""``.. api:: tinygen.ops``: every public name that is defined there, file by file, with the file's own introduction.

The docstrings are the house's own dialect (docs/_ext/docstrings.py says which), so they are translated here and not
by napoleon or numpydoc, which would read ``(*) → (*)`` as emphasis and ``x_t`` as a reference.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from docstrings import to_rst
from docutils import nodes
from docutils.statemachine import StringList
from located import ROOT, locate
from source_pages import note_path, uri
from sphinx.util.docutils import SphinxDirective, SphinxRole
from symbols import Symbol, by_definition, methods, module_docstring, public, test_of


def resolver(module: str, owner: str | None = None) -> Callable[[str], str]:
    """What a reference in a docstring of this module means: a link where the thing is documented, else code."""
    namespace = vars(importlib.import_module(module))

    def resolve(name: str) -> str:
        shown, _, target = name.partition(" <")
        target = target.rstrip(">") or name.lstrip("~.")
        shown = shown.lstrip("~.")
        first, _, rest = target.partition(".")
        tries = [target]
        if first in namespace:
            value = namespace[first]
            known = by_definition().get(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}")
            value = inspect.unwrap(value) if callable(value) else value
            known = known or by_definition().get(
                f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
            )
            tries = [f"{known.name}.{rest}" if rest else known.name] if known else tries
        elif owner and not rest:
            tries = [f"{owner}.{target}"]
        for candidate in tries:
            base, _, last = candidate.rpartition(".")
            if candidate in public():
                return f":py:obj:`{shown} <{candidate}>`"
            if base in public() and any(m.name == candidate for m in methods(public()[base])):
                return f":py:obj:`{shown} <{candidate}>`"
        return f"``{shown}``"

    return resolve


class Api(SphinxDirective):
    """The public names defined in the modules that begin with the argument, or in those listed."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """One section for each file."""
        wanted = self.arguments[0].split()
        files: dict[str, list[Symbol]] = {}
        for symbol in public().values():
            module = symbol.object.__module__
            if any(module == name or module.startswith(name + ".") for name in wanted):
                files.setdefault(module, []).append(symbol)
        order = sorted(files, key=lambda m: next(i for i, w in enumerate(wanted) if m == w or m.startswith(w + ".")))
        rst: list[str] = []
        for module in order:
            rst += self._file(module, sorted(files[module], key=lambda s: s.located.first))
        node = nodes.section()
        node.document = self.state.document
        # Sections are made here, so the text is parsed as the body of the page.
        self.state.memo.title_styles = ["=", "-"]
        self.state.nested_parse(StringList(rst, source=f"api {self.arguments[0]}"), 0, node, match_titles=True)
        return node.children

    def _file(self, module: str, symbols: list[Symbol]) -> list[str]:
        path = locate(module).path
        self.env.note_dependency(str(ROOT / path))
        title = module.removeprefix("tinygen.")
        rst = [title, "-" * max(3, len(title) + 2), "", f":src:`{module}`", ""]
        rst += to_rst(module_docstring(module), resolver(module))
        for symbol in symbols:
            note_path(self.env, symbol.located.path)
            base = symbol.name.rpartition(".")[0]
            rst += [f".. py:currentmodule:: {base}", ""]
            if symbol.kind == "class":
                members = [m.name.rpartition(".")[2] for m in methods(symbol)]
                rst += [f".. autoclass:: {symbol.name}"]
                rst += [f"   :members: {', '.join(members)}"] if members else []
                rst += ["   :exclude-members: __init__, __new__", ""]
            else:
                rst += [f".. autofunction:: {symbol.name}", ""]
        return rst


def _translate(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    module = name
    while module:
        try:
            importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module = module.rpartition(".")[0]
    inner = inspect.unwrap(getattr(obj, "fget", None) or getattr(obj, "__func__", obj))
    defined_in = getattr(inner, "__module__", module) or module
    owner = name if what == "class" else name.rpartition(".")[0]
    if not str(defined_in).startswith("tinygen"):
        defined_in = module
    text = "\n".join(lines)
    lines[:] = to_rst(text, resolver(defined_in, owner))
    symbol = public().get(name)
    if symbol is not None:
        test = test_of(symbol)
        where = [f":src:`{symbol.defined}`"]
        if test is not None:
            where.append(f"tested by :testsrc:`{test.name} <{test.path}:{test.line}>`")
        lines += ["", ".. rst-class:: where", "", " · ".join(where), ""]


class TestRole(SphinxRole):
    """``:testsrc:`name <path:line>```: a link to a test."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The link."""
        name, _, place = self.text.rstrip(">").rpartition(" <")
        return [test_link(self.env, name, *place.rsplit(":", 1))], []


def test_link(env: Any, name: str, path: str, line: str | int) -> nodes.reference:
    """A link to a line of a test file."""
    note_path(env, path)
    target = uri(env.docname, path, int(line))
    return nodes.reference("", "", nodes.literal("", name), refuri=target, internal=True, reftitle=f"{path}:{line}")


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("api", Api)
    app.add_role("testsrc", TestRole())
    app.connect("autodoc-process-docstring", _translate)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

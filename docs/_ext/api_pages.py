"""``.. api:: tinygen.ops``: every public name that is defined there, file by file, with the file's own introduction.

numpydoc renders the docstrings. They are written in a dialect of the house, so they are put into its form before it
sees them (docs/_ext/docstrings.py says how), and where a thing stands and what tests it is added after.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import docstrings
from docstrings import to_numpydoc
from docutils import nodes
from docutils.statemachine import StringList
from located import ROOT, locate
from numpydoc.docscrape_sphinx import SphinxDocString
from proofs import mention_of, test_of
from source_pages import note_path, uri
from sphinx.util.docutils import SphinxDirective, SphinxRole
from symbols import Symbol, by_definition, methods, module_docstring, public


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
        alike = [symbol.name for symbol in public().values() if symbol.short == target]
        return f":py:obj:`{shown} <{alike[0]}>`" if len(alike) == 1 else f"``{shown}``"

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
        for read in (ROOT / path, docstrings.__file__, __file__):
            self.env.note_dependency(str(read))
        title = module.removeprefix("tinygen.")
        rst = [title, "-" * max(3, len(title) + 2), "", f":src:`{module}`", ""]
        text = to_numpydoc(module_docstring(module), resolver(module))
        shown = str(SphinxDocString("\n".join(text))).splitlines()
        rst += [".. container:: file-doc", "", *("   " + line for line in shown), ""]
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


def _signature_of(obj: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(obj)
    except (TypeError, ValueError):
        return None  # a property has none


def _translate(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Before numpydoc: the house's docstring in its form."""
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
    lines[:] = to_numpydoc("\n".join(lines), resolver(defined_in, owner), _signature_of(inner))


def _place(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """After numpydoc: where it stands, and what tests it."""
    symbol = public().get(name)
    if symbol is not None:
        test = test_of(symbol) or mention_of(symbol)
        where = [f":src:`{symbol.defined}`"]
        if test is not None:
            where.append(f"tested by :testsrc:`{test.name} <{test.path}:{test.line}>`")
        lines += ["", ".. rst-class:: where", "", " · ".join(where), ""]


def _signature(app: Any, what: str, name: str, obj: Any, options: Any, *found: Any) -> tuple[Any, ...]:
    """Before numpydoc, which would look for one in the docstring, where a formula may look like one."""
    return found


class TestRole(SphinxRole):
    """``:testsrc:`name <path:line>```: a link to a test."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The link."""
        name, _, place = self.text.rstrip(">").rpartition(" <")
        return [test_link(self.env, breakable(name), *place.rsplit(":", 1))], []


def breakable(name: str) -> str:
    """A path or a long name with places where a narrow column may break it."""
    return re.sub(r"(?<=[/_])(?=\w)", "\u200b", name)


def test_link(env: Any, name: str, path: str, line: str | int) -> nodes.reference:
    """A link to a line of a test file."""
    note_path(env, path)
    target = uri(env.docname, path, int(line))
    return nodes.reference("", "", nodes.literal("", name), refuri=target, internal=True, reftitle=f"{path}:{line}")


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("api", Api)
    app.add_role("testsrc", TestRole())
    app.setup_extension("numpydoc")
    app.connect("autodoc-process-docstring", _translate, priority=400)
    app.connect("autodoc-process-docstring", _place, priority=600)
    app.connect("autodoc-process-signature", _signature, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

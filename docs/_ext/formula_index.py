"""*Find a formula*: formula ↔ symbol ↔ file:line ↔ test ↔ chapter, from the docstrings, complete or the build fails.

``{formulas}`` makes the whole page. ``{find}`` makes a short table, for the front page, of lines

    formula | dotted.name | label of the chapter
    formula | dotted.name; dotted.name.of.a.test | label of the chapter

whose line of source is looked up, and so is the test where none is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from api_pages import breakable, test_link
from docutils import nodes
from located import locate
from proofs import Test, cases_of, test_of
from source_pages import link, note_path
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from symbols import CHAPTERS, Symbol, groups, methods, public, symbol_at

logger = logging.getLogger(__name__)


class formula_table(nodes.General, nodes.Element):
    """Where the rows of one group go, once every chapter has been read."""


class Formulas(SphinxDirective):
    """A section with a table for each group of symbols, and what is missing as warnings.

    What is inside the directive comes first, under the title that it is given.
    """

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Sections whose tables are filled in later."""
        out: list[nodes.Node] = [nodes.raw("", _FILTER, format="html")]
        self.env.note_reread()
        first = self._section(self.arguments[0])
        self.state.nested_parse(self.content, self.content_offset, first)
        out.append(first)
        for title, symbols in groups().items():
            section = self._section(title)
            table = formula_table(group=title)
            rows = [s for symbol in symbols for s in rows_of(symbol)]
            for symbol in rows:
                self._note(symbol)
            table["rows"] = [(symbol.name, symbol.defined, symbol.kind) for symbol in rows]  # pickled with the page
            section += table
            out.append(section)
        return out

    def _section(self, title: str) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(title)], names=[nodes.fully_normalize_name(title)])
        section += nodes.title("", title)
        return section

    def _note(self, symbol: Symbol) -> None:
        note_path(self.env, symbol.located.path)
        test, cases = test_of(symbol), cases_of(symbol)
        for path in (test and test.path, cases and cases.path):
            if path:
                note_path(self.env, path)
        for problem in problems(symbol):
            logger.warning("formulas: %s", problem, location=f"{symbol.located.path}:{symbol.located.first}")


def rows_of(symbol: Symbol) -> Iterator[Symbol]:
    """A symbol, and those of its methods that state a formula; ``forward`` is what the class's own row is about."""
    yield symbol
    if symbol.kind == "class":
        yield from (method for method in methods(symbol) if method.formula and method.short != "forward")


def problems(symbol: Symbol) -> Iterator[str]:
    """What a row of the index misses."""
    if not symbol.formula:
        yield f"{symbol.name} states no formula in its docstring; begin it with one: y = …"
    cases = cases_of(symbol)
    if test_of(symbol) is None and not (cases and cases.value):
        yield (
            f"{symbol.name} has no test in tinygen_tests that judges its formula: write one; where it has another "
            f'name, let its docstring say "Proves: {symbol.short}."'
        )


_FILTER = """
<p class="finder"><input type="search" id="finder" placeholder="softmax, KL, β, Σ, conv … "
 aria-label="Show formulas that contain" autocomplete="off"> <span id="found"></span></p>
"""


WIDTHS = (34, 15, 16, 22, 13)  # of the index' columns, in percent


def _cell(row: nodes.row, *children: nodes.Node, classes: tuple[str, ...] = ()) -> None:
    entry = nodes.entry(classes=list(classes))
    entry += nodes.paragraph("", "", *children)
    row += entry


def _table(heads: list[str], rows: list[nodes.row]) -> nodes.table:
    group = nodes.tgroup(cols=len(heads))
    group += [nodes.colspec(colwidth=width) for width in (WIDTHS if len(heads) == len(WIDTHS) else [1] * len(heads))]
    head = nodes.row()
    for text in heads:
        _cell(head, nodes.Text(text))
    group += nodes.thead("", head)
    group += nodes.tbody("", *rows)
    given = ["colwidths-given"] if len(heads) == len(WIDTHS) else []
    return nodes.table("", group, classes=["formulas", *given])


def _symbol_link(app: Any, docname: str, symbol: Symbol) -> nodes.Node:
    short = symbol.name.removeprefix("tinygen.").replace("nn.functional.", "F.")
    known = symbol.name in public() or symbol.kind == "method"
    code = nodes.literal("", re.sub(r"(?<=\.)", "\u200b", short) if known else breakable(symbol.short))
    entry = app.env.domains["py"].objects.get(symbol.name)
    if entry is None:
        return code
    target = app.builder.get_relative_uri(docname, entry.docname) + "#" + entry.node_id
    return nodes.reference("", "", code, refuri=target, internal=True)


def chapters(env: Any) -> dict[str, list[str]]:
    """Defined name → the chapters that show its source, in reading order."""
    shown: dict[str, list[str]] = {}
    for docname, names in sorted(getattr(env, "tinygen_shown", {}).items()):
        if docname.startswith("math/"):
            for name in names:
                known = symbol_at(name)
                key = known.defined if known else name
                if docname not in shown.setdefault(key, []):
                    shown[key].append(docname)
    return shown


def _row(app: Any, docname: str, symbol: Symbol, shown: dict[str, list[str]], about: str | None) -> nodes.row:
    row = nodes.row()
    entry = nodes.entry(classes=["f"])
    lines = plain(symbol)
    entry += nodes.line_block("", *(nodes.line("", line) for line in lines), classes=["aligned"] if lines[1:] else [])
    row += entry
    _cell(row, _symbol_link(app, docname, symbol), classes=("s",))
    place = symbol.located
    _cell(row, link(docname, place, breakable(f"{place.path.removeprefix('tinygen/')}:{place.first}")), classes=("l",))
    tests: list[nodes.Node] = []
    test: Test | None = test_of(symbol)
    cases = cases_of(symbol)
    if test:
        tests.append(_test(app, docname, test.name, test.path, test.line))
    if cases:
        tests += [nodes.Text(", " if test else ""), _test(app, docname, "cases", cases.path, cases.line)]
    _cell(row, *tests, classes=("t",))
    where: list[nodes.Node] = []
    for chapter in shown.get(symbol.defined) or ([about] if about else []):
        title = app.env.titles[chapter].astext()
        uri = app.builder.get_relative_uri(docname, chapter)
        where += [nodes.Text(", ")] if where else []
        where.append(nodes.reference("", title, refuri=uri, internal=True))
    _cell(row, *where, classes=("c",))
    return row


def plain(symbol: Symbol) -> list[str]:
    """The formula without markup."""
    return [re.sub(r":\w+:`[~.]?([^`<]+?)(?: <[^`]*>)?`|``(.+?)``", r"\1\2", line) for line in symbol.formula]


def _test(app: Any, docname: str, name: str, path: str, line: int) -> nodes.reference:
    return test_link(SimpleNamespace(docname=docname, tinygen_paths={}), breakable(name), path, line)


def _fill(app: Any, doctree: nodes.document, docname: str) -> None:
    shown = chapters(app.env)
    for node in list(doctree.findall(formula_table)):
        about = f"math/{CHAPTERS[node['group']]}" if node["group"] in CHAPTERS else None
        if about is not None and about not in app.env.all_docs:
            logger.warning("formulas: %s has the chapter %s, which is not there", node["group"], about)
            about = None
        rows = [_row(app, docname, Symbol(*row), shown, about) for row in node["rows"]]
        node.replace_self(_table(["Formula", "Symbol", "Line", "Test", "Chapter"], rows))


class Find(SphinxDirective):
    """Lines of ``formula | dotted.name | chapter``: where each is derived, computed and tested."""

    has_content = True
    option_spec = {"heads": str}

    def run(self) -> list[nodes.Node]:
        """The table; a name that is gone is a warning."""
        heads = [head.strip() for head in self.options.get("heads", "Formula|Derivation|Line|Test").split("|")]
        rows = []
        for text in self.content:
            formula, names, label = (part.strip() for part in text.rsplit("|", 2))
            name, _, wanted = (part.strip() for part in names.partition(";"))
            try:
                place, test = locate(name), self._test(name, wanted)
            except LookupError as error:
                logger.warning("find: %s", error, location=self.get_location())
                continue
            row = nodes.row()
            parsed, _ = self.parse_inline(formula)
            _cell(row, *parsed, classes=("f",))
            derived, _ = self.parse_inline(f"{{ref}}`{label}`" if self.is_markdown else f":ref:`{label}`")
            _cell(row, *derived, classes=("c",))
            _cell(row, link(self.env.docname, place, breakable(f"{place.path}:{place.first}")), classes=("l",))
            note_path(self.env, place.path)
            _cell(row, test, classes=("t",))
            rows.append(row)
        return [_table(heads, rows)]

    def _test(self, name: str, wanted: str) -> nodes.reference:
        if wanted:
            place = locate(wanted)
            return test_link(self.env, breakable(wanted.rpartition(".")[2]), place.path, place.first)
        # A step of a class is tested through the class.
        for candidate in (name, name.rpartition(".")[0]):
            symbol = symbol_at(candidate)
            test = test_of(symbol) if symbol else None
            if test is not None:
                return test_link(self.env, breakable(test.name), test.path, test.line)
        raise LookupError(f"{name} has no test")

    @property
    def is_markdown(self) -> bool:
        """Whether the page is written in Markdown."""
        return str(self.env.doc2path(self.env.docname)).endswith(".md")


def _again(app: Any, env: Any) -> list[str]:
    """The index names chapters, so it is written anew whenever anything was."""
    return ["formulas"] if "formulas" in env.all_docs else []


def _complete(app: Any, env: Any) -> None:
    """Every public name has its entry on an API page."""
    if "api/index" not in env.all_docs:
        return
    documented = env.domains["py"].objects
    for name in public():
        if name not in documented:
            logger.warning("api: %s is on no API page; name its module in docs/api", name)


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_node(formula_table)
    app.add_directive("formulas", Formulas)
    app.add_directive("find", Find)
    app.connect("doctree-resolved", _fill)
    app.connect("env-updated", _again)
    app.connect("env-check-consistency", _complete)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

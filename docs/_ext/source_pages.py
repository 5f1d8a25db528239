"""The source in the pages: ``{source}`` shows a definition, ``{src}`` links to its line, and every file has a page.

Nothing is copied into a page by hand. A name that no longer exists is a warning, and so the end of a build with -W.
"""

from __future__ import annotations

import html
import textwrap
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from located import ROOT, Located, docstring_span, locate, vjps
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

logger = logging.getLogger(__name__)

FOLDER = "_source"


def uri(docname: str, path: str, line: int) -> str:
    """The address of a line of a source file, seen from a page."""
    return "../" * docname.count("/") + f"{FOLDER}/{path}.html#L{line}"


def link(docname: str, found: Located, text: str | None = None) -> nodes.reference:
    """A link to a definition; its text is file:line unless another is given."""
    text = text or f"{found.path}:{found.first}"
    return nodes.reference("", "", nodes.literal("", text), refuri=uri(docname, found.path, found.first), internal=True)


def note_path(env: Any, path: str) -> None:
    """Remember that this page links to the page of a file."""
    if not hasattr(env, "tinygen_paths"):
        env.tinygen_paths = {}
    env.tinygen_paths.setdefault(env.docname, set()).add(path)


def _between(lines: list[tuple[int, str]], start: str | None, end: str | None, name: str) -> list[tuple[int, str]]:
    for mark, at_start in ((start, True), (end, False)):
        if mark is None:
            continue
        hits = [i for i, (_, text) in enumerate(lines) if mark in text]
        if not hits:
            raise LookupError(f"{name}: no line contains {mark!r}")
        lines = lines[hits[0] :] if at_start else lines[: hits[0] + 1]
    return lines


class Source(SphinxDirective):
    """``{source} dotted.name``: the definition, with its line numbers and a link to where it stands."""

    required_arguments = 1
    option_spec = {
        "vjps": directives.flag,
        "nodoc": directives.flag,
        "doc": directives.flag,
        "from": directives.unchanged_required,
        "to": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """The block, or a warning with the place where it was asked for."""
        name = self.arguments[0].strip()
        try:
            found = locate(name)
            return [self._block(name, found)]
        except LookupError as error:
            logger.warning("source: %s", error, location=self.get_location())
            return []

    def _block(self, name: str, found: Located) -> nodes.Node:
        numbered = list(enumerate(found.text(), found.first))
        doc = docstring_span(found)
        if doc and "nodoc" in self.options:
            numbered = [(n, text) for n, text in numbered if not doc[0] <= n <= doc[1]]
        if doc and "doc" in self.options:
            numbered = [(n, text) for n, text in numbered if doc[0] <= n <= doc[1]]
        numbered = _between(numbered, self.options.get("from"), self.options.get("to"), name)
        if "vjps" in self.options:
            for rule in vjps(name):
                numbered += [(0, ""), *enumerate(rule.text(), rule.first)]
        text = textwrap.dedent("\n".join(line for _, line in numbered))
        self.env.note_dependency(str(ROOT / found.path))
        note_path(self.env, found.path)
        if not hasattr(self.env, "tinygen_shown"):
            self.env.tinygen_shown = {}
        self.env.tinygen_shown.setdefault(self.env.docname, []).append(name)
        block = nodes.literal_block(text, text, language="python")
        self.set_source_info(block)
        caption = nodes.paragraph("", "", link(self.env.docname, found), classes=["source-caption"])
        return nodes.container("", caption, block, classes=["source"])


class SourceRole(SphinxRole):
    """``{src}`dotted.name```: a link to the line where it is defined."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The link, or a warning."""
        try:
            found = locate(self.text)
        except LookupError as error:
            logger.warning("src: %s", error, location=self.get_location())
            return [nodes.literal("", self.text)], []
        note_path(self.env, found.path)
        return [link(self.env.docname, found)], []


def rendered(path: Path) -> str:
    """A file as HTML, each line with its number, which is a link to itself."""
    formatter = HtmlFormatter(nowrap=True)
    lines = highlight(path.read_text("utf-8"), PythonLexer(stripnl=False, ensurenl=False), formatter).split("\n")
    rows = "\n".join(
        f'<span class="line" id="L{n}"><a class="n" href="#L{n}">{n}</a>{line}</span>'
        for n, line in enumerate(lines, 1)
    )
    return f'<div class="highlight numbered"><pre>{rows}\n</pre></div>'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{path}</title><link rel="stylesheet" href="{root}_static/source.css"></head>
<body><p><a href="{root}index.html">tinygen</a> / <a href="{root}formulas.html">Find a formula</a> / <b>{path}</b></p>
{body}
</body></html>
"""


def _write_pages(app: Any, exception: Exception | None) -> None:
    """Plain pages without the theme: its sidebar would be computed anew for each of some two hundred files."""
    if exception is not None or app.builder.format != "html":
        return
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("friendly", "monokai"))
    css = (Path(app.confdir) / "_static" / "source.css").read_text("utf-8")
    dark = "@media (prefers-color-scheme: dark) {\n" + dark + "\n}\n"
    (Path(app.outdir) / "_static" / "source.css").write_text(light + "\n" + dark + css, "utf-8")
    for path in sorted(set().union(*getattr(app.env, "tinygen_paths", {}).values())):
        source, out = ROOT / path, Path(app.outdir) / FOLDER / f"{path}.html"
        if not source.exists():
            continue  # gone since the pages that name it were read
        if out.exists() and out.stat().st_mtime > max(source.stat().st_mtime, Path(__file__).stat().st_mtime):
            continue
        out.parent.mkdir(parents=True, exist_ok=True)
        root = "../" * (path.count("/") + 1)
        out.write_text(_PAGE.format(path=html.escape(path), root=root, body=rendered(source)), "utf-8")


def _forget(app: Any, env: Any, docname: str) -> None:
    for noted in ("tinygen_shown", "tinygen_paths"):
        getattr(env, noted, {}).pop(docname, None)


def _merge(app: Any, env: Any, docnames: set[str], other: Any) -> None:
    for noted in ("tinygen_shown", "tinygen_paths"):
        mine = env.__dict__.setdefault(noted, {})
        mine.update({k: v for k, v in getattr(other, noted, {}).items() if k in docnames})


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("source", Source)
    app.add_role("src", SourceRole())
    app.connect("build-finished", _write_pages)
    app.connect("env-purge-doc", _forget)
    app.connect("env-merge-info", _merge)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""One source tree, two languages: docs/ja/PATH.md is the Japanese of docs/PATH.md.

The switch at the head of the sidebar leads to the page's twin, or to the other language's front page where it has
none. ``<html lang>`` follows the folder, so that browsers choose the right glyphs and hyphenation.

The end of a line is a space between words. Japanese has none, so it is taken out between two of its characters; and
the search, one for both languages, knows it by pairs of characters instead of by words.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.search.en import SearchEnglish
from sphinx.transforms import SphinxTransform

PREFIX = "ja/"
WIDE = "[\u3000-\u30ff\u3400-\u9fff\uff00-\uff65]"  # punctuation, kana, kanji, and full-width forms


LETTERS = "\u3005-\u3007\u3041-\u3096\u30a1-\u30ff\u3400-\u9fff"


def twin(page: str) -> str:
    """The name of the same page in the other language."""
    return page.removeprefix(PREFIX) if page.startswith(PREFIX) else PREFIX + page


def _add_switch(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    japanese = page.startswith(PREFIX)
    other = twin(page)
    if other not in app.env.all_docs:
        other = "index" if japanese else PREFIX + "index"
    context["is_japanese"] = japanese
    context["other_language"] = context["pathto"](other) if other in app.env.all_docs else None
    context["language"] = "ja" if japanese else "en"
    # The sidebar shows the pages of one language: the theme's tree, before or after the heading of the Japanese part.
    english, caption, rest = context.get("furo_navigation_tree", "").partition('<p class="caption"')
    if caption:
        context["furo_navigation_tree"] = rest.partition("</p>")[2] if japanese else english


class JoinLines(SphinxTransform):
    """No space where a line of Japanese ends and the next begins."""

    default_priority = 700

    def apply(self, **kwargs: Any) -> None:
        """Change the words of a Japanese page; formulas and code stay as they are."""
        if not self.env.docname.startswith(PREFIX):
            return
        words = [text for text in self.document.findall(nodes.Text) if isinstance(text.parent, nodes.TextElement)]
        for before, text, after in zip([None, *words], words, [*words[1:], None]):
            if isinstance(text.parent, (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)):
                continue
            joined = re.sub(f"(?<={WIDE})\n(?={WIDE})|(?<=[、。])\n", "", text.astext())
            # MyST gives the end of a line a node of its own.
            if joined == "\n" and before is not None and before.parent is text.parent:
                follows = after is not None and after.parent is text.parent and re.match(WIDE, after.astext())
                if re.search("[、。]$", before.astext()) or (follows and re.search(WIDE + "$", before.astext())):
                    joined = ""
            if joined != text.astext():
                # By identity: index() would find the first of several equal pieces.
                at = next(i for i, child in enumerate(text.parent) if child is text)
                text.parent[at] = nodes.Text(joined)
        for formula in list(self.document.findall(nodes.math)):
            self._hold(formula)

    def _hold(self, formula: nodes.math) -> None:
        """No line begins with the punctuation that follows a formula."""
        parent = formula.parent
        at = next(i for i, child in enumerate(parent) if child is formula)
        after = parent[at + 1] if at + 1 < len(parent) else None
        if isinstance(after, nodes.Text) and after.astext()[0:1] in {"、", "。", "）", "」"}:
            mark, rest = after.astext()[0], after.astext()[1:]
            held = nodes.inline("", "", classes=["held"])
            parent[at : at + 2] = [held, nodes.Text(rest)] if rest else [held]
            held += [formula, nodes.Text(mark)]


class SearchBoth(SearchEnglish):
    """English by its words. Japanese by each character and each two that stand side by side.

    Sphinx' own splitter for Japanese works while the index is made and not in the browser, where 変分自己符号化器 is
    then not found among its parts, and there is one language to a site. Pairs need no dictionary on either side.
    """

    lang = "en_ja"
    js_splitter_code = """
const pairs = (run) => run.length === 1 ? [run] : [...run].slice(1).map((letter, i) => run[i] + letter);
var splitQuery = (query) => query.split(/[^\\p{Letter}\\p{Number}_]+/u)
  .flatMap((word) => word.split(/([LETTERS]+)/u))
  .flatMap((part) => /^[LETTERS]/u.test(part) ? pairs(part) : [part]).filter((part) => part);
""".replace("LETTERS", LETTERS)

    def split(self, input: str) -> list[str]:
        """The words, letters and pairs of a text."""
        found = []
        for part in re.split(f"([{LETTERS}]+)", input):
            if re.match(f"[{LETTERS}]", part):
                found += [*part, *(a + b for a, b in zip(part, part[1:]))]
            else:
                found += super().split(part)
        return found

    def word_filter(self, word: str) -> bool:
        """Every pair counts: the browser asks for all of them."""
        return bool(re.match(f"[{LETTERS}]", word)) or super().word_filter(word)


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_transform(JoinLines)
    app.add_search_language(SearchBoth)
    app.connect("html-page-context", _add_switch, priority=900)  # after the theme's own
    return {"parallel_read_safe": True, "parallel_write_safe": True}

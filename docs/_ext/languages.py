"""One source tree, two languages: docs/ja/PATH.md is the Japanese of docs/PATH.md.

The switch at the head of the sidebar leads to the page's twin, or to the other language's front page where it has
none. ``<html lang>`` follows the folder, so that browsers choose the right glyphs and hyphenation.
"""

from typing import Any

PREFIX = "ja/"


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


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("html-page-context", _add_switch, priority=900)  # after the theme's own
    return {"parallel_read_safe": True, "parallel_write_safe": True}

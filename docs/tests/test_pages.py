"""Every block of Python on a page runs, in order and in one namespace, and prints what stands below it."""

import contextlib
import doctest
import importlib
import io
import re

import pytest
from located import ROOT

DOCS = ROOT / "docs"

BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
# docs/testing.md and docs/conventions.md are run by the suite itself.
PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if BLOCK.search(page.read_text("utf-8")) and page.name not in ("testing.md", "conventions.md")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_blocks_of_a_page_run_and_print_what_they_say(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__page__"}
    for source, said in BLOCK.findall(page.read_text("utf-8")):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(source, str(page), "exec"), names)
        if said or out.getvalue():
            assert out.getvalue().split() == said.split(), f"{source}\nprints\n{out.getvalue()}"
    assert list(tmp_path.iterdir()) == [], "a page writes no files"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_what_is_said_to_be_printed_is_compared(page):
    """A ```text block that does not follow a ```python block would never be read."""
    text = page.read_text("utf-8")
    after = sum(bool(said) for _, said in BLOCK.findall(text))
    assert text.count("\n```text\n") == after


def test_there_are_pages():
    assert len(PAGES) >= 10


EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "tinygen").rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_in_docstrings_do_what_they_say(name):
    import tinygen as tg

    ran = doctest.testmod(importlib.import_module(name), extraglobs={"tg": tg}, verbose=False)
    assert ran.attempted > 0 and ran.failed == 0

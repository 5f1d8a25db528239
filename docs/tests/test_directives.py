"""The site's own directives, in a site of one page: what they show, and that what is gone ends a build with -W."""

import subprocess
import sys

import pytest
from located import ROOT, locate

pytest.importorskip("sphinx", reason="the site is built with the docs extra")

CONF = f"""
import sys
sys.path[:0] = [{str(ROOT / "docs" / "_ext")!r}, {str(ROOT)!r}]
project = "one page"
extensions = ["myst_parser", "sphinx.ext.autodoc", "source_pages", "formula_index"]
html_static_path = [{str(ROOT / "docs" / "_static")!r}]
html_theme = "basic"
"""


@pytest.fixture
def build(tmp_path):
    """Build a page: (exit status, what was said, the page as HTML)."""

    def built(text):
        (tmp_path / "conf.py").write_text(CONF, "utf-8")
        (tmp_path / "_static").mkdir(exist_ok=True)
        (tmp_path / "_static" / "source.css").write_text("", "utf-8")
        (tmp_path / "index.md").write_text(f"(here)=\n# Page\n\n{text}\n", "utf-8")
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(tmp_path), str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True)
        page = tmp_path / "out" / "index.html"
        return done.returncode, done.stderr, page.read_text("utf-8") if page.exists() else ""

    built.folder = tmp_path / "out"
    return built


def text_of(html):
    import re
    from html import unescape

    return unescape(re.sub(r"<.*?>", "", html, flags=re.DOTALL))


def test_source_is_shown_as_it_stands_with_its_line(build):
    status, said, page = build(
        "```{source} tinygen.ops.elementwise.sub\n:vjps:\n:nodoc:\n```\n\nAt {src}`tinygen.optim.adam.Adam`."
    )
    assert (status, said) == (0, "")
    found, shown = locate("tinygen.ops.elementwise.sub"), text_of(page)
    assert f"{found.path}:{found.first}" in shown and "Raises TypeError" not in shown
    for line in ('@sub.vjp("other")', "return input - other", "return -g"):
        assert line in shown
    assert f'href="_source/tinygen/optim/adam.py.html#L{locate("tinygen.optim.adam.Adam").first}"' in page
    lines = (build.folder / "_source/tinygen/ops/elementwise.py.html").read_text("utf-8")
    assert f'id="L{found.first}"' in lines


def test_a_part_of_a_definition(build):
    status, said, page = build("```{source} tinygen.optim.adam.Adam._update\n:from: m *= β1\n:to: m += d\n```")
    assert (status, said) == (0, "")
    assert "m *= β1\nm += d" in text_of(page) and "xp.sqrt" not in text_of(page)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("```{source} tinygen.ops.elementwise.gone\n```", "defines no 'gone'"),
        ("```{source} tinygen.ops.comparison.eq\n:vjps:\n```", "has no @eq.vjp rules"),
        ("```{source} tinygen.optim.adam.Adam._update\n:from: what is not there\n```", "no line contains"),
        ("{src}`tinygen.nowhere.at_all`", "defines no"),
        ("```{find}\ny | tinygen.ops.elementwise.gone | here\n```", "defines no 'gone'"),
        ("```{find}\ny | tinygen.ops.elementwise.add; tinygen_tests.test_op.test_gone | here\n```", "'test_gone'"),
        ("```{find}\ny | tinygen.ops.elementwise.add | nowhere\n```", "nowhere"),
    ],
)
def test_what_is_gone_ends_the_build_and_is_named(build, text, complaint):
    status, said, _ = build(text)
    assert status != 0 and complaint in said


def test_the_table_of_the_front_page(build):
    status, said, page = build("```{find}\nthe sum | tinygen.ops.elementwise.add | here\n```")
    assert (status, said) == (0, "")
    found = locate("tinygen.ops.elementwise.add")
    assert f"_source/{found.path}.html#L{found.first}" in page and "_source/tinygen_tests/ops/" in page


def test_a_symbol_without_formula_or_test_is_named():
    import formula_index
    from docstrings import parse
    from symbols import Symbol

    bare = Symbol("tinygen.optim.adam.Adam._averages", "tinygen.optim.adam.Adam._averages", "function")
    bare.__dict__["doc"] = parse("Something.")
    first, second = formula_index.problems(bare)
    assert "states no formula" in first and "no test in tinygen_tests that judges" in second

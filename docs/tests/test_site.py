"""The site as a reader has it: built without a warning, every link leads somewhere, nothing is fetched."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest


class Page(HTMLParser):
    """The links of a page, what it loads, and the places that can be linked to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.update(value for name in ("id", "name") if (value := given.get(name)))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        for name in {"link": ["href"], "script": ["src"], "img": ["src"], "source": ["src"]}.get(tag, []):
            if given.get(name) and given.get("rel") not in ("search", "index", "next", "prev", "canonical"):
                self.loads.append(given[name])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}


def outside(address):
    return re.match(r"[a-z]+:|//", address) is not None


def test_every_link_leads_to_a_page_and_a_place_on_it(site, pages):
    broken = []
    for path, page in pages.items():
        for address in set(page.links):
            if outside(address):
                continue
            file, _, place = unquote(address).partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not target.is_file():
                broken.append(f"{path.relative_to(site)} → {address}: no such file")
            elif place and target in pages and place not in pages[target].ids:
                broken.append(f"{path.relative_to(site)} → {address}: no such place")
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(site, pages):
    """Scripts, styles, pictures and fonts are files of the site."""
    missing = []
    for path, page in pages.items():
        for address in page.loads:
            if outside(address) or not (path.parent / unquote(address).partition("?")[0]).is_file():
                missing.append(f"{path.relative_to(site)} loads {address}")
    styles = [path for path in site.rglob("*.css") if re.search(r"url\((['\"]?)https?:", path.read_text("utf-8"))]
    assert missing == [] and styles == []


def test_the_index_names_every_formula_of_the_lectures_with_derivation_line_and_test(site):
    """Ten that a reader may ask for, found from the front page."""
    front = (site / "index.html").read_text("utf-8")
    rows = re.findall(r"<tr.*?</tr>", front, re.DOTALL)
    for chapter in ("convolution", "transposed_convolution", "pooling", "softmax", "adam", "vae", "gan", "ddpm"):
        mine = [row for row in rows if f"math/{chapter}.html" in row]
        assert mine, f"no row leads to {chapter}"
        for row in mine:
            assert "_source/tinygen/" in row and "_source/tinygen_tests/" in row


def test_the_index_has_every_group_and_no_empty_cell(site):
    from symbols import groups

    text = (site / "formulas.html").read_text("utf-8")
    rows = re.findall(r"<tr class=\"row-(?:odd|even)\">.*?</tr>", text, re.DOTALL)
    body = [row for row in rows if "<td" in row]
    assert len(body) >= sum(len(symbols) for symbols in groups().values()) > 250
    for row in body:
        cells = re.findall(r"<td.*?</td>", row, re.DOTALL)
        assert all(re.sub(r"<.*?>|\s", "", cell) for cell in cells[:4]), row


def test_a_page_of_source_has_its_lines(site):
    text = (site / "_source/tinygen/optim/adam.py.html").read_text("utf-8")
    assert 'id="L1"' in text and "Kingma" in text


def test_both_languages_switch_to_each_other(site):
    assert 'hreflang="ja"' in (site / "index.html").read_text("utf-8")
    japanese = (site / "ja/index.html").read_text("utf-8")
    assert 'hreflang="en"' in japanese and '<html class="no-js" lang="ja"' in japanese

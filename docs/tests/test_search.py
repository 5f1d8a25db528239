"""The site's search: both languages, in the index and in the browser."""

import json
import shutil
import subprocess

import pytest

languages = pytest.importorskip("languages", reason="the site is built with the docs extra")

QUERY = "変分 Adam's の conv2d、勾配!"
ASKED = ["変分", "Adam", "s", "の", "conv2d", "勾配"]


def test_the_index_has_words_letters_and_pairs():
    search = languages.SearchBoth({})
    assert search.split("softmaxの勾配は y_i") == ["softmax", "の", "勾", "配", "は", "の勾", "勾配", "配は", "y_i"]
    assert set(ASKED) <= set(search.split(QUERY))
    assert search.word_filter("の") and search.word_filter("adam") and not search.word_filter("the")


def test_the_browser_asks_for_what_is_in_the_index():
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to run the browser's part")
    program = languages.SearchBoth.js_splitter_code + f"console.log(JSON.stringify(splitQuery({json.dumps(QUERY)})))"
    said = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert json.loads(said) == ASKED


def test_the_site_uses_it(site):
    assert languages.SearchBoth.js_splitter_code.strip() in (site / "_static/language_data.js").read_text("utf-8")
    index = (site / "searchindex.js").read_text("utf-8")
    assert json.dumps("勾配") in index and '"softmax"' in index

"""A Japanese page says what its English twin says: the same formulas, source, code and pictures, in the same order."""

import re

import pytest
from located import ROOT

DOCS = ROOT / "docs"

JAPANESE = DOCS / "ja"
TWINS = [page for page in sorted(JAPANESE.rglob("*.md")) if page.read_text("utf-8").count("\n#") >= 2]


def skeleton(text):
    """What must be the same on both pages. Words inside a formula may be translated; blanks do not matter."""
    text = re.sub(r"\\text\{[^}]*\}", r"\\text{…}", text)
    prose = re.sub(r"^(`{3,}|:{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    return {
        "headings": [len(found) for found in re.findall(r"^(#+) ", prose, re.MULTILINE)],
        "formulas": ["".join(found.split()) for found in re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)],
        "source": re.findall(r"^```\{source\} (.*?)^```", text, re.MULTILINE | re.DOTALL),
        "code": re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL),
        "printed": re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL),
        "pictures": [found.rpartition("/")[2] for found in re.findall(r"!\[.*?\]\((.*?)\)", text, re.DOTALL)],
    }


@pytest.mark.parametrize("page", TWINS, ids=lambda page: page.relative_to(JAPANESE).as_posix())
def test_a_page_says_what_its_twin_says(page):
    twin = DOCS / page.relative_to(JAPANESE)
    assert twin.exists(), f"{page} translates nothing"
    here, there = (skeleton(each.read_text("utf-8")) for each in (page, twin))
    for what in there:
        if what == "code":  # comments may be translated
            strip = lambda blocks: [re.sub(r"\s*#.*", "", block).split() for block in blocks]
            assert strip(here[what]) == strip(there[what]), f"{what} differ"
        else:
            assert here[what] == there[what], f"{what} differ"

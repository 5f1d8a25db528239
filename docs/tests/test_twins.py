"""A Japanese page says what its English twin says: the same formulas, source, code and pictures, in the same order."""

import re

import pytest
from located import ROOT

DOCS = ROOT / "docs"

JAPANESE = DOCS / "ja"
TWINS = sorted(JAPANESE.rglob("*.md"))
FENCED = re.compile(r"^(`{3,})[^`]*?\n.*?^\1$", re.MULTILINE | re.DOTALL)
ROLES = r"\{(src|py:\w+)\}`(.*?)`"


def skeleton(text):
    """What must be the same on both pages. Words inside a formula may be translated; blanks do not matter."""
    text = re.sub(r"\\text\{[^}]*\}", r"\\text{…}", text)
    prose = FENCED.sub("", text)
    running = re.sub(r"\$\$.*?\$\$", "", prose, flags=re.DOTALL)
    find = re.search(r"^```\{find\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return {
        "headings": [len(found) for found in re.findall(r"^(#+) ", prose, re.MULTILINE)],
        "labels": [found.removeprefix("ja-") for found in re.findall(r"^\(([\w-]+)\)=$", prose, re.MULTILINE)],
        "formulas": ["".join(found.split()) for found in re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)],
        # in running text the order of words is another one; spacing in a formula may follow it
        "formulas in the text": sorted(
            re.sub(r"\\[;,]|\s", "", found) for found in re.findall(r"\$(.+?)\$", running, re.DOTALL)
        ),
        "names of source": sorted(re.findall(ROLES, running, re.DOTALL)),
        "references": sorted(found.removeprefix("ja-") for found in re.findall(r"\{ref\}`[^`]*<(.*?)>`", running)),
        "rows that find": [
            (names.strip(), label.strip().removeprefix("ja-"))
            for row in (find[1] if find else "").splitlines()
            if not row.startswith(":")
            for _, names, label in [row.rsplit("|", 2)]
        ],
        "source": re.findall(r"^```\{source\} (.*?)^```", text, re.MULTILINE | re.DOTALL),
        "code": re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL),
        "printed": re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL),
        "pictures": [found.rpartition("/")[2] for found in re.findall(r"!\[.*?\]\((.*?)\)", text, re.DOTALL)],
        "exercises": re.findall(r"^(\d+)\. ", prose, re.MULTILINE),
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


def test_every_chapter_has_its_twin():
    english = {path.name for path in (DOCS / "math").glob("*.md")}
    assert len(english) >= 16
    assert {path.name for path in (JAPANESE / "math").glob("*.md")} == english
    assert (JAPANESE / "index.md").exists()


CHANGES = {  # a change of the English page alone, which must be noticed
    "headings": ("### Gradients", "#### Gradients"),
    "labels": ("(math-im2col)=", "(math-columns)="),
    "formulas": ("Y = W X .", "Y = X W ."),
    "formulas in the text": ("$X = Px$", "$X = P^2x$"),
    "names of source": ("{src}`tinygen.ops.convolution.conv2d`", "{src}`tinygen.ops.convolution.conv1d`"),
    "references": ("<math-transposed_convolution>", "<math-pooling>"),
    "source": ("tinygen.ops.unfold._fold", "tinygen.ops.unfold.fold"),
    "code": ("F.unfold(picture, 3,", "F.unfold(picture, 5,"),
    "printed": ("2.25\n", "2.5\n"),
    "pictures": ("convolution_edges.png", "edges.png"),
    "exercises": ("3. Compute", "Compute"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_one_page_alone_is_noticed(what):
    before, after = CHANGES[what]
    page = (DOCS / "math/convolution.md").read_text("utf-8")
    assert before in page
    japanese = skeleton((JAPANESE / "math/convolution.md").read_text("utf-8"))
    assert skeleton(page.replace(before, after))[what] != japanese[what]


def test_the_readme_has_a_twin_with_the_same_commands_and_figures():
    english, japanese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.ja.md"))
    fences = lambda text: re.findall(r"^```\w+\n.*?^```$", text, re.MULTILINE | re.DOTALL)
    assert fences(japanese) == fences(english)
    rows = r"^\| (`[^`|]+`|[a-z]+) \|(?!.*\n\|--)"  # heads are translated
    names = lambda text: re.findall(rows, text, re.MULTILINE)
    assert names(japanese) == names(english) != []
    figures = lambda text: sorted(re.findall(r"\d+[.,]\d+|\d{2,}", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))
    assert figures(japanese) == figures(english)
    assert "(README.ja.md)" in english and "(README.md)" in japanese

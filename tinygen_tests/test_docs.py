"""docs/testing.md keeps its promises: its blocks run in order, and raise or print what stands below them."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "testing.md"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
)


def outcome(source, names):
    """What the block prints, or the message of the failed check that ends it."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(source, str(PAGE), "exec"), names)
    except AssertionError as error:
        return str(error)
    return out.getvalue()


@pytest.mark.cpu_only("the page chooses its devices itself")
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_the_tutorial_runs_and_its_messages_are_those_that_it_shows():
    names = {"__name__": "__tutorial__"}
    found = [outcome(source, names) for source, _ in BLOCKS]
    for (source, shown), said in zip(BLOCKS, found, strict=True):
        assert said.split() == shown.split(), f"{source}\nsays\n{said}"


def test_every_message_of_the_page_is_compared():
    assert PAGE.read_text("utf-8").count("```text") == sum(bool(shown.strip()) for _, shown in BLOCKS) >= 8

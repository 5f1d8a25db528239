"""README.md keeps its promises: its examples run, and its commands are there to be copied."""

import contextlib
import functools
import io
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@functools.cache
def printed(source: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(source, "README.md", "exec"), {"__name__": "__readme__"})
    return out.getvalue()


def test_the_two_commands_are_one_line_each():
    assert SHELL == [
        'python -m pip install -e ".[demos]" && python -m demos ddpm\n',
        'python -m pip install -e ".[test]" && python -m pytest\n',
    ]


@pytest.mark.parametrize("source", PYTHON, ids=range(1, len(PYTHON) + 1))
def test_the_examples_run_and_print_what_they_say(source):
    said = re.findall(r"^print\(.*\)\s+# (.*)$", source, re.MULTILINE)
    output = printed(source).splitlines()
    assert output[: len(said)] == said or not said


@pytest.mark.cpu_only("how far 200 steps lead depends on the draws")
def test_the_first_example_learns():
    """The last loss is well below that of the mean image, which is what 64 numbers without a model give."""
    import tinygen as tg

    x = tg.data.digits().images
    assert float(printed(PYTHON[0])) < 0.5 * ((x - x.mean(axis=0)) ** 2).mean()
    assert len(PYTHON[0].splitlines()) <= 17


def test_every_folder_in_the_tour_is_there():
    rows = re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)
    root = Path(__file__).parents[1]
    assert len(rows) >= 10
    assert [row for row in rows if not (root / row).exists()] == []

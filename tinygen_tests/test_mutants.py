"""The seeded bugs still fit today's source, and the runner tells a bug that is caught from one that is not."""

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tinygen_tests.mutants import FAMILIES, MUTANTS
from tinygen_tests.mutants import __main__ as command
from tinygen_tests.mutants.__main__ import ROOT, main
from tinygen_tests.mutants.mutant import Mutant, selects
from tinygen_tests.mutants.runner import Outcome

pytestmark = pytest.mark.cpu_only("about the tests themselves")


@cache
def program(file):
    return ast.dump(ast.parse((ROOT / file).read_text(encoding="utf-8")))


@cache
def names_in(file):
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    return [f"{file}::{node.name}" for node in body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_bug_still_fits_the_source(mutant):
    """A refactor that moves the text moves the bug along: rewrite it, so that nothing is disarmed in silence."""
    assert ast.dump(ast.parse(mutant.mutate(ROOT))) != program(mutant.file), "the change must change the program"
    for selection in mutant.selections:
        test = selection.partition("[")[0]  # which IDs there are, only pytest knows
        assert any(selects(test, name) for name in names_in(selection.partition("::")[0])), f"no test {selection}"


def test_there_are_many_and_their_names_are_their_own():
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 80
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)
    assert min(len(family) for family in FAMILIES.values()) >= 10


def test_selections():
    assert selects("a.py", "a.py::test_x[1]") and selects("a.py::test_x", "a.py::test_x")
    assert selects("a.py::test_x", "a.py::test_x[1]") and not selects("a.py::test_x", "a.py::test_xy")
    assert selects("a.py::test_x[1, *", "a.py::test_x[1, 2]") and not selects("a.py::test_x[1]", "a.py::test_x[11]")


# ------------------------------------------------------------------------------------------- the runner

SOURCE = "def add(a, b):\n    return a + b\n\n\ndef zero():\n    return 0\n"

TESTS = """\
import os
import subprocess
import sys

import pytest

import tinygen


def test_add():
    assert tinygen.add(2, 3) == 5


def test_weak():
    assert tinygen.add(0, 0) == 0


def test_what_another_process_imports():
    program = "import tinygen; print(tinygen.add(2, 3))"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout == b"5\\n"


def test_always_red():
    assert tinygen.zero() == 1


@pytest.mark.skip(reason="to be seen by nobody")
def test_skipped():
    assert tinygen.add(2, 3) == 5


def test_writes(tmp_path):
    (tmp_path / "x").write_text("x")
    assert tinygen.zero() == 0 and not tinygen.__file__.startswith(os.environ["TINYGEN_ORIGINAL"])


def test_dies():
    if tinygen.zero():
        os._exit(0)
"""

PROGRAM = """\
import json
import sys
from pathlib import Path

from tinygen_tests.mutants.mutant import Mutant
from tinygen_tests.mutants.runner import Runner

root, bugs = Path(sys.argv[1]), [Mutant(*bug) for bug in json.loads(sys.argv[2])]
with Runner(root, jobs=2, warm=()) as runner:
    passing, problems = runner.passing(bugs)
    found = {m.name: [o.status, o.caught_by, o.detail] for m, o in runner.run(bugs, passing)}
assert not runner.folder.exists()
print(json.dumps([sorted(passing), problems, found]))
"""


def try_bugs(root, *bugs):
    """What the runner finds out about bugs (name, old, new, tests) in a project of one small file."""
    (root / "tinygen").mkdir()
    (root / "tinygen" / "__init__.py").write_text(SOURCE)
    (root / "tinygen_tests").mkdir()
    (root / "tinygen_tests" / "test_x.py").write_text(TESTS)
    (root / "setup.cfg").write_text("[tool:pytest]\naddopts = --import-mode=importlib\n")
    listed = [[name, "tinygen/__init__.py", old, new, "", tests] for name, old, new, tests in bugs]
    environment = {**os.environ, "TINYGEN_ORIGINAL": str(root)}
    program = [sys.executable, "-c", PROGRAM, str(root), json.dumps(listed)]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unchanged = (root / "tinygen" / "__init__.py").read_text() == SOURCE
    made = sorted(p.name for p in root.rglob("*") if p.name != "__pycache__")
    assert unchanged and made == ["__init__.py", "setup.cfg", "test_x.py", "tinygen", "tinygen_tests"]
    return json.loads(done.stdout.splitlines()[-1])


def test_bugs_are_caught_survive_or_cannot_be_tried(tmp_path):
    minus = ("a + b", "a - b")
    passing, problems, found = try_bugs(
        tmp_path,
        ("caught", *minus, "test_x.py::test_add"),
        ("caught-in-another-process", *minus, "test_x.py::test_what_another_process_imports"),
        ("survives", *minus, "test_x.py::test_weak"),
        ("the-copy-is-clean-again", "return 0", "return 1", "test_x.py::test_writes"),
        ("does-not-fit", "a * b", "a - b", "test_x.py::test_add"),
        ("fits-twice", "return", "pass", "test_x.py::test_add"),
        ("cannot-be-imported", "a + b", "a +", "test_x.py::test_add"),
        ("red-anyway", *minus, ["test_x.py::test_always_red", "test_x.py::test_weak"]),
        ("skipped", *minus, "test_x.py::test_skipped"),
        ("no-such-test", *minus, "test_x.py::test_nothing"),
        ("dies", "return 0", "return 1", "test_x.py::test_dies"),
    )
    assert [test.partition("::test_")[2] for test in passing] == [
        "add", "dies", "weak", "what_another_process_imports", "writes"
    ]  # fmt: skip
    assert len(problems) == 1 and "test_always_red" in problems[0]
    assert found["caught"] == ["caught", "tinygen_tests/test_x.py::test_add", ""]
    assert found["caught-in-another-process"][0] == found["the-copy-is-clean-again"][0] == "caught"
    assert found["survives"] == ["survived", "", "1 tests passed"]
    broken = {name: detail for name, (status, _, detail) in found.items() if status == "broken"}
    assert set(broken) == set(found) - {"caught", "caught-in-another-process", "survives", "the-copy-is-clean-again"}
    assert "found it 0 times" in broken["does-not-fit"] and "found it 2 times" in broken["fits-twice"]
    assert "no test could run" in broken["cannot-be-imported"]
    for name in ("red-anyway", "skipped", "no-such-test"):
        assert "passes without the bug" in broken[name]
    assert "ended with status 0 before the tests did" in broken["dies"]


def test_the_list_and_the_options(capsys):
    assert main(["--list", "--family", "optimizers", "--only", "adam-counts-*", "--only", "sub-*"]) == 0
    shown = capsys.readouterr().out
    assert "optimizers (1)" in shown and "adam-counts-from-zero" in shown and "1 seeded bugs" in shown
    for options in (["--only", "no-such-bug"], ["--family", "none"], ["--jobs", "0"]):
        with pytest.raises(SystemExit) as stopped:
            main(options)
        assert stopped.value.code == 2


def test_the_exit_code_says_whether_all_were_caught(monkeypatch, capsys):
    bug = Mutant("bug", "tinygen/x.py", "old", "new", "is wrong", "test_x.py")

    class Fake:
        cpu_seconds = 1.0
        problems: list[str] = []
        outcome = Outcome("caught", "tinygen_tests/test_x.py::test_it")

        def __init__(self, root: Path, jobs: int) -> None:
            pass

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            pass

        def passing(self, mutants):
            return {"tinygen_tests/test_x.py::test_it"}, self.problems

        def run(self, mutants, passing):
            return [(m, self.outcome) for m in mutants]

    monkeypatch.setattr(command, "Runner", Fake)
    monkeypatch.setattr(command, "FAMILIES", {"one": [bug]})
    assert main([]) == 0
    assert "1 of 1 seeded bugs caught" in capsys.readouterr().out
    Fake.outcome = Outcome("survived", detail="3 tests passed")
    assert main([]) == 1
    shown = capsys.readouterr().out
    assert "SURVIVED" in shown and "is wrong" in shown and "0 of 1" in shown
    Fake.outcome, Fake.problems = Outcome("caught", "tinygen_tests/test_x.py::test_it"), ["a test is red"]
    assert main([]) == 1
    assert "a test is red" in capsys.readouterr().out

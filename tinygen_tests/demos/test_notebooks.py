"""The demos as notebooks: the same statements, options from the environment, pictures beneath their cells."""

import ast
import os
import sys
import types

import pytest

from demos import common, notebooks
from demos.__main__ import FOLDER, find

DEMOS = find(FOLDER)


@pytest.fixture
def notebook(monkeypatch):
    """What a kernel has: a __main__ without a file."""
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__", "a kernel's own words"))


@pytest.mark.parametrize("name", DEMOS)
def test_a_notebook_has_the_scripts_statements_and_its_lesson(name):
    pytest.importorskip("jupytext", reason="notebooks are written by jupytext")
    made = notebooks.convert(DEMOS[name], "--quick")
    code = [cell.source for cell in made.cells if cell.cell_type == "code"]
    assert code[0] == "%env DEMO_OPTIONS=--quick"
    script = ast.parse(DEMOS[name].read_text("utf-8"))
    assert ast.dump(ast.parse("\n".join(code[1:]))) == ast.dump(ast.Module(script.body[1:], []))
    lessons = [cell.source for cell in made.cells if cell.cell_type == "markdown"]
    assert lessons[0].startswith("# ") and sum(text.startswith("## ") for text in lessons) >= 5
    assert "\n" not in made.cells[0].source[:3] and all(cell.source.strip() for cell in made.cells)
    assert len({cell["id"] for cell in made.cells}) == len(made.cells)
    assert made == notebooks.convert(DEMOS[name], "--quick")


def test_options_stand_in_the_environment(notebook, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DEMO_OPTIONS", f"--steps 7 --out '{tmp_path}/a b'")
    args = common.options("x", steps=3, batch_size=1)
    assert args.steps == 7 and args.out == tmp_path / "a b"
    assert args.how_to_resume.startswith("%env DEMO_OPTIONS=--steps 7 --out") and "--resume, and" in args.how_to_resume
    assert common.header(args, {}).splitlines()[0] == "x"
    monkeypatch.setenv("DEMO_OPTIONS", "--stops 7")
    with pytest.raises(SystemExit):
        common.options("x", steps=3, batch_size=1)
    assert capsys.readouterr().err.startswith("error: unrecognized arguments: --stops 7")


class Shell:
    """As much of IPython's shell as is used."""

    kernel = None

    def __init__(self):
        self.callbacks = {"post_run_cell": []}
        self.events = self

    def register(self, event, function):
        self.callbacks[event].append(function)

    def unregister(self, event, function):
        self.callbacks[event].remove(function)

    def ends_a_cell(self):
        for function in self.callbacks["post_run_cell"]:
            function(None)


@pytest.fixture
def shell(monkeypatch):
    shell = Shell()
    shell.shown = []
    display = types.ModuleType("IPython.display")
    display.Image = lambda filename: os.path.basename(filename)
    display.display = shell.shown.append
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shell


def test_a_cells_pictures_are_shown_beneath_it(notebook, shell, monkeypatch, tmp_path, capsys):
    def write(name, at):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, ns=(at, at))

    monkeypatch.setenv("DEMO_OPTIONS", f"--out '{tmp_path}'")
    write("old.png", 1)
    for _ in range(2):  # the cell of the options is run twice; its pictures are shown once
        common.options("x", steps=3, batch_size=1)
    shell.ends_a_cell()
    assert shell.shown == []
    write("z.png", 2)
    write("a.gif", 3)
    write("log.jsonl", 4)
    shell.ends_a_cell()
    assert shell.shown == ["z.png", "a.gif"] and str(tmp_path / "z.png") in capsys.readouterr().out
    shell.ends_a_cell()
    assert len(shell.shown) == 2
    write("old.png", 5)
    shell.ends_a_cell()
    assert shell.shown == ["z.png", "a.gif", "old.png"]


def test_in_a_terminal_nothing_is_shown(shell, monkeypatch, tmp_path):
    monkeypatch.delattr(Shell, "kernel")
    common.ShownPictures.of(tmp_path)
    assert shell.callbacks == {"post_run_cell": []}
    monkeypatch.delitem(sys.modules, "IPython")
    common.ShownPictures.of(tmp_path)


def test_pictures_are_counted():
    cell = types.SimpleNamespace
    outputs = [{"data": {"image/png": "", "text/plain": ""}}, {"name": "stdout"}, {"data": {"text/plain": ""}}]
    made = cell(cells=[{"outputs": outputs}, {"outputs": [{"data": {"image/gif": ""}}]}, {}])
    assert notebooks.pictures(made) == 2


def test_names_are_checked_before_anything_is_written(tmp_path, capsys):
    pytest.importorskip("nbformat", reason="notebooks are written by jupytext and nbformat")
    with pytest.raises(SystemExit) as caught:
        notebooks.main(["ddpm", "ddmp", "--to", str(tmp_path / "new")])
    assert caught.value.code == 2 and capsys.readouterr().err.startswith("error: there is no demo 'ddmp'; there are: ")
    assert not (tmp_path / "new").exists()


def test_notebooks_are_written_whole(tmp_path, capsys):
    nbformat = pytest.importorskip("nbformat", reason="notebooks are written by jupytext and nbformat")
    pytest.importorskip("jupytext", reason="notebooks are written by jupytext")
    notebooks.main(["gan", "--to", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["gan.ipynb"]
    read = nbformat.read(tmp_path / "gan.ipynb", as_version=4)
    nbformat.validate(read)
    assert capsys.readouterr().out == f"{tmp_path}/gan.ipynb: {len(read.cells)} cells\n"

"""``python -m demos.notebooks`` writes the demos as notebooks; with --execute it runs them too, pictures and all."""

from __future__ import annotations

import ast
import os
import sys
import time
from pathlib import Path
from typing import Any

from demos import common
from demos.__main__ import FOLDER, find

WORDS = """\
Options are written as on the command line: `--quick` for a run of seconds, `--steps 500`, `--seed 1`, and so on.
They are read by `common.options` below. Pictures are kept in the folder of the run and shown beneath the cell that
drew them."""


def convert(path: Path, options: str = "") -> Any:
    """A demo as a notebook: its ``# %%`` cells, and before them one in which its options can be changed.

    Args:
        path: the script.
        options: what that cell holds, as typed after ``python -m demos NAME``.

    Returns: an nbformat notebook without outputs, cells numbered so that the same script gives the same file.

    Raises:
        ModuleNotFoundError: jupytext is not installed.
    """
    import jupytext
    from nbformat.v4 import new_code_cell, new_markdown_cell

    text = path.read_text("utf-8")
    first = ast.parse(text).body[0]  # the docstring is the program's; the lesson begins with its first cell
    notebook = jupytext.reads("\n".join(text.splitlines()[first.end_lineno :]).lstrip(), fmt="py:percent")
    notebook.cells[1:1] = [new_markdown_cell(WORDS), new_code_cell(f"%env DEMO_OPTIONS={options}".rstrip())]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        if cell.cell_type == "code" and not cell.source.startswith("%"):
            ends = ast.parse(cell.source).body[-1:]
            if ends and isinstance(ends[0], ast.Expr):
                cell.source += ";"  # the picture is shown; its path, which is the value, need not be
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return notebook


def execute(notebook: Any, seconds: int = 3600) -> None:
    """Run all cells of a notebook in a kernel of their own, in the checkout; its outputs are kept in it.

    Raises:
        ModuleNotFoundError: nbclient or ipykernel is not installed.
        nbclient.exceptions.CellExecutionError: a cell ended in an error.
    """
    import ipykernel  # noqa: F401  (a missing kernel is told from a broken one)
    from nbclient import NotebookClient
    from traitlets.config import Config

    settings = Config()
    if os.name == "posix":  # no port is opened; newer kernels warn of one
        settings.KernelManager.transport = "ipc"
    place = {"metadata": {"path": os.fspath(FOLDER.parent)}}
    NotebookClient(notebook, timeout=seconds, kernel_name="python3", resources=place, config=settings).execute()


def pictures(notebook: Any) -> int:
    """How many pictures a notebook shows."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in outputs)


def main(argv: list[str]) -> None:
    """Run the command line ``python -m demos.notebooks`` + argv; ends in SystemExit where anything is wrong."""
    import nbformat

    demos = find(FOLDER)
    parser = common.Parser(prog="python -m demos.notebooks", description=(__doc__ or "").replace("``", ""),
                           allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which demos (default all: {', '.join(demos)})")
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="DIR",
                        help="the folder of the notebooks; they can be opened in demos/ (default) and in the checkout")
    parser.add_argument("--execute", action="store_true", help="run them, and keep what they print and draw")
    parser.add_argument("--quick", action="store_true", help="give each demo the option --quick")
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in demos:
            parser.error(f"there is no demo {name!r}; there are: {', '.join(demos)}")
    args.to.mkdir(parents=True, exist_ok=True)
    for name in args.names or demos:
        words = ["--quick"] if args.quick else []
        if args.execute:
            words += ["--out", str((args.to / "runs" / name).resolve())]
        notebook = convert(demos[name], " ".join(words))
        began = time.monotonic()
        if args.execute:
            execute(notebook)
        with common.whole_file(path := args.to / f"{name}.ipynb") as file:
            file.write(nbformat.writes(notebook).encode())
        said = f", {pictures(notebook)} pictures, {time.monotonic() - began:.0f} s" if args.execute else ""
        print(f"{path}: {len(notebook.cells)} cells{said}", flush=True)
        if args.execute and not pictures(notebook):
            raise SystemExit(f"error: {path} shows no picture")


if __name__ == "__main__":
    with common.plain_errors():
        main(sys.argv[1:])

"""``python -m demos`` lists the demos; ``python -m demos NAME [options]`` runs one."""

import argparse
import ast
import os
import runpy
import sys
from pathlib import Path

from demos import common

FOLDER = Path(__file__).parent
NOT_DEMOS = {"__init__", "__main__", "common", "demos", "notebooks"}


def find(folder: Path) -> dict[str, Path]:
    """Name → file of every demo in a folder, in alphabetical order."""
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem not in NOT_DEMOS}


def sentence(path: Path) -> str:
    """The first paragraph of a script's docstring, read without running it."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(doc.partition("\n\n")[0].split())


def table(demos: dict[str, Path]) -> str:
    """What ``python -m demos`` prints."""
    width = max(map(len, demos), default=0)
    lines = [f"  {name:<{width}}  {sentence(path)}" for name, path in demos.items()]
    return "\n".join([
        "python -m demos NAME [options] runs one of these; NAME --help lists its options.", "", *lines,
    ])


def main(argv: list[str], folder: Path = FOLDER) -> None:
    """Run the command line ``python -m demos`` + argv; ends in SystemExit where anything is wrong."""
    demos = find(folder)
    # The options after NAME belong to the demo, so only what stands before it is read here.
    parser = common.Parser(prog="python -m demos", description=table(demos), usage="python -m demos NAME [options]",
                           formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--names", action="store_true", help="print the names only, one per line")
    parser.add_argument("name", nargs="?", metavar="NAME")
    own = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
    args = parser.parse_args(argv[: own + 1])
    if args.names:
        print("\n".join(demos))
    elif args.name is None:
        print(table(demos))
    elif args.name not in demos:
        parser.error(f"there is no demo {args.name!r}; there are: {', '.join(demos) or 'none'}")
    else:
        path = demos[args.name]
        before = sys.argv
        sys.argv = [os.fspath(path), *argv[own + 1 :]]
        try:
            with common.plain_errors():
                runpy.run_path(os.fspath(path), run_name="__main__")
        finally:
            sys.argv = before


if __name__ == "__main__":
    main(sys.argv[1:])

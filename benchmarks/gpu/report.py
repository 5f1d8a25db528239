"""The report: Markdown and JSON that grow section by section."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tinygen.files import whole_file

Table = tuple[list[str], list[list[str]]]


class Report:
    """Markdown and JSON that grow section by section."""

    def __init__(self, path: Path, command: str) -> None:
        self.path = path
        self.parts = [f"# tinygen on a GPU\n\n{datetime.now().isoformat(timespec='minutes')}, `{command}`\n"]
        self.figures: dict[str, Any] = {}
        self.broken: list[str] = []
        self.write()

    def section(self, title: str, work: Callable[[], Iterator[str | Table]]) -> None:
        """Do a section: what it yields, texts and tables, is written down; so is what goes wrong."""
        began = time.perf_counter()
        print(f"-- {title}", file=sys.stderr, flush=True)
        self.parts.append(f"\n## {title}\n")
        try:
            for piece in work():
                self.parts.append(piece + "\n" if isinstance(piece, str) else table(*piece))
                self.write()
        except BaseException as error:
            self.broken.append(title)
            self.parts.append(f"\n**This section broke:**\n\n```\n{traceback.format_exc()}```\n")
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                self.write()
                raise
        self.parts.append(f"\n({time.perf_counter() - began:.0f} s)\n")
        self.write()

    def write(self) -> None:
        """Both files, whole."""
        with whole_file(self.path) as file:
            file.write("\n".join(self.parts).encode())
        with whole_file(self.path.with_suffix(".json")) as file:
            file.write((json.dumps(self.figures, indent=1, ensure_ascii=False) + "\n").encode())


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def ms(seconds: float) -> str:
    """Milliseconds for a reader."""
    return f"{1e3 * seconds:.3g} ms"

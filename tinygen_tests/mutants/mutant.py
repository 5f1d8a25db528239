"""One seeded bug: what is changed where, what is wrong about it, and which tests are to see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """A bug that is put into the source on purpose.

    Args:
        name: short, unique, with dashes.
        file: where it is, from the top of the project.
        old: a piece of that file's text that occurs in it exactly once.
        new: what stands there instead.
        wrong: what is wrong then, in a few words.
        tests: which tests must see it, from ``tinygen_tests/``: ``FILE``, ``FILE::TEST``, ``FILE::TEST[ID]``, or any
            beginning of these with a ``*``. As few as can be, for they are run.
    """

    name: str
    file: str
    old: str
    new: str
    wrong: str
    tests: str | tuple[str, ...]

    @property
    def selections(self) -> tuple[str, ...]:
        """The tests, from the top of the project."""
        given = (self.tests,) if isinstance(self.tests, str) else self.tests
        return tuple(f"tinygen_tests/{selection}" for selection in given)

    def mutate(self, root: Path) -> str:
        """The whole text of the file with the bug in it.

        Raises:
            LookupError: the old text is not in the file just once: the source has moved on, and the bug with it.
        """
        text = (root / self.file).read_text(encoding="utf-8")
        found = text.count(self.old)
        if found != 1:
            raise LookupError(
                f"{self.name}: expected this text once in {self.file}, found it {found} times; "
                f"rewrite the bug for today's source:\n{self.old}"
            )
        return text.replace(self.old, self.new)


def selects(selection: str, test: str) -> bool:
    """Whether a selection (see :class:`Mutant`) means a test, which pytest calls ``FILE::TEST[ID]``."""
    if selection.endswith("*"):
        return test.startswith(selection[:-1])
    return test == selection or test.startswith((f"{selection}::", f"{selection}["))

"""``python -m tinygen_tests.mutants``: put every seeded bug into a copy of the project and see the tests catch it."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import textwrap
import time
from pathlib import Path

from tinygen_tests.mutants import FAMILIES
from tinygen_tests.mutants.mutant import Mutant
from tinygen_tests.mutants.runner import Outcome, Runner

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Parse the options, try the bugs, print the table; 1 where one survived or could not be tried, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tinygen_tests.mutants",
        description="Seeded bugs: each is put into a copy of the project, and the tests must catch it.",
        epilog="Exit status: 0 where every bug was caught, 1 where one survived or could not be tried.",
    )
    parser.add_argument("--only", metavar="NAME", action="append", help="these bugs only; * stands for anything")
    parser.add_argument("--family", choices=list(FAMILIES), action="append", help="the bugs of a family only")
    parser.add_argument("--list", action="store_true", help="say what the bugs are, and try none")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many are tried at once (default: 2)")
    parser.add_argument("--show", action="store_true", help="print what pytest printed for each bug")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}")
    chosen = [m for family in options.family or FAMILIES for m in FAMILIES[family]]
    if options.only:
        chosen = [m for m in chosen if any(fnmatch.fnmatchcase(m.name, pattern) for pattern in options.only)]
    if not chosen:
        parser.error("no bug has such a name; --list shows them")
    if options.list:
        _list(chosen)
        return 0
    return _try(chosen, options.jobs, options.show)


def _list(mutants: list[Mutant]) -> None:
    width = max(len(m.name) for m in mutants)
    for family, members in FAMILIES.items():
        listed = [m for m in members if m in mutants]
        if listed:
            print(f"{family} ({len(listed)})")
        for m in listed:
            print(f"  {m.name:<{width}}  {m.file}: {m.wrong}")
    print(f"{len(mutants)} seeded bugs")


def _try(mutants: list[Mutant], jobs: int, show: bool) -> int:
    begun = time.monotonic()
    with Runner(ROOT, jobs) as runner:
        passing, problems = runner.passing(mutants)
        print(f"without a bug {len(passing)} tests pass ({time.monotonic() - begun:.0f} s)", flush=True)
        for problem in problems:
            print("but not all of those that the bugs name:\n" + textwrap.indent(problem[-3000:], "    "))
        outcomes: list[tuple[Mutant, Outcome]] = []
        width = max(len(m.name) for m in mutants)
        for mutant, outcome in runner.run(mutants, passing):
            outcomes.append((mutant, outcome))
            print(_row(mutant, outcome, width), flush=True)
            if show:
                print(textwrap.indent(outcome.output, "    "))
    missed = [(m, o) for m, o in outcomes if o.status != "caught"]
    for mutant, outcome in missed:
        print(f"\n{outcome.status}: {mutant.name} ({mutant.file})\n    {mutant.wrong}")
        print(f"    tests: {mutant.tests}\n    {outcome.detail}")
        if outcome.status == "broken":
            print(textwrap.indent(outcome.output[-3000:], "    "))
    seconds = time.monotonic() - begun
    caught = f"{len(outcomes) - len(missed)} of {len(outcomes)} seeded bugs caught"
    print(f"\n{caught} in {seconds:.0f} s ({runner.cpu_seconds:.0f} s of processor time)")
    return 1 if missed or problems else 0


def _row(mutant: Mutant, outcome: Outcome, width: int) -> str:
    told = outcome.caught_by.removeprefix("tinygen_tests/") if outcome.status == "caught" else outcome.status.upper()
    return f"{mutant.name:<{width}}  {outcome.seconds:5.1f} s  {told}"


if __name__ == "__main__":
    sys.exit(main())

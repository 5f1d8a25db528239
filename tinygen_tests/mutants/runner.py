"""Run the tests of each seeded bug on a copy of the project that has it, and see them fail.

Every worker has a copy of the project in a temporary folder: one bug at a time is written into it, and taken out
again. The tests run in a child process that is forked from one that has imported pytest, NumPy, Hypothesis and PyTorch
already, but nothing of the project, so that a bug costs little more than its tests. The working tree is only read.

Before the bugs, all their tests run once without any, in the same way: a test that fails anyway catches nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygen_tests.mutants.mutant import Mutant, selects

PARTS = ("tinygen", "tinygen_tests", "conftest.py", "setup.cfg", "pyproject.toml")  # what the tests need to run
LIMIT = 120  # seconds for one bug; the tests that are to catch it take one or two


@dataclass
class Outcome:
    """What became of one bug, or of the run without any.

    Attributes:
        status: ``"caught"``; ``"survived"``: all of its tests passed; or ``"broken"``: it could not be tried, and
            ``detail`` says why.
        caught_by: the first test that failed.
        seconds: of processor time that it took.
        output: what pytest printed.
    """

    status: str
    caught_by: str = ""
    detail: str = ""
    seconds: float = 0.0
    output: str = ""


@dataclass
class _Job:
    """A child process: what it was started for and where it reports."""

    mutant: Mutant | None
    selections: Sequence[str]
    slot: int = 0
    report: Path = Path()
    started: float = 0.0
    before: tuple[bytes, os.stat_result] | None = None  # what the changed file was
    cpu_seconds: float = 0.0


class Runner:
    """Tries bugs on copies of the project at ``root``.

    Args:
        root: the top of the project.
        jobs: how many are tried at once.
        warm: the modules to import before the first fork; those that are not installed are left out.

    Attributes:
        cpu_seconds: what all children together have used of the processors.

    Raises:
        OSError: the copies cannot be made, or the system cannot fork.
    """

    def __init__(self, root: Path, jobs: int = 2, warm: Sequence[str] = ("numpy", "hypothesis", "torch")) -> None:
        if not hasattr(os, "fork"):
            raise OSError("the seeded bugs are tried in forked processes, which this system does not have")
        self.root, self.jobs, self.cpu_seconds = root.resolve(), jobs, 0.0
        for name in ("pytest", *warm):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self.folder = Path(tempfile.mkdtemp(prefix="tinygen-mutants-"))
        try:
            for slot in range(jobs):
                self._copy(self._slot(slot))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the copies."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _slot(self, slot: int) -> Path:
        return self.folder / f"copy{slot}"

    def _copy(self, to: Path) -> None:
        to.mkdir()
        for part in PARTS:
            source = self.root / part
            if source.is_dir():
                shutil.copytree(source, to / part, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, to / part)

    # -- the two kinds of runs

    def passing(self, mutants: Sequence[Mutant]) -> tuple[set[str], list[str]]:
        """The tests that pass without any bug, among those that the bugs name; and what the others said."""
        files: dict[str, list[str]] = {}
        for selection in dict.fromkeys(s for mutant in mutants for s in mutant.selections):
            files.setdefault(_file(selection), []).append(selection)
        shares = [[s for name in list(files)[i :: self.jobs] for s in files[name]] for i in range(self.jobs)]
        passed: set[str] = set()
        problems: list[str] = []
        for _, result in self._run_all([_Job(None, share) for share in shares if share]):
            passed.update(result.get("passed", ()))
            failed = result.get("failed", ())
            if failed or result.get("exit") not in (0, 1):
                problems.append(result.get("error") or result.get("output", ""))
        return passed, problems

    def run(self, mutants: Sequence[Mutant], passing: set[str] | None = None) -> Iterator[tuple[Mutant, Outcome]]:
        """Try every bug, and tell of each when it is done.

        Args:
            mutants: the bugs.
            passing: the tests that pass without any; a failure of another one counts for nothing. None trusts all.
        """
        for job, result in self._run_all([_Job(mutant, mutant.selections) for mutant in mutants]):
            assert job.mutant is not None
            outcome = _judged(job.mutant, result, passing)
            outcome.seconds = job.cpu_seconds
            yield job.mutant, outcome

    # -- processes

    def _run_all(self, todo: list[_Job]) -> Iterator[tuple[_Job, dict[str, Any]]]:
        """Every job in a child of its own, ``self.jobs`` at once; each with its report as it ends."""
        waiting, free = todo[::-1], list(range(self.jobs))
        running: dict[int, _Job] = {}
        count = 0
        try:
            while waiting or running:
                while waiting and free:
                    job = waiting.pop()
                    job.slot, job.report = free.pop(), self.folder / f"report{count}.json"
                    job.started = time.monotonic()
                    count += 1
                    try:
                        self._write(job, count)
                    except (LookupError, OSError) as error:
                        free.append(job.slot)
                        yield job, {"error": str(error)}
                        continue
                    running[self._fork(job)] = job
                for pid in list(running):
                    result = self._ended(pid, running[pid])
                    if result is not None:
                        job = running.pop(pid)
                        self._restore(job)
                        free.append(job.slot)
                        yield job, result
                time.sleep(0.005)
        finally:
            for pid, job in running.items():
                _kill(pid)
                self._restore(job)

    def _write(self, job: _Job, number: int) -> None:
        if job.mutant is not None:
            place = self._slot(job.slot) / job.mutant.file
            text = job.mutant.mutate(self._slot(job.slot))
            job.before = place.read_bytes(), place.stat()
            place.write_text(text, encoding="utf-8")
            # Python believes a .pyc whose source has the same length and age in whole seconds: no two are alike.
            os.utime(place, (number, number))

    def _restore(self, job: _Job) -> None:
        if job.mutant is not None and job.before is not None:
            place = self._slot(job.slot) / job.mutant.file
            text, facts = job.before
            place.write_bytes(text)
            os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    def _fork(self, job: _Job) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setpgid(0, 0)  # so that what the tests start can be ended with them
                _child(self._slot(job.slot), job)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid

    def _ended(self, pid: int, job: _Job) -> dict[str, Any] | None:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        output = job.report.with_suffix(".txt")
        if done:
            job.cpu_seconds = usage.ru_utime + usage.ru_stime
            self.cpu_seconds += job.cpu_seconds
            text = output.read_text(errors="replace") if output.exists() else ""
            if job.report.exists():
                return {**json.loads(job.report.read_text()), "output": text}
            return {"error": f"the process ended with status {status} before the tests did", "output": text}
        if job.mutant is not None and time.monotonic() - job.started > LIMIT:
            _kill(pid)
            return {"error": f"no result after {LIMIT} s", "output": ""}
        return None


def _kill(pid: int) -> None:
    """End a child and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _judged(mutant: Mutant, result: dict[str, Any], passing: set[str] | None) -> Outcome:
    output = result.get("output", "")
    if result.get("error"):
        return Outcome("broken", detail=result["error"], output=output)
    for selection in mutant.selections if passing is not None else ():
        if not any(selects(selection, test) for test in passing or ()):
            return Outcome("broken", detail=f"no test {selection} passes without the bug", output=output)
    failed = result["failed"]
    caught = [node for node in failed if passing is None or node in passing]
    if caught:
        return Outcome("caught", caught_by=caught[0], output=output)
    if failed:
        return Outcome("broken", detail=f"{failed[0]} fails without the bug too", output=output)
    if result["exit"] != 0:
        return Outcome("broken", detail=f"pytest ended with {result['exit']}: no test could run", output=output)
    if not result["passed"]:
        return Outcome("broken", detail="all of its tests were skipped", output=output)
    return Outcome("survived", detail=f"{len(result['passed'])} tests passed", output=output)


# ------------------------------------------------------------------------------------- in the child process


class _Watch:
    """A pytest plugin that runs the selected tests, and notes which passed and which failed."""

    def __init__(self, selections: Sequence[str]) -> None:
        self.selections = selections
        self.passed: list[str] = []
        self.failed: list[str] = []

    def pytest_sessionstart(self, session: Any) -> None:
        # After the project's conftest has chosen its profile, before the tests are imported: a failing example is
        # enough, nobody reads the smallest.
        with contextlib.suppress(ImportError):
            from hypothesis import Phase, settings

            settings.register_profile("mutants", settings(), phases=(Phase.explicit, Phase.generate))
            settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        chosen = [any(selects(selection, item.nodeid) for selection in self.selections) for item in items]
        config.hook.pytest_deselected(items=[item for item, wanted in zip(items, chosen) if not wanted])
        items[:] = [item for item, wanted in zip(items, chosen) if wanted]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed.append(report.nodeid)


def _child(folder: Path, job: _Job) -> None:
    """Run the tests in the copy and write the report."""
    with open(job.report.with_suffix(".txt"), "wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(folder)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("tinygen", "tinygen_tests")]:
        del sys.modules[name]
    sys.path[:] = [str(folder), *(p for p in sys.path if p not in ("", str(folder)) and not _inside(p))]
    os.environ["PYTHONPATH"] = str(folder)  # for what the tests start
    os.environ.pop("PYTEST_ADDOPTS", None)
    importlib.invalidate_caches()
    import pytest

    watch = _Watch(job.selections)
    options = ["-q", "--tb=short", "--no-header", "-p", "no:cacheprovider", f"--rootdir={folder}"]
    options.append(f"--basetemp={job.report.with_suffix('')}")
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # Hypothesis' plugin is imported already
    if job.mutant is not None:
        options.append("-x")
    files = dict.fromkeys(_file(selection) for selection in job.selections)
    code = int(pytest.main([*options, *files], plugins=[watch]))
    report: dict[str, Any] = {"exit": code, "passed": watch.passed, "failed": watch.failed}
    package = sys.modules.get("tinygen")
    where = getattr(package, "__file__", None)
    if where is not None and not str(Path(where).resolve()).startswith(str(folder.resolve())):
        report["error"] = f"the tests ran on {where}, not on the copy with the bug"
    temporary = job.report.with_suffix(".part")
    temporary.write_text(json.dumps(report))
    os.replace(temporary, job.report)


def _file(selection: str) -> str:
    return selection.partition("::")[0]


def _inside(path: str) -> bool:
    """Whether a folder of sys.path holds a tinygen of its own."""
    return (Path(path) / "tinygen" / "__init__.py").exists()

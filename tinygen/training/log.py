"""JsonlLog: what a run measured, one JSON object per line, that survives kills and resumes.

    {"step": 1, "time": 0.013, "loss": 0.693}
    {"step": 2, "time": 0.021, "loss": 0.688}

Each line is strict JSON (RFC 8259), which has no nan and no infinity: those numbers are written as the
strings "NaN", "Infinity" and "-Infinity", and :func:`read_log` gives them back as floats.
"""

from __future__ import annotations

import json
import math
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.files import whole_file

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class LogError(ValueError):
    """A log file has a line that is no log line; the message says which."""


class JsonlLog:
    """A log file to which lines are added, in the order of their steps.

    Each line reaches the operating system in one write, so a killed process leaves whole lines and at most
    one partial line at the end, which the next start removes.

    Args:
        path: the file, ``log.jsonl`` by custom.
        resume_step: None starts an empty log; k ≥ 0 keeps the lines up to step k and removes those after it,
            which the resumed run will write again: no gaps, no doubled lines.

    Attributes:
        last_step: the step of the last line; −1 where there is none. lines: how many there are.
        time: the ``time`` of the last line, seconds; 0 where there is none.

    Raises:
        LogError: a line that is to be kept is not a log line, or not in the order of steps (the message names it).
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int | None = None) -> None:
        self.path = Path(path)
        self.last_step = -1
        self.lines = 0
        self.time = 0.0
        if resume_step is None:
            self.path.unlink(missing_ok=True)  # not emptied: it may have a second name by which it is kept
        elif self.path.exists():
            self._cut(resume_step)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(self.path, flags, 0o666)
        self._closer = weakref.finalize(self, os.close, self._descriptor)  # also of a run that nobody closes

    def _cut(self, resume_step: int) -> None:
        old = self.path.read_bytes()
        lines = _whole_lines(old)
        # A power cut may leave rubbish after the last synced line; rubbish before a line to keep is damage.
        end = 0
        for number, line in enumerate(lines, 1):
            entry = _entry(line)
            if entry is not None and entry["step"] <= resume_step:
                end = number
        for number, line in enumerate(lines[:end], 1):
            entry = _parse(line, self.path, number, self.last_step)
            self.last_step, self.lines = entry["step"], number
            self.time = float(entry.get("time", self.time))
        new = b"".join(line + b"\n" for line in lines[:end])
        if new != old:
            with whole_file(self.path) as file:
                file.write(new)

    def write(self, step: int, /, **values: Any) -> None:
        """Add one line: the step, then the values in the order given.

        Args:
            step: greater than the last line's.
            values: numbers (NumPy's too), strings, bools, None, or lists and dicts of these.

        Raises:
            ValueError: step is not greater than the last line's, "step" is among the values, or the log is closed.
            TypeError: a value is of another type; nothing is written.
            OSError: the disk refuses; the line may be partial, and the next start repairs it.
        """
        if self.closed:
            raise ValueError(f"{self.path}: the log is closed")
        step = int(step)
        if step <= self.last_step:
            raise ValueError(f"{self.path}: a line for step {step} after that of step {self.last_step}")
        if "step" in values:
            raise ValueError(f'{self.path}: "step" is the line\'s own key')
        entry = {"step": step, **{key: _strict(value, key) for key, value in values.items()}}
        line = json.dumps(entry, allow_nan=False, ensure_ascii=False) + "\n"
        data = memoryview(line.encode("utf-8", "backslashreplace"))
        while data:
            data = data[self._write(data):]
        self.last_step = step
        self.lines += 1

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError as error:  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def sync(self) -> None:
        """Wait until every line is on the disk: a checkpoint must not know more than the log.

        Raises:
            OSError: the disk refuses.
            ValueError: the log is closed.
        """
        if self.closed:
            raise ValueError(f"{self.path}: the log is closed")
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    @property
    def closed(self) -> bool:
        """Whether the log takes no more lines."""
        return not self._closer.alive

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._closer()

    def __enter__(self) -> JsonlLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a log as dicts, in order; a partial last line (a run that is writing, or was killed) is
    left out.

    Raises:
        LogError: a whole line is not a log line, or not in the order of steps; the message names the file and the
            line.
        OSError: the file cannot be read.
    """
    path = Path(path)
    lines = _whole_lines(path.read_bytes())
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        entries.append(_parse(line, path, number, entries[-1]["step"] if entries else -1))
    return [_restore(entry) for entry in entries]


def _whole_lines(text: bytes) -> list[bytes]:
    return text.split(b"\n")[:-1]


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and type(entry.get("step")) is int else None


def _parse(line: bytes, path: Path, number: int, last: int) -> dict[str, Any]:
    entry = _entry(line)
    advice = "the file is damaged there: remove the line, or the file"
    if entry is None:
        raise LogError(
            f'{path}, line {number}: expected a JSON object with a whole "step", got {line[:60]!r}; {advice}'
        )
    if entry["step"] <= last:
        raise LogError(f"{path}, line {number}: step {entry['step']} after step {last}; {advice}")
    return entry


def _strict(value: Any, key: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        if value in _NON_FINITE:
            raise TypeError(f'log: {key}="{value}" would read back as a number; log the float itself')
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, (list, tuple)):
        return [_strict(v, key) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {k: _strict(v, key) for k, v in value.items()}
    raise TypeError(
        f"log: {key} is a {type(value).__name__}; a line holds numbers, strings, bools, None, and lists and "
        "dicts of these"
    )


def _restore(value: Any) -> Any:
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, list):
        return [_restore(v) for v in value]
    if isinstance(value, dict):
        return {k: _restore(v) for k, v in value.items()}
    return value

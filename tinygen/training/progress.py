"""Progress: how far a run is, how fast, and how long it will take, on stderr.

In a terminal with tqdm installed it is a bar; elsewhere (a file, a pipe, a notebook, no tqdm) it is a plain
line now and then, so that a log of an overnight run stays short and readable.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Any

_LINES = 10  # plain lines in a short run: one for each tenth
_SECONDS = 60.0  # and at least one a minute in a long one


class Progress:
    """Shows steps ``start`` … ``total`` with the values last logged, the rate (it/s) and the time left.

    Args:
        start: steps that are done already.
        total: steps in all.
        enabled: False shows nothing.
    """

    def __init__(self, start: int, total: int, enabled: bool = True) -> None:
        self.start, self.total, self.enabled = start, total, enabled
        self.step = start
        self.text = ""
        self._began = self._spoke = time.monotonic()
        self._tenth = start * _LINES // total
        self._bar = _bar(start, total) if enabled and sys.stderr.isatty() else None

    def show(self, values: dict[str, Any]) -> None:
        """Set the values that are shown from now on; the first three that are numbers."""
        numbers = {name: v for name, v in values.items() if type(v) in (int, float)}
        self.text = "  ".join(f"{name} {v:.4g}" for name, v in list(numbers.items())[:3])
        if self._bar is not None:
            self._bar.set_postfix_str(self.text, refresh=False)

    def update(self, step: int) -> None:
        """Step ``step`` is done."""
        done, self.step = step - self.step, step
        try:
            if self._bar is not None:
                self._bar.update(done)
            elif self.enabled:
                now = time.monotonic()
                tenth = step * _LINES // self.total
                if tenth > self._tenth or now - self._spoke >= _SECONDS:
                    self._tenth, self._spoke = tenth, now
                    print(self.line(now), file=sys.stderr, flush=True)
        except OSError:  # the terminal was closed, the pipe's reader has left: no reason to stop training
            self._bar, self.enabled = None, False

    def line(self, now: float) -> str:
        """The plain line: ``step 300/3000  loss 0.0123  250 it/s  0:11 left``."""
        rate = (self.step - self.start) / max(now - self._began, 1e-9)
        parts = [f"step {self.step}/{self.total}", self.text, _rate(rate)]
        if self.step < self.total and rate > 0:
            parts.append(f"{clock((self.total - self.step) / rate)} left")
        return "  ".join(part for part in parts if part)

    def close(self) -> None:
        """Leave the terminal at the start of a fresh line; closing twice does nothing."""
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
            self._bar = None
        self.enabled = False


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def _rate(rate: float) -> str:
    return f"{rate:.3g} it/s" if rate < 1000 else f"{rate:.0f} it/s"


def _bar(start: int, total: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    try:
        known = min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except (OSError, ValueError):
        known = False
    # Some terminals (a container's, a CI's) say that they are 0 × 0, and tqdm then shows nothing.
    size: dict[str, Any] = {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}
    return tqdm(
        initial=start, total=total, file=sys.stderr, **size,
        bar_format="{n_fmt}/{total_fmt} |{bar}| {rate_fmt}, {remaining} left{postfix}",
    )

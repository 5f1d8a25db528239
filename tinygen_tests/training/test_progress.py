"""Progress: a bar in a terminal, few and plain lines elsewhere, nothing when switched off."""

import builtins
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinygen.training import progress
from tinygen.training.progress import Progress, clock

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def go(total=40, start=0, stream=None, monkeypatch=None, enabled=True):
    monkeypatch.setattr(sys, "stderr", stream)
    bar = Progress(start, total, enabled)
    for step in range(start + 1, total + 1):
        bar.show({"loss": 1 / step, "note": "text", "flag": True})
        bar.update(step)
    bar.close()
    bar.close()
    return stream.getvalue()


def test_plain_lines_outside_a_terminal(monkeypatch):
    lines = go(1000, stream=io.StringIO(), monkeypatch=monkeypatch).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("step 100/1000  loss 0.01  ") and lines[0].endswith(" left")
    assert "it/s" in lines[0] and "note" not in lines[0] and "flag" not in lines[0]
    assert lines[-1].startswith("step 1000/1000") and "left" not in lines[-1]


def test_a_resumed_run_shows_only_what_is_left(monkeypatch):
    lines = go(1000, start=750, stream=io.StringIO(), monkeypatch=monkeypatch).splitlines()
    assert [line.split()[1] for line in lines] == ["800/1000", "900/1000", "1000/1000"]


def test_a_long_run_shows_a_line_a_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    bar = Progress(0, 100_000)
    for step in range(1, 301):
        now[0] += 1.0
        bar.update(step)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[0] == "step 60/100000  1 it/s  27:45:40 left"
    now[0] = 0.0
    resumed = Progress(50_000, 100_000)
    now[0] = 120.0
    resumed.update(50_060)  # the steps of the run before took none of this run's time
    assert stream.getvalue().splitlines()[-1] == "step 50060/100000  0.5 it/s  27:44:40 left"


def test_a_bar_in_a_terminal(monkeypatch):
    pytest.importorskip("tqdm", reason="tqdm is not installed (the demos extra)")
    text = go(stream=Terminal(), monkeypatch=monkeypatch)
    assert "40/40" in text and "it/s" in text and "loss 0.025" in text and "left" in text and text.endswith("\n")
    assert go(start=30, stream=Terminal(), monkeypatch=monkeypatch).lstrip("\r").startswith("30/40 ")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX pseudo-terminal")
@pytest.mark.parametrize("rows, columns", [(0, 0), (24, 0), (24, 60)])
def test_a_bar_in_a_real_terminal_of_any_size(rows, columns):
    pytest.importorskip("tqdm", reason="tqdm is not installed (the demos extra)")
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    code = ("from tinygen.training.progress import Progress\nbar = Progress(0, 5)\n"
            "for step in range(1, 6):\n    bar.show({'loss': 0.125})\n    bar.update(step)\nbar.close()")
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True, timeout=30, cwd=ROOT)
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    last = text.rstrip().split("\r")[-1]
    assert "5/5" in last and "loss 0.125" in last and len(last) <= (columns or 80), text


def test_plain_lines_in_a_terminal_without_tqdm(monkeypatch):
    real = builtins.__import__

    def no_tqdm(name, *args, **kwargs):
        if name == "tqdm":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_tqdm)
    assert len(go(stream=Terminal(), monkeypatch=monkeypatch).splitlines()) == 10


def test_switched_off_it_is_silent(monkeypatch):
    assert go(stream=io.StringIO(), monkeypatch=monkeypatch, enabled=False) == ""
    assert go(stream=Terminal(), monkeypatch=monkeypatch, enabled=False) == ""


def test_clock():
    assert [clock(s) for s in (0, 59.6, 61, 3600, 99999)] == ["0:00", "1:00", "1:01", "1:00:00", "27:46:39"]

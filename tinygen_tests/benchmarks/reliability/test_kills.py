"""The script of random SIGKILLs, on a throw-away run that starts in a blink: it passes what survives, and only that."""

import os
import random
import signal
import sys
import textwrap

import pytest

from benchmarks.reliability import kills

pytestmark = [
    pytest.mark.cpu_only("about processes and files"),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals"),
]

# The words after the folder: --resume, or nothing. FORGETS is set by a test.
RUN = """
import os, sys, time
import tinygen as tg
from tinygen.files import whole_file
from tinygen.training import Run, read_log

class Weights:
    def __init__(self):
        self.w = tg.zeros(2000, dtype=tg.float64)
    def state_dict(self):
        return {"w": self.w}
    def load_state_dict(self, state):
        self.w.data[...] = state["w"].data

weights, rng = Weights(), tg.Generator(0)
objects = {"weights": weights, "rng": rng}
if FORGETS:
    del objects["rng"]
folder, resume = sys.argv[1], "--resume" in sys.argv
run = Run(folder, 40, objects, checkpoint_every=3, resume=resume, progress=False)
print("a run of forty steps", flush=True)
for step in run:
    weights.w.data += tg.randn(2000, dtype=tg.float64, rng=rng).data
    run.log(loss=weights.w.data[0].item() ** 2)
    time.sleep(0.01)
with whole_file(os.path.join(folder, "picture.png")) as file:
    file.write(str([line["loss"] for line in read_log(run.log_path)]).encode())
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(kills.ROOT))

    def make(forgets=False):
        script = tmp_path / "run.py"
        script.write_text(textwrap.dedent(RUN).replace("FORGETS", str(forgets)))
        return [sys.executable, os.fspath(script)]

    return make


class Early(random.Random):
    """Kills well before the end, however slow the machine is at the moment: the run sleeps for 0.4 s in all."""

    ways = ("running", "writing", "running")
    used = 0

    def choices(self, *args):
        self.used += 1
        return [self.ways[(self.used - 1) % 3]]

    def uniform(self, low, high):
        return super().uniform(0.1, 0.2) if high > 0.1 else 0


def test_killed_runs_are_resumed_to_the_same_bits(tmp_path, command):
    seconds = kills.finish(command(), tmp_path / "whole", False)
    whole, tally, rng = kills.outcome(tmp_path / "whole"), kills.Tally(), Early(3)
    assert whole.keys() == {"checkpoint.npz", "log.jsonl", "picture.png"} and len(whole["log.jsonl"]) == 40
    kills.torture(command(), whole, seconds, tmp_path / "killed", 3, rng, tally)
    assert tally.runs == 1 and tally.kills >= 2 and sum(tally.when.values()) == tally.kills == len(tally.repeated)


def test_a_run_that_forgets_its_generator_is_found_out(tmp_path, command):
    """What the script is there to see: everything goes well, and the numbers are others."""
    kills.finish(command(True), tmp_path / "whole", False)
    whole, tally = kills.outcome(tmp_path / "whole"), kills.Tally()
    with pytest.raises(kills.Failure, match="differs .* in checkpoint.npz, log.jsonl, picture.png"):
        kills.torture(command(True), whole, 1.0, tmp_path / "killed", 1, Early(3), tally)
    assert tally.kills == 1


def test_a_run_that_fails_by_itself_is_a_failure(tmp_path):
    with pytest.raises(kills.Failure, match="ended with 3"):
        kills.finish([sys.executable, "-c", "import sys; sys.exit(3)"], tmp_path, False)

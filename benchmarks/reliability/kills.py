"""Random SIGKILLs over the demos, each resumed: does the run end in the same bits as one that was left alone?

    python -m benchmarks.reliability.kills              200 kills, some ten minutes
    python -m benchmarks.reliability.kills --kills 8    a short version

Each demo is first run undisturbed. Then it is started again in a fresh folder and killed: at a random instant of the
run, or while a checkpoint is being written (seen by its temporary file). It is resumed with --resume, killed again, up
to four times, and then left to finish. Compared are the checkpoint, every picture and results.json byte by byte, and
the log but for the times in it. After every kill: a checkpoint that was there is still there and whole, none is older
than before, and no more steps are lost than lie between two checkpoints.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.reliability.facts import print_facts
from tinygen.serialization import load
from tinygen.training import previous_path, read_log

ROOT = Path(__file__).resolve().parents[2]
DEMOS = ("autoencoder", "vae", "gan", "ddpm")
STEPS, EVERY = 24, 3  # of each run, and between its checkpoints
MOST_KILLS_OF_A_RUN = 4
LONGEST = 120.0  # seconds that a run may take before it is said to hang


class Failure(AssertionError):
    """A run that did not survive; the message says how."""


@dataclass
class Tally:
    """What the kills met with."""

    kills: int = 0
    runs: int = 0
    when: collections.Counter[str] = field(default_factory=collections.Counter)
    repeated: list[int] = field(default_factory=list)  # steps that a resume did again


def command_of(demo: str) -> list[str]:
    """A short run of a demo that saves often; the folder is to follow."""
    return [sys.executable, "-m", "demos", demo, "--quick", "--steps", str(STEPS), "--checkpoint-every", str(EVERY),
            "--out"]  # fmt: skip


@contextmanager
def started(command: list[str], folder: Path, resume: bool) -> Iterator[subprocess.Popen[str]]:
    """The run as a process, in a group of its own and gone at the end of the block whatever happens."""
    words = [*command, os.fspath(folder), *(["--resume"] if resume else [])]
    process = subprocess.Popen(
        words, cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(command: list[str], folder: Path, resume: bool) -> float:
    """Let a run go to its end; the seconds that it took after it had said what it is about to do."""
    with started(command, folder, resume) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        began = time.perf_counter()
        out, err = process.communicate(timeout=LONGEST)
        if process.returncode != 0:
            raise Failure(f"{' '.join(command)} {folder} ended with {process.returncode}:\n{first}{out}{err}")
        return time.perf_counter() - began


def kill(command: list[str], folder: Path, resume: bool, seconds: float, rng: random.Random) -> str | None:
    """Start the run and kill it; what it was doing then, or None where it was quicker than the kill."""
    with started(command, folder, resume) as process:
        assert process.stdout is not None
        how = rng.choices(("anywhere", "running", "writing"), (1, 4, 5))[0]
        if how == "anywhere":  # Python may still be importing NumPy
            time.sleep(rng.uniform(0, 1.2 * seconds))
        else:
            process.stdout.readline()
            if how == "running":
                time.sleep(rng.uniform(0, 1.05 * seconds))
            else:
                nth, seen = rng.randint(1, 6), False
                until = time.perf_counter() + seconds
                while nth and time.perf_counter() < until and process.poll() is None:
                    now = any(folder.glob(".checkpoint*.tmp"))
                    nth -= now and not seen
                    seen = now
                time.sleep(rng.choice((0, 0, rng.uniform(0, 0.004), rng.uniform(0, 0.02))))
        if process.poll() is not None:
            if process.returncode != 0:
                raise Failure(f"{folder} ended by itself with {process.returncode}:\n{process.communicate()[1]}")
            return None
        process.kill()
        process.wait()
    return _what_it_was_doing(folder)


def _what_it_was_doing(folder: Path) -> str:
    left = [path.name for path in folder.glob(".*.tmp")] if folder.exists() else []
    if any(name.startswith(".checkpoint") for name in left):
        return "writing a checkpoint"
    if left:
        return "writing a picture"
    if not (folder / "log.jsonl").exists():
        return "starting"
    step = step_of(folder)
    return "before the first checkpoint" if step == 0 else "drawing its pictures" if step == STEPS else "training"


def step_of(folder: Path) -> int:
    """The step that a resume would go on from; 0 where there is no checkpoint."""
    path = folder / "checkpoint.npz"
    if not path.exists() and not previous_path(path).exists():
        return 0
    return int(load(path if path.exists() else previous_path(path))["step"])


def outcome(folder: Path) -> dict[str, object]:
    """All that a run leaves: bytes of files, and the log without its times."""
    found: dict[str, object] = {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.suffix in (".png", ".gif", ".json") or path.name == "checkpoint.npz"
    }
    found["log.jsonl"] = [{k: v for k, v in line.items() if k != "time"} for line in read_log(folder / "log.jsonl")]
    return found


def torture(
    command: list[str], whole: dict[str, object], seconds: float, folder: Path, kills: int, rng: random.Random,
    tally: Tally, every: int = EVERY,
) -> None:  # fmt: skip
    """One run that is killed up to ``kills`` times and must end as ``whole``.

    Raises:
        Failure: it did not.
    """
    step, finished = 0, False
    for _ in range(kills):
        before, logged = step_of(folder), _logged(folder)
        doing = kill(command, folder, before > 0, seconds, rng)
        if doing is None:
            finished = True
            break
        tally.kills += 1
        tally.when[doing] += 1
        step = step_of(folder)  # raises where what is left is damaged
        if step < before:
            raise Failure(f"{folder}: a checkpoint of step {before} was there before the kill, {step} after")
        lost = max(_logged(folder), logged) - step
        if lost > every:
            raise Failure(f"{folder}: {lost} steps lost, with a checkpoint every {every}")
        tally.repeated.append(max(lost, 0))
    if not finished:
        finish(command, folder, step_of(folder) > 0)
    tally.runs += 1
    here = outcome(folder)
    different = [name for name in whole.keys() | here.keys() if whole.get(name) != here.get(name)]
    if different:
        raise Failure(f"{folder}: differs from the run that was left alone in {', '.join(sorted(different))}")
    if left := sorted(path.name for path in folder.iterdir() if path.suffix == ".tmp"):
        raise Failure(f"{folder}: {', '.join(left)} left over")


def _logged(folder: Path) -> int:
    log = folder / "log.jsonl"
    lines = read_log(log) if log.exists() else []
    return int(lines[-1]["step"]) if lines else 0


def main(arguments: list[str] | None = None) -> int:
    """Kill, compare, print; 0 where every run ended as it should."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.kills", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="how many, in all (default 200)")
    parser.add_argument("--demos", nargs="+", default=DEMOS, choices=DEMOS, metavar="NAME", help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default 0)")
    options = parser.parse_args(arguments)
    print_facts("kills", options)
    rng, failures, total = random.Random(options.seed), 0, Tally()
    with tempfile.TemporaryDirectory() as scratch:
        for k, demo in enumerate(options.demos):
            share = (options.kills + k) // len(options.demos)
            command, folder = command_of(demo), Path(scratch) / demo
            seconds = finish(command, folder / "whole", False)
            whole = outcome(folder / "whole")
            finish(command, folder / "again", False)
            if outcome(folder / "again") != whole:
                raise Failure(f"{demo}: two runs that were left alone differ")
            tally = Tally()
            while tally.kills < share:
                here = folder / f"run {tally.runs}"
                try:
                    most = min(rng.randint(1, MOST_KILLS_OF_A_RUN), share - tally.kills)
                    torture(command, whole, seconds, here, most, rng, tally)
                except Failure as failure:
                    failures += 1
                    tally.runs += 1
                    print(f"FAILED  {failure}", flush=True)
                else:
                    shutil.rmtree(here)
            when = ", ".join(f"{n} {what}" for what, n in tally.when.most_common())
            print(f"{demo}: {tally.kills} kills in {tally.runs} runs ({when})", flush=True)
            mean = sum(tally.repeated) / max(1, len(tally.repeated))
            print(f"  {len(whole) - 1} files and the log compared after each run; steps done again after a kill: "
                  f"mean {mean:.1f}, most {max(tally.repeated)}")  # fmt: skip
            total.kills, total.runs = total.kills + tally.kills, total.runs + tally.runs
            total.when += tally.when
    print(f"in all: {total.kills} kills in {total.runs} runs, {failures} runs that did not end bit-identically")
    print("  killed while " + ", ".join(f"{what}: {n}" for what, n in total.when.most_common()))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

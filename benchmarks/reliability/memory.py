"""Whether a long run needs more memory than a short one: every demo for 20,000 steps, its size seen from outside.

    python -m benchmarks.reliability.memory              20,000 steps of every demo, batches of 8
    python -m benchmarks.reliability.memory gan --steps 2000

The size is the resident set that the kernel reports, read ten times a second together with the step that the log is
at. Growth is the median size in the last tenth of the run over that in the second tenth: the first tenth fills caches
and meets every code path, checkpoints among them, of which there are forty. 1 % of 150 MB over 16,000 steps would be
94 bytes a step: less than one lost Tensor.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.reliability.facts import print_facts

DEMOS = ("autoencoder", "vae", "gan", "ddpm")
LIMIT = 1.0  # per cent


def resident(pid: int) -> int:
    """Bytes of a process's memory that are in RAM, from ``/proc`` (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def processor_seconds(pid: int) -> float:
    """Seconds of processor time that a process has used, its own and the system's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def last_step(log: Path) -> int:
    """The step of the log's last whole line; 0 where there is none yet."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.path.getsize(log) - 4096))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    return json.loads(lines[-1])["step"] if lines else 0


def watch(demo: str, steps: int, batch_size: int, folder: Path) -> tuple[list[tuple[int, int]], float]:
    """Train a demo; (step, bytes) ten times a second until its last step, and the processor seconds.

    Raises:
        RuntimeError: the demo ended before its last step.
    """
    options = {"--steps": steps, "--batch-size": batch_size, "--out": folder, "--checkpoint-every": max(1, steps // 40)}
    command = [sys.executable, "-m", "demos", demo, *(str(word) for pair in options.items() for word in pair)]
    with open(folder.with_suffix(".txt"), "wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    seen: list[tuple[int, int]] = []
    seconds = 0.0
    try:
        while (step := last_step(folder / "log.jsonl")) < steps:
            if process.poll() is not None:
                raise RuntimeError(
                    f"{demo} ended with code {process.returncode} after step {step}:\n"
                    + folder.with_suffix(".txt").read_text()[-2000:]
                )
            if step:
                seen.append((step, resident(process.pid)))
                seconds = processor_seconds(process.pid)
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)  # the pictures that come after the last step are not what is measured
        process.wait()
    return seen, seconds


def growth(seen: list[tuple[int, int]], steps: int) -> tuple[float, float, float]:
    """The median size in the second tenth and in the last tenth of a run (bytes), and the growth in per cent.

    Raises:
        ValueError: one of the two was too short to be seen.
    """
    early = [size for step, size in seen if 0.1 * steps <= step < 0.2 * steps]
    late = [size for step, size in seen if step >= 0.9 * steps]
    if not early or not late:
        raise ValueError(f"{steps} steps were over too soon to be measured; take more")
    before, after = statistics.median(early), statistics.median(late)
    return before, after, 100 * (after / before - 1)


def main(argv: list[str] | None = None) -> int:
    """Measure the demos named, print a line for each; 1 where one grew by more than the limit."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("demos", nargs="*", choices=[*DEMOS, []], metavar="DEMO", help=f"of {', '.join(DEMOS)}")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args(argv)
    print_facts("memory", args)
    worst = 0.0
    for demo in args.demos or DEMOS:
        with tempfile.TemporaryDirectory() as place:
            seen, seconds = watch(demo, args.steps, args.batch_size, Path(place) / demo)
        before, after, per_cent = growth(seen, args.steps)
        worst = max(worst, per_cent)
        print(
            f"  {demo:<12} {args.steps:,} steps of batch size {args.batch_size}: {before / 2**20:.1f} MiB in the "
            f"second tenth, {after / 2**20:.1f} in the last, {per_cent:+.2f} %, at most "
            f"{max(size for _, size in seen) / 2**20:.1f}; {seconds:.0f} s of one core",
            flush=True,
        )
    print(f"the most that any grew: {worst:+.2f} %, allowed {LIMIT} %")
    return int(worst >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())

"""Do two processes under mpirun follow one, in every demo? Do they end as they should when one of them does not go on?

    python -m benchmarks.reliability.parallel                    every demo: 60 steps, by one process and by two
    python -m benchmarks.reliability.parallel ddpm --steps 200

Each demo is trained by one process and by several with the same whole batch. Compared are the losses of every step, and
the parameters at the end: in float32, so the two drift apart by rounding, and a game like the GAN's magnifies that.
Then it is started again under mpirun and ended in the middle: one process killed (SIGKILL), and mpirun asked to stop
(SIGTERM). The checkpoint must be whole and of a step that was saved, no process may be left, and a resume, again by
several processes, must end like the undisturbed run of several, to rounding.

Needs an mpirun and mpi4py (the extra ``mpi``), and Linux.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.facts import print_facts
from tinygen.serialization import load
from tinygen.tensor import Tensor
from tinygen.training import read_log

ROOT = Path(__file__).resolve().parents[2]
DEMOS = ("autoencoder", "vae", "gan", "ddpm")
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "TINYGEN_NUM_THREADS": "1",
}


def words(demo: str, folder: Path, steps: int, processes: int, *more: str) -> list[str]:
    """The command of a run."""
    command = [sys.executable, "-m", "demos", demo, "--steps", str(steps), "--batch-size", "32",
               "--checkpoint-every", "10", "--out", str(folder), *more]  # fmt: skip
    return ["mpirun", "-n", str(processes), *command] if processes > 1 else command


def train(demo: str, folder: Path, steps: int, processes: int, *more: str, until: Any = None) -> int | None:
    """Run a demo up to the end of its training; the exit code, or None where it was ended after that.

    Args:
        until: what to do at its tenth step or later: a function of the process; it is then waited for.
    """
    with open(folder.with_suffix(".txt"), "ab") as said:
        process = subprocess.Popen(
            words(demo, folder, steps, processes, *more), cwd=ROOT, env=ENVIRONMENT, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 300
    try:
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{demo}: no end after 300 s; see {said.name}")
            step = load(folder / "checkpoint.npz")["step"] if (folder / "checkpoint.npz").exists() else 0
            if until is not None and step >= 10:
                until(process)
                return process.wait(60)
            if step == steps:
                return None  # the pictures that come now are drawn by one process alone
            time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"{demo} ended with {process.returncode}:\n{Path(said.name).read_text()[-1500:]}")
        return process.returncode
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pid in members(folder):
            os.kill(pid, signal.SIGKILL)


def members(folder: Path) -> list[int]:
    """The processes of a run that are there still: those that have its folder on their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in line and b"mpirun" not in line[0]:
            found.append(int(place.name))
    return found


def kill_one(process: subprocess.Popen) -> None:
    """End the last of the processes at once."""
    folder = Path(process.args[process.args.index("--out") + 1])  # type: ignore[union-attr, index]
    os.kill(max(members(folder)), signal.SIGKILL)


def losses(folder: Path) -> dict[str, np.ndarray]:
    """Every logged loss, by name."""
    log = read_log(folder / "log.jsonl")
    return {name: np.array([line[name] for line in log if name in line]) for name in log[0] if "loss" in name}


def parameters(folder: Path) -> dict[str, np.ndarray]:
    """The floating numbers of the models in a checkpoint, by name."""
    content = load(folder / "checkpoint.npz")
    found = {}
    for name, state in content["objects"].items():
        if name in ("models", "gan"):
            found |= {f"{name}.{key}": t.numpy() for key, t in state.items() if isinstance(t, Tensor)}
    return {name: a for name, a in found.items() if a.dtype.kind == "f" and a.size}


def difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """max over the names of ‖a − b‖/‖a‖."""
    return max(float(np.linalg.norm(a[n] - b[n]) / max(np.linalg.norm(a[n]), 1e-12)) for n in a)


def tell(demo: str, steps: int, processes: int, place: Path) -> list[str]:
    """Try everything with one demo; what is wrong, in words."""
    wrong = []
    one, many = place / f"{demo}-one", place / f"{demo}-many"
    train(demo, one, steps, 1)
    train(demo, many, steps, processes)
    first, last = (difference({n: v[k] for n, v in losses(one).items()}, {n: v[k] for n, v in losses(many).items()})
                   for k in (slice(0, 10), slice(-10, None)))  # fmt: skip
    apart = difference(parameters(one), parameters(many))
    print(f"  {demo:<12} {processes} processes and one: losses differ by {first:.0e} of their size in the first ten "
          f"steps, by {last:.0e} in the last ten of {steps}, parameters by {apart:.0e}", flush=True)  # fmt: skip
    if first > 1e-5:
        wrong.append(f"{demo}: the losses of {processes} processes do not follow those of one")
    for name, end, code in (("SIGKILL to one process", kill_one, (137,)),
                            ("SIGTERM to mpirun", subprocess.Popen.terminate, (1, 143))):  # fmt: skip
        folder = place / f"{demo}-{name.split()[0]}"
        begun = time.monotonic()
        found = train(demo, folder, steps, processes, until=end)
        seconds = time.monotonic() - begun
        step = load(folder / "checkpoint.npz")["step"]
        left = len(members(folder))
        said = folder.with_suffix(".txt").read_text().count("interrupted after step")
        train(demo, folder, steps, processes, "--resume")
        again = difference(parameters(many), parameters(folder))
        logged = [line["step"] for line in read_log(folder / "log.jsonl")]
        print(f"    {name}: code {found} after {seconds:.0f} s, step {step} saved, {left} processes left; resumed, its "
              f"parameters differ by {again:.0e} from the undisturbed run's", flush=True)  # fmt: skip
        if found not in code or left or again > 1e-3 or logged != list(range(1, steps + 1)):
            wrong.append(f"{demo}, {name}: code {found}, {left} left, difference {again:.0e}, log {logged[-1]} long")
        if name.startswith("SIGKILL") and step % 10:
            wrong.append(f"{demo}, {name}: the checkpoint is of step {step}, which was not saved")
        if name.startswith("SIGTERM") and said != 1:
            wrong.append(f"{demo}, {name}: {said} processes said that they were interrupted")
    return wrong


def main(argv: list[str] | None = None) -> int:
    """Try the demos named, print what came out; 1 where something is wrong, 2 where there is no MPI."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.parallel", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("demos", nargs="*", metavar="DEMO", help=f"of {', '.join(DEMOS)}")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args(argv)
    if shutil.which("mpirun") is None:
        print("there is no mpirun here; install an MPI, such as openmpi-bin, and the extra mpi", file=sys.stderr)
        return 2
    print_facts("parallel", args)
    version = subprocess.run(["mpirun", "--version"], capture_output=True, text=True, env=ENVIRONMENT).stdout
    print(f"  {version.splitlines()[0]}")
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        for demo in args.demos or DEMOS:
            wrong += tell(demo, args.steps, args.processes, Path(place))
    print("\n".join(wrong) or "all as it should be")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

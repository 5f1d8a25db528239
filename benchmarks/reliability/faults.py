"""Every fault once, on a real demo, with the message that its user sees: is the message clear, and is nothing lost?

    python -m benchmarks.reliability.faults                  all, about a minute
    python -m benchmarks.reliability.faults full lock        those whose names contain one of the words

Needs Linux. Where root may mount file systems, the disk that is full and the folder that is read-only are such;
elsewhere a limit on file sizes and permissions stand in for them. Exit status 1 where a message or an exit
code is not what it should be, or where a file that was good before is not after.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.reliability.facts import print_facts
from tinygen import serialization
from tinygen.training import previous_path

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--quick", "--steps", "9", "--checkpoint-every", "3")
CHECKPOINT = "checkpoint.npz"


@dataclass
class Said:
    """How a command ended."""

    code: int
    text: str


class Stage:
    """A scratch folder, a finished run to be spoiled, and the demos' command line."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    @functools.cached_property
    def finished(self) -> Path:
        """The folder of a run that met no fault."""
        said = self.demo("gan", self.scratch / "finished")
        if said.code != 0:
            raise RuntimeError(f"the demo does not run: {said.text}")
        return self.scratch / "finished"

    @functools.cached_property
    def whole(self) -> bytes:
        """Its checkpoint."""
        return (self.finished / CHECKPOINT).read_bytes()

    def demo(self, name: str, out: Path, *words: str, limit: int | None = None) -> Said:
        """Run a demo to its end, whatever that is; ``limit``: bytes that a file may have."""
        command = [sys.executable, "-m", "demos", name, *QUICK, "--out", os.fspath(out), *words]
        held = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)) if limit else None
        done = subprocess.run(
            command, cwd=ROOT, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, preexec_fn=held
        )
        return Said(done.returncode, done.stderr)

    def copy(self, name: str) -> Path:
        """A copy of the finished run, to be spoiled."""
        return Path(shutil.copytree(self.finished, self.scratch / name))

    def goes_on(self, out: Path) -> Said:
        """Resume; the run must end as the one that met no fault did."""
        said = self.demo("gan", out, "--resume")
        assert said.code == 0, f"the resume failed: {said.text}"
        assert (out / CHECKPOINT).read_bytes() == self.whole, "the resumed run ended in other bits"
        return said

    def changes_nothing(self, name: str, out: Path, *words: str) -> Said:
        """Run a demo that is to be refused; it must leave its folder as it was."""
        before = _contents(out)
        said = self.demo(name, out, *words)
        assert _contents(out) == before, "what was in the folder has changed"
        return said


FAULTS: dict[str, Callable[[Stage], tuple[Said, int, str]]] = {}


def fault(name: str) -> Callable[[Callable[[Stage], tuple[Said, int, str]]], Callable[[Stage], tuple[Said, int, str]]]:
    """Register a fault: a function that brings it about and returns what was said, the code and words expected."""

    def register(function: Callable[[Stage], tuple[Said, int, str]]) -> Callable[[Stage], tuple[Said, int, str]]:
        FAULTS[name] = function
        return function

    return register


@functools.cache
def can_mount() -> bool:
    """Whether file systems can be mounted here: root can, but for most containers' root."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode != 0:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def forbid_writing(folder: Path) -> None:
    """Take the permission to write from everybody; root does not ask for permission.

    Raises:
        NotImplementedError: this is root.
    """
    if os.geteuid() == 0:
        raise NotImplementedError("root may write anywhere, and no file system can be mounted here")
    folder.chmod(0o555)


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small file system of its own."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def remount(folder: Path, options: str) -> None:
    """Change the options of a mounted file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


# ------------------------------------------------------------------------------------------- the disk


@fault("disk full at the first checkpoint")
def _(stage: Stage) -> tuple[Said, int, str]:
    if not can_mount():
        return stage.demo("gan", stage.scratch / "full", limit=500_000), 2, "File too large; make room, then --resume"
    with mounted(stage.scratch / "full", "1m") as disk:
        said = stage.demo("gan", disk / "run")
        left = [path.name for path in (disk / "run").iterdir() if path.suffix in (".tmp", ".npz")]
        assert not left, f"left behind: {left}"
        remount(disk, "size=64m")
        again = stage.demo("gan", disk / "run")
        assert again.code == 0 and (disk / "run" / CHECKPOINT).read_bytes() == stage.whole
    return said, 2, "checkpoint.npz: No space left on device; make room, then --resume goes on from the last checkpoint"


@fault("disk full at a later checkpoint")
def _(stage: Stage) -> tuple[Said, int, str]:
    if not can_mount():
        raise NotImplementedError("no file system can be mounted here")
    with mounted(stage.scratch / "fuller", f"{len(stage.whole) * 5 // 2 // 1024}k") as disk:
        said = stage.demo("gan", disk / "run")
        for path in (disk / "run" / CHECKPOINT, previous_path(disk / "run" / CHECKPOINT)):
            serialization.load(path)  # both still whole
        remount(disk, "size=64m")
        stage.goes_on(disk / "run")
    return said, 2, "checkpoint.npz: No space left on device; make room, then --resume goes on from the last checkpoint"


@fault("file too large for a quota")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("quota")
    os.replace(previous_path(out / CHECKPOINT), out / CHECKPOINT)
    before = (out / CHECKPOINT).read_bytes()
    said = stage.demo("gan", out, "--resume", limit=len(stage.whole) - 1000)
    assert (out / CHECKPOINT).read_bytes() == before
    stage.goes_on(out)
    return said, 2, "checkpoint.npz: File too large; make room, then --resume"


@fault("read-only folder")
def _(stage: Stage) -> tuple[Said, int, str]:
    if not can_mount():
        folder = stage.scratch / "locked"
        folder.mkdir()
        forbid_writing(folder)
        return stage.demo("gan", folder / "run"), 2, "Permission denied; another folder can be chosen with --out"
    with mounted(stage.scratch / "locked", "64m") as disk:
        remount(disk, "ro")
        return stage.demo("gan", disk / "run"), 2, "Read-only file system; another folder can be chosen with --out"


@fault("read-only folder with a run in it, resumed")
def _(stage: Stage) -> tuple[Said, int, str]:
    if not can_mount():
        out = stage.copy("kept")
        forbid_writing(out)
        said = stage.demo("gan", out, "--resume")
        out.chmod(0o755)
        return said, 2, "Permission denied; another folder"
    with mounted(stage.scratch / "kept", "64m") as disk:
        shutil.copytree(stage.finished, disk / "run")
        remount(disk, "ro")
        said = stage.demo("gan", disk / "run", "--resume")
        assert (disk / "run" / CHECKPOINT).read_bytes() == stage.whole
    return said, 2, "cannot write there: Read-only file system; another folder can be chosen with --out"


# ----------------------------------------------------------------------------------------- checkpoints


@fault("checkpoint cut short")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("cut")
    (out / CHECKPOINT).write_bytes(stage.whole[: len(stage.whole) // 2])
    said = stage.goes_on(out)
    return said, 0, "it was cut short or damaged, or it is a plain .npz. Going on from the checkpoint before it"


@fault("one bit of a checkpoint flipped")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("flipped")
    _flip(out / CHECKPOINT)
    said = stage.goes_on(out)
    return said, 0, "do not match their SHA-256 seal. Going on from the checkpoint before it, checkpoint.previous.npz"


@fault("checkpoint gone, as if killed between two renames")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("gone")
    (out / CHECKPOINT).unlink()
    return stage.goes_on(out), 0, "is missing. Going on from the checkpoint before it, checkpoint.previous.npz, at step"


@fault("both checkpoints damaged")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("both")
    _flip(out / CHECKPOINT)
    _flip(out / "checkpoint.previous.npz")
    return stage.changes_nothing("gan", out, "--resume"), 2, "and so is the one before it"


@fault("no checkpoint to resume from")
def _(stage: Stage) -> tuple[Said, int, str]:
    return stage.demo("gan", stage.scratch / "nothing", "--resume"), 2, "so there is nothing to resume; start without"


@fault("checkpoint of another model")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("other")
    return stage.changes_nothing("vae", out, "--resume"), 2, "does not fit this run, and nothing was loaded from it"


@fault("checkpoint of other settings")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("settings")
    said = stage.changes_nothing("gan", out, "--resume", "--unconditional", "--batch-size", "32", "--seed", "1")
    return said, 2, "configuration: batch size is 64 in the file, 32 here"


@fault("checkpoint of a newer format")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("newer")
    kind, content = serialization.read_file(out / CHECKPOINT)
    now, serialization.VERSION = serialization.VERSION, serialization.VERSION + 1
    try:
        serialization.write_file(out / CHECKPOINT, kind, content)
    finally:
        serialization.VERSION = now
    return stage.changes_nothing("gan", out, "--resume"), 2, "reads versions up to 1; update tinygen"


# ------------------------------------------------------------------------------------- folder and log


@fault("folder that another run is using (lock)")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("busy")
    hold = "import sys; from tinygen.training import FolderLock; x = FolderLock(sys.argv[1]); print(flush=1); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, os.fspath(out)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    for resume in ((), ("--resume",)):
        said = stage.changes_nothing("gan", out, *resume)
    holder.kill()  # its lock dies with it, the file stays
    holder.communicate()
    assert (out / ".lock").exists()
    stage.goes_on(out)
    return said, 2, "is in use by another run: process"


@fault("damaged log")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("log")
    log = out / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'{"step": 4', b'{"steq": 4'))
    return stage.changes_nothing("gan", out, "--resume"), 2, 'line 4: expected a JSON object with a whole "step"'


@fault("log that lost its end")
def _(stage: Stage) -> tuple[Said, int, str]:
    out = stage.copy("short log")
    log = out / "log.jsonl"
    log.write_bytes(log.read_bytes()[:-50])
    return stage.demo("gan", out, "--resume"), 0, "log.jsonl has 8 of the 9 lines that it had at step 9"


# -------------------------------------------------------------------------------------------- signals


def _signalled(stage: Stage, name: str) -> Said:
    """Ctrl-C and the like in the middle of training; then the rest."""
    out = stage.scratch / name
    command = [sys.executable, "-m", "demos", "gan", "--quick", "--steps", "400", "--out", os.fspath(out)]
    number = getattr(signal, name)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # heeded, also where this runs behind nohup or a `&`
    )
    until = time.monotonic() + 60
    log = out / "log.jsonl"
    while (not log.exists() or log.stat().st_size == 0) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (out / CHECKPOINT).exists()
    return Said(process.returncode, "\n".join(line for line in err.splitlines() if "it/s" not in line))


for _name, _code in (("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)):

    @fault(f"signal {_name}")
    def _(stage: Stage, name: str = _name, code: int = _code) -> tuple[Said, int, str]:
        return _signalled(stage, name), code, "to go on: python -m demos gan --quick --steps 400 --out"


# ------------------------------------------------------------------------------------------------ data


def _mnist(folder: Path, spoil: Callable[[bytes], bytes] | None, zipped: bool) -> Path:
    """MNIST's test files in form, with made-up digits; the images spoiled."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for kind, array in (
        ("images-idx3", draw.integers(0, 256, (200, 28, 28)).astype(np.uint8)),
        ("labels-idx1", (np.arange(200) % 10).astype(np.uint8)),
    ):
        data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        data = gzip.compress(data) if zipped else data
        if spoil is not None and kind == "images-idx3":
            data = spoil(data)
        (folder / f"t10k-{kind}-ubyte{'.gz' if zipped else ''}").write_bytes(data)
    return folder


def _with_data(stage: Stage, folder: Path) -> Said:
    return stage.demo("gan", stage.scratch / "data run", "--data", "mnist", "--data-dir", os.fspath(folder))


@fault("missing data")
def _(stage: Stage) -> tuple[Said, int, str]:
    (stage.scratch / "no data").mkdir()
    return _with_data(stage, stage.scratch / "no data"), 2, "MNIST train images not found in"


@fault("missing data folder")
def _(stage: Stage) -> tuple[Said, int, str]:
    return _with_data(stage, stage.scratch / "no such folder"), 2, "there is no such folder"


@fault("IDX file cut short")
def _(stage: Stage) -> tuple[Said, int, str]:
    folder = _mnist(stage.scratch / "cut idx", lambda data: data[:-1000], zipped=False)
    return _with_data(stage, folder), 2, "it is cut short; download it again"


@fault("one bit of an IDX file flipped")
def _(stage: Stage) -> tuple[Said, int, str]:
    at = 60_000
    spoil = lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    return _with_data(stage, _mnist(stage.scratch / "flipped idx", spoil, zipped=True)), 2, "damaged or cut short"


# ------------------------------------------------------------------------------------------------ main


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def main(arguments: list[str] | None = None) -> int:
    """Bring the faults about, print what is said, compare; 0 where all is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.faults", description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*", help="faults whose names contain one of these; default: all")
    options = parser.parse_args(arguments)
    print_facts("faults", options)
    failed = 0
    chosen = [name for name in FAULTS if not options.words or any(word in name for word in options.words)]
    with tempfile.TemporaryDirectory() as scratch:
        stage = Stage(Path(scratch))
        for name in chosen:
            print(f"\n{name}")
            try:
                said, code, words = FAULTS[name](stage)
            except NotImplementedError as error:
                print(f"  not shown: {error}")
                continue
            except AssertionError as error:
                failed += 1
                print(f"  FAILED: {error}")
                continue
            text = "\n".join(
                line for line in said.text.replace(scratch + os.sep, "").splitlines() if line and "it/s" not in line
            )
            print("  " + text.replace("\n", "\n  ") + f"\n  exit code {said.code}", flush=True)
            if said.code != code or words not in said.text or "Traceback" in said.text:
                failed += 1
                print(f"  FAILED: expected exit code {code} and the words {words!r}")
    print(f"\n{len(chosen)} faults, {failed} not as they should be")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())

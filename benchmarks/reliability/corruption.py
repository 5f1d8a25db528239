"""Corrupted files: is every one of them refused with a message, without a crash, a hang or a wrong number let through?

    python -m benchmarks.reliability.corruption                            2,000 files, under a minute or so
    python -m benchmarks.reliability.corruption --files 60                 a short version
    python -m benchmarks.reliability.corruption --mnist FOLDER             with the official test files of MNIST

The files are a training checkpoint (network, Adam, averaged weights, schedule, data order, generators), a state_dict of
tg.save, the same as safetensors, and IDX files, gzipped, and plain where they are the official ones. Each is damaged in
one of the ways of DAMAGES and then read by another process, which is watched: should it die or not answer in ten
seconds, that is a crash or a hang. Verdicts:

    refused     the reader's own error, which names the file; for checkpoints, no object has changed either
    harmless    the file was read, and all that it gave is what the undamaged file gives: a gzip has bits such as its
                date that nothing depends on; a safetensors file, names of notes that nobody reads
    ACCEPTED    it was read, and gave something else
    CRASH, HANG, and ERROR for an exception that is not the reader's own
"""

from __future__ import annotations

import argparse
import collections
import gzip
import hashlib
import json
import os
import random
import select
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tinygen as tg
from benchmarks.reliability.facts import print_facts
from tinygen.data import DataFileError, mnist
from tinygen.data.idx import read_idx
from tinygen.training import CheckpointError, load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 10.0  # seconds for one file
MEMORY = 4 << 30  # bytes that the reader may have: a damaged size must not ask for the whole machine

# ---------------------------------------------------------------------------------------------- damage


def truncate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """The file ends early, anywhere."""
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """One bit; one time in three near the beginning or the end, where headers and checksums are."""
    edge = rng.randrange(min(300, len(data)))
    at = rng.choice((rng.randrange(len(data)), edge, -1 - edge))
    out = bytearray(data)
    out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def flips(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Up to a hundred bits."""
    for _ in range(rng.randint(2, 100)):
        data = flip(data, rng, other)
    return data


def swap(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Two pieces of equal length change places."""
    n = rng.randint(1, max(1, min(4096, len(data) // 2)))
    i, j = sorted(rng.randrange(len(data) - n + 1) for _ in range(2))
    if j - i < n:
        j = min(i + n, len(data) - n)
    return data[:i] + data[j : j + n] + data[i + n : j] + data[i : i + n] + data[j + n :] if i + n <= j else data[::-1]


def zeros(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A block was never written, as after a power cut."""
    i, n = rng.randrange(len(data)), rng.choice((1, 16, 512, 4096))
    return data[:i] + bytes(len(data[i : i + n])) + data[i + n :]


def insert(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Bytes too many, in the middle or behind the end."""
    i = rng.choice((len(data), rng.randrange(len(data))))
    return data[:i] + rng.randbytes(rng.randint(1, 64)) + data[i:]


def delete(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Bytes too few, in the middle."""
    i = rng.randrange(len(data))
    return data[:i] + data[i + rng.randint(1, 64) :]


def splice(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """The first part of this file and the rest of another of its kind."""
    i = rng.randrange(1, min(len(data), len(other)))
    return data[:i] + other[i:]


def noise(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """The right beginning, then anything."""
    return data[: rng.randrange(64)] + rng.randbytes(rng.randrange(2048))


DAMAGES: tuple[Callable[[bytes, random.Random, bytes], bytes], ...] = (
    truncate, flip, flips, swap, zeros, insert, delete, splice, noise,
)  # fmt: skip


def swap_members(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """A zip whose two members have each other's contents, with right checksums in the zip: only a seal can tell."""
    with tempfile.TemporaryFile() as old, tempfile.TemporaryFile() as new:
        old.write(data)
        with zipfile.ZipFile(old) as a, zipfile.ZipFile(new, "w") as b:
            names = [name for name in a.namelist() if name.endswith(".npy")]
            i, j = rng.sample(names, 2)
            partner = {i: j, j: i}
            contents = {name: a.read(name) for name in a.namelist()}
            for name in contents:
                b.writestr(zipfile.ZipInfo(name), contents[partner.get(name, name)])
            b.comment = a.comment
        new.seek(0)
        return new.read()


# ----------------------------------------------------------------------------------------------- files


def objects() -> dict[str, Any]:
    """All that a demo's checkpoint holds, small."""
    rng = tg.Generator(0)
    nn = tg.nn
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10, rng=rng)
    )
    adam = tg.optim.Adam(model.parameters(), lr=1e-3)
    slower = tg.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=30)
    loader = tg.data.DataLoader(tg.data.digits("test"), batch_size=32, shuffle=True, rng=rng)
    ema = tg.optim.EMA(model, 0.9)
    return {"model": model, "adam": adam, "slower": slower, "ema": ema, "loader": loader, "rng": rng}


def make_originals(folder: Path, mnist_folder: Path | None) -> dict[str, list[Path]]:
    """kind → two undamaged files, the second for splices."""
    found: dict[str, list[Path]] = {}
    things = objects()
    batches = things["loader"].forever()
    for k in range(2):
        for _ in range(3):
            x, y = next(batches)
            loss = tg.nn.functional.cross_entropy(things["model"](x), y)
            things["adam"].zero_grad()
            loss.backward()
            things["adam"].step()
            things["slower"].step()
            things["ema"].update()
        save_checkpoint(folder / f"{k}.checkpoint", 3 * k + 3, things, {"seed": 0}, keep_previous=False)
        tg.save(things["model"].state_dict(), folder / f"{k}.save")
        tg.safetensors.save_file(things["model"].state_dict(), folder / f"{k}.safetensors")
        draw = np.random.default_rng(k)
        images = draw.integers(0, 256, (20, 28, 28)).astype(np.uint8) * (draw.random((20, 28, 28)) < 0.2)
        idx = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.astype(np.uint8).tobytes()
        (folder / f"{k}.idx.gz").write_bytes(gzip.compress(idx, mtime=0))
        if mnist_folder is not None:
            for kind, d in (("images", 3), ("labels", 1)):
                plain = gzip.decompress((mnist_folder / f"t10k-{kind}-idx{d}-ubyte.gz").read_bytes())
                if k == 1:  # of the same form, with other values
                    plain = plain[:16] + bytes(plain[16:][::-1])
                (folder / f"{k}.mnist-{kind}").write_bytes(plain)
    for path in sorted(folder.iterdir()):
        found.setdefault(path.name.partition(".")[2], []).append(path)
    return found


# ------------------------------------------------------------------------------- the process that reads


def digest(value: Any) -> str:
    """SHA-256 of a nested value, to the bit."""
    sha = hashlib.sha256()

    def add(x: Any) -> None:
        if isinstance(x, dict):
            for key in sorted(x, key=str):
                sha.update(f"[{key!r}]".encode())
                add(x[key])
        elif isinstance(x, (list, tuple)):
            for y in x:
                add(y)
        elif x is None or isinstance(x, (bool, int, float, str)):
            sha.update(repr(x).encode())
        else:
            array = np.asarray(x.data if isinstance(x, tg.Tensor) else x)
            sha.update(f"{array.dtype}{array.shape}".encode())
            sha.update(array.tobytes())

    add(value)
    return sha.hexdigest()


class Reader:
    """What the watched process does with one file of a kind."""

    def __init__(self, originals: Path) -> None:
        self.originals = originals
        self.things = objects()
        self.expected: dict[str, str] = {}

    def read(self, kind: str, path: Path) -> str:
        """The digest of what the file gives."""
        if kind == "checkpoint":
            step, meta, notes = load_checkpoint(path, self.things, {"seed": 0})
            return digest([step, meta, notes, {name: thing.state_dict() for name, thing in self.things.items()}])
        if kind == "save":
            return digest(tg.load(path))
        if kind == "safetensors":
            return digest(tg.safetensors.load_file(path))
        if kind == "idx.gz":
            return digest(read_idx(path))
        return self._mnist(kind, path)

    def _mnist(self, kind: str, path: Path) -> str:
        """The damaged file in the place of one of the two, by names that mnist() looks for."""
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            for each, d in (("images", 3), ("labels", 1)):
                whole = self.originals / f"0.mnist-{each}"
                os.symlink(path if kind.endswith(each) else whole, Path(folder) / f"t10k-{each}-idx{d}-ubyte")
            try:
                data = mnist(folder, "test")
            except DataFileError as error:
                raise DataFileError(str(error).replace(folder, f"({path})")) from error
        return digest([data.x, data.y])

    def verdict(self, kind: str, path: Path) -> tuple[str, str]:
        """The verdict and, where there is one, the message."""
        if kind not in self.expected:
            self.expected[kind] = self.read(kind, self.originals / f"0.{kind}")
        states = {name: thing.state_dict() for name, thing in self.things.items()} if kind == "checkpoint" else {}
        before = digest(states)
        try:
            found = self.read(kind, path)
        except (CheckpointError, DataFileError) as error:
            if str(path) not in str(error):
                return "ERROR", f"the message does not name the file: {error}"
            states = {name: thing.state_dict() for name, thing in self.things.items()} if states else {}
            return ("refused", str(error)) if digest(states) == before else ("ACCEPTED", "an object has changed")
        except BaseException as error:  # a panic in Rust is no Exception
            return "ERROR", f"{type(error).__name__}: {error}"
        return ("harmless", "") if found == self.expected[kind] else ("ACCEPTED", "other values")


def serve(originals: Path) -> None:
    """Answer lines of JSON, [kind, path] → [verdict, message], until the input ends."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    reader = Reader(originals)
    for line in sys.stdin:
        kind, path = json.loads(line)
        print(json.dumps(reader.verdict(kind, Path(path))), flush=True)


class Watched:
    """The reading process, started again after a crash or a hang."""

    def __init__(self, originals: Path) -> None:
        self.command = [sys.executable, "-m", "benchmarks.reliability.corruption", "--serve", os.fspath(originals)]
        self.process: subprocess.Popen[str] | None = None

    def ask(self, kind: str, path: Path) -> tuple[str, str]:
        """The verdict on one file."""
        fresh = self.process is None
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([kind, os.fspath(path)]) + "\n")
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE + 20 * fresh)
        line = self.process.stdout.readline() if ready else ""
        if line:
            verdict, message = json.loads(line)
            return verdict, message
        self.close()
        return ("CRASH", "the reader died") if ready else ("HANG", f"no answer in {PATIENCE:g} s")

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


# ------------------------------------------------------------------------------------------------ main


def main(arguments: list[str] | None = None) -> int:
    """Damage, read, print the table; 0 where every file was refused or harmless."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability.corruption", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--files", type=int, default=2000, metavar="N", help="how many, in all (default 2000)")
    parser.add_argument("--mnist", type=Path, metavar="FOLDER", help="where the official t10k-*.gz are")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default 0)")
    parser.add_argument("--serve", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        serve(options.serve)
        return 0
    print_facts("corruption", argparse.Namespace(files=options.files, mnist=bool(options.mnist), seed=options.seed))
    rng = random.Random(options.seed)
    table: dict[str, collections.Counter[str]] = {}
    example: dict[str, str] = {}
    bad, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as scratch:
        originals = Path(scratch) / "originals"
        originals.mkdir()
        found = make_originals(originals, options.mnist)
        kinds = list(found)
        reader = Watched(originals)
        try:
            for n in range(options.files):
                kind = kinds[n % len(kinds)]
                data, other = (path.read_bytes() for path in found[kind])
                damage = rng.choice((*DAMAGES, swap_members) if kind in ("checkpoint", "save") else DAMAGES)
                broken = data
                while broken in (data, other):  # pieces that change places may be equal
                    broken = damage(data, rng, other)
                path = Path(scratch) / f"broken.{kind}"
                path.write_bytes(broken)
                began = time.perf_counter()
                verdict, message = reader.ask(kind, path)
                slowest = max(slowest, (time.perf_counter() - began) * (n >= len(kinds)))
                table.setdefault(kind, collections.Counter())[verdict] += 1
                if message:
                    example.setdefault(f"{kind}, {damage.__name__}", message.replace(scratch + os.sep, ""))
                if verdict not in ("refused", "harmless"):
                    bad.append(f"{verdict}: {kind}, {damage.__name__}, file {n}: {message}")
        finally:
            reader.close()
    for kind, counts in table.items():
        print(f"  {kind:<14} {sum(counts.values()):5} files: {', '.join(f'{n} {v}' for v, n in counts.most_common())}")
    everything = sum(table.values(), collections.Counter[str]())
    print(f"in all {sum(everything.values())} files: {dict(everything)}; the slowest answer took {slowest:.2f} s")
    print("examples:")
    for kind in table:
        what = next((what for what in example if what.startswith(f"{kind},")), None)
        if what is not None:
            print(f"  {what}: {example[what]}")
    print("\n".join(bad[:20]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

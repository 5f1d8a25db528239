"""What takes a fresh process: peak memory, import, other numbers of threads."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import nets
from benchmarks.setting import Setting
from benchmarks.timing import Row, measure

_MEMORY = """
import sys
from benchmarks import device, nets, peers, works
library, family, batch, threads, place = sys.argv[1:]
peers.set_threads(int(threads))
device.DEVICES[place]().start()
found, why_not = peers.load([library])
if why_not:
    sys.exit(why_not[library])
peers.entering(found, int(threads))(library)

def kilobytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))

weights, x = nets.weights(family), works.images(int(batch))
before = kilobytes("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak so far
step = found[library].train(family, weights, x)
for _ in range(3):
    step()
print(kilobytes("VmHWM") - before)
"""

PATIENCE = 90  # seconds for three steps in a fresh process


def memory(setting: Setting) -> Iterator[Row]:
    """By how many bytes a network and three of its steps raise the peak of a fresh process (not times). Linux."""
    if not sys.platform.startswith("linux"):
        return
    for family in nets.FAMILIES:
        row = Row(family)
        for library in setting.quick_peers:
            command = [sys.executable, "-c", _MEMORY, library, family]
            command += [str(setting.batch), str(setting.threads), setting.device.name]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                row.why_not[library] = f"took longer than {PATIENCE} s"
                continue
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
                row.why_not[library] = last[0].removeprefix("benchmarks.peers.base.NotPossible: ")
            else:
                row.times[library] = [1024.0 * int(done.stdout.split()[-1])]
        yield row


IMPORTS = {"dezero": "import numpy; numpy.int = int; import dezero", "autograd": "import autograd.numpy"}


def imports(setting: Setting) -> Iterator[Row]:
    """A fresh process that imports the library, less one that does nothing; turn by turn."""
    row, nothing = Row("import"), []
    for _ in range(2 if setting.quick else 5):
        for library in ("", *setting.peers):
            began = time.perf_counter()
            code = IMPORTS.get(library, f"import {library}") if library else ""
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            took = time.perf_counter() - began
            if not library:
                nothing.append(took)
            elif done.returncode:
                row.why_not[library] = (done.stderr.strip().splitlines() or ["failed"])[-1]
            else:
                row.times.setdefault(library, []).append(took)
    base = statistics.median(nothing)
    row.times = {library: [max(t - base, 1e-6) for t in found] for library, found in row.times.items()}
    yield row


def threads(setting: Setting) -> Iterator[Row]:
    """The training steps with 1, 2, 4, … threads, each number in a process of its own: XLA reads it when it starts."""
    count, counts = 1, []
    while count < setting.threads:
        counts.append(count)
        count *= 2
    for count in [*counts, setting.threads]:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks", "steps", "--threads", str(count), "--out", folder]
            command += ["--peers", ",".join(setting.quick_peers), "--repeats", str(min(5, setting.turns))]
            command += ["--device", setting.device.name, "--plots", "no", *(["--quick"] if setting.quick else [])]
            subprocess.run(command, check=True, capture_output=True, text=True)
            results = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
        for found in results["rows"]["steps"]:
            found["name"] += f", threads {count}"
            yield Row(**found)


def rates(quick: bool = False) -> dict[str, float]:
    """The machine's own: FLOP/s of a large float32 matrix product, bytes/s of a large copy, of all threads together.

    The product is NumPy's own, by the threads that tinygen shares it among; the copy is NumPy's, in as many pieces as
    there are threads. Read and written bytes both count.
    """
    import tinygen as tg
    from tinygen.kernels.threads import get_num_threads, run

    n = 512 if quick else 2048
    a = tg.randn(n, n)
    x = np.ones(1 << (20 if quick else 25), np.float32)
    y = np.empty_like(x)
    pieces = list(zip(np.array_split(y, get_num_threads()), np.array_split(x, get_num_threads())))
    product = measure("product", {"tinygen": lambda: a @ a}, 2 if quick else 7)
    copy = measure("copy", {"tinygen": lambda: run([lambda p=p: np.copyto(*p) for p in pieces])}, 2 if quick else 7)
    # The best of the turns: a rate that the machine has shown, which nothing can exceed but by luck.
    return {
        "flops": 2 * n**3 / min(product.times["tinygen"]), "bytes": 2 * x.nbytes / min(copy.times["tinygen"]),
    }

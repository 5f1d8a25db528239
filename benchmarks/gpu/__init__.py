"""``python -m benchmarks --device cuda --report FILE``: everything that must be known about a GPU, in one run.

First whether what is computed there is right, kernel by kernel and step by step; then how fast it is beside PyTorch.
Each section is written to FILE as soon as it is done, and one that breaks leaves its traceback there and does not keep
the others from being done: a run that is cut off has told what it had found. The slow section (torch.compile) is last.

Times are of CUDA events around several steps, on the default stream; of several such turns, library by library in
turn, the median is told. ``exact`` is float32 throughout in both libraries; in ``tf32`` both may use TF32 for products
and convolutions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.gpu.functions import LAYERS, layers, pieces
from benchmarks.gpu.machine import machine
from benchmarks.gpu.models import sampling, steps_section
from benchmarks.gpu.report import Report, Table
from benchmarks.gpu.right import SHAPES, agreement, kernels
from tinygen.backend import cupy_problem


def asked(argv: Sequence[str] | None) -> bool:
    """Whether a command line of ``python -m benchmarks`` names a GPU."""
    words = list(sys.argv[1:] if argv is None else argv)
    return "--device=cuda" in words or any(a == "--device" and b == "cuda" for a, b in zip(words, words[1:]))


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks --device cuda", description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=("cuda",), default="cuda", help="a GPU, as CuPy finds it")
    parser.add_argument("--report", type=Path, default=Path("runs/benchmarks/gpu.md"), metavar="FILE",
                        help="what is written, in Markdown; figures go to the JSON file beside it")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small: to see that it runs; the figures say nothing")
    parser.add_argument("--repeats", type=int, default=7, help="turns of every library at every row (default 7)")
    parser.add_argument("--only", default="", help=f"of {', '.join(SECTIONS)}, with commas (default: all)")
    args = parser.parse_args(argv)
    args.only = [name.strip() for name in args.only.split(",") if name.strip()] or list(SECTIONS)
    if unknown := set(args.only) - set(SECTIONS):
        parser.error(f"--only: no section is called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if args.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {args.repeats}")
    if problem := cupy_problem():
        parser.exit(2, f"error: {problem}\n")
    return args


SECTIONS = ("machine", "kernels", "agreement", "steps", "layers", "pieces", "sampling", "tf32", "compiled")


def main(argv: Sequence[str] | None = None) -> int:
    """Do all sections, write the report; the exit code says whether one broke."""
    args = options(argv)
    args.report.parent.mkdir(parents=True, exist_ok=True)
    command = "python -m benchmarks --device cuda" + (" --quick" if args.quick else "")
    report = Report(args.report, command)
    figures = report.figures
    turns, least = (1, 0.001) if args.quick else (args.repeats, 0.15)
    size, sizes, batch = (8, (4,), 2) if args.quick else (28, (128, 512), 128)
    ways = ["tinygen", "tinygen, captured", "torch", "torch, graph"]
    chosen: dict[str, tuple[str, Callable[[], Iterator[str | Table]]]] = {
        "machine": ("Machine", machine),
        "kernels": ("Are the kernels right?", lambda: kernels(SHAPES[-2:] if args.quick else SHAPES)),
        "agreement": ("Do training steps agree?", lambda: agreement(size, 2, 4) if args.quick else agreement(size)),
        "steps": ("Training steps", lambda: steps_section(sizes, size, turns, least, ways, True, figures)),
        "layers": ("Convolutions by method", lambda: layers(
            turns, least, batch, figures, ((2, 3, 6, 3, 1, 1),) if args.quick else LAYERS)),
        "pieces": ("Single functions", lambda: pieces(turns, least, batch, figures)),
        "sampling": ("Sampling", lambda: sampling(
            turns, least, size, 8 if args.quick else 1000, 2 if args.quick else 50, figures)),
        "tf32": ("Training steps with TF32", lambda: steps_section(sizes, size, turns, least, ways, False, figures)),
        "compiled": ("Training steps beside torch.compile", lambda: steps_section(
            sizes, size, turns, least, ["tinygen, captured", "torch", "torch, compiled"], True, figures)),
    }  # fmt: skip
    for name in args.only:
        report.section(*chosen[name])
    if report.broken:
        print(f"broken: {', '.join(report.broken)}; see {args.report}", file=sys.stderr)
    print(args.report)
    return 1 if report.broken else 0

"""``python -m benchmarks``: run the parts, print their tables, write results.json and a picture of the ratios."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import peers, works
from benchmarks.timing import Row, geometric_mean
from tinygen.files import whole_file


def amount(part: str, value: float) -> str:
    """A time or a size for a reader."""
    if part == "memory":
        return f"{value / 2**20:.0f} MiB"
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def line(part: str, row: Row, rates: dict[str, float]) -> list[str]:
    """One row of a table, as text."""
    cells = [row.name, amount(part, row.seconds["tinygen"])]
    if "torch" in row.seconds:
        cpu = row.cpu_ratio("torch")
        cells += [amount(part, row.seconds["torch"]), f"{row.ratio('torch'):.2f}"]
        cells.append("" if math.isnan(cpu) else f"{cpu:.2f}")
        spread = max(row.spread.values(), default=math.nan)
        cells.append("" if math.isnan(spread) else f"±{50 * spread:.0f} %")
    if row.flops:
        cells.append(f"{100 * row.flops / row.seconds['tinygen'] / rates['flops']:.0f} % of matrix products")
    elif row.bytes:
        cells.append(f"{100 * row.bytes / row.seconds['tinygen'] / rates['bytes']:.0f} % of copies")
    return cells


def main(argv: list[str] | None = None) -> int:
    """Read the options, measure, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(works.PARTS)} (default: all)")
    parser.add_argument("--threads", type=int, default=2, help="of every library (default 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="where results.json and plots go")
    args = parser.parse_args(argv)
    unknown = set(args.parts) - set(works.PARTS)
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(works.PARTS)}")
    if args.threads < 1:
        parser.error(f"--threads must be at least 1, got {args.threads}")
    peers.set_threads(args.threads)
    about = peers.machine() | {"threads": str(args.threads)}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    rates = works.rates()
    print(f"matrix product {rates['flops'] / 1e9:.0f} GFLOP/s, copy {rates['bytes'] / 1e9:.1f} GB/s\n")
    found: dict[str, list[Row]] = {}
    for part in args.parts or works.PARTS:
        print(f"{part}: tinygen, torch, ratio (below 1 tinygen is ahead), ratio of processor time, half the spread")
        rows = found[part] = []
        for row in works.PARTS[part]():
            rows.append(row)
            name, *cells = line(part, row, rates)
            print(f"  {name:<42} " + "  ".join(f"{cell:>9}" for cell in cells), flush=True)
        if any("torch" in row.seconds for row in rows):
            wall = geometric_mean([row.ratio("torch") for row in rows])
            cpu = geometric_mean([row.cpu_ratio("torch") for row in rows])
            print(f"  {'geometric mean of the ratios':<42} {wall:.2f}, of processor time {cpu:.2f}\n")
    write(args.out, about, rates, found)
    return 0


def write(out: Path, about: dict[str, str], rates: dict[str, float], found: dict[str, list[Row]]) -> None:
    """results.json, and a bar for each ratio where matplotlib is installed."""
    out.mkdir(parents=True, exist_ok=True)
    results = {"machine": about, "rates": rates, **{part: [asdict(r) for r in rows] for part, rows in found.items()}}
    with whole_file(out / "results.json") as file:
        file.write((json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode())
    try:
        from tinygen import viz
    except ModuleNotFoundError:
        return
    for part, rows in found.items():
        bars = {row.name: row.ratio("torch") for row in rows if "torch" in row.seconds}
        if bars:
            viz.save_bars(out / f"{part}.png", bars, reference={"PyTorch": 1.0}, ylabel="time / PyTorch's", title=part)
    print(f"in {out}: results.json and a picture of each part")


if __name__ == "__main__":
    sys.exit(main())

"""``python -m benchmarks``: run the parts, print their tables, write report.md, results.json and plots."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import device, gpu, ops, peers, plots, processes, report, works
from benchmarks.setting import Part, Setting
from benchmarks.timing import Row

PARTS: dict[str, Part] = {
    "steps": works.steps, "sampling": works.sampling, "ops": ops.ops, "small": ops.small, "growth": works.growth,
    "threads": processes.threads, "memory": processes.memory, "import": processes.imports,
}


def options(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; what cannot be is an error that says what can."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="The same work in tinygen and in every other library installed here."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--peers", help=f"of {', '.join(peers.MAKERS)}, with commas (default: all that are installed)")
    parser.add_argument("--threads", type=int, default=2, help="of every library (default 2)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of every library at every row (default 7)")
    parser.add_argument("--quick", action="store_true", help="small: to see that it runs; the figures say little")
    parser.add_argument(
        "--thorough", action="store_true", help="all libraries in growth, threads and memory too, not PyTorch alone"
    )
    parser.add_argument("--device", choices=[*device.DEVICES, "cuda"], default="cpu",
                        help="where (default cpu); cuda has options of its own: --device cuda --help")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder of report, figures and plots")
    parser.add_argument(
        "--report", type=Path, metavar="FILE",
        help="put the tables into this Markdown file too: between its lines <!-- figures --> and <!-- /figures -->, "
        "where it has them, and the plots into the folder images beside it",
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="measure nothing; report on this results.json")
    parser.add_argument("--plots", choices=("yes", "no"), default="yes", help="draw plots (default yes)")
    args = parser.parse_args(argv)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    known = device.DEVICES[args.device].peers
    args.peers = args.peers.replace(" ", "").split(",") if args.peers else list(known)
    if unknown := set(args.peers) - set(known):
        names = ", ".join(known)
        parser.error(f"--peers: no peer is called {', '.join(sorted(unknown))} on {args.device}; there are {names}")
    args.peers = ["tinygen", *(name for name in known if name in args.peers and name != "tinygen")]
    for name in ("threads", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.report and not args.report.parent.is_dir():
        parser.error(f"--report {args.report}: there is no folder {args.report.parent}")
    if args.results and not args.results.is_file():
        parser.error(f"--results: there is no file {args.results}")
    return args


def bar(part: str, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, counted as they come: by tqdm where it is installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        for row in rows:
            print(f"{part}: {row.name}", file=sys.stderr, flush=True)
            yield row
        return
    with tqdm(rows, desc=part, unit=" rows", leave=False, disable=None) as counted:
        for row in counted:
            counted.set_postfix_str(row.name)
            yield row


def main(argv: list[str] | None = None) -> int:
    """Read the options, measure, print, write; returns the exit code."""
    if gpu.asked(argv):
        return gpu.main(argv)
    args = options(argv)
    if args.results:
        results = json.loads(args.results.read_text(encoding="utf-8"))
    else:
        results = run(args)
    rows = {part: [Row(**found) for found in rows] for part, rows in results["rows"].items()}
    if args.results:
        print(report.page(results, rows))
    else:
        print(report.summary(results, rows))
    for target in [args.out / "report.md", *([args.report] if args.report else [])]:
        target.parent.mkdir(parents=True, exist_ok=True)
        drawn = plots.draw(target.parent / "images", rows) if args.plots == "yes" else []
        report.write(target, report.page(results, rows, drawn))
    print(f"\n{args.out / 'report.md'}" + (f" and {args.report}" if args.report else ""), file=sys.stderr)
    return 0


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure; the results as they are written to results.json."""
    peers.set_threads(args.threads)
    place = device.DEVICES[args.device]()
    place.start()
    found, why_not = peers.load(args.peers)
    setting = Setting(found, why_not, place, args.threads, args.repeats, args.quick, args.thorough)
    about = {"date": date.today().isoformat(), "device": place.name}
    about |= peers.machine(list(found)) | {"threads": str(args.threads), "turns": str(args.repeats)}
    given = [f"--{name}" for name in ("quick", "thorough") if getattr(args, name)]
    given += ["--peers " + ",".join(args.peers[1:])] if args.peers != list(place.peers) else []
    about |= {"command": " ".join(["python -m benchmarks", *args.parts, *given])}  # threads and turns are told above
    if hasattr(os, "getloadavg"):
        about["load before"] = f"{os.getloadavg()[0]:.1f}"
        if os.getloadavg()[0] > 0.5:
            print("other programs run: the figures are not those of a machine of one's own", file=sys.stderr)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for name, why in why_not.items():
        print(f"{name}: {why}")
    results: dict[str, Any] = {"about": about, "why_not": why_not, "rates": processes.rates(args.quick), "rows": {}}
    print(report.rates(results))
    for part in args.parts or PARTS:
        rows: list[Row] = []
        stopped = False
        try:
            for row in bar(part, PARTS[part](setting)):
                rows.append(row)
        except KeyboardInterrupt:
            stopped = True
            print(f"\nstopped in {part}; what was measured is reported", file=sys.stderr)
        if rows:
            results["rows"][part] = [asdict(row) for row in rows]
            print("\n" + report.section(part, rows, results), flush=True)
        args.out.mkdir(parents=True, exist_ok=True)
        report.write(args.out / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n", whole=True)
        if stopped:
            break
    return results


if __name__ == "__main__":
    sys.exit(main())

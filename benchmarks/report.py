"""The tables, as Markdown, and where they are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import Row, geometric_mean
from tinygen.files import whole_file

TITLES = {
    "tinygen": "tinygen", "torch": "PyTorch", "jax": "JAX", "dezero": "DeZero", "mygrad": "MyGrad",
    "autograd": "autograd", "tinygrad": "tinygrad",
}
HEADINGS = {
    "steps": "Training steps", "sampling": "Sampling", "ops": "Single operations, forward and backward",
    "small": "Overhead: tiny tensors", "growth": "How a training step grows", "threads": "Threads",
    "memory": "Peak memory of a training step", "import": "Import",
}
BUSY = 0.5  # processes that want a processor, on average over a minute
KEY = (
    "In brackets: tinygen's median over that library's, below 1 where tinygen is ahead. *Of products*, *of copies*: "
    "the share of these two rates that tinygen reaches, by what the work costs at the least."
)
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def amount(part: str, value: float) -> str:
    """A time or a size for a reader."""
    if part == "memory":
        return f"{value / 2**20:.0f} MiB"
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def libraries(rows: Sequence[Row]) -> list[str]:
    """Those that did something, or could not, in the order of the peers."""
    there = {name for row in rows for name in (*row.times, *row.why_not)}
    return [name for name in TITLES if name in there] + sorted(there - set(TITLES))


def cell(part: str, row: Row, library: str) -> str:
    """The median, and what multiple of it tinygen took."""
    if not row.times.get(library):
        return "—"
    text = amount(part, row.seconds(library))
    if library == "tinygen" or math.isnan(row.ratio(library)):
        return text
    ratio = row.ratio(library)
    shown = f"{ratio:.2g}" if ratio < 0.095 else f"{ratio:.2f}"
    return f"{text} (**{shown}**)" if ratio > 1 else f"{text} ({shown})"


def table(part: str, rows: Sequence[Row], rates: Mapping[str, float]) -> str:
    """The rows of one part."""
    names = libraries(rows)
    with_spread = "torch" in names and any(not math.isnan(row.quartiles("torch")[0]) for row in rows)
    with_cpu = "torch" in names and any(not math.isnan(row.cpu_ratio("torch")) for row in rows)
    shares = [name for name in ("flops", "bytes") if any(getattr(row, name) for row in rows)]
    head = ["", *(TITLES.get(name, name) for name in names)]
    head += ["quartiles, PyTorch"] * with_spread + ["processor time, PyTorch"] * with_cpu
    head += [{"flops": "of products", "bytes": "of copies"}[name] for name in shares]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        cells = [row.name, *(cell(part, row, name) for name in names)]
        if with_spread:
            lower, upper = row.quartiles("torch")
            cells.append("" if math.isnan(lower) else f"{lower:.2f}–{upper:.2f}")
        if with_cpu:
            cells.append("" if math.isnan(row.cpu_ratio("torch")) else f"{row.cpu_ratio('torch'):.2f}")
        for name in shares:
            share = getattr(row, name) / row.seconds("tinygen") / rates[name]
            cells.append(f"{100 * share:.0f} %" if share > 0 else "")
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def section(part: str, rows: Sequence[Row], results: Mapping[str, Any]) -> str:
    """A heading, the table, the geometric means, and why some have no figure."""
    text = [f"### {HEADINGS.get(part, part)}", "", table(part, rows, results["rates"])]
    means = []
    for name in libraries(rows):
        ratios = [row.ratio(name) for row in rows]
        if name != "tinygen" and not math.isnan(geometric_mean(ratios)):
            means.append(f"{TITLES.get(name, name)} {geometric_mean(ratios):.2f}")
    if means and len(rows) > 1:
        text += ["", "Geometric mean of tinygen's share: " + ", ".join(means) + "."]
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, why in row.why_not.items():
            reasons.setdefault((name, why), []).append(row.name)
    for (name, why), where in reasons.items():
        at = "everywhere" if len(where) == len(rows) > 1 else ", ".join(where)
        text += ["", f"{TITLES.get(name, name)}, {at}: {why}."]
    return "\n".join(text)


def rates(results: Mapping[str, Any]) -> str:
    """The machine's own rates, in words."""
    found = results["rates"]
    return f"Matrix product {found['flops'] / 1e9:.0f} GFLOP/s, copy {found['bytes'] / 1e9:.1f} GB/s."


def summary(results: Mapping[str, Any], rows: Mapping[str, Sequence[Row]]) -> str:
    """What a reader wants to know first."""
    lines = []
    for part, what in (("steps", "training steps"), ("sampling", "sampling"), ("ops", "single operations"),
                       ("small", "tiny tensors"), ("growth", "other batches, sizes and widths"),
                       ("threads", "numbers of threads"), ("memory", "peak memory")):  # fmt: skip
        ratios = {row.name: row.ratio("torch") for row in rows.get(part, []) if not math.isnan(row.ratio("torch"))}
        if ratios:
            worst = max(ratios, key=lambda name: ratios[name])
            cpu = geometric_mean(row.cpu_ratio("torch") for row in rows[part])
            text = f"- {what}: {geometric_mean(ratios.values()):.2f} of PyTorch's"
            text += "" if math.isnan(cpu) else f" (processor time {cpu:.2f})"
            lines.append(f"{text}, geometric mean of {len(ratios)}; largest {ratios[worst]:.2f} ({worst})")
    behind, others = [], 0
    for found in rows.values():
        for row in found:
            for name in row.times:
                if name not in ("tinygen", "torch") and not math.isnan(row.ratio(name)):
                    others += 1
                    if row.ratio(name) > 1:
                        behind.append(f"{TITLES.get(name, name)} at {row.name} ({row.ratio(name):.2f})")
    if others:
        lines.append(f"- ahead of the other peers in {others - len(behind)} of {others} figures; behind "
                     + (", ".join(behind) or "in none"))  # fmt: skip
    return "\n".join(lines)


def page(results: Mapping[str, Any], rows: Mapping[str, Sequence[Row]], plots: Sequence[Path] = ()) -> str:
    """All of it."""
    about = results["about"]
    text = [f"`{about['command']}` on {about['date']}: " + ", ".join(
        f"{name} {value}" for name, value in about.items() if name not in ("command", "date")
    ) + ".", "", rates(results)]  # fmt: skip
    if float(about.get("load before", 0)) > BUSY:
        text += ["", f"**Other programs ran on the machine (load {about['load before']}): no figures to quote.**"]
    text += ["", KEY]
    for name, why in results["why_not"].items():
        text += ["", f"{TITLES.get(name, name)}: {why}."]
    text += ["", summary(results, rows)]
    for part, found in rows.items():
        text += ["", section(part, found, results)]
        for plot in plots:
            if plot.stem.split("-")[1] == part:
                text += ["", f"![{HEADINGS.get(part, part)}](images/{plot.name})"]
    return "\n".join(text) + "\n"


def write(path: Path, text: str, whole: bool = False) -> None:
    """Write the file, or what is between its two marks where it has them; whole or not at all."""
    if not whole and path.is_file():
        old = path.read_text(encoding="utf-8")
        if BEGIN in old and END in old:
            before, _, rest = old.partition(BEGIN)
            text = f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}"
    with whole_file(path) as file:
        file.write(text.encode())

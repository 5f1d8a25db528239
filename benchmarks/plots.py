"""Pictures of the tables: each library beside tinygen, and how a training step grows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.report import HEADINGS, TITLES, libraries
from benchmarks.timing import Row

GROWS = re.compile(r"(.+), (\w+) (\d+)$")


def draw(folder: Path, rows: Mapping[str, Sequence[Row]]) -> list[Path]:
    """Draw what there is to draw; the files. None where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for part, found in rows.items():
        if part in ("growth", "threads"):
            drawn.append(growth(folder / f"speed-{part}.png", found))
        elif any(len(row.times) > 1 for row in found):
            drawn.append(beside(folder / f"speed-{part}.png", part, found))
    return drawn


def beside(path: Path, part: str, rows: Sequence[Row]) -> Path:
    """A line for each work, a dot for each library: its time over tinygen's, so right of 1 tinygen is ahead."""
    from tinygen.viz.canvas import PALETTE, new_figure, plain_axes, save_figure

    names = [name for name in libraries(rows) if name != "tinygen" and any(row.times.get(name) for row in rows)]
    figure = new_figure(7.6, 1.3 + 0.27 * len(rows))
    axes = figure.add_subplot()
    what = "memory" if part == "memory" else "time"
    plain_axes(axes, f"{what}, as a multiple of tinygen's (right of 1: tinygen takes less)", "", HEADINGS[part])
    for y, row in enumerate(reversed(rows)):
        known = [1 / row.ratio(name) for name in names if row.times.get(name)]
        axes.plot([min([1, *known]), max([1, *known])], [y, y], color="0.88", linewidth=4, zorder=1)
    for i, name in enumerate(names):
        points = [(1 / row.ratio(name), y) for y, row in enumerate(reversed(rows)) if row.times.get(name)]
        color = PALETTE[(i + 1) % len(PALETTE)]
        axes.scatter(*zip(*points), s=26, color=color, label=TITLES.get(name, name), zorder=3)
    axes.axvline(1, color=PALETTE[0], linewidth=1.5, zorder=2)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    axes.xaxis.set_major_formatter(lambda x, position: f"{x:g}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    save_figure(path, figure)
    return path


def growth(path: Path, rows: Sequence[Row]) -> Path:
    """A panel for each family and each thing that grows: milliseconds a step, both axes logarithmic."""
    from tinygen.viz.canvas import PALETTE, new_figure, plain_axes, save_figure

    curves: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        if match := GROWS.match(row.name):
            family, what, value = match.groups()
            for name in row.times:
                points = curves.setdefault((family, what), {}).setdefault(name, [])
                points.append((int(value), 1e3 * row.seconds(name)))
    families, things = list(dict.fromkeys(f for f, _ in curves)), list(dict.fromkeys(w for _, w in curves))
    names = libraries(rows)
    across, down = (len(families), len(things))
    figure = new_figure(2.5 * across + 0.6, 2.1 * down + 0.5)
    for i, what in enumerate(things):
        for j, family in enumerate(families):
            axes = figure.add_subplot(down, across, i * across + j + 1)
            plain_axes(axes, what, "ms a step" if j == 0 else "", family if i == 0 else "")
            found = curves.get((family, what), {})
            for name, points in found.items():
                color = PALETTE[names.index(name) % len(PALETTE)]
                axes.plot(*zip(*points), "o-", color=color, markersize=3.5, label=TITLES.get(name, name))
            ticks = sorted({x for points in found.values() for x, _ in points})
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(ticks, [str(x) for x in ticks])
            axes.minorticks_off()
            low = [y for points in found.values() for _, y in points if math.isfinite(y)]
            axes.yaxis.set_major_formatter(lambda y, position: f"{y:g}")
            if low and max(low) < 10 * min(low):  # less than a decade: name the ends, where no power of ten is
                ends = [min(low), max(low)]
                axes.set_yticks(ends, [f"{float(format(y, '.3g')):g}" for y in ends])  # 1660, not 1.66e+03
            if i == j == 0:
                axes.legend(frameon=False)
    save_figure(path, figure)
    return path

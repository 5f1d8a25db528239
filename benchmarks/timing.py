"""Timing that can be believed on a busy machine: everything in one run, turn by turn, medians of several turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Work = Callable[[], object]


@dataclass
class Row:
    """One piece of work, done by each library.

    Attributes:
        name: of the work.
        seconds: library → the median time of one execution.
        cpu: library → the median of the processors' time, all threads together: what a busy machine changes least.
        spread: library → (largest − smallest) / median over the turns.
        flops, bytes: what the work costs at the least, for the share of the machine's rates; 0 where that is moot.
    """

    name: str
    seconds: dict[str, float]
    cpu: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0
    bytes: float = 0.0

    def ratio(self, peer: str, ours: str = "tinygen") -> float:
        """Our time over the peer's; NaN where the peer did not run."""
        return _ratio(self.seconds, ours, peer)

    def cpu_ratio(self, peer: str, ours: str = "tinygen") -> float:
        """The same of the processors' time."""
        return _ratio(self.cpu, ours, peer)


def _ratio(times: dict[str, float], ours: str, peer: str) -> float:
    return times[ours] / times[peer] if times.get(peer) else math.nan


def measure(
    name: str, works: Mapping[str, Work], turns: int = 7, least: float = 0.05, flops: float = 0.0, bytes: float = 0.0
) -> Row:
    """Time each library's work, the libraries in turn, so that what else the machine does falls on all of them.

    Args:
        works: library → the work. Each is done twice before the clock starts.
        turns: how many times each has its turn; the median is taken.
        least: seconds of a turn at the least; short work is repeated within it.

    Raises:
        ValueError: there is no work.
    """
    if not works:
        raise ValueError(f"measure: no library can do {name}")
    times: dict[str, list[tuple[float, float]]] = {library: [] for library in works}
    repeats = {}
    for library, work in works.items():
        work()
        began = time.perf_counter()
        work()
        repeats[library] = max(1, math.ceil(least / max(time.perf_counter() - began, 1e-7)))
    for _ in range(turns):
        for library, work in works.items():
            n, began, cpu = repeats[library], time.perf_counter(), time.process_time()
            for _ in range(n):
                work()
            times[library].append(((time.perf_counter() - began) / n, (time.process_time() - cpu) / n))
    wall = {library: [t for t, _ in found] for library, found in times.items()}
    medians = {library: statistics.median(found) for library, found in wall.items()}
    cpu_medians = {library: statistics.median(t for _, t in found) for library, found in times.items()}
    spread = {library: (max(found) - min(found)) / medians[library] for library, found in wall.items()}
    return Row(name, medians, cpu_medians, spread, flops, bytes)


def geometric_mean(ratios: list[float]) -> float:
    """exp(mean of ln r): the mean for which a half and a double cancel; NaNs are left out."""
    known = [math.log(r) for r in ratios if not math.isnan(r)]
    return math.exp(statistics.fmean(known)) if known else math.nan

"""Timing that can be believed on a busy machine: everything in one run, turn by turn, medians of several turns."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.device import CPU
from benchmarks.peers.base import NotPossible

Work = Callable[[], object]


@dataclass
class Row:
    """One piece of work, done by each library.

    Attributes:
        name: of the work.
        times: library → seconds of one execution, one figure for each turn (bytes, in the rows of memory).
        cpu: library → the same of the processors' time, all threads together: what a busy machine changes least.
        why_not: library → why it has no figure here.
        flops, bytes: what the work costs at the least, for the share of the machine's rates; 0 where that is moot.
    """

    name: str
    times: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    why_not: dict[str, str] = field(default_factory=dict)
    flops: float = 0.0
    bytes: float = 0.0

    def seconds(self, library: str) -> float:
        """The median over the turns; NaN where the library did not run."""
        return statistics.median(self.times[library]) if self.times.get(library) else math.nan

    def ratio(self, peer: str, ours: str = "tinygen") -> float:
        """Our median time over the peer's; NaN where one did not run."""
        return self.seconds(ours) / self.seconds(peer)

    def cpu_ratio(self, peer: str, ours: str = "tinygen") -> float:
        """The same of the processors' time."""
        if not (self.cpu.get(ours) and self.cpu.get(peer)):
            return math.nan
        return statistics.median(self.cpu[ours]) / (statistics.median(self.cpu[peer]) or math.nan)

    def quartiles(self, peer: str, ours: str = "tinygen") -> tuple[float, float]:
        """The lower and upper quartile of the ratio, turn by turn; NaNs where there are fewer than three turns."""
        ratios = [a / b for a, b in zip(self.times.get(ours, []), self.times.get(peer, []))]
        if len(ratios) < 3:
            return math.nan, math.nan
        lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return lower, upper


def measure(
    name: str, works: Mapping[str, Work], turns: int = 7, least: float = 0.05, longest: float = 8.0,
    enter: Callable[[str], None] | None = None, device: CPU | None = None, flops: float = 0.0, bytes: float = 0.0,
) -> Row:
    """Time each library's work, the libraries in turn, so that what else the machine does falls on all of them.

    A library whose work fails is left out of the row, with the reason.

    Args:
        works: library → the work. Each is done twice before the clock starts, and a short one once before each turn.
        turns: how many times each has its turn; the median is taken.
        least: seconds of a turn at the least; short work is repeated within it.
        longest: seconds for which a library may work at this row; a slow one has fewer turns, one at the least.
        enter: called with the library's name before each of its turns, outside the clock.
        device: takes the time; the processor where it is None.

    Raises:
        ValueError: there is no work.
    """
    if not works:
        raise ValueError(f"measure: no library can do {name}")
    device, enter = device or CPU(), enter or (lambda library: None)
    row = Row(name, flops=flops, bytes=bytes)
    repeats, left = {}, {}
    for library, work in works.items():
        enter(library)
        try:
            began = time.perf_counter()
            work()
            wall, cpu = device.time(work, 1)
        except NotPossible as error:
            row.why_not[library] = f"{error.said}: {error}"
            continue
        except Exception as error:  # a peer that fails is reported; the others go on
            row.why_not[library] = f"failed: {type(error).__name__}: {error}".strip().splitlines()[0]
            continue
        repeats[library] = max(1, math.ceil(least / max(wall, 1e-7)))
        left[library] = min(turns, int(longest / max(wall * (repeats[library] + 1), 1e-7)))
        row.times[library], row.cpu[library] = [], []
        if left[library] < 1 or time.perf_counter() - began > 3 * longest:
            row.times[library], row.cpu[library], left[library] = [wall], [cpu], 0
    for turn in range(turns):
        for library, work in works.items():
            if turn < left.get(library, 0):
                enter(library)
                gc.collect()
                device.settle()
                if row.times[library] == [] or row.times[library][0] < 0.3:
                    work()  # its data back into the caches, its threads awake
                wall, cpu = device.time(work, repeats[library])
                row.times[library].append(wall)
                row.cpu[library].append(cpu)
    return row


def geometric_mean(ratios: Iterable[float]) -> float:
    """exp(mean of ln r): the mean for which a half and a double cancel; NaNs are left out."""
    known = [math.log(r) for r in ratios if not math.isnan(r)]
    return math.exp(statistics.fmean(known)) if known else math.nan

"""Where the work is done, and how its time is taken there. Another kind of device is another class and one line."""

from __future__ import annotations

import time
from collections.abc import Callable


class CPU:
    """The processor: a work is over when it returns, and the clocks are the wall's and the process's."""

    name = "cpu"
    peers: tuple[str, ...] = ("tinygen", "torch", "jax", "dezero", "mygrad", "autograd", "tinygrad")

    def start(self) -> None:
        """Make tensors live here by default, before any work is made."""

    def time(self, work: Callable[[], object], repeats: int) -> tuple[float, float]:
        """Do the work so often; seconds of the clock, and of all the processors together, for one execution."""
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - began) / repeats, (time.process_time() - cpu) / repeats

    def settle(self) -> None:
        """Between two libraries' turns: idle OpenMP and OpenBLAS threads spin for a while, on cores others need."""
        time.sleep(0.03)


DEVICES: dict[str, type[CPU]] = {"cpu": CPU}

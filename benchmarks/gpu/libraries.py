"""tinygen and PyTorch on the same GPU: where they compute, how exactly, for how long, and the same training in both."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tinygen as tg
from benchmarks import nets
from tinygen.backend import module_for

Work = Callable[[], Any]


def torch_or_none() -> Any:
    """PyTorch where it is installed with CUDA, else None."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    return torch if torch.cuda.is_available() else None


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """TF32 allowed in both libraries, or in neither."""
    torch = torch_or_none()
    before = tg.cuda.allow_tf32(on)
    if torch is not None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        tg.cuda.allow_tf32(before)


def event_time(library: str, work: Work, steps: int) -> float:
    """Seconds of one execution, by events around ``steps`` of them."""
    if library.startswith("torch"):
        torch = torch_or_none()
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(steps):
            work()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / steps
    cp = module_for("cuda")
    first, last = cp.cuda.Event(), cp.cuda.Event()
    first.record()
    for _ in range(steps):
        work()
    last.record()
    last.synchronize()
    return cp.cuda.get_elapsed_time(first, last) / 1e3 / steps


def compare(works: dict[str, Work], turns: int, least: float) -> tuple[dict[str, float], dict[str, str]]:
    """Library → the median time of one execution, all in turn; and library → why it has none."""
    steps: dict[str, int] = {}
    problems: dict[str, str] = {}
    for name, work in works.items():
        try:
            for _ in range(5):  # compile, warm up, capture
                work()
            once = max(event_time(name, work, 2), 1e-6)
            steps[name] = max(3, min(500, int(least / once)))
        except Exception as error:
            problems[name] = f"{type(error).__name__}: {str(error)[:300]}"
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, n in steps.items():
            try:
                found[name].append(event_time(name, works[name], n))
            except Exception as error:
                problems[name] = f"{type(error).__name__}: {str(error)[:300]}"
    return {name: statistics.median(times) for name, times in found.items() if times}, problems


@contextmanager
def default_device(place: str) -> Iterator[None]:
    """Both libraries make tensors there."""
    torch = torch_or_none()
    before = tg.get_default_device()
    tg.set_default_device(place)
    if torch is not None:
        torch.set_default_device(place)
    try:
        yield
    finally:
        tg.set_default_device(before)
        if torch is not None:
            torch.set_default_device("cpu")


def clean() -> None:
    """Give back the memory that nobody holds, in both libraries."""
    gc.collect()
    tg.cuda.empty_cache()
    torch = torch_or_none()
    if torch is not None:
        torch.cuda.empty_cache()


def images(batch: int, size: int) -> np.ndarray:
    """Noise (batch, 1, size, size) in [0, 1)."""
    return np.random.default_rng(0).random((batch, 1, size, size), dtype=np.float32)


def training_on_gpu(library: str, family: str, x: np.ndarray, weights: dict[str, np.ndarray]) -> nets.Training:
    """A family's training on the GPU, with given weights."""
    if library == "tinygen":
        training = nets.FAMILIES[family](tg, tg.tensor(x, device="cuda"))
        training.net.load_state_dict({name: tg.tensor(w) for name, w in weights.items()})
        return training
    torch = torch_or_none()
    lib = _Torch(torch) if library == "torch, graph" else torch
    training = nets.FAMILIES[family](lib, torch.from_numpy(x).cuda())
    training.net.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    return training


class _Torch:
    """PyTorch with an Adam that can be captured in a graph."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.optim = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def Adam(self, parameters: Any, **options: Any) -> Any:
        """Its step count on the device."""
        return self._torch.optim.Adam(parameters, capturable=True, **options)

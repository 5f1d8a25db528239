"""Which libraries are there to compare with, and with how many threads they compute."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import tinygen
from benchmarks.peers.base import Peer
from tinygen.kernels.threads import set_num_threads

MAKERS = {
    "tinygen": "benchmarks.peers.same_lines:tinygen_peer",
    "torch": "benchmarks.peers.same_lines:torch_peer",
    "jax": "benchmarks.peers.with_jax:peer",
    "dezero": "benchmarks.peers.with_dezero:peer",
    "mygrad": "benchmarks.peers.with_mygrad:peer",
    "autograd": "benchmarks.peers.with_autograd:peer",
    "tinygrad": "benchmarks.peers.with_tinygrad:peer",
}
"""Name → where it is made. A library is imported only there, so that a missing one hinders nobody."""


def load(names: Sequence[str] = tuple(MAKERS)) -> tuple[dict[str, Peer], dict[str, str]]:
    """The libraries of these names that can be imported, and why the others cannot."""
    found, why_not = {}, {}
    for name in names:
        module, _, maker = MAKERS[name].partition(":")
        try:
            found[name] = getattr(importlib.import_module(module), maker)()
        except ModuleNotFoundError as error:
            why_not[name] = f"not installed ({error})"
        except Exception as error:  # an old peer under a new NumPy may raise anything
            why_not[name] = f"cannot be imported: {type(error).__name__}: {error}"
    return found, why_not


def set_threads(count: int) -> None:
    """Let all of them compute with so many threads.

    XLA and tinygrad take as many as the process may use cores, when they are first imported; so the process is held
    to as many cores as threads, where the system can do that. Call this before :func:`load`.
    """
    set_num_threads(count)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:count])


def entering(peers: dict[str, Peer], count: int) -> Callable[[str], None]:
    """What to call before a library's turn: NumPy's BLAS gets its threads, or one where it has its own.

    (tinygen leaves OpenBLAS one thread and shares large products among its own, for the whole process.)
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:
        return lambda library: None
    blas = ThreadpoolController().select(user_api="blas", internal_api="openblas")

    def enter(library: str) -> None:
        for pool in blas.lib_controllers:
            pool.set_num_threads(count if library in peers and peers[library].blas else 1)

    return enter


def machine(names: Sequence[str] = tuple(MAKERS)) -> dict[str, str]:
    """What a reader must know to read the figures: processor, system, versions."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"processor": _processor(), "cores": str(usable), "python": sys.version.split()[0]}
    found |= {"system": f"{platform.system()} {platform.release()}", "numpy": np.__version__}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = tinygen.__version__ if name == "tinygen" else "not installed"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()

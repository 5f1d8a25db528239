"""Which libraries are there to compare with, and with how many threads they compute."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from typing import Any

import numpy as np

import tinygen
from tinygen.kernels.threads import set_num_threads


def torch_or_none() -> Any:
    """PyTorch, or None where it is not installed."""
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError:
        return None


def libraries() -> dict[str, Any]:
    """tinygen, and PyTorch where it is installed: the two that the same lines of nets.py run on."""
    torch = torch_or_none()
    return {"tinygen": tinygen} if torch is None else {"tinygen": tinygen, "torch": torch}


def set_threads(count: int) -> None:
    """Let all of them compute with so many threads."""
    set_num_threads(count)
    torch = torch_or_none()
    if torch is not None:
        torch.set_num_threads(count)


def machine() -> dict[str, str]:
    """What a reader must know to read the figures: processor, system, versions."""
    found = {"processor": _processor(), "cores": str(os.cpu_count()), "python": sys.version.split()[0]}
    found |= {"system": f"{platform.system()} {platform.release()}", "numpy": np.__version__}
    for name in ("tinygen", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = tinygen.__version__ if name == "tinygen" else "not installed"
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()

"""What was measured on: the GPU, the driver, the versions."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

import tinygen as tg
from benchmarks.gpu.libraries import torch_or_none
from benchmarks.gpu.report import Table
from tinygen.backend import module_for


def machine() -> Iterator[str | Table]:
    """The GPU, the driver, the versions."""
    about = {"GPU": tg.cuda.get_device_name(), "Python": sys.version.split()[0], "system": platform.platform()}
    cp = module_for("cuda")
    about |= {"NumPy": np.__version__, "CuPy": str(getattr(cp, "__version__", "the stand-in"))}
    about |= {"tinygen": tg.__version__, "CUDA runtime": str(cp.cuda.runtime.runtimeGetVersion())}
    about |= {"CUDA driver": str(cp.cuda.runtime.driverGetVersion())}
    torch = torch_or_none()
    about["PyTorch"] = "not here, or without CUDA" if torch is None else torch.__version__
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,power.limit,memory.total", "--format=csv"]
        about["nvidia-smi"] = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()[-200:]
    except (OSError, subprocess.SubprocessError) as error:
        about["nvidia-smi"] = str(error)
    yield ["", ""], [[name, value.replace("\n", "; ")] for name, value in about.items()]
    yield f"```\n{tg.cuda.memory_summary()}\n```"

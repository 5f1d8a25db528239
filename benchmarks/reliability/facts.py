"""What a figure needs beside it: the command, the date, the machine and the versions."""

from __future__ import annotations

import argparse
import datetime
import os
import platform

import numpy as np

import tinygen as tg


def print_facts(name: str, options: argparse.Namespace) -> None:
    """Print them in four lines."""
    words = " ".join(f"{key}={value}" for key, value in vars(options).items())
    print(f"benchmarks.reliability.{name}: {words}")
    print(f"  {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores, "
          f"{platform.system()} {platform.release()}")  # fmt: skip
    print(f"  Python {platform.python_version()}, NumPy {np.__version__}, tinygen {tg.__version__}, "
          f"OPENBLAS_NUM_THREADS={os.environ.get('OPENBLAS_NUM_THREADS', 'unset')}", flush=True)  # fmt: skip


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine() or "unknown processor"

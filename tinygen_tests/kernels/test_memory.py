"""Freed memory stays with the process: the second of two equal computations takes no page faults."""

import os
import subprocess
import sys

import pytest

from tinygen.kernels.memory import keep_freed_memory

pytestmark = pytest.mark.cpu_only("about the C library's allocator")

PROGRAM = """
import resource
import numpy as np
import tinygen
from tinygen.kernels import memory

def chain():
    x = np.ones(1 << 20, np.float32)
    for _ in range(5):
        x = x * 2 + x
    return x

for _ in range(3):
    chain()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    chain()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, memory.keep_freed_memory())
"""


def faults(**environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    count, told = done.stdout.split()
    return int(count), told == "True"


@pytest.mark.skipif(not keep_freed_memory(), reason="glibc's malloc is not what this process uses, or is set already")
def test_memory_is_used_again_unless_the_user_has_chosen():
    count, told = faults()
    assert told and count < 100
    count, told = faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert not told and count > 1000


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_nothing_happens_elsewhere(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert not keep_freed_memory()


def test_nothing_happens_where_the_library_is_missing(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr("tinygen.kernels.memory.ctypes.CDLL", missing)
    assert not keep_freed_memory()

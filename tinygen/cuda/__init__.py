"""GPUs: whether there are any, what memory they have left, how exactly they multiply, and steps recorded as graphs.

Every function can be asked on any machine; where there is no GPU, those that need one say what is missing.
"""

from __future__ import annotations

from typing import Any

from tinygen import device_memory
from tinygen.backend import CaptureError, DeviceError, cupy_problem, device, module_for
from tinygen.cuda.graphs import Captured, capture
from tinygen.device_memory import OutOfMemoryError
from tinygen.kernels.gpu import blas

__all__ = [
    "CaptureError", "Captured", "OutOfMemoryError", "allow_tf32", "capture", "current_device", "device_count",
    "empty_cache", "get_device_name", "is_available", "max_memory_allocated", "mem_get_info", "memory_allocated",
    "memory_reserved", "memory_summary", "reset_peak_memory_stats", "synchronize", "tf32_allowed",
]  # fmt: skip


def is_available() -> bool:
    """Whether a GPU can be used: CuPy is installed and finds one. Source: ``torch.cuda.is_available``."""
    return cupy_problem() is None


def device_count() -> int:
    """The number of GPUs that can be used; 0 without CuPy. Source: ``torch.cuda.device_count``."""
    return _cupy("device_count").cuda.runtime.getDeviceCount() if is_available() else 0


def current_device() -> int:
    """The number of the GPU that ``"cuda"`` means. Source: ``torch.cuda.current_device``.

    Raises:
        DeviceError: there is no GPU.
    """
    return int(_cupy("current_device").cuda.runtime.getDevice())


def get_device_name(device: str | int | None = None) -> str:
    """A GPU's name, as its maker gives it. Source: ``torch.cuda.get_device_name``.

    Args:
        device: ``"cuda:1"`` or 1; the current one where omitted.

    Raises:
        DeviceError: there is no such GPU.
    """
    xp = _cupy("get_device_name")
    name = xp.cuda.runtime.getDeviceProperties(_number(device))["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def synchronize() -> None:
    """Wait until the GPU has finished what it was given. Source: ``torch.cuda.synchronize``.

    Raises:
        DeviceError: there is no GPU to wait for.
    """
    _cupy("synchronize").cuda.runtime.deviceSynchronize()


# ---------------------------------------------------------------------------------------------- memory


def mem_get_info() -> tuple[int, int]:
    """(free, total) bytes of the current GPU, all programs on it together. Source: ``torch.cuda.mem_get_info``.

    Raises:
        DeviceError: there is no GPU.
    """
    free, total = _cupy("mem_get_info").cuda.runtime.memGetInfo()
    return int(free), int(total)


def memory_allocated() -> int:
    """Bytes that arrays hold, those of captured steps not counted. Source: ``torch.cuda.memory_allocated``.

    Raises:
        DeviceError: there is no GPU.
    """
    return int(_cupy("memory_allocated").get_default_memory_pool().used_bytes())


def memory_reserved() -> int:
    """Bytes that CuPy's pool keeps, for arrays and for arrays to come. Source: ``torch.cuda.memory_reserved``.

    Raises:
        DeviceError: there is no GPU.
    """
    return int(_cupy("memory_reserved").get_default_memory_pool().total_bytes())


def max_memory_allocated() -> int:
    """The most bytes that arrays held at a time, since the start or :func:`reset_peak_memory_stats`.

    Raises:
        DeviceError: there is no GPU.

    Source: ``torch.cuda.max_memory_allocated``.
    """
    return device_memory.watch(_cupy("max_memory_allocated")).peak


def reset_peak_memory_stats() -> None:
    """Begin anew to watch for the peak. Source: ``torch.cuda.reset_peak_memory_stats``.

    Raises:
        DeviceError: there is no GPU.
    """
    device_memory.watch(_cupy("reset_peak_memory_stats")).reset()


def empty_cache() -> None:
    """Give the memory back that CuPy's pool keeps for arrays to come. Source: ``torch.cuda.empty_cache``.

    Raises:
        DeviceError: there is no GPU.
    """
    _cupy("empty_cache").get_default_memory_pool().free_all_blocks()


def memory_summary() -> str:
    """A few lines for a reader: the GPU, its free memory, what arrays hold and held at most, and what the pool keeps.

    Raises:
        DeviceError: there is no GPU.

    Source: ``torch.cuda.memory_summary``.
    """
    free, total = mem_get_info()
    amount, spare = device_memory.amount, memory_reserved() - memory_allocated()
    rows = {
        f"cuda:{current_device()}": get_device_name(),
        "memory": f"{amount(free)} free of {amount(total)}",
        "arrays": amount(memory_allocated()),
        "at most": amount(max_memory_allocated()),
        "pool": f"{amount(memory_reserved())}, {amount(spare)} of it for arrays to come",
    }
    return "\n".join(f"{name:<8} {value}" for name, value in rows.items())


# ------------------------------------------------------------------------------------------ arithmetic


def allow_tf32(on: bool = True) -> bool:
    """Let matrix products and convolutions of float32 be computed in TF32 on the tensor cores. Off at the start.

    TF32 keeps float32's range and 10 of its 23 bits: products are wrong in the third or fourth digit, and several
    times as fast. What is captured in a graph stays as it was captured. (PyTorch spells it
    ``torch.backends.cuda.matmul.allow_tf32`` and allows it for convolutions at the start.)

    Args:
        on: whether it is allowed.

    Returns: whether it was allowed before.

    Raises:
        TypeError: ``on`` is no boolean.
    """
    if not isinstance(on, bool):
        raise TypeError(f"allow_tf32: expected True or False, got {on!r}")
    return blas.allow_tf32(on)


def tf32_allowed() -> bool:
    """Whether float32 products may be computed in TF32 (see :func:`allow_tf32`)."""
    return blas.tf32_allowed()


def _cupy(who: str) -> Any:
    problem = cupy_problem()
    if problem is not None:
        raise DeviceError(f"cuda.{who}: {problem}")
    return module_for("cuda")


def _number(place: str | int | None) -> int:
    if place is None:
        return current_device()
    number = place if isinstance(place, int) else device(place).index
    return current_device() if number is None else number

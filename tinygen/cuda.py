"""What can be asked about GPUs, whether or not there is one."""

from __future__ import annotations

from typing import Any

from tinygen.backend import DeviceError, cupy_problem, module_for


def is_available() -> bool:
    """Whether a GPU can be used: CuPy is installed and finds one. Source: ``torch.cuda.is_available``."""
    return cupy_problem() is None


def device_count() -> int:
    """The number of GPUs that can be used; 0 without CuPy. Source: ``torch.cuda.device_count``."""
    return _runtime().getDeviceCount() if is_available() else 0


def synchronize() -> None:
    """Wait until the GPU has finished what it was given. Source: ``torch.cuda.synchronize``.

    Raises:
        DeviceError: there is no GPU to wait for.
    """
    problem = cupy_problem()
    if problem is not None:
        raise DeviceError(f"cuda.synchronize: {problem}")
    _runtime().deviceSynchronize()


def _runtime() -> Any:
    return module_for("cuda").cuda.runtime

"""Which array library an array belongs to, where it lives, and what type its numbers have.

tinygen computes with whatever array it is handed: a NumPy array is computed by NumPy on the CPU, a CuPy array
by CuPy on the GPU. Nothing is swapped globally. This file is the only place that knows both libraries by
name; everything above it asks :func:`array_module`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from contextvars import ContextVar
from typing import Any

import numpy as np

from tinygen.defaults import Default
from tinygen.device_memory import watch

# ---------------------------------------------------------------------------------------------- dtypes

float16 = np.dtype("float16")
float32 = np.dtype("float32")
float64 = np.dtype("float64")
int32 = np.dtype("int32")
int64 = np.dtype("int64")
uint8 = np.dtype("uint8")
bool_ = np.dtype("bool")

_default_dtype = Default("default dtype", float32)


def get_default_dtype() -> np.dtype:
    """The floating dtype that Python numbers become: float32 unless :func:`set_default_dtype` said otherwise."""
    return _default_dtype.get()


def set_default_dtype(dtype: Any) -> None:
    """Set the floating dtype that Python numbers become, for the whole process, as in PyTorch.

    In a thread other than the main one, or in an asyncio task, it is set for that thread or task alone.

    Args:
        dtype: ``tg.float16``, ``tg.float32`` or ``tg.float64``.

    Raises:
        TypeError: dtype is not one of the three.

    Source: ``torch.set_default_dtype``.
    """
    dtype = as_dtype(dtype)
    if dtype not in (float16, float32, float64):
        raise TypeError(f"set_default_dtype: expected float16, float32 or float64, got {dtype}")
    _default_dtype.set(dtype)


def as_dtype(dtype: Any) -> np.dtype:
    """Read a dtype given as ``tg.float32``, a NumPy dtype or type, a string, or a Python type.

    ``float`` means the default dtype, as Python numbers do; ``int`` is int64 and ``bool`` is bool.

    Raises:
        TypeError: it is none of these, or a type that holds no numbers.
    """
    if dtype is float:
        return get_default_dtype()
    if dtype is None:  # which NumPy reads as float64
        raise TypeError("expected a dtype such as tg.float32 or 'int64', got None")
    try:
        result = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"expected a dtype such as tg.float32 or 'int64', got {dtype!r}") from error
    if result.kind not in "biufc":
        raise TypeError(f"expected a numeric dtype such as tg.float32, got {result}")
    return result


# --------------------------------------------------------------------------------------------- devices


class DeviceError(RuntimeError):
    """Arrays on different devices met in one operation, or a device that is not there was asked for."""


class CaptureError(RuntimeError):
    """A step cannot be recorded as a CUDA graph, or a recorded one was called with what it was not recorded for."""


# The recording of a CUDA graph that is under way in this thread (tinygen.cuda.graphs.Recorder), or None. What keeps
# numbers on the host that change from step to step (a step count, a learning rate) asks it for a place on the device.
capture: ContextVar[Any] = ContextVar("capture", default=None)


class device(str):
    """A place where arrays live: ``"cpu"``, ``"cuda"`` (the current GPU) or ``"cuda:1"``.

    It is a string, so it prints and compares as one; ``type`` and ``index`` are its two parts (index is None
    for ``"cpu"`` and ``"cuda"``).

    Raises:
        ValueError: the name is none of these.

    Source: ``torch.device``.
    """

    __slots__ = ()

    def __new__(cls, name: str = "cpu", index: int | None = None) -> device:
        text = str(name) if index is None else f"{name}:{index}"
        kind, colon, number = text.partition(":")
        if kind not in ("cpu", "cuda") or (colon and not (number.isascii() and number.isdigit())):
            raise ValueError(f'device: expected "cpu", "cuda" or "cuda:N", got {text!r}')
        return super().__new__(cls, "cpu" if kind == "cpu" else text)

    @property
    def type(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:  # type: ignore[override]
        """The GPU's number, or None where none was named."""
        number = self.partition(":")[2]
        return int(number) if number else None


_device = device  # the name is also an argument's, as in PyTorch
CPU = device("cpu")
_default_device = Default("default device", CPU)


def get_default_device() -> device:
    """The device on which tensors are made when none is named."""
    return _default_device.get()


def set_default_device(device: str) -> None:
    """Set the device on which tensors are made when none is named, for the whole process.

    In a thread other than the main one, or in an asyncio task, it is set for that thread or task alone.

    Raises:
        DeviceError: a GPU is asked for and cannot be used (the message says why).
        ValueError: the name is not a device's.

    Source: ``torch.set_default_device``.
    """
    target = _device(device)
    module_for(target)
    _default_device.set(target)


# ------------------------------------------------------------------------------------ array libraries

# array type → (the module that computes with it, the kind of device it lives on)
_libraries: dict[type, tuple[Any, str]] = {np.ndarray: (np, "cpu"), np.memmap: (np, "cpu")}


def register_library(array_type: type, module: Any, device_type: str) -> None:
    """Teach tinygen another array library: arrays of ``array_type`` are computed by ``module``.

    Args:
        array_type: the class of its arrays.
        module: a module with NumPy's names.
        device_type: ``"cpu"`` or ``"cuda"``; what ``Tensor.device`` reports. The library registered last is the one
            that makes the arrays of its device. One for ``"cuda"`` also has what CuPy moves arrays with:
            ``array.device.id``, ``array.get()`` and ``module.cuda.Device(n)``.
    """
    _libraries.pop(array_type, None)
    _libraries[array_type] = (module, device_type)


def unregister_library(array_type: type) -> None:
    """Undo :func:`register_library`: arrays of ``array_type`` are no longer computed with."""
    _libraries.pop(array_type, None)


def _gpu_library() -> Any:
    """The library registered last for ``"cuda"``, or None."""
    return next((module for module, kind in reversed(_libraries.values()) if kind == "cuda"), None)


def _library_of(array: Any) -> tuple[Any, str]:
    found = _libraries.get(type(array))
    if found is None:
        for base in type(array).__mro__:
            if base in _libraries:
                found = _libraries[base]
            elif base.__module__.partition(".")[0] == "cupy" and base.__name__ == "ndarray":
                found = (importlib.import_module("cupy"), "cuda")
            if found is not None:
                _libraries[type(array)] = found
                break
    if found is None:
        raise TypeError(
            f"expected a NumPy or CuPy array, got {type(array).__module__}.{type(array).__name__}; "
            "wrap Python numbers and lists with tg.tensor(...)"
        )
    return found


def array_module(array: Any) -> Any:
    """The library that computes with ``array``: the module ``numpy`` or ``cupy``.

    Raises:
        TypeError: ``array`` is neither library's.
    """
    if type(array) is np.ndarray:
        return np
    return _library_of(array)[0]


def is_array(value: Any) -> bool:
    """Whether ``value`` is an array of a library that tinygen computes with."""
    if type(value) in _libraries:
        return True
    try:
        _library_of(value)
    except TypeError:
        return False
    return True


_gpus: dict[int, device] = {}  # made once: an optimizer asks for each parameter's at each step


def device_of(array: Any) -> device:
    """The device on which ``array`` lives."""
    if type(array) is np.ndarray:
        return CPU
    _, kind = _library_of(array)
    if kind == "cpu":
        return CPU
    number = array.device.id
    found = _gpus.get(number)
    if found is None:
        found = _gpus[number] = device("cuda", number)
    return found


_OLDEST_CUPY = 14  # the first on NumPy 2's semantics


def cupy_problem() -> str | None:
    """Why CuPy cannot be used here, as a sentence that says what to do; None where it, or its stand-in, can be."""
    if _gpu_library() is not None:
        return None
    if importlib.util.find_spec("cupy") is None:
        return (
            "CuPy is not installed; for a GPU install it with "
            'python -m pip install "tinygen[cuda12x]" (or cuda13x, to match the driver)'
        )
    try:
        cupy: Any = importlib.import_module("cupy")
    except Exception as error:  # whatever its binary parts raise
        return f"CuPy is installed but cannot be imported: {error}"
    version = str(getattr(cupy, "__version__", _OLDEST_CUPY))
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < _OLDEST_CUPY:
        return (
            f"CuPy {version} is installed, and tinygen needs {_OLDEST_CUPY} or newer; "
            'python -m pip install --upgrade "tinygen[cuda12x]" (or cuda13x) brings it'
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises its own types, which exist only once it can be imported
        return f"CuPy is installed but no GPU can be used: {_about_driver(str(error))}"
    return None if count > 0 else "CuPy is installed but no GPU was found"


def _about_driver(text: str) -> str:
    """CUDA's message, with what to do about it."""
    if "NoDevice" in text or "libcuda" in text or "driver" in text.lower():
        return f"{text}; is there an NVIDIA GPU, with a driver new enough for this CuPy? (nvidia-smi shows both)"
    return text


_forked = False  # whether this process was forked from one that had used CUDA


def _note_fork() -> None:
    global _forked
    _forked = any(kind == "cuda" and module.__name__ == "cupy" for module, kind in _libraries.values())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def module_for(name: str) -> Any:
    """The array library of a device: NumPy for ``"cpu"``, CuPy for ``"cuda"``.

    Raises:
        DeviceError: a GPU is asked for, and CuPy is missing, finds none, or none of that number; or the process was
            forked from one that used CUDA.
    """
    target = device(name)
    if target.type == "cpu":
        return np
    if _forked:
        raise DeviceError(
            f'device "{target}" was asked for in a forked process, and CUDA, once used, does not work in those; '
            'start processes with multiprocessing.get_context("spawn")'
        )
    library = _gpu_library()
    if library is None:
        problem = cupy_problem()
        if problem is not None:
            raise DeviceError(f'device "{target}" was asked for, but {problem}')
        library = importlib.import_module("cupy")
        _libraries[library.ndarray] = (library, "cuda")
        watch(library)
    if target.index is not None:
        count = library.cuda.runtime.getDeviceCount()
        if target.index >= count:
            raise DeviceError(f'device "{target}" was asked for, but the last of {count} GPUs is "cuda:{count - 1}"')
    return library


def move(array: Any, name: str) -> Any:
    """``array`` on another device; the same array where it is there already.

    Raises:
        DeviceError: the device cannot be used.
    """
    target = device(name)
    here = device_of(array)
    if here == target or (target.type == here.type and target.index is None):
        return array
    if target.type == "cpu":
        return array.get()
    module = module_for(target)
    if target.index is None:
        return _placed(module, array)
    with module.cuda.Device(target.index):
        return _placed(module, array)


def _placed(module: Any, array: Any) -> Any:
    """On the current GPU; a single number goes as a kernel's argument, which needs no copy from the host."""
    if type(array) is np.ndarray and array.ndim == 0:
        return module.full((), array[()], dtype=array.dtype)
    return module.asarray(array)


def to_numpy(array: Any) -> np.ndarray:
    """``array`` as a NumPy array: itself on the CPU, a copy from the GPU."""
    return array if isinstance(array, np.ndarray) else move(array, "cpu")

"""The module that stands in for ``cupy``: CuPy's names, and those alone.

A name that CuPy does not list is an AttributeError. One that is written out in functions.py, cuda.py or random.py is
taken from there; any other is computed by NumPy's function of the name, with CuPy's parameters, no host arrays, and
the result in C order. What NumPy has not, or does for the host (files, printing, callbacks), is a NotImplementedError,
to be written when somebody needs it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from tinygen.testing.strict import cuda, functions, kernels, random
from tinygen.testing.strict.array import ndarray
from tinygen.testing.strict.cublas import stand_in_cublas
from tinygen.testing.strict.memory import PYTHON, fresh, quiet, wrap
from tinygen.testing.strict.names import Entry, members
from tinygen.testing.strict.syncs import synchronised
from tinygen.testing.strict.tape import recorded

# Functions that only call the method of their first argument (cupy/_math/sumprod.py and others).
_METHODS = {
    name: name
    for name in "sum prod mean var std max min ptp argmax argmin all any cumsum cumprod trace clip round argsort "
    "ravel squeeze swapaxes diagonal take nonzero repeat searchsorted dot".split()
} | {"amax": "max", "amin": "min", "around": "round"}
# Their parameters that the methods call otherwise.
_RENAMED = {"a_min": "min", "a_max": "max"}

# Functions of host numbers, which need no device array among their arguments.
_OF_NUMBERS = set(
    "tri tril_indices triu_indices indices diag_indices ix_ identity eye linspace logspace bartlett blackman hamming "
    "hanning kaiser meshgrid broadcast_shapes result_type promote_types can_cast min_scalar_type issubdtype isscalar "
    "isdtype common_type mintypecode typename base_repr binary_repr obj2sctype shape ndim fftfreq rfftfreq".split()
)

# Results whose size the host must be told, so that it waits (CuPy's documentation: "may synchronize the device").
_SYNCHRONISING = set(
    "unique unique_all unique_counts unique_inverse unique_values bincount extract compress trim_zeros setdiff1d "
    "union1d intersect1d setxor1d delete histogram digitize".split()
)

# For the host: files, text, callbacks.
_REFUSED = set(
    "apply_along_axis apply_over_axes array2string array_repr array_str disp format_float_positional "
    "format_float_scientific frombuffer fromfile fromfunction fromiter fromstring fuse genfromtxt get_printoptions "
    "load loadtxt piecewise place printoptions putmask resize safe_eval save savetxt savez savez_compressed "
    "set_printoptions show_config show_runtime vectorize who asarray_chkfinite".split()
)


class Library(ModuleType):
    """A module or submodule of the stand-in.

    Args:
        path: its name in CuPy, such as ``cupy.linalg``.
        own: what is written out for it: a name → the thing itself.
        numpy: NumPy's module of the same meaning, or None.
    """

    def __init__(self, path: str, own: dict[str, Any], numpy: Any) -> None:
        super().__init__(path, f"tinygen's strict stand-in for {path}")
        self.__dict__.update({"_path": path, "_own": own, "_numpy": numpy})

    def __getattr__(self, name: str) -> Any:
        entry = members(self._path).get(name)
        if entry is None:
            raise AttributeError(f"module {self._path!r} has no attribute {name!r}: CuPy 14.2 does not have it")
        value = self._find(name, entry)
        if isinstance(value, FunctionType) and not self._path.startswith("cupy.cuda"):
            value = recorded(value)
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        return sorted(members(self._path))

    def _find(self, name: str, entry: Entry) -> Any:
        if name in self._own:
            return self._own[name]
        known = hasattr(self._numpy, name) and name not in _REFUSED
        if known and entry.kind == "ufunc" and isinstance(getattr(self._numpy, name), np.ufunc):
            return functions.ufunc(name)
        if known and entry.kind in ("function", "ufunc"):
            return _by_numpy(name, entry, getattr(self._numpy, name))
        if known and entry.kind in ("class", "value"):
            return getattr(self._numpy, name)
        raise NotImplementedError(f"CuPy has {self._path}.{name}; tinygen's strict stand-in does not have it yet")


def _by_numpy(name: str, entry: Entry, function: Callable) -> Callable:
    """NumPy's function between CuPy's parameters and CuPy's results."""
    signature = entry.signature() if entry.parameters else None
    method = _METHODS.get(name)

    @functools.wraps(function, assigned=("__name__", "__doc__"), updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = None
        if signature is not None:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"cupy.{name}(): {error}; CuPy's is cupy.{name}{entry.parameters}") from None
        sources = list(_arrays((args, kwargs)))
        if not sources and name not in _OF_NUMBERS:
            raise TypeError(f"cupy.{name}: Unsupported type {type(args[0]) if args else None}")
        if method is not None and bound is not None:
            array, *rest = bound.arguments.items()
            if isinstance(array[1], ndarray):
                return getattr(array[1], method)(**{_RENAMED.get(k, k): v for k, v in rest})
        if name in _SYNCHRONISING:
            synchronised(name)
        with quiet():
            return _device(function(*_host(args), **_host(kwargs)), sources)

    return call


def _arrays(value: Any) -> Iterator[ndarray]:
    """The device arrays in an argument.

    Raises:
        TypeError: there is a host array in it.
    """
    if isinstance(value, ndarray):
        yield value
    elif isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _arrays(part)


def _host(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._raw
    if isinstance(value, dict):
        return {key: _host(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_host(part) for part in value)
    return value


def _device(value: Any, sources: list[ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        return wrap(value, *sources)
    if isinstance(value, np.generic):
        return fresh(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_device(part, sources) for part in value))
    if isinstance(value, (list, tuple)) and not all(isinstance(part, PYTHON) for part in value):
        return type(value)(_device(part, sources) for part in value)
    return value


def _public(module: ModuleType, path: str) -> dict[str, Any]:
    """What a file writes out of the names that CuPy lists."""
    return {name: value for name, value in vars(module).items() if name in members(path)}


def build() -> Library:
    """The whole stand-in, as code finds it under ``array_module(x)``."""
    strides = Library("cupy.lib.stride_tricks", {"as_strided": functions.as_strided}, np.lib.stride_tricks)
    parts = {
        "ndarray": ndarray,
        "ufunc": functions.ufunc,
        "linalg": Library("cupy.linalg", {}, np.linalg),
        "fft": Library("cupy.fft", {}, np.fft),
        "lib": Library("cupy.lib", {"stride_tricks": strides}, None),
        "random": Library("cupy.random", _public(random, "cupy.random"), None),
        "cuda": Library("cupy.cuda", _public(cuda, "cupy.cuda"), None),
        "get_default_memory_pool": functions.get_default_memory_pool,
        "is_available": cuda.is_available,
    }
    if kernels.COMPILER is not None:
        parts |= {"RawModule": kernels.RawModule, "RawKernel": kernels.RawKernel}
    whole = Library("cupy", {**_public(functions, "cupy"), **parts}, np)
    if kernels.COMPILER is not None:
        whole.__dict__["stand_in_cublas"] = stand_in_cublas  # no name of CuPy's: kernels/gpu/blas.py asks for it
    return whole

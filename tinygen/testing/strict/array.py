"""``cupy.ndarray`` on NumPy memory: what CuPy 14.2's arrays do, and nothing that they do not.

The NumPy array is inside (``_raw``), out of NumPy's reach: every way by which NumPy takes foreign objects apart is
closed, as CuPy closes it. One thing is stricter here. CuPy sends ``np.maximum(x, y)`` on to ``cupy.maximum``; here a
NumPy function called on a device array is an error, because code that names NumPy where it should ask
``array_module(x)`` works by luck, and only until a host array or NumPy's own default enters.

Source: cupy/_core/core.pyx and _kernel.pyx of CuPy 14.2.0. What was found there and is copied:

- every ufunc and reduction allocates its result in C order, whatever the order of its operands; ``copy``, ``astype``,
  ``empty_like`` and the like keep the order under ``order="K"``, and ``copy()`` is C order by default;
- reductions and ``x[0, 1]`` give arrays of no axes;
- ``x[slice] = host_array`` is refused; ``base`` is the owner of the memory, None for it itself;
- there is no ``__index__``, ``__contains__``, ``__imatmul__``, ``__array_interface__``, ``setflags``, ``resize``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from tinygen.testing.strict import indexing
from tinygen.testing.strict.arithmetic import Operators, Reductions
from tinygen.testing.strict.cuda import Device
from tinygen.testing.strict.memory import (
    PYTHON,
    complain_numpy,
    define,
    fresh,
    garbage,
    inside,
    into,
    one_value,
    operand,
    owned,
    quiet,
    stable,
    supported,
    without_copy,
    wrap,
)
from tinygen.testing.strict.names import members
from tinygen.testing.strict.syncs import synchronised
from tinygen.testing.strict.tape import record_methods, refuse


class Flags:
    """The three facts about memory that CuPy's ``flags`` knows."""

    def __init__(self, raw: np.ndarray, owndata: bool) -> None:
        self.c_contiguous = raw.flags.c_contiguous
        self.f_contiguous = raw.flags.f_contiguous
        self.owndata = owndata
        self.fnc = self.f_contiguous and not self.c_contiguous
        self.forc = self.f_contiguous or self.c_contiguous

    def __getitem__(self, name: str) -> bool:
        return getattr(self, name.lower())


class MemoryPointer:
    """``x.data``: where the numbers lie, and on which device."""

    def __init__(self, ptr: int) -> None:
        self.ptr = ptr
        self.device_id = 0


@define
class ndarray(Reductions, Operators):
    """An array on the pretended device.

    Args:
        shape, dtype, order: as in CuPy; the numbers are not initialised.

    Raises:
        ValueError: the dtype is not supported.
        NotImplementedError: memory of somebody else's is given.
    """

    __slots__ = ()
    __array_priority__ = 100
    __hash__ = None

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: Any = "C"
    ) -> None:
        if memptr is not None or strides is not None:
            raise NotImplementedError("the strict stand-in makes no array from a memory pointer or strides")
        self._raw = np.full(shape, garbage(supported(dtype)), dtype, order=order or "C")
        self.base = None

    def __getattr__(self, name: str) -> Any:
        if name in members("cupy.ndarray") and not name.startswith("__"):
            raise NotImplementedError(f"CuPy has ndarray.{name}; tinygen's strict stand-in does not have it yet")
        raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")

    # -- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self._raw.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._raw = without_copy(self._raw, shape)

    @property
    def dtype(self) -> np.dtype:
        return self._raw.dtype

    @property
    def ndim(self) -> int:
        return self._raw.ndim

    @property
    def size(self) -> int:
        return self._raw.size

    @property
    def itemsize(self) -> int:
        return self._raw.itemsize

    @property
    def nbytes(self) -> int:
        return self._raw.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        return self._raw.strides

    @property
    def flags(self) -> Flags:
        return Flags(self._raw, self.base is None)

    @property
    def data(self) -> MemoryPointer:
        return MemoryPointer(self._raw.__array_interface__["data"][0])

    @property
    def device(self) -> Any:
        return Device(0)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    # -- to the host

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        if self.size:
            synchronised("get")
        if out is not None:
            out[...] = self._raw
            return out
        return np.array(self._raw, order=order, copy=True)  # type: ignore[call-overload]

    def item(self) -> Any:
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        synchronised("item")
        return self._raw.item()

    def tolist(self) -> Any:
        synchronised("tolist")
        return self._raw.tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        synchronised("tobytes")
        return self._raw.tobytes(order)

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        refuse("H2D transfers")
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        self._raw[...] = arr

    def __bool__(self) -> bool:
        if self.size == 0:
            warnings.warn("The truth value of an empty array is ambiguous.", DeprecationWarning, stacklevel=2)
            return False
        if self.size > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. Use a.any() or a.all()"
            )
        synchronised("bool")
        return bool(self._raw)

    def __int__(self) -> int:
        synchronised("int")
        return int(self._raw)

    def __float__(self) -> float:
        synchronised("float")
        return float(self._raw)

    def __complex__(self) -> complex:
        synchronised("complex")
        return complex(self._raw)

    def __repr__(self) -> str:
        synchronised("repr")
        return repr(self._raw)

    def __str__(self) -> str:
        synchronised("str")
        return str(self._raw)

    def __format__(self, spec: str) -> str:
        synchronised("format")
        return format(self._raw, spec)

    def __iter__(self) -> Iterator[ndarray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """What NumPy hands over: ``np.float32(2) * x`` is right, a host array or a NumPy function by name is not."""
        for x in (*inputs, *options.get("out", ())):
            if isinstance(x, np.ndarray):
                raise TypeError(f"Unsupported type {type(x)}")
            if not isinstance(x, (ndarray, np.generic, *PYTHON)):
                return NotImplemented
        if method == "__call__" and not options and any(isinstance(x, np.generic) for x in inputs):
            with quiet():
                return fresh(function(*map(operand, inputs), order="C"))
        complain_numpy(function.__name__)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        complain_numpy(function.__name__)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0  # kDLCUDA

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        raise BufferError("the strict stand-in's memory is on no device that DLPack knows")

    # -- other order, dtype, place

    def astype(
        self, dtype: Any, order: Any = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        if casting is not None:
            raise TypeError("casting is not supported yet")
        if subok is not None:
            raise TypeError("subok is not supported yet")
        dtype = supported(dtype)
        with quiet():
            raw = self._raw.astype(dtype, order=order or "K", copy=bool(copy))
        return self if raw is self._raw else owned(raw)

    def copy(self, order: Any = "C") -> ndarray:
        return owned(self._raw.copy(order))

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def __reduce__(self) -> Any:
        raise NotImplementedError("the strict stand-in's arrays are not pickled")

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:
        return wrap(self._raw.view() if dtype is None else self._raw.view(dtype), self)

    def fill(self, value: Any) -> None:
        self._raw[...] = value._raw if isinstance(value, ndarray) else one_value(value, self.dtype)

    def reshape(self, *shape: Any, order: Any = "C", copy: Any = None) -> ndarray:
        wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if copy is False:
            return wrap(without_copy(self._raw, wanted, order), self)
        out = wrap(self._raw.reshape(wanted, order=order), self)
        return out.copy() if copy and out.base is not None else out

    def ravel(self, order: Any = "C") -> ndarray:
        return wrap(self._raw.ravel(order), self)

    def flatten(self, order: Any = "C") -> ndarray:
        return owned(self._raw.flatten(order))

    def transpose(self, *axes: Any) -> ndarray:
        return wrap(self._raw.transpose(*axes), self)

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        return wrap(self._raw.swapaxes(axis1, axis2), self)

    def squeeze(self, axis: Any = None) -> ndarray:
        raw = self._raw.squeeze(axis)
        return self if raw.ndim == self.ndim else wrap(raw, self)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> ndarray:
        return wrap(self._raw.diagonal(offset, axis1, axis2), self)

    @property
    def T(self) -> ndarray:
        return self if self.ndim < 2 else wrap(self._raw.T, self)

    @property
    def mT(self) -> ndarray:
        if self.ndim < 2:
            raise ValueError("matrix transpose with ndim < 2 is undefined")
        return self.swapaxes(-1, -2)

    @property
    def real(self) -> ndarray:
        return wrap(self._raw.real, self) if self.dtype.kind == "c" else self

    @real.setter
    def real(self, value: Any) -> None:
        self._raw.real = operand(value)

    @property
    def imag(self) -> ndarray:
        return wrap(self._raw.imag, self) if self.dtype.kind == "c" else owned(np.zeros_like(self._raw))

    @imag.setter
    def imag(self, value: Any) -> None:
        self._raw.imag = operand(value)

    def conj(self) -> ndarray:
        return fresh(np.conj(self._raw, order="C")) if self.dtype.kind == "c" else self

    conjugate = conj

    # -- parts

    def _index(self, slices: Any) -> indexing.Index:
        return indexing.prepare(slices, self.shape, inside)

    def __getitem__(self, slices: Any) -> ndarray:
        index = self._index(slices)
        if index.mask:
            synchronised("mask")
        part = self._raw[index.parts]
        return wrap(part, self)

    def __setitem__(self, slices: Any, value: Any) -> None:
        index = self._index(slices)
        if index.mask:
            synchronised("mask")
        if isinstance(value, ndarray):
            raw = value._raw
        elif index.arrays:
            refuse("H2D transfers")
            raw = np.asarray(value, dtype=self.dtype)  # copied to the device
        else:
            raw = one_value(value, self.dtype)
        with quiet():
            indexing.assign(self._raw, index, raw)

    def take(self, indices: Any, axis: Any = None, out: Any = None) -> ndarray:
        raw = inside(indices)
        if raw is None:
            refuse("H2D transfers")
            raw = np.asarray(indices, dtype=int)
        length = self.size if axis is None else self.shape[axis]
        if length == 0 and raw.size:
            raise IndexError("cannot do a non-empty take from an empty axes.")
        return into(self._raw.take(raw % length if length else raw, axis), out)

    def put(self, indices: Any, values: Any, mode: str = "wrap") -> None:
        if mode != "wrap":
            raise NotImplementedError(f"the strict stand-in has put(mode='wrap') alone, not {mode!r}")
        flat = self.reshape(-1)
        flat[indices if isinstance(indices, ndarray) else np.asarray(indices)] = values
        if flat.base is None:
            self._raw[...] = flat._raw.reshape(self.shape)

    def nonzero(self) -> tuple[ndarray, ...]:
        if self.ndim == 0:
            raise ValueError("Calling nonzero on 0d arrays is not allowed. Use cp.atleast_1d(scalar).nonzero()")
        synchronised("nonzero")
        return tuple(fresh(places) for places in self._raw.nonzero())

    def compress(self, condition: Any, axis: Any = None, out: Any = None) -> ndarray:
        synchronised("compress")
        return into(self._raw.compress(operand(condition), axis), out)

    def repeat(self, repeats: Any, axis: Any = None) -> ndarray:
        if isinstance(repeats, ndarray):
            synchronised("repeat")
        return fresh(self._raw.repeat(operand(repeats) if not isinstance(repeats, (list, tuple)) else repeats, axis))

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        stable(kind)
        if not self._raw.flags.c_contiguous:
            raise NotImplementedError("Sorting non-contiguous array is not supported.")
        self._raw.sort(axis, kind="stable")

    def argsort(self, axis: Any = -1, kind: Any = None) -> ndarray:
        stable(kind)
        return fresh(self._raw.argsort(axis, kind="stable"))

    def searchsorted(self, v: Any, side: Any = "left", sorter: Any = None) -> ndarray:
        return fresh(self._raw.searchsorted(operand(v), side, None if sorter is None else operand(sorter)))


# What is asked of arrays' contents is no work of the device, and refused while a graph is captured.
record_methods(ndarray, skip=("get", "item", "tolist", "tobytes", "_index"))
record_methods(Reductions)
record_methods(Operators)

"""The functions of ``cupy`` that differ from NumPy's in more than their parameters.

Everything else on CuPy's list is computed by NumPy's function of the name (library.py). Parameters are CuPy's, which
the tests hold to the list; what each function does is NumPy's documentation to tell, the differences are told here.
"""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from tinygen.testing.strict.array import ndarray
from tinygen.testing.strict.cuda import MemoryPool
from tinygen.testing.strict.memory import fresh, into, make, operand, owned, quiet, supported, wrap
from tinygen.testing.strict.names import listed
from tinygen.testing.strict.syncs import synchronised
from tinygen.testing.strict.tape import recorded, refuse

# ---------------------------------------------------------------------------------------------- ufuncs


class ufunc:
    """A function of elements: takes device arrays and numbers, has ``out``, ``dtype`` and ``casting`` and no more.

    No ``where=``, no ``order=``: the result is in C order.
    """

    def __init__(self, name: str) -> None:
        self._numpy = getattr(np, name)
        self.name = "cupy_" + name
        self.nin, self.nout, self.nargs = self._numpy.nin, self._numpy.nout, self._numpy.nargs
        self._scatters = listed()[f"cupy.{name}"].at

    @recorded
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out, dtype = kwargs.pop("out", None), kwargs.pop("dtype", None)
        casting = kwargs.pop("casting", "same_kind")
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"Wrong number of arguments for {self.name!r}: {len(args)} instead of {self.nin}")
        args, outs = args[: self.nin], args[self.nin :] or (out if isinstance(out, tuple) else (out,))
        raw = [operand(x) for x in args]
        if self._numpy.__name__.startswith("logical_") and builtins.any(np.result_type(x).kind == "c" for x in raw):
            raise TypeError(f"Wrong type of arguments for {self.name}: CuPy has it not for complex numbers")
        options = {} if dtype is None else {"dtype": supported(dtype)}
        with quiet():
            result = self._numpy(*raw, order="C", casting=casting, **options)
        if self.nout > 1:
            return tuple(fresh(r) for r in result)
        if outs[0] is not None and not np.can_cast(np.result_type(result), outs[0].dtype, casting):
            raise TypeError(f"Cannot cast output operand from {np.result_type(result)} to {outs[0].dtype}")
        return into(result, outs[0])

    @recorded
    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        """``a[indices] = f(a[indices], b)`` for every index in turn, also where one comes twice."""
        from_index = _Scatter(a, indices)
        if not self._scatters:
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        if from_index.by_integers:
            self._check_atomic(a.dtype)
        value = operand(b) if isinstance(b, ndarray) else np.asarray(b, dtype=a.dtype)
        with quiet():
            self._numpy.at(a._raw, from_index.parts, value.astype(a.dtype))

    def _check_atomic(self, dtype: np.dtype) -> None:
        name = self._numpy.__name__
        able = {"add": "ilefdIL", "subtract": "iI", "maximum": "ilfdIL", "minimum": "ilfdIL"}.get(name, "ilIL")
        if dtype.char.replace("q", "l").replace("Q", "L") not in able:
            raise TypeError(f"cupy.{name}.at does not support {dtype}")

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Sums and products alone."""
        method = {"add": "sum", "multiply": "prod"}.get(self._numpy.__name__)
        if method is None:
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        return getattr(array, method)(axis, dtype, out, keepdims)

    def accumulate(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        """Sums and products alone."""
        method = {"add": "cumsum", "multiply": "cumprod"}.get(self._numpy.__name__)
        if method is None:
            raise NotImplementedError(f"`{self.name}.accumulate` is not supported yet")
        return getattr(array, method)(axis, dtype, out)

    def outer(self, A: Any, B: Any, **kwargs: Any) -> Any:
        """All pairs."""
        A, B = asarray(A), asarray(B)
        return self(A.reshape(A.shape + (1,) * B.ndim), B, **kwargs)

    def __repr__(self) -> str:
        return f"<ufunc '{self.name}'>"


class _Scatter:
    """An index to write to: what NumPy reads, and whether integer arrays (atomics, on a GPU) are in it."""

    def __init__(self, a: ndarray, indices: Any) -> None:
        index = a._index(indices)
        if index.mask:
            synchronised("mask")
        self.parts = index.parts
        self.by_integers = builtins.any(isinstance(p, np.ndarray) and p.dtype.kind != "b" for p in index.parts)


# ---------------------------------------------------------------------------------------------- making


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: Any = "K", subok: bool = False, ndmin: int = 0, *,
    blocking: bool = False,
) -> ndarray:  # fmt: skip
    """A device array of a device array, a host array, numbers, or sequences of these of one kind."""
    if subok:
        raise NotImplementedError
    if isinstance(obj, ndarray):
        out = obj.astype(obj.dtype if dtype is None else dtype, order or "K", copy=bool(copy))
        return out if out.ndim >= ndmin else out.reshape((1,) * (ndmin - out.ndim) + out.shape)
    if isinstance(obj, (list, tuple)) and builtins.any(isinstance(x, ndarray) for x in _leaves(obj)):
        # Sequences of device arrays are joined; device arrays among host numbers meet NumPy, which is refused.
        if builtins.all(isinstance(x, ndarray) for x in _leaves(obj)):
            obj = _nested(obj)
    refuse("H2D transfers")
    raw = np.array(obj, dtype=dtype, copy=True, ndmin=ndmin)
    order = ("F" if raw.flags.fnc else "C") if order in (None, "K", "A", "k", "a") else order
    return owned(np.array(raw, supported(raw.dtype), order=order, copy=True))


def _leaves(obj: Any) -> Any:
    for x in obj:
        if isinstance(x, (list, tuple)):
            yield from _leaves(x)
        else:
            yield x


def _nested(obj: Any) -> Any:
    return [_nested(x) if isinstance(x, (list, tuple)) else operand(x) for x in obj]


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    """As ``array``, without a copy of a device array that is right already."""
    return array(a, dtype, copy, order)


asanyarray = asarray


def ascontiguousarray(a: ndarray, dtype: Any = None) -> ndarray:
    """In C order; a 0-d array becomes one of one axis."""
    _device(a)
    out = a.astype(a.dtype if dtype is None else dtype, "C", copy=False)
    return out.reshape(1) if out.ndim == 0 else out


def asnumpy(a: Any, stream: Any = None, order: Any = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    """On the host."""
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a, order=order)


def empty(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    """Memory that nobody has written to: here NaN, True, or the greatest integer."""
    return ndarray(shape, dtype, order=order)


def zeros(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    """0 everywhere."""
    return owned(np.zeros(shape, supported(dtype), order))


def ones(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    """1 everywhere."""
    return owned(np.ones(shape, supported(dtype), order))


def full(shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C") -> ndarray:
    """One number everywhere."""
    fill_value = operand(fill_value)
    dtype = np.asarray(fill_value).dtype if dtype is None else dtype
    return owned(np.full(shape, fill_value, supported(dtype), order))


def empty_like(
    prototype: ndarray, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None
) -> ndarray:
    """Memory of an array's shape, dtype and order, that nobody has written to."""
    if subok is not None:
        raise TypeError("subok is not supported yet")
    like = np.empty_like(operand(_device(prototype)), dtype and supported(dtype), order, shape=shape)
    out = owned(like)
    out.fill(ndarray((), like.dtype))
    return out


def zeros_like(a: ndarray, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None) -> ndarray:
    """0 in an array's shape, dtype and order."""
    return full_like(a, 0, dtype, order, subok, shape)


def ones_like(a: ndarray, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None) -> ndarray:
    """1 in an array's shape, dtype and order."""
    return full_like(a, 1, dtype, order, subok, shape)


def full_like(
    a: ndarray, fill_value: Any, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None
) -> ndarray:
    """One number in an array's shape, dtype and order."""
    out = empty_like(a, dtype, order, subok, shape)
    out.fill(fill_value)
    return out


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    """start, start + step, …; of host numbers alone."""
    for value in (start, stop, step):
        if isinstance(value, ndarray):
            synchronised("arange")
    start, stop = (0, start) if stop is None else (start, stop)
    return fresh(np.arange(start, stop, step, dtype=dtype and supported(dtype)))


# -------------------------------------------------------------------------------------------- the rest


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """x where the condition, a device array, holds, else y. With the condition alone, the host must wait."""
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    _device(condition)
    if x is None:
        return condition.nonzero()
    return fresh(np.where(operand(condition), operand(x), operand(y)))


def copyto(dst: ndarray, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    """``dst[...] = src``, where a mask holds if one is given."""
    with quiet():
        np.copyto(operand(_device(dst)), operand(src), casting, where=True if where is None else operand(where))


def concatenate(tup: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    """Device arrays, one after another; never host arrays or sequences of numbers."""
    raw = [operand(_device(x, "Only cupy arrays can be concatenated")) for x in tup]
    if len(raw) > 8:
        refuse("H2D transfers")  # of the arrays' addresses (cupy/_core/_routines_manipulation.pyx)
    with quiet():
        return into(np.concatenate(raw, axis, dtype=dtype, casting=casting), out)


concat = concatenate


def stack(tup: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    """Device arrays along a new axis."""
    raw = [operand(_device(x, "Only cupy arrays can be stacked")) for x in tup]
    if len(raw) > 8:
        refuse("H2D transfers")
    return into(np.stack(raw, axis, dtype=dtype, casting=casting), out)


def roll(a: ndarray, shift: Any, axis: Any = None) -> ndarray:
    """Rolled, in the order of the operand."""
    if isinstance(shift, ndarray):
        return fresh(np.roll(operand(a), operand(shift), axis))
    out = empty_like(_device(a))
    out._raw[...] = np.roll(operand(a), shift, axis)
    return out


def broadcast_to(array: ndarray, shape: Any) -> ndarray:
    """A view with steps of length 0. On a GPU it can be written to; a write is an error here, as it has no meaning."""
    return wrap(np.broadcast_to(operand(_device(array)), shape), array)


def einsum(*operands: Any, **kwargs: Any) -> ndarray:
    """As NumPy's; ``dtype`` and ``optimize`` are the only options."""
    options = {name: kwargs.pop(name) for name in ("dtype", "optimize") if name in kwargs}
    if kwargs:
        raise TypeError(f"Did not understand the following kwargs: {list(kwargs)}")
    subscripts, *arrays = operands
    raw = [operand(_device(x)) for x in arrays]
    with quiet():
        return wrap(np.asarray(np.einsum(subscripts, *raw, **options)), *arrays)


def matmul(a: Any, b: Any, out: Any = None, **kwargs: Any) -> ndarray:
    """``a @ b``."""
    if kwargs:
        raise NotImplementedError(f"the strict stand-in's matmul takes no {', '.join(kwargs)}")
    with quiet():
        return into(np.matmul(operand(_device(a)), operand(_device(b))), out)


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> ndarray:
    """Whether all are equal: an array of no axes, which the host has not looked at."""
    return fresh(np.array_equal(operand(a1), operand(a2), equal_nan))


def allclose(a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> ndarray:
    """Whether all are near: an array of no axes, which the host has not looked at."""
    return fresh(np.allclose(operand(a), operand(b), rtol, atol, equal_nan))


def flatnonzero(a: ndarray) -> ndarray:
    """The places that are not 0; the host must wait for their number."""
    return a.ravel().nonzero()[0]


def argwhere(a: ndarray) -> ndarray:
    """The places that are not 0; the host must wait for their number."""
    synchronised("argwhere")
    return fresh(np.argwhere(operand(a)))


def sort(a: ndarray, axis: Any = -1, kind: Any = None) -> ndarray:
    """A sorted copy."""
    _device(a)
    out = a.flatten() if axis is None else a.copy()
    out.sort(-1 if axis is None else axis, kind)
    return out


def put_along_axis(arr: ndarray, indices: ndarray, values: Any, axis: int) -> None:
    """Write at indices along an axis; a place named twice is undefined."""
    n = [arr.shape[d] if d != axis % arr.ndim else 1 for d in range(arr.ndim)]
    grid: list[Any] = [arange(m).reshape([-1 if k == d else 1 for k in range(arr.ndim)]) for d, m in enumerate(n)]
    grid[axis % arr.ndim] = indices
    arr[tuple(grid)] = values


def as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    """A view by lengths and steps. CuPy makes it from a pointer, so its ``base`` is None although it owns nothing."""
    raw = operand(_device(x))
    shape = raw.shape if shape is None else tuple(shape)
    strides = raw.strides if strides is None else tuple(strides)
    _check_inside(raw, shape, strides)
    return make(np.lib.stride_tricks.as_strided(raw, shape, strides), None)


def _check_inside(raw: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """A window onto memory that is not the array's reads garbage on a GPU; here it is an error."""
    if 0 in shape:
        return
    root: Any = raw
    while isinstance(root.base, np.ndarray):
        root = root.base
    low = raw.__array_interface__["data"][0]
    high = low + raw.itemsize
    for n, step in zip(shape, strides, strict=True):
        low, high = (low + (n - 1) * step, high) if step < 0 else (low, high + (n - 1) * step)
    first = root.__array_interface__["data"][0]
    if low < first or high > first + root.size * root.itemsize:
        raise ValueError(f"as_strided: shape {shape} with strides {strides} reaches outside the array's memory")


def get_array_module(*args: Any) -> Any:
    """Not given: tinygen asks ``array_module``."""
    raise NotImplementedError("ask tinygen.backend.array_module")


def get_default_memory_pool() -> Any:
    """Where CuPy keeps memory for reuse."""
    return MemoryPool()


def _device(x: Any, complaint: str = "") -> Any:
    """x, which must be a device array.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(x, ndarray):
        raise TypeError(complaint or f"Unsupported type {type(x)}")
    return x


class _Kernel:
    """CUDA code, which only a GPU can run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._name = next((a for a in reversed(args) if isinstance(a, str)), "")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"the strict stand-in cannot run CUDA code: the kernel {self._name!r} needs a GPU")


ElementwiseKernel = ReductionKernel = RawKernel = RawModule = _Kernel

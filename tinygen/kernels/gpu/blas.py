"""Matrix products by cuBLAS itself, called through its C interface.

CuPy's own calls refuse to be captured in a CUDA graph, copy strided operands of stacks of matrices, and leave no choice
of the arithmetic. Here cuBLAS is called with a handle of tinygen's own: on CuPy's current stream, with a workspace
that was allocated beforehand (so that nothing is allocated inside a capture), transposed operands read where they lie,
stacks as one strided batch, and TF32 only where :func:`tinygen.cuda.allow_tf32` says so.

cuBLAS thinks in columns: a matrix in C order is its transpose there. C = A B in rows is Cᵀ = Bᵀ Aᵀ in columns, so the
operands are handed over in the other order, and each as it lies.

Source: the cuBLAS documentation, ``cublasGemmStridedBatchedEx``, ``cublasSetStream``, ``cublasSetWorkspace``.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import numpy as np

from tinygen.kernels.gpu.launch import usable

_WORKSPACE = 32 << 20  # bytes; what NVIDIA recommends for Hopper
_HOST_POINTERS = 0
_REAL = {"f": 0, "d": 1}  # CUDA_R_32F, CUDA_R_64F
_EXACT = {"f": 68, "d": 70}  # CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F
_TF32 = 77  # CUBLAS_COMPUTE_32F_FAST_TF32
_DEFAULT = -1  # CUBLAS_GEMM_DEFAULT

_tf32 = False
_libraries: dict[Any, Any] = {}
_handles: dict[tuple[Any, int], _Handle] = {}


class CublasError(RuntimeError):
    """cuBLAS reported a failure; the message has its number."""


def allow_tf32(on: bool) -> bool:
    """Let float32 products be computed in TF32 (10 bits of mantissa), or not; returns what was allowed before."""
    global _tf32
    before, _tf32 = _tf32, bool(on)
    return before


def tf32_allowed() -> bool:
    """Whether float32 products are computed in TF32."""
    return _tf32


def _library(xp: Any) -> Any:
    """cuBLAS, as the library of arrays has it; None where it cannot be found, so that CuPy's own products are used."""
    if xp not in _libraries:
        _libraries[xp] = _declared(xp.stand_in_cublas() if hasattr(xp, "stand_in_cublas") else _find())
    return _libraries[xp]


def _find() -> Any:
    """libcublas where CuPy looks for it: pip's packages, conda, the system."""
    try:
        from cuda import pathfinder  # comes with CuPy 14

        return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception:  # any of its own errors, or an older CuPy without it
        for name in ("libcublas.so.13", "libcublas.so.12", "libcublas.so", "cublas64_13.dll", "cublas64_12.dll"):
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
    return None


def _declared(library: Any) -> Any:
    """The library with the C types of what is called."""
    if library is None:
        return None
    pointer, whole, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
    signatures = {
        "cublasCreate_v2": [ctypes.POINTER(pointer)],
        "cublasSetStream_v2": [pointer, pointer],
        "cublasSetWorkspace_v2": [pointer, pointer, ctypes.c_size_t],
        "cublasSetPointerMode_v2": [pointer, whole],
        "cublasGemmStridedBatchedEx": [
            pointer, whole, whole, whole, whole, whole, pointer,
            pointer, whole, whole, long, pointer, whole, whole, long, pointer,
            pointer, whole, whole, long, whole, whole, whole,
        ],
    }  # fmt: skip
    for name, types in signatures.items():
        f = getattr(library, name)
        f.argtypes, f.restype = types, whole
    return library


def _check(status: int, what: str) -> None:
    if status:
        raise CublasError(f"{what} failed with status {status} (see cublasStatus_t in cuBLAS's documentation)")


class _Handle:
    """cuBLAS's state for one device: the stream that it works on, and each stream's workspace."""

    def __init__(self, xp: Any, library: Any) -> None:
        self.library = library
        self.pointer = ctypes.c_void_p()
        _check(library.cublasCreate_v2(ctypes.byref(self.pointer)), "cublasCreate")
        _check(library.cublasSetPointerMode_v2(self.pointer, _HOST_POINTERS), "cublasSetPointerMode")
        self.stream: int | None = None
        self.workspaces: dict[int, Any] = {}

    def use(self, xp: Any) -> None:
        """Work on the current stream. (Setting a stream takes the workspace away, so both are set together.)"""
        stream = xp.cuda.get_current_stream().ptr
        if stream == self.stream:
            return
        room = self.workspaces.get(stream)
        if room is None:
            room = self.workspaces[stream] = xp.empty(_WORKSPACE, "uint8")
        self.stream = None
        _check(self.library.cublasSetStream_v2(self.pointer, stream), "cublasSetStream")
        _check(self.library.cublasSetWorkspace_v2(self.pointer, room.data.ptr, room.nbytes), "cublasSetWorkspace")
        self.stream = stream


def _handle(xp: Any) -> _Handle | None:
    key = (xp, xp.cuda.get_device_id())
    found = _handles.get(key)
    if found is None:
        library = _library(xp)
        if library is None:
            return None
        found = _handles[key] = _Handle(xp, library)
    return found


def prepare(xp: Any) -> None:
    """Make the handle, and the workspace of the current stream, now: inside a capture it would be too late."""
    if usable(xp, xp.empty(0, "float32")):
        handle = _handle(xp)
        if handle is not None:
            handle.use(xp)


def forget(xp: Any, stream: int) -> None:
    """Free the workspace of a stream that is no longer."""
    for (library, _), handle in _handles.items():
        if library is xp:
            handle.workspaces.pop(stream, None)
            if handle.stream == stream:
                handle.stream = None


class Operand(NamedTuple):
    """A stack of matrices as it lies: in rows, or transposed (in columns), ``lead`` numbers from one to the next."""

    array: Any
    transposed: bool
    lead: int
    step: int


def _operand(xp: Any, x: Any, count: int) -> Operand:
    """A stack (count, n, m) or one matrix for all, copied only where neither its rows nor its columns are runs."""
    size = x.itemsize
    rows, columns = x.shape[-2:]
    stack, (down, right) = x.strides[:-2], x.strides[-2:]
    step = _step(x.shape[:-2], stack, size) if count > 1 else 0
    if step is not None:
        if (right == size or columns == 1) and down % size == 0 and (rows == 1 or down >= columns * size):
            return Operand(x, False, max(down // size if rows > 1 else columns, columns, 1), step)
        if (down == size or rows == 1) and right % size == 0 and (columns == 1 or right >= rows * size):
            return Operand(x, True, max(right // size if columns > 1 else rows, rows, 1), step)
    many = count > 1 and math.prod(stack_shape(x)) > 1
    return Operand(xp.ascontiguousarray(x), False, max(columns, 1), rows * columns if many else 0)


def stack_shape(x: Any) -> tuple[int, ...]:
    """The axes before the matrix's two."""
    return x.shape[:-2]


def _step(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> int | None:
    """From one matrix of a stack to the next, in numbers; 0 where all are the same; None where no one step does it."""
    axes = [(n, s) for n, s in zip(shape, strides) if n != 1]
    if not axes:
        return 0
    step = axes[-1][1]
    reach = step
    for n, s in reversed(axes):
        if s != reach:
            return None
        reach = s * n
    return step // size if step > 0 and step % size == 0 else None


def product(xp: Any, a: Any, b: Any) -> Any:
    """A B, as ``xp.matmul`` for two or more axes each; None where cuBLAS is not called here.

    Shapes: (…, m, k), (…, k, n) → (…, m, n); leading axes broadcast.
    """
    if a.ndim < 2 or b.ndim < 2 or not usable(xp, a, b) or _library(xp) is None:
        return None
    m, k = a.shape[-2:]
    n = b.shape[-1]
    if b.shape[-2] != k:
        return None  # matmul has the message
    if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous:  # one tall product
        c = product(xp, a.reshape(math.prod(a.shape[:-1]), k), b)
        return None if c is None else c.reshape(*a.shape[:-1], n)
    try:
        stack = np.broadcast_shapes(stack_shape(a), stack_shape(b))
    except ValueError:
        return None
    count = math.prod(stack)
    c = xp.empty((*stack, m, n), a.dtype)
    if c.size == 0:
        return c
    if k == 0:
        c.fill(0)
        return c
    if count > 1:
        a, b = (x if _same_or_one(x, stack, count) else xp.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (a, b))
    gemm(xp, _operand(xp, a, count), _operand(xp, b, count), c, m, n, k, count)
    return c


def _same_or_one(x: Any, stack: tuple[int, ...], count: int) -> bool:
    return stack_shape(x) == stack or math.prod(stack_shape(x)) == 1


def gemm(
    xp: Any, a: Operand, b: Operand, c: Any, m: int, n: int, k: int, count: int = 1, lead: int = 0, step: int = 0,
    add: bool = False,
) -> None:  # fmt: skip
    """c ← A B, or c + A B: count products of (m, k) and (k, n), written to c, whose rows are ``lead`` numbers apart."""
    handle = _handle(xp)
    assert handle is not None
    handle.use(xp)
    char = c.dtype.char
    scalar = ctypes.c_double if char == "d" else ctypes.c_float
    one, beta = scalar(1), scalar(1 if add else 0)
    kind = _REAL[char]
    arithmetic = _TF32 if char == "f" and _tf32 else _EXACT[char]
    status = handle.library.cublasGemmStridedBatchedEx(
        handle.pointer, int(b.transposed), int(a.transposed), n, m, k, ctypes.addressof(one),
        b.array.data.ptr, kind, b.lead, b.step, a.array.data.ptr, kind, a.lead, a.step, ctypes.addressof(beta),
        c.data.ptr, kind, lead or n, step or m * n, count, arithmetic, _DEFAULT,
    )  # fmt: skip
    if status:
        raise CublasError(
            f"cublasGemmStridedBatchedEx failed with status {status} for {count} products ({m}, {k}) × ({k}, {n}) of "
            f"{c.dtype}"
        )

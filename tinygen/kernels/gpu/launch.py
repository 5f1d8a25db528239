"""Kernels compiled on first use, and launched with little ado.

The source of a module is CUDA C in which ``T`` is the floating type. Kernels see Python's integers as ``long long``
and its floats as ``double``. What else they need is passed as one structure by value (:func:`structure`), which is
cheaper than many arguments.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np

_TYPES = {"f": "float", "d": "double"}
_enabled = os.environ.get("TINYGEN_GPU_KERNELS", "1") != "0"
_functions: dict[tuple[Any, str, str, str], Any] = {}
_able: dict[Any, bool] = {}

# What most kernels begin with: sums of what the threads of a warp, and of a block, hold. All threads must call them.
# Their names tell the stand-in which kernels have threads that wait for each other.
PRELUDE = r"""
#define FULL 0xffffffffu
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)  // NVRTC has no math.h
#endif

__device__ __forceinline__ T warp_sum(T v) {
    for (int lane = 16; lane > 0; lane >>= 1) v += __shfl_xor_sync(FULL, v, lane);
    return v;
}

__device__ __forceinline__ T warp_max(T v) {
    for (int lane = 16; lane > 0; lane >>= 1) {
        T other = __shfl_xor_sync(FULL, v, lane);
        v = (v > other || v != v) ? v : other;
    }
    return v;
}

// The sum over a block of whole warps, in every thread. One after another: `shared` is free again afterwards.
__device__ __forceinline__ T block_sum(T v, T* shared) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    v = warp_sum(v);
    if (lane == 0) shared[warp] = v;
    __syncthreads();
    v = lane < warps ? shared[lane] : (T)0;
    v = warp_sum(v);
    __syncthreads();
    return v;
}
"""


def set_enabled(on: bool) -> bool:
    """Switch tinygen's own kernels on or off, for the whole process; returns what it was before.

    Off, the same is computed by array operations: slower, and a way to find out whether a kernel is at fault.
    """
    global _enabled
    before, _enabled = _enabled, bool(on)
    return before


def usable(xp: Any, *arrays: Any) -> bool:
    """Whether kernels of this library may compute with these arrays: switched on, of one type, float32 or float64."""
    if not _enabled or xp is np or not _can_compile(xp):
        return False
    kind = xp.ndarray
    char = arrays[0].dtype.char
    return char in _TYPES and all(type(a) is kind and a.dtype.char == char for a in arrays)


def _can_compile(xp: Any) -> bool:
    able = _able.get(xp)
    if able is None:
        try:
            able = callable(xp.RawModule)
        except (AttributeError, NotImplementedError):
            able = False
        _able[xp] = able
    return able


def function(xp: Any, module: str, source: str, dtype: np.dtype, name: str) -> Any:
    """The kernel ``name`` of a module's source for a dtype, compiled once: call it as f(grid, block, args)."""
    key = (xp, module, dtype.char, name)
    found = _functions.get(key)
    if found is None:
        compiled = _module(xp, source, dtype.char)
        found = _functions[key] = compiled.get_function(name)
    return found


@lru_cache(maxsize=64)
def _module(xp: Any, source: str, char: str) -> Any:
    return xp.RawModule(code=typed(source, char), options=("--std=c++17",))


def typed(source: str, char: str) -> str:
    """The source for the dtype of a character. (T is a type's name and no macro: NVRTC's own headers have a T too.)"""
    return f"typedef {_TYPES[char]} T;\n{source}"


def structure(**numbers: int) -> np.ndarray:
    """A C structure of ints, to be passed by value: a NumPy array of one record, as CuPy wants it."""
    return np.array([tuple(numbers.values())], dtype=[(name, np.int32) for name in numbers])


def blocks(n: int, threads: int, most: int = 1 << 16) -> int:
    """How many blocks of so many threads cover n numbers; at most ``most``, whose threads then take several each."""
    return min(-(-n // threads), most)


def dense(xp: Any, array: Any) -> Any:
    """The array in C order: itself where it is."""
    return array if array.flags.c_contiguous else xp.ascontiguousarray(array).reshape(array.shape)

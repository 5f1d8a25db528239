"""``cupy.RawModule`` where there is no GPU: CUDA C compiled by the machine's C++ compiler, its threads one by one.

The very source that NVRTC compiles for a GPU runs here on the arrays' memory. Threads that wait for each other are
fibers (ucontext) that take turns from barrier to barrier, block after block, so that ``__shared__`` memory is static
memory, and warps exchange numbers through a table. What that cannot show: speed, races between blocks, alignment.

Arguments are passed as CUDA passes them, by pointers to values whose size is the Python type's (int: 8 bytes, float: 8,
NumPy scalars and records: their own), so a kernel that declares another type goes wrong here as it does there.

Where no ``g++`` or ``c++`` is found, :data:`COMPILER` is None, ``RawModule`` is a NotImplementedError, and tinygen
computes by array operations.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.testing.strict.memory import Memory
from tinygen.testing.strict.tape import deferred

COMPILER = shutil.which("g++") or shutil.which("c++")

_BEGIN = r"""
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <ucontext.h>
#include <vector>
using namespace std;
struct Three { unsigned x, y, z; };
static Three threadIdx, blockIdx, blockDim, gridDim;
#define __global__
#define __device__ static
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

namespace emulator {
    // A fiber begins by setcontext, and from then on is left and entered by longjmp, which asks nothing of the system.
    struct Place { jmp_buf at; };
    const size_t STACK = 1 << 16;
    static Place home;
    static vector<Place> places;
    static vector<ucontext_t> fibers;
    static vector<char> stacks, begun, ended;
    static vector<double> slots;
    static unsigned current, threads, gone;
    static void (*body)();
    static void wait_here() {
        if (_setjmp(places[current].at) == 0) _longjmp(home.at, 1);
    }
    static void enter() {
        body();
        ended[current] = 1;
        _longjmp(home.at, 1);
    }
    static void place(unsigned t) {
        current = t;
        threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
    }
    static void resume() {
        if (_setjmp(home.at)) return;
        if (begun[current]) _longjmp(places[current].at, 1);
        begun[current] = 1;
        setcontext(&fibers[current]);
    }
    // One block: every thread up to its next barrier, again and again. 1: some ended where others wait.
    static int run_block(bool barriers) {
        threads = blockDim.x * blockDim.y * blockDim.z;
        if (!barriers) {
            for (unsigned t = 0; t < threads; t++) { place(t); body(); }
            return 0;
        }
        if (fibers.size() < threads) {
            fibers.resize(threads);
            places.resize(threads);
            slots.resize(threads);
            stacks.resize(threads * STACK);
        }
        begun.assign(threads, 0);
        ended.assign(threads, 0);
        for (unsigned t = 0; t < threads; t++) {
            getcontext(&fibers[t]);
            fibers[t].uc_stack.ss_sp = &stacks[t * STACK];
            fibers[t].uc_stack.ss_size = STACK;
            fibers[t].uc_link = nullptr;
            makecontext(&fibers[t], enter, 0);
        }
        gone = 0;
        while (gone == 0)
            for (unsigned t = 0; t < threads; t++) {
                place(t);
                resume();
                gone += ended[t];
            }
        return gone == threads ? 0 : 1;
    }
}
static void __syncthreads() { emulator::wait_here(); }
static void __syncwarp(unsigned = 0) { emulator::wait_here(); }
template <class V> static V __shfl_xor_sync(unsigned, V v, int lane) {
    int me = emulator::current;
    emulator::slots[me] = (double)v;
    emulator::wait_here();
    V other = (V)emulator::slots[me ^ lane];
    emulator::wait_here();
    return other;
}
template <class V> static V atomicAdd(V* place, V v) { V old = *place; *place += v; return old; }
static inline float rsqrt(float x) { return 1 / sqrt(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
"""

_RUN = r"""
static void** the_arguments;
%s
"""

_WRAPPER = r"""
extern "C" int run_%(name)s(const unsigned* dims, void** arguments) {
    gridDim = {dims[0], dims[1], dims[2]};
    blockDim = {dims[3], dims[4], dims[5]};
    the_arguments = arguments;
    emulator::body = [] { %(name)s(%(values)s); };
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)
                if (emulator::run_block(%(barriers)s)) return 1;
    return 0;
}
"""

_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(([^)]*)\)\s*\{')


def compile_source(code: str, defines: tuple[str, ...] = ()) -> ctypes.CDLL:
    """C++ as a library, kept in the temporary folder for the next time.

    Raises:
        RuntimeError: the compiler refuses it (the message is its own), or there is none.
    """
    if COMPILER is None:
        raise RuntimeError("the strict stand-in runs CUDA kernels by a C++ compiler, and there is none here")
    digest = hashlib.sha256("\0".join([code, *defines, COMPILER]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"tinygen-strict-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{digest}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as made:
            source, library = Path(made) / "kernel.cpp", Path(made) / "kernel.so"
            source.write_text(code, encoding="utf-8")
            options = ["-O2", "-std=c++17", "-shared", "-fPIC", "-w", "-U_FORTIFY_SOURCE", *defines]
            command = [COMPILER, *options, str(source), "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"the strict stand-in cannot compile a kernel:\n{done.stderr[:4000]}")
            os.replace(library, target)
    return ctypes.CDLL(str(target))


def wrapped(code: str) -> tuple[str, dict[str, int]]:
    """The kernels' source between the emulated CUDA and a way in for each; and how many arguments each takes."""
    ways, counts = [], {}
    found = list(_KERNEL.finditer(code))
    for i, match in enumerate(found):
        name, parameters = match[1], [p.strip() for p in match[2].split(",")]
        end = found[i + 1].start() if i + 1 < len(found) else len(code)
        barriers = re.search(r"__sync|__shfl|\bblock_|\bwarp_", code[match.end() : end]) is not None
        kinds = [re.sub(r"\b(__restrict__)\b", "", p).strip() for p in parameters]
        kinds = [re.sub(r"\w+$", "", kind).strip() for kind in kinds]
        values = ", ".join(f"*({kind}*)the_arguments[{k}]" for k, kind in enumerate(kinds))
        ways.append(_WRAPPER % {"name": name, "values": values, "barriers": "true" if barriers else "false"})
        counts[name] = len(kinds)
    body = code.replace("__restrict__", "")
    return _BEGIN + body + _RUN % "\n".join(ways), counts


# A kernel that is played on the CPU has the numbers of its block and thread in variables of its library, which all
# threads of the process share.
_one_at_a_time = threading.Lock()


class RawModule:
    """A module of CUDA C. See the top of this file.

    Raises:
        ValueError: there is no code. NotImplementedError: an option that the stand-in does not know is used.
    """

    def __init__(
        self, *, code: Any = None, path: Any = None, options: tuple[str, ...] = (), backend: str = "nvrtc",
        translate_cucomplex: bool = False, enable_cooperative_groups: bool = False, name_expressions: Any = None,
        jitify: bool = False,
    ) -> None:  # fmt: skip
        if code is None or path is not None or name_expressions is not None or enable_cooperative_groups:
            raise NotImplementedError("the strict stand-in has RawModule(code=, options=) alone")
        defines = tuple(option for option in options if option.startswith("-D"))
        for option in options:
            if option not in defines and not option.startswith("--std="):
                raise NotImplementedError(f"the strict stand-in does not know NVRTC's option {option!r}")
        text, self._counts = wrapped(code)
        self._library = compile_source(text, defines)

    def get_function(self, name: str) -> RawKernel:
        """The kernel of that name."""
        if name not in self._counts:
            raise RuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return RawKernel._of(name, getattr(self._library, f"run_{name}"), self._counts[name])


class RawKernel:
    """One kernel: ``kernel(grid, block, args)``."""

    _run: Any
    _count: int

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        other = RawModule(code=code, options=options).get_function(name)
        self.name, self._run, self._count = name, other._run, other._count

    @classmethod
    def _of(cls, name: str, run: Any, count: int) -> RawKernel:
        self = cls.__new__(cls)
        self.name, self._run, self._count = name, run, count
        return self

    @deferred
    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple, *, shared_mem: int = 0) -> None:
        if len(args) != self._count:
            raise TypeError(f"{self.name} takes {self._count} arguments, got {len(args)}")
        threads = int(np.prod(block))
        if shared_mem or not 0 < threads <= 1024:
            raise ValueError(f"{self.name}: {threads} threads in a block, {shared_mem} bytes of shared memory")
        sizes = [*grid, *[1] * (3 - len(grid)), *block, *[1] * (3 - len(block))]
        if min(sizes) < 1 or sizes[0] >= 2**31 or max(sizes[1:3]) > 65535:
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: {self.name} was launched with grid {grid}, block {block}")
        dims = (ctypes.c_uint * 6)(*sizes)
        values = [_value(argument) for argument in args]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        with _one_at_a_time:
            failed = self._run(dims, pointers)
        if failed:
            raise RuntimeError(f"{self.name}: some threads of a block wait at a barrier that others never reach")


def _value(argument: Any) -> Any:
    """What CUDA is given a pointer to."""
    if argument is None:
        return ctypes.c_void_p(0)
    if isinstance(argument, Memory):
        raw = argument._raw
        return ctypes.c_void_p(raw.__array_interface__["data"][0])
    if type(argument) is bool:
        return ctypes.c_bool(argument)
    if type(argument) is int:
        return ctypes.c_longlong(argument)
    if type(argument) is float:
        return ctypes.c_double(argument)
    if isinstance(argument, np.generic) or (isinstance(argument, np.ndarray) and argument.size == 1):
        return ctypes.create_string_buffer(argument.tobytes(), argument.nbytes)
    raise TypeError(f"Unsupported type {type(argument)}")

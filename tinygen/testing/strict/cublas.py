"""The five functions of cuBLAS that tinygen calls, on the stand-in's memory: column-major loops in C++.

The library is called as the real one is, by ctypes and with pointers, so what is tested is what will run: which
operand is transposed, leading dimensions, steps, and that the workspace is set after the stream.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from tinygen.testing.strict.kernels import compile_source
from tinygen.testing.strict.tape import deferred

_SOURCE = r"""
#include <cstddef>
struct Handle { void* stream; void* room; size_t size; };
static bool has_room(Handle* h) { return h->room && h->size >= (1 << 20); }

template <class T> static void gemm(int ta, int tb, int m, int n, int k, T alpha, const T* a, int lda, const T* b,
                                    int ldb, T beta, T* c, int ldc) {
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++) {
            T s = 0;
            for (int l = 0; l < k; l++)
                s += a[ta ? l + (size_t)i * lda : i + (size_t)l * lda]
                     * b[tb ? j + (size_t)l * ldb : l + (size_t)j * ldb];
            T* place = &c[i + (size_t)j * ldc];
            *place = alpha * s + (beta != 0 ? beta * *place : 0);
        }
}

extern "C" int cublasCreate_v2(Handle** h) { *h = new Handle{nullptr, nullptr, 0}; return 0; }
extern "C" int cublasSetStream_v2(Handle* h, void* s) { h->stream = s; h->room = nullptr; h->size = 0; return 0; }
extern "C" int cublasSetWorkspace_v2(Handle* h, void* p, size_t n) {
    if ((size_t)p % 16) return 7;
    h->room = p; h->size = n; return 0;
}
extern "C" int cublasSetPointerMode_v2(Handle*, int mode) { return mode == 0 ? 0 : 7; }
extern "C" int cublasGemmStridedBatchedEx(
    Handle* h, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int ka, int lda, long long sa,
    const void* b, int kb, int ldb, long long sb, const void* beta, void* c, int kc, int ldc, long long sc, int count,
    int arithmetic, int) {
    if (!has_room(h)) return 1;
    if (lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m || m < 1 || n < 1 || k < 1 || count < 1) return 7;
    if (ka != kb || kb != kc) return 15;
    for (int i = 0; i < count; i++) {
        if (ka == 0 && (arithmetic == 68 || arithmetic == 77))
            gemm<float>(ta, tb, m, n, k, *(float*)alpha, (float*)a + i * sa, lda, (float*)b + i * sb, ldb,
                        *(float*)beta, (float*)c + i * sc, ldc);
        else if (ka == 1 && arithmetic == 70)
            gemm<double>(ta, tb, m, n, k, *(double*)alpha, (double*)a + i * sa, lda, (double*)b + i * sb, ldb,
                         *(double*)beta, (double*)c + i * sc, ldc);
        else return 15;
    }
    return 0;
}
"""


class _Function:
    """One of them: what it returns is noted while a graph is captured, and it runs again with the graph."""

    def __init__(self, found: Any, computes: bool) -> None:
        self._found, self._computes = found, computes

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("argtypes", "restype"):
            setattr(self._found, name, value)
        else:
            object.__setattr__(self, name, value)

    def __call__(self, *args: Any) -> int:
        if not self._computes:
            return self._found(*args)
        _gemm(self._found, *args)
        return 0


@deferred
def _gemm(found: Any, *args: Any) -> None:
    # α and β are read from the host while the call is made: a replay cannot ask for them again.
    one, zero = (ctypes.c_double(1), ctypes.c_double(0)) if args[8] == 1 else (ctypes.c_float(1), ctypes.c_float(0))
    now = list(args)
    now[6], now[15] = ctypes.addressof(one), ctypes.addressof(zero)
    status = found(*now)
    if status:
        raise RuntimeError(f"the stand-in's cuBLAS: status {status}")


class _Cublas:
    def __init__(self) -> None:
        library = compile_source(_SOURCE)
        for name in (
            "cublasCreate_v2", "cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasSetPointerMode_v2",
            "cublasGemmStridedBatchedEx",
        ):  # fmt: skip
            setattr(self, name, _Function(getattr(library, name), name.startswith("cublasGemm")))


@cache
def stand_in_cublas() -> Any:
    """What takes cuBLAS's place."""
    return _Cublas()

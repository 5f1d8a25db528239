"""Single operations, forward and backward, and what an operation on a tiny tensor costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import tinygen
from benchmarks import costs
from benchmarks.peers.same_lines import OPS
from benchmarks.setting import Setting
from benchmarks.timing import Row

Shape = tuple[int, ...]
SAME, DOWN = {"padding": 1}, {"stride": 2, "padding": 1}

# What it is called, the operation, the shapes of its arguments, its options.
TABLE: list[tuple[str, str, list[Shape], dict[str, Any]]] = [
    ("conv 1×1, 64→64", "conv2d", [(128, 64, 14, 14), (64, 64, 1, 1)], {}),
    ("conv 3×3, 1→32", "conv2d", [(128, 1, 28, 28), (32, 1, 3, 3)], SAME),
    ("conv 3×3, 32→32", "conv2d", [(128, 32, 28, 28), (32, 32, 3, 3)], SAME),
    ("conv 3×3, 64→64", "conv2d", [(128, 64, 14, 14), (64, 64, 3, 3)], SAME),
    ("conv 3×3, 128→128", "conv2d", [(128, 128, 7, 7), (128, 128, 3, 3)], SAME),
    ("conv 4×4 stride 2, 1→32", "conv2d", [(128, 1, 28, 28), (32, 1, 4, 4)], DOWN),
    ("conv 4×4 stride 2, 32→64", "conv2d", [(128, 32, 14, 14), (64, 32, 4, 4)], DOWN),
    ("conv 3×3 depthwise, 64", "conv2d", [(128, 64, 14, 14), (64, 1, 3, 3)], SAME | {"groups": 64}),
    ("transposed 4×4 stride 2, 64→32", "conv_transpose2d", [(128, 64, 7, 7), (64, 32, 4, 4)], DOWN),
    ("transposed 4×4 stride 2, 32→1", "conv_transpose2d", [(128, 32, 14, 14), (32, 1, 4, 4)], DOWN),
    ("linear 784→400", "linear", [(128, 784), (400, 784)], {}),
    ("max pool 2×2", "max_pool2d", [(128, 32, 28, 28)], {}),
    ("average pool 2×2", "avg_pool2d", [(128, 32, 28, 28)], {}),
    ("upsample ×2", "upsample", [(128, 32, 14, 14)], {}),
    ("group norm, 8 groups", "group_norm", [(128, 32, 28, 28), (32,), (32,)], {}),
    ("batch norm", "batch_norm", [(128, 32, 28, 28), (32,), (32,)], {}),
    ("layer norm", "layer_norm", [(128, 196, 64), (64,), (64,)], {}),
    ("ReLU", "relu", [(128, 32, 28, 28)], {}),
    ("SiLU", "silu", [(128, 32, 28, 28)], {}),
    ("softmax", "softmax", [(128, 4, 49, 49)], {}),
    ("attention, 49 tokens", "attention", [(128, 4, 49, 16)] * 3, {}),
    ("attention, 196 tokens", "attention", [(128, 4, 196, 16)] * 3, {}),
]  # fmt: skip


def arguments(kind: str, shapes: list[Shape], options: dict[str, Any]) -> tuple[list[np.ndarray], np.ndarray]:
    """Random arguments of an operation, and a random cotangent for its output."""
    r = np.random.default_rng(0)
    arrays = [r.standard_normal(shape, dtype=np.float32) for shape in shapes]
    y = OPS[kind](tinygen.nn.functional, *map(tinygen.tensor, arrays), **options)
    return arrays, r.standard_normal(y.shape, dtype=np.float32)


def ops(setting: Setting) -> Iterator[Row]:
    """Single operations, forward and backward with a random cotangent; Adam on a million parameters."""
    for name, kind, shapes, options in TABLE:
        if setting.quick:
            shapes = [(4, *shape[1:]) if shape[0] == 128 and i == 0 or kind == "attention" else shape
                      for i, shape in enumerate(shapes)]  # fmt: skip
        arrays, g = arguments(kind, shapes, options)
        flops, moved = costs.operation(kind, shapes, g.shape)
        make = lambda peer, kind=kind, arrays=arrays, options=options, g=g: peer.op(kind, arrays, options, g)
        yield setting.row(f"{name} ({'×'.join(map(str, shapes[0]))})", make, flops, moved, longest=3.0)
    n = 500 if setting.quick else 50_000
    arrays, gradients = ([np.random.default_rng(i).random(n, np.float32) for i in range(20)] for _ in range(2))
    make = lambda peer: peer.adam(arrays, gradients)
    yield setting.row(f"Adam, 20 arrays of {n:,}", make, bytes=20 * n * 7 * costs.FLOAT)


TINY: dict[str, list[Shape]] = {
    "add": [(10,), (10,)],
    "matmul": [(10, 10), (10, 10)],
    "add, sum, backward": [(10,), (10,)],
    "linear, relu, sum, backward": [(1, 10), (10, 10), (10,)],
}


def small(setting: Setting) -> Iterator[Row]:
    """Ten numbers, or a matrix of ten by ten: the time is all overhead."""
    r = np.random.default_rng(0)
    for kind, shapes in TINY.items():
        arrays = [r.standard_normal(shape, dtype=np.float32) for shape in shapes]
        make: Callable[..., Any] = lambda peer, kind=kind, arrays=arrays: peer.small(kind, arrays)
        yield setting.row(kind, make, turns=2 * setting.turns + 1)

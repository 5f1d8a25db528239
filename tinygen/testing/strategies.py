"""Hypothesis strategies: tensors, shapes that fit together, and legal arguments of the ops that are hard to call.

    from tinygen.testing import strategies as st

    @given(st.tensors(st.shapes(max_dims=3), positive()))
    def test_log_undoes_exp(x): ...

Everything is legal by construction: nothing is drawn and thrown away. And it shrinks to what a person can read: fewer
axes, lengths of 1, strides of 1, no padding, whole numbers. (Hypothesis takes what needs fewer choices for simpler, so
no choice is skipped just because another one makes it idle.) Needs Hypothesis, which ``import tinygen`` does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import tinygen.testing.layouts as memory
from tinygen.backend import get_default_device, move
from tinygen.tensor import Tensor
from tinygen.testing.values import Values, real

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as extra
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "tinygen.testing.strategies needs Hypothesis; install it with python -m pip install hypothesis"
    ) from error

Shape = tuple[int, ...]
_REAL = real()
Draw = Callable[[Any], Any]


def _drawn(value: Any) -> Any:
    """A strategy as it is; any other value as the strategy that draws it."""
    return value if isinstance(value, st.SearchStrategy) else st.just(value)


# ----------------------------------------------------------------------------------------------- shapes


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4) -> Any:
    """Shapes; ``min_side=0`` has empty ones among them."""
    return st.lists(st.integers(min_side, max_side), min_size=min_dims, max_size=max_dims).map(tuple)


@st.composite
def broadcastable(draw: Draw, n: int = 2, max_dims: int = 3, min_side: int = 1, max_side: int = 4) -> Any:
    """n shapes that broadcast together: each lacks leading axes of a common shape, or has length 1 in some axes."""
    whole = draw(shapes(0, max_dims, min_side, max_side))
    found = []
    for _ in range(n):
        kept = whole[len(whole) - draw(st.integers(0, len(whole))) :]
        found.append(tuple(1 if draw(st.booleans()) else length for length in kept))
    return tuple(found)


@st.composite
def matmul_shapes(draw: Draw, max_side: int = 4, vectors: bool = True, min_side: int = 1) -> Any:
    """Shapes (…, n, k) and (…, k, m) that matmul takes, leading axes broadcasting; or (k) on either side."""
    n, k, m = (draw(st.integers(min_side, max_side)) for _ in range(3))
    row, column = (vectors and draw(st.booleans()) for _ in range(2))
    first, second = draw(broadcastable(2, max_dims=2, min_side=min_side, max_side=3))
    return (k,) if row else (*first, n, k), (k,) if column else (*second, k, m)


# ------------------------------------------------------------------------------------ arrays and tensors


def _elements(values: Values, dtype: np.dtype) -> Any:
    width: Any = 8 * dtype.itemsize
    if values.kind == "boolean":
        return st.booleans()
    if values.kind == "integer":
        return st.integers(int(values.low), int(values.high) - 1)
    # The interval that holds 0, or the one nearest to it, first: shrinking goes there.
    pieces = sorted(values.intervals(), key=lambda piece: max(piece[0], -piece[1], 0.0))
    floats = [
        st.floats(*_inside(a, b, dtype), width=width, allow_subnormal=False) if a < b else st.just(a) for a, b in pieces
    ]
    return st.one_of(floats)


def _inside(low: float, high: float, dtype: np.dtype) -> tuple[float, float]:
    """The ends of an interval as numbers of the dtype, not outside it."""
    a, b = dtype.type(low), dtype.type(high)
    a = np.nextafter(a, b) if a < low else a
    return float(a), float(np.nextafter(b, a) if b > high else b)


@st.composite
def arrays(
    draw: Draw,
    shape: Any = None,
    values: Values = _REAL,
    dtype: Any = None,
    layout: Any = "contiguous",
) -> Any:
    """NumPy arrays.

    Args:
        shape: a shape, or a strategy of shapes; :func:`shapes` where omitted.
        values: which numbers: ``real(kinks=[0])``, ``distinct()``, ``integers(high=5)``, … (their shape is not used).
        dtype: or a strategy of dtypes; float64, int64 or bool where omitted.
        layout: of :data:`tinygen.testing.layouts.LAYOUTS`, or a strategy of them, such as :func:`layouts`.
    """
    size = draw(shapes() if shape is None else _drawn(shape))
    values = values.of(size)
    default = {"boolean": "bool", "integer": "int64"}.get(values.kind, "float64")
    kind = np.dtype(default if dtype is None else draw(_drawn(dtype)))
    if values.kind == "distinct":
        n = math.prod(size)
        order = draw(st.permutations(range(n)))
        drawn = values.steps(n)[list(order)].reshape(size).astype(kind)
    else:
        drawn = draw(extra.arrays(kind, size, elements=_elements(values, kind), fill=st.nothing()))
    return memory.laid_out(drawn, draw(_drawn(layout)))


@st.composite
def tensors(
    draw: Draw,
    shape: Any = None,
    values: Values = _REAL,
    dtype: Any = None,
    layout: Any = "contiguous",
    requires_grad: bool = True,
    device: str | None = None,
) -> Any:
    """Tensors on a device (the default one where omitted), which require grad where they can.

    Other arguments as :func:`arrays`. The layout is made on the device.
    """
    drawn = draw(arrays(shape, values, dtype))
    raw = move(drawn, get_default_device() if device is None else device)
    tensor = Tensor(memory.laid_out(raw, draw(_drawn(layout))))
    tensor.requires_grad = requires_grad and tensor.dtype.kind == "f"
    return tensor


def layouts(repeats: bool = False) -> Any:
    """Layouts in memory. ``repeats``: with ``"broadcast"`` among them, which repeats numbers along an axis."""
    return st.sampled_from([layout for layout in memory.LAYOUTS if repeats or layout != "broadcast"])


def dtypes(least: str = "float32") -> Any:
    """Floating dtypes, float64 first, down to ``least``."""
    every = ["float64", "float32", "float16"]
    return st.sampled_from([np.dtype(name) for name in every[: every.index(least) + 1]])


# ---------------------------------------------------------------------------------------- axes and indices


@st.composite
def dims(draw: Draw, ndim: int, several: bool = True, none: bool = True) -> Any:
    """What a reduction takes as ``dim``: an axis counted from either end, several of them, or None for all.

    Args:
        ndim: of the tensor. A 0-d tensor takes 0 and −1.
        several: tuples too.
        none: None too.
    """
    reach = max(ndim, 1)
    one = st.integers(-reach, reach - 1)
    choices: list[Any] = [st.none()] * none + [one]
    if several and ndim:
        chosen = st.lists(st.integers(0, ndim - 1), min_size=1, max_size=ndim, unique=True)
        signs = st.lists(st.booleans(), min_size=ndim, max_size=ndim)
        both = st.tuples(chosen, signs)
        choices.append(both.map(lambda both: tuple(d - ndim if end else d for d, end in zip(*both))))
    return draw(st.one_of(choices))


@st.composite
def indices(
    draw: Draw, shape: Sequence[int], arrays: bool = True, masks: bool = True, negative_steps: bool = True
) -> Any:
    """Index expressions of a shape: integers, slices, None, …, integer arrays (places twice among them), a mask.

    Integer arrays broadcast together. A mask covers one or more axes and comes without integer arrays, whose lengths
    would have to agree with the number of places that it holds.

    Args:
        arrays, masks: whether those occur.
        negative_steps: whether slices may run backwards (PyTorch's may not).
    """
    kinds = ["slice", "integer"] + ["array"] * arrays + ["mask"] * masks
    common = draw(extra.array_shapes(min_dims=1, max_dims=2, max_side=3))  # what integer arrays broadcast to
    ndim = len(shape)
    after = draw(st.integers(0, ndim))  # axes that are named behind the …
    before = draw(st.integers(0, ndim - after))
    dots, bare = draw(st.booleans()), draw(st.booleans())
    parts: list[Any] = []

    def name(axis: int, stop: int) -> None:
        nonlocal kinds
        while axis < stop:
            n = shape[axis]
            kind = draw(st.sampled_from([k for k in kinds if n or k in ("slice", "mask")]))
            if kind == "integer":
                parts.append(draw(st.integers(-n, n - 1)))
            elif kind == "slice":
                steps = st.sampled_from([1, 2, 3, -1, -2] if negative_steps else [1, 2, 3])
                bound = st.none() | st.integers(-n - 1, n + 1)
                parts.append(slice(draw(bound), draw(bound), draw(st.none() | steps)))
            elif kind == "array":
                kinds = [k for k in kinds if k != "mask"]
                sides = tuple(1 if draw(st.booleans()) else m for m in common)
                parts.append(draw(extra.arrays("int64", sides, elements=st.integers(-n, n - 1), fill=st.nothing())))
            else:
                kinds = [k for k in kinds if k not in ("array", "mask")]
                covered = tuple(shape[axis : axis + draw(st.integers(1, stop - axis))])
                parts.append(draw(extra.arrays("bool", covered, fill=st.nothing())))
                axis += len(covered) - 1
            axis += 1

    name(0, before)
    if after or dots:
        parts.append(Ellipsis)
    name(ndim - after, ndim)
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return parts[0] if len(parts) == 1 and bare else tuple(parts)


# -------------------------------------------------------------------------------- convolution and pooling


class ConvCase(NamedTuple):
    """Shapes and arguments that conv2d or conv_transpose2d takes: ``conv2d(x, w, b, **case.options)``.

    Attributes:
        input, weight: their shapes.
        bias: its shape, or None for no bias.
        options: stride, padding, dilation, groups (and output_padding), under PyTorch's names.
        output: the shape of the result.
    """

    input: Shape
    weight: Shape
    bias: Shape | None
    options: dict[str, Any]
    output: Shape


class PoolCase(NamedTuple):
    """A shape and arguments that a pooling takes: ``max_pool2d(x, **case.options)``.

    Attributes:
        input: the shape.
        options: kernel_size, stride, padding (and dilation, ceil_mode, …), under PyTorch's names.
        output: the shape of the result.
    """

    input: Shape
    options: dict[str, Any]
    output: Shape


@st.composite
def _both_ways(draw: Draw, least: int, most: int) -> Any:
    """(vertical, horizontal)."""
    return draw(st.integers(least, most)), draw(st.integers(least, most))


def _spelled(draw: Draw, pair: tuple[int, ...]) -> Any:
    """A pair as PyTorch takes it: one number, where both are equal, or two."""
    two = draw(st.booleans())
    return pair[0] if pair[0] == pair[1] and not two else pair


@st.composite
def _filters(draw: Draw, max_side: int) -> Any:
    """What the two convolutions share: batch, groups, channels of a group, kernel, stride, dilation."""
    batch = draw(st.sampled_from([(1,), (2,), ()]))
    groups, c, o = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = draw(_both_ways(1, max_side))
    stride, dilation = draw(_both_ways(1, 3)), draw(_both_ways(1, 3))
    return batch, groups, c, o, kernel, stride, dilation


@st.composite
def conv2d_cases(draw: Draw, max_out: int = 3, max_kernel: int = 3) -> Any:
    """Every way to call conv2d: stride, padding (``"same"`` and ``"valid"`` too), dilation, groups, no batch, bias.

    The result's height and width are drawn first (up to ``max_out``), and the input's made to fit, with up to s − 1
    rows and columns that no window reaches.
    """
    batch, groups, c, o, kernel, stride, dilation = draw(_filters(max_kernel))
    named = draw(st.sampled_from([None, "valid", "same"]))
    if named == "same":
        stride = (1, 1)
    size, out, padding = [], [], []
    for k, s, d in zip(kernel, stride, dilation):
        m = draw(st.integers(1, max_out))
        full = (m - 1) * s + d * (k - 1) + 1 + draw(st.integers(0, s - 1))  # the padded length
        p = draw(st.integers(0, min(3, (full - 1) // 2)))
        p = p if named is None else 0
        padding.append(p)
        size.append(m if named == "same" else full - 2 * p)
        out.append(m)
    pad = _spelled(draw, (padding[0], padding[1]))
    options = {
        "stride": _spelled(draw, stride),
        "padding": pad if named is None else named,
        "dilation": _spelled(draw, dilation),
        "groups": groups,
    }
    bias = (groups * o,) if draw(st.booleans()) else None
    weight = (groups * o, c, *kernel)
    return ConvCase((*batch, groups * c, *size), weight, bias, options, (*batch, groups * o, *out))


@st.composite
def conv_transpose2d_cases(draw: Draw, max_size: int = 3, max_kernel: int = 3) -> Any:
    """Every way to call conv_transpose2d: stride, padding, output_padding < stride or dilation, dilation, groups.

    As much padding as leaves one row and one column of the result.
    """
    batch, groups, c, o, kernel, stride, dilation = draw(_filters(max_kernel))
    size = draw(_both_ways(1, max_size))
    extra_rows = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation))
    full = [(n - 1) * s + d * (k - 1) + e + 1 for n, s, d, k, e in zip(size, stride, dilation, kernel, extra_rows)]
    padding = tuple(draw(st.integers(0, min(3, (f - 1) // 2))) for f in full)
    out = [f - 2 * p for f, p in zip(full, padding)]
    options = {
        "stride": _spelled(draw, stride),
        "padding": _spelled(draw, padding),
        "output_padding": _spelled(draw, extra_rows),
        "groups": groups,
        "dilation": _spelled(draw, dilation),
    }
    bias = (groups * c,) if draw(st.booleans()) else None
    weight = (groups * o, c, *kernel)
    return ConvCase((*batch, groups * o, *size), weight, bias, options, (*batch, groups * c, *out))


def _pooled(n: int, K: int, s: int, p: int, d: int, ceil: bool) -> int:
    """The number of windows along an axis of n places; 0 where none fits or one would lie wholly in the padding."""
    room = n + 2 * p - d * (K - 1) - 1
    if room < 0:
        return 0
    m = (-(-room // s) if ceil else room // s) + 1
    if ceil and (m - 1) * s >= n + p:
        m -= 1
    places = ([o * s - p + k * d for k in range(K)] for o in range(m))
    return m if all(any(0 <= i < n for i in window) for window in places) else 0


@st.composite
def _pool_options(draw: Draw, dilate: bool, max_kernel: int) -> Any:
    kernel = draw(_both_ways(1, max_kernel))
    stride = draw(st.none() | _both_ways(1, 3))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = draw(_both_ways(1, 3)) if dilate else (1, 1)
    ceil = draw(st.booleans())
    size, out = [], []
    for K, s, p, d in zip(kernel, kernel if stride is None else stride, padding, dilation):
        windows = {n: _pooled(n, K, s, p, d, ceil) for n in range(1, d * (K - 1) + 3 * s + 1)}
        wanted = draw(st.integers(1, 3))
        m = min((m for m in windows.values() if m), key=lambda m: abs(m - wanted))
        size.append(draw(st.sampled_from([n for n in windows if windows[n] == m])))
        out.append(m)
    options = {"kernel_size": _spelled(draw, kernel), "padding": _spelled(draw, padding), "ceil_mode": ceil}
    if stride is not None:
        options["stride"] = _spelled(draw, stride)
    if dilate:
        options["dilation"] = _spelled(draw, dilation)
    lead = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2,)]))
    return PoolCase((*lead, *size), options, (*lead, *out))


def max_pool2d_cases(max_kernel: int = 3) -> Any:
    """Every way to call max_pool2d: kernel, stride (or none), padding ≤ K/2, dilation, ceil_mode, no batch."""
    return _pool_options(True, max_kernel)


@st.composite
def avg_pool2d_cases(draw: Draw, max_kernel: int = 3) -> Any:
    """Every way to call avg_pool2d: kernel, stride (or none), padding, ceil_mode, the two divisors, no batch."""
    case = draw(_pool_options(False, max_kernel))
    case.options["count_include_pad"] = draw(st.booleans())
    case.options["divisor_override"] = draw(st.none() | st.sampled_from([1, 2, -3]))
    return case

"""Formulas of one number at a time: one kernel each, for what would be a launch per operation.

A formula reads its arrays' numbers as x, g, t, … (the names in :data:`FORMULAS`), its Python numbers as doubles, and
is the expression that becomes y. :func:`compute` is asked by kernels/blocks.py and by the ops themselves; the formulas
are derived, and defined for any array library, where the ops are (ops/activations.py, ops/losses.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tinygen.kernels.gpu.launch import blocks, dense, function, usable

_THREADS = 256


class Formula(NamedTuple):
    """y = ``body`` of one number from each of the ``arrays``, and of the ``numbers``."""

    arrays: str
    numbers: str
    body: str


# NaN compares false with everything, so `x > 0 ? … : …` would turn it into a number: NumPy's maximum keeps it.
FORMULAS: dict[str, Formula] = {
    # y = max(0, x);  g·[y > 0]
    "relu": Formula("x", "", "x > 0 || x != x ? x : (T)0"),
    "where_positive": Formula("g y", "", "g * (T)(y > 0)"),
    # y = x where x > 0, else s·x;  g·([x > 0] + s·[x ≤ 0])
    "leaky_relu": Formula("x", "s", "x > 0 ? x : (T)s * x"),
    "leaky_relu_vjp": Formula("g x", "s", "g * (x > 0 ? (T)1 : (T)s)"),
    # y = x where x > 0, else α(eˣ − 1)
    "elu": Formula("x", "alpha", "x > 0 ? x : (T)alpha * expm1(x)"),
    # y = (1/β)·(max(z, 0) + ln(1 + e^(−|z|))), z = βx;  x where z is above the threshold
    "softplus": Formula(
        "x", "beta threshold",
        "(T)beta * x > (T)threshold ? x : (fmax((T)beta * x, (T)0) + log1p(exp(-fabs((T)beta * x)))) / (T)beta",
    ),
    # y = min(x, 0) − ln(1 + e^(−|x|))
    "logsigmoid": Formula("x", "", "(x < 0 ? x : x == x ? (T)0 : x) - log1p(exp(-fabs(x)))"),
    # y = 1/(1 + e⁻ˣ);  g·y(1 − y)
    "sigmoid": Formula("x", "", "1 / (1 + exp(-x))"),
    # y = x·σ(x) = x/e with e = 1 + e⁻ˣ = 1/σ;  g·(1 + x − x/e)/e.  Where e is ∞, y is 0.
    "silu": Formula("x", "", "x / (1 + exp(-x))"),
    "silu_vjp": Formula("g x", "", "g * ((1 + (x - x / (1 + exp(-x)))) / (1 + exp(-x)))"),
    # Φ(x) = ½(1 + erf(x/√2));  g·(Φ + x·φ(x))
    "gelu_phi": Formula("x", "", "(T)0.5 * (1 + erf(x * (T)0.70710678118654752440))"),
    "gelu_vjp": Formula("g x P", "", "g * (P + x * (exp((T)-0.5 * x * x) * (T)0.39894228040143267794))"),
    # y = x·σ(v), v = x(a + (b/3)x²);  g·σ·(1 + x(1 − σ)·v′), v′ = a + bx²
    "gelu_tanh": Formula("x", "a b", "x / (1 + exp(-(x * ((T)a + (T)(b / 3) * (x * x)))))"),
    "gelu_tanh_vjp": Formula(
        "g x", "a b",
        "g * (1 / (1 + exp(-(x * ((T)a + (T)(b / 3) * (x * x)))))"
        " * (1 + ((T)a + (T)b * (x * x)) * x * (1 - 1 / (1 + exp(-(x * ((T)a + (T)(b / 3) * (x * x))))))))",
    ),
    # l = (x − t)²;  l = |x − t|
    "squared_error": Formula("x t", "", "(x - t) * (x - t)"),
    "squared_error_vjp": Formula("g x t", "", "g * (2 * (x - t))"),
    # l = max(x, 0) − x·t + ln(1 + e^(−|x|));  g·(σ(x) − t)
    "bce_with_logits": Formula("x t", "", "fmax(x, (T)0) - x * t + log1p(exp(-fabs(x)))"),
    "bce_with_logits_vjp": Formula("g x t", "", "g * (1 / (1 + exp(-x)) - t)"),
}  # fmt: skip


def _kernel(name: str, formula: Formula) -> str:
    arrays, numbers = formula.arrays.split(), formula.numbers.split()
    parameters = [f"const T* __restrict__ {a}_" for a in arrays] + [f"double {s}" for s in numbers]
    reads = " ".join(f"const T {a} = {a}_[i];" for a in arrays)
    return f"""
extern "C" __global__ void {name}(T* __restrict__ out, {", ".join(parameters)}, long long n) {{
    const long long step = gridDim.x * (long long)blockDim.x;
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += step) {{
        {reads}
        out[i] = {formula.body};
    }}
}}
"""


SOURCE = "".join(_kernel(name, formula) for name, formula in FORMULAS.items())


def compute(xp: Any, name: str, *arrays: Any, numbers: tuple[float, ...] = ()) -> Any:
    """The formula of that name, or None where it does not apply.

    Args:
        xp: the arrays' library.
        arrays: of equal shapes, in the formula's order.
        numbers: its Python numbers, in its order.
    """
    if not usable(xp, *arrays):
        return None
    x = arrays[0]
    shape = x.shape
    for a in arrays:
        if a.shape != shape:
            return None
    out = xp.empty(shape, x.dtype)
    n = out.size
    if n:
        kernel = function(xp, "pointwise", SOURCE, x.dtype, name)
        parts = [dense(xp, a) for a in arrays]
        kernel((blocks(n, _THREADS),), (_THREADS,), (out, *parts, *[float(s) for s in numbers], n))
    return out

"""Activation functions: yᵢ = f(xᵢ), one number at a time.

The Jacobian is diagonal, so every vjp is a product, ∂L/∂xᵢ = gᵢ·f′(xᵢ). Where f costs more than an addition, the
product is an op of its own, bilinear in g and f′: its vjps are ∂/∂g = G·f′(x), the same op again, and
∂/∂x = G·g·f″(x), written in differentiable ops.

Shapes: (*) → (*). float32 stays float32; integers compute in the default dtype where f is not piecewise linear.
Source: ``torch.nn.functional.NAME``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels.arrays import empty_like
from tinygen.kernels.blocks import elementwise
from tinygen.kernels.channels import LARGE
from tinygen.kernels.erf import erf as erf_kernel
from tinygen.kernels.exponentials import one_plus_exp
from tinygen.op import op
from tinygen.ops.elementwise import exp, sigmoid, where
from tinygen.promotion import floating
from tinygen.tensor import Tensor

# ------------------------------------------------------------------------------------ piecewise linear


@op
def relu(input):
    """y = max(0, x).    ∂L/∂x = g where x > 0, else 0; the kink x = 0 counts as flat (PyTorch's choice)."""
    xp = array_module(input)
    if input.size < LARGE or xp is not np:
        return xp.maximum(input, 0)
    return elementwise(lambda y, x: np.maximum(x, 0, out=y), input)


@relu.vjp("input")
def _(g, y):
    return _where_positive(g, y.detach())


@op
def _where_positive(g, y):
    """z = g·[y > 0]: linear in g, so ∂L/∂g is the same op of the cotangent; constant in y almost everywhere."""
    xp = array_module(g)

    def block(out, g, y):
        xp.greater(y, 0, out=out)  # 0 and 1 as floats: a product with booleans would convert them slowly
        out *= g

    return elementwise(block, g, y, gpu="where_positive")


@_where_positive.vjp("g")
def _(G, y):
    return _where_positive(G, y)


@op
def leaky_relu(input, negative_slope=0.01):
    """y = x where x > 0, else s·x, with s the negative slope.    ∂L/∂x = g where x > 0, else s·g (at 0 too).

    Source: Maas et al., *Rectifier nonlinearities improve neural network acoustic models* (2013).
    """
    xp = array_module(input)
    choose = xp.maximum if negative_slope <= 1 else xp.minimum

    def block(y, x):
        xp.multiply(x, negative_slope, out=y)
        choose(x, y, out=y)

    return elementwise(block, floating(input), gpu="leaky_relu" * (negative_slope <= 1), numbers=(negative_slope,))


@leaky_relu.vjp("input")
def _(g, input, negative_slope):
    return _leaky(g, input.detach(), negative_slope)


@op
def _leaky(g, x, slope):
    """z = g·([x > 0] + s·[x ≤ 0]): linear in g, so ∂L/∂g is the same op; constant in x almost everywhere."""
    xp = array_module(g)

    def block(y, g, x):
        # Without a choice between branches, which is slow; (1 − s)·[x > 0] + s would round 1.
        if 0 <= slope <= 1:
            xp.greater(x, 0, out=y)
            xp.maximum(y, slope, out=y)
        else:
            positive = x > 0
            xp.multiply(~positive, slope, out=y)
            y += positive
        y *= g

    return elementwise(block, g, x, gpu="leaky_relu_vjp", numbers=(slope,))


@_leaky.vjp("g")
def _(G, x, slope):
    return _leaky(G, x, slope)


# -------------------------------------------------------------------------------- exponential branches


@op
def elu(input, alpha=1.0):
    """y = x where x > 0, else α(eˣ − 1).    ∂L/∂x = g where x > 0, else g·α·eˣ.

    Source: Clevert et al., *Fast and accurate deep network learning by exponential linear units* (2016), eq. 15.
    """
    xp = array_module(input)

    def block(y, x):
        xp.minimum(x, 0, out=y)
        xp.expm1(y, out=y)
        y *= alpha
        y += xp.maximum(x, 0)

    return elementwise(block, floating(input), gpu="elu", numbers=(alpha,))


@elu.vjp("input")
def _(g, input, alpha):
    positive = input > 0
    # The branch not taken gets x = 0, where eˣ cannot overflow.
    return where(positive, g, g * (alpha * exp(where(positive, 0.0, input))))


@op
def softplus(input, beta=1, threshold=20):
    """y = (1/β)·ln(1 + e^(βx)), a smooth max(0, x).    ∂L/∂x = g·σ(βx), because d ln(1 + eᶻ)/dz = eᶻ/(1 + eᶻ) = σ(z).

    Computed as max(z, 0) + ln(1 + e^(−|z|)), z = βx: e^(−|z|) ≤ 1 never overflows. (−|z| is written min(z, −z), which
    is analytic on either side of 0, so that the complex step goes through.)

    Where βx > threshold, y = x and ∂L/∂x = g, as in PyTorch; for the default threshold that changes nothing in
    float32 and 2·10⁻⁹ in float64. Exact and finite for every x, as are its derivatives.

    Source: Dugas et al., *Incorporating second-order functional knowledge for better option pricing* (2001).
    """
    xp = array_module(input)

    def block(y, x):
        z = beta * x
        _log1p_exp_minus_abs(z, out=y)
        y *= z <= threshold
        y += xp.maximum(z, 0)
        y /= beta

    return elementwise(block, floating(input), gpu="softplus", numbers=(beta, threshold))


@softplus.vjp("input")
def _(g, input, beta, threshold):
    z = beta * input
    return where(z > threshold, g, g * sigmoid(z))


@op
def logsigmoid(input):
    """y = ln σ(x) = −ln(1 + e⁻ˣ), finite for every x.    ∂L/∂x = g·σ(−x), because (ln σ)′ = 1 − σ(x) = σ(−x)."""
    xp = array_module(input)

    def block(y, x):
        _log1p_exp_minus_abs(x, out=y)
        xp.subtract(xp.minimum(x, 0), y, out=y)

    return elementwise(block, floating(input), gpu="logsigmoid")


def _log1p_exp_minus_abs(x: Any, out: Any) -> None:
    """ln(1 + e^(−|x|)) of a raw array, with −|x| = min(x, −x)."""
    xp = array_module(x)
    xp.negative(x, out=out)
    xp.minimum(out, x, out=out)
    xp.exp(out, out=out)
    xp.log1p(out, out=out)


@logsigmoid.vjp("input")
def _(g, input):
    return g * sigmoid(-input)


# ------------------------------------------------------------------------------- x times a smooth gate

# The forwards and first derivatives are formulas of several steps: elementwise (kernels/blocks.py) computes them block
# after block, in place, so that the steps in between stay in the cache.


def _exp_minus_plus_one(x: Any, out: Any) -> None:
    """1 + e⁻ˣ = 1/σ(x) of a raw array; where it overflows, to ∞, σ(x) becomes 0 as it should."""
    xp = array_module(x)
    xp.negative(x, out=out)
    if xp is np:
        one_plus_exp(out, out=out)
    else:
        xp.exp(out, out=out)
        out += 1


@op
def silu(input):
    """y = x·σ(x), also called swish.

    ∂L/∂x = g·σ·(1 + x(1 − σ)), by the product rule and σ′ = σ(1 − σ).

    Source: Elfwing et al., *Sigmoid-weighted linear units for neural network function approximation* (2018), eq. 5.
    """
    xp = array_module(input)

    def block(y, x):
        _exp_minus_plus_one(x, out=y)
        xp.divide(x, y, out=y)

    return elementwise(block, floating(input), gpu="silu")


@silu.vjp("input")
def _(g, input):
    return _silu_vjp(g, input)


@op
def _silu_vjp(g, x):
    """z = g·f′(x), f′ = σ·(1 + x(1 − σ)).    ∂L/∂g = h·f′(x),  ∂L/∂x = h·g·f″(x), with h = ∂L/∂z.

    f″ = σ′·(1 + x(1 − σ)) + σ·(1 − σ − xσ′) = σ′·(2 + x(1 − 2σ)), with σ′ = σ(1 − σ).
    """

    xp = array_module(x)

    def block(y, g, x):
        e = empty_like(x)
        _exp_minus_plus_one(x, out=e)  # 1/σ
        xp.divide(x, e, out=y)
        xp.subtract(x, y, out=y)
        y += 1
        y /= e
        y *= g

    return elementwise(block, g, x, gpu="silu_vjp")


@_silu_vjp.vjp("g")
def _(G, x):
    return _silu_vjp(G, x)


@_silu_vjp.vjp("x")
def _(G, g, x):
    σ = sigmoid(x)
    return G * g * (σ * (1 - σ) * (2 + x * (1 - 2 * σ)))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """y = x·Φ(x), with Φ(x) = ½(1 + erf(x/√2)) the standard normal distribution function.

    ∂L/∂x = g·(Φ(x) + x·φ(x)), because Φ′ = φ, φ(x) = e^(−x²/2)/√(2π).

    Args:
        approximate: ``"tanh"`` replaces Φ(x) by ½(1 + tanh u), u = √(2/π)·(x + 0.044715·x³), off by at most 5·10⁻⁴.

    Raises:
        ValueError: approximate is neither ``"none"`` nor ``"tanh"``.

    Source: Hendrycks & Gimpel, *Gaussian error linear units* (2016), §2.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: expected approximate='none' or 'tanh', got {approximate!r}")
    return _gelu(input) if approximate == "none" else _gelu_tanh(input)


@op(aux=True)
def _gelu(input):
    """y = x·Φ(x).    ∂L/∂x = g·(Φ(x) + x·φ(x)). See gelu."""
    x = floating(input)
    xp = array_module(x)

    def block(y, x):
        xp.multiply(x, math.sqrt(0.5), out=y)
        xp.add(erf_kernel(y), 1, out=y)
        y *= 0.5

    Φ = elementwise(block, x, gpu="gelu_phi")
    return x * Φ, Φ


@_gelu.vjp("input")
def _(g, input, aux):
    return _gelu_vjp(g, input, aux)


@op
def _gelu_vjp(g, x, Φ):
    """z = g·f′(x), f′ = Φ + xφ.    ∂L/∂g = h·f′(x),  ∂L/∂x = h·g·f″(x), with h = ∂L/∂z.

    Φ is Φ(x) as the forward computed it: a shortcut, not an argument. φ′ = −xφ, so f″ = φ + φ − x²φ = φ·(2 − x²).
    """
    xp = array_module(x)

    def block(y, g, x, Φ):
        xp.multiply(x, x, out=y)
        y *= -0.5
        xp.exp(y, out=y)
        y *= 1 / math.sqrt(2 * math.pi)  # φ
        y *= x
        y += Φ
        y *= g

    return elementwise(block, g, x, Φ, gpu="gelu_vjp")


@_gelu_vjp.vjp("g")
def _(G, x, Φ):
    return _gelu_vjp(G, x, Φ)


@_gelu_vjp.vjp("x")
def _(G, g, x):
    φ = exp(-0.5 * (x * x)) / math.sqrt(2 * math.pi)
    return G * g * (φ * (2 - x * x))


# ½(1 + tanh u) = σ(2u), so the approximation is x·σ(v) with v = 2u = a·x + (b/3)·x³:
_A = 2 * math.sqrt(2 / math.pi)
_B = 3 * 0.044715 * _A


def _v(x: Any) -> Any:
    """v = x·(a + (b/3)·x²) of a raw array or a tensor."""
    return x * (_A + _B / 3 * (x * x))


@op
def _gelu_tanh(input):
    """y = x·σ(v), v = a·x + (b/3)·x³, a = 2√(2/π), b = 3·0.044715·a.

    ∂L/∂x = g·σ·(1 + x(1 − σ)·v′), by the product rule, σ′ = σ(1 − σ), and v′ = a + b·x².
    """
    xp = array_module(input)

    def block(y, x):
        _exp_minus_plus_one(_v(x), out=y)
        xp.divide(x, y, out=y)

    return elementwise(block, floating(input), gpu="gelu_tanh", numbers=(_A, _B))


@_gelu_tanh.vjp("input")
def _(g, input):
    return _gelu_tanh_vjp(g, input)


@op
def _gelu_tanh_vjp(g, x):
    """z = g·f′(x), f′ = σ·(1 + x(1 − σ)·v′).    ∂L/∂g = h·f′(x),  ∂L/∂x = h·g·f″(x), with h = ∂L/∂z.

    f″ = σ(1 − σ)·(2v′ + x·v″ + x(1 − 2σ)·v′²), with v″ = 2bx.
    """

    xp = array_module(x)

    def block(y, g, x):
        σ = xp.empty_like(x)
        _exp_minus_plus_one(_v(x), out=σ)
        xp.reciprocal(σ, out=σ)
        xp.multiply(x, x, out=y)
        y *= _B
        y += _A  # v′
        y *= x
        y *= 1 - σ
        y += 1
        y *= σ
        y *= g

    return elementwise(block, g, x, gpu="gelu_tanh_vjp", numbers=(_A, _B))


@_gelu_tanh_vjp.vjp("g")
def _(G, x):
    return _gelu_tanh_vjp(G, x)


@_gelu_tanh_vjp.vjp("x")
def _(G, g, x):
    σ = sigmoid(_v(x))
    slope = _A + _B * (x * x)  # v′
    return G * g * (σ * (1 - σ) * (2 * slope + 2 * _B * (x * x) + x * (1 - 2 * σ) * (slope * slope)))

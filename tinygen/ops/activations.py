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

from tinygen.backend import array_module
from tinygen.kernels.erf import erf as erf_kernel
from tinygen.op import op
from tinygen.ops.elementwise import exp, sigmoid, where
from tinygen.promotion import floating
from tinygen.tensor import Tensor

# ------------------------------------------------------------------------------------ piecewise linear


@op
def relu(input):
    """y = max(0, x).    ∂L/∂x = g where x > 0, else 0; the kink x = 0 counts as flat (PyTorch's choice)."""
    return array_module(input).maximum(input, 0)


@relu.vjp("input")
def _(g, y):
    return _where_positive(g, y.detach())


@op
def _where_positive(g, y):
    """g·[y > 0]: linear in g, so ∂/∂g is the same op; constant in y almost everywhere."""
    return g * (y > 0)


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
    return choose(input, negative_slope * floating(input))


@leaky_relu.vjp("input")
def _(g, input, negative_slope):
    return _leaky(g, input.detach(), negative_slope)


@op
def _leaky(g, x, slope):
    """g·([x > 0] + s·[x ≤ 0]): linear in g, so ∂/∂g is the same op; constant in x almost everywhere."""
    positive = x > 0
    y = array_module(g).multiply(~positive, slope, dtype=g.dtype)
    y += positive
    y *= g
    return y


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
    x = floating(input)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


@elu.vjp("input")
def _(g, input, alpha):
    positive = input > 0
    # The branch not taken gets x = 0, where eˣ cannot overflow.
    return where(positive, g, g * (alpha * exp(where(positive, 0.0, input))))


def log1p_exp(z: Any) -> Any:
    """ln(1 + eᶻ) of a raw array, as max(z, 0) + ln(1 + e^(−|z|)): e^(−|z|) ≤ 1 never overflows.

    −|z| is written min(z, −z), which is analytic on either side of 0, so that the complex step goes through.
    """
    xp = array_module(z)
    return xp.maximum(z, 0) + xp.log1p(xp.exp(xp.minimum(z, -z)))


@op
def softplus(input, beta=1, threshold=20):
    """y = (1/β)·ln(1 + e^(βx)), a smooth max(0, x).    ∂L/∂x = g·σ(βx), because d ln(1 + eᶻ)/dz = eᶻ/(1 + eᶻ) = σ(z).

    Where βx > threshold, y = x and ∂L/∂x = g, as in PyTorch; for the default threshold that changes nothing in
    float32 and 2·10⁻⁹ in float64. Exact and finite for every x, as are its derivatives.

    Source: Dugas et al., *Incorporating second-order functional knowledge for better option pricing* (2001).
    """
    z = beta * floating(input)
    xp = array_module(z)
    tail = xp.log1p(xp.exp(xp.minimum(z, -z))) * (z <= threshold)
    return (xp.maximum(z, 0) + tail) / beta


@softplus.vjp("input")
def _(g, input, beta, threshold):
    z = beta * input
    return where(z > threshold, g, g * sigmoid(z))


@op
def logsigmoid(input):
    """y = ln σ(x) = −ln(1 + e⁻ˣ), finite for every x.    ∂L/∂x = g·σ(−x), because (ln σ)′ = 1 − σ(x) = σ(−x)."""
    return -log1p_exp(-floating(input))


@logsigmoid.vjp("input")
def _(g, input):
    return g * sigmoid(-input)


# ------------------------------------------------------------------------------- x times a smooth gate


def _sigmoid(x: Any) -> Any:
    """σ(x) = ½(1 + tanh(x/2)) of a raw array, in one array of memory."""
    s = array_module(x).tanh(0.5 * x)
    s += 1
    s *= 0.5
    return s


@op
def silu(input):
    """y = x·σ(x), also called swish.

    ∂L/∂x = g·σ·(1 + x(1 − σ)), by the product rule and σ′ = σ(1 − σ).

    Source: Elfwing et al., *Sigmoid-weighted linear units for neural network function approximation* (2018), eq. 5.
    """
    x = floating(input)
    y = _sigmoid(x)
    y *= x
    return y


@silu.vjp("input")
def _(g, input):
    return _silu_vjp(g, input)


@op
def _silu_vjp(g, x):
    """g·f′(x), f′ = σ·(1 + x(1 − σ)).

    f″ = σ′·(1 + x(1 − σ)) + σ·(1 − σ − xσ′) = σ′·(2 + x(1 − 2σ)), with σ′ = σ(1 − σ).
    """
    σ = _sigmoid(x)
    y = 1 - σ
    y *= x
    y += 1
    y *= σ
    y *= g
    return y


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
    Φ = erf_kernel(math.sqrt(0.5) * x)
    Φ += 1
    Φ *= 0.5
    return x * Φ, Φ


@_gelu.vjp("input")
def _(g, input, aux):
    return _gelu_vjp(g, input, aux)


@op
def _gelu_vjp(g, x, Φ):
    """g·f′(x), f′ = Φ + xφ. Φ is Φ(x) as the forward computed it: a shortcut, not an argument.

    φ′ = −xφ, so f″ = φ + φ − x²φ = φ·(2 − x²).
    """
    y = array_module(x).exp(-0.5 * (x * x))
    y *= x
    y *= 1 / math.sqrt(2 * math.pi)
    y += Φ
    y *= g
    return y


@_gelu_vjp.vjp("g")
def _(G, x, Φ):
    return _gelu_vjp(G, x, Φ)


@_gelu_vjp.vjp("x")
def _(G, g, x):
    φ = exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi))
    return G * g * (φ * (2 - x * x))


# ½(1 + tanh u) = σ(2u), so the approximation is x·σ(v) with v = 2u:
_GELU_A = 2 * math.sqrt(2 / math.pi)
_GELU_B = 3 * 0.044715 * _GELU_A


@op
def _gelu_tanh(input):
    """y = x·σ(v), v = a(x + 0.044715·x³), a = 2√(2/π).

    ∂L/∂x = g·σ·(1 + x(1 − σ)·v′), by the product rule, σ′ = σ(1 − σ), and v′ = a + b·x², b = 3·0.044715·a.
    """
    x = floating(input)
    y = _sigmoid(x * (_GELU_A + _GELU_B / 3 * (x * x)))
    y *= x
    return y


@_gelu_tanh.vjp("input")
def _(g, input):
    return _gelu_tanh_vjp(g, input)


@op
def _gelu_tanh_vjp(g, x):
    """g·f′(x), f′ = σ·(1 + x(1 − σ)·v′).

    f″ = σ(1 − σ)·(2v′ + x·v″ + x(1 − 2σ)·v′²), with v″ = 2bx.
    """
    square = x * x
    σ = _sigmoid(x * (_GELU_A + _GELU_B / 3 * square))
    y = 1 - σ
    y *= x
    y *= _GELU_A + _GELU_B * square
    y += 1
    y *= σ
    y *= g
    return y


@_gelu_tanh_vjp.vjp("g")
def _(G, x):
    return _gelu_tanh_vjp(G, x)


@_gelu_tanh_vjp.vjp("x")
def _(G, g, x):
    square = x * x
    σ = sigmoid(x * (_GELU_A + _GELU_B / 3 * square))
    slope = _GELU_A + _GELU_B * square
    bend = 2 * slope + 2 * _GELU_B * square + x * (1 - 2 * σ) * slope * slope
    return G * g * (σ * (1 - σ) * bend)

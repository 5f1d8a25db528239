"""Losses: how far predictions x are from targets t, one number l for each pair, then reduced.

    reduction="none"   l itself
    reduction="sum"    Σ l
    reduction="mean"   Σ l / n; for class indices, Σ l / Σ of their weights

The classification losses are in :mod:`tinygen.ops.cross_entropy`. Source: ``torch.nn.functional.NAME``. PyTorch's
deprecated ``size_average`` and ``reduce`` are not here; what follows their place is given by name.

Shapes: x (*), t (*) → l (*) for each pair, () once reduced.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels.blocks import elementwise
from tinygen.kernels.channels import LARGE, pairwise
from tinygen.kernels.gpu.pointwise import compute
from tinygen.op import op
from tinygen.ops.activations import softplus
from tinygen.ops.elementwise import clamp, exp, log, log1p, sigmoid, sign, where
from tinygen.tensor import Tensor


def reduced(loss: Tensor, reduction: str, who: str) -> Tensor:
    """The loss as ``reduction`` wants it.

    Raises:
        ValueError: reduction is none of "none", "mean" and "sum".
    """
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"{who}: expected reduction='none', 'mean' or 'sum', got {reduction!r}")


def same_shapes(input: Tensor, target: Tensor, who: str) -> None:
    """Check that target is a floating tensor of input's shape.

    Raises:
        TypeError: one of them is not a floating tensor.
        ValueError: the shapes differ. (PyTorch warns and broadcasts: nearly always a forgotten axis.)
    """
    for name, x in (("input", input), ("target", target)):
        if not isinstance(x, Tensor) or x.dtype.kind not in "fc":
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{who}: expected {name} to be a floating tensor, got {kind}")
    if input.shape != target.shape:
        raise ValueError(
            f"{who}: input has shape {input.shape} and target {target.shape}; they must be equal, or broadcasting "
            "would pair numbers that do not belong together"
        )


# ---------------------------------------------------------------------------------- distances x − t


@op(broadcast=True)
def _squared_error(input, target):
    """l = (x − t)².    ∂L/∂x = 2g(x − t),  ∂L/∂t = −∂L/∂x."""
    if (made := compute(array_module(input), "squared_error", input, target)) is not None:
        return made
    d = input - target if input.size < LARGE else pairwise(np.subtract, input, target)
    d *= d
    return d


@_squared_error.vjp("input")
def _(g, input, target):
    return _twice_the_difference(g, input, target)


@_squared_error.vjp("target")
def _(g, input, target):
    return _twice_the_difference(g, target, input)


@op(broadcast=True)
def _twice_the_difference(g, x, t):
    """z = 2g(x − t).    ∂L/∂g = 2G(x − t),  ∂L/∂x = 2G·g,  ∂L/∂t = −2G·g, with G = ∂L/∂z."""
    xp = array_module(g)
    if (made := compute(xp, "squared_error_vjp", g, x, t)) is not None:
        return made

    if not g.shape == x.shape == t.shape or not g.dtype == x.dtype == t.dtype:
        return g * (2 * (x - t))
    one = type(g) is np.ndarray and g.size > 0 and not any(g.strides)  # the gradient of a mean: one number, broadcast
    number = g[(0,) * g.ndim] if one else None

    def block(z, t, x, g=number):
        xp.subtract(x, t, out=z)
        z *= 2
        z *= g

    return elementwise(block, t, x) if one else elementwise(lambda z, g, t, x: block(z, t, x, g), g, t, x)


@_twice_the_difference.vjp("g")
def _(G, x, t):
    return _twice_the_difference(G, x, t)


@_twice_the_difference.vjp("x")
def _(G, g):
    return G * (2 * g)


@_twice_the_difference.vjp("t")
def _(G, g):
    return G * (-2 * g)


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """l = (x − t)²: the mean squared error.    ∂l/∂x = 2(x − t) = −∂l/∂t.

    Shapes: (*), (*) → () or, for reduction="none", (*).

    Raises:
        ValueError: the shapes differ, or the reduction is unknown.
        TypeError: an argument is not a floating tensor.
    """
    same_shapes(input, target, "mse_loss")
    return reduced(_squared_error(input, target), reduction, "mse_loss")


@op(broadcast=True)
def _absolute_error(input, target):
    """l = |x − t|.    ∂L/∂x = g·sign(x − t), 0 at x = t;  ∂L/∂t = −∂L/∂x."""
    return array_module(input).abs(input - target)


@_absolute_error.vjp("input")
def _(g, input, target):
    return g * sign(input - target)


@_absolute_error.vjp("target")
def _(g, input, target):
    return g * sign(target - input)


def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """l = |x − t|: the mean absolute error.    ∂l/∂x = sign(x − t) = −∂l/∂t, 0 at x = t.

    Shapes and errors as :func:`mse_loss`.
    """
    same_shapes(input, target, "l1_loss")
    return reduced(_absolute_error(input, target), reduction, "l1_loss")


@op
def _huber(input, target, delta):
    """l = ½d² where |d| ≤ δ, else δ(|d| − ½δ), d = x − t.    ∂L/∂x = g·clamp(d, −δ, δ) = −∂L/∂t.

    Both branches are c(|d| − ½c) with c = min(|d|, δ).
    """
    xp = array_module(input)
    d = xp.abs(input - target)
    c = xp.minimum(d, delta)
    return c * (d - 0.5 * c)


@_huber.vjp("input")
def _(g, input, target, delta):
    return g * clamp(input - target, -delta, delta)


@_huber.vjp("target")
def _(g, input, target, delta):
    return g * clamp(target - input, -delta, delta)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """l = ½(x − t)² where |x − t| ≤ δ, else δ(|x − t| − ½δ): squared near 0, absolute far out.

    ∂l/∂x = clamp(x − t, −δ, δ) = −∂l/∂t: the gradient of ½(x − t)², clipped at δ.

    Shapes: (*), (*) → () or, for reduction="none", (*).

    Raises:
        ValueError: δ is not positive, the shapes differ, or the reduction is unknown.
        TypeError: an argument is not a floating tensor.

    Source: Huber, *Robust estimation of a location parameter* (1964).
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: expected delta > 0, got {delta}")
    same_shapes(input, target, "huber_loss")
    return reduced(_huber(input, target, delta), reduction, "huber_loss")


def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """l = ½(x − t)²/β where |x − t| < β, else |x − t| − ½β; |x − t| itself for β = 0.

    It is the Huber loss with δ = β, divided by β:  ∂l/∂x = clamp((x − t)/β, −1, 1) = −∂l/∂t.

    Shapes: (*), (*) → () or, for reduction="none", (*).

    Raises:
        ValueError: β is negative, the shapes differ, or the reduction is unknown.
        TypeError: an argument is not a floating tensor.

    Source: Girshick, *Fast R-CNN* (2015), eq. 3.
    """
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: expected beta ≥ 0, got {beta}")
    same_shapes(input, target, "smooth_l1_loss")
    loss = _huber(input, target, beta) / beta if beta else _absolute_error(input, target)
    return reduced(loss, reduction, "smooth_l1_loss")


# ----------------------------------------------------------------------------- two classes, t ∈ [0, 1]


def weighted(loss: Tensor, weight: Tensor | None, who: str, name: str = "weight") -> Tensor:
    """l·w, with w broadcast to the losses' shape.

    Raises:
        ValueError: it does not broadcast to that shape.
    """
    if weight is None:
        return loss
    lead = loss.ndim - weight.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(weight.shape, loss.shape[lead:], strict=True)):
        raise ValueError(f"{who}: {name} of shape {weight.shape} does not broadcast to the losses' shape {loss.shape}")
    return loss * weight


def _clamped_log(x: Any, complement: bool = False) -> Any:
    """max(ln x, −100) of a raw array, or max(ln(1 − x), −100); ln 0 = −∞ is meant."""
    xp = array_module(x)
    with np.errstate(divide="ignore"):
        return xp.maximum(xp.log1p(-x) if complement else xp.log(x), -100)


@op(broadcast=True)
def _binary_cross_entropy(input, target):
    """l = −t·max(ln x, −100) − (1 − t)·max(ln(1 − x), −100).

    ∂L/∂x = g·(x − t)/(x(1 − x)) and ∂L/∂t = g·(ln(1 − x) − ln x), as binary_cross_entropy derives them.
    """
    return (target - 1) * _clamped_log(input, complement=True) - target * _clamped_log(input)


@_binary_cross_entropy.vjp("input")
def _(g, input, target):
    return g * ((input - target) / clamp(input * (1 - input), min=1e-12))


@_binary_cross_entropy.vjp("target")
def _(g, input):
    return g * (clamp(log1p(-input), min=-100) - clamp(log(input), min=-100))


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """l = −w·[t·ln x + (1 − t)·ln(1 − x)], x the probability of class 1. Logarithms are held at −100 or above.

    ∂l/∂x = −w·[t/x − (1 − t)/(1 − x)] = w·(x − t)/(x(1 − x)), the denominator held at 10⁻¹² or above;
    ∂l/∂t = w·[ln(1 − x) − ln x].

    From logits, :func:`binary_cross_entropy_with_logits` needs no such limits.

    Shapes: (*), (*), w broadcasts → () or, for reduction="none", (*).

    Raises:
        ValueError: the shapes differ, w does not broadcast, the reduction is unknown, or (on the CPU) a number of
            x is outside [0, 1].
        TypeError: an argument is not a floating tensor.
    """
    same_shapes(input, target, "binary_cross_entropy")
    x = input.data
    if input.device == "cpu" and x.size and not (x.real.min() >= 0 and x.real.max() <= 1):
        raise ValueError(
            f"binary_cross_entropy: expected probabilities in [0, 1], got numbers from {x.real.min():.6g} to "
            f"{x.real.max():.6g}; apply sigmoid first, or use binary_cross_entropy_with_logits"
        )
    loss = weighted(_binary_cross_entropy(input, target), weight, "binary_cross_entropy")
    return reduced(loss, reduction, "binary_cross_entropy")


def _in_blocks(f, *arrays):
    """y of f(y, *arrays), in the memory order of the last, for arrays of one shape and dtype once broadcast."""
    xp, x = array_module(arrays[-1]), arrays[-1]
    if any(a.shape != x.shape or a.dtype != x.dtype for a in arrays):
        dtype = np.result_type(*(a.dtype for a in arrays))
        arrays = tuple(a.astype(dtype) for a in xp.broadcast_arrays(*arrays))
    return elementwise(f, *arrays)


@op(broadcast=True)
def _bce_with_logits(input, target):
    """l = max(x, 0) − x·t + ln(1 + e^(−|x|)).    ∂L/∂x = g(σ(x) − t),  ∂L/∂t = −g·x."""
    xp = array_module(input)
    if (made := compute(xp, "bce_with_logits", input, target)) is not None:
        return made

    def block(l, t, x):
        xp.negative(x, out=l)
        xp.minimum(x, l, out=l)
        xp.exp(l, out=l)
        xp.log1p(l, out=l)
        linear = xp.maximum(x, 0)
        linear -= x * t  # 0 where t = [x > 0]: first, so that the small tail keeps its digits
        l += linear

    return _in_blocks(block, target, input)


@_bce_with_logits.vjp("input")
def _(g, input, target):
    return _bce_with_logits_slope(g, input, target)


@op(broadcast=True)
def _bce_with_logits_slope(g, input, target):
    """d = g(σ(x) − t).    ∂L/∂g = G(σ(x) − t),  ∂L/∂x = G·g·σ(x)σ(−x),  ∂L/∂t = −G·g."""
    xp = array_module(input)
    if (made := compute(xp, "bce_with_logits_vjp", g, input, target)) is not None:
        return made

    def block(d, t, g, x):
        with np.errstate(over="ignore"):
            xp.negative(x, out=d)
            xp.exp(d, out=d)
        d += 1
        xp.divide(1, d, out=d)
        d -= t
        d *= g

    return _in_blocks(block, target, g, input)


@_bce_with_logits_slope.vjp("g")
def _(G, input, target):
    return _bce_with_logits_slope(G, input, target)


@_bce_with_logits_slope.vjp("input")
def _(G, g, input):
    return G * g * (sigmoid(input) * sigmoid(-input))


@_bce_with_logits_slope.vjp("target")
def _(G, g):
    return -G * g


@_bce_with_logits.vjp("target")
def _(g, input):
    return -g * input


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """l = −w·[p·t·ln σ(x) + (1 − t)·ln(1 − σ(x))], x the logit of class 1; p, "pos_weight", weighs that class.

    Since −ln σ(x) = softplus(−x) and −ln(1 − σ(x)) = softplus(x) = x + softplus(−x), this is for p = 1

        l = (1 − t)·x + softplus(−x) = max(x, 0) − x·t + ln(1 + e^(−|x|)),

    which neither overflows nor cancels. ∂l/∂x = σ(x) − t and ∂l/∂t = −x, each times w.

    Shapes: (*), (*), w and p broadcast → () or, for reduction="none", (*).

    Raises:
        ValueError: the shapes differ, w or p does not broadcast, or the reduction is unknown.
        TypeError: an argument is not a floating tensor.
    """
    who = "binary_cross_entropy_with_logits"
    same_shapes(input, target, who)
    if pos_weight is None:
        loss = _bce_with_logits(input, target)
    else:
        positive = weighted(target * softplus(-input, 1, math.inf), pos_weight, who, "pos_weight")
        loss = positive + (1 - target) * softplus(input, 1, math.inf)
    return reduced(weighted(loss, weight, who), reduction, who)


# -------------------------------------------------------------------------------- between distributions


def kl_div(input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """l = t·(ln t − x), with x = ln q: summed over all outcomes, KL(t ‖ q). 0·ln 0 = 0.

    ∂l/∂x = −t and ∂l/∂t = ln t + 1 − x (−x at t = 0, to stay finite). With log_target, target is τ = ln t, so
    l = e^τ·(τ − x) and ∂l/∂τ = e^τ·(τ − x + 1).

    Shapes: (*), (*) → () or, for reduction="none", (*).

    Args:
        input: logarithms of probabilities.
        target: probabilities, or their logarithms under log_target.
        reduction: as everywhere, or ``"batchmean"``: Σ l divided by the length of the first axis, which is the mean
            KL divergence. (``"mean"`` divides by the number of outcomes too, as in PyTorch.)

    Raises:
        ValueError: the shapes differ, or the reduction is unknown.
        TypeError: an argument is not a floating tensor.

    Source: Kullback & Leibler, *On information and sufficiency* (1951).
    """
    same_shapes(input, target, "kl_div")
    if log_target:
        loss = exp(target) * (target - input)
    else:
        zero = target == 0
        loss = where(zero, 0.0, target * log(where(zero, 1.0, target))) - target * input
    if reduction == "batchmean":
        return loss.sum() / (input.shape[0] if input.ndim else 1)
    return reduced(loss, reduction, "kl_div")

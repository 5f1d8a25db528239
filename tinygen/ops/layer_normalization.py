"""Layer normalisation with its γ and β in one op, for large arrays of NumPy.

With x̂ = r(x − μ) and h as :mod:`tinygen.ops.standardization` derives them, for the group of the last axes,

    y = γ·x̂ + β,    ∂L/∂x = h(γ·g, x),    ∂L/∂γ = Σ g·x̂,    ∂L/∂β = Σ g,

where γ and β have one number for each place in a group, and Σ goes over the groups. :func:`layer_norm` in ops/
normalization.py says it in single steps, x̂, times γ, plus β; this is the same in fewer passes over memory.

Source: Ba, Kiros & Hinton, *Layer normalization* (2016), eq. 3 and 4.
"""

from __future__ import annotations

import math
from typing import Any

from tinygen.kernels import layer_norms
from tinygen.kernels.arrays import empty_like
from tinygen.op import op
from tinygen.ops.standardization import Group, Statistics, _normalize, _normalize_vjp, vjp_in_x
from tinygen.tensor import Tensor


class _Kept(Statistics):
    """Statistics that the kernel found, with what it found on the way.

    Attributes:
        y: the result, until the forward asks for it.
        sums: g, x and Σ g·x̂, found beside the gradient of x.
    """

    y: Any = None
    sums: tuple = (None, None, None)

    def flat(self, x: Any, group: Group) -> tuple:
        """The number of columns, and μ and r of each row."""
        return math.prod(x.shape[d] for d in group.dims), self.mean.reshape(-1), self.rstd.reshape(-1)

    def gradient(self, g: Any, x: Any, weight: Any, group: Group) -> Any:
        """h(γ·g, x)."""
        d, μ, r = self.flat(x, group)
        γ, h = None if weight is None else weight.reshape(-1), empty_like(x)
        self.sums = (g, x, layer_norms.gradient(h.reshape(-1, d), g.reshape(-1, d), x.reshape(-1, d), γ, μ, r))
        return h

    def weight_gradient(self, g: Any, x: Any, group: Group) -> Any:
        """Σ g·x̂."""
        if self.sums[0] is not g or self.sums[1] is not x:
            d, μ, r = self.flat(x, group)
            self.sums = (g, x, layer_norms.gradient(None, g.reshape(-1, d), x.reshape(-1, d), None, μ, r))
        return self.sums[2].reshape(x.shape[group.dims[0] :])


def _kept(x: Any, γ: Any, β: Any, group: Group, eps: float) -> _Kept:
    """μ, σ² and r of each group of a raw array that :func:`suits`, and with them the result."""
    d = math.prod(x.shape[d] for d in group.dims)
    y = empty_like(x)
    γ, β = (None if a is None else a.reshape(-1) for a in (γ, β))
    found = layer_norms.normalize(y.reshape(-1, d), x.reshape(-1, d), γ, β, eps)
    shape = [1 if d in group.dims else n for d, n in enumerate(x.shape)]
    kept = _Kept(*(a.reshape(shape) for a in found))
    kept.y = y
    return kept


@op
def _layer_norm(input, weight, bias, group, statistics):
    """y = γ·x̂ + β.    ∂L/∂x = h(γ·g, x),  ∂L/∂γ = Σ g·x̂,  ∂L/∂β = Σ g.

    Shapes: x (…, *D); γ, β (*D) or None → as x.
    """
    if isinstance(statistics, _Kept) and statistics.y is not None:
        y, statistics.y = statistics.y, None
        return y
    μ, _, r = statistics
    y = (input - μ) * r
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


@_layer_norm.vjp("input")
def _(g, input, weight, group, statistics):
    return _layer_norm_vjp(g, input, weight, group, statistics)


@_layer_norm.vjp("weight")
def _(g, input, group, statistics):
    return _layer_weight_gradient(g, input, group, statistics)


@_layer_norm.vjp("bias")
def _(g, bias_shape):
    return g.sum_to_size(bias_shape)


@op
def _layer_norm_vjp(g, x, weight, group, statistics):
    """z = h(γ·g, x) = r(γ·g − M(γ·g) − x̂·M(x̂·γ·g)). γ may be None.

    With G = ∂L/∂z: ∂L/∂g = γ·h(G, x), because h is linear and symmetric in its first argument; ∂L/∂γ = Σ g·h(G, x)
    likewise; ∂L/∂x is equation (3) of standardization.py for γ·g in place of g.

    Shapes: g, x (…, *D); γ (*D) or None → as x.
    """
    if isinstance(statistics, _Kept):
        return statistics.gradient(g, x, weight, group)
    return _normalize_vjp.op.forward(g if weight is None else g * weight, x, None, group, statistics)


@_layer_norm_vjp.vjp("g")
def _(G, x, weight, group, statistics):
    h = _layer_norm_vjp(G, x, None, group, statistics)
    return h if weight is None else h * weight


@_layer_norm_vjp.vjp("weight")
def _(G, g, x, weight_shape, group, statistics):
    return (g * _layer_norm_vjp(G, x, None, group, statistics)).sum_to_size(weight_shape)


@_layer_norm_vjp.vjp("x")
def _(G, h, g, x, weight, group, statistics):
    return vjp_in_x(G, h, g if weight is None else g * weight, x, group, statistics)


@op
def _layer_weight_gradient(g, x, group, statistics):
    """K = Σ g·x̂ over all axes but those of a group: (…, *D) → (*D).

    With G = ∂L/∂K:  ∂L/∂g = G·x̂  and  ∂L/∂x = h(G·g, x): G stands where γ stood.
    """
    if isinstance(statistics, _Kept):
        return statistics.weight_gradient(g, x, group)
    μ, _, r = statistics
    return (g * ((x - μ) * r)).sum(axis=tuple(range(group.dims[0])))


@_layer_weight_gradient.vjp("g")
def _(G, x, group, statistics):
    return G * _normalize(x, None, None, group, statistics)


@_layer_weight_gradient.vjp("x")
def _(G, g, x, group, statistics):
    return _layer_norm_vjp(g, x, G, group, statistics)


def suits(input: Tensor, group: Group) -> bool:
    """Whether the kernel has the case; otherwise single steps are as quick, or the array is on a GPU."""
    return layer_norms.rows(input.data, math.prod(input.shape[d] for d in group.dims)) is not None


def fused(input: Tensor, weight: Tensor | None, bias: Tensor | None, group: Group, eps: float) -> Tensor:
    """y = γ·x̂ + β for input (…, *D), weight and bias (*D) or None, where :func:`suits` says so."""
    raw_γ, raw_β = (None if a is None else a.data for a in (weight, bias))
    return _layer_norm(input, weight, bias, group, _kept(input.data, raw_γ, raw_β, group, eps))

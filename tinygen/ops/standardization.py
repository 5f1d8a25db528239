"""The ops of normalisation: x̂ = (x − μ)/√(σ² + ε) over groups of any kind, and its derivatives to every order.

μ and σ² are the mean and variance of the group that a number is in. Which numbers make a group is what the functions of
:mod:`tinygen.ops.normalization` differ in.

Let M be "replace each number by the mean of its group", so μ = Mx, σ² = M(x − μ)², and with r = 1/√(σ² + ε),
x̂ = r(x − μ). M is symmetric, and dμ = M dx. Differentiating (terms with M(x − μ) = 0 vanish),

    dσ² = 2 M((x − μ)·dx)
    dr  = −½ r³ dσ² = −r² M(x̂·dx)
    dx̂  = r(dx − M dx) + (x − μ) dr = r(dx − M dx − x̂·M(x̂·dx))                                          (1)

The matrix in (1) is symmetric, so it is its own transpose: the gradient with respect to x is

    ∂L/∂x = h(g, x) := r(g − M g − x̂·M(x̂·g)).                                                           (2)

Since h is linear in g, ∂/∂g of h with cotangent G is h(G, x). For ∂/∂x, vary x in (2): r by dr and x̂ by dx̂,

    ⟨G, dh⟩ = ⟨G·h, dr/r⟩ − ⟨r·G·M(x̂·g), dx̂⟩ − ⟨r·g·M(x̂·G), dx̂⟩,

and insert dr and (1), moving M from one side of a product to the other:

    ∂/∂x = −r(x̂·M(G·h) + h(k, x)),      k = G·M(x̂·g) + g·M(x̂·G).                                        (3)

The ops below are x̂ with its affine end, (2), the gradient of γ, r and M; each one's vjps are made of these again.

Source: (2) is, number by number, in Ioffe & Szegedy, *Batch normalization* (2015), section 3; (3) is derived here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tinygen.backend import array_module, float16, float32
from tinygen.kernels import norms
from tinygen.kernels.blocks import along_first
from tinygen.kernels.channels import scaled_sum, sum_product
from tinygen.kernels.gpu import normalization as gpu
from tinygen.op import op
from tinygen.ops.reduction import sum_to_size
from tinygen.ops.shape import broadcast_to
from tinygen.tensor import Tensor

_PIECE = 1 << 20  # bytes that one thread sums at a time

# -------------------------------------------------------------------------------- groups and their means


class Group(NamedTuple):
    """Which numbers share a mean and a variance.

    Attributes:
        dims: the axes, counted from 0, over which a group extends.
        channel_groups: into how many groups the channels (axis 1) of one example fall, for group_norm; else None.
    """

    dims: tuple[int, ...]
    channel_groups: int | None = None


def _position_sums(*arrays: Any) -> Any:
    """Σ over positions of the product of one or two arrays: (N, C, …) → (N, C)."""
    return along_first(lambda *a: sum_product(range(2, a[0].ndim), *a), *arrays, block=_PIECE)


def _mean(group: Group, *factors: Any, weight: Any = None, deviation_from: Any = None) -> Any:
    """M of a product, or with μ of the squares (x − μ)², of raw arrays: with length 1 on the axes ``group.dims``.

    Positions (axes from 2 on) are summed first and the rest from those few sums: faster where channels come last in
    memory, and more exact than one long float32 sum.

    Args:
        factors: one or two arrays, whose product is summed without being stored.
        weight: one more factor, which is constant over positions.
    """
    shape, ndim = factors[0].shape, factors[0].ndim
    inner = [d for d in group.dims if d >= 2 or (ndim == 2 and group.channel_groups is None)]
    outer = tuple(d for d in group.dims if d not in inner)

    def products(*blocks: Any) -> Any:
        return sum_product(inner, *blocks)

    def squares(x: Any, μ: Any) -> Any:
        d = x - μ
        return sum_product(inner, d, d)

    if deviation_from is None:
        total = products(*factors) if 0 in inner else along_first(products, *factors, block=_PIECE)
    else:
        blocks = (*factors, deviation_from)
        total = squares(*blocks) if 0 in inner else along_first(squares, *blocks)
    means = total.reshape([1 if d in inner else n for d, n in enumerate(shape)]) / _length(shape, inner)
    if weight is not None:
        means *= weight
    if group.channel_groups is None:
        return means.sum(axis=outer, keepdims=True) / _length(shape, outer) if outer else means
    split = means.reshape(shape[0], group.channel_groups, shape[1] // group.channel_groups)
    return array_module(means).broadcast_to(split.mean(axis=2, keepdims=True), split.shape).reshape(means.shape)


def _length(shape: Sequence[int], dims: Sequence[int]) -> int:
    """How many numbers there are along the axes; 1 where there are none, so that an empty mean is 0."""
    return math.prod(shape[d] for d in dims) or 1


class Statistics(NamedTuple):
    """μ, σ² and r of every group, computed once and handed on beside x: shortcuts, not arguments."""

    mean: Any
    var: Any
    rstd: Any


class _Kept(Statistics):
    """Those of an array that kernels/norms.py normalised, with what else it found on the way.

    Attributes:
        form, groups: what norms calls the way in which x lies in memory, and its groups.
        y: the result, until the forward asks for it.
        sums: g, x, and Σ g and Σ g·(x − μ) over positions, of which all three gradients are made.
    """

    form: norms.Layout | norms.BatchLast
    groups: int | None
    y: Any = None
    sums: tuple = (None, None)

    def gradient(self, g: Any, x: Any, weight: Any) -> Any:
        """h(γ·g, x)."""
        μ, _, r = (a.reshape(-1, x.shape[1]) for a in self)
        h, *sums = norms.gradient(norms.like(x, g), x, weight, μ, r, self.groups, self.form)
        self.sums = (g, x, *sums)
        return h

    def gradient_sums(self, g: Any, x: Any) -> tuple:
        """Σ g and Σ g·(x − μ) over positions, (N, C) each."""
        if self.sums[0] is not g or self.sums[1] is not x:
            μ = self.mean.reshape(-1, x.shape[1])
            self.sums = (g, x, *norms.gradient_sums(norms.like(x, g), x, μ, self.form))
        return self.sums[2:]


def _normalized(x: Any, weight: Any, bias: Any, group: Group, eps: float) -> Statistics:
    """The statistics, and with them the result where kernels/norms.py has the case: all at once, in one pass."""
    form, inner = norms.layout(x), tuple(range(2, x.ndim))
    groups = group.channel_groups
    if form is None or (groups is None and group.dims not in (inner, (0, *inner))):
        return _statistics(x, group, eps)
    if groups is None and group.dims == inner:
        groups = x.shape[1]
    y, *found = norms.normalize(x, weight, bias, groups, eps, form)
    kept = _Kept(*(a.reshape(*a.shape, *[1] * len(inner)) for a in found))
    kept.form, kept.groups, kept.y = form, groups, y
    return kept


def _statistics(x: Any, group: Group, eps: float) -> Statistics:
    """In two passes, x − μ before squaring: E[x²] − μ² would lose the variance of near-equal float32 numbers."""
    if (found := gpu.statistics(array_module(x), x, group, eps)) is not None:
        return Statistics(*found)
    μ = _mean(group, x)
    var = _mean(group, x, deviation_from=μ)
    return Statistics(μ, var, 1 / array_module(x).sqrt(var + eps))


# ----------------------------------------------------------------------------------------------- the ops

# γ and β are (1, C, 1, …): constant over positions. The ends of the formulas are written as x·s + b
# (kernels/channels.py): x·s − μ·s is as exact as (x − μ)·s for an x that was itself rounded, and the array is read once
# less.


@op
def _normalize(input, weight, bias, group, statistics):
    """y = γ·x̂ + β.    ∂L/∂x = h(γ·g, x),  ∂L/∂γ = Σ g·x̂,  ∂L/∂β = Σ g. γ and β may be None."""
    if (made := gpu.normalize(array_module(input), input, weight, bias, group, statistics)) is not None:
        return made
    if isinstance(statistics, _Kept) and statistics.y is not None:
        y, statistics.y = statistics.y, None
        return y
    μ, _, r = statistics
    scale = r if weight is None else r * weight
    shift = -μ * scale
    return scaled_sum([input], [scale], shift if bias is None else bias + shift)


@_normalize.vjp("input")
def _(g, input, weight, group, statistics):
    return _normalize_vjp(g, input, weight, group, statistics)


@_normalize.vjp("weight")
def _(g, input, group, statistics):
    return _weight_gradient(g, input, group, statistics)


@_normalize.vjp("bias")
def _(g, input, bias_shape, statistics):
    return _bias_gradient(g, input.detach(), bias_shape, statistics)


@op
def _bias_gradient(g, x, shape, statistics):
    """K = Σ g over all axes but that of the channels, in the shape of β.    ∂L/∂g = G, broadcast; x is a shortcut."""
    if isinstance(statistics, _Kept):
        return statistics.gradient_sums(g, x)[0].sum(axis=0).reshape(shape)
    return sum_to_size.op.forward(g, shape)


@_bias_gradient.vjp("g")
def _(G, g_shape):
    return broadcast_to(G, g_shape)


@op
def _normalize_vjp(g, x, weight, group, statistics):
    """h(γ·g, x) = r(γ·g − M(γ·g) − x̂·M(x̂·γ·g)), with x̂ = r(x − μ) written out. γ may be None.

    ∂L/∂g = γ·h(G, x), because h is linear and symmetric; ∂L/∂γ = Σ g·h(G, x) likewise; ∂L/∂x is equation (3).
    """
    if (made := gpu.normalize_vjp(array_module(x), g, x, weight, group, statistics)) is not None:
        return made
    if isinstance(statistics, _Kept):
        return statistics.gradient(g, x, weight)
    μ, _, r = statistics
    mean = _mean(group, g, weight=weight)
    slope = -(r * r * r) * (_mean(group, g, x, weight=weight) - μ * mean)
    return scaled_sum([g, x], [r if weight is None else r * weight, slope], -μ * slope - r * mean)


@_normalize_vjp.vjp("g")
def _(G, x, weight, group, statistics):
    h = _normalize_vjp(G, x, None, group, statistics)
    return h if weight is None else h * weight


@_normalize_vjp.vjp("weight")
def _(G, g, x, weight_shape, group, statistics):
    return (g * _normalize_vjp(G, x, None, group, statistics)).sum_to_size(weight_shape)


@_normalize_vjp.vjp("x")
def _(G, h, g, x, weight, group, statistics):
    return vjp_in_x(G, h, g if weight is None else g * weight, x, group, statistics)


def vjp_in_x(G: Tensor, h: Tensor, g: Tensor, x: Tensor, group: Group, statistics: Statistics) -> Tensor:
    """Equation (3): the vjp of h(g, x) in x, for its cotangent G and its value h."""
    x_hat = _normalize(x, None, None, group, statistics)
    r = _rstd(x, group, statistics)
    k = G * _average(x_hat * g, group) + g * _average(x_hat * G, group)
    return -r * (x_hat * _average(G * h, group) + _normalize_vjp(k, x, None, group, statistics))


@op
def _weight_gradient(g, x, group, statistics):
    """K = Σ g·x̂ over all axes but that of the channels: (N, C, …) → (1, C, 1, …).

    With G = ∂L/∂K,  ∂L/∂g = G·x̂  and  ∂L/∂x = h(G·g, x): G stands where γ stood.
    """
    if (made := gpu.weight_gradient(array_module(x), g, x, group, statistics)) is not None:
        return made
    if isinstance(statistics, _Kept):
        sums = statistics.gradient_sums(g, x)[1] * statistics.rstd.reshape(-1, x.shape[1])
        return sums.sum(axis=0).reshape([-1 if d == 1 else 1 for d in range(x.ndim)])
    μ, _, r = statistics
    Σgx, Σg = _position_sums(g, x), _position_sums(g)
    per_channel = r.shape[:2]
    sums = (Σgx - μ.reshape(per_channel) * Σg) * r.reshape(per_channel)
    return sums.sum(axis=0).reshape([-1 if d == 1 else 1 for d in range(x.ndim)])


@_weight_gradient.vjp("g")
def _(G, x, group, statistics):
    return G * _normalize(x, None, None, group, statistics)


@_weight_gradient.vjp("x")
def _(G, g, x, group, statistics):
    return _normalize_vjp(g, x, G, group, statistics)


@op
def _rstd(input, group, statistics):
    """r = 1/√(σ² + ε).    dr = −r² M(x̂·dx), so ∂L/∂x = −x̂·Mᵀ(r²·g)."""
    return statistics.rstd


@_rstd.vjp("input")
def _(g, r, input, group, statistics):
    return -_normalize(input, None, None, group, statistics) * _shared(g * r * r, input.shape, group)


@op
def _average(input, group):
    """y = M x, with length 1 on the axes ``group.dims``.    ∂L/∂x = Mᵀg, see _shared."""
    return _mean(group, input)


@_average.vjp("input")
def _(g, input_shape, group):
    return _shared(g, input_shape, group)


def _shared(g: Tensor, shape: tuple[int, ...], group: Group) -> Tensor:
    """Mᵀg: every number of a group gets an equal share of what the group's mean got."""
    n = math.prod(shape) // max(math.prod(g.shape), 1)
    return broadcast_to(_average(g, group) / max(n, 1), shape)


def per_channel(x: Tensor | None, ndim: int) -> Tensor | None:
    """(C) → (1, C, 1, …)."""
    return None if x is None else x.reshape([-1 if d == 1 else 1 for d in range(ndim)])


def standardize(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, group: Group, eps: float
) -> tuple[Tensor, Statistics]:
    """y = γ·x̂ + β and the statistics that went into it, with γ and β (C) or None. float16 is computed in float32."""
    if input.dtype == float16:
        γ, β = (None if x is None else x.to(float32) for x in (weight, bias))
        y, statistics = standardize(input.to(float32), γ, β, group, eps)
        return y.to(float16), statistics
    γ, β = (per_channel(x, input.ndim) for x in (weight, bias))
    raw_γ, raw_β = (None if x is None else x.data for x in (γ, β))
    statistics = _normalized(input.data, raw_γ, raw_β, group, eps)
    return _normalize(input, γ, β, group, statistics), statistics

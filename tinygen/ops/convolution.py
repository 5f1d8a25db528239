"""Convolution, its transpose, and the gradient of its filter: one trilinear form, three derivatives.

With a picture x (N, C, H, W), a filter w (O, C/g, kh, kw) and an output y (N, O, Ho, Wo), let

    T(x, w, y) = Σ  y[n, o, i, j] · w[o, c, u, v] · x[n, c, s·i + d·u − p, s·j + d·v − p]

summed over all indices, x counting as 0 outside the picture; s is the stride, d the dilation, p the padding. (With g
groups, o and c run over the channels of one group at a time.) T is linear in each argument, so each of

    conv2d(x, w)                  = ∂T/∂y    the cross-correlation that networks call convolution
    conv_transpose2d(y, w)        = ∂T/∂x    its adjoint in x
    conv2d_weight_gradient(x, y)  = ∂T/∂w    its adjoint in w

is bilinear in the two that are left, and its vjp with cotangent g is T with g in the missing place, derived by one
of the two: the other two functions. Hence the family is closed, and differentiable any number of times. The three
differ in which sum they do, not in how the filter slides, so they share one :class:`Window`.

The definitions that a reader can follow, :func:`conv2d_by_im2col` and :func:`conv_transpose2d_by_zero_insertion`,
are at the end; the ops compute the same faster (kernels/cpu.py, kernels/gpu/), which the tests hold them to.

Source: ``torch.nn.functional.conv2d``, ``conv_transpose2d``; Dumoulin & Visin, *A guide to convolution arithmetic for
deep learning* (2016); Chellapilla, Puri & Simard (2006) for convolution as a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tinygen.backend import array_module
from tinygen.kernels import cpu
from tinygen.kernels.gpu import convolution as gpu
from tinygen.kernels.windows import Pair, Window
from tinygen.op import op
from tinygen.ops.shape import broadcast_to, flip, pad_zeros, squeeze, unsqueeze
from tinygen.ops.unfold import hashable, pair, sliding, unfold
from tinygen.tensor import Tensor

Lengths = int | Sequence[int]

# ------------------------------------------------------------------------------------ the closed family


def _kernels(input: Any, other: Any) -> Any:
    """The CPU's kernels where both arrays are NumPy's; else the GPU's."""
    return cpu if array_module(input) is np and array_module(other) is np else gpu


@op
def _conv2d(input, weight, bias, window, groups):
    """y = ∂T/∂y + b. ∂L/∂x = conv_transpose2d(g, w),  ∂L/∂w = weight_gradient(x, g),  ∂L/∂b = Σ g over n, i, j.

    Shapes: (N, C, H, W), (O, C/g, kh, kw), (O) or None → (N, O, Ho, Wo).
    """
    return _kernels(input, weight).conv2d(input, weight, bias, window, groups)


@_conv2d.vjp("input")
def _(g, weight, window, groups):
    return _conv_transpose2d(g, weight, None, window, groups)


@_conv2d.vjp("weight")
def _(g, input, window, groups):
    return _conv2d_weight_gradient(input, g, window, groups)


@_conv2d.vjp("bias")
def _(g):
    return _channel_sums(g)


@op
def _conv_transpose2d(input, weight, bias, window, groups):
    """x = ∂T/∂x + b. ∂L/∂y = conv2d(g, w),  ∂L/∂w = weight_gradient(g, y),  ∂L/∂b = Σ g over n and the picture.

    Shapes: (N, O, Ho, Wo), (O, C/g, kh, kw), (C) or None → (N, C, H, W).
    """
    return _kernels(input, weight).conv_transpose2d(input, weight, bias, window, groups)


@_conv_transpose2d.vjp("input")
def _(g, weight, window, groups):
    return _conv2d(g, weight, None, window, groups)


@_conv_transpose2d.vjp("weight")
def _(g, input, window, groups):
    return _conv2d_weight_gradient(g, input, window, groups)


@_conv_transpose2d.vjp("bias")
def _(g):
    return _channel_sums(g)


@op
def _conv2d_weight_gradient(input, output, window, groups):
    """w = ∂T/∂w. ∂L/∂x = conv_transpose2d(y, g),  ∂L/∂y = conv2d(x, g).

    Shapes: (N, C, H, W), (N, O, Ho, Wo) → (O, C/g, kh, kw).
    """
    return _kernels(input, output).conv2d_weight_gradient(input, output, window, groups)


@_conv2d_weight_gradient.vjp("input")
def _(g, output, window, groups):
    return _conv_transpose2d(output, g, None, window, groups)


@_conv2d_weight_gradient.vjp("output")
def _(g, input, window, groups):
    return _conv2d(input, g, None, window, groups)


@op
def _channel_sums(input):
    """y[c] = Σ x over pictures and positions.    ∂L/∂x = g at every position.    Shapes: (N, C, H, W) → (C)."""
    return _kernels(input, input).channel_sums(input)


@_channel_sums.vjp("input")
def _(g, input_shape):
    return broadcast_to(g.reshape(-1, 1, 1), input_shape)


# ---------------------------------------------------------------------------------------- public names


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Lengths = 1,
    padding: Lengths | str = 0,
    dilation: Lengths = 1,
    groups: int = 1,
) -> Tensor:
    """Slide a filter over a picture; no flip (cross-correlation).

    y[n, o, i, j] = b[o] + Σ_{c,u,v} w[o, c, u, v] · x[n, c, s·i + d·u − p, s·j + d·v − p], 0 outside x. With g groups,
    the o-th filter sees the C/g channels of its own group.

    Shapes: (N, C, H, W), (O, C/g, kh, kw), (O) → (N, O, Ho, Wo), or x and y without N.
    Ho = ⌊(H + 2p − d(kh − 1) − 1)/s⌋ + 1. On the CPU the result has its pictures innermost in memory where there are
    32 or more and the groups are one, or small, else its channels.

    Gradients (derived at the top of this file): ∂L/∂x = conv_transpose2d(g, w); ∂L/∂w[o, c, u, v] =
    Σ_{n,i,j} g[n, o, i, j] · x[n, c, s·i + d·u − p, …]; ∂L/∂b[o] = Σ_{n,i,j} g[n, o, i, j].

    Args:
        stride, padding, dilation: an integer or (vertical, horizontal). padding may be ``"valid"`` (none) or
            ``"same"`` (Ho = H; stride 1 only; odd padding has its extra row or column after the picture).
        groups: divides C and O.

    Raises:
        ValueError: shapes, groups and lengths do not fit together, or the filter is larger than the padded picture.
        TypeError: dtypes differ, or a length is not an integer.

    Source: ``torch.nn.functional.conv2d``; see the top of this file.
    """
    _refuse_arrays("conv2d", input, weight, bias)
    if input.ndim == 3:
        return squeeze(conv2d(unsqueeze(input, 0), weight, bias, stride, padding, dilation, groups), 0)
    O = _checked("conv2d", input, weight, bias, groups, "(O, C/groups, kh, kw)", 0)
    c = weight.shape[1]
    if input.shape[1] != c * groups:
        raise ValueError(
            f"conv2d: weight {weight.shape} with groups={groups} needs an input of {c}·{groups} = {c * groups} "
            f"channels, the input {input.shape} has {input.shape[1]}"
        )
    if O % groups:
        raise ValueError(f"conv2d: groups={groups} must divide the {O} filters of weight {weight.shape}")
    padding, stride, dilation = hashable(padding), hashable(stride), hashable(dilation)
    window = sliding(input.shape[2:], weight.shape[2:], stride, padding, dilation, "conv2d")
    return _conv2d(input, weight, bias, window, groups)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Lengths = 1,
    padding: Lengths = 0,
    output_padding: Lengths = 0,
    groups: int = 1,
    dilation: Lengths = 1,
) -> Tensor:
    """The adjoint of conv2d: every number of x paints the filter, times itself, into the result.

    y[n, c, s·i + d·u − p, s·j + d·v − p] += Σ_o w[o, c, u, v] · x[n, o, i, j];  then + b[c].

    Shapes: (N, O, H, W), (O, C/g, kh, kw), (C) → (N, C, Hy, Wy), or x and y without N; note that w has the *input*
    channels first, so that conv2d and conv_transpose2d with the same w are adjoint.
    Hy = (H − 1)s − 2p + d(kh − 1) + output_padding + 1. conv2d maps s different sizes to the same H;
    output_padding says which of them is meant. On the CPU the result has its pictures innermost in memory where there
    are 32 or more and the groups are one, or small, else its channels.

    This slides the *flipped* filter over the zero-inserted picture (conv_transpose2d_by_zero_insertion derives it).
    Some texts slide it unflipped: with X = [[1,2],[3,4]], F = [[1,−1],[2,1]], stride 2, they get

        [[1,2,2,4],[−1,1,−2,2],[3,6,4,8],[−3,3,−4,4]],      which is conv_transpose2d(X, F rotated by 180°, stride=2);
        [[1,−1,2,−2],[2,1,4,2],[3,−3,4,−4],[6,3,8,4]]       is conv_transpose2d(X, F, stride=2), here and in PyTorch.

    Gradients (derived at the top of this file): ∂L/∂x = conv2d(g, w); ∂L/∂w[o, c, u, v] =
    Σ_{n,i,j} x[n, o, i, j] · g[n, c, s·i + d·u − p, …]; ∂L/∂b[c] = Σ g over n and the picture.

    Args:
        stride, padding, output_padding, dilation: an integer or (vertical, horizontal).
        groups: divides the channels of x and y.

    Raises:
        ValueError: shapes, groups and lengths do not fit together, output_padding is not below stride or dilation, or
            the result would be empty.
        TypeError: dtypes differ, or a length is not an integer.

    Source: ``torch.nn.functional.conv_transpose2d``; see the top of this file.
    """
    _refuse_arrays("conv_transpose2d", input, weight, bias)
    if input.ndim == 3:
        arguments = (bias, stride, padding, output_padding, groups, dilation)
        return squeeze(conv_transpose2d(unsqueeze(input, 0), weight, *arguments), 0)
    O = _checked("conv_transpose2d", input, weight, bias, groups, "(C, O/groups, kh, kw)", 1)
    if input.shape[1] != O:
        raise ValueError(
            f"conv_transpose2d: weight {weight.shape} needs an input of {O} channels (its first axis), "
            f"the input {input.shape} has {input.shape[1]}"
        )
    if O % groups:
        raise ValueError(f"conv_transpose2d: groups={groups} must divide the {O} input channels")
    padding, stride = hashable(padding), hashable(stride)
    output_padding, dilation = hashable(output_padding), hashable(dilation)
    window = _painting(input.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation)
    return _conv_transpose2d(input, weight, bias, window, groups)


def _checked(
    who: str, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, form: str, channels: int
) -> int:
    """The number of filters, once kinds, ranks, dtypes and groups are seen to fit.

    ``channels`` is the axis of the weight that counts the result's channels (of one group, where it is 1).
    """
    if input.ndim != 4:
        raise ValueError(f"{who}: expected input (N, C, H, W) or (C, H, W), got shape {input.shape}")
    if weight.ndim != 4:
        raise ValueError(f"{who}: expected weight {form}, got shape {weight.shape}")
    if input.dtype != weight.dtype or (bias is not None and bias.dtype != weight.dtype):
        found = f"input {input.dtype}, weight {weight.dtype}" + ("" if bias is None else f", bias {bias.dtype}")
        raise TypeError(f"{who}: dtypes must agree, got {found}; convert with x.to(dtype)")
    if type(groups) is not int or groups < 1:
        raise ValueError(f"{who}: groups must be a positive integer, got {groups!r}")
    if 0 in weight.shape or 0 in input.shape[1:]:
        raise ValueError(
            f"{who}: only the batch may be empty, got input {input.shape} and weight {weight.shape}"
        )
    made = weight.shape[channels] * (groups if channels else 1)
    if bias is not None and bias.shape != (made,):
        raise ValueError(
            f"{who}: weight {weight.shape} with groups={groups} makes {made} channels, so bias must have the "
            f"shape ({made},), got {bias.shape}"
        )
    return weight.shape[0]


def _refuse_arrays(who: str, input: Any, weight: Any, bias: Any) -> None:
    for name, value in (("input", input), ("weight", weight), ("bias", bias)):
        if not isinstance(value, Tensor) and not (name == "bias" and value is None):
            raise TypeError(f"{who}: expected {name} to be a Tensor, got {type(value).__name__}")


@lru_cache(maxsize=512)
def _painting(size: Pair, kernel: Pair, stride: Any, padding: Any, output_padding: Any, dilation: Any) -> Window:
    """The window with ``size`` positions, over a picture of the size that conv_transpose2d makes."""
    who = "conv_transpose2d"
    stride, dilation = pair(stride, who, "stride", 1), pair(dilation, who, "dilation", 1)
    if isinstance(padding, str):
        raise TypeError(f"{who}: padding must be an integer or a pair, got {padding!r}; names are for conv2d")
    padding, extra = pair(padding, who, "padding"), pair(output_padding, who, "output_padding")
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"{who}: output_padding={extra} must be smaller than stride={stride} or dilation={dilation}, "
            "vertically and horizontally"
        )
    out = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, e, d in zip(size, kernel, stride, padding, extra, dilation, strict=True)
    )
    if out[0] < 1 or out[1] < 1:
        raise ValueError(
            f"{who}: the result would have the size {out} (input {size}, kernel {kernel}, stride {stride}, padding "
            f"{padding}, output_padding {extra}, dilation {dilation}); use less padding"
        )
    return Window((out[0], out[1]), kernel, size, stride, padding, dilation)


# ------------------------------------------------------------------------------- readable definitions


def conv2d_by_im2col(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Lengths = 1,
    padding: Lengths = 0,
    dilation: Lengths = 1,
    groups: int = 1,
) -> Tensor:
    """conv2d as it is best understood: write what each window sees into a column, then one matrix product.

    With X[(c, u, v), (i, j)] = x[c, s·i + d·u − p, s·j + d·v − p]  (unfold, or im2col)
    and  W[o, (c, u, v)] = w[o, c, u, v],   the sum over c, u, v is  Y = W X,  and y[o, i, j] = Y[o, (i, j)] + b[o].

    Each of g groups has its own rows of X and of W: a stack of g products. The columns repeat every number up to kh·kw
    times, which is why the fast version never holds them all at once.

    Shapes: as conv2d, for 4-D input. Raises as conv2d and unfold do.
    """
    N, C = input.shape[:2]
    O, _, kh, kw = weight.shape
    window = sliding(input.shape[2:], (kh, kw), hashable(stride), hashable(padding), hashable(dilation), "conv2d")
    X = unfold(input, (kh, kw), dilation, padding, stride)
    X = X.reshape(N, groups, C // groups * kh * kw, window.out[0] * window.out[1])
    W = weight.reshape(groups, O // groups, C // groups * kh * kw)
    Y = (W @ X).reshape(N, O, *window.out)
    return Y if bias is None else Y + bias.reshape(O, 1, 1)


def insert_zeros(input: Tensor, stride: Lengths) -> Tensor:
    """Move the entries of a picture apart: s − 1 zeros between neighbours, none outside.

    y[n, c, s·i, s·j] = x[n, c, i, j], 0 elsewhere.    ∂L/∂x = g[:, :, ::s, ::s].

    Shapes: (N, C, H, W) → (N, C, (H − 1)s + 1, (W − 1)s + 1).
    """
    s = pair(stride, "insert_zeros", "stride", 1)
    N, C, H, W = input.shape
    y = input.reshape(N, C, H, 1, W, 1)
    y = pad_zeros(pad_zeros(y, 3, 0, s[0] - 1), 5, 0, s[1] - 1)  # s − 1 zeros after every entry …
    y = y.reshape(N, C, H * s[0], W * s[1])
    return pad_zeros(pad_zeros(y, 2, 0, 1 - s[0]), 3, 0, 1 - s[1])  # … but none after the last


def conv_transpose2d_by_zero_insertion(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Lengths = 1,
    padding: Lengths = 0,
    output_padding: Lengths = 0,
    groups: int = 1,
    dilation: Lengths = 1,
) -> Tensor:
    """conv_transpose2d as it is best understood: put zeros between the entries, pad, slide the flipped filter.

    conv2d in one dimension is  y[i] = Σ_u w[u] x[s·i + d·u − p].  Its adjoint sends y[i] back along the same path,
    x[m] = Σ w[u] y[i]  over all i, u with  s·i + d·u − p = m.  Let z be y with zeros inserted, z[s·i] = y[i]; then
    z[m + p − d·u] is y[i] where such an i exists and 0 where none does, and

        x[m] = Σ_u w[u] z[m + p − d·u] = Σ_u w[k − 1 − u] z[m + d·u − (d(k − 1) − p)]       (u → k − 1 − u):

    a convolution of z with stride 1, dilation d, padding d(k − 1) − p and the filter *flipped*, over the input and
    output channels exchanged. output_padding adds rows at the end, zeros that the last windows read too.

    A share 1 − 1/s² of what the filter reads are zeros that were just put there; the fast version skips them.

    Shapes: as conv_transpose2d, for 4-D input. Raises as conv_transpose2d does.
    """
    O, c, kh, kw = weight.shape
    lengths = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    s, p, e, d = (pair(value, "conv_transpose2d", name) for name, value in lengths.items())
    z = insert_zeros(input, s)
    for k, axis in enumerate((2, 3)):
        before = d[k] * (weight.shape[axis] - 1) - p[k]
        z = pad_zeros(z, axis, before, before + e[k])
    flipped = flip(weight, (2, 3)).reshape(groups, O // groups, c, kh, kw)
    exchanged = flipped.transpose(1, 2).reshape(groups * c, O // groups, kh, kw)
    return conv2d_by_im2col(z, exchanged, bias, dilation=d, groups=groups)

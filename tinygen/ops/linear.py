"""The affine map y = x Wᵀ + b: the layer that everything else sits between.

Leading axes are flattened, so that the forward and each gradient is one product of two matrices, whatever the
shape of the batch. The two ops below are closed under differentiation: with X, G the flattened inputs and gradients,

    _linear(X, W, b) = X Wᵀ + b      and      _weight_gradient(G, X) = Gᵀ X

are bilinear, and each one's vjps are made of these two again.

Source: ``torch.nn.functional.linear``; Giles, *Collected matrix derivative results* (2008), §2.2.
"""

from __future__ import annotations

import math

from tinygen.kernels.blocks import reshaped
from tinygen.op import op
from tinygen.ops.matmul import matrix_product
from tinygen.ops.shape import matrix_transpose
from tinygen.tensor import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x Wᵀ + b over the last axis.

    Shapes: input (…, n), weight (m, n), bias (m) → (…, m).

    With rows x_r, y_r, g_r over all leading axes, y_ri = Σ_j W_ij x_rj + b_i, so

        ∂L/∂x = G W,      ∂L/∂W = Gᵀ X,      ∂L/∂b = Σ_r g_r.

    Raises:
        ValueError: a shape does not fit. (PyTorch's one-axis weight is not here.)
        TypeError: the dtypes differ.

    Source: ``torch.nn.functional.linear``.
    """
    if input.ndim < 1 or weight.ndim != 2 or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: expected input (…, n) and weight (m, n), got input {input.shape} and weight {weight.shape}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear: expected bias ({weight.shape[0]},) for weight {weight.shape}, got {bias.shape}")
    if weight.dtype != input.dtype or (bias is not None and bias.dtype != input.dtype):
        named = {"input": input, "weight": weight} | ({} if bias is None else {"bias": bias})
        given = ", ".join(f"{name} {x.dtype}" for name, x in named.items())
        raise TypeError(f"linear: expected one dtype, got {given}; convert with .to(dtype)")
    return _linear(input, weight, bias)


def _rows(x):
    """(…, n) → (r, n)."""
    return reshaped(x, (math.prod(x.shape[:-1]), x.shape[-1]))


@op
def _linear(input, weight, bias):
    """y = x Wᵀ + b.    ∂L/∂x = G W,  ∂L/∂W = Gᵀ X,  ∂L/∂b = Σ_r g_r. See linear."""
    y = matrix_product(_rows(input), weight.T)
    if bias is not None:
        y += bias
    return y.reshape(*input.shape[:-1], weight.shape[0])


@_linear.vjp("input")
def _(g, weight):
    return _linear(g, matrix_transpose(weight), None)


@_linear.vjp("weight")
def _(g, input):
    return _weight_gradient(g, input)


@_linear.vjp("bias")
def _(g, bias_shape):
    return g.sum_to_size(bias_shape)


@op
def _weight_gradient(g, input):
    """H = Gᵀ X, summed over all rows: (…, m), (…, n) → (m, n).

    dL = tr(Kᵀ dH) = tr(Kᵀ dGᵀ X) + tr(Kᵀ Gᵀ dX) with K = ∂L/∂H, so ∂L/∂G = X Kᵀ and ∂L/∂X = G K.
    """
    return matrix_product(_rows(g).T, _rows(input))


@_weight_gradient.vjp("g")
def _(K, input):
    return _linear(input, K, None)


@_weight_gradient.vjp("input")
def _(K, g):
    return _linear(g, matrix_transpose(K), None)

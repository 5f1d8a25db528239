"""The affine map y = x Wᵀ + b: the layer that everything else sits between.

Leading axes are flattened, so that the forward and each gradient is one product of two matrices, whatever the
shape of the batch. The ops below are closed under differentiation: with X, G the flattened inputs and gradients,

    _linear(X, W, b) = X Wᵀ + b,      _input_gradient(G, W) = G W      and      _weight_gradient(G, X) = Gᵀ X

are bilinear, and each one's vjps are made of these three again.

Source: ``torch.nn.functional.linear``; Giles, *Collected matrix derivative results* (2008), §2.2.
"""

from __future__ import annotations

import math

from tinygen.kernels.blocks import reshaped
from tinygen.kernels.channels import row_sum
from tinygen.op import op
from tinygen.ops.matmul import matrix_product
from tinygen.ops.shape import broadcast_to
from tinygen.tensor import Tensor

_MANY = 128  # rows from where on BLAS is quicker at their sum


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
    x, w = input.shape, weight.shape
    if not x or len(w) != 2 or x[-1] != w[1]:
        raise ValueError(f"linear: expected input (…, n) and weight (m, n), got input {x} and weight {w}")
    if bias is not None and bias.shape != w[:1]:
        raise ValueError(f"linear: expected bias ({w[0]},) for weight {w}, got {bias.shape}")
    if weight.dtype != input.dtype or (bias is not None and bias.dtype != input.dtype):
        named = {"input": input, "weight": weight} | ({} if bias is None else {"bias": bias})
        given = ", ".join(f"{name} {x.dtype}" for name, x in named.items())
        raise TypeError(f"linear: expected one dtype, got {given}; convert with .to(dtype)")
    return _linear(input, weight, bias)


def _rows(x):
    """(…, n) → (r, n)."""
    return x if x.ndim == 2 else reshaped(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _like(y, x):
    """The rows y (r, m) with the leading axes of x (…, n): (…, m)."""
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], y.shape[1])


@op
def _linear(input, weight, bias):
    """y = x Wᵀ + b.    ∂L/∂x = G W,  ∂L/∂W = Gᵀ X,  ∂L/∂b = Σ_r g_r. See linear."""
    y = matrix_product(_rows(input), weight.T)
    if bias is not None:
        y += bias
    return _like(y, input)


@_linear.vjp("input")
def _(g, weight):
    return _input_gradient(g, weight)


@_linear.vjp("weight")
def _(g, input):
    return _weight_gradient(g, input)


@_linear.vjp("bias")
def _(g):
    return _row_sums(g)


@op
def _input_gradient(g, weight):
    """H = G W: (…, m), (m, n) → (…, n).    ∂L/∂G = K Wᵀ,  ∂L/∂W = Gᵀ K  with K = ∂L/∂H."""
    return _like(matrix_product(_rows(g), weight), g)


@_input_gradient.vjp("g")
def _(K, weight):
    return _linear(K, weight, None)


@_input_gradient.vjp("weight")
def _(K, g):
    return _weight_gradient(g, K)


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
    return _input_gradient(g, K)


@op
def _row_sums(g):
    """h = Σ_r g_r over all rows: (…, m) → (m).    ∂L/∂g_r = ∂L/∂h for every row r."""
    rows = _rows(g)
    found = row_sum(rows, 1) if len(rows) >= _MANY else None
    return rows.sum(0) if found is None else found


@_row_sums.vjp("g")
def _(k, g_shape):
    return broadcast_to(k, g_shape)

"""autograd: NumPy functions, differentiated by tracing.

Its one convolution, autograd.scipy.signal.convolve, has no stride and sums with einsum; one matrix product for each
of the filter's k × k places, as below, was six times as fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import autograd.numpy as np
import numpy
from autograd import grad, make_vjp, value_and_grad

from benchmarks import functional
from benchmarks.peers import base, numpy_names
from benchmarks.peers.base import (  # noqa: F401
    Arrays,
    NumpyAdam,
    Peer,
    Work,
    flatten,
    images,
    missing,
    numpy_noise,
    of,
    per_channel,
    sample,
    trainable,
)

F = sys.modules[__name__]

array: Any = partial(numpy.array, dtype=numpy.float32)
exp, sqrt, cos, sin, tanh, sum, mean = np.exp, np.sqrt, np.cos, np.sin, np.tanh, np.sum, np.mean
permute, cat = np.transpose, partial(np.concatenate, axis=1)
tokens, from_tokens = partial(base.tokens, permute), partial(base.from_tokens, permute)
upsample, group_norm = partial(numpy_names.upsample, np), partial(numpy_names.group_norm, np)
layer_norm, attention = partial(numpy_names.layer_norm, np), lambda *qkv: numpy_names.attention(np, softmax, *qkv)


def relu(x: Any) -> Any:
    """max(x, 0)."""
    return np.maximum(x, 0)


def leaky_relu(x: Any, slope: float) -> Any:
    """x, or slope · x where that is larger."""
    return np.maximum(x, slope * x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e⁻ˣ)."""
    return 0.5 * (np.tanh(0.5 * x) + 1)


def silu(x: Any) -> Any:
    """x σ(x)."""
    return x * sigmoid(x)


def softplus(x: Any) -> Any:
    """ln(1 + eˣ)."""
    return np.logaddexp(0, x)


def linear(x: Any, w: Any, b: Any = None) -> Any:
    """x Wᵀ + b."""
    y = np.dot(x, np.transpose(w))
    return y if b is None else y + b


def conv2d(x: Any, w: Any, b: Any = None, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
    """The sum over the filter's places of (shifted image) · (weights at that place)."""
    if groups != 1:
        return missing("it has no convolution with groups")()
    k, h = w.shape[-1], (x.shape[-1] + 2 * padding - w.shape[-1]) // stride + 1
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), "constant") if padding else x
    y = 0.0 if b is None else b
    for i in range(k):
        for j in range(k):
            seen = x[:, :, i : i + stride * (h - 1) + 1 : stride, j : j + stride * (h - 1) + 1 : stride]
            y = y + np.tensordot(seen, w[:, :, i, j], ((1,), (1,)))
    return np.moveaxis(y, 3, 1)


def conv_transpose2d(x: Any, w: Any, b: Any = None, stride: int = 1, padding: int = 0) -> Any:
    """A convolution of the image spread out by the stride, with the filter turned around."""
    n, c, h, _ = x.shape
    gap = (0, stride - 1)
    spread = np.pad(x[:, :, :, None, :, None], ((0, 0), (0, 0), (0, 0), gap, (0, 0), gap), "constant")
    spread = np.reshape(spread, (n, c, stride * h, stride * h))[:, :, : stride * (h - 1) + 1, : stride * (h - 1) + 1]
    return conv2d(spread, np.swapaxes(w, 0, 1)[:, :, ::-1, ::-1], b, padding=w.shape[-1] - 1 - padding)


def _blocks(x: Any) -> Any:
    n, c, h, w = x.shape
    return np.reshape(x, (n, c, h // 2, 2, w // 2, 2))


def max_pool2d(x: Any) -> Any:
    """The largest of each 2×2."""
    return np.max(_blocks(x), axis=(3, 5))


def avg_pool2d(x: Any) -> Any:
    """The mean of each 2×2."""
    return np.mean(_blocks(x), axis=(3, 5))


def batch_norm(x: Any, γ: Any, β: Any) -> Any:
    """Mean 0 and variance 1 in each channel."""
    return numpy_names.standard(np, x, (0, 2, 3)) * np.reshape(γ, (1, -1, 1, 1)) + np.reshape(β, (1, -1, 1, 1))


def softmax(x: Any) -> Any:
    """eˣ / Σ eˣ along the last axis."""
    e = np.exp(x - np.max(x, -1, keepdims=True))
    return e / np.sum(e, -1, keepdims=True)


class Autograd(Peer):
    """autograd on NumPy."""

    name = package = "autograd"

    def train(self, family: str, weights: Arrays, x: numpy.ndarray) -> Callable[..., Any]:
        """See Peer."""
        p = {name: w.copy() for name, w in trainable(weights).items()}
        draws, draw = functional.noise(family, x.shape), numpy.random.default_rng(0)
        if family == "DCGAN":
            d, g = of(p, "discriminator"), of(p, "generator")
            adam_d, adam_g = (NumpyAdam(w, 2e-4, (0.5, 0.999)) for w in (d, g))

            def step(z: Any) -> Any:
                pull, fake = make_vjp(lambda g: functional.generator(F, g, z))(g)
                adam_d.step(grad(lambda d: functional.discriminator_loss(F, d, x, fake))(d))
                L, d_fake = value_and_grad(lambda fake: functional.generator_loss(F, d, fake))(fake)
                adam_g.step(pull(d_fake))
                return L
        else:
            adam = NumpyAdam(p, 1e-3)

            def step(*noise: Any) -> Any:
                L, g = value_and_grad(lambda p: functional.LOSSES[family](F, p, x, *noise))(p)
                adam.step(g)
                return L

        return lambda *noise: step(*noise or numpy_noise(draw, draws))

    def sample(
        self, family: str, weights: Arrays, inputs: Sequence[numpy.ndarray], calls: int = 1
    ) -> Callable[..., Any]:
        """See Peer."""
        return sample(F, family, weights, inputs, calls)

    def op(
        self, kind: str, arrays: Sequence[numpy.ndarray], options: Mapping[str, Any], g: numpy.ndarray
    ) -> Work:
        """See Peer."""
        f = {"group_norm": lambda x, γ, β: group_norm(x, 8, γ, β)}.get(kind) or partial(getattr(F, kind), **options)
        return lambda: make_vjp(lambda inputs: f(*inputs))(tuple(arrays))[0](g)

    def small(self, kind: str, arrays: Sequence[numpy.ndarray]) -> Work:
        """See Peer. Plain calls record nothing, unlike the others' tensors; so the forward rows are make_vjp's."""
        a, b, *rest = arrays
        if kind in ("add", "matmul"):
            f = np.add if kind == "add" else np.matmul
            return lambda: make_vjp(lambda both: f(*both))((a, b))[1]
        if kind == "add, sum, backward":
            gradient = grad(lambda a, b: np.sum(a + b), (0, 1))
        else:
            gradient = grad(lambda x, w, b: np.sum(relu(linear(x, w, b))), (0, 1, 2))
        return lambda: gradient(a, b, *rest)


def peer() -> Peer:
    """autograd."""
    return Autograd()

"""MyGrad: tensors that record, NumPy's names, conv_nd and batchnorm of its own; no transposed convolution, no Adam."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import mygrad as mg
import numpy as np
from mygrad.nnet import activations, layers

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

mg.turn_memory_guarding_off()  # as its manual advises for speed

exp, sqrt, cos, sin, tanh, sum, mean = mg.exp, mg.sqrt, mg.cos, mg.sin, mg.tanh, mg.sum, mg.mean
relu, leaky_relu, sigmoid, softmax = activations.relu, activations.leaky_relu, activations.sigmoid, activations.softmax
permute, cat, array = mg.transpose, partial(mg.concatenate, axis=1), partial(mg.tensor, dtype=np.float32, constant=True)
tokens, from_tokens = partial(base.tokens, permute), partial(base.from_tokens, permute)
upsample, group_norm = partial(numpy_names.upsample, mg), partial(numpy_names.group_norm, mg)
layer_norm, attention = partial(numpy_names.layer_norm, mg), partial(numpy_names.attention, mg, softmax)


def silu(x: Any) -> Any:
    """x σ(x)."""
    return x * sigmoid(x)


def softplus(x: Any) -> Any:
    """ln(1 + eˣ)."""
    return mg.logaddexp(x, 0)


def linear(x: Any, w: Any, b: Any = None) -> Any:
    """x Wᵀ + b."""
    y = mg.matmul(x, w.T)
    return y if b is None else y + b


def conv2d(x: Any, w: Any, b: Any = None, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
    """conv_nd, which wants the filter to fit a whole number of times: where it does not, the margin is made by hand."""
    if groups != 1:
        return missing("its conv_nd has no groups")()
    n, c, h, _ = x.shape
    if over := (h + 2 * padding - w.shape[-1]) % stride:
        x, padding = _in_zeros(x, h + 2 * padding - over, slice(padding, padding + h)), 0
    y = layers.conv_nd(x, w, stride=stride, padding=padding)
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def conv_transpose2d(x: Any, w: Any, b: Any = None, stride: int = 1, padding: int = 0) -> Any:
    """conv_nd of the image spread out by the stride, with the filter turned around."""
    spread = _in_zeros(x, stride * (x.shape[-1] - 1) + 1, slice(None, None, stride))
    return conv2d(spread, mg.swapaxes(w, 0, 1)[:, :, ::-1, ::-1], b, padding=w.shape[-1] - 1 - padding)


def _in_zeros(x: Any, size: int, where: slice) -> Any:
    room = mg.zeros((*x.shape[:2], size, size), dtype=np.float32)
    room[:, :, where, where] = x
    return room


def max_pool2d(x: Any) -> Any:
    """The largest of each 2×2."""
    return layers.max_pool(x, (2, 2), 2)


def avg_pool2d(x: Any) -> Any:
    """The mean of each 2×2."""
    n, c, h, w = x.shape
    return mg.mean(x.reshape(n, c, h // 2, 2, w // 2, 2), axis=(3, 5))


def batch_norm(x: Any, γ: Any, β: Any) -> Any:
    """MyGrad's own."""
    return layers.batchnorm(x, gamma=γ, beta=β, eps=1e-5)


class MyGrad(Peer):
    """MyGrad on NumPy."""

    name = package = "mygrad"

    def train(self, family: str, weights: Arrays, x: np.ndarray) -> Callable[..., Any]:
        """See Peer."""
        p = {name: mg.tensor(w.copy()) for name, w in trainable(weights).items()}
        draws, draw = functional.noise(family, x.shape), np.random.default_rng(0)
        adam_of = lambda p, *options: NumpyAdam({name: w.data for name, w in p.items()}, *options)

        def descend(L: Any, p: Mapping[str, Any], adam: NumpyAdam) -> Any:
            for w in p.values():
                w.null_grad()
            L.backward()
            adam.step({name: w.grad for name, w in p.items()})
            return L.data

        data = mg.tensor(x, constant=True)
        if family == "DCGAN":
            d, g = of(p, "discriminator"), of(p, "generator")
            adam_d, adam_g = adam_of(d, 2e-4, (0.5, 0.999)), adam_of(g, 2e-4, (0.5, 0.999))

            def step(z: Any) -> Any:
                fake = functional.generator(F, g, mg.tensor(z, constant=True))
                descend(functional.discriminator_loss(F, d, data, mg.tensor(fake.data, constant=True)), d, adam_d)
                return descend(functional.generator_loss(F, d, fake), g, adam_g)
        else:
            adam = adam_of(p, 1e-3)

            def step(*noise: Any) -> Any:
                constants = [mg.tensor(a, constant=True) for a in noise]
                return descend(functional.LOSSES[family](F, p, data, *constants), p, adam)

        return lambda *noise: step(*noise or numpy_noise(draw, draws))

    def sample(self, family: str, weights: Arrays, inputs: Sequence[np.ndarray], calls: int = 1) -> Callable[..., Any]:
        """See Peer."""
        p = {name: mg.tensor(w, constant=True) for name, w in weights.items()}
        return mg.no_autodiff(sample(F, family, p, [mg.tensor(a, constant=True) for a in inputs], calls))

    def op(self, kind: str, arrays: Sequence[np.ndarray], options: Mapping[str, Any], g: np.ndarray) -> Work:
        """See Peer."""
        f = {"group_norm": lambda x, γ, β: group_norm(x, 8, γ, β)}.get(kind) or partial(getattr(F, kind), **options)
        inputs = [mg.tensor(a.copy()) for a in arrays]

        def work() -> Any:
            for x in inputs:
                x.null_grad()
            f(*inputs).backward(g)
            return [x.grad for x in inputs]

        return work

    def small(self, kind: str, arrays: Sequence[np.ndarray]) -> Work:
        """See Peer."""
        inputs = a, b, *rest = [mg.tensor(x.copy()) for x in arrays]
        if kind in ("add", "matmul"):
            return (lambda: a + b) if kind == "add" else (lambda: mg.matmul(a, b))
        loss = (lambda: (a + b).sum()) if kind == "add, sum, backward" else (lambda: relu(linear(a, b, *rest)).sum())

        def work() -> None:
            for x in inputs:
                x.null_grad()
            loss().backward()

        return work


def peer() -> Peer:
    """MyGrad."""
    return MyGrad()

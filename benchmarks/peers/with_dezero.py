"""DeZero: Variables that record, functions in dezero.functions, Parameters of a Layer for its optimizers.

Its release of 2020 predates NumPy 2. Two lines put back what NumPy has changed since: the name np.int, and that a
Python number does not make a float32 array float64.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

vars(np).setdefault("int", int)

import dezero  # noqa: E402
import dezero.functions as DF  # noqa: E402

from benchmarks import functional  # noqa: E402
from benchmarks.peers.base import (  # noqa: E402, F401
    Arrays,
    NotPossible,
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

dezero.core.as_array = lambda x, array_module=np: np.asarray(x, np.float32) if np.isscalar(x) else x

F = sys.modules[__name__]

exp, cos, sin, tanh, sum, relu, sigmoid = DF.exp, DF.cos, DF.sin, DF.tanh, DF.sum, DF.relu, DF.sigmoid
leaky_relu, softmax = DF.leaky_relu, partial(DF.softmax, axis=-1)
attention = missing("its matmul takes matrices only, and attention needs a stack of them")
layer_norm = missing("its functions have no layer norm")
upsample = missing("its functions repeat no pixels")


def sqrt(x: Any) -> Any:
    """x^½."""
    return x**0.5


def mean(x: Any) -> Any:
    """Σ x / n."""
    return DF.sum(x) / x.size


def silu(x: Any) -> Any:
    """x σ(x)."""
    return x * DF.sigmoid(x)


def softplus(x: Any) -> Any:
    """ln(1 + eˣ)."""
    return DF.log(1 + DF.exp(x))


def linear(x: Any, w: Any, b: Any = None) -> Any:
    """x Wᵀ + b."""
    return DF.linear(x, w.T, b)


def conv2d(x: Any, w: Any, b: Any = None, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
    """DeZero's own."""
    if groups != 1:
        return missing("its conv2d has no groups")()
    return DF.conv2d(x, w, b, stride, padding)


def conv_transpose2d(x: Any, w: Any, b: Any = None, stride: int = 1, padding: int = 0) -> Any:
    """DeZero's own."""
    return DF.deconv2d(x, w, b, stride, padding)


def max_pool2d(x: Any) -> Any:
    """The largest of each 2×2."""
    return DF.pooling(x, 2, 2)


def avg_pool2d(x: Any) -> Any:
    """The mean of each 2×2."""
    return DF.average_pooling(x, 2, 2)


def group_norm(x: Any, groups: int, γ: Any, β: Any) -> Any:
    """Mean 0 and variance 1 in each group of channels."""
    h = x.reshape(x.shape[0] * groups, -1)
    c = h - DF.sum(h, axis=1, keepdims=True) / h.shape[1]
    h = c / (DF.sum(c * c, axis=1, keepdims=True) / h.shape[1] + 1e-5) ** 0.5
    return h.reshape(*x.shape) * γ.reshape(1, -1, 1, 1) + β.reshape(1, -1, 1, 1)


def batch_norm(x: Any, γ: Any, β: Any) -> Any:
    """DeZero's own, whose running averages are dropped."""
    c = γ.shape[0]
    return DF.batch_nrom(x, γ, β, np.zeros(c, np.float32), np.ones(c, np.float32), eps=1e-5)


class DeZero(Peer):
    """DeZero on NumPy."""

    name = package = "dezero"

    def train(self, family: str, weights: Arrays, x: np.ndarray) -> Callable[..., Any]:
        """See Peer."""
        if family == "DDPM U-Net":
            raise NotPossible("its matmul takes matrices only, and attention needs a stack of them")
        p = {name: dezero.Parameter(w.copy()) for name, w in trainable(weights).items()}
        draws, draw, data = functional.noise(family, x.shape), np.random.default_rng(0), dezero.Variable(x)

        def descend(L: Any, model: Any, adam: Any) -> Any:
            model.cleargrads()
            L.backward()
            adam.update()
            return L.data

        if family == "DCGAN":
            d, g = of(p, "discriminator"), of(p, "generator")
            models = [_layer(d), _layer(g)]
            adams = [dezero.optimizers.Adam(alpha=2e-4, beta1=0.5).setup(model) for model in models]

            def step(z: Any) -> Any:
                fake = functional.generator(F, g, dezero.Variable(z))
                descend(functional.discriminator_loss(F, d, data, dezero.Variable(fake.data)), models[0], adams[0])
                return descend(functional.generator_loss(F, d, fake), models[1], adams[1])
        else:
            model = _layer(p)
            adam = dezero.optimizers.Adam().setup(model)

            def step(*noise: Any) -> Any:
                return descend(functional.LOSSES[family](F, p, data, *map(dezero.Variable, noise)), model, adam)

        return lambda *noise: step(*noise or numpy_noise(draw, draws))

    def sample(self, family: str, weights: Arrays, inputs: Sequence[np.ndarray], calls: int = 1) -> Callable[..., Any]:
        """See Peer."""
        if family == "DDPM U-Net":
            raise NotPossible("its matmul takes matrices only, and attention needs a stack of them")
        p = {name: dezero.Variable(w) for name, w in weights.items()}
        work = sample(F, family, p, [dezero.Variable(a) for a in inputs], calls)

        def without_graph() -> Any:
            with dezero.no_grad():
                return work()

        return without_graph

    def op(self, kind: str, arrays: Sequence[np.ndarray], options: Mapping[str, Any], g: np.ndarray) -> Work:
        """See Peer."""
        f = {"group_norm": lambda x, γ, β: group_norm(x, 8, γ, β)}.get(kind) or partial(getattr(F, kind), **options)
        inputs = [dezero.Variable(a.copy()) for a in arrays]

        def work() -> Any:
            for x in inputs:
                x.cleargrad()
            y = f(*inputs)
            y.grad = dezero.Variable(g)
            y.backward()
            return [x.grad.data for x in inputs]

        return work

    def adam(self, arrays: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> Work:
        """See Peer."""
        p = {f"w{i}": dezero.Parameter(a.copy()) for i, a in enumerate(arrays)}
        for w, g in zip(p.values(), gradients):
            w.grad = dezero.Variable(g)
        return dezero.optimizers.Adam().setup(_layer(p)).update

    def small(self, kind: str, arrays: Sequence[np.ndarray]) -> Work:
        """See Peer."""
        inputs = a, b, *rest = [dezero.Variable(x.copy()) for x in arrays]
        if kind in ("add", "matmul"):
            return (lambda: a + b) if kind == "add" else (lambda: DF.matmul(a, b))
        loss = (lambda: DF.sum(a + b)) if kind == "add, sum, backward" else (
            lambda: DF.sum(DF.relu(linear(a, b, *rest)))
        )

        def work() -> None:
            for x in inputs:
                x.cleargrad()
            loss().backward()

        return work


def _layer(p: Mapping[str, Any]) -> Any:
    layer = dezero.Layer()
    for name, w in p.items():
        setattr(layer, name, w)
    return layer


def peer() -> Peer:
    """DeZero."""
    return DeZero()

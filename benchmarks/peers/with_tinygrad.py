"""tinygrad: lazy tensors; TinyJit around the whole step compiles it (with clang) and replays it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tinygrad import Context, Tensor, TinyJit, nn

from benchmarks import functional
from benchmarks.peers import base
from benchmarks.peers.base import Arrays, Peer, Work, flatten, images, of, per_channel, trainable  # noqa: F401

F = sys.modules[__name__]

array: Any = Tensor
exp, sqrt, cos, sin, tanh, sum, mean = (
    Tensor.exp, Tensor.sqrt, Tensor.cos, Tensor.sin, Tensor.tanh, Tensor.sum, Tensor.mean,
)
relu, silu, sigmoid, softplus, softmax = Tensor.relu, Tensor.silu, Tensor.sigmoid, Tensor.softplus, Tensor.softmax
leaky_relu, permute, attention = Tensor.leaky_relu, Tensor.permute, Tensor.scaled_dot_product_attention
conv2d, conv_transpose2d = Tensor.conv2d, Tensor.conv_transpose2d
max_pool2d, avg_pool2d = Tensor.max_pool2d, Tensor.avg_pool2d
tokens, from_tokens = partial(base.tokens, permute), partial(base.from_tokens, permute)


def cat(parts: Sequence[Any]) -> Any:
    """Along the channels."""
    return parts[0].cat(*parts[1:], dim=1)


def linear(x: Any, w: Any, b: Any = None) -> Any:
    """x Wᵀ + b."""
    return x.linear(w.T, b)


def upsample(x: Any) -> Any:
    """Every pixel twice in both directions."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def group_norm(x: Any, groups: int, γ: Any, β: Any) -> Any:
    """As tinygrad.nn.GroupNorm."""
    h = x.reshape(x.shape[0], groups, -1).layernorm(eps=1e-5).reshape(x.shape)
    return h * γ.reshape(1, -1, 1, 1) + β.reshape(1, -1, 1, 1)


def batch_norm(x: Any, γ: Any, β: Any) -> Any:
    """As tinygrad.nn.BatchNorm in training."""
    μ = x.mean((0, 2, 3))
    var = ((x - μ.detach().reshape(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
    return x.batchnorm(γ, β, μ, (var + 1e-5).rsqrt())


def layer_norm(x: Any, γ: Any, β: Any) -> Any:
    """Mean 0 and variance 1 along the last axis."""
    return x.layernorm(eps=1e-5) * γ + β


class Tinygrad(Peer):
    """tinygrad on the CPU, with as many threads as the cores that the process may use."""

    name = package = "tinygrad"
    blas = False
    compiles = True
    settling = 3  # TinyJit runs, then records, then replays

    def train(self, family: str, weights: Arrays, x: np.ndarray) -> Callable[..., Any]:
        """See Peer."""
        p = {name: Tensor(w).realize() for name, w in trainable(weights).items()}
        draws, data = functional.noise(family, x.shape), Tensor(x).is_param_(False).realize()
        adam = lambda p, lr, b1=0.9: nn.optim.Adam(list(p.values()), lr=lr, b1=b1)
        if family == "DCGAN":
            d, g = of(p, "discriminator"), of(p, "generator")
            adam_d, adam_g = adam(d, 2e-4, 0.5), adam(g, 2e-4, 0.5)

            def step(z: Any) -> Any:
                adam_d.zero_grad()
                functional.discriminator_loss(F, d, data, functional.generator(F, g, z).detach()).backward()
                adam_d.step()
                adam_g.zero_grad()
                L = functional.generator_loss(F, d, functional.generator(F, g, z)).backward()
                return L.realize(*adam_g.schedule_step())
        else:
            optimizer = adam(p, 1e-3)

            def step(*noise: Any) -> Any:
                optimizer.zero_grad()
                L = functional.LOSSES[family](F, p, data, *noise).backward()
                return L.realize(*optimizer.schedule_step())

        given = TinyJit(step)
        drawn = TinyJit(lambda: step(*[{"normal": Tensor.randn, "uniform": Tensor.rand}[k](*s) for k, s in draws]))

        def work(*noise: np.ndarray) -> Any:
            with Context(TRAINING=1):
                constants = [Tensor(a).is_param_(False).realize() for a in noise]
                return (given(*constants) if noise else drawn()).item()

        return work

    def sample(self, family: str, weights: Arrays, inputs: Sequence[np.ndarray], calls: int = 1) -> Callable[..., Any]:
        """See Peer."""
        f = functional.SAMPLERS[family]
        p = {name: Tensor(w).realize() for name, w in trainable_and_running(weights).items()}
        call, (z, *rest) = TinyJit(lambda *args: f(F, p, *args).realize()), [Tensor(a).realize() for a in inputs]

        def work() -> Any:
            x = z
            for _ in range(calls):
                x = call(x, *rest).clone().realize() if calls > 1 else call(x, *rest)
            return x.numpy()

        return work

    def op(self, kind: str, arrays: Sequence[np.ndarray], options: Mapping[str, Any], g: np.ndarray) -> Work:
        """See Peer."""
        f = {"group_norm": lambda x, γ, β: group_norm(x, 8, γ, β)}.get(kind) or partial(getattr(F, kind), **options)

        @TinyJit
        def both(g: Any, *inputs: Any) -> Any:
            gradients = f(*inputs).gradient(*inputs, gradient=g)
            Tensor.realize(*gradients)
            return gradients

        tensors = [Tensor(np.ascontiguousarray(a)).realize() for a in (g, *arrays)]
        return lambda: _wait(both(*tensors))

    def adam(self, arrays: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> Work:
        """See Peer."""
        p = [Tensor(a).realize() for a in arrays]
        optimizer = nn.optim.Adam(p, lr=1e-3)
        for w, g in zip(p, gradients):
            w.grad = Tensor(g).realize()
        step = TinyJit(optimizer.step)

        def work() -> Any:
            with Context(TRAINING=1):
                step()
            return _wait(p)

        return work

    def small(self, kind: str, arrays: Sequence[np.ndarray]) -> Work:
        """See Peer. Jitted, since without its jit every call builds and looks up its kernels anew (milliseconds)."""
        tensors = [Tensor(a).realize() for a in arrays]
        if kind in ("add", "matmul"):
            forward = TinyJit(lambda a, b: (a + b if kind == "add" else a @ b).realize())
            return lambda: _wait([forward(*tensors)])
        loss = {
            "add, sum, backward": lambda a, b: (a + b).sum(),
            "linear, relu, sum, backward": lambda x, w, b: linear(x, w, b).relu().sum(),
        }[kind]

        @TinyJit
        def both(*inputs: Any) -> Any:
            gradients = loss(*inputs).gradient(*inputs)
            Tensor.realize(*gradients)
            return gradients

        return lambda: _wait(both(*tensors))


def _wait(tensors: Any) -> Any:
    """Its CPU device runs in its own thread: done when it says so."""
    from tinygrad import Device

    Device[Device.DEFAULT].synchronize()
    return tensors


def trainable_and_running(weights: Arrays) -> dict[str, np.ndarray]:
    """All but BatchNorm's counters."""
    return {name: w for name, w in weights.items() if "num_batches" not in name}


def peer() -> Peer:
    """tinygrad."""
    return Tinygrad()

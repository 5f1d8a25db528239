"""JAX: pure functions of a dict of arrays; one jit around the whole training step, its state handed over.

Images have their channels last, as is usual with JAX: XLA's convolutions on the CPU are half again as fast so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import functional
from benchmarks.peers.base import Arrays, Peer, Work, of, trainable

F = sys.modules[__name__]

array, exp, sqrt, cos, sin, tanh, sum, mean = (
    jnp.array, jnp.exp, jnp.sqrt, jnp.cos, jnp.sin, jnp.tanh, jnp.sum, jnp.mean,
)
relu, silu, sigmoid, softplus, softmax = jax.nn.relu, jax.nn.silu, jax.nn.sigmoid, jax.nn.softplus, jax.nn.softmax
leaky_relu, permute, cat = jax.nn.leaky_relu, jnp.transpose, partial(jnp.concatenate, axis=-1)


def linear(x: Any, w: Any, b: Any = 0.0) -> Any:
    """x Wᵀ + b."""
    return x @ w.T + b


def conv2d(x: Any, w: Any, b: Any = None, stride: int = 1, padding: int = 0, groups: int = 1) -> Any:
    """Filters in PyTorch's order, which is XLA's affair."""
    y = lax.conv_general_dilated(
        x, w, (stride, stride), [(padding, padding)] * 2, feature_group_count=groups,
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
    )
    return y if b is None else y + b


def conv_transpose2d(x: Any, w: Any, b: Any = None, stride: int = 1, padding: int = 0) -> Any:
    """A convolution of the image spread out by the stride, with the filter turned around."""
    k = w.shape[-1] - 1 - padding
    y = lax.conv_general_dilated(
        x, w[:, :, ::-1, ::-1], (1, 1), [(k, k)] * 2, lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "IOHW", "NHWC"),
    )
    return y if b is None else y + b


def max_pool2d(x: Any) -> Any:
    """The largest of each 2×2."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def avg_pool2d(x: Any) -> Any:
    """The mean of each 2×2."""
    return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4


def upsample(x: Any) -> Any:
    """Every pixel twice in both directions."""
    return x.repeat(2, 1).repeat(2, 2)


def group_norm(x: Any, groups: int, γ: Any, β: Any) -> Any:
    """Mean 0 and variance 1 in each group of channels."""
    h = x.reshape(*x.shape[:3], groups, -1)
    h = (h - h.mean((1, 2, 4), keepdims=True)) * lax.rsqrt(h.var((1, 2, 4), keepdims=True) + 1e-5)
    return h.reshape(x.shape) * γ + β


def batch_norm(x: Any, γ: Any, β: Any) -> Any:
    """Mean 0 and variance 1 in each channel."""
    return (x - x.mean((0, 1, 2))) * lax.rsqrt(x.var((0, 1, 2)) + 1e-5) * γ + β


def layer_norm(x: Any, γ: Any, β: Any) -> Any:
    """Mean 0 and variance 1 along the last axis."""
    return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * γ + β


def per_channel(v: Any) -> Any:
    """(c,) or (n, c) → (1 or n, 1, 1, c)."""
    return v.reshape(1 if v.ndim == 1 else v.shape[0], 1, 1, -1)


def flatten(x: Any) -> Any:
    """(n, h, w, c) → (n, c·h·w)."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def images(x: Any, c: int, side: int) -> Any:
    """(n, c·h·w) → (n, h, w, c)."""
    return x.reshape(x.shape[0], c, side, side).transpose(0, 2, 3, 1)


def tokens(x: Any) -> Any:
    """(n, h, w, c) → (n, h·w, c)."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def from_tokens(x: Any, shape: tuple[int, ...]) -> Any:
    """(n, h·w, c) → (n, h, w, c)."""
    return x.reshape(shape)


def attention(q: Any, k: Any, v: Any) -> Any:
    """softmax(q kᵀ / √d) v; JAX's own has the heads behind the tokens."""
    heads_last = [a.transpose(0, 2, 1, 3) for a in (q, k, v)]
    return jax.nn.dot_product_attention(*heads_last).transpose(0, 2, 1, 3)


def adam(p: Any, g: Any, state: Any, lr: float, b1: float = 0.9, b2: float = 0.999) -> tuple[Any, Any]:
    """Kingma & Ba's algorithm 1 over a tree of arrays."""
    m, v, t = state
    t = t + 1
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)
    step = lambda p, m, v: p - lr * (m / (1 - b1**t)) / (jnp.sqrt(v / (1 - b2**t)) + 1e-8)
    return jax.tree.map(step, p, m, v), (m, v, t)


def adam_state(p: Any) -> Any:
    """Zeros like the weights, twice, and the step."""
    return jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p), jnp.zeros((), jnp.float32)


def descend(family: str, state: Any, x: Any, noise: Any) -> tuple[Any, Any]:
    """One step of a family with one loss."""
    p, moments = state
    L, g = jax.value_and_grad(lambda p: functional.LOSSES[family](F, p, x, *noise))(p)
    return L, adam(p, g, moments, 1e-3)


def alternate(state: Any, x: Any, noise: Any) -> tuple[Any, Any]:
    """One step of DCGAN's discriminator and one of its generator."""
    (d, d_moments), (g, g_moments) = state
    fake, pull = jax.vjp(lambda g: functional.generator(F, g, *noise), g)
    d, d_moments = adam(d, jax.grad(lambda d: functional.discriminator_loss(F, d, x, fake))(d), d_moments, 2e-4, 0.5)
    L, d_fake = jax.value_and_grad(lambda fake: functional.generator_loss(F, d, fake))(fake)
    return L, ((d, d_moments), adam(g, *pull(d_fake), g_moments, 2e-4, 0.5))


class Jax(Peer):
    """JAX on the CPU. Its threads are as many as the cores that the process may use."""

    name = package = "jax"
    blas = False
    compiles = True

    def train(self, family: str, weights: Arrays, x: np.ndarray) -> Callable[..., Any]:
        """See Peer."""
        p, key, data = _tree(trainable(weights)), [jax.random.key(0)], jnp.array(channels_last(x))
        if family == "DCGAN":
            step, players = alternate, (of(p, "discriminator"), of(p, "generator"))
            state = [tuple((w, adam_state(w)) for w in players)]
        else:
            step, state = partial(descend, family), [(p, adam_state(p))]
        draws = functional.noise(family, data.shape)

        @partial(jax.jit, donate_argnums=0)
        def with_new_noise(state: Any, key: Any, x: Any) -> Any:
            key, *keys = jax.random.split(key, 1 + len(draws))
            return key, *step(state, x, [getattr(jax.random, kind)(k, s) for k, (kind, s) in zip(keys, draws)])

        with_given_noise = jax.jit(step)

        def work(*noise: np.ndarray) -> Any:
            if noise:
                L, state[0] = with_given_noise(state[0], data, [channels_last(a) for a in noise])
            else:
                key[0], L, state[0] = with_new_noise(state[0], key[0], data)
            return jax.block_until_ready(L)

        return work

    def sample(self, family: str, weights: Arrays, inputs: Sequence[np.ndarray], calls: int = 1) -> Callable[..., Any]:
        """See Peer."""
        f = functional.SAMPLERS[family]
        call, p, (z, *rest) = jax.jit(partial(f, F)), _tree(weights), _tree([channels_last(a) for a in inputs])

        def work() -> Any:
            x = z
            for _ in range(calls):
                x = call(p, x, *rest)
            return jax.block_until_ready(x)

        return work

    def op(self, kind: str, arrays: Sequence[np.ndarray], options: Mapping[str, Any], g: np.ndarray) -> Work:
        """See Peer."""
        f = {"group_norm": lambda x, γ, β: group_norm(x, 8, γ, β)}.get(kind) or partial(getattr(F, kind), **options)
        both = jax.jit(lambda g, *arrays: jax.vjp(f, *arrays)[1](g))
        if kind != "attention" and kind != "softmax":  # the images; filters stay
            g, arrays = channels_last(g), [channels_last(arrays[0]), *arrays[1:]]
        inputs = _tree([g, *arrays])
        return lambda: jax.block_until_ready(both(*inputs))

    def adam(self, arrays: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> Work:
        """See Peer: written in jax.numpy above, as JAX itself has no optimizers."""
        g, p = _tree(list(gradients)), _tree(list(arrays))
        update = jax.jit(lambda p, g, moments: adam(p, g, moments, 1e-3), donate_argnums=(0, 2))
        state = [(p, adam_state(p))]

        def work() -> Any:
            p, moments = state[0]
            state[0] = jax.block_until_ready(update(p, g, moments))
            return state[0][0]

        return work

    def small(self, kind: str, arrays: Sequence[np.ndarray]) -> Work:
        """See Peer: eager forward, jitted gradients, as one would write them."""
        a, b, *rest = _tree(list(arrays))
        if kind in ("add", "matmul"):
            return (lambda: (a + b).block_until_ready()) if kind == "add" else (lambda: (a @ b).block_until_ready())
        loss = {
            "add, sum, backward": lambda a, b: jnp.sum(a + b),
            "linear, relu, sum, backward": lambda x, w, b: jnp.sum(relu(linear(x, w, b))),
        }[kind]
        gradient = jax.jit(jax.grad(loss, tuple(range(len(arrays)))))
        return lambda: jax.block_until_ready(gradient(a, b, *rest))


def channels_last(a: np.ndarray) -> np.ndarray:
    """(n, c, h, w) → (n, h, w, c); any other shape stays."""
    return np.moveaxis(a, 1, -1) if a.ndim == 4 else a


def _tree(arrays: Any) -> Any:
    return jax.tree.map(jnp.array, dict(arrays) if isinstance(arrays, Mapping) else list(arrays))


def peer() -> Peer:
    """JAX."""
    return Jax()

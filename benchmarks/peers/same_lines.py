"""tinygen and PyTorch: one set of lines for both, since tinygen's names are PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import tinygen
from benchmarks import nets
from benchmarks.peers.base import Arrays, Peer, Work

OPS: dict[str, Callable[..., Any]] = {
    "conv2d": lambda F, x, w, **options: F.conv2d(x, w, **options),
    "conv_transpose2d": lambda F, x, w, **options: F.conv_transpose2d(x, w, **options),
    "linear": lambda F, x, w: F.linear(x, w),
    "max_pool2d": lambda F, x: F.max_pool2d(x, 2),
    "avg_pool2d": lambda F, x: F.avg_pool2d(x, 2),
    "upsample": lambda F, x: F.interpolate(x, scale_factor=2),
    "group_norm": lambda F, x, γ, β: F.group_norm(x, 8, γ, β),
    "batch_norm": lambda F, x, γ, β: F.batch_norm(x, None, None, γ, β, True),
    "layer_norm": lambda F, x, γ, β: F.layer_norm(x, γ.shape, γ, β),
    "relu": lambda F, x: F.relu(x),
    "silu": lambda F, x: F.silu(x),
    "softmax": lambda F, x: F.softmax(x, -1),
    "attention": lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v),
}


class SameLines(Peer):
    """The library ``lib``, whose tensors carry their gradients."""

    blas = False  # both have threads of their own
    quick = True

    def __init__(self, name: str, lib: Any) -> None:
        self.name, self.package, self.lib = name, name, lib

    def tensor(self, array: np.ndarray) -> Any:
        """A copy of the array, on the default device."""
        return self.lib.tensor(np.array(array))

    def training(self, family: str, weights: Arrays, x: np.ndarray) -> nets.Training:
        """The network of that size with these weights, and its step."""
        training = nets.FAMILIES[family](self.lib, self.tensor(x), width=nets.width(family, weights))
        training.net.load_state_dict({name: self.tensor(w) for name, w in weights.items()})
        return training

    def train(self, family: str, weights: Arrays, x: np.ndarray) -> Callable[..., Any]:
        """See Peer."""
        training = self.training(family, weights, x)
        return lambda *noise: training.step(*map(self.tensor, noise)) if noise else training()

    def sample(self, family: str, weights: Arrays, inputs: Sequence[np.ndarray], calls: int = 1) -> Callable[..., Any]:
        """See Peer."""
        net = self.training(family, weights, np.zeros((1, 1, 28, 28), np.float32)).net.eval()
        z, *rest = map(self.tensor, inputs)

        def work() -> Any:
            with self.lib.no_grad():
                if family == "convolutional VAE":
                    return self.lib.sigmoid(net["decoder"](z))
                if family == "DCGAN":
                    return net["generator"](z)
                x = z
                for _ in range(calls):
                    x = x - 0.01 * net(x, rest[0])
                return x

        return work

    def _inputs(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        return [self.tensor(a).requires_grad_() for a in arrays]

    def op(self, kind: str, arrays: Sequence[np.ndarray], options: Mapping[str, Any], g: np.ndarray) -> Work:
        """See Peer. Images lie in the memory order in which each library's networks have them."""
        inputs, G = self._inputs(arrays), self.tensor(g)
        if self.lib is tinygen and tinygen.get_default_device() == "cpu" and kind not in ("softmax", "attention"):
            images = arrays[0] if arrays[0].shape[1:2] == (1,) else as_in_a_network(arrays[0])  # data are as they came
            inputs = [tinygen.Tensor(images, requires_grad=True), *inputs[1:]]
            G = tinygen.Tensor(as_in_a_network(g))
        f, F = OPS[kind], self.lib.nn.functional
        grad = tinygen.grad if self.lib is tinygen else self.lib.autograd.grad
        return lambda: grad(f(F, *inputs, **options), inputs, G)

    def adam(self, arrays: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> Work:
        """See Peer."""
        parameters = [self.lib.nn.Parameter(self.tensor(a)) for a in arrays]
        for p, g in zip(parameters, gradients):
            p.grad = self.tensor(g)
        return self.lib.optim.Adam(parameters, lr=1e-3).step

    def small(self, kind: str, arrays: Sequence[np.ndarray]) -> Work:
        """See Peer."""
        F, (a, b, *rest) = self.lib.nn.functional, self._inputs(arrays)

        def sweep(loss: Callable[[], Any]) -> Work:
            def work() -> None:
                for tensor in (a, b, *rest):
                    tensor.grad = None
                loss().backward()

            return work

        return {
            "add": lambda: a + b,
            "matmul": lambda: a @ b,
            "add, sum, backward": sweep(lambda: (a + b).sum()),
            "linear, relu, sum, backward": sweep(lambda: F.relu(F.linear(a, b, *rest)).sum()),
        }[kind]


def as_in_a_network(a: np.ndarray) -> np.ndarray:
    """The same images in the memory order that tinygen's convolutions give their output, as those in a network have."""
    if a.ndim != 4:
        return a
    n, c, h, w = a.shape
    F = tinygen.nn.functional
    images = F.conv2d(tinygen.zeros(n, 1, h, w), tinygen.zeros(c, 1, 3, 3), padding=1).numpy()
    result = np.empty_like(images)
    result[...] = a
    return result


def tinygen_peer() -> Peer:
    """tinygen."""
    return SameLines("tinygen", tinygen)


def torch_peer() -> Peer:
    """PyTorch, eager."""
    import torch

    return SameLines("torch", torch)

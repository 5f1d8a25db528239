"""What a work costs at the least: floating-point operations of its matrix products, bytes that have to be moved.

A product y = x W of a layer is done three times in training: forward, for the gradient of the weights, and, unless x
is data, for the gradient of x. The bytes are those of a layer that reads x and writes y forward, and backward reads
dL/dy and x and writes dL/dx, each once, with everything between two layers done on the way; and of Adam, which reads
and writes seven numbers for each parameter. Whoever stores more in between moves more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Layer:
    """One matrix product: multiplications of its forward pass, and the elements of its input and output."""

    products: float
    inputs: float
    outputs: float
    of_data: bool = False  # its input is data, which has no gradient

    def times(self, n: float) -> Layer:
        """The same for n images."""
        return Layer(n * self.products, n * self.inputs, n * self.outputs, self.of_data)

    def trained(self) -> tuple[float, float]:
        """FLOPs and bytes of forward and backward."""
        passes = 2 if self.of_data else 3
        return 2 * passes * self.products, FLOAT * (passes * self.inputs + 2 * self.outputs)


def conv(w: Any, side: int, stride: int = 1, of_data: bool = False) -> Layer:
    """A convolution, by the side of its output."""
    out, c = w.shape[0], w.shape[1]
    return Layer(w.size * side**2, c * (stride * side) ** 2, out * side**2, of_data)


def transposed(w: Any, side: int, stride: int = 2) -> Layer:
    """A transposed convolution, by the side of its input."""
    return Layer(w.size * side**2, w.shape[0] * side**2, w.shape[1] * (stride * side) ** 2)


def linear(w: Any, rows: int = 1, of_data: bool = False) -> Layer:
    """A linear layer of so many rows for each image."""
    return Layer(w.size * rows, w.shape[1] * rows, w.shape[0] * rows, of_data)


def layers(family: str, weights: Mapping[str, Any], size: int) -> dict[str, list[Layer]]:
    """The layers of each network of a family, for one image of that size."""
    W = lambda name: weights[f"{name}.weight"]
    half, quarter = size // 2, size // 4
    if family == "dense autoencoder":
        return {"net": [linear(W(f"{i}"), of_data=i == 0) for i in range(0, 12, 2)]}
    if family == "convolutional VAE":
        return {"net": [
            conv(W("encoder.0"), half, 2, True), conv(W("encoder.2"), quarter, 2), linear(W("encoder.5")),
            linear(W("decoder.0")), transposed(W("decoder.3"), quarter), transposed(W("decoder.5"), half),
        ]}  # fmt: skip
    if family == "DCGAN":
        up = [transposed(W("generator.4"), quarter), transposed(W("generator.7"), half)]
        rest = [conv(W("discriminator.2"), quarter, 2), linear(W("discriminator.6"))]
        return {
            "generator": [linear(W("generator.0"), of_data=True), *up],
            "discriminator of data": [conv(W("discriminator.0"), half, 2, True), *rest],
            "discriminator": [conv(W("discriminator.0"), half, 2), *rest],
        }
    tokens, c = half**2, W("attend.out").shape[0]
    scores = Layer(2 * tokens**2 * c, 3 * tokens * c, tokens * c)  # q kᵀ, and the product with v
    net = [conv(W("enter"), size, of_data=True), conv(W("down"), half, 2), transposed(W("up"), half)]
    net += [conv(W("leave"), size), linear(W("attend.qkv"), tokens), scores, linear(W("attend.out"), tokens)]
    for block, side in (("high", size), ("low", half), ("middle", half), ("back", size)):
        net += [conv(W(f"{block}.conv1"), side), linear(W(f"{block}.time")), conv(W(f"{block}.conv2"), side)]
        net += [conv(W(f"{block}.skip"), side)] if f"{block}.skip.weight" in weights else []
    return {"net": [linear(W("first"), of_data=True), linear(W("second")), *net]}


def training_step(family: str, weights: Mapping[str, Any], n: int, size: int) -> tuple[float, float]:
    """FLOPs and bytes of one step on n images."""
    nets = layers(family, weights, size)
    runs = [net for name, net in nets.items()]
    if family == "DCGAN":  # the discriminator sees images, then samples that it shall not change, then samples
        runs.append(nets["discriminator of data"])
    parts = [layer.times(n).trained() for net in runs for layer in net]
    parameters = sum(w.size for name, w in weights.items() if "running" not in name and "num_batches" not in name)
    return sum(flops for flops, _ in parts), sum(moved for _, moved in parts) + 7 * FLOAT * parameters


def sampling(family: str, weights: Mapping[str, Any], n: int, size: int = 28) -> tuple[float, float]:
    """FLOPs and bytes of n images from the decoder or generator, or of one call of the denoiser."""
    nets = layers(family, weights, size)
    net = {"convolutional VAE": lambda: nets["net"][3:], "DCGAN": lambda: nets["generator"]}.get(
        family, lambda: nets["net"]
    )()
    found = [layer.times(n) for layer in net]
    return sum(2 * f.products for f in found), sum(FLOAT * (f.inputs + f.outputs) for f in found)


def operation(kind: str, shapes: Sequence[tuple[int, ...]], output: tuple[int, ...]) -> tuple[float, float]:
    """FLOPs of the products (0 where there are none) and bytes of one operation, forward and backward."""
    sizes, out = [math.prod(shape) for shape in shapes], math.prod(output)
    moved = FLOAT * (3 * sum(sizes) + 2 * out)
    if kind == "conv2d":
        return 6 * sizes[1] * out / output[1], moved
    if kind == "conv_transpose2d":
        return 6 * sizes[1] * sizes[0] / shapes[0][1], moved
    if kind == "linear":
        return 6 * sizes[1] * shapes[0][0], moved
    if kind == "attention":
        return 6 * 2 * sizes[0] * shapes[0][-2], moved
    return 0.0, moved

"""Whole training steps, sampling, and how their cost grows with batch, image size, width and threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import costs, nets
from benchmarks.peers.base import Peer, TooSlow
from benchmarks.setting import Setting
from benchmarks.timing import Row, Work

TRIAL, PATIENCE = 8, 10
"""A slow library tries a step of so few images first: is the whole one longer than so many seconds, it is left out."""


def images(n: int, size: int = 28) -> np.ndarray:
    """n images of noise (n, 1, size, size) in [0, 1): what they show makes no difference to the time."""
    return np.random.default_rng(0).random((n, 1, size, size), dtype=np.float32)


def step(
    setting: Setting, family: str, name: str | None = None, batch: int | None = None, size: int = 28,
    width: int | None = None, turns: int | None = None, only_quick: bool = False,
) -> Row:
    """One training step of a family: forward, backward, Adam."""
    weights, x = nets.weights(family, size, width), images(batch or setting.batch, size)
    flops, moved = costs.training_step(family, weights, len(x), size)

    def make(peer: Peer) -> Work:
        if not peer.quick and not peer.compiles and len(x) > TRIAL:
            trial = peer.train(family, weights, x[:TRIAL])
            seconds, _ = setting.device.time(trial, 1)
            if seconds > PATIENCE * TRIAL / len(x):
                raise TooSlow(f"a step of {TRIAL} images took {seconds:.1f} s")
        return peer.train(family, weights, x)

    return setting.row(name or family, make, flops, moved, only_quick, turns)


def steps(setting: Setting) -> Iterator[Row]:
    """One training step of each family on 28×28 images."""
    for family in nets.FAMILIES:
        yield step(setting, family)


GROWTH: dict[str, tuple[int, ...]] = {"batch": (16, 64, 128, 512), "size": (16, 28, 56), "width": (16, 32, 64)}
"""What grows, and through which values; 28×28 images, width 32 and 128 images a step (32 where the size grows)."""


def growth(setting: Setting) -> Iterator[Row]:
    """The training steps with other batches, image sizes (multiples of 4: the networks halve twice) and widths."""
    for family in nets.FAMILIES:
        for what, values in GROWTH.items():
            for value in values[:2] if setting.quick else values:
                options = {"batch": 4 if setting.quick else 32 if what == "size" else 128, what: value}
                if family == "dense autoencoder" and what == "width":
                    options[what] = 8 * value
                name = f"{family}, {what} {options[what]}"
                yield step(setting, family, name, turns=min(5, setting.turns), only_quick=True, **options)


def sampling(setting: Setting) -> Iterator[Row]:
    """1,000 images from the VAE's decoder and the GAN's generator; 16 images by 50 calls of the U-Net."""
    r = np.random.default_rng(0)
    n = 50 if setting.quick else 1000
    for family, latent in (("convolutional VAE", 20), ("DCGAN", 64)):
        weights, z = nets.weights(family), r.standard_normal((n, latent), dtype=np.float32)
        flops, moved = costs.sampling(family, weights, n)
        make = lambda peer, family=family, weights=weights, z=z: peer.sample(family, weights, [z])
        yield setting.row(f"{family}, {n:,} images", make, flops, moved)
    family, calls = "DDPM U-Net", 2 if setting.quick else 50
    weights, x = nets.weights(family), r.standard_normal((16, 1, 28, 28), dtype=np.float32)
    t = np.full(16, 500, np.float32)
    flops, moved = costs.sampling(family, weights, 16)

    def make(peer: Peer) -> Work:
        if not peer.quick and not peer.compiles:
            seconds, _ = setting.device.time(peer.sample(family, weights, [x, t]), 1)
            if seconds * calls > PATIENCE:
                raise TooSlow(f"one of the {calls} calls took {seconds:.1f} s")
        return peer.sample(family, weights, [x, t], calls)

    yield setting.row(f"{family}, 16 images in {calls} steps", make, calls * flops, calls * moved)

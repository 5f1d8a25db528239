"""What a peer is asked for: training steps, samples, single operations, tiny tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import functional

Work = Callable[[], Any]
Arrays = Mapping[str, np.ndarray]


class NotPossible(Exception):
    """The library cannot do this; the message says what it lacks."""

    said = "not possible"


class TooSlow(NotPossible):
    """The library could, but nobody would wait for it."""

    said = "too slow"


def missing(why: str) -> Callable[..., Any]:
    """A function in the place of one that the library does not have."""

    def function(*args: Any, **kwargs: Any) -> Any:
        raise NotPossible(why)

    return function


class Peer:
    """One library. Every method returns a work: a function to call, which returns when all is computed.

    Weights and inputs come as NumPy arrays, float32; weights under the names that they have in nets.py.

    Attributes:
        name: as in ``--peers``.
        package: what pip installs.
        blas: it computes with NumPy's matrix products, so NumPy's threads are its threads.
        quick: takes part in growth, threads and memory too, which would take the others a quarter of an hour.
        compiles: its first call takes seconds or minutes, the others do not.
        settling: executions before it runs at its speed, besides the two of every measurement.
    """

    name = ""
    package = ""
    blas = True
    quick = False
    compiles = False
    settling = 0

    def train(self, family: str, weights: Arrays, x: np.ndarray) -> Callable[..., Any]:
        """A training step: work(*noise) → the loss before the update; work() draws the noise itself.

        Raises:
            NotPossible: the library lacks what the family needs (here, or when the work is done).
        """
        raise NotPossible("not written for this library")

    def sample(self, family: str, weights: Arrays, inputs: Sequence[np.ndarray], calls: int = 1) -> Callable[..., Any]:
        """Images of a decoder or a generator, or so many calls of a denoiser; work() → the images.

        Raises:
            NotPossible: as ``train``.
        """
        raise NotPossible("not written for this library")

    def op(self, kind: str, arrays: Sequence[np.ndarray], options: Mapping[str, Any], g: np.ndarray) -> Work:
        """Forward and backward of one operation with the cotangent g; work() → the gradients of all arrays.

        Raises:
            NotPossible: the library does not have the operation.
        """
        raise NotPossible("not written for this library")

    def adam(self, arrays: Sequence[np.ndarray], gradients: Sequence[np.ndarray]) -> Work:
        """One update of all arrays by the library's own Adam.

        Raises:
            NotPossible: the library has none.
        """
        raise NotPossible("has no Adam of its own")

    def small(self, kind: str, arrays: Sequence[np.ndarray]) -> Work:
        """What is nearly all overhead: one of the rows of benchmarks/small.py on tiny tensors.

        Raises:
            NotPossible: the library cannot.
        """
        raise NotPossible("not written for this library")


class NumpyAdam:
    """Adam for the peers that have none: a dict of NumPy arrays, changed in place (Kingma & Ba 2014, algorithm 1)."""

    def __init__(self, p: Mapping[str, np.ndarray], lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.p, self.lr, self.betas, self.t = p, lr, betas, 0
        self.m = {name: np.zeros_like(w) for name, w in p.items()}
        self.v = {name: np.zeros_like(w) for name, w in p.items()}

    def step(self, gradients: Mapping[str, np.ndarray]) -> None:
        """One update."""
        self.t += 1
        β1, β2 = self.betas
        for name, g in gradients.items():
            m, v = self.m[name], self.v[name]
            m += (1 - β1) * (g - m)
            v += (1 - β2) * (g * g - v)
            m_hat, v_hat = m / (1 - β1**self.t), v / (1 - β2**self.t)
            self.p[name][...] -= self.lr * m_hat / (np.sqrt(v_hat) + 1e-8)


def of(p: Mapping[str, Any], player: str) -> dict[str, Any]:
    """The weights of one of DCGAN's two players."""
    return {name: w for name, w in p.items() if name.startswith(player)}


def trainable(weights: Arrays) -> dict[str, np.ndarray]:
    """All but BatchNorm's running averages and counters."""
    return {name: w for name, w in weights.items() if "running" not in name and "num_batches" not in name}


def numpy_noise(draw: np.random.Generator, draws: Sequence[tuple[str, Any]]) -> list[np.ndarray]:
    """What functional.noise asks for, by NumPy."""
    f = {"normal": draw.standard_normal, "uniform": draw.random}
    return [f[kind](shape, dtype=np.float32) for kind, shape in draws]


def sample(
    F: Any, family: str, weights: Mapping[str, Any], inputs: Sequence[Any], calls: int
) -> Callable[..., Any]:
    """The sampling rows by plain calls."""
    f = functional.SAMPLERS[family]

    def work() -> Any:
        x, *rest = inputs
        for _ in range(calls):
            x = f(F, weights, x, *rest)
        return x

    return work


def per_channel(v: Any) -> Any:
    """(c,) or (n, c) → (1 or n, c, 1, 1)."""
    return v.reshape(1 if len(v.shape) == 1 else v.shape[0], -1, 1, 1)


def flatten(x: Any) -> Any:
    """(n, c, h, w) → (n, c·h·w)."""
    return x.reshape(x.shape[0], -1)


def images(x: Any, c: int, side: int) -> Any:
    """(n, c·h·w) → (n, c, h, w)."""
    return x.reshape(x.shape[0], c, side, side)


def tokens(permute: Callable[..., Any], x: Any) -> Any:
    """(n, c, h, w) → (n, h·w, c)."""
    return permute(x.reshape(*x.shape[:2], -1), (0, 2, 1))


def from_tokens(permute: Callable[..., Any], x: Any, shape: tuple[int, ...]) -> Any:
    """(n, h·w, c) → (n, c, h, w)."""
    return permute(x, (0, 2, 1)).reshape(*shape)

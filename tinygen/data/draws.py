"""Random draws for data: NumPy arrays on the CPU, from a ``tg.Generator`` on any device."""

from __future__ import annotations

import numpy as np

from tinygen.backend import to_numpy
from tinygen.random import Generator, default_generator


class HostDraws:
    """Draws as NumPy arrays, float64 or int64; data starts on the CPU wherever the numbers were drawn.

    Args:
        rng: a ``tg.Generator``; None takes the default one of the CPU.

    Raises:
        TypeError: rng is something else, such as NumPy's own generator or a seed.
    """

    def __init__(self, rng: Generator | None) -> None:
        if rng is not None and not isinstance(rng, Generator):
            raise TypeError(
                f"rng must be a tg.Generator or None, got a {type(rng).__name__}; make one: tg.Generator(0)"
            )
        self._rng = default_generator("cpu") if rng is None else rng

    def uniform(self, *size: int) -> np.ndarray:
        """u ~ U[0, 1)."""
        return to_numpy(self._rng.uniform(size, np.float64))

    def normal(self, *size: int) -> np.ndarray:
        """ε ~ N(0, 1)."""
        return to_numpy(self._rng.standard_normal(size, np.float64))

    def integers(self, high: int, *size: int) -> np.ndarray:
        """0 … high − 1, equally likely."""
        return to_numpy(self._rng.integers(0, high, size))

    def permutation(self, n: int) -> np.ndarray:
        """0 … n − 1 in random order."""
        return to_numpy(self._rng.permutation(n))

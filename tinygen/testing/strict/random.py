"""``cupy.random``: a Generator with the methods that CuPy's has, and other numbers than NumPy's of the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.testing.strict.memory import fresh, supported
from tinygen.testing.strict.names import members
from tinygen.testing.strict.tape import record_methods


class BitGenerator:
    """Source of bits of a Generator. What it will draw next is told by the array ``_state`` alone, as in CuPy.

    Args:
        seed: as ``numpy.random.SeedSequence`` takes it.
        size: how many streams there are side by side on a GPU; here it changes nothing.
    """

    def __init__(self, seed: Any = None, *, size: int = -1) -> None:
        self._state = fresh(np.frombuffer(np.random.SeedSequence(seed).generate_state(4).tobytes(), "int8"))

    def _draw(self) -> np.random.Generator:
        """NumPy's generator for one call; the state moves on."""
        words = np.frombuffer(self._state._raw.tobytes(), "uint32")
        now, following = np.random.SeedSequence([int(w) for w in words]).spawn(2)
        self._state._raw[...] = np.frombuffer(following.generate_state(4).tobytes(), "int8")
        return np.random.Generator(np.random.Philox(now))


class XORWOW(BitGenerator):
    """The one that CuPy uses by default."""


class Generator:
    """What CuPy's Generator draws. ``normal``, ``permutation``, ``shuffle``, ``choice`` and others it has not."""

    def __init__(self, bit_generator: BitGenerator) -> None:
        self.bit_generator = bit_generator

    @property
    def _draws(self) -> np.random.Generator:
        return self.bit_generator._draw()

    def __getattr__(self, name: str) -> Any:
        if name in members("cupy.random.Generator"):
            raise NotImplementedError(f"CuPy has Generator.{name}; tinygen's strict stand-in does not have it yet")
        raise AttributeError(f"'Generator' object has no attribute {name!r}")

    def random(self, size: Any = None, dtype: Any = float, out: Any = None) -> Any:
        """u ~ U[0, 1)."""
        dtype = supported(dtype)
        drawn = self._draws.random(size if size is not None else (), "float64" if dtype.char == "d" else "float32")
        return self._drawn(np.asarray(drawn).astype(dtype), out)

    def standard_normal(self, size: Any = None, dtype: Any = float, out: Any = None) -> Any:
        """ε ~ N(0, 1); float32 and float64 alone."""
        return self._drawn(self._draws.standard_normal(size if size is not None else (), supported(dtype)), out)

    def integers(
        self, low: Any, high: Any = None, size: Any = None, dtype: Any = "int64", endpoint: bool = False
    ) -> Any:
        """Integers from low to high − 1, or to high with ``endpoint``."""
        low, high = (0, int(low)) if high is None else (int(low), int(high))
        if high - (not endpoint) < low:
            raise ValueError("low >= high")
        return fresh(self._draws.integers(low, high, size if size is not None else (), dtype, endpoint))

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None, dtype: Any = float) -> Any:
        """u ~ U[low, high)."""
        drawn = self._draws.uniform(low, high, size if size is not None else ())
        return fresh(np.asarray(drawn).astype(supported(dtype)))

    def exponential(self, scale: Any = 1.0, size: Any = None) -> Any:
        """x ~ Exp, of mean ``scale``."""
        return fresh(self._draws.exponential(scale, size if size is not None else ()))

    def gamma(self, shape: Any, scale: Any = 1.0, size: Any = None) -> Any:
        """x ~ Gamma(shape, scale)."""
        return fresh(self._draws.gamma(shape, scale, size if size is not None else ()))

    def binomial(self, n: Any, p: Any, size: Any = None) -> Any:
        """How many of n trials of probability p succeed."""
        return fresh(self._draws.binomial(n, p, size if size is not None else ()))

    def poisson(self, lam: Any = 1.0, size: Any = None) -> Any:
        """k ~ Poisson(lam)."""
        return fresh(self._draws.poisson(lam, size if size is not None else ()))

    @staticmethod
    def _drawn(drawn: Any, out: Any) -> Any:
        if out is None:
            return fresh(drawn)
        out._raw[...] = drawn
        return out


record_methods(Generator, skip=("_drawn",))


def default_rng(seed: Any = None) -> Generator:
    """A Generator of XORWOW bits."""
    return Generator(seed if isinstance(seed, BitGenerator) else XORWOW(seed))

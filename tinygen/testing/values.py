"""Which numbers an argument may hold: what a test draws, and where it keeps clear of kinks and ties.

    real(2, 3)                    numbers in [−2, 2]
    real(2, 3, kinks=[0])         … at least ``gap`` away from 0, where f bends; a check looks at 0 itself too
    positive(2, 3)                numbers in [0.2, 2]
    distinct(2, 3)                numbers no two of which are nearer than ``gap``: no tie within reach
    integers(3, high=5)           0, 1, …, 4, repeated ones among them
    booleans(2, 3)

The same description serves :class:`tinygen.testing.Case`, which draws from it with a seed, and
:mod:`tinygen.testing.strategies`, which lets Hypothesis draw and shrink.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Values:
    """A shape, and which numbers an array of this shape may hold.

    Attributes:
        shape: of the array.
        kind: ``"real"``, ``"distinct"``, ``"integer"`` or ``"boolean"``.
        low, high: the least and the largest number (integers: one above the largest).
        kinks: numbers where the function bends but is continuous; none is drawn within ``gap`` of them.
        away: numbers to stay away from for another reason (a pole, a jump); likewise.
        gap: the least distance from those, and for distinct numbers from one another.
    """

    shape: tuple[int, ...]
    kind: str = "real"
    low: float = -2.0
    high: float = 2.0
    kinks: tuple[float, ...] = ()
    away: tuple[float, ...] = ()
    gap: float = 0.2

    def of(self, shape: Sequence[int]) -> Values:
        """The same numbers in another shape."""
        return replace(self, shape=tuple(shape))

    def intervals(self) -> list[tuple[float, float]]:
        """[low, high] without the surroundings of kinks and of what to stay away from.

        Raises:
            ValueError: nothing is left.
        """
        left = [(float(self.low), float(self.high))]
        for point in (*self.kinks, *self.away):
            below, above = point - self.gap, point + self.gap
            left = [
                piece
                for a, b in left
                for piece in ([(a, b)] if b <= below or a >= above else [(a, min(b, below)), (max(a, above), b)])
                if piece[0] <= piece[1]
            ]
        if not left:
            raise ValueError(f"no number of [{self.low}, {self.high}] is {self.gap} away from {self.kinks + self.away}")
        return left

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """An array of such numbers: float64, int64 or bool.

        Raises:
            ValueError: no number is left, or not as many distinct ones as the shape has places.
        """
        n = math.prod(self.shape)
        if self.kind == "boolean":
            return np.asarray(rng.integers(0, 2, self.shape).astype(bool))
        if self.kind == "integer":
            return np.asarray(rng.integers(int(self.low), int(self.high), self.shape))
        if self.kind == "distinct":
            return np.asarray(self.steps(n)[rng.permutation(n)].reshape(self.shape))
        pieces = np.array(self.intervals())
        ends = np.cumsum(pieces[:, 1] - pieces[:, 0])
        place = rng.uniform(0, ends[-1], self.shape) if ends[-1] > 0 else np.zeros(self.shape)
        k = np.minimum(np.searchsorted(ends, place, side="right"), len(ends) - 1)
        return np.asarray(pieces[k, 1] - np.maximum(ends[k] - place, 0))

    def steps(self, n: int) -> np.ndarray:
        """n numbers, a ``gap`` or more apart, spread over [low, high].

        Raises:
            ValueError: there is no room for them.
        """
        if n > 1 and (self.high - self.low) / (n - 1) < self.gap:
            raise ValueError(f"{n} numbers that are {self.gap} apart do not fit into [{self.low}, {self.high}]")
        return np.linspace(self.low, self.high, n) if n > 1 else np.full(n, 0.5 * (self.low + self.high))


def real(
    *shape: int,
    low: float = -2.0,
    high: float = 2.0,
    kinks: Sequence[float] = (),
    away: Sequence[float] = (),
    gap: float = 0.2,
) -> Values:
    """Numbers in [low, high], at least ``gap`` from every kink and from what to stay away from."""
    return Values(shape, "real", low, high, tuple(kinks), tuple(away), gap)


def positive(*shape: int, low: float = 0.2, high: float = 2.0) -> Values:
    """Numbers in [low, high], low > 0."""
    return Values(shape, "real", low, high)


def distinct(*shape: int, gap: float = 0.2) -> Values:
    """Numbers around 0, both signs, no two nearer than ``gap``: where a maximum has one place, and keeps it."""
    reach = max(1.0, 0.6 * gap * math.prod(shape))
    return Values(shape, "distinct", -reach, 0.9 * reach, gap=gap)


def integers(*shape: int, low: int = 0, high: int = 4) -> Values:
    """Integers low, …, high − 1, repeated ones among them."""
    return Values(shape, "integer", low, high)


def booleans(*shape: int) -> Values:
    """True and False."""
    return Values(shape, "boolean")

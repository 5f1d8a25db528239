"""Hypothesis strategies that the tests of the ops share: shapes, broadcasting pairs, seeds, numbers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

import tinygen as tg

shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
filled_shapes = array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)
seeds = st.integers(0, 2**32 - 1)

_MORE = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "search" else 1


def examples(n: int) -> Any:
    """``settings(max_examples=n)``, many times n where new examples are searched for."""
    return settings(max_examples=_MORE * n)


def pairs(n: int = 2, min_side: int = 0) -> Any:
    """n shapes that broadcast together."""
    found = mutually_broadcastable_shapes(num_shapes=n, max_dims=3, min_side=min_side, max_side=3)
    return found.map(lambda b: b.input_shapes)


def numbers(seed: int, shape: Any, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    """Uniform float64 numbers between low and high."""
    return np.asarray(np.random.default_rng(seed).uniform(low, high, shape))


def stream(seed: int) -> tg.Generator:
    """A generator that draws where tensors are made."""
    return tg.Generator(seed, device=tg.get_default_device())


def off_zero(seed: int, shape: Any, low: float = 0.3, high: float = 2.0) -> np.ndarray:
    """Numbers of both signs whose size lies between low and high: no kink at zero within reach."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(low, high, shape) * rng.choice([-1.0, 1.0], shape))


def apart(seed: int, shape: Any, gap: float = 0.25) -> np.ndarray:
    """Distinct numbers, no two nearer than ``gap``: no tie within reach."""
    n = int(np.prod(shape))
    return np.asarray((np.random.default_rng(seed).permutation(n).reshape(shape) - n / 2 + 0.1) * gap)


@st.composite
def axes_of(draw: Any, shape: tuple[int, ...], several: bool = True) -> Any:
    """None, one axis, or several, counted from either end."""
    n = len(shape)
    if n == 0:
        return draw(st.sampled_from([None, 0, -1]))
    one = st.integers(-n, n - 1)
    many = st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True).flatmap(
        lambda ds: st.tuples(*[st.sampled_from([d, d - n]) for d in ds])
    )
    return draw(st.one_of(st.none(), one, many) if several else one)

"""Parameters and gradients that do not depend on any network: what optimizers are tested with."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg

SHAPES = [(3, 4), (5,), (), (2, 3, 1, 2)]


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in SHAPES]


@pytest.fixture
def gradients():
    """step → one gradient for each of the arrays; the same for the same step."""

    def of(step):
        rng = np.random.default_rng(1000 + step)
        return [np.asarray(rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 2)) for shape in SHAPES]

    return of


@pytest.fixture
def parameters(arrays):
    def make(dtype="float64"):
        return [tg.nn.Parameter(tg.tensor(a.astype(dtype))) for a in arrays]

    return make

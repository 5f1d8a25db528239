"""Host draws: NumPy arrays of the stated kinds, from the generator that was named."""

import numpy as np
import pytest

from tinygen.data.draws import HostDraws
from tinygen.random import Generator, manual_seed


def test_kinds_and_ranges():
    draw = HostDraws(Generator(0))
    u = draw.uniform(500, 2)
    assert type(u) is np.ndarray and u.dtype == np.float64 and u.shape == (500, 2)
    assert 0 <= u.min() < 0.05 and 0.95 < u.max() < 1
    ε = draw.normal(500)
    assert ε.dtype == np.float64 and abs(ε.mean()) < 0.2 and abs(ε.std() - 1) < 0.2
    k = draw.integers(3, 500)
    assert k.dtype == np.int64 and set(k) == {0, 1, 2}
    assert draw.integers(5).shape == ()
    np.testing.assert_array_equal(np.sort(draw.permutation(50)), np.arange(50))


def test_equal_seeds_draw_equally_and_none_is_the_default():
    np.testing.assert_array_equal(HostDraws(Generator(3)).normal(5), HostDraws(Generator(3)).normal(5))
    manual_seed(3)
    np.testing.assert_array_equal(HostDraws(None).normal(5), HostDraws(Generator(3)).normal(5))


@pytest.mark.parametrize("rng, name", [(0, "int"), (np.random.default_rng(0), "Generator")])
def test_other_generators_are_refused(rng, name):
    with pytest.raises(TypeError, match=rf"got a {name}; make one: tg.Generator\(0\)"):
        HostDraws(rng)

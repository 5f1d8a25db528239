"""What values promise is what is drawn."""

import numpy as np
import pytest

from tinygen.testing import booleans, distinct, integers, positive, real
from tinygen.testing.values import Values


@pytest.mark.parametrize(
    "values",
    [
        real(50),
        real(50, low=0, high=1),
        real(50, kinks=[0], away=[1, -1], gap=0.3),
        positive(50),
        distinct(50),
        distinct(1),
        integers(50, low=-2, high=3),
        booleans(50),
        real(0),
        real(3, low=1, high=1),
    ],
    ids=str,
)
def test_what_is_drawn_holds_what_was_promised(values):
    x = values.draw(np.random.default_rng(0))
    assert x.shape == values.shape
    if values.kind == "boolean":
        assert x.dtype == bool and len(set(x)) == 2
        return
    assert x.dtype == ("int64" if values.kind == "integer" else "float64")
    assert ((values.low <= x) & (x <= values.high)).all()
    assert all((abs(x - k) >= values.gap).all() for k in values.kinks + values.away)
    if values.kind == "distinct" and x.size > 1:
        assert np.diff(np.sort(x)).min() >= values.gap * (1 - 1e-12)
        assert (x < 0).any() and (x > 0).any()
    if values.kind == "integer":
        assert set(x) == {-2, -1, 0, 1, 2}


def test_values_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="no number of .* is 3.0 away"):
        real(2, kinks=[0], gap=3.0).draw(np.random.default_rng(0))
    with pytest.raises(ValueError, match="3 numbers that are 1.0 apart do not fit"):
        Values((3,), "distinct", 0, 1, gap=1.0).draw(np.random.default_rng(0))


def test_every_interval_that_is_left_is_drawn_from():
    x = real(200, low=-1, high=1, kinks=[0, 0.5], gap=0.2).draw(np.random.default_rng(0))
    assert {(x < 0).any(), ((0.2 <= x) & (x <= 0.3)).any(), (x >= 0.7).any()} == {True}
    assert real(2, low=-1, high=1, kinks=[0, 0.5], gap=0.2).intervals() == [(-1, -0.2), (0.2, 0.3), (0.7, 1)]


def test_the_same_numbers_in_another_shape():
    assert real(2, 3, low=0).of([4]) == real(4, low=0)

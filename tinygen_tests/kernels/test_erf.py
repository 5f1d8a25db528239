"""The error function's kernel against Python's own math.erf."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.kernels.erf import erf
from tinygen_tests.draws import examples

GRID = np.concatenate([np.linspace(-7, 7, 20_001), np.logspace(-300, 0, 2_000), -np.logspace(-20, 0, 1_000)])


def test_float64_is_exact_to_rounding():
    exact = np.array([math.erf(x) for x in GRID])
    np.testing.assert_allclose(erf(GRID), exact, rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype, ulps", [("float32", 4), ("float16", 1)])
def test_lower_precisions_are_exact_to_a_few_units_in_the_last_place(dtype, ulps):
    x = GRID.astype(dtype)
    y = erf(x)
    assert y.dtype == np.dtype(dtype)
    exact = np.array([math.erf(v) for v in x.astype("float64")])
    tiny = float(np.finfo(dtype).smallest_normal)
    np.testing.assert_allclose(y.astype("float64"), exact, rtol=ulps * np.finfo(dtype).eps, atol=tiny)


@examples(200)
@given(x=st.floats(allow_nan=False))
def test_odd_bounded_and_equal_to_pythons(x):
    y = erf(np.array([x, -x]))
    assert y[0] == -y[1] and abs(y[0]) <= 1
    assert math.isclose(y[0], math.erf(x), rel_tol=2e-15, abs_tol=5e-324)


def test_monotone_across_the_seams():
    for seam in (1.0, 6.0):
        x = seam + np.arange(-200, 200) * 1e-6
        assert (np.diff(erf(x)) >= 0).all()


def test_special_values_and_shapes():
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan])
    y = erf(x)
    assert y[:4].tolist() == [0, 0, 1, -1] and math.isnan(y[4])
    assert np.signbit(y).tolist()[:2] == [False, True]
    assert erf(np.zeros((0, 3))).shape == (0, 3)
    assert erf(np.array(0.5)).shape == () and float(erf(np.array(0.5))) == pytest.approx(math.erf(0.5), rel=1e-15)
    a = np.linspace(-2, 2, 12).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(erf(a), erf(np.ascontiguousarray(a)))


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match="complex"):
        erf(np.array([1j]))

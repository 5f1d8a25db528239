"""Numerical derivatives: how exact they are, which method counts, and when they say that they do not know."""

import numpy as np
import pytest

import tinygen as tg
from tinygen.testing import GradientError
from tinygen.testing.numeric import Derivatives

X = np.array([0.4, -1.3, 2.0])
U = np.array([1.0, 0.5, -2.0])
G = np.array([0.3, -0.7, 1.1])


def along(f, x=X, u=U, g=G, analytic=None, step=1e-2):
    return Derivatives(f, [x], 0, g, step, analytic, np.array([0.9, 1.3, -0.4])).along(u)


@pytest.mark.parametrize(
    "f, slope",
    [(tg.sin, np.cos), (tg.exp, np.exp), (lambda x: x**3, lambda x: 3 * x**2), (lambda x: 1 / x, lambda x: -1 / x**2)],
)
def test_the_complex_step_is_exact_and_differences_nearly(f, slope):
    exact = float((G * slope(X) * U).sum())
    found = along(f)
    assert found.step == "complex step 1e-30" and abs(found.value - exact) < 1e-14 * abs(exact)
    found = along(f, analytic=False)
    assert found.step.startswith("differences from step 0.0")
    assert abs(found.value - exact) <= 10 * found.noise + 1e-11 * abs(exact) and found.noise < 1e-8


def test_where_f_is_not_analytic_the_differences_count():
    for f in (tg.abs, lambda x: x.detach().abs() * x):
        assert along(f).step.startswith("differences")
        with pytest.raises(
            GradientError, match="declared analytic; along a random direction, differences give .*, but the complex"
        ):
            along(f, analytic=True)
        assert along(f).value == pytest.approx(along(f, analytic=False).value)


def test_a_complex_step_that_lies_is_not_believed():
    def conjugated(x):  # Im f(x + ih) = −h: the sign is that of the conjugate
        return tg.Tensor(np.conj(x.data))

    assert along(conjugated).value == pytest.approx(float((G * U).sum()))
    with pytest.raises(GradientError, match="differences give .*, but the complex step gives"):
        along(conjugated, analytic=True)


def test_kinks_and_poles_within_the_first_step_are_stepped_around():
    near = np.array([1e-3, -1.3, 2.0])
    found = along(tg.abs, near)
    assert found.value == pytest.approx(float((G * np.sign(near) * U).sum()), abs=1e-9)
    assert found.step == "differences from step 0.001"  # of which 0.0005 in the element near its kink


def test_a_jump_is_all_noise():
    found = along(lambda x: tg.where(x > 0.4, 1.0, 0.0) + 0 * x)
    assert found.noise > 1

"""The quick ways to e^x and 1 + e^x are as exact as the plain one, whichever is chosen."""

import numpy as np
import pytest

from tinygen.kernels import exponentials


@pytest.fixture(params=[True, False])
def svml(request, monkeypatch):
    monkeypatch.setattr(exponentials, "SVML", request.param)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers(svml, dtype):
    x = np.linspace(-60, 60, 1001, dtype=dtype)
    of, factor = exponentials.power(x.dtype)
    found = of(factor * x)
    ε = np.finfo(dtype).eps
    assert found.dtype == dtype
    # Rounding x, by ε/2·|x| at the most, changes e^x by so much; the rest is the function's own.
    assert (np.abs(found / np.exp(x.astype(np.longdouble)) - 1) <= ε * (np.abs(x) + 4)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_plus(svml, dtype):
    x = np.linspace(-60, 60, 1001, dtype=dtype)
    wanted = 1 + np.exp(x.astype(np.longdouble))
    exponentials.one_plus_exp(x, out=x)
    np.testing.assert_allclose(x, wanted.astype(float), rtol=4 * np.finfo(dtype).eps)


def test_ends(svml):
    x = np.array([-np.inf, -1e9, 1e9, np.inf, np.nan], "float32")
    with np.errstate(all="raise", under="ignore"):
        exponentials.one_plus_exp(x[:4], out=x[:4])
    np.testing.assert_array_equal(x, np.array([1, 1, np.inf, np.inf, np.nan], "float32"))

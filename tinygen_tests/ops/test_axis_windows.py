"""Windows along an axis: which places they hold, and the sums over them, against plain loops."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.ops.axis_windows import AxisWindow, pool_windows, spread_windows, sum_windows
from tinygen.testing import check_adjoint, check_grad
from tinygen_tests.draws import numbers, seeds
from tinygen_tests.judge import host, placed


@st.composite
def windows(draw):
    n, K, s = draw(st.integers(1, 8)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    d = draw(st.integers(1, 3))
    p = draw(st.integers(0, K // 2))
    try:
        return pool_windows("", (n, n), K, s, p, d, draw(st.booleans()))[0]
    except ValueError:
        assume(False)


def places(window):
    """For each window a list of (k, place) inside the axis, by the formula."""
    n, K, s, p, d, m = window
    return [[(k, o * s - p + k * d) for k in range(K) if 0 <= o * s - p + k * d < n] for o in range(m)]


@given(window=windows())
def test_taps_are_the_formulas_places(window):
    found = [[] for _ in range(window.out)]
    for k, o, i in window.taps():
        pairs = zip(range(window.out)[o], range(window.n)[i], strict=True)
        for window_number, place in pairs:
            found[window_number].append((k, place))
    assert found == places(window)


@given(window=windows())
def test_whole_disjoint_and_covering(window):
    held = [i for window_places in places(window) for _, i in window_places]
    assert window.whole == (len(held) == window.out * window.kernel)
    if window.disjoint:
        assert len(set(held)) == len(held)
    if window.covering:
        assert sorted(held) == list(range(window.n))


@given(window=windows())
def test_every_window_holds_a_place(window):
    assert all(places(window))


@settings(max_examples=60)
@given(rows=windows(), columns=windows(), lead=st.sampled_from([(2,), (0, 2), (1, 3)]), seed=seeds)
def test_sums_are_loops_and_adjoint(rows, columns, lead, seed):
    x = numbers(seed, (*lead, rows.n, columns.n))
    expected = np.zeros((*lead, rows.out, columns.out))
    for o, high in enumerate(places(rows)):
        for q, wide in enumerate(places(columns)):
            for _, i in high:
                for _, j in wide:
                    expected[..., o, q] += x[..., i, j]
    both = (rows, columns)
    np.testing.assert_allclose(host(sum_windows(tg.Tensor(placed(x)), both)), expected, rtol=1e-12, atol=1e-12)
    g = numbers(seed + 1, expected.shape)
    check_adjoint(lambda x: sum_windows(x, both), lambda g: spread_windows(g, both), x, g)


def test_one_and_three_axes():
    w = AxisWindow(5, 2, 2, 1, 1, 3)
    x = numbers(0, (1, 5, 5, 5))
    check_grad(lambda x: sum_windows(x, (w,)), x[0, 0], order=3)
    check_adjoint(
        lambda x: sum_windows(x, (w, w, w)), lambda g: spread_windows(g, (w, w, w)), x, numbers(1, (1, 3, 3, 3))
    )
    assert sum_windows(tg.Tensor(placed(x)), (w,)).shape == (1, 5, 5, 3)


@pytest.mark.parametrize("ceil", [False, True])
def test_the_number_of_windows(ceil):
    sizes = [pool_windows("", (n, n), 3, 2, 1, 1, ceil)[0].out for n in range(1, 8)]
    assert sizes == ([1, 2, 2, 3, 3, 4, 4] if ceil else [1, 1, 2, 2, 3, 3, 4])
    assert pool_windows("", (5, 7), (2, 3), None, 0, 1, False) == (
        AxisWindow(5, 2, 2, 0, 1, 2),
        AxisWindow(7, 3, 3, 0, 1, 2),
    )

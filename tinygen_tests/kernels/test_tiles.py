"""Tiles cover everything once; windows in scratch memory are what windows see."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.kernels import tiles
from tinygen.kernels.tiles import Slide, Tile, cut, plan, windows
from tinygen_tests.draws import numbers, seeds


@given(N=st.integers(1, 9), oh=st.integers(1, 9), row=st.integers(1, 4 << 20))
def test_every_output_row_is_in_one_tile(N, oh, row):
    parts = cut(N, oh, row)
    rows = [(n, i) for t in parts for n in range(t.n0, t.n1) for i in range(t.i0, t.i1)]
    assert sorted(rows) == list(itertools.product(range(N), range(oh)))
    for t in parts:
        assert t.n0 < t.n1 and t.i0 < t.i1
        single = t.n1 == t.n0 + 1
        assert single or (t.i0, t.i1) == (0, oh)
        assert (t.n1 - t.n0) * (t.i1 - t.i0) * row <= tiles.TILE or (single and t.i1 == t.i0 + 1)


@settings(max_examples=100)
@given(data=st.data(), overlap=st.booleans(), seed=seeds)
def test_windows_hold_what_they_should(data, overlap, seed):
    both = lambda low, high: data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))
    slide = Slide(both(1, 4), both(1, 3), both(-2, 3), both(1, 2))
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = slide
    N, H, W, C = data.draw(st.integers(1, 3)), *both(1, 6), data.draw(st.integers(1, 3))
    oh, ow = both(1, 5)
    x = numbers(seed, (N, H, W, C))
    layout = plan(N, W, C, oh, ow, 1 if overlap else 10**6, 8, slide)  # O decides which layout is cheaper
    assert layout.interleave == 0 if dw > 1 and (kw, sw) != (1, 1) else True
    i0 = data.draw(st.integers(0, oh - 1))
    tile = Tile(0, N, 0, oh) if data.draw(st.booleans()) else Tile(N - 1, N, i0, oh)
    a = windows(x, tile, layout, slide, ow)
    made = layout.made(ow)
    flat = a.transpose(1, 0, 2).reshape(-1, kw, kh, C)
    for n, i, j in itertools.product(range(tile.n0, tile.n1), range(tile.i0, tile.i1), range(ow)):
        seen = flat[((n - tile.n0) * (tile.i1 - tile.i0) + i - tile.i0) * made + j]
        for u, v in itertools.product(range(kh), range(kw)):
            h, l = sh * i + dh * u - ph, sw * j + dw * v - pw
            expected = x[n, h, l] if 0 <= h < H and 0 <= l < W else np.zeros(C)
            np.testing.assert_array_equal(seen[v, u], expected)


def test_a_1x1_convolution_reads_the_picture_itself():
    x = numbers(0, (3, 4, 5, 6))
    slide = Slide((1, 1), (1, 1), (0, 0), (1, 1))
    layout = plan(3, 5, 6, 4, 5, 7, 8, slide)
    assert np.shares_memory(windows(x, Tile(0, 3, 0, 4), layout, slide, 5), x)


@pytest.mark.parametrize(("C", "O", "size", "sets"), [(32, 32, 28, 3), (128, 128, 7, 0), (1, 32, 28, 0)])
def test_the_cheaper_layout_is_chosen(C, O, size, sets):
    layout = plan(64, size, C, size, size, O, 4, Slide((3, 3), (1, 1), (1, 1), (1, 1)))
    assert layout.interleave == sets

"""Products in blocks equal products in one go, for every way of cutting them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.kernels import products
from tinygen.kernels.products import multiply, multiply_transposed, packed
from tinygen_tests.draws import numbers, seeds


@pytest.fixture(params=["as they are", "tiny"])
def blocks(request, monkeypatch):
    if request.param == "tiny":
        monkeypatch.setattr(products, "BLOCK", 600)
        monkeypatch.setattr(products, "_PANEL", 128)
    for f in (products._blocks, products._transposed_blocks):
        f.cache_clear()
    yield
    for f in (products._blocks, products._transposed_blocks):
        f.cache_clear()


lengths = st.sampled_from([1, 2, 7, 16, 31, 32, 48, 64, 96, 100, 130])


def test_products_in_blocks(blocks):
    @settings(max_examples=60)
    @given(r=st.integers(1, 3), m=st.integers(1, 60), k=lengths, n=lengths, seed=seeds)
    def check(r, m, k, n, seed):
        a, b, c = numbers(seed, (r, m, k)), numbers(seed + 1, (k, n)), numbers(seed + 2, (r, m, n))
        out = np.full((m, r, n), np.nan).transpose(1, 0, 2)  # interleaved, as the windows of a tile are
        multiply(a, packed(b), out)
        np.testing.assert_allclose(out, a @ b, rtol=0, atol=1e-12)
        total = np.full((k, n), np.nan)
        multiply_transposed(a, c, total, add=False)
        expected = np.einsum("rmk,rmn->kn", a, c)
        np.testing.assert_allclose(total, expected, rtol=0, atol=1e-12)
        multiply_transposed(a, c, total, add=True)
        np.testing.assert_allclose(total, 2 * expected, rtol=0, atol=1e-12)

    check()


def test_blocks_begin_on_a_cache_line():
    for n in (16, 32, 48, 64, 128):
        assert packed(numbers(0, (300, n)).astype("float32")).ctypes.data % 64 == 0


def test_no_block_is_larger_than_it_may_be():
    for m, k, n in [(900, 288, 32), (448, 576, 64), (228, 1152, 128), (5000, 9, 32), (300, 2048, 512)]:
        rows, inner, wide, count = products._blocks(m, k, n)
        assert rows * inner * wide <= products.BLOCK and rows * count <= m < rows * (count + 1) + count
        rows, high, wide, count = products._transposed_blocks(m, k, n)
        assert rows * high * wide <= products.BLOCK and rows * count <= m

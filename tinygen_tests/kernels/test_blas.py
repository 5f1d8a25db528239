"""Products cut into pieces are the products, whatever the shape, the layout and the number of threads."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tinygen.kernels import blas, threads


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(blas, "_PIECE", 1000)


SHAPES = [
    ((3, 4), (4, 5)),
    ((200, 30), (30, 40)),
    ((17, 50), (50, 300)),
    ((1, 500), (500, 400)),
    ((400, 500), (500, 1)),
    ((64, 0), (0, 64)),
    ((0, 5), (5, 90)),
    ((6, 20, 30), (6, 30, 10)),
    ((2, 3, 20, 30), (2, 3, 30, 40)),
    ((0, 20, 30), (0, 30, 40)),
    ((5, 20, 30), (30, 40)),
    ((5, 1, 20, 30), (3, 30, 40)),
]


@pytest.mark.parametrize("left, right", SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
@pytest.mark.parametrize("transposed", [False, True])
def test_pieces_make_the_product(left, right, dtype, transposed):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(left).astype(dtype), rng.standard_normal(right).astype(dtype)
    if transposed:
        a, b = (np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2) for x in (a, b))
    before = a.copy(), b.copy()
    c = blas.product(a, b)
    expected = np.matmul(a.astype(np.complex128), b.astype(np.complex128))
    assert c.shape == expected.shape and c.dtype == dtype
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4 if dtype == np.float32 else 1e-12)
    assert (a == before[0]).all() and (b == before[1]).all()


def test_the_bits_do_not_depend_on_the_number_of_threads():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((333, 70)).astype("float32"), rng.standard_normal((70, 90)).astype("float32")
    before = threads.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            threads.set_num_threads(count)
            results.append(blas.product(a, b))
    finally:
        threads.set_num_threads(before)
    assert all((r == results[0]).all() for r in results)


def test_pieces_cover_everything_once():
    for n in (1, 7, 16, 333):
        for pieces in (1, 2, 5):
            places = np.concatenate([np.arange(n)[part] for part in blas._cuts(n, pieces)])
            assert places.tolist() == list(range(n))


@pytest.mark.parametrize("wish, told", [(None, True), ("2", False)])
def test_openblas_is_told_unless_the_user_has(wish, told):
    text = str(np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"])
    if "scipy-openblas" not in text:
        pytest.skip(f"this NumPy computes with {text}, not with the OpenBLAS of its wheels")
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    environment |= {} if wish is None else {"OPENBLAS_NUM_THREADS": wish}
    code = "from tinygen.kernels import blas; print(blas.take_over())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(told)

"""The buffer's size: for the rows at hand, in helpers too, and as it was afterwards."""

import numpy as np
import pytest

from tinygen.kernels import threads
from tinygen.kernels.buffers import rows_of


@pytest.mark.parametrize(("rows", "size"), [(49, 4096), (128, 128), (511, 128), (512, 512), (784, 512), (100_000, 512)])
def test_size_within_and_after(rows, size):
    before = np.getbufsize()
    with pytest.raises(KeyError), rows_of(rows):
        assert np.getbufsize() == size
        raise KeyError
    assert np.getbufsize() == before


def test_helpers_have_it_too():
    before, sizes = threads.get_num_threads(), []
    threads.set_num_threads(2)
    try:
        with rows_of(1000):
            threads.run([lambda: sizes.append(np.getbufsize())] * 8)
    finally:
        threads.set_num_threads(before)
    assert set(sizes) == {512}


def test_results_do_not_depend_on_it():
    x, s = (np.random.default_rng(0).standard_normal(shape).astype("float32") for shape in [(7, 784), (7, 1)])
    plain = x * s + s
    with rows_of(784):
        np.testing.assert_array_equal(x * s + s, plain)

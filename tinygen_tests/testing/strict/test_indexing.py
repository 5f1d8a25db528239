"""``x[index]`` on the stand-in: as NumPy where CuPy is as NumPy, and the four ways in which it is not."""

import numpy as np
import pytest

from tinygen.testing.strict.library import build

pytestmark = pytest.mark.cpu_only("about the stand-in itself, in every run")

cp = build()
X = np.arange(60.0).reshape(3, 4, 5)
I, J = np.array([0, 2, 1]), np.array([[1, 0, 3], [-1, 2, 2]])
M = X > 20


def device(index):
    if isinstance(index, tuple):
        return tuple(device(part) for part in index)
    return cp.asarray(index) if isinstance(index, np.ndarray) else index


INDICES = [
    0, -1, (1, 2), (1, 2, 3), slice(None), slice(None, None, -2), (slice(1), 2), (Ellipsis, 1), None, (None, 0, None),
    (Ellipsis,), (), I, J, (I, slice(None)), (slice(None), I), (I, I), (I, slice(None), I), (0, I), (0, slice(None), I),
    (I, J), (J, J, J), (slice(None), J, slice(1, 3)), (I, None, 0), M, M[0, 0], (slice(None), M[0]), (M[:, :, 0],),
    (M[:, 0, 0], 1), (M[:, 0, 0], slice(None), 2), np.array(1), (np.array(2), slice(None)), [0, 2], ([0, 1], [1, 1]),
    [], np.zeros(0, "int64"), np.array([True, False, True]), (slice(0, 0), I), (0, Ellipsis, I), np.uint8([2, 1]),
]  # fmt: skip


def fitting(index):
    try:
        X[index]
    except IndexError:
        return False
    return True


INDICES = [index for index in INDICES if fitting(index)]


@pytest.mark.parametrize("index", INDICES, ids=lambda i: str(i).replace("\n", ""))
def test_reading_and_writing_as_numpy(index):
    x = cp.asarray(X)
    y = x[device(index)]
    assert isinstance(y, cp.ndarray)
    np.testing.assert_array_equal(y.get(), X[index])
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, (np.ndarray, list)) for part in parts):
        assert y.base is None and y.flags.c_contiguous
    else:
        assert y.base is x
    host = X.copy()
    x[device(index)] = -1
    host[index] = -1
    np.testing.assert_array_equal(x.get(), host)
    value = np.random.default_rng(0).standard_normal((1, 1, *X[index].shape[-1:]))
    if X[index].ndim:
        x[device(index)], host[index] = cp.asarray(value[0, 0]), value[0, 0]
        where_same = ~np.isnan(x.get())
        np.testing.assert_array_equal(x.get()[where_same], host[where_same])


def test_most_cases_were_kept():
    assert len(INDICES) > 30


def test_integer_arrays_wrap_around_where_numpy_raises():
    x = cp.asarray([10.0, 20.0, 30.0])
    wild = np.array([3, -4, 5, 100, -1])
    assert x[cp.asarray(wild)].tolist() == [10, 30, 30, 20, 30]
    assert x.take(cp.asarray(wild)).tolist() == cp.take(x, wild.tolist()).tolist() == [10, 30, 30, 20, 30]
    assert x[cp.asarray(4)].item() == 20
    with pytest.raises(IndexError):
        X[0, 0][wild]
    x[cp.asarray([4])] = 0.0
    assert x.tolist() == [10, 0, 30]
    cp.add.at(x, cp.asarray([3, 6]), 1.0)
    assert x.tolist() == [12, 0, 30]
    y = cp.asarray(X)
    np.testing.assert_array_equal(y[cp.asarray([4]), :, cp.asarray([6])].get(), X[[1], :, [1]])


def test_plain_integers_outside_are_errors_in_both():
    x = cp.asarray(X)
    for index in (
        3,
        -4,
        (0, 4),
        (slice(None), slice(None), 5),
        (0, 0, 0, 0),
        (Ellipsis, Ellipsis),
        "a",
        1.5,
        (I, I, I, I),
    ):
        with pytest.raises(IndexError):
            x[device(index)]
    for index in (np.zeros((2, 4), bool), np.zeros(2, float)):
        with pytest.raises(IndexError):
            x[device(index)]
    with pytest.raises(IndexError, match="array is 3-dimensional, but 4 were indexed"):
        x[device((I, I, I, I))]
    with pytest.raises(IndexError, match="empty"):
        cp.zeros((0, 3))[cp.asarray([0])]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "int32", "uint8", "bool"])
def test_a_place_that_is_assigned_two_values_is_poisoned(dtype):
    x = cp.zeros(4, dtype)
    values = cp.asarray([1, 0, 1]).astype(dtype)
    x[cp.asarray([2, 2, 0])] = values
    got = x.get()
    assert got[0] == 1 and got[1] == got[3] == 0
    numpys = np.zeros(4, dtype)
    numpys[[2, 2, 0]] = values.get()
    assert got[2] != numpys[2]
    if got.dtype.kind in "fc":
        assert np.isnan(got[2])


def test_poison_needs_two_values_and_one_place():
    x = cp.zeros((3, 3))
    i = cp.asarray([0, 0, 1])
    x[i] = 5.0  # one value
    x[i, cp.asarray([0, 1, 0])] = cp.asarray([1.0, 2.0, 3.0])  # different places
    x[:, i] = cp.asarray([[1.0], [2.0], [3.0]])  # the same value wherever a place is named twice
    x[i] = cp.asarray([[np.nan, 1, 1], [np.nan, 1, 1], [2, 2, 2]])  # NaN is the same as NaN
    assert x[0, 1:].tolist() == [1, 1]
    x = cp.zeros((2, 3))
    x[:, cp.asarray([0, 3])] = cp.asarray([1.0, 2.0])  # 3 wraps around to 0
    assert np.isnan(x.get()).tolist() == [[True, False, False]] * 2
    x = cp.zeros((3, 2)).T
    x[cp.asarray([0, 0])] = cp.asarray([[1.0, 1, 1], [1, 2, 1]])
    assert np.isnan(x.get()).tolist() == [[False, True, False], [False] * 3]
    x = cp.zeros(3)
    x.put(cp.asarray([1, 1]), cp.asarray([1.0, 2.0]))
    assert np.isnan(x.get()).tolist() == [False, True, False]


def test_adding_at_repeated_places_is_exact():
    x = cp.zeros((3, 2))
    assert cp.add.at(x, cp.asarray([0, 2, 0]), cp.asarray([[1.0, 2], [3, 4], [5, 6]])) is None
    assert x.tolist() == [[6, 8], [0, 0], [3, 4]]
    cp.add.at(x, (slice(None), cp.asarray([1, 1])), 1.0)
    assert x.tolist() == [[6, 10], [0, 2], [3, 6]]
    cp.maximum.at(x, cp.asarray([1, 1]), cp.asarray([[5.0, 0], [4, 9]]))
    assert x.tolist() == [[6, 10], [5, 9], [3, 6]]
    cp.add.at(x, x > 8, 1.0)
    cp.add.at(x, 2, 1.0)
    assert x.tolist() == [[6, 11], [5, 10], [4, 7]]
    with pytest.raises(NotImplementedError, match="multiply.at. is not supported"):
        cp.multiply.at(x, cp.asarray([0]), 2.0)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "bool", "complex64"])
def test_adding_at_places_needs_a_dtype_with_atomics(dtype):
    x = cp.zeros(3, dtype)
    with pytest.raises(TypeError, match="add.at does not support"):
        cp.add.at(x, cp.asarray([0]), cp.ones(1, dtype))
    with pytest.raises(TypeError, match="maximum.at does not support"):
        cp.maximum.at(cp.zeros(3, "float16"), cp.asarray([0]), cp.ones(1, "float16"))


def test_a_host_array_as_an_index_is_copied():
    assert cp.asarray(X)[np.array([0, 1])].shape == (2, 4, 5)
    assert cp.asarray(X)[[0, 1]].shape == (2, 4, 5)

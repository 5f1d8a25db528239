"""Functions of the stand-in: dtypes, parameters, ufuncs, and what is left to NumPy."""

import warnings

import numpy as np
import pytest

from tinygen.testing.strict.library import build

pytestmark = pytest.mark.cpu_only("about the stand-in itself, in every run")

cp = build()
HOST = np.arange(6.0).reshape(2, 3)


def x(dtype=float):
    return cp.asarray(HOST, dtype)


@pytest.mark.parametrize("dtype", [object, str, "U3", "S2", np.longdouble, np.clongdouble, "datetime64[s]", ">f8"])
def test_dtypes_that_cupy_has_not_are_refused(dtype):
    for call in (lambda: cp.zeros(2, dtype), lambda: cp.empty(2, dtype), lambda: x().astype(dtype)):
        with pytest.raises(ValueError, match="Unsupported dtype"):
            call()
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cp.asarray(np.zeros(2).astype(dtype))


def test_ragged_and_mixed_lists_become_no_array():
    assert cp.asarray([[1, 2], [3, 4]]).dtype == "int64" and cp.asarray([x()[0], x()[1]]).tolist() == HOST.tolist()
    for wrong in ([x()[0], [1.0, 2.0, 3.0]], [x()[0, 0], 1.0], [[1], [1, 2]]):
        with pytest.raises((TypeError, ValueError)):
            cp.asarray(wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda y: cp.add(y, 1, where=y > 0),
        lambda y: cp.exp(y, order="K"),
        lambda y: cp.sum(y, where=y > 0),
        lambda y: cp.sum(y, initial=0),
        lambda y: y.sum(where=y > 0),
        lambda y: y.max(initial=0),
        lambda y: cp.mean(y, where=1),
        lambda y: cp.clip(y, 0, 1, dtype=float),
        lambda y: y.astype(float, casting="safe"),
        lambda y: y.copy(subok=True),
        lambda y: cp.einsum("ij->i", y, out=y),
        lambda y: cp.einsum("ij->i", y, order="C"),
        lambda y: cp.sort(y, order="C"),
        lambda y: cp.full((2,), 0, like=y),
        lambda y: cp.zeros(2, device="cpu"),
        lambda y: cp.arange(3, like=y),
        lambda y: cp.broadcast_to(y, (2, 3), subok=True),
        lambda y: cp.take(y, 0, mode="clip"),
        lambda y: cp.cumsum(y, keepdims=True),
        lambda y: cp.std(y, correction=1),
        lambda y: cp.squeeze(y, axes=0),
        lambda y: cp.argsort(y, stable=True),
        lambda y: cp.random.default_rng(0).standard_normal(2, mean=0),
        lambda y: cp.flip(y, axes=0),
    ],
)
def test_parameters_that_cupy_has_not_are_refused(call):
    with pytest.raises(TypeError):
        call(x())


def test_the_error_shows_cupys_parameters():
    with pytest.raises(TypeError, match=r"'where'; CuPy's is cupy.sum\(a, axis=None, dtype=None, out=None, keepdims=F"):
        cp.sum(x(), where=x() > 0)
    with pytest.raises(TypeError, match="float16"):
        cp.random.default_rng(0).standard_normal(2, "float16")


def test_kinds_of_sorting():
    assert cp.sort(x().ravel()[::-1]).tolist() == [0, 1, 2, 3, 4, 5]
    for call in (lambda: x().sort(kind="quicksort"), lambda: x().argsort(kind="heapsort")):
        with pytest.raises(ValueError, match="kind can only be None or 'stable'"):
            call()
    with pytest.raises(NotImplementedError, match="non-contiguous"):
        x().T.sort()


def test_ufuncs():
    y = x()
    out = cp.empty((2, 3))
    assert (
        cp.add(y, 1, out) is out and cp.multiply(out, 2, out=out) is out and out.tolist() == (2 * (HOST + 1)).tolist()
    )
    assert cp.add(y, 1, dtype="float32").dtype == "float32"
    with pytest.raises(TypeError):
        cp.add(y, 1.5, out=cp.empty((2, 3), "int64"))
    with pytest.raises(ValueError):
        cp.add(y, 1, out=cp.empty((3, 2)))
    quotient, rest = cp.divmod(y, 2)
    assert rest.tolist() == (HOST % 2).tolist() and quotient.tolist() == (HOST // 2).tolist()
    assert cp.add.reduce(y).tolist() == [3, 5, 7] and cp.add.outer(y[0], y[0]).shape == (3, 3)
    assert cp.add.accumulate(y).tolist() == np.add.accumulate(HOST).tolist()
    for call in (lambda: cp.maximum.reduce(y), lambda: cp.maximum.accumulate(y)):
        with pytest.raises(NotImplementedError, match="not supported yet"):
            call()
    with pytest.raises(TypeError, match="complex"):
        cp.logical_not(x(complex))
    with pytest.raises(TypeError, match="Wrong number"):
        cp.exp(y, y, y)


def test_in_place_operators_keep_shape_and_dtype():
    y = x("float32")
    z = y
    z += 1
    z *= np.float32(2)
    assert z is y and y.dtype == "float32" and y.tolist() == (2 * (HOST + 1)).tolist()
    with pytest.raises(ValueError, match="Out shape"):
        y += cp.ones((4, 2, 3), "float32")
    with pytest.raises(TypeError):
        y += cp.ones((2, 3), complex)


def test_division_by_zero_and_the_like_say_nothing():
    y = cp.asarray([0.0, -1.0, np.inf])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for z in (
            1 / y,
            cp.log(y),
            y - y,
            cp.sqrt(y),
            y**-1.0,
            cp.zeros(0).mean(),
            cp.zeros((0, 2)).var(axis=0),
            y % 0,
        ):
            z.get()
        (y * 1e300).astype("float32"), y.astype("int64"), cp.linalg.norm(y)


def test_everything_else_is_numpys_with_cupys_parameters():
    y = x()
    np.testing.assert_array_equal(cp.kron(y, y).get(), np.kron(HOST, HOST))
    np.testing.assert_array_equal(cp.pad(y, ((1, 0), (0, 2))).get(), np.pad(HOST, ((1, 0), (0, 2))))
    np.testing.assert_array_equal(cp.eye(3, 4, 1).get(), np.eye(3, 4, 1))
    np.testing.assert_allclose(cp.linspace(0, 1, 7).get(), np.linspace(0, 1, 7))
    q, r = cp.linalg.qr(y.T)
    np.testing.assert_allclose((q @ r).get(), HOST.T, atol=1e-12)
    assert [part.shape for part in cp.meshgrid(y[0], y[1])] == [(3, 3)] * 2
    assert (
        cp.result_type(y, cp.float32) == np.float64
        and cp.pi == np.pi
        and cp.newaxis is None
        and cp.float32 is np.float32
    )
    assert cp.fft.fft(y).dtype == complex and cp.iinfo("int32").max == 2**31 - 1
    assert cp.put_along_axis(y, cp.asarray([[1], [2]]), -1.0, 1) is None and y.tolist() == [[0, -1, 2], [3, 4, -1]]
    assert cp.take_along_axis(y, cp.asarray([[1], [2]]), 1).tolist() == [[-1], [-1]]
    with pytest.raises(ValueError, match="read-only|not writeable"):
        cp.broadcast_to(y, (4, 2, 3))[0, 0, 0] = 1


def test_cuda_code_cannot_run_here():
    kernel = cp.ElementwiseKernel("T x", "T y", "y = x", "copy")
    with pytest.raises(NotImplementedError, match="'copy' needs a GPU"):
        kernel(x())

"""Arrays of the stand-in: what goes in, what comes out, in which order, and what the host may ask."""

import copy
import operator
import pickle

import numpy as np
import pytest

from tinygen.testing import count_syncs
from tinygen.testing.strict.library import build

pytestmark = pytest.mark.cpu_only("about the stand-in itself, in every run")

cp = build()
HOST = np.arange(6.0).reshape(2, 3)


def x(dtype=float):
    return cp.asarray(HOST, dtype)


OPERATORS = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
    operator.ne,
    operator.iadd,
    operator.imul,
    operator.isub,
    operator.itruediv,
]


# ------------------------------------------------------------------------------------ host arrays stay out


@pytest.mark.parametrize("f", [*OPERATORS, operator.matmul], ids=lambda f: f.__name__)
def test_an_operator_refuses_a_host_array_on_either_side(f):
    for a, b in [(x(), HOST), (HOST.copy(), x()), (x(), np.array(2.0)), (x()[0], [1.0, 2.0, 3.0])]:
        with pytest.raises((TypeError, ValueError)) as caught:
            assert isinstance(f(a, b), bool), "refused, or compared by identity"
            raise TypeError("Unsupported type <class 'list'>")
        if not isinstance(b, list):
            assert "Unsupported type <class 'numpy.ndarray'>" in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda h: cp.add(x(), h),
        lambda h: cp.exp(h),
        lambda h: cp.where(x() > 0, h, 0.0),
        lambda h: cp.sum(h),
        lambda h: cp.where(h, x(), x()),
        lambda h: cp.concatenate([x(), h]),
        lambda h: cp.stack([h, x()]),
        lambda h: cp.matmul(x(), h.T),
        lambda h: cp.einsum("ij,ij->i", x(), h),
        lambda h: cp.clip(x(), h, None),
        lambda h: cp.maximum(h, 0),
        lambda h: cp.zeros_like(h),
        lambda h: cp.tensordot(x(), h),
        lambda h: x().dot(h.T),
        lambda h: cp.linalg.norm(h),
        lambda h: cp.broadcast_to(h, (4, 2, 3)),
        lambda h: cp.flip(h),
        lambda h: cp.pad(h, 1),
        lambda h: cp.copyto(x(), h),
        lambda h: cp.add(x(), x(), out=h),
        lambda h: x().cumsum(0, out=h),
        lambda h: cp.sort(h),
        lambda h: cp.lib.stride_tricks.as_strided(h, (2,), (8,)),
        lambda h: cp.argsort(h),
        lambda h: cp.roll(h, 1),
    ],
)
def test_a_function_refuses_a_host_array(call):
    call(x())
    with pytest.raises(TypeError, match="Unsupported type|Output arguments type must be|Only cupy arrays"):
        call(HOST.copy())


def test_lists_of_numbers_are_no_arrays():
    for call in (
        lambda: cp.sum([1, 2]),
        lambda: cp.concatenate([[1], [2]]),
        lambda: cp.exp([1.0]),
        lambda: cp.flip([1]),
    ):
        with pytest.raises(TypeError):
            call()


def test_scalars_are_taken_as_cupy_takes_them():
    y = x("float32")
    for scalar in (2, 2.5, True, np.float32(2), np.int64(3)):
        np.testing.assert_array_equal((y * scalar).get(), HOST.astype("float32") * scalar)
        np.testing.assert_array_equal((scalar * y).get(), scalar * HOST.astype("float32"))
    assert (y * 2.5).dtype == (y * np.float32(2)).dtype == "float32"  # Python's bend, NumPy's weigh
    assert (y * np.float64(2)).dtype == (np.float64(2) * y).dtype == "float64"
    assert (y**2).dtype == (y**0.5).dtype == (2.0**y).dtype == "float32"
    np.testing.assert_array_equal((y**2).get(), HOST**2)
    assert not (y == None).get().any() and (y != None).get().all()  # noqa: E711
    with pytest.raises(TypeError):
        y + object()


def test_a_host_array_is_assigned_to_no_slice_but_copied_where_cupy_copies():
    y = x()
    for index in (slice(None), 0, (Ellipsis, 1), (slice(None), slice(0, 2))):
        with pytest.raises(ValueError, match="non-scalar numpy.ndarray"):
            y[index] = HOST[index]
        with pytest.raises(ValueError):
            y[index] = HOST[index].tolist()
    y[0] = np.float64(7)
    y[1] = np.array(8.0)
    assert y.tolist() == [[7, 7, 7], [8, 8, 8]]
    y[cp.asarray([1])] = HOST[:1]
    assert y.tolist() == [[7, 7, 7], [0, 1, 2]]


# ------------------------------------------------------------------------------- and device arrays stay in


@pytest.mark.parametrize(
    "call",
    [
        np.asarray,
        np.array,
        lambda y: np.array([y, y]),
        lambda y: np.stack([y, y]),
        np.asanyarray,
        lambda y: np.testing.assert_array_equal(y, HOST),
        lambda y: HOST.copy().__setitem__(0, y[0]),
        memoryview,
        lambda y: np.zeros(3)[y[0]],
        lambda y: np.full((2, 3), y),
        lambda y: np.frombuffer(y),
        pickle.dumps,
    ],
)
def test_there_is_no_way_into_a_numpy_array_but_get(call):
    with pytest.raises((TypeError, NotImplementedError, IndexError, ValueError)):
        call(x())


@pytest.mark.parametrize(
    "call", [np.maximum, np.add, np.exp, np.sum, np.where, np.concatenate, np.shape, np.dot, np.isnan]
)
def test_a_numpy_function_called_by_its_name_is_an_error(call):
    """CuPy would send it on; here it is the mark of code that does not ask which library an array belongs to."""
    arguments = {np.concatenate: [[x(), x()]], np.where: [x() > 0, x(), x()]}.get(call, [x()] * getattr(call, "nin", 1))
    if call is np.dot:
        arguments = [x(), x().T]
    with pytest.raises(
        TypeError, match=f"numpy.{call.__name__} was called on an array of the device; ask array_module"
    ):
        call(*arguments)


def test_get_copies_and_item_is_of_one_number():
    y = x()
    host = y.get()
    host[0] = 9
    assert y.tolist()[0] == [0, 1, 2]
    assert y.T.get().flags.c_contiguous and y.T.get(order="A").flags.f_contiguous
    assert cp.asnumpy(y).tolist() == y.tolist()
    assert y[1, 2].item() == 5.0 and y[1:, 2:].item() == 5.0
    for call in (y.item, lambda: float(y), lambda: int(y), lambda: bool(y), lambda: operator.index(y[0, 0])):
        with pytest.raises((ValueError, TypeError)):
            call()


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("get", lambda y: y.get()),
        ("item", lambda y: y.sum().item()),
        ("bool", lambda y: bool(y.any())),
        ("float", lambda y: float(y[0, 0])),
        ("int", lambda y: int(y[0, 0])),
        ("complex", lambda y: complex(y[0, 0])),
        ("tolist", lambda y: y.tolist()),
        ("repr", repr),
        ("str", str),
        ("format", lambda y: f"{y[0, 0]:.2f}"),
        ("bool", lambda y: 3.0 in y.ravel()[3:]),
        ("bool", lambda y: max(y[0, 0], y[0, 1])),
        ("mask", lambda y: y[y > 2]),
        ("mask", lambda y: y.__setitem__(y > 2, 0)),
        ("nonzero", lambda y: cp.where(y > 2)),
        ("unique", cp.unique),
        ("nonzero", lambda y: cp.flatnonzero(y)),
        ("synchronize", lambda y: cp.cuda.Device().synchronize()),
        ("mask", lambda y: cp.add.at(y, y > 2, 1.0)),
        ("repeat", lambda y: cp.repeat(y[0], cp.asarray([1, 2, 1]))),
        ("tobytes", lambda y: y.tobytes()),
        ("synchronize", lambda y: cp.cuda.runtime.deviceSynchronize()),
    ],
)
def test_what_the_host_must_wait_for_is_counted_with_its_place(kind, call):
    y = x()
    with count_syncs() as syncs:
        call(y)
    assert syncs.count == len(syncs.events) == 1
    assert syncs.events[0][0] == kind and "test_array.py:" in syncs.events[0][1]
    assert repr(syncs).startswith("1 synchronisations\n  " + kind)
    with count_syncs() as syncs, count_syncs() as inner:
        call(y)
    assert syncs.count == inner.count == 1


def test_what_only_queues_work_is_not_counted():
    y, i = x(), cp.asarray([0, 1, 1])
    with count_syncs() as syncs:
        z = (y @ y.T).sum() + y[i].mean() + cp.where(y > 2, y, 0).max()
        y[i] = 1.0
        y += 1
        cp.add.at(y, i, 1.0)
        [row for row in y]
        assert z.shape == () and len(y) == 2 and y.ndim == 2 and y.dtype == float and y.flags.c_contiguous
        assert not cp.zeros(0).get().size  # nothing to wait for
    assert syncs.count == 0


# --------------------------------------------------------------------------------- results, memory, order


def test_reductions_and_elements_are_arrays_of_no_axes():
    y = x()
    results = [
        y.sum(),
        y.mean(),
        y.max(),
        y.min(),
        y.prod(),
        y.var(),
        y.std(),
        y.any(),
        y.all(),
        y.argmax(),
        y.trace(),
        cp.sum(y),
        cp.amax(y),
        cp.dot(y[0], y[0]),
        y[0] @ y[0],
        y[1, 2],
        y[0, 0] + 1,
        -y[0, 0],
        cp.exp(y[0, 0]),
        cp.linalg.norm(y),
        cp.array_equal(y, y),
        cp.allclose(y, y),
        cp.count_nonzero(y),
        cp.einsum("ij->", y),
        cp.random.default_rng(0).random(),
        next(iter(y[0])),
        cp.median(y),
        cp.vdot(y, y),
        cp.average(y),
    ]
    for r in results:
        assert isinstance(r, cp.ndarray) and r.shape == ()
    assert y.sum(axis=0, keepdims=True).shape == (1, 3) and y.argmax(keepdims=True).shape == (1, 1)
    assert y.sum(axis=()).tolist() == HOST.tolist()
    out = cp.empty(3)
    assert y.sum(axis=0, out=out) is out and out.tolist() == [3, 5, 7]
    with pytest.raises(ValueError, match="Out shape"):
        y.sum(axis=1, out=out)


@pytest.mark.parametrize(
    "call",
    [
        lambda y: y + 1,
        lambda y: y * y,
        lambda y: -y,
        lambda y: abs(y),
        lambda y: y > 2,
        lambda y: y**2,
        cp.exp,
        lambda y: cp.maximum(y, 1),
        lambda y: cp.where(y > 1, y, 0),
        lambda y: y.copy(),
        lambda y: y.clip(0, 1),
        lambda y: y.cumsum(axis=0),
        lambda y: y.sum(axis=2),
        lambda y: y[cp.asarray([0, 1])],
        lambda y: cp.tril(y),
        lambda y: cp.concatenate([y, y]),
        lambda y: y[y > -1],
        lambda y: cp.round(y),
        lambda y: y.conj() * 1,
    ],
)
def test_results_are_in_c_order_whatever_the_operands_order(call):
    y = cp.asarray(np.arange(24.0).reshape(2, 3, 4)).transpose(2, 0, 1)
    assert not y.flags.c_contiguous
    z = call(y)
    assert z.flags.c_contiguous and z.base is None and z.flags.owndata


def test_what_keeps_the_order_keeps_it():
    y = cp.asarray(np.arange(24.0).reshape(2, 3, 4)).transpose(2, 0, 1)
    for z in [
        y.copy("K"),
        y.astype("float32"),
        cp.array(y),
        cp.empty_like(y),
        cp.zeros_like(y),
        cp.full_like(y, 3),
        cp.roll(y, 1, 0),
    ]:
        assert tuple(s // z.itemsize for s in z.strides) == tuple(s // 8 for s in y.strides)
        assert z.base is None
    assert y.astype("float32", order="C").flags.c_contiguous and cp.empty_like(y, order="C").flags.c_contiguous
    assert y.strides == (8, 96, 32) and cp.empty_like(y, shape=(5, 2, 3)).strides == (8, 120, 40)
    assert y.astype(float, copy=False) is y and cp.asarray(y) is y and y.copy() is not y
    assert cp.asarray(HOST.T).flags.f_contiguous and cp.asarray(HOST[:, ::2]).flags.c_contiguous
    assert cp.ascontiguousarray(y).flags.c_contiguous and cp.ascontiguousarray(cp.asarray(1.0)).shape == (1,)


def test_views_share_memory_and_name_their_owner():
    y = x()
    for view in [
        y[0],
        y[:, ::2],
        y[None],
        y.T,
        y.reshape(3, 2),
        y.ravel(),
        y.swapaxes(0, 1),
        y.transpose(1, 0),
        y.view(),
        y[0, 0],
        cp.broadcast_to(y, (4, 2, 3)),
        cp.expand_dims(y, 0),
        cp.moveaxis(y, 0, 1),
        cp.flip(y),
        cp.split(y, 2)[0],
        y.mT,
        cp.reshape(y, (6,)),
        y.T[1:].T,
        y.diagonal(),
        y[:1].squeeze(0),
        cp.einsum("ij->ji", y),
        y.reshape(2, 3),
    ]:
        assert view.base is y and not view.flags.owndata
        assert cp.may_share_memory(view, y)
    z = x()
    z[0][1:] = 5
    z.T[0, 1] = 7
    assert z.tolist() == [[0, 5, 5], [7, 4, 5]]
    assert x().T.reshape(6).base is None and x().flatten().base is None  # copied
    assert y.squeeze() is y and y[0].T.base is y
    assert not cp.may_share_memory(y, x())
    assert y.data.ptr == y[0].data.ptr != y[1].data.ptr and y.device.id == 0


def test_copies_of_every_kind_are_new():
    y = x()
    for z in (copy.copy(y), copy.deepcopy(y), y.copy(), cp.array(y), cp.copy(y)):
        z[...] = 0
    assert y.tolist() == HOST.tolist()


def test_memory_that_nobody_wrote_to_is_no_accidental_zero():
    for made in (cp.empty((2, 2)), cp.empty_like(x()), cp.ndarray((3,), "float32"), cp.empty(2, complex)):
        assert np.isnan(made.get()).all()
    assert (cp.empty(3, "int64").get() == np.iinfo("int64").max).all() and cp.empty(3, bool).get().all()


def test_strided_windows_have_no_base_and_stay_inside():
    """CuPy makes them from a pointer: nothing tells that they own no memory."""
    y = cp.asarray(np.arange(6.0))
    windows = cp.lib.stride_tricks.as_strided(y, (4, 3), (8, 8))
    assert windows.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert windows.base is None and cp.may_share_memory(windows, y)
    with pytest.raises(ValueError, match="outside the array's memory"):
        cp.lib.stride_tricks.as_strided(y, (5, 3), (8, 8))
    with pytest.raises(ValueError, match="outside the array's memory"):
        cp.lib.stride_tricks.as_strided(y[1:], (2,), (-16,))
    assert cp.lib.stride_tricks.as_strided(y[2:], (2,), (-16,)).tolist() == [2, 0]

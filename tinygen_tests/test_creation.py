"""Making tensors: dtypes by PyTorch's rules, copies or shared memory, ranges, errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen_tests.judge import same, torch

DTYPES = ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"]

DATA = [
    1.5,
    2,
    True,
    [1.0, 2.0],
    [1, 2],
    [True, False],
    [1, 2.5],
    [True, 2],
    [True, 2.5],
    [[1, 2], [3, 4]],
    ((1.0,), (2.0,)),
    [],
    [[]],
    [[], []],
    np.float64(1.5),
    np.float32(1.5),
    np.int32(3),
    [np.float64(1.5), 2.0],
    [np.float32(1.5), 2.0],
    [np.float16(1.5)],
    [np.int64(1), 2],
    range(3),
]


@pytest.mark.parametrize("data", DATA, ids=repr)
@pytest.mark.parametrize("default", ["float32", "float64"])
def test_the_dtype_of_python_data_is_pytorchs(data, default):
    tg.set_default_dtype(default)
    torch.set_default_dtype(getattr(torch, default))
    try:
        same(tg.tensor(data), torch.tensor(data))
        for dtype in DTYPES:
            try:
                expected = torch.tensor(data, dtype=getattr(torch, dtype))
            except TypeError:
                continue  # PyTorch makes no integers of NumPy's floating scalars
            same(tg.tensor(data, dtype=dtype), expected)
    finally:
        tg.set_default_dtype("float32")
        torch.set_default_dtype(torch.float32)


def test_a_named_dtype_costs_no_digits():
    assert tg.tensor(0.1, dtype="float64").item() == 0.1
    assert tg.tensor([math.pi], dtype=tg.float64).item() == math.pi
    assert tg.tensor([16_777_217.0], dtype="int64").item() == 16_777_217
    assert tg.as_tensor(0.1, dtype="float64").item() == 0.1


@pytest.mark.cpu_only("about NumPy memory")
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_and_tensors_keep_their_dtype_and_are_copied(dtype):
    a = np.ones(3, dtype=dtype)
    for source in (a, tg.Tensor(a)):
        x = tg.tensor(source)
        assert x.dtype == np.dtype(dtype) and not np.shares_memory(x.data, a)
    y = tg.tensor(tg.ones(2, requires_grad=True) * 2)
    assert y.is_leaf and not y.requires_grad


def test_tensors_inside_lists():
    assert tg.tensor([tg.tensor(1.0), tg.tensor(2.0)]).dtype == tg.float32
    assert tg.tensor([tg.tensor(1.0), 2.0]).dtype == tg.float32
    assert tg.tensor([tg.tensor([1.0, 2.0]), [3.0, 4.0]]).tolist() == [[1, 2], [3, 4]]
    assert tg.tensor([tg.tensor(1.0, dtype="float64"), 2.0]).dtype == tg.float64
    assert tg.tensor([[tg.tensor(1.0), 2], (3.0, tg.tensor(4.0))]).dtype == tg.float32
    with pytest.raises(RuntimeError, match="requires grad"):
        tg.tensor([tg.ones(1, requires_grad=True)])


def test_arrays_in_a_foreign_byte_order_are_converted():
    foreign = np.array([1.5, 2.5]).astype(np.dtype(np.float32).newbyteorder("S"))
    x = tg.tensor(foreign, requires_grad=True)
    assert x.dtype == tg.float32 and x.dtype.isnative and tg.grad((x * 2).sum(), x)[0].tolist() == [2, 2]
    assert tg.as_tensor(foreign).dtype.isnative and tg.as_tensor(foreign).tolist() == [1.5, 2.5]
    with pytest.raises(TypeError, match="byte order; tg.tensor"):
        tg.from_numpy(foreign)


def test_shared_memory():
    a = np.ones(3)
    assert tg.from_numpy(a).data is a and tg.as_tensor(a, device="cpu").data is a
    x = tg.ones(3)
    assert tg.as_tensor(x) is x
    assert tg.as_tensor(x, dtype="float64").dtype == tg.float64
    assert tg.as_tensor([1, 2]).tolist() == [1, 2]
    y = tg.ones(2, requires_grad=True) * 3
    assert tg.as_tensor(y, dtype="float64").requires_grad


@pytest.mark.parametrize(
    "data, error, message",
    [
        ([[1, 2], [3]], ValueError, "ragged"),
        ("text", TypeError, "expected numbers, got data of type <U4"),
        (["a"], TypeError, "expected numbers"),
        (None, TypeError, "expected numbers, got data of type object"),
        ([None], TypeError, "expected numbers"),
        ({}, TypeError, "expected numbers"),
        (np.array(["a"]), TypeError, "expected numbers"),
        ([2**70], TypeError, "expected numbers"),
    ],
    ids=repr,
)
def test_data_that_holds_no_numbers_is_refused(data, error, message):
    for make in (tg.tensor, tg.as_tensor):
        with pytest.raises(error, match=message):
            make(data)


def test_gradients_are_asked_of_floating_tensors_alone():
    assert tg.tensor([1.0], requires_grad=True).requires_grad
    assert tg.tensor([1], dtype="float32", requires_grad=True).requires_grad
    for make in (
        lambda: tg.tensor([1], requires_grad=True),
        lambda: tg.zeros(2, dtype="int64", requires_grad=True),
        lambda: tg.arange(3, requires_grad=True),
        lambda: tg.eye(2, dtype="bool", requires_grad=True),
    ):
        with pytest.raises(TypeError, match="only floating tensors"):
            make()


@pytest.mark.parametrize("wrong", ["float33", object(), "U5", 5, [1.0]], ids=lambda wrong: type(wrong).__name__)
def test_dtypes_that_are_none_are_refused(wrong):
    with pytest.raises(TypeError, match="expected a (numeric )?dtype"):
        tg.zeros(2, dtype=wrong)


def test_from_numpy_takes_arrays_alone():
    for wrong in ([1.0], 2.0, np.array(["a"]), np.float64(1)):
        with pytest.raises(TypeError, match="from_numpy: expected a NumPy array of numbers"):
            tg.from_numpy(wrong)


# ----------------------------------------------------------------------------------- filled by a rule


@pytest.mark.parametrize("name", ["zeros", "ones"])
def test_sizes_are_listed_or_given_as_one(name):
    make = getattr(tg, name)
    for x in (make(2, 3), make((2, 3)), make([2, 3]), make(tg.zeros(2, 3).shape), make(np.int64(2), 3)):
        assert x.shape == (2, 3) and x.dtype == tg.float32
        assert (x.numpy() == (name == "ones")).all()
    assert make(()).shape == () and make(0).shape == (0,)
    for dtype in DTYPES:
        assert make(2, dtype=dtype).dtype == np.dtype(dtype)
    for wrong in (2.5, "x", None):
        with pytest.raises(TypeError):
            make(wrong)
    with pytest.raises(ValueError):
        make(-1)


@pytest.mark.parametrize("value", [True, 3, 2.5, -1, float("nan"), float("inf")])
def test_full_takes_its_dtype_from_the_value_as_pytorch_does(value):
    same(tg.full((2, 3), value), torch.full((2, 3), value))
    same(tg.full((), value, dtype="float64"), torch.full((), value, dtype=torch.float64))
    assert tg.full(3, value).shape == (3,)


def test_likes_take_shape_and_dtype_unless_named():
    x = tg.zeros(2, 3, dtype="float64")
    for f, theirs, args in (
        (tg.zeros_like, "zeros_like", ()),
        (tg.ones_like, "ones_like", ()),
        (tg.full_like, "full_like", (2.5,)),
    ):
        for dtype in DTYPES:
            y = np.ones((2, 3), dtype=dtype)
            same(f(tg.tensor(y), *args), getattr(torch, theirs)(torch.from_numpy(y), *args))
        assert f(x, *args, dtype="int64").dtype == tg.int64
        assert f(x, *args, requires_grad=True).requires_grad and f(x, *args).shape == (2, 3)


@settings(max_examples=150)
@given(
    start=st.integers(-20, 20) | st.floats(-20, 20).map(lambda v: round(v, 3)),
    length=st.integers(0, 12),
    step=st.sampled_from([1, 2, 3, -1, -2, 0.1, 0.25, 0.3, -0.7, 1.5]),
)
def test_arange_agrees_with_pytorch(start, length, step):
    end = start + step * length
    same(tg.arange(start, end, step), torch.arange(start, end, step), 1e-6)
    same(
        tg.arange(start, end, step, dtype="float64"), torch.arange(start, end, step, dtype=torch.float64), 1e-12
    )


def test_arange_counts_from_zero_and_keeps_integers_whole():
    assert tg.arange(3).tolist() == [0, 1, 2] and tg.arange(3).dtype == tg.int64
    assert tg.arange(2.5).tolist() == [0, 1, 2] and tg.arange(2.5).dtype == tg.float32
    assert tg.arange(1, 7, 2, dtype="int32").dtype == tg.int32 and tg.arange(5, 5).shape == (0,)
    assert tg.arange(0, 1, 0.1).shape == (10,)
    assert tg.arange(end=3, start=1).tolist() == [1, 2]
    big = 2**53
    assert tg.arange(big, big + 3).tolist() == [big, big + 1, big + 2]


@pytest.mark.parametrize("args", [(0, 3, 0), (0, 3, -1), (3, 0, 1), (0.0, 1.0, -0.1)])
def test_ranges_that_lead_nowhere_are_refused(args):
    with pytest.raises(ValueError, match="does not lead from"):
        tg.arange(*args)


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 100])
@pytest.mark.parametrize("ends", [(0, 1), (-3.5, 2), (2, -2), (1, 1)])
def test_linspace_agrees_with_pytorch(ends, steps):
    same(tg.linspace(*ends, steps), torch.linspace(*ends, steps), 1e-6)
    same(tg.linspace(*ends, steps, dtype="float64"), torch.linspace(*ends, steps, dtype=torch.float64), 1e-12)
    x = tg.linspace(*ends, steps)
    if steps > 1:
        assert (x[0].item(), x[-1].item()) == ends


def test_linspace_of_fewer_than_no_steps_is_refused():
    with pytest.raises(ValueError, match="steps ≥ 0, got -1"):
        tg.linspace(0, 1, -1)


@pytest.mark.parametrize("n, m", [(3, None), (2, 4), (4, 2), (0, None), (0, 3)])
def test_eye_agrees_with_pytorch(n, m):
    same(tg.eye(n, m), torch.eye(n) if m is None else torch.eye(n, m))
    same(tg.eye(n, m, dtype="int64"), torch.eye(n, n if m is None else m, dtype=torch.int64))


def test_unknown_arguments_and_devices_are_named():
    for make in (tg.zeros, tg.ones, tg.arange, tg.eye):
        with pytest.raises(TypeError, match="pin_memory"):
            make(2, pin_memory=True)
    with pytest.raises(ValueError, match='device: expected "cpu", "cuda" or "cuda:N", got \'gpu\''):
        tg.zeros(2, device="gpu")


MAKERS = [
    lambda d: tg.tensor([1.0], device=d),
    lambda d: tg.as_tensor(np.ones(2), device=d),
    lambda d: tg.zeros(2, device=d),
    lambda d: tg.ones(2, device=d),
    lambda d: tg.full((2,), 1.0, device=d),
    lambda d: tg.arange(3, device=d),
    lambda d: tg.linspace(0, 1, 3, device=d),
    lambda d: tg.eye(2, device=d),
    lambda d: tg.zeros_like(tg.ones(2), device=d),
    lambda d: tg.rand(2, device=d),
    lambda d: tg.randn(2, device=d),
    lambda d: tg.randint(0, 3, (2,), device=d),
    lambda d: tg.randperm(3, device=d),
    lambda d: tg.Generator(0, device=d),
]


@pytest.mark.parametrize("make", MAKERS)
def test_every_maker_takes_a_device(make):
    assert make("cpu").device == "cpu"
    if tg.backend.cupy_problem() is None:
        pytest.skip("a GPU can be used here")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(tg.DeviceError, match=f'device "{name}" was asked for, but CuPy'):
            make(name)

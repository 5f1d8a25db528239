"""Devices, dtypes and array libraries, with a toy library on a device of its own."""

import contextlib
import sys
import threading
import types

import numpy as np
import pytest

import tinygen as tg
from tinygen import backend

pytestmark = pytest.mark.cpu_only("brings devices of its own")

# ------------------------------------------------------------------------------ a library that is not NumPy


class Far:
    """An array on a device of its own. It computes with its like and with numbers, never with NumPy's arrays."""

    def __init__(self, array, base=None):
        self.array = np.asarray(array)
        self.base = base
        self.device = types.SimpleNamespace(id=0)

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)
    dtype = property(lambda self: self.array.dtype)
    size = property(lambda self: self.array.size)

    def get(self):
        return self.array.copy()

    def astype(self, dtype):
        return Far(self.array.astype(dtype))

    def copy(self, order="C"):
        return Far(self.array.copy(order))

    def reshape(self, *shape):
        return Far(self.array.reshape(*shape), self)

    def item(self):
        return self.array.item()

    def sum(self, **options):
        return Far(self.array.sum(**options))

    def __neg__(self):
        return Far(-self.array)

    def __setitem__(self, index, value):
        self.array[near(index)] = near(value)

    def __getitem__(self, index):
        return Far(self.array[near(index)], self)

    def __array__(self, *args, **kwargs):
        raise TypeError("a far array does not come near by itself")


def near(value):
    """The NumPy array inside; an array that is NumPy's already is an error, as it is in CuPy."""
    if isinstance(value, np.ndarray):
        raise TypeError("unsupported type numpy.ndarray")
    if isinstance(value, tuple):
        return tuple(near(v) for v in value)
    return value.array if isinstance(value, Far) else value


def operator(name):
    def call(self, other):
        return Far(getattr(self.array, name)(near(other)))

    return call


for _name in "add radd sub rsub mul rmul truediv rtruediv pow rpow gt ge lt le eq ne matmul iadd".split():
    setattr(Far, f"__{_name}__", operator(f"__{_name}__"))
Far.__hash__ = object.__hash__
Far.__array_ufunc__ = None


class far:
    """The toy's module."""

    cuda = types.SimpleNamespace(
        Device=lambda index: contextlib.nullcontext(), runtime=types.SimpleNamespace(getDeviceCount=lambda: 1)
    )

    @staticmethod
    def asarray(array, dtype=None):
        return array if isinstance(array, Far) else Far(np.array(array, dtype=dtype))

    def __getattr__(self, name):
        return lambda *args, **kwargs: Far(getattr(np, name)(*(near(a) for a in args), **kwargs))

    def broadcast_to(self, array, shape):
        return Far(np.broadcast_to(near(array), shape), array)

    def full(self, shape, value, dtype):
        return Far(np.full(shape, value, dtype))


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(backend, "_libraries", dict(backend._libraries))
    module = far()
    backend.register_library(Far, module, "cuda")
    return module


def test_a_registered_library_computes_with_its_own_arrays(toy):
    x = tg.Tensor(Far([1.0, 2.0]), requires_grad=True)
    assert backend.array_module(x.data) is toy and backend.is_array(x.data)
    assert x.device == "cuda:0" and x.device.type == "cuda" and x.device.index == 0
    y = (tg.exp(x) * 2 - x / 3 + x**2).sum()
    assert isinstance(y.data, Far) and y.device == "cuda:0"
    y.backward()
    a = np.array([1.0, 2.0])
    assert isinstance(x.grad.data, Far) and x.grad.device == "cuda:0"
    np.testing.assert_allclose(x.grad.data.array, 2 * np.exp(a) - 1 / 3 + 2 * a)
    (g,) = tg.grad((x * x * x).sum(), x, create_graph=True)
    (h,) = tg.grad((g * g).sum(), x)
    np.testing.assert_allclose(h.data.array, 36 * a**3)


def test_moving_there_and_back(toy):
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    there = x.to("cuda")
    assert isinstance(there.data, Far) and there.to("cuda:0") is there and there.to("cuda") is there
    assert there.numpy is not None and there.detach().numpy().tolist() == [1, 2]
    back = (there * 3).to("cpu")
    assert back.device == "cpu" and type(back.data) is np.ndarray
    back.sum().backward()
    assert type(x.grad.data) is np.ndarray and x.grad.tolist() == [3, 3]
    assert backend.to_numpy(there.data).tolist() == [1, 2]
    with pytest.raises(TypeError, match="does not become a NumPy array by itself.*x.numpy"):
        np.asarray(there.detach())
    assert "device='cuda:0'" in repr(there)


def test_a_default_device_is_where_tensors_are_made(toy):
    tg.set_default_device("cuda")
    try:
        assert tg.get_default_device() == "cuda"
        for x in (tg.tensor([1.0]), tg.tensor(np.ones(2)), tg.zeros(2), tg.full((2,), 1.0), tg.ones_like(tg.zeros(1))):
            assert x.device == "cuda:0"
        assert tg.as_tensor([1.0]).device == tg.as_tensor(np.ones(2)).device == "cuda:0"
        assert tg.as_tensor(np.ones(2), device="cpu").device == tg.from_numpy(np.ones(2)).device == "cpu"
        assert tg.zeros(2, device="cpu").device == "cpu"
    finally:
        tg.set_default_device("cpu")
    assert tg.zeros(2).device == "cpu"


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: a + b,
        lambda a, b: b * a,
        lambda a, b: tg.maximum(a, b),
        lambda a, b: tg.where(a > 0, a, b),
        lambda a, b: a.reshape(1, 2) @ b.reshape(2, 1),
        lambda a, b: tg.cat([a, b]),
        lambda a, b: tg.stack([b, a]),
        lambda a, b: tg.einsum("i,i->", a, b),
        lambda a, b: a == b,
    ],
)
def test_arrays_on_two_devices_do_not_meet(toy, call):
    a, b = tg.tensor([1.0, 2.0]), tg.Tensor(Far(np.ones(2, "float32")))
    with pytest.raises(tg.DeviceError, match=r" on c.* on c.*different devices, cpu and cuda:0; move one with x"):
        call(a, b)


def test_writes_and_seeds_from_another_device_are_refused(toy):
    a, b = tg.tensor([1.0, 2.0]), tg.Tensor(Far(np.ones(2, "float32")))
    for write in (lambda: a.copy_(b), lambda: b.copy_(a), lambda: a.__setitem__(slice(None), b)):
        with pytest.raises(tg.DeviceError, match="lives on .*, the value on .*; move one with x.to"):
            write()
    a.requires_grad_()
    with pytest.raises(tg.DeviceError, match="the gradient lives on cuda:0, the tensor on cpu"):
        (a * 2).backward(b)


def test_subclasses_belong_to_their_parents_library(toy):
    class Farther(Far):
        pass

    assert backend.array_module(Farther([1.0])) is toy
    assert backend.array_module(np.memmap.__new__(np.memmap, __file__, mode="r", shape=(4,))) is np
    assert backend.array_module(np.ma.array([1.0])) is np


# -------------------------------------------------------------------------------------------- no GPU here


def test_arrays_of_no_library_are_named():
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array, got builtins.list; wrap .* tg.tensor"):
        backend.array_module([1.0])
    assert not backend.is_array([1.0]) and not backend.is_array(np.float64(1)) and backend.is_array(np.ones(1))
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array"):
        backend.device_of(2.0)


@pytest.fixture
def no_cupy(monkeypatch):
    monkeypatch.setattr(backend, "_libraries", {np.ndarray: (np, "cpu")})
    find = backend.importlib.util.find_spec
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None if name == "cupy" else find(name))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: tg.tensor([1.0], device="cuda"),
        lambda: tg.ones(2).to("cuda"),
        lambda: tg.ones(2).to("cuda:0"),
        lambda: tg.zeros(2, device="cuda:1"),
        lambda: tg.set_default_device("cuda"),
        lambda: tg.Generator(0, device="cuda"),
        lambda: backend.module_for("cuda"),
    ],
)
def test_without_cupy_the_error_says_how_to_install_it(no_cupy, ask):
    with pytest.raises(tg.DeviceError, match=r'was asked for, but CuPy is not installed.*pip install "tinygen\[cuda'):
        ask()
    assert tg.get_default_device() == "cpu"


@pytest.mark.parametrize(
    "count, message",
    [(lambda: 0, "no GPU was found"), (lambda: 1 / 0, "no GPU can be used: division by zero")],
)
def test_with_cupy_and_no_gpu_the_error_says_so(monkeypatch, count, message):
    cupy = types.ModuleType("cupy")
    cupy.__spec__ = types.SimpleNamespace(name="cupy")
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=count))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(backend, "_libraries", {np.ndarray: (np, "cpu")})
    assert message in backend.cupy_problem()
    with pytest.raises(tg.DeviceError, match=message):
        tg.zeros(2, device="cuda")


def test_cupy_arrays_are_known_by_their_type_before_anybody_asked_for_a_gpu(monkeypatch):
    cupy = types.ModuleType("cupy")
    cupy.ndarray = type("ndarray", (), {"__module__": "cupy._core.core", "device": types.SimpleNamespace(id=2)})
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(backend, "_libraries", {np.ndarray: (np, "cpu")})
    array = cupy.ndarray()
    assert backend.array_module(array) is cupy and backend.device_of(array) == "cuda:2"


# ------------------------------------------------------------------------------------ devices and dtypes


def test_devices_are_strings_with_two_parts():
    assert tg.device("cpu") == "cpu" and tg.device() == "cpu" and tg.device("cpu:0") == "cpu"
    assert (tg.device("cuda").type, tg.device("cuda").index) == ("cuda", None)
    assert (tg.device("cuda:1").type, tg.device("cuda:1").index) == ("cuda", 1)
    assert tg.device("cuda", 3) == "cuda:3" and tg.device(tg.device("cuda:2")) == "cuda:2"
    assert isinstance(tg.ones(1).device, tg.device) and tg.ones(1).device.index is None


@pytest.mark.parametrize("wrong", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1:2", "cuda:²", "CPU", None, 0])
def test_names_that_are_no_devices_are_refused(wrong):
    with pytest.raises(ValueError, match='device: expected "cpu", "cuda" or "cuda:N"'):
        tg.device(wrong)


def test_dtypes_are_read_in_every_spelling():
    assert backend.as_dtype("float64") == tg.float64 and backend.as_dtype(np.float16) == tg.float16
    assert backend.as_dtype(float) == tg.float32 and backend.as_dtype(int) == tg.int64
    assert backend.as_dtype(bool) == tg.bool == np.dtype(bool)
    for wrong in (None, "text", "U5", object, str, 3):
        with pytest.raises(TypeError, match="expected a (numeric )?dtype such as tg.float32"):
            backend.as_dtype(wrong)


def test_the_default_dtype_is_floating_and_holds_in_every_thread():
    seen = []
    tg.set_default_dtype(tg.float64)
    try:
        thread = threading.Thread(target=lambda: seen.append(tg.tensor(1.0).dtype))
        thread.start()
        thread.join()
        assert seen == [tg.float64] == [tg.get_default_dtype()] and tg.tensor(2.0).dtype == tg.float64
        assert tg.zeros(1).dtype == tg.tensor([1]).to(float).dtype == tg.exp(tg.tensor(1)).dtype == tg.float64
    finally:
        tg.set_default_dtype("float32")
    for wrong in ("int64", "bool", None, "complex64"):
        with pytest.raises(TypeError):
            tg.set_default_dtype(wrong)
    assert tg.get_default_dtype() == tg.float32


def test_moving_to_where_it_is_changes_nothing():
    a = np.ones(2)
    assert backend.move(a, "cpu") is a and backend.to_numpy(a) is a

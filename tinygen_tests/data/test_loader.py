"""DataLoader: every example once an epoch, and a resumed loader that cannot be told from one never stopped."""

import gc
import json
import subprocess
import sys
import weakref
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen import backend
from tinygen.creation import tensor
from tinygen.data.dataset import Dataset
from tinygen.data.digits import digits
from tinygen.data.loader import DataLoader, epoch_order
from tinygen.random import Generator
from tinygen.tensor import Tensor
from tinygen.testing import count_syncs, strict_cupy


def numbers(n):
    return np.arange(n, dtype=np.float32)


def drawn(batches):
    """The numbers of some batches, as tuples that can be compared."""
    return [tuple(batch.tolist()) for batch in batches]


settings = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 12),
        "shuffle": st.booleans(),
        "drop_last": st.booleans(),
    }
)


def build(n, batch_size, shuffle, drop_last, seed=0):
    drop_last = drop_last and batch_size <= n
    return DataLoader(numbers(n), batch_size, shuffle, drop_last, rng=Generator(seed))


@given(n=st.integers(1, 40), how=settings)
def test_every_example_once_an_epoch(n, how):
    loader = build(n, **how)
    for _ in range(3):
        batches = drawn(loader)
        assert len(batches) == len(loader)
        got = [v for batch in batches for v in batch]
        b = loader.batch_size
        assert all(len(batch) == b for batch in batches[:-1])
        assert len(got) == (n // b * b if loader.drop_last else n)
        assert len(set(got)) == len(got) and set(got) <= set(range(n))
        if not how["shuffle"]:
            assert got == sorted(got)


@given(n=st.integers(1, 30), how=settings, stop=st.integers(0, 40), data=st.data())
def test_resume_at_any_point_equals_uninterrupted(n, how, stop, data):
    first = build(n, **how)
    stream = first.forever()
    before = drawn(islice(stream, stop))
    state = json.loads(json.dumps(first.state_dict()))
    expected = drawn(islice(stream, 25))

    again = build(n, **how, seed=99)  # its own seed must not matter
    drawn(islice(again.forever(), data.draw(st.integers(0, 5))))
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert drawn(islice(again.forever(), 25)) == expected
    assert drawn(islice(build(n, **how).forever(), stop + 25)) == before + expected


@given(n=st.integers(1, 30), how=settings, stop=st.integers(0, 20))
def test_resume_inside_a_for_loop_gives_the_rest_of_the_epoch_and_then_the_next(n, how, stop):
    first = build(n, **how)
    epochs = [drawn(first) for _ in range(3)]

    second = build(n, **how)
    state, seen = second.state_dict(), 0
    for i, _ in enumerate(second):
        if i >= stop:
            break
        state, seen = second.state_dict(), i + 1

    third = build(n, **how, seed=99)
    third.load_state_dict(state)
    assert drawn(third) == epochs[0][seen:]
    assert third.epoch == 1
    assert drawn(third) == epochs[1]
    assert drawn(third) == epochs[2]


def test_a_state_saved_between_epochs_starts_the_next_one():
    first = build(10, 3, True, False)
    epochs = [drawn(first) for _ in range(2)]
    second = build(10, 3, True, False)
    drawn(second)
    assert (second.epoch, second.state_dict()["position"]) == (1, 0)
    third = build(10, 3, True, False, seed=7)
    third.load_state_dict(second.state_dict())
    assert drawn(third) == epochs[1]


def test_resume_in_another_process():
    script = """
import json, sys
from itertools import islice
import numpy as np
from tinygen.data.loader import DataLoader
from tinygen.random import Generator
loader = DataLoader(np.arange(23, dtype=np.float32), 4, shuffle=True, rng=Generator(5))
loader.load_state_dict(json.loads(sys.argv[1]))
print(json.dumps([b.tolist() for b in islice(loader.forever(), 12)]))
"""
    loader = DataLoader(numbers(23), 4, shuffle=True, rng=Generator(0))
    stream = loader.forever()
    drawn(islice(stream, 9))
    state = json.dumps(loader.state_dict())
    out = subprocess.run([sys.executable, "-c", script, state], capture_output=True, text=True, check=True).stdout
    assert [tuple(b) for b in json.loads(out)] == drawn(islice(stream, 12))


def test_orders_differ_between_epochs_and_seeds_and_not_otherwise():
    orders = [drawn(build(50, 50, True, False, seed=0))[0] for _ in range(2)]
    assert orders[0] == orders[1]
    assert orders[0] != drawn(build(50, 50, True, False, seed=1))[0]
    loader = build(50, 50, True, False)
    a, b = drawn(loader)[0], drawn(loader)[0]
    assert a != b != tuple(range(50))


def test_other_users_of_the_generator_change_nothing():
    rng = Generator(0)
    loader = DataLoader(numbers(20), 5, shuffle=True, rng=rng)
    first = []
    for batch in loader:
        rng.standard_normal((7,), "float32")
        first.append(batch)
    assert drawn(first) == drawn(build(20, 5, True, False))
    before = json.dumps(rng.state_dict(), default=int)
    DataLoader(numbers(20), 5, rng=rng)  # without shuffle nothing is drawn
    assert json.dumps(rng.state_dict(), default=int) == before


def test_the_order_is_pinned():
    """A checkpoint of today must give the same batches to every later version."""
    np.testing.assert_array_equal(epoch_order(0, 0, 10), [3, 2, 1, 8, 6, 0, 7, 4, 5, 9])
    np.testing.assert_array_equal(epoch_order(2**63 - 2, 41, 10), [7, 5, 0, 2, 8, 6, 1, 3, 4, 9])


def test_the_order_is_uniform():
    """Every one of the 24 orders of 4 examples about equally often: χ² with 23 degrees of freedom."""
    counts = {}
    for epoch in range(4800):
        order = tuple(epoch_order(1, epoch, 4))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    χ2 = sum((c - 200) ** 2 / 200 for c in counts.values())
    assert χ2 < 23 + 5 * (2 * 23) ** 0.5


# --------------------------------------------------------------------------------------- what is loaded


def test_datasets_arrays_tensors_and_tuples():
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6)
    for data in (Dataset(x, y), (x, y), (Tensor(x), Tensor(y)), (Tensor(x), y)):
        (bx, by), *_ = DataLoader(data, 4)
        assert isinstance(bx, Tensor) and bx.dtype == np.float32 and by.dtype == np.int64
        np.testing.assert_array_equal(bx.numpy(), x[:4])
        np.testing.assert_array_equal(by.numpy(), y[:4])
    for data in (Dataset(x), x, Tensor(x), x.astype(np.float64), np.asfortranarray(x), x[::-1][::-1]):
        first, last = DataLoader(data, 4)
        assert isinstance(first, Tensor) and not first.requires_grad
        np.testing.assert_array_equal(last.numpy(), x[4:])
    (only,), *_ = DataLoader((x,), 4)
    np.testing.assert_array_equal(only.numpy(), x[:4])
    three, *_ = DataLoader((x, y, x), 2, shuffle=True, rng=Generator(0))
    np.testing.assert_array_equal(three[0].numpy(), three[2].numpy())
    np.testing.assert_array_equal(three[0].numpy()[:, 0], 2 * three[1].numpy())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8, bool])
def test_the_dtype_is_kept(dtype):
    for shuffle in (False, True):
        (batch,) = DataLoader(np.ones(3, dtype), 3, shuffle=shuffle)
        assert batch.dtype == dtype


@pytest.mark.parametrize("shuffle", [False, True])
def test_writing_to_a_batch_leaves_the_data_alone(shuffle):
    x = numbers(6)
    (batch,) = DataLoader(x, 6, shuffle=shuffle, rng=Generator(0))
    batch.data[:] = -1
    np.testing.assert_array_equal(x, numbers(6))


def test_shuffled_labels_stay_with_their_images():
    d = digits()
    for x, y in DataLoader(d, 256, shuffle=True, rng=Generator(0)):
        rows = {a.tobytes(): int(b) for a, b in zip(x.numpy(), y.numpy())}
        break
    everything = {a.tobytes(): int(b) for a, b in zip(d.x, d.y)}
    assert all(everything[a] == b for a, b in rows.items())


def test_device_cpu_and_a_device_that_is_not_there():
    (batch,) = DataLoader(numbers(3), 3, device="cpu")
    assert batch.device == "cpu"
    with pytest.raises(ValueError, match="tpu"):
        DataLoader(numbers(3), 3, device="tpu")


class FakeGpuArray(np.ndarray):
    """A NumPy array that claims to live on a GPU: enough to see which way the loader takes."""

    @property
    def device(self):
        return SimpleNamespace(id=0)

    def get(self):
        return np.asarray(self)


@pytest.fixture
def fake_gpu(monkeypatch):
    """Make "cuda" a device of fake arrays; gives the function that puts an array there."""

    def asarray(array):
        return np.asarray(array).view(FakeGpuArray)

    monkeypatch.setitem(backend._libraries, FakeGpuArray, (SimpleNamespace(asarray=asarray), "cuda"))
    return asarray


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_stay_where_the_data_is_or_go_where_they_are_sent(fake_gpu, shuffle):
    x, y = numbers(6), np.arange(6)
    on_gpu = (fake_gpu(x), fake_gpu(y))
    for data, device, expected in [((x, y), "cuda", "cuda:0"), (on_gpu, None, "cuda:0"), (on_gpu, "cuda", "cuda:0"),
                                   (on_gpu, "cpu", "cpu"), ((x, y), None, "cpu")]:  # fmt: skip
        for bx, by in DataLoader(data, 4, shuffle, rng=Generator(0), device=device, prefetch=False):
            assert bx.device == by.device == expected
            np.testing.assert_array_equal(np.asarray(bx.data), np.asarray(by.data))
    with pytest.raises(ValueError, match=r"all arrays must be on one device, got \['cpu', 'cuda:0'\]"):
        DataLoader((x, on_gpu[1]), 2)


def test_a_gpu_that_is_not_there():
    if backend.cupy_problem() is None:
        pytest.skip("there is a GPU")
    with pytest.raises(backend.DeviceError, match="CuPy"):
        DataLoader(numbers(3), device="cuda")


# ---------------------------------------------------------------------------------- loops, left and nested


def test_a_loop_left_early_starts_the_next_epoch_next_time():
    epochs = build(12, 5, True, False)
    expected = [drawn(epochs) for _ in range(2)]
    loader = build(12, 5, True, False)
    assert drawn([next(iter(loader))]) == expected[0][:1]
    assert drawn(loader) == expected[1]
    assert loader.epoch == 2


def test_forever_goes_on_where_the_loader_stands():
    expected = drawn(islice(build(12, 5, True, False).forever(), 8))
    loader = build(12, 5, True, False)
    assert drawn(islice(loader.forever(), 4)) + drawn(islice(loader.forever(), 4)) == expected


def test_two_passes_at_once():
    expected = build(12, 5, True, False)
    one, two = drawn(expected), drawn(expected)
    loader = build(12, 5, True, False)
    pairs = list(zip(loader, loader))
    assert drawn(a for a, _ in pairs) == drawn(b for _, b in pairs) == one

    loader = build(12, 5, True, False)
    outer = iter(loader)
    got = drawn([next(outer)])
    assert drawn(loader) == two  # the inner pass is the next epoch
    assert got + drawn(outer) == one  # and the outer one goes on undisturbed
    assert loader.epoch == 2  # the state is the newest pass's


def test_loading_a_state_does_not_disturb_a_pass_under_way():
    loader = build(12, 5, True, False)
    start = loader.state_dict()
    expected = drawn(islice(build(12, 5, True, False).forever(), 6))
    stream = loader.forever()
    got = drawn(islice(stream, 4))
    loader.load_state_dict(start)
    assert got + drawn(islice(stream, 2)) == expected
    assert loader.state_dict() == start


def test_a_loader_dies_without_the_garbage_collector():
    gc.disable()
    try:
        loader = build(12, 5, True, False)
        stream = loader.forever()
        next(stream)
        loader.load_state_dict(loader.state_dict())
        alive = weakref.ref(loader)
        del loader, stream
        assert alive() is None
    finally:
        gc.enable()


def test_repr():
    assert repr(build(12, 5, True, False)) == "DataLoader(12 examples, 3 batches of 5, shuffle=True, epoch 0)"


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    "data, error, message",
    [
        ([1.0, 2.0], TypeError, "got a list; turn lists into arrays"),
        ((numbers(2), [1, 2]), TypeError, "got a list"),
        ((numbers(2), None), TypeError, "got a NoneType"),
        (np.array(["a"]), TypeError, "must hold numbers, got an array of <U1"),
        (np.float32(1) + np.zeros(()), TypeError, "got a float64"),
        (np.zeros(()), ValueError, r"first axis that counts examples"),
        ((), ValueError, "empty tuple"),
        (np.zeros((0, 3)), ValueError, r"nothing to load: the data holds 0 examples, shapes \[\(0, 3\)\]"),
        ((np.zeros((3, 2)), np.zeros(4)), ValueError, r"equally many examples.*\[\(3, 2\), \(4,\)\]"),
        (Tensor(numbers(3), requires_grad=True), TypeError, r"requires grad.*x.detach\(\)"),
    ],
)
def test_data_that_cannot_be_loaded(data, error, message):
    with pytest.raises(error, match=message):
        DataLoader(data, 2)


@pytest.mark.parametrize(
    "batch_size, error",
    [(0, ValueError), (-3, ValueError), (2.0, TypeError), (True, TypeError), (None, TypeError), ("8", TypeError)],
)
def test_bad_batch_sizes(batch_size, error):
    with pytest.raises(error, match="batch_size must be"):
        DataLoader(numbers(10), batch_size)


def test_drop_last_must_leave_something():
    with pytest.raises(ValueError, match="batch_size=11 with drop_last=True leaves no batch of 10 examples"):
        DataLoader(numbers(10), 11, drop_last=True)
    assert len(DataLoader(numbers(10), 11)) == 1
    assert len(DataLoader(numbers(10), np.int64(10), drop_last=True)) == 1


def test_rng_must_be_a_generator():
    with pytest.raises(TypeError, match="tg.Generator"):
        DataLoader(numbers(3), shuffle=True, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"size": 11}, ValueError, "size=11, this one has size=10; build the loader with the same data"),
        ({"batch_size": 4}, ValueError, "batch_size=4"),
        ({"shuffle": False}, ValueError, "shuffle=False"),
        ({"drop_last": True}, ValueError, "drop_last=True"),
        ({"epoch": -1}, ValueError, "epoch=-1"),
        ({"position": 5}, ValueError, r"position 0\.\.4.*position=5"),
        ({"position": -1}, ValueError, "position=-1"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"epoch": None}, KeyError, "no state of a DataLoader: epoch missing"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, error, message):
    loader = DataLoader(numbers(10), 3, shuffle=True, rng=Generator(0))
    drawn(islice(loader.forever(), 2))
    before = loader.state_dict()
    state = {**before, **change}
    state = {k: v for k, v in state.items() if v is not None}
    with pytest.raises(error, match=message):
        loader.load_state_dict(state)
    assert loader.state_dict() == before


@pytest.mark.cpu_only("brings the stand-in itself")
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_that_travel_ahead_are_the_same_batches(shuffle):
    """Data on the CPU, batches on a GPU: with and without prefetch, resumed in the middle, and nobody waits."""
    x, y = np.arange(42, dtype=np.float32).reshape(7, 3, 2), np.arange(7)
    with strict_cupy(), count_syncs() as syncs:
        loaders = [
            DataLoader((x, y), 3, shuffle, rng=Generator(5), device="cuda", prefetch=ahead) for ahead in (True, False)
        ]
        assert loaders[0]._ahead is not None and loaders[1]._ahead is None
        seen = [[batch for _ in range(2) for batch in loader] for loader in loaders]
        assert syncs.count == 0, syncs
        resumed = DataLoader((x, y), 3, shuffle, rng=Generator(6), device="cuda")
        middle = DataLoader((x, y), 3, shuffle, rng=Generator(5), device="cuda")
        next(iter(middle))
        resumed.load_state_dict(middle.state_dict())
        seen.append([seen[0][0], *resumed, *seen[0][3:]])
        for batches in zip(*seen, strict=True):
            assert all(b.device == "cuda:0" for pair in batches for b in pair)
            for a, b in zip(*[[t.to("cpu").numpy() for t in pair] for pair in (batches[0], batches[1])]):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.dtype
            np.testing.assert_array_equal(*[pair[0].to("cpu").numpy() for pair in (batches[0], batches[2])])
        assert not any(np.shares_memory(t.data._raw, x) for t, _ in seen[0])
        on_gpu = DataLoader(tensor(x, device="cuda"), 3, device="cuda")
        assert on_gpu._ahead is None and DataLoader(x, 3)._ahead is None

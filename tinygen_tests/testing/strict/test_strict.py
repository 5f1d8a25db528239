"""tinygen on the stand-in: what works there, and what code that is wrong for CuPy comes to."""

import threading

import numpy as np
import pytest

import tinygen as tg
import tinygen.nn.functional as F
from tinygen import nn, optim
from tinygen.backend import array_module, cupy_problem, module_for, to_numpy
from tinygen.testing import count_syncs, strict_cupy
from tinygen_tests.judge import unseen

pytestmark = pytest.mark.cpu_only("brings the stand-in itself")
NO_GPU = cupy_problem() is not None


@pytest.fixture(autouse=True)
def cp():
    with strict_cupy(default=True) as module:
        yield module


# ------------------------------------------------------------------------------------- the block of code


def test_tensors_live_on_it():
    for x in (tg.ones(2, 3), tg.tensor([[1, 2, 3], [4, 5, 6]]), tg.randn(2, 3), tg.tensor(np.ones((2, 3)))):
        assert x.device == "cuda:0" and isinstance(x.data, module_for("cuda").ndarray)
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], device="cpu")
    y = x.to("cuda")
    assert x.device == "cpu" and y.device == "cuda:0" and y.to("cuda:0") is y and y.to("cuda") is y
    np.testing.assert_array_equal((y @ y).to("cpu").numpy(), x.numpy() @ x.numpy())
    np.testing.assert_array_equal((y @ y).numpy(), x.numpy() @ x.numpy())
    with pytest.raises(tg.DeviceError, match="different devices, cpu and cuda:0"):
        x + y
    with pytest.raises(TypeError, match="does not become a NumPy array by itself"):
        np.asarray(y)
    assert tg.cuda.is_available() and tg.cuda.device_count() == 1
    tg.cuda.synchronize()


def test_a_device_that_is_not_there(cp):
    for call in (
        lambda: tg.ones(2, device="cpu").to("cuda:1"),
        lambda: tg.ones(2).to("cuda:1"),
        lambda: tg.tensor([1.0], device="cuda:1"),
        lambda: tg.zeros(2, device="cuda:1"),
        lambda: tg.arange(3.0, device="cuda:1"),
        lambda: tg.randn(2, device="cuda:1"),
        lambda: tg.Generator(0, device="cuda:1"),
        lambda: tg.set_default_device("cuda:1"),
        lambda: nn.Linear(2, 3).to("cuda:1"),
    ):
        with pytest.raises(tg.DeviceError, match='device "cuda:1" was asked for, but the last of 1 GPUs is "cuda:0"'):
            call()
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        cp.cuda.Device(1).use()


@pytest.mark.parametrize("make", [tg.zeros, tg.ones, tg.arange, tg.eye, lambda n, **o: tg.linspace(0, 1, n, **o)])
def test_arrays_are_moved_to_the_gpu_that_was_named(make, monkeypatch):
    """A library makes them on the current GPU; the stand-in has one alone, so the move is watched."""
    moved = []
    monkeypatch.setattr(tg.creation, "move", lambda array, name: moved.append(name) or array)
    make(3, device="cuda:0")
    make(3)
    assert moved == ["cuda:0", "cuda"]


def test_blocks_nest(cp):
    tg.set_default_device("cpu")
    with strict_cupy(default=True) as inner:
        assert inner is cp and tg.get_default_device() == "cuda"
    assert tg.get_default_device() == "cpu" and tg.ones(1, device="cuda").device == "cuda:0"


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU here")
def test_after_the_block_the_gpu_is_gone(monkeypatch):
    from tinygen.testing import strict

    x = tg.ones(2)
    kind = type(x.data)
    tg.manual_seed(3)
    libraries = dict(tg.backend._libraries)
    try:
        tg.backend.unregister_library(kind)
        with pytest.raises(tg.DeviceError, match="CuPy"):
            module_for("cuda")
        with pytest.raises(TypeError, match="expected a NumPy or CuPy array"):
            array_module(x.data)
        monkeypatch.setattr(strict, "_depth", [0])
        for place in set(tg.random._defaults) - {"cpu"}:
            del tg.random._defaults[place]
        tg.set_default_device("cpu")
        with strict_cupy(default=True):
            first = tg.randn(3).tolist()
        assert tg.get_default_device() == "cpu" and not tg.cuda.is_available()
        with strict_cupy(), pytest.raises(ZeroDivisionError):
            1 / 0
        assert not tg.cuda.is_available() and set(tg.random._defaults) == {"cpu"}
        with strict_cupy(default=True):
            assert tg.randn(3).tolist() == first  # a new generator, of the same seed
    finally:
        tg.backend._libraries.update(libraries)


def test_all_threads_share_it():
    found = []
    thread = threading.Thread(target=lambda: found.append(tg.ones(2, device="cuda").sum().item()))
    with count_syncs() as syncs:
        thread.start()
        thread.join()
    assert found == [2.0] and syncs.count == 1


def test_generators():
    a, b = tg.Generator(0, device="cuda"), tg.Generator(0, device="cuda")
    assert tg.randn(4, rng=a).tolist() == tg.randn(4, rng=b).tolist() != tg.randn(4, rng=a).tolist()
    assert tg.randn(4, rng=b.manual_seed(0)).tolist() != tg.randn(4, rng=tg.Generator(0)).tolist()
    assert sorted(tg.randperm(9, rng=a).tolist()) == list(range(9))
    assert tg.rand(3, dtype=tg.float16).dtype == tg.randn(3, dtype=tg.float16).dtype == "float16"
    assert 2 <= tg.randint(2, 5, (50,), rng=a).min().item() and tg.rand(3, 2).device == "cuda:0"


def test_a_generator_draws_on_the_gpu_that_was_named(cp, monkeypatch):
    entered = []
    monkeypatch.setattr(cp.cuda.Device, "__enter__", lambda self: entered.append(self.id))
    rng = tg.Generator(0, device="cuda:0")
    rng.standard_normal((2,), "float32"), rng.uniform((2,), "float16"), rng.integers(0, 3, (2,)), rng.permutation(3)
    assert entered == [0] * 5
    tg.Generator(0, device="cuda").uniform((2,), "float32")
    assert entered == [0] * 5


def test_a_generators_state_is_saved_and_goes_on(tmp_path):
    rng = tg.Generator(2**100, device="cuda")
    draws = [lambda g: tg.randn(3, rng=g), lambda g: tg.randperm(5, rng=g), lambda g: tg.randint(0, 9, (4,), rng=g)]
    for draw in draws:
        draw(rng)
        tg.save(rng.state_dict(), tmp_path / "state.npz")
        expected = [draw(rng).tolist() for draw in draws]
        for place in ("cpu", "cuda"):
            twin = tg.Generator(1, device="cuda:0")
            twin.load_state_dict(tg.load(tmp_path / "state.npz", map_location=place))
            assert [draw(twin).tolist() for draw in draws] == expected
            assert twin.initial_seed() == 2**100


def test_states_that_do_not_fit_change_no_generator():
    rng = tg.Generator(3, device="cuda")
    state, before = rng.state_dict(), tg.randn(3, rng=rng).tolist()
    rng.load_state_dict(state)
    cut, numbers = state["state"][:-1], state["state"].astype("float32")
    for wrong, message in [
        (tg.Generator(3).state_dict(), "the state is of cpu, this generator of cuda"),
        ({**state, "state": cut}, r"not a state of XORWOW: expected int8 \(\d+,\), got int8 \(\d+,\)"),
        ({**state, "state": numbers}, "got float32"),
        ({**state, "state": "x"}, "got str"),
        ({**state, "seed": None}, "not a state of XORWOW"),
        ({"seed": 3}, "not a generator's state"),
    ]:
        with pytest.raises(ValueError, match=message):
            rng.load_state_dict(wrong)
    with pytest.raises(ValueError, match="the state is of cuda, this generator of cpu"):
        tg.Generator(3).load_state_dict(state)
    assert tg.randn(3, rng=rng).tolist() == before


def test_cuda_and_cuda_0_are_one_device_with_one_stream():
    """randn(device="cuda") and randn_like, of an x on "cuda:0", once drew the same numbers from two generators."""
    x = tg.randn(4, device="cuda")
    assert tg.randn_like(x).tolist() != x.tolist() != tg.randn(4, device="cuda:0").tolist()
    tg.manual_seed(5)
    first = tg.randn(4, device="cuda:0").tolist()
    tg.manual_seed(5)
    assert tg.randn(4, device="cuda").tolist() == first


# --------------------------------------------------------------------------------- wrong on CuPy, and seen


@tg.op
def by_name(x):
    return np.maximum(x, 0)


@tg.op
def by_host_constant(x):
    return x * np.linspace(0, 1, x.shape[-1])


@tg.op
def by_errstate(x):
    with array_module(x).errstate(all="ignore"):
        return 1 / x


@tg.op
def by_where_argument(x):
    return array_module(x).sum(x, where=x > 0)


@tg.op
def by_asarray(x):
    return array_module(x).exp(np.asarray(x))


@tg.op
def by_table(x):
    y = array_module(x).zeros_like(x)
    y[:] = np.arange(x.size).reshape(x.shape)
    return y


@tg.op
def by_out_of_place_matmul_order(x):
    return array_module(x).add(x, 1, order="K")


WRONG = [
    (by_name, "numpy.maximum was called on an array of the device"),
    (by_host_constant, "Unsupported type <class 'numpy.ndarray'>"),
    (by_errstate, "no attribute 'errstate'"),
    (by_where_argument, "where"),
    (by_asarray, "Implicit conversion to a NumPy array is not allowed"),
    (by_table, "non-scalar numpy.ndarray"),
    (by_out_of_place_matmul_order, "order"),
]


@pytest.mark.parametrize(("f", "message"), WRONG, ids=lambda v: getattr(v, "__name__", ""))
def test_wrong_for_cupy_is_an_error(f, message):
    f(tg.ones(2, 3, device="cpu"))
    with pytest.raises((TypeError, ValueError, AttributeError), match=message):
        f(tg.ones(2, 3))


@tg.op
def scaled_by_the_largest(x):
    largest = float(x.max())
    return x / largest if largest > 0 else x


@tg.op
def nothing_where_all_are_small(x):
    if (abs(x) < 1e-3).all():
        return x * 0
    return x * 1


@tg.op
def mask_written(x):
    y = x.copy()
    y[y < 0] = 0
    return y


@tg.op
def through_a_tensor(x):
    return x * tg.Tensor(x).sum().item()


@tg.op
def through_numpy(x):
    return x * float(to_numpy(x).sum())


def moved_and_back(x):
    return x * x.to("cpu").sum().item()


LOOKING = [scaled_by_the_largest, nothing_where_all_are_small, mask_written, through_a_tensor, through_numpy]


@pytest.mark.parametrize("f", [*LOOKING, moved_and_back], ids=lambda f: f.__name__)
def test_an_op_that_looks_at_contents_is_seen(f):
    x = tg.randn(2, 3)
    with count_syncs() as syncs:
        f(x)
    ((kind, place),) = syncs.events
    assert (kind == "to") == (f is moved_and_back) and (kind == "to" or f"in {f.__name__}" in place)
    with pytest.raises(AssertionError, match="looked at by the host"), unseen():
        f(x)
    with unseen(by="another_file.py"):
        f(x)
    with unseen(moves=True) if f is moved_and_back else pytest.raises(AssertionError), unseen(moves=True):
        f(x)


@tg.op
def put_without_adding(x, index):
    y = array_module(x).zeros(3, x.dtype)
    y[index] = x
    return y


@tg.op
def put_adding(x, index):
    y = array_module(x).zeros(3, x.dtype)
    array_module(x).add.at(y, index, x)
    return y


def test_duplicates_in_an_assignment_show():
    x, index = tg.tensor([1.0, 2.0, 3.0]), tg.tensor([2, 0, 2])
    assert put_adding(x, index).tolist() == [2, 0, 4]
    assert tg.isnan(put_without_adding(x, index)).tolist() == [False, False, True]
    assert put_without_adding(x, tg.tensor([2, 0, 1])).tolist() == [2, 3, 1]


@tg.op
def half_written(x):
    y = array_module(x).empty_like(x)
    y[:-1] = x[1:]
    return y


def test_memory_that_was_not_written_to_shows():
    assert tg.isnan(half_written(tg.ones(3))).tolist() == [False, False, True]


@tg.op
def in_memory_order(x):
    """Takes for granted that x * 1 lies in memory as x does."""
    return (x * 1).ravel("K").reshape(x.T.shape).T


def test_an_order_taken_for_granted_shows():
    x = np.arange(6.0).reshape(3, 2)
    assert in_memory_order(tg.tensor(x, device="cpu").T).tolist() == x.T.tolist()
    assert in_memory_order(tg.tensor(x).T).tolist() != x.T.tolist()


# ---------------------------------------------------------------------------- right on CuPy: whole programs


def _network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1), nn.Upsample(scale_factor=2), nn.InstanceNorm2d(4), nn.GELU(),
        nn.AvgPool2d(2), nn.Dropout(0.3), nn.Flatten(), nn.Linear(4 * 4 * 4, 10), nn.LayerNorm(10),
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.RMSprop, optim.Adam, optim.AdamW])
def test_a_training_step_runs_on_the_gpu_without_waiting_for_it(optimizer):
    net = _network()
    assert {p.device for p in net.parameters()} == {"cuda:0"}
    x, t = tg.rand(6, 1, 8, 8), tg.randint(0, 10, (6,))
    steps = optimizer(net.parameters(), lr=1e-2)
    average = optim.EMA(net, 0.9)
    losses = []
    for _ in range(3):
        with count_syncs() as syncs:
            loss = F.cross_entropy(net(x), t)
            steps.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            steps.step()
            average.update()
        assert syncs.count == 0, syncs
        losses.append(loss.item())
    assert all(np.isfinite(losses)) and losses[-1] != losses[0]


def test_attention_and_embedding_too():
    words, attention = nn.Embedding(11, 8), nn.MultiheadAttention(8, 2, batch_first=True)
    with count_syncs() as syncs:
        h = words(tg.randint(0, 11, (3, 5)))
        y, _ = attention(h, h, h)
        F.mse_loss(y, h.detach()).backward()
    assert syncs.count == 0 and words.weight.grad.device == "cuda:0"


def test_the_gpu_computes_what_the_cpu_computes():
    tg.set_default_device("cpu")
    tg.manual_seed(0)
    net = _network().to(tg.float64).eval()
    x = tg.rand(6, 1, 8, 8, dtype=tg.float64).requires_grad_()
    y = net(x)
    g = tg.randn(6, 10, dtype=tg.float64)
    (expected,) = tg.grad(y, x, g, retain_graph=True)
    again = x.detach().to("cuda").requires_grad_()
    z = net.to("cuda")(again)
    (found,) = tg.grad(z, again, g.to("cuda"))
    np.testing.assert_allclose(z.detach().numpy(), y.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-8, atol=1e-12)


def test_state_goes_there_and_back():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    state = net.state_dict()
    twin = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to("cpu")
    twin.load_state_dict(state)
    net.load_state_dict(twin.state_dict())
    for p, q in zip(net.parameters(), twin.parameters()):
        assert p.device == "cuda:0" and q.device == "cpu" and p.tolist() == q.tolist()


@pytest.mark.parametrize("place", ["cuda", "cpu"])
def test_check_grad_runs_where_the_tensors_live(place):
    seen = []

    def f(x, y):
        seen.append(x.device.type)
        return (x * y).exp().sum(0)

    tg.testing.check_grad(f, tg.randn(2, 3, device=place), tg.randn(3, device=place))
    assert set(seen) == {place}
    tg.testing.check_adjoint(
        lambda x: x.sum(0), lambda y: y.broadcast_to(2, 3), tg.ones(2, 3, device=place), np.ones(3)
    )
    with pytest.raises(tg.testing.GradientError):
        tg.testing.check_grad(_wrong, tg.randn(3, device=place))


@tg.op
def _wrong(x):
    return x * x


@_wrong.vjp("x")
def _(g, x):
    return g * x


def test_check_grad_takes_arrays_to_the_default_device():
    seen = set()
    tg.testing.check_grad(lambda x: seen.add(x.device) or x.exp(), np.ones(2))
    tg.set_default_device("cpu")
    tg.testing.check_grad(lambda x: seen.add(x.device) or x.exp(), np.ones(2))
    assert seen == {"cuda:0", "cpu"}

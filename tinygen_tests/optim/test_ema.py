from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn, optim
from tinygen.serialization import load, save

pytestmark = pytest.mark.cpu_only("about NumPy memory and CPU arrays; test_on_a_gpu.py runs there")


def set_all(parameters, value):
    for p in parameters:
        p.data[...] = value


@pytest.mark.parametrize("d", [0.0, 0.5, 0.99])
def test_of_a_constant_from_zero_is_one_minus_d_to_the_n(d):
    p = nn.Parameter(np.zeros((2, 3)))
    ema = optim.EMA([p], decay=d, warmup=False)
    set_all([p], 1.0)
    for n in range(1, 30):
        ema.update()
        np.testing.assert_allclose(ema.state_dict()["shadow"]["0"].data, 1 - d**n, rtol=1e-12)


def test_warmup_takes_the_smaller_of_d_and_one_plus_n_over_ten_plus_n():
    p = nn.Parameter(np.zeros(1))
    ema = optim.EMA([p], decay=0.6)
    set_all([p], 1.0)
    s = 0.0
    for n in range(30):
        d = min(0.6, (1 + n) / (10 + n))
        s = d * s + (1 - d)
        ema.update()
        np.testing.assert_allclose(ema.state_dict()["shadow"]["0"].data, s, rtol=1e-12)
    assert ema.updates == 30


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(3, 4, rng=tg.Generator(0)), nn.BatchNorm1d(4)).double()


def test_buffers_are_copied_and_parameters_averaged(model):
    ema = optim.EMA(model, decay=0.5, warmup=False)
    before = {name: t.data.copy() for name, t in model.state_dict().items()}
    for p in model.parameters():
        p.data += 1.0
    model(tg.randn(8, 3, rng=tg.Generator(1), dtype="float64"))
    ema.update()
    shadow = ema.state_dict()["shadow"]
    assert set(shadow) == set(before)
    for name, _ in model.named_parameters():
        np.testing.assert_allclose(shadow[name].data, before[name] + 0.5)
    for name, b in model.named_buffers():
        np.testing.assert_array_equal(shadow[name].data, b.data)
        assert not np.array_equal(before[name], b.data)


def test_apply_puts_the_averages_in_and_takes_them_out_again(model):
    ema = optim.EMA(model, decay=0.5, warmup=False)
    for p in model.parameters():
        p.data += 1.0
    ema.update()
    own = {name: t.data.copy() for name, t in model.state_dict().items()}
    arrays = [p.data for p in model.parameters()]
    with ema.apply():
        for name, p in model.named_parameters():
            np.testing.assert_allclose(p.data, own[name] - 0.5)
        with pytest.raises(RuntimeError, match="apply"):
            ema.update()
        with pytest.raises(RuntimeError, match="already"), ema.apply():
            pass
        inside = {name: t.data.copy() for name, t in ema.state_dict()["shadow"].items()}
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(t.data, own[name])
    for name, t in ema.state_dict()["shadow"].items():
        np.testing.assert_array_equal(t.data, inside[name])
    assert all(p.data is array for p, array in zip(model.parameters(), arrays)), "the swap must be in place"
    with pytest.raises(ZeroDivisionError), ema.apply():
        raise ZeroDivisionError
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(t.data, own[name])
    ema.update()


def test_a_graph_recorded_before_the_swap_cannot_be_swept_in_it(model):
    ema = optim.EMA(model)
    loss = model(tg.randn(8, 3, rng=tg.Generator(1), dtype="float64")).sum()
    with ema.apply(), pytest.raises(RuntimeError, match="written to in place"):
        loss.backward()


def test_copy_to(model):
    ema = optim.EMA(model, decay=0.5)
    for p in model.parameters():
        p.data += 1.0
    ema.update()
    twin = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    ema.copy_to(twin)
    for name, t in twin.state_dict().items():
        np.testing.assert_array_equal(t.data, ema.state_dict()["shadow"][name].data)
        assert not np.shares_memory(t.data, ema.state_dict()["shadow"][name].data)
    ema.copy_to()
    for name, t in model.state_dict().items():
        np.testing.assert_array_equal(t.data, ema.state_dict()["shadow"][name].data)
    with pytest.raises(ValueError, match="missing: 1.weight"):
        ema.copy_to(nn.Sequential(nn.Linear(3, 4)).double())
    with pytest.raises(ValueError, match="float32"):
        ema.copy_to(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))


def test_resumed_to_the_bit(model, tmp_path):
    ema = optim.EMA(model)

    def steps(ema, numbers):
        for n in numbers:
            for p in model.parameters():
                p.data[...] = np.random.default_rng(n).standard_normal(p.shape)
            ema.update()

    steps(ema, range(5))
    save(ema.state_dict(), tmp_path / "ema.npz")
    steps(ema, range(5, 9))
    again = optim.EMA(model, decay=0.1, warmup=False)
    again.load_state_dict(load(tmp_path / "ema.npz"))
    steps(again, range(5, 9))
    a, b = ema.state_dict(), again.state_dict()
    assert {k: v for k, v in a.items() if k != "shadow"} == {k: v for k, v in b.items() if k != "shadow"}
    for name in a["shadow"]:
        np.testing.assert_array_equal(a["shadow"][name].data, b["shadow"][name].data)


def test_states_that_do_not_fit_change_nothing(model):
    ema = optim.EMA(model)
    kept = {name: t.data.copy() for name, t in ema.state_dict()["shadow"].items()}
    other = optim.EMA(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).double())
    with pytest.raises(ValueError, match=r"0\.weight: expected float64 \(4, 3\), got float64 \(5, 3\)"):
        ema.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="shadow"):
        ema.load_state_dict({})
    for name, t in ema.state_dict()["shadow"].items():
        np.testing.assert_array_equal(t.data, kept[name])


def test_float32_stays_float32_and_integers_are_copied():
    p, i = nn.Parameter(np.ones(3, "float32")), tg.tensor([1, 2])
    ema = optim.EMA([p, i], decay=0.9)
    i.data += 1
    ema.update()
    shadow = ema.state_dict()["shadow"]
    assert shadow["0"].dtype == "float32"
    np.testing.assert_array_equal(shadow["1"].data, [2, 3])


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match="decay"):
        optim.EMA([nn.Parameter(np.ones(1))], decay=decay)


def test_what_cannot_be_averaged():
    with pytest.raises(ValueError, match="no parameters"):
        optim.EMA([])
    with pytest.raises(TypeError, match="place 0"):
        optim.EMA([np.ones(2)])


def test_dies_without_the_garbage_collector(model):
    gc.collect()
    gc.disable()
    try:
        ema = optim.EMA(model)
        with ema.apply():
            pass
        ref = weakref.ref(ema)
        del ema
        assert ref() is None
    finally:
        gc.enable()

from __future__ import annotations

import copy
import gc
import weakref
from collections import OrderedDict

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn

pytestmark = pytest.mark.cpu_only("about NumPy memory and CPU arrays; test_on_a_gpu.py runs there")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(np.array([2.0, 3.0]))
        self.first = nn.Linear(2, 3, dtype="float64")
        self.register_buffer("seen", tg.tensor(0))
        self.register_buffer("work", tg.zeros(2, dtype="float64"), persistent=False)
        self.register_buffer("nothing", None)
        self.blocks = nn.ModuleList([nn.Linear(3, 3, bias=False, dtype="float64"), nn.Tanh()])
        self.shift = nn.Parameter(np.ones(3))
        self.free = tg.ones(3)

    def forward(self, x):
        y = self.first(x * self.scale) + self.shift
        for block in self.blocks:
            y = block(y)
        return y


@pytest.fixture
def net():
    return Net()


# ---------------------------------------------------------------------------------------------- walking


def test_names_in_pytorchs_order(net):
    own = ["scale", "shift", "first.weight", "first.bias", "blocks.0.weight"]
    assert [name for name, _ in net.named_parameters()] == own
    assert [name for name, _ in net.named_buffers()] == ["seen", "work"]
    assert list(net.state_dict()) == ["scale", "shift", "seen", "first.weight", "first.bias", "blocks.0.weight"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "blocks", "blocks.0", "blocks.1"]
    assert [name for name, _ in net.named_children()] == ["first", "blocks"]
    assert [name for name, _ in net.named_parameters(prefix="net", recurse=False)] == ["net.scale", "net.shift"]
    assert list(net.parameters())[0] is net.scale
    assert list(net.children()) == [net.first, net.blocks]
    assert list(net.buffers()) == [net.seen, net.work]
    assert list(net.first.state_dict(prefix="p.")) == ["p.weight", "p.bias"]
    assert net.get_submodule("blocks.1") is net.blocks[1] and net.get_submodule("") is net
    with pytest.raises(AttributeError, match="'2'"):
        net.get_submodule("blocks.2")


def test_shared_parts_come_once_but_are_saved_under_every_name():
    part = nn.Linear(2, 2)
    net = nn.Sequential(part, part, nn.Linear(2, 2))
    net[2].weight = part.weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.bias"]
    assert len(list(net.named_parameters(remove_duplicate=False))) == 6
    assert len(list(net.modules())) == 3
    assert len(net.state_dict()) == 6
    loss = net(tg.ones(1, 2)).sum()
    loss.backward()
    assert part.weight.grad is net[2].weight.grad is not None


def test_state_dict_shares_its_numbers_and_can_keep_the_parameters(net):
    state = net.state_dict()
    assert not any(t.requires_grad for t in state.values())
    assert all(np.shares_memory(t.data, dict(net.named_parameters())[n].data) for n, t in state.items() if n != "seen")
    assert net.state_dict(keep_vars=True)["scale"] is net.scale
    into = {}
    assert net.state_dict(destination=into, prefix="net.") is into
    assert "net.first.weight" in into


# ------------------------------------------------------------------------------------------- assigning


def test_forgetting_super_init_is_named():
    class Forgot(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"Forgot\.__init__ must call super\(\)\.__init__\(\) .* self\.layer"):
        Forgot()

    class ForgotWithoutParts(nn.Module):
        def __init__(self):
            self.size = 3

    with pytest.raises(AttributeError, match=r"must call super\(\)\.__init__\(\)"):
        ForgotWithoutParts().state_dict()
    with pytest.raises(AttributeError, match=r"must call super\(\)\.__init__\(\)"):
        ForgotWithoutParts().register_buffer("b", tg.ones(1))


def test_a_missing_forward_is_named():
    with pytest.raises(NotImplementedError, match="Module cannot be called: it does not define forward"):
        nn.Module()(1)
    with pytest.raises(NotImplementedError, match="ModuleList .* loop over it"):
        nn.ModuleList([nn.Linear(1, 1)])(tg.ones(1, 1))


def test_an_unknown_attribute_is_an_ordinary_error(net):
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'frist'"):
        net.frist
    assert not hasattr(net, "frist")


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("scale", tg.ones(2), "Parameter"),
        ("scale", np.ones(2), "Parameter"),
        ("first", lambda x: x, "Module"),
        ("first", nn.Parameter(np.ones(1)), "Module"),
        ("seen", 3, "buffer"),
    ],
)
def test_what_cannot_take_the_place(net, name, value, message):
    before = getattr(net, name)
    with pytest.raises(TypeError, match=message):
        setattr(net, name, value)
    assert getattr(net, name) is before


def test_what_can_take_the_place(net):
    net.scale = new = nn.Parameter(np.zeros(2))
    assert next(net.parameters()) is new
    net.scale = None
    assert [name for name, _ in net.named_parameters()][0] == "shift"
    net.seen = tg.tensor(7)
    assert net.state_dict()["seen"].item() == 7
    net.seen = nn.Parameter(np.ones(1))
    assert "seen" in dict(net.named_parameters()) and "seen" not in dict(net.named_buffers())
    net.free = nn.Parameter(np.ones(1))
    assert "free" in dict(net.named_parameters())
    del net.work
    assert list(net.named_buffers()) == []
    net.first = nn.Identity()
    assert "first.weight" not in net.state_dict()


def test_registering_by_name(net):
    net.register_parameter("extra", nn.Parameter(np.ones(1)))
    net.register_parameter("unused", None)
    net.add_module("part", nn.Tanh())
    assert "extra" in net.state_dict() and isinstance(net.part, nn.Tanh)
    for name in ("", "a.b", 3):
        for register in (net.register_parameter, net.add_module, net.register_buffer):
            with pytest.raises(KeyError):
                register(name, None)
    with pytest.raises(KeyError, match="already"):
        net.register_parameter("first", nn.Parameter(np.ones(1)))
    with pytest.raises(KeyError, match="already"):
        net.register_buffer("scale", tg.ones(1))
    with pytest.raises(KeyError, match="already"):
        net.add_module("forward", nn.Tanh())
    with pytest.raises(KeyError, match="dots"):
        setattr(net, "a.b", nn.Tanh())
    with pytest.raises(TypeError, match="Parameter"):
        net.register_parameter("more", tg.ones(1))
    with pytest.raises(TypeError, match="Module"):
        net.add_module("more", tg.ones(1))
    for value in (np.ones(1), nn.Parameter(np.ones(1))):
        with pytest.raises(TypeError, match="Tensor"):
            net.register_buffer("more", value)


# --------------------------------------------------------------------------------------------- loading


def test_loading_copies_in_place_and_marks_as_written(net):
    other = Net()
    arrays = {name: t.data for name, t in net.state_dict().items()}
    loss = net(tg.ones(1, 2, dtype="float64")).sum()
    other.seen = tg.tensor(5)
    found = net.load_state_dict(other.state_dict())
    assert found == ([], []) and found.missing_keys == []
    for name, t in net.state_dict().items():
        np.testing.assert_array_equal(t.data, other.state_dict()[name].data)
        assert t.data is arrays[name]
        assert not np.shares_memory(t.data, other.state_dict()[name].data)
    with pytest.raises(RuntimeError, match="written to in place"):
        loss.backward()


def test_loading_takes_arrays_and_lists_and_keeps_memory_order(net):
    net.first.weight = nn.Parameter(np.asfortranarray(np.zeros((3, 2))))
    state = {name: t.data.copy() for name, t in net.state_dict().items()}
    state["first.weight"] = np.arange(6.0).reshape(3, 2)
    state["scale"] = [5.0, 6.0]
    net.load_state_dict(state)
    np.testing.assert_array_equal(net.first.weight.data, state["first.weight"])
    assert net.first.weight.data.flags.f_contiguous
    np.testing.assert_array_equal(net.scale.data, [5, 6])


def test_every_difference_is_listed_and_nothing_is_written(net):
    state = {name: t.data + 1 for name, t in net.state_dict().items()}
    del state["shift"]
    state["first.weight"] = state["first.weight"].T
    state["first.bias"] = state["first.bias"].astype("float32")
    state["scale"] = object()
    state["surplus"] = tg.ones(4)
    before = {name: t.data.copy() for name, t in net.state_dict().items()}
    with pytest.raises(RuntimeError, match="Net, and nothing was loaded") as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    assert "missing: shift, float64 (3,)" in text
    assert "unexpected: surplus, float32 (4,)" in text
    assert "first.weight: expected float64 (3, 2), got float64 (2, 3)" in text
    assert "first.bias: expected float64 (3,), got float32 (3,)" in text
    assert "scale: cannot be read as an array" in text
    for name, t in net.state_dict().items():
        np.testing.assert_array_equal(t.data, before[name])


def test_loading_what_is_there_without_strict(net):
    found = net.load_state_dict({"scale": np.array([7.0, 8.0]), "surplus": np.ones(1)}, strict=False)
    assert found.unexpected_keys == ["surplus"]
    assert found.missing_keys == ["shift", "seen", "first.weight", "first.bias", "blocks.0.weight"]
    np.testing.assert_array_equal(net.scale.data, [7, 8])
    with pytest.raises(RuntimeError, match="scale"):
        net.load_state_dict({"scale": np.ones(3)}, strict=False)
    with pytest.raises(TypeError, match="state_dict"):
        net.load_state_dict([1])
    with pytest.raises(NotImplementedError, match="assign"):
        net.load_state_dict(net.state_dict(), assign=True)


# ---------------------------------------------------------------------------------- all of it at once


def test_train_and_eval_reach_every_part(net):
    assert net.training and net.blocks[0].training
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())
    with pytest.raises(ValueError, match="True or False"):
        net.train("yes")


def test_apply_goes_from_the_inside_out(net):
    seen = []
    assert net.apply(seen.append) is net
    assert seen == [net.first, net.blocks[0], net.blocks[1], net.blocks, net]


def test_zero_grad_and_requires_grad(net):
    net(tg.ones(2, 2, dtype="float64")).sum().backward()
    kept = net.scale.grad
    values = kept.data.copy()
    net.zero_grad(set_to_none=False)
    assert not net.scale.grad.data.any() and net.scale.grad.shape == (2,)
    np.testing.assert_array_equal(kept.data, values)
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.requires_grad_(False) is net
    assert not net(tg.ones(2, 2, dtype="float64")).requires_grad
    net.requires_grad_()
    assert all(p.requires_grad for p in net.parameters())


def test_to_converts_what_is_floating_and_keeps_the_parameters(net):
    parameters = list(net.parameters())
    net(tg.ones(2, 2, dtype="float64")).sum().backward()
    loss = net(tg.ones(2, 2, dtype="float64")).sum()
    assert net.to(tg.float32) is net
    assert all(p is q for p, q in zip(net.parameters(), parameters))
    assert {p.dtype for p in net.parameters()} == {tg.float32} and net.work.dtype == tg.float32
    assert {p.grad.dtype for p in net.parameters()} == {tg.float32}
    assert net.seen.dtype == tg.int64
    with pytest.raises(RuntimeError, match="written to in place"):
        loss.backward()
    assert net.double().scale.dtype == tg.float64
    assert net.half().scale.dtype == tg.float16
    assert net.float().cpu().scale.dtype == tg.float32
    assert net.to(tg.ones(1, dtype="float64")).scale.dtype == tg.float64
    assert net.to("cpu", tg.float32).scale.dtype == tg.float32
    assert net.to(dtype="float64", device="cpu").scale.dtype == tg.float64
    data = net.scale.data
    net.to("cpu", tg.float64)
    assert net.scale.data is data
    with pytest.raises(TypeError, match="floating"):
        net.to(tg.int64)


def test_to_a_device_that_is_not_there_changes_nothing(net):
    if tg.backend.cupy_problem() is None:
        pytest.skip("there is a GPU here")
    before = [p.data for p in net.parameters()]
    for move in (net.cuda, lambda: net.to("cuda:1"), lambda: net.to(tg.float32, device="cuda")):
        with pytest.raises(tg.DeviceError):
            move()
    assert all(p.data is b for p, b in zip(net.parameters(), before))


def test_deepcopy_has_numbers_of_its_own(net):
    rng = tg.Generator(0)
    net.drop = nn.Dropout(0.5, rng=rng)
    net(tg.ones(2, 2, dtype="float64")).sum().backward()
    twin = copy.deepcopy(net)
    assert list(twin.state_dict()) == list(net.state_dict())
    assert type(twin.scale) is nn.Parameter and twin.scale.requires_grad
    assert twin.scale.grad is None and net.scale.grad is not None
    twin.scale.data[...] = 0
    twin.work.data[...] = 9
    assert net.scale.data.all() and not net.work.data.any()
    assert twin.drop.rng is rng
    shared = nn.Sequential(net.first, net.first)
    twin = copy.deepcopy(shared)
    assert twin[0] is twin[1] and twin[0] is not net.first


def test_dies_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        net = Net()
        y = net(tg.ones(2, 2, dtype="float64"))
        y.sum().backward()
        net.zero_grad()
        dying = [weakref.ref(net), weakref.ref(net.first), weakref.ref(net.scale), weakref.ref(y.data)]
        del net, y
        assert [ref() for ref in dying] == [None] * 4
    finally:
        gc.enable()


def test_repr_is_a_tree(net):
    assert repr(net) == (
        "Net(\n"
        "  (first): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (blocks): ModuleList(\n"
        "    (0): Linear(in_features=3, out_features=3, bias=False)\n"
        "    (1): Tanh()\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Module()) == "Module()"


# ------------------------------------------------------------------------------------------- parameter


def test_a_parameter_copies_its_numbers():
    array = np.asfortranarray(np.ones((2, 3)))
    p = nn.Parameter(array)
    p.data[...] = 5
    assert (array == 1).all() and p.data.flags.f_contiguous
    assert p.is_leaf and p.requires_grad and p.dtype == "float64"
    q = nn.Parameter(p, requires_grad=False)
    assert not q.requires_grad and not np.shares_memory(p.data, q.data)
    readonly = nn.Parameter(np.broadcast_to(np.ones(1, "float32"), (3,)))
    readonly.data[...] = 2
    assert repr(nn.Parameter(np.array([1.0], "float32"))) == ("Parameter containing:\ntensor([1.], requires_grad=True)")
    assert isinstance(copy.deepcopy(q), nn.Parameter) and not copy.deepcopy(q).requires_grad


def test_what_cannot_be_a_parameter():
    with pytest.raises(TypeError, match="list"):
        nn.Parameter([1.0])
    with pytest.raises(TypeError, match="floating"):
        nn.Parameter(np.array([1, 2]))
    assert nn.Parameter(np.array([1, 2]), requires_grad=False).dtype == "int64"


def test_ordered_dicts_are_dicts():
    net = nn.Sequential(OrderedDict(a=nn.Linear(1, 2), b=nn.Tanh()))
    assert net.a is net[0] and list(net.state_dict()) == ["a.weight", "a.bias"]

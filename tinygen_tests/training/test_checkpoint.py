"""Checkpoints: everything comes back, and what does not fit is listed whole and touches nothing."""

import copy
import errno
import os
import warnings

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn
from tinygen.files import remove_temporaries
from tinygen.serialization import CheckpointError, DamagedError, load, save
from tinygen.training import checkpoint as checkpoint_module
from tinygen.training.checkpoint import (
    CheckpointWarning,
    load_checkpoint,
    load_newest,
    previous_path,
    save_checkpoint,
)
from tinygen_tests.draws import stream


class Thing:
    """State in nested dicts, loaded as PyTorch's modules load: strictly."""

    def __init__(self, **state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        if state.get("poison"):
            raise ValueError("poisoned")
        self.state = copy.deepcopy(state)


class Model(Thing):
    pass


class OtherModel(Thing):
    pass


class Optimizer(Thing):
    pass


def model(n=4, **more):
    return Model(**{"0.weight": np.arange(3.0 * n).reshape(3, n), "0.bias": np.zeros(3, "f4")}, **more)


def fresh_adam():
    return Optimizer(state={}, param_groups=[{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1]}])


def stepped_adam():
    return Optimizer(state={0: {"step": 3, "exp_avg": np.full((3, 4), 0.25)}},
                     param_groups=[{"lr": 5e-4, "betas": (0.9, 0.999), "params": [0, 1]}])


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


META = {"model": {"kind": "dense", "sizes": (64, 32, 2)}, "seed": 0, "noise": 0.5}


def test_a_fresh_set_of_objects_gets_everything_back(tmp_path):
    path = tmp_path / "c.npz"
    rng = tg.Generator(7)
    rng._draws.random(3)
    saved = {"model": model(), "optimizer": stepped_adam(), "rng": rng}
    save_checkpoint(path, 12, saved, META)
    expected = rng._draws.random(5)

    new = {"model": Model(**{"0.weight": np.ones((3, 4)), "0.bias": np.ones(3, "f4")}), "optimizer": fresh_adam(),
           "rng": tg.Generator(8)}
    got = load_checkpoint(path, new, META)
    assert got == (12, META, {}) and got.step == 12
    assert same(new["model"].state, saved["model"].state)
    assert same(new["optimizer"].state, saved["optimizer"].state)
    assert np.array_equal(new["rng"]._draws.random(5), expected)


def test_tg_load_reads_the_same_file(tmp_path):
    save_checkpoint(tmp_path / "c.npz", 3, {"model": model()}, META)
    content = load(tmp_path / "c.npz")
    assert content["step"] == 3 and same(content["objects"]["model"], model().state)
    assert content["kinds"] == {"model": "Model"}


def check_refused(path, objects, words, meta=None, **options):
    before = {name: copy.deepcopy(thing.state_dict()) for name, thing in objects.items()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, objects, meta, **options)
    message = str(caught.value)
    assert str(path) in message and "nothing was loaded" in message
    for word in words:
        assert word in message, (word, message)
    assert all(same(thing.state_dict(), before[name]) for name, thing in objects.items())
    return message


def test_every_mismatch_is_listed_at_once_and_nothing_is_touched(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, 12, {"model": model(extra=np.ones(1)), "optimizer": stepped_adam(), "ema": model()}, META)
    here = {
        "model": Model(**{"0.weight": np.ones((3, 5)), "0.bias": np.ones(3, "f8"), "1.weight": np.ones(1)}),
        "optimizer": fresh_adam(), "ema": OtherModel(), "scheduler": Thing(last_epoch=0),
    }
    message = check_refused(path, here, [
        "model: 0.weight has shape (3, 4) in the file, (3, 5) here",
        "model: 0.bias is float32 in the file, float64 here",
        "model: 1.weight is missing from the file",
        "model: extra is only in the file",
        "ema: the file has a Model, here it is a OtherModel",
        "scheduler: not in the file, which holds model, optimizer, ema",
        "configuration: model: sizes is (64, 32, 2) in the file, (64, 32, 3) here",
        "configuration: noise is 0.5 in the file, absent here",
        "configuration: depth is 2 here, absent from the file",
        "steps: the file is at step 12, past the 10 asked for",
    ], {"model": {"kind": "dense", "sizes": (64, 32, 3)}, "seed": 0, "depth": 2}, most_steps=10)
    assert message.count("\n  ") == 10


def test_deep_states_are_compared_too(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, 1, {"o": Thing(groups=[{"lr": 0.1, "avg": np.ones(3)}, {}], name="x", n=1)})
    check_refused(path, {"o": Thing(groups=[{"lr": 0.1, "avg": np.ones(4)}, {}], name="x", n=1)},
                  ["o: groups[0].avg has shape (3,) in the file, (4,) here"])
    check_refused(path, {"o": Thing(groups=[{"lr": "high"}], name="y", n=np.ones(2))},
                  ["o: groups has 2 entries in the file, 1 here", "o: groups[0].lr is a number in the file, a string",
                   "o: groups[0]: avg is only in the file", "o: n is a number in the file, an array here"])
    load_checkpoint(path, {"o": Thing(groups=[{"lr": 7, "avg": np.zeros(3)}, {}], name="another", n=2.5)})


def test_long_lists_of_mismatches_are_whole(tmp_path):
    save_checkpoint(tmp_path / "c.npz", 1, {"model": Model(**{f"p{i}": np.ones(1) for i in range(100)})})
    here = {"model": Model(**{f"p{i}": np.ones(2) for i in range(100)})}
    message = check_refused(tmp_path / "c.npz", here, [f"model: p{i} has shape (1,)" for i in range(100)])
    assert message.count("\n  ") == 100


def network(act=nn.ReLU, **settings):
    """Activations have no numbers: only what the file says of the layers tells these networks apart."""
    model = nn.Sequential(nn.Linear(3, 3, rng=stream(0)), act())
    for name, value in settings.items():
        setattr(model, name, value)
    return model


def test_a_model_of_equal_shapes_and_other_layers_is_another_model(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, 1, {"model": network(target="v", table=np.ones(3), _hidden=1, sizes=(1, 2))})
    configuration = load(path)["configurations"]["model"]
    assert configuration["settings"] == {"": {"target": "v", "sizes": (1, 2)}}
    assert "(0): Linear(in_features=3, out_features=3, bias=True)" in configuration["layers"]
    load_checkpoint(path, {"model": network()})
    with pytest.raises(CheckpointError, match=r"model: the file has \(1\): ReLU\(\), here it is \(1\): SiLU\(\)"):
        load_checkpoint(path, {"model": network(nn.SiLU)})
    with pytest.raises(CheckpointError, match="the file's model prints 4 lines of layers, this one 5"):
        load_checkpoint(path, {"model": nn.Sequential(*network(), nn.ReLU())})


def test_an_address_in_a_repr_is_no_configuration(tmp_path):
    class Odd(nn.Module):
        def extra_repr(self):
            return object.__repr__(self)

    for name in "ab":
        save_checkpoint(tmp_path / name, 1, {"model": Odd()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# ------------------------------------------------------------------------------------- the one before it


def steps_of(folder):
    return {p.name: load(p)["step"] for p in sorted(folder.iterdir())}


def three(folder):
    path = folder / "c.npz"
    for step in (1, 2, 3):
        save_checkpoint(path, step, {"model": model(n=4)}, notes={"at": step})
    return path


def test_the_checkpoint_before_is_kept(tmp_path):
    path = three(tmp_path)
    assert previous_path(path) == tmp_path / "c.previous.npz"
    assert steps_of(tmp_path) == {"c.npz": 3, "c.previous.npz": 2}
    save_checkpoint(path, 4, {"model": model()}, keep_previous=False)
    assert steps_of(tmp_path) == {"c.npz": 4, "c.previous.npz": 2}


def test_the_checkpoint_before_is_kept_where_files_have_one_name_only(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    three(tmp_path)
    assert steps_of(tmp_path) == {"c.npz": 3, "c.previous.npz": 2}


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("death", range(1, 9))
def test_a_save_that_dies_at_any_call_leaves_a_checkpoint_that_loads(tmp_path, monkeypatch, death, links):
    """Each call that changes the folder is once the last: what is there then must do, and the next save must work."""
    path = three(tmp_path)
    calls = []

    class Death(BaseException):
        pass

    def dying(real, name):
        def call(*args, **kwargs):
            if name == "link" and not links:
                raise OSError(errno.EPERM, "no links here")
            if len(calls) == death:
                raise Death  # from here on nothing happens any more, as after SIGKILL
            calls.append(name)
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "fsync", "link", "replace", "unlink"):
            patch.setattr(os, name, dying(getattr(os, name), name))
        try:
            save_checkpoint(path, 4, {"model": model()}, notes={"at": 4})
        except Death:
            pass
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        got = load_newest(path, {"model": model()})
    assert got.step in (3, 4) and got.notes == {"at": got.step} and len(calls) <= 8
    assert bool(said) == (not path.exists()) and (links or len(said) <= 1)
    assert not (links and said), "with links there is no instant without the newest"
    remove_temporaries(tmp_path)
    for step in (5, 6):
        save_checkpoint(path, step, {"model": model()})
    assert steps_of(tmp_path) == {"c.npz": 6, "c.previous.npz": 5}


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before_it(tmp_path):
    path = three(tmp_path)
    whole = path.read_bytes()
    damages = {"cut": whole[:-9], "empty": b"", "flip": bytes([*whole[:99], whole[99] ^ 8, *whole[100:]]),
               "more": whole + b"\0"}
    for damage, data in damages.items():
        path.write_bytes(data)
        with pytest.raises(DamagedError, match="; c.previous.npz beside it holds the checkpoint before it$"):
            load_checkpoint(path, {"model": model()})
        with pytest.warns(CheckpointWarning, match=r"c\.npz .*before it, c.previous.npz, at step 2; the damaged"):
            assert load_newest(path, {"model": model()}).step == 2
        assert not path.exists() and (tmp_path / "c.damaged.npz").read_bytes() == data, damage
        with pytest.warns(CheckpointWarning, match=r"c\.npz is missing\. Going on .* at step 2$"):
            assert load_newest(path, {"model": model()}).step == 2
    save_checkpoint(path, 3, {"model": model()})
    assert (tmp_path / "c.previous.npz").exists() and load(path)["step"] == 3


def test_two_damaged_checkpoints_are_named_and_nothing_is_touched(tmp_path):
    path = three(tmp_path)
    for p in tmp_path.iterdir():
        p.write_bytes(p.read_bytes()[:-1])
    here = model()
    with pytest.raises(DamagedError, match=r"c\.npz does not end.*and so is the one before it: .*c\.previous\.npz"):
        load_newest(path, {"model": here})
    assert same(here.state, model().state) and len(list(tmp_path.iterdir())) == 2


def test_what_is_whole_and_does_not_fit_is_not_replaced_by_the_one_before_it(tmp_path):
    path = three(tmp_path)
    with pytest.raises(CheckpointError, match="shape"):
        load_newest(path, {"model": model(n=5)})
    with pytest.raises(IsADirectoryError):
        load_newest(tmp_path, {"model": model()})
    assert steps_of(tmp_path) == {"c.npz": 3, "c.previous.npz": 2}


def test_a_disk_that_cannot_read_the_file_is_a_damaged_file(tmp_path, monkeypatch):
    path = three(tmp_path)
    read = checkpoint_module.read_file

    def failing(f, **k):
        if f == path:
            raise OSError(errno.EIO, "Input/output error", str(f))
        return read(f, **k)

    monkeypatch.setattr(checkpoint_module, "read_file", failing)
    with pytest.warns(CheckpointWarning, match="cannot be read: Input/output error.*at step 2"):
        assert load_newest(path, {"model": model()}).step == 2



def test_what_is_not_made_yet_is_left_to_the_object(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, 0, {"optimizer": fresh_adam()})
    later = {"optimizer": stepped_adam()}
    load_checkpoint(path, later)
    assert later["optimizer"].state["state"] == {}
    # an optimizer that has seen gradients of other parameters so far
    save_checkpoint(path, 0, {"optimizer": Optimizer(state={0: {"m": np.ones(2)}, 1: {"m": np.ones(3)}})})
    other = {"optimizer": Optimizer(state={1: {"m": np.zeros(3)}, 2: {"m": np.zeros(4)}})}
    load_checkpoint(path, other)
    assert sorted(other["optimizer"].state["state"]) == [0, 1]
    wrong = {"optimizer": Optimizer(state={1: {"m": np.zeros(4)}})}
    check_refused(path, wrong, ["optimizer: state.1.m has shape (3,)"])
    # but the state of a whole model is never "not made yet"
    save_checkpoint(path, 0, {"model": Model()})
    check_refused(path, {"model": model()}, ["0.weight is missing from the file"])


def test_an_object_that_refuses_gets_all_objects_their_states_back(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, 1, {"model": model(), "optimizer": stepped_adam(), "bad": Thing(poison=True, w=np.ones(2))})
    here = {"model": Model(**{"0.weight": np.ones((3, 4)), "0.bias": np.ones(3, "f4")}), "optimizer": fresh_adam(),
            "bad": Thing(poison=False, w=np.zeros(2))}
    check_refused(path, here, ["bad: poisoned"])


def test_rolling_back_needs_no_help_from_arrays_shared_with_the_object(tmp_path):
    """state_dict() may hand out the live arrays, which a load that fails half-way has overwritten."""

    class InPlace(Thing):
        def load_state_dict(self, state):
            self.state["w"][...] = state["w"]
            if state["w"][0] == 5:
                raise ValueError("half-way")

    save_checkpoint(tmp_path / "c.npz", 1, {"x": InPlace(w=np.full(3, 5.0))})
    check_refused(tmp_path / "c.npz", {"x": InPlace(w=np.zeros(3))}, ["x: half-way"])


def test_objects_only_in_the_file_are_refused_unless_partial(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, 5, {"model": model(), "optimizer": stepped_adam()}, META)
    here = {"model": Model(**{"0.weight": np.ones((3, 4)), "0.bias": np.ones(3, "f4")})}
    check_refused(path, here, ["optimizer: only in the file"])
    assert load_checkpoint(path, here, partial=True).step == 5
    assert same(here["model"].state, model().state)


@pytest.mark.parametrize("there, here, fits", [
    ({"a": (8, 8)}, {"a": [8, 8]}, True), ({"a": float("nan")}, {"a": float("nan")}, True),
    ({"a": 1}, {"a": 1.0}, True),
    ({"a": True}, {"a": 1}, False), ({"a": {"b": 1}}, {"a": {"b": 2}}, False), ({"a": [1]}, {"a": [1, 2]}, False),
    ({"a": np.ones(2)}, {"a": np.ones(2)}, True), ({"a": np.ones(2)}, {"a": np.ones(2, "f4")}, False),
    ({"a": [{"b": None}]}, {"a": [{"b": None}]}, True), ({"a": [{"b": None}]}, {"a": [{"b": 0}]}, False),
    ({}, {}, True),
])
def test_configurations_are_compared_by_value(tmp_path, there, here, fits):
    save_checkpoint(tmp_path / "c.npz", 1, {}, there)
    if fits:
        load_checkpoint(tmp_path / "c.npz", {}, here)
    else:
        check_refused(tmp_path / "c.npz", {}, ["configuration: a"], here)


def test_a_file_of_save_is_no_checkpoint(tmp_path):
    save({"step": 1}, tmp_path / "c.npz")
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        load_checkpoint(tmp_path / "c.npz", {})


def test_damage_leaves_the_objects_alone(tmp_path):
    path = tmp_path / "c.npz"
    save_checkpoint(path, 1, {"model": model()})
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    here = {"model": Model(**{"0.weight": np.ones((3, 4)), "0.bias": np.ones(3, "f4")})}
    before = copy.deepcopy(here["model"].state)
    for _ in range(300):
        damaged = bytearray(good)
        if rng.random() < 0.5:
            damaged = damaged[: rng.integers(len(good))]
        else:
            damaged[rng.integers(len(good))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError):
            load_checkpoint(path, here)
        assert same(here["model"].state, before)


def test_bad_arguments_are_named(tmp_path):
    for step in (-1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="step"):
            save_checkpoint(tmp_path / "c.npz", step, {})
    with pytest.raises(TypeError, match="'model' is a dict, which has no state_dict"):
        save_checkpoint(tmp_path / "c.npz", 1, {"model": {}})
    with pytest.raises(TypeError, match="strings"):
        save_checkpoint(tmp_path / "c.npz", 1, {1: model()})
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.npz", {})
    assert not (tmp_path / "c.npz").exists()

"""save and load: the round trip is exact, and a file that is not exactly what was written is refused."""

import errno
import json
import os
import struct
import sys
import zipfile

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinygen import serialization
from tinygen.backend import DeviceError
from tinygen.serialization import CheckpointError, load, save
from tinygen.tensor import Tensor


def bits(x):
    """A value in a form that compares equal only if it is the same to the bit and of the same type."""
    if isinstance(x, Tensor):
        return "Tensor", x.requires_grad, bits(x.data)
    if isinstance(x, np.generic):
        return type(x).__name__, str(x.dtype), x.tobytes()
    if isinstance(x, np.ndarray):
        return "array", x.dtype.str, x.shape, x.tobytes()
    if isinstance(x, float):
        return "float", struct.pack(">d", x)
    if isinstance(x, complex):
        return "complex", struct.pack(">dd", x.real, x.imag)
    if isinstance(x, dict):
        return "dict", [(bits(k), bits(v)) for k, v in x.items()]
    if isinstance(x, (list, tuple)):
        return type(x).__name__, [bits(v) for v in x]
    return type(x).__name__, x


def roundtrip(value, folder):
    save(value, folder / "value.npz")
    return load(folder / "value.npz")


def typical(rng):
    return {
        "model": {"0.weight": Tensor(rng.standard_normal((3, 4)).astype("f4"), requires_grad=True),
                  "0.bias": Tensor(rng.standard_normal(3).astype("f4"))},
        "optimizer": {"state": {0: {"step": 7, "exp_avg": rng.standard_normal((3, 4))}},
                      "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1]}]},
        "rng": {"bit_generator": "PCG64", "state": {"state": 2**127 + 12345, "inc": 2**64 + 1}},
        "flags": np.array([True, False]), "best": float("inf"), "note": None,
    }


# ------------------------------------------------------------------------------------------ round trip

keys = st.text(max_size=8) | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False)
dtypes = (hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes()).filter(
    lambda d: d.kind in "biufcSUMm" and d.itemsize > 0)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
tensors = hnp.arrays(st.sampled_from(["f2", "f4", "f8", "i4", "i8", "?", "u1", "c8"]),
                     hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)).map(Tensor)
plain = (st.none() | st.booleans() | st.integers() | st.integers(-(2**130), 2**130) | st.floats()
         | st.complex_numbers() | st.text(st.characters(exclude_categories=())))
values = st.recursive(
    plain | arrays | tensors,
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple)
    | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12)


@given(values)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_nested_value_comes_back_bit_for_bit(tmp_path, value):
    assert bits(roundtrip(value, tmp_path)) == bits(value)


def test_a_typical_checkpoint_comes_back(tmp_path):
    value = typical(np.random.default_rng(0))
    assert bits(roundtrip(value, tmp_path)) == bits(value)


@pytest.mark.parametrize("value", [
    np.array(3.5, "f2"), np.zeros((0, 3), "f4"), np.array([[True]]), np.float32(1.5), np.array(-0.0),
    np.array([0x7FC00001, 0xFFC12345, 0x7F800001], "u4").view("f4"),  # NaNs with payloads, a signalling one too
    np.array([1, 2, 3], ">i4"), np.arange(24).reshape(2, 3, 4)[::2, ::-1, 1:3], np.broadcast_to(np.ones(3), (2, 3)),
    struct.unpack(">d", bytes.fromhex("7ff8000000000abc"))[0], -0.0, float("-inf"), 2**128 - 1, -(2**64),
    [10**5000], "\ud800 é\n\0", {"": 1, "a/../b": np.ones(1), "A": np.ones(2), "a": np.zeros(2)}, {"$tuple": [1]},
    {"$": {"$x": 1}}, {1: 2, "1": 3, False: 4, None: 5, 0.5: 6}, (), [], {}, ((),), [[1], (2,)], 1 - 0j,
    np.datetime64("2020-01-01"), np.array(["é", "abc"]), np.array([b"x", b"yz"]), np.longdouble(1) / 3,
])
def test_special_values_come_back_bit_for_bit(tmp_path, value):
    assert bits(roundtrip(value, tmp_path)) == bits(value)


def test_subclasses_come_back_as_the_base_type(tmp_path):
    from collections import OrderedDict, namedtuple
    from enum import IntEnum

    got = roundtrip({"o": OrderedDict(a=1), "p": namedtuple("P", "x y")(1, 2), "e": IntEnum("E", "A B").B},
                    tmp_path)
    assert bits(got) == bits({"o": {"a": 1}, "p": (1, 2), "e": 2})


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 3, 2)])
@pytest.mark.parametrize("wrap", [Tensor, lambda a: a])
def test_the_memory_order_comes_back(tmp_path, axes, wrap):
    stored = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).transpose(np.argsort(axes)).copy()
    x = stored.transpose(axes)
    got = roundtrip(wrap(x), tmp_path)
    got = got.data if isinstance(got, Tensor) else got
    assert got.shape == x.shape and np.array_equal(got, x) and got.strides == x.strides
    # Other programs see the logical shape.
    with np.load(tmp_path / "value.npz") as plain_view:
        assert np.array_equal(plain_view["value"], x)


def test_numpy_reads_the_file_and_no_pickle_is_in_it(tmp_path):
    value = typical(np.random.default_rng(1))
    save(value, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as members:
        assert np.array_equal(members["model/0.weight"], value["model"]["0.weight"].data)
        metadata = json.loads(members["metadata.json"])
    assert (metadata["format"], metadata["version"], metadata["numpy"]) == ("tinygen", 1, np.__version__)
    assert "tinygen" in metadata


def test_loaded_arrays_may_be_written_to(tmp_path):
    got = roundtrip({"a": np.arange(3)}, tmp_path)["a"]
    got += 1
    assert got.tolist() == [1, 2, 3]


def test_equal_values_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        save(typical(np.random.default_rng(2)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_keys_that_look_alike_in_a_file_system_stay_apart(tmp_path):
    value = {key: np.full(2, i) for i, key in enumerate(["é", "ü", "a", "A", "a~2", "..", ".", "x/y", "x_y"])}
    value["deep"] = {"..": {"z": np.ones(1)}}
    assert bits(roundtrip(value, tmp_path)) == bits(value)
    with zipfile.ZipFile(tmp_path / "value.npz") as archive:
        names = archive.namelist()
    assert len({name.lower() for name in names}) == len(names)
    assert all(".." not in name.split("/") and name.isascii() for name in names)


def test_a_gpu_entry_needs_a_gpu_or_map_location(tmp_path, monkeypatch):
    """Written as if on a GPU: without one the error says what to do, and map_location does it."""
    monkeypatch.setattr(serialization, "device_of", lambda array: "cuda:0")
    save({"w": np.ones(3)}, tmp_path / "gpu.npz")
    monkeypatch.undo()
    monkeypatch.setattr(serialization, "move", _no_gpu)
    with pytest.raises(DeviceError, match='map_location="cpu"'):
        load(tmp_path / "gpu.npz")
    assert load(tmp_path / "gpu.npz", map_location="cpu")["w"].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="tpu"):
        load(tmp_path / "gpu.npz", map_location="tpu")


def _no_gpu(array, name):
    if str(name) != "cpu":
        raise RuntimeError("no GPU here")
    return array


# --------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("value, words", [
    ({"a": [1, {"b": object()}]}, ["['a'][1]['b']", "object"]),
    ({"a": np.array([1, "x"], object)}, ["['a']", "object", "pickle"]),
    ({"a": np.zeros(2, [("x", "f4")])}, ["['a']", "records"]),
    ({"a": np.ma.masked_array([1.0, 2.0], [0, 1])}, ["MaskedArray", "numpy.asarray"]),
    ({(1, 2): 3}, ["key (1, 2)"]),
    ({np.int64(1): 3}, ["key"]),
    ({"s": {1, 2}}, ["set"]),
    ({"b": b"bytes"}, ["bytes"]),
])
def test_what_cannot_be_saved_is_named(tmp_path, value, words):
    with pytest.raises(TypeError) as caught:
        save(value, tmp_path / "x.npz")
    assert all(word in str(caught.value) for word in words), caught.value
    assert os.listdir(tmp_path) == []


def test_a_model_is_told_to_give_its_state_dict(tmp_path):
    class Model:
        def state_dict(self):
            return {}

    with pytest.raises(TypeError, match=r"state_dict\(\)"):
        save(Model(), tmp_path / "x.npz")


def test_a_value_that_contains_itself_is_refused(tmp_path):
    loop = [1]
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        save({"a": loop}, tmp_path / "x.npz")


def test_deep_nesting_up_to_the_limit_works(tmp_path):
    value = 1.5
    for i in range(199):
        value = [{"k": value}, (value,), {3: value}, [value]][i % 4] if i % 4 != 1 else (value,)
    assert bits(roundtrip(value, tmp_path)) == bits(value)


def test_only_paths_are_taken(tmp_path):
    with open(tmp_path / "x", "wb") as file, pytest.raises(TypeError, match="path"):
        save(1, file)
    with pytest.raises(TypeError, match="path"):
        load(3)


# --------------------------------------------------------------------------------- whole or not at all


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save({"old": np.arange(3)}, path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    for where, name in ((np.lib.format, "write_array"), (os, "fsync"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, full)
            with pytest.raises(OSError, match="No space left on device") as caught:
                save({"new": np.arange(1000)}, path)
        assert caught.value.filename == str(path)
        assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.npz"]
    with pytest.raises(TypeError):
        save({"good": np.ones(3), "bad": object()}, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.npz"]


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_a_disk_that_fills_up_half_way_leaves_the_old_file(tmp_path):
    import resource
    import signal

    path = tmp_path / "a.npz"
    save({"old": np.arange(3)}, path)
    before = path.read_bytes()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(OSError) as caught:
            save({"new": np.random.default_rng(0).standard_normal(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.npz"]


def test_an_interrupt_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save(1, path)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(np.ones(3), path)
    monkeypatch.undo()
    assert load(path) == 1 and os.listdir(tmp_path) == ["a.npz"]


def test_unwritable_places_are_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        save(1, tmp_path / "missing" / "a.npz")
    assert caught.value.filename == str(tmp_path / "missing" / "a.npz")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        save(1, tmp_path / "file" / "a.npz")
    (tmp_path / "folder").mkdir()
    for action in (lambda p: save(1, p), load):
        with pytest.raises(IsADirectoryError, match="folder"):
            action(tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match="nothing.npz"):
        load(tmp_path / "nothing.npz")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")
def test_permissions_and_links_are_those_of_an_ordinary_file(tmp_path):
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    umask = os.umask(0o022)
    try:
        save(1, tmp_path / "link")
    finally:
        os.umask(umask)
    assert (tmp_path / "link").is_symlink() and load(tmp_path / "real") == 1
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o644


# -------------------------------------------------------------------------------------- damaged files


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.npz"
    save(typical(np.random.default_rng(3)), path)
    return path.read_bytes()


def refused(path, data):
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_every_truncation_is_refused(tmp_path, good):
    for length in {*range(0, len(good), 4), *range(100), *range(len(good) - 200, len(good))}:
        assert "save it again" in refused(tmp_path / "cut.npz", good[:length])


def test_a_flipped_bit_in_any_byte_is_refused(tmp_path, good):
    rng = np.random.default_rng(4)
    for at in range(len(good)):
        damaged = bytearray(good)
        damaged[at] ^= 1 << rng.integers(8)
        refused(tmp_path / "flip.npz", bytes(damaged))


def test_swapped_inserted_and_appended_bytes_are_refused(tmp_path, good):
    rng = np.random.default_rng(5)
    for _ in range(50):
        a, b = sorted(rng.integers(0, len(good), 2))
        swapped = good[:a] + good[b:] + good[a:b]
        inserted = good[:a] + rng.bytes(int(rng.integers(1, 9))) + good[a:]
        removed = good[:a] + good[b:]
        for damaged in {swapped, inserted, removed, good + rng.bytes(3), good + good} - {good}:
            refused(tmp_path / "mixed.npz", damaged)


@pytest.mark.parametrize("data, words", [
    (b"", "is empty"), (b"not a zip at all", "not an .npz"), (b"\x93NUMPY\x01\x00", "not an .npz"),
    (b"\x80\x04}q\x00.", "not an .npz"), (b"PK\x03\x04", "cut short"),
])
def test_other_files_are_refused(tmp_path, data, words):
    assert words in refused(tmp_path / "other.npz", data)


def test_a_plain_npz_is_refused_with_the_way_to_read_it(tmp_path):
    np.savez(tmp_path / "plain.npz", a=np.ones(3))
    assert "numpy.load" in refused(tmp_path / "plain.npz", (tmp_path / "plain.npz").read_bytes())


# Sealed files whose contents are not what write_file writes: the seal is right, so the parser must hold.


def resealed(members, path):
    """A file of these members with a valid seal."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"sha256:" + b"0" * 64
        for name, data in members.items():
            archive.writestr(name, data)
    reseal(path)


def reseal(path):
    import hashlib

    data = path.read_bytes()[:-64]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())


def parts(data, folder):
    (folder / "parts.npz").write_bytes(data)
    with zipfile.ZipFile(folder / "parts.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return members, json.loads(members["metadata.json"])


def edited(good, folder, change):
    members, metadata = parts(good, folder)
    change(metadata, members)
    if "metadata.json" in members:
        members["metadata.json"] = json.dumps(metadata)
    path = folder / "edited.npz"
    resealed(members, path)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def weight(metadata):
    return metadata["content"]["model"]["0.weight"]


def test_resealing_changes_nothing_by_itself(tmp_path, good):
    members, metadata = parts(good, tmp_path)
    resealed(members, tmp_path / "same.npz")
    assert bits(load(tmp_path / "same.npz")) == bits(typical(np.random.default_rng(3)))


def test_a_newer_format_says_update(tmp_path, good):
    message = edited(good, tmp_path, lambda m, members: m.update(version=2, tinygen="9.9"))
    assert "version 2" in message and "9.9" in message and "update" in message


def test_a_missing_member_and_an_unknown_one_are_named(tmp_path, good):
    assert "model/0.bias.npy is missing" in edited(good, tmp_path, lambda m, f: f.pop("model/0.bias.npy"))
    assert "extra.npy" in edited(good, tmp_path, lambda m, f: f.update({"extra.npy": b"1"}))
    assert "metadata.json" in edited(good, tmp_path, lambda m, f: f.pop("metadata.json"))


@pytest.mark.parametrize("change", [
    lambda m, f: weight(m).update(shape=[4, 3]), lambda m, f: weight(m).update(dtype="<f8"),
    lambda m, f: weight(m).update(dtype="|O"), lambda m, f: weight(m).update(dtype="nonsense"),
    lambda m, f: weight(m).update(order=[0, 0]), lambda m, f: weight(m).update(shape=["x"]),
    lambda m, f: m.update(format="other"), lambda m, f: m.update(version="1"), lambda m, f: m.pop("version"),
    lambda m, f: m.pop("content"), lambda m, f: m.update(content={"$later": 1}),
    lambda m, f: m.update(content={"$int": "zz"}), lambda m, f: m.update(content={"$float": "00"}),
    lambda m, f: m.update(content={"$dict": [[{"$array": "q"}, 1]]}),
    lambda m, f: m.update(content={"$dict": [[[1], 1]]}), lambda m, f: m.update(content={"$tuple": 3}),
    lambda m, f: f.update({"model/0.weight.npy": f["model/0.weight.npy"][:-1]}),
    lambda m, f: f.update({"model/0.weight.npy": f["model/0.weight.npy"] + b"1"}),
    lambda m, f: f.update({"model/0.weight.npy": b"junk"}), lambda m, f: f.update({"model/0.weight.npy": b""}),
])
def test_sealed_files_with_wrong_contents_are_refused(tmp_path, good, change):
    edited(good, tmp_path, change)


def test_an_object_array_is_refused_and_never_unpickled(tmp_path, good):
    def smuggle(metadata, members):
        import io

        buffer = io.BytesIO()
        np.save(buffer, np.array([print], object), allow_pickle=True)  # the attack
        members["model/0.weight.npy"] = buffer.getvalue()
        weight(metadata).update(dtype="|O", shape=[1])

    edited(good, tmp_path, smuggle)


def test_deep_metadata_is_refused(tmp_path, good):
    members, _ = parts(good, tmp_path)
    members["metadata.json"] = '{"format":"tinygen","version":1,"kind":"object","content":' + "[" * 50000 \
        + "]" * 50000 + "}"
    resealed(members, tmp_path / "deep.npz")
    with pytest.raises(CheckpointError):
        load(tmp_path / "deep.npz")


def test_sealed_files_with_flipped_bits_are_refused_or_the_same(tmp_path, good):
    """With the seal renewed only zip's and .npy's own checks are left: still no other error, no changed array."""
    path = tmp_path / "flip.npz"
    expected = bits(typical(np.random.default_rng(3)))
    rng = np.random.default_rng(6)
    for at in rng.integers(0, len(good) - 71, 250):
        damaged = bytearray(good)
        damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(damaged))
        reseal(path)
        try:
            got = load(path)
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            assert bits(got) == expected

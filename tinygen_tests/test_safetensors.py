"""safetensors: a state_dict goes to PyTorch and back, in whatever memory order, and damage is found."""

import json
import sys

import numpy as np
import pytest

import tinygen as tg
from tinygen import safetensors as ours
from tinygen.serialization import CheckpointError, DamagedError
from tinygen_tests.draws import stream

package = pytest.importorskip("safetensors", reason="safetensors is not installed", exc_type=ImportError)
pytestmark = pytest.mark.cpu_only("about files")


def network():
    rng = stream(3)
    return tg.nn.Sequential(tg.nn.Conv2d(2, 4, 3, rng=rng), tg.nn.BatchNorm2d(4), tg.nn.Linear(5, 3, rng=rng))


def orders():
    """The same numbers in every memory order that is not C's."""
    a = np.arange(24, dtype="f4").reshape(2, 3, 4)
    return {
        "fortran": np.asfortranarray(a), "transposed": a.T, "strided": a[:, ::2, 1::2], "reversed": a[::-1, :, ::-1],
        "broadcast": np.broadcast_to(a[0], (5, 3, 4)), "channels last": a.transpose(0, 2, 1).copy().transpose(0, 2, 1),
        "part": a[1:], "big endian": a.astype(">f4"), "big endian transposed": a.astype(">f4").T,
        "none": np.array(2.5), "empty": np.zeros((0, 3), "f4"), "bool": np.array([[True, False]]).T,
        **{dtype: np.arange(6).reshape(2, 3).astype(dtype).T for dtype in ("f2", "f8", "i1", "i2", "i4", "i8", "u1")},
    }  # fmt: skip


def test_every_memory_order_comes_back(tmp_path):
    """safetensors 0.8.0 by itself writes memory as it lies."""
    path, arrays = tmp_path / "a.safetensors", orders()
    ours.save_file(arrays, path)
    back = ours.load_file(path)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        got = back[name].numpy()
        assert got.shape == array.shape and got.dtype == array.dtype.newbyteorder("=") and got.dtype.isnative, name
        assert np.array_equal(got, array) and back[name].data.flags.writeable and got.flags.c_contiguous, name
    for name, array in package.numpy.load_file(path).items():
        assert np.array_equal(array, arrays[name]), name


def test_a_package_that_gives_back_other_numbers_is_found_out(tmp_path, monkeypatch):
    real = package.numpy.save

    def save(arrays, metadata):
        return real({name: array + (name == "b") for name, array in arrays.items()}, metadata)

    monkeypatch.setattr(package.numpy, "save", save)
    with pytest.raises(CheckpointError, match="gives back other numbers than it was given, for b; nothing was written"):
        ours.save_file({"a": np.ones(2), "b": np.ones(2)}, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_state_dict_goes_to_torch_and_back(tmp_path):
    th = pytest.importorskip("torch", reason="PyTorch is the judge here; pip install torch==2.13.0")
    from safetensors.torch import load_file, save_file

    model = network()
    model[0].weight.data = np.asfortranarray(model[0].weight.data)
    twin = th.nn.Sequential(th.nn.Conv2d(2, 4, 3), th.nn.BatchNorm2d(4), th.nn.Linear(5, 3))
    ours.save_file(model.state_dict(), tmp_path / "ours.safetensors", metadata={"epoch": "3"})
    twin.load_state_dict(load_file(tmp_path / "ours.safetensors"))  # strict: every name, shape and dtype
    for name, tensor in model.state_dict().items():
        assert np.array_equal(twin.state_dict()[name].numpy(), tensor.numpy()), name
    with th.no_grad():
        [p.add_(1) for p in twin.parameters()]
    save_file(twin.state_dict(), tmp_path / "theirs.safetensors")
    model.load_state_dict(ours.load_file(tmp_path / "theirs.safetensors"))
    for name, tensor in model.state_dict().items():
        assert np.array_equal(twin.state_dict()[name].numpy(), tensor.numpy()), name


def test_bfloat16_comes_as_float32_and_what_numpy_lacks_is_named(tmp_path):
    th = pytest.importorskip("torch", reason="PyTorch writes the bfloat16 here; pip install torch==2.13.0")
    from safetensors.torch import save_file

    x = th.randn(3, 4).bfloat16()
    save_file({"x": x}, tmp_path / "x.safetensors")
    got = ours.load_file(tmp_path / "x.safetensors")["x"]
    assert got.dtype == tg.float32 and np.array_equal(got.numpy(), x.float().numpy())
    save_file({"x": x, "y": x.to(th.float8_e4m3fn), "z": x.to(th.float8_e5m2)}, tmp_path / "y.safetensors")
    with pytest.raises(CheckpointError, match=r"y \(F8_E4M3\), z \(F8_E5M2\).*tensor.float\(\)"):
        ours.load_file(tmp_path / "y.safetensors")


def test_metadata_is_kept_and_torchs_users_find_the_format(tmp_path):
    path = tmp_path / "a.safetensors"
    ours.save_file({"a": tg.ones(2)}, path, metadata={"epoch": "3"})
    with package.safe_open(path, "np") as file:
        about = file.metadata()
    assert about["epoch"] == "3" and about["format"] == "pt" and len(about["tinygen.sha256"]) == 64


def test_damage_is_found_or_changes_nothing(tmp_path):
    """Every byte once with a flipped bit, and every truncation."""
    path = tmp_path / "a.safetensors"
    value = {"weight": tg.tensor([[1.0, 2.0], [3.0, 4.0]]), "bias": tg.tensor([0.5, -0.5])}
    ours.save_file(value, path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    for at in range(len(whole)):
        path.write_bytes(whole[:at])
        with pytest.raises(DamagedError, match="safetensors is"):
            ours.load_file(path)
        path.write_bytes(bytes([*whole[:at], whole[at] ^ (1 << rng.integers(8)), *whole[at + 1 :]]))
        try:
            got = ours.load_file(path)
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            assert got.keys() == value.keys() and 8 <= at < header, at  # in words of the notes
            assert all(np.array_equal(got[name].numpy(), value[name].numpy()) for name in value)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DamagedError):
        ours.load_file(path)


def test_files_that_cannot_be_read_and_values_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        ours.load_file(tmp_path / "none")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        ours.load_file(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(DamagedError, match="is empty"):
        ours.load_file(tmp_path / "empty")
    for bad, message in [
        ([tg.ones(2)], "must be a state_dict"), ({1: tg.ones(2)}, "must be a string"), ({"a": {"b": 1}}, "a is a dict"),
        ({"__metadata__": tg.ones(1)}, "must be a string other"), ({"a": np.ones(2, "c16")}, "dtype complex128"),
        ({"a": np.array(["x"])}, "dtype <U1"),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match=message):
            ours.save_file(bad, tmp_path / "out")
    with pytest.raises(TypeError, match="strings to strings"):
        ours.save_file({"a": tg.ones(1)}, tmp_path / "out", metadata={"epoch": 3})
    assert not (tmp_path / "out").exists()


def test_without_the_package_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        ours.load_file(tmp_path / "a")


def test_equal_values_give_equal_bytes(tmp_path):
    for name, keys in (("a", "xy"), ("b", "yx")):
        ours.save_file({key: np.full(3, ord(key)) for key in keys}, tmp_path / name)
    # the package orders its metadata by chance
    headers = [json.loads(p.read_bytes()[8:].partition(b"}}")[0] + b"}}") for p in (tmp_path / "a", tmp_path / "b")]
    assert headers[0] == headers[1] and (tmp_path / "a").read_bytes()[-48:] == (tmp_path / "b").read_bytes()[-48:]
    assert headers[0]["__metadata__"]["format"] == "pt"

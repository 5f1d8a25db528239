"""MNIST: any naming, checks between the files, the splits, and the real test files where they are at hand."""

import gzip
import hashlib
import importlib
from pathlib import Path

import numpy as np
import pytest

from tinygen.data.errors import DataFileError
from tinygen.data.mnist import MD5, mnist

module = importlib.import_module("tinygen.data.mnist")  # the function has the module's name

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"
real = pytest.mark.skipif(
    not (REAL / "t10k-images-idx3-ubyte.gz").exists(),
    reason="the official MNIST test files are not in ../shared/data/mnist",
)


@pytest.fixture
def folder(tmp_path, idx_bytes):
    """A folder of small made-up MNIST files under the official names, 50 to train on and 20 to test."""
    rng = np.random.default_rng(0)
    for prefix, n in (("train", 50), ("t10k", 20)):
        images = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        labels = (np.arange(n) % 10).astype(np.uint8)
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return tmp_path


def test_the_splits(folder):
    sizes = {"train": 50, "test": 20, "all": 70, "t10k-train": 16, "t10k-test": 4}
    for split, n in sizes.items():
        d = mnist(folder, split)
        assert d.x.shape == (n, 1, 28, 28) and d.x.dtype == np.float32 and d.y.shape == (n,)
        assert 0 <= d.x.min() and d.x.max() <= 1
        assert split in d.name and len(d.classes) == 10
    assert len(mnist(folder)) == 50
    everything = mnist(folder, "all")
    np.testing.assert_array_equal(everything.x[:50], mnist(folder, "train").x)
    np.testing.assert_array_equal(everything.x[50:], mnist(folder, "test").x)
    both = np.concatenate([mnist(folder, "t10k-train").x, mnist(folder, "t10k-test").x])
    assert {r.tobytes() for r in both} == {r.tobytes() for r in mnist(folder, "test").x}
    with pytest.raises(ValueError, match="'train', 'test', 'all', 't10k-train', 't10k-test', got 'valid'"):
        mnist(folder, "valid")


def test_pixels_are_bytes_divided_by_255(tmp_path, idx_bytes):
    images = (np.arange(784) % 256).astype(np.uint8).reshape(1, 28, 28)
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(idx_bytes(images))
    (tmp_path / "t10k-labels.idx1-ubyte").write_bytes(idx_bytes(np.array([3], np.uint8)))
    np.testing.assert_array_equal(mnist(tmp_path, "test").x[:, 0], images.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("sep", ["-", "."])
@pytest.mark.parametrize("zipped, end", [(True, ".gz"), (False, ""), (False, ".gz"), (True, "")])
def test_either_naming_and_either_form(folder, sep, zipped, end):
    before = mnist(folder, "test")
    for kind, d in (("images", 3), ("labels", 1)):
        old = folder / f"t10k-{kind}-idx{d}-ubyte.gz"
        content = gzip.decompress(old.read_bytes())
        old.unlink()
        (folder / f"t10k-{kind}{sep}idx{d}-ubyte{end}").write_bytes(gzip.compress(content) if zipped else content)
    after = mnist(str(folder), "test")
    np.testing.assert_array_equal(after.x, before.x)
    np.testing.assert_array_equal(after.y, before.y)


def test_only_the_files_of_the_split_are_needed(folder):
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (folder / name).unlink()
    assert len(mnist(folder, "test")) == 20
    for split in ("train", "all"):
        with pytest.raises(DataFileError) as caught:
            mnist(folder, split)
        for name in (
            "train-images-idx3-ubyte.gz",
            "train-images-idx3-ubyte",
            "train-images.idx3-ubyte.gz",
            "train-images.idx3-ubyte",
            "download=True",
            str(folder),
        ):
            assert name in str(caught.value)
    with pytest.raises(DataFileError, match="there is no such folder"):
        mnist(folder / "nowhere")


def write(folder, name, content):
    (folder / name).write_bytes(gzip.compress(content))


def test_files_that_do_not_belong_together(folder, idx_bytes):
    labels = np.arange(20, dtype=np.uint8) % 10
    write(folder, "t10k-labels-idx1-ubyte.gz", idx_bytes(labels[:19]))
    with pytest.raises(DataFileError, match="holds 20 images, but .*t10k-labels.* holds 19 labels"):
        mnist(folder, "test")
    write(folder, "t10k-labels-idx1-ubyte.gz", idx_bytes(labels + 1))
    with pytest.raises(DataFileError, match=r"t10k-labels.*labels 0\.\.9, but label 10 occurs"):
        mnist(folder, "test")
    write(folder, "t10k-labels-idx1-ubyte.gz", idx_bytes(labels.astype(np.int32)))
    with pytest.raises(DataFileError, match="expected uint8 values, but it holds int32"):
        mnist(folder, "test")
    write(folder, "t10k-images-idx3-ubyte.gz", idx_bytes(labels))
    with pytest.raises(DataFileError, match="t10k-images.*is it under the wrong name"):
        mnist(folder, "test")
    write(folder, "t10k-images-idx3-ubyte.gz", idx_bytes(np.zeros((20, 32, 32), np.uint8)))
    write(folder, "t10k-labels-idx1-ubyte.gz", idx_bytes(labels))
    with pytest.raises(DataFileError, match="28×28 pixels, but they are 32×32"):
        mnist(folder, "test")
    write(folder, "t10k-images-idx3-ubyte.gz", idx_bytes(np.zeros((0, 28, 28), np.uint8)))
    write(folder, "t10k-labels-idx1-ubyte.gz", idx_bytes(labels[:0]))
    with pytest.raises(DataFileError, match="holds none"):
        mnist(folder, "test")


def test_a_truncated_file(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataFileError, match="train-images.*cut short"):
        mnist(folder)


@pytest.fixture
def known(folder, monkeypatch):
    """The made-up files as if they were the official ones, and a second such set beside them."""
    monkeypatch.setattr(module, "OFFICIAL_SIZES", {"train": 50, "t10k": 20})
    other = folder / "other"
    other.mkdir()
    for path in list(folder.glob("*.gz")):
        plain = gzip.decompress(path.read_bytes())
        (other / path.name).write_bytes(gzip.compress(plain[:-1] + bytes([9 - plain[-1] % 10])))
    for name, where in (("mnist", folder), ("fashion-mnist", other)):
        sums = {f"{prefix}-{kind}": hashlib.md5(gzip.decompress(path.read_bytes()), usedforsecurity=False).hexdigest()
                for prefix in ("train", "t10k") for kind in ("images", "labels")
                for path in where.glob(f"{prefix}-{kind}*")}
        monkeypatch.setitem(module.CONTENTS, name, sums)
    return folder


def test_known_files_pass_and_are_named(known):
    assert mnist(known).name == "mnist (train)" and mnist(known / "other", "all").name == "fashion-mnist (all)"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_any_flipped_bit_of_a_known_file_is_the_clear_error(known, kind, zipped):
    """Or changes nothing: a gzip has bits (its date, the kind of a block) that no value depends on."""
    expected = mnist(known, "test")
    path = known / f"t10k-{kind}-ubyte.gz"
    whole = path.read_bytes() if zipped else gzip.decompress(path.read_bytes())
    rng, seen = np.random.default_rng(1), 0
    for at in [*range(24), *rng.integers(24, len(whole), 100), *range(len(whole) - 9, len(whole))]:
        data = bytearray(whole)
        data[at] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            got = mnist(known, "test")
        except DataFileError as error:
            assert str(path) in str(error)
            seen += 1
        else:
            assert zipped and np.array_equal(got.x, expected.x) and np.array_equal(got.y, expected.y)
    assert seen == 133 if not zipped else seen > 115


def test_other_contents_of_the_official_size_are_refused_or_taken_on_purpose(known):
    path = known / "t10k-images-idx3-ubyte.gz"
    plain = bytearray(gzip.decompress(path.read_bytes()))
    plain[500] ^= 1
    path.write_bytes(gzip.compress(plain))
    with pytest.raises(DataFileError, match="t10k-images.*MNIST's file and other contents.*damaged.*check=False"):
        mnist(known, "test")
    assert len(mnist(known, "test", check=False)) == 20


def test_parts_of_two_data_sets_are_refused(known):
    (known / "t10k-labels-idx1-ubyte.gz").write_bytes((known / "other" / "t10k-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(DataFileError, match="t10k-images.* is of mnist, but .*t10k-labels.* of fashion-mnist"):
        mnist(known, "test")
    (known / "t10k-images-idx3-ubyte.gz").write_bytes((known / "other" / "t10k-images-idx3-ubyte.gz").read_bytes())
    with pytest.raises(DataFileError, match="training files of one data set and the test files of another"):
        mnist(known, "all")


@real
def test_the_real_test_files():
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        assert hashlib.md5((REAL / name).read_bytes(), usedforsecurity=False).hexdigest() == MD5[name]
    d = mnist(REAL, "test")
    assert d.x.shape == (10000, 1, 28, 28)
    np.testing.assert_array_equal(d.y[:10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9])
    np.testing.assert_array_equal(np.bincount(d.y), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    np.testing.assert_allclose(d.x.mean(dtype=np.float64), 0.13251, atol=1e-5)  # the well-known mean of the test set


@real
def test_the_real_8000_2000_split():
    train, test = mnist(REAL, "t10k-train"), mnist(REAL, "t10k-test")
    assert len(train) == 8000 and len(test) == 2000
    np.testing.assert_allclose(np.bincount(test.y), np.bincount(mnist(REAL, "test").y) / 5, atol=1)
    # Pinned: a split that moves makes every published figure incomparable.
    np.testing.assert_array_equal(test.y[:12], [7, 5, 9, 4, 0, 1, 3, 7, 2, 4, 6, 5])
    assert np.round(test.x * 255).sum(dtype=np.float64) == 52828858

"""The bundled digits: shapes, ranges, the fixed split, and a damaged file."""

import numpy as np
import pytest

from tinygen.data.digits import DIGITS_FILE, _load, digits
from tinygen.data.errors import DataFileError


def test_all_of_them():
    d = digits()
    assert d.x.shape == (1797, 1, 8, 8) and d.x.dtype == np.float32
    assert d.x.min() == 0 and d.x.max() == 1
    np.testing.assert_array_equal(d.x * 16, np.round(d.x * 16))
    assert d.y.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(d.y), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    assert d.classes == tuple("0123456789")


def test_same_as_scikit_learn():
    load_digits = pytest.importorskip("sklearn.datasets", reason="scikit-learn is the judge").load_digits
    theirs = load_digits()
    d = digits()
    np.testing.assert_array_equal(d.x[:, 0] * 16, theirs.images)
    np.testing.assert_array_equal(d.y, theirs.target)


def test_the_split_is_fixed_disjoint_and_even():
    train, test, everything = digits("train"), digits("test"), digits()
    assert len(train) == 1500 and len(test) == 297
    rows = {r.tobytes() for r in everything.x}
    assert {r.tobytes() for r in train.x} | {r.tobytes() for r in test.x} == rows
    np.testing.assert_allclose(np.bincount(test.y), np.bincount(everything.y) * 297 / 1797, atol=1)
    # Pinned: a split that moves makes every published figure incomparable.
    np.testing.assert_array_equal(test.y[:12], [4, 5, 6, 7, 3, 9, 8, 1, 5, 0, 2, 7])
    assert (test.x * 16).sum(dtype=np.float64) == 92221


def test_unknown_split_names_the_three():
    with pytest.raises(ValueError, match="'all', 'train', 'test', got 'valid'"):
        digits("valid")


@pytest.mark.parametrize("content", [b"", b"not a zip", DIGITS_FILE.read_bytes()[:20000]])
def test_a_damaged_file_is_one_clear_error(tmp_path, content):
    bad = tmp_path / "digits.npz"
    bad.write_bytes(content)
    with pytest.raises(DataFileError, match="digits.npz.*install tinygen again"):
        _load(bad)
    with pytest.raises(DataFileError, match="install tinygen again"):
        _load(tmp_path / "absent.npz")


def test_an_archive_of_something_else(tmp_path):
    np.savez(tmp_path / "digits.npz", other=np.ones(3))
    with pytest.raises(DataFileError, match="install tinygen again"):
        _load(tmp_path / "digits.npz")

"""The .npy reader against NumPy's writer, damaged headers, and threads that read at once."""

import ast
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygen.data.digits import digits
from tinygen.npy import read_npy
from tinygen.serialization import load, save

DTYPES = (hnp.floating_dtypes() | hnp.integer_dtypes() | hnp.unsigned_integer_dtypes() | hnp.complex_number_dtypes()
          | hnp.boolean_dtypes() | hnp.datetime64_dtypes() | hnp.unicode_string_dtypes(min_len=1))  # fmt: skip


def written(array, version=(1, 0)):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def read(raw):
    return read_npy(io.BytesIO(raw), len(raw))


@given(st.data(), DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
def test_what_numpy_writes(data, dtype, shape):
    array = data.draw(hnp.arrays(dtype, shape))
    got = read(written(np.asarray(array, order="C")))
    assert (got.shape, got.dtype, got.tobytes()) == (array.shape, array.dtype, array.tobytes())
    assert got.flags.writeable


def test_an_array_of_several_chunks():
    array = np.random.default_rng(0).random((3, 1000, 100))
    np.testing.assert_array_equal(read(written(array)), array)


GOOD = written(np.arange(6, dtype="<f4").reshape(2, 3))


@pytest.mark.parametrize(("raw", "message"), [
    (b"", "expected a .npy file of version 1.0, got one that begins with b''"),
    (GOOD[:9], "expected a .npy file of version 1.0"),
    (b"PK" + GOOD[2:], "begins with b'PKUMPY"),
    (written(np.ones(2), (2, 0)), "expected a .npy file of version 1.0"),
    (GOOD[:60], "expected the header of a .npy file"),
    (GOOD.replace(b"'descr'", b"'desc' "), "expected the header of a .npy file"),
    (GOOD.replace(b"False", b"1 + 0"), "expected the header of a .npy file"),
    (GOOD.replace(b"(2, 3)", b"(2,-3)"), "expected the header of a .npy file"),
    (GOOD.replace(b"<f4", b"<f3"), "expected a dtype in the header, got '<f3'"),
    (GOOD.replace(b"(2, 3)", b"(2, 4)"), "expected the 32 bytes of float32(2, 4), got 24 bytes"),
    (GOOD[:-1], "expected the 24 bytes of float32(2, 3), got 23 bytes"),
    (GOOD + b"1", "got 25 bytes"),
    (written(np.ones((2, 3), order="F")), "expected an array in C order"),
    (written(np.ones(2, "f4,f4")), "expected the header of a .npy file"),
    (GOOD.replace(b"<f4", b"|O8"), "expected the header of a .npy file"),
])  # fmt: skip
def test_what_is_no_such_file_is_refused(raw, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(raw)


def test_a_size_that_the_file_does_not_have():
    with pytest.raises(ValueError, match="expected 24 bytes of data, got 20"):
        read_npy(io.BytesIO(GOOD[:-4]), len(GOOD))


def test_nothing_reads_through_pythons_compiler(tmp_path, monkeypatch):
    """In CPython 3.11 two threads in it at once can fail, and both of these are read by trainings in threads."""
    save({"w": np.ones((2, 3))}, tmp_path / "w.npz")

    def parse(*args, **kwargs):
        raise AssertionError("ast.parse was called")

    monkeypatch.setattr(ast, "parse", parse)
    with pytest.raises(AssertionError, match="ast.parse was called"):
        np.load(io.BytesIO(GOOD))
    assert load(tmp_path / "w.npz")["w"].shape == (2, 3)
    assert len(digits()) == 1797

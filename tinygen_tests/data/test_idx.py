"""The IDX reader: every dtype there and back; damage is DataFileError and nothing else."""

import gzip
import hashlib
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygen.data.errors import DataFileError
from tinygen.data.idx import content_md5, read_idx

DTYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


@pytest.fixture(scope="module")
def put(tmp_path_factory):
    """Write bytes to a file and return its path; one file, written again and again."""
    path = tmp_path_factory.mktemp("idx") / "some-idx3-ubyte"

    def write(content):
        path.write_bytes(content)
        return path

    return write


@given(array=arrays, zipped=st.booleans())
def test_round_trip(put, idx_bytes, array, zipped):
    content = idx_bytes(array)
    back = read_idx(put(gzip.compress(content) if zipped else content))
    assert back.dtype == array.dtype and back.dtype.isnative and back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


@given(array=arrays)
def test_the_md5_of_the_contents_is_that_of_the_plain_file(idx_bytes, array):
    assert content_md5(array) == hashlib.md5(idx_bytes(array), usedforsecurity=False).hexdigest()
    assert content_md5(array.T) == hashlib.md5(idx_bytes(array.T), usedforsecurity=False).hexdigest()


def test_the_worked_bytes_of_each_dtype(put):
    for code, value, expected in [
        (0x08, b"\xff", 255),
        (0x09, b"\xff", -1),
        (0x0B, b"\x01\x02", 258),
        (0x0C, b"\xff\xff\xff\xfe", -2),
        (0x0D, struct.pack(">f", 1.5), 1.5),
        (0x0E, struct.pack(">d", -0.1), -0.1),
    ]:
        back = read_idx(put(bytes([0, 0, code, 1, 0, 0, 0, 1]) + value))
        assert back.tolist() == [expected]


@given(array=arrays, zipped=st.booleans(), data=st.data())
def test_any_truncation_is_the_clear_error(put, idx_bytes, array, zipped, data):
    content = gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array)
    cut = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(DataFileError, match="some-idx3-ubyte"):
        read_idx(put(content[:cut]))


@given(array=arrays, zipped=st.booleans(), extra=st.binary(min_size=1, max_size=9))
def test_bytes_after_the_end_are_the_clear_error(put, idx_bytes, array, zipped, extra):
    content = idx_bytes(array) + extra
    with pytest.raises(DataFileError, match="has more than that"):
        read_idx(put(gzip.compress(content) if zipped else content))


@settings(max_examples=120)
@given(array=arrays, zipped=st.booleans(), data=st.data())
def test_a_flipped_bit_gives_the_clear_error_or_values(put, idx_bytes, array, zipped, data):
    content = bytearray(gzip.compress(idx_bytes(array), mtime=0) if zipped else idx_bytes(array))
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path = put(bytes(content))
    if not zipped and bit // 8 >= 4 + 4 * array.ndim:  # in the values: nothing can notice, one value differs
        back = read_idx(path)
        assert back.shape == array.shape and back.dtype == array.dtype
        changed = np.frombuffer(back.tobytes(), np.uint8) != np.frombuffer(array.tobytes(), np.uint8)
        assert changed.sum() == 1
        return
    try:
        back = read_idx(path)
    except DataFileError:
        return
    if zipped:  # only parts of the gzip header that carry no data, such as its time, may be wrong unnoticed
        np.testing.assert_array_equal(back, array)


@given(content=st.binary(max_size=60))
def test_arbitrary_bytes_never_raise_anything_else(put, content):
    try:
        read_idx(put(content))
    except DataFileError:
        pass


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("sizes", [(2**32 - 1, 2**32 - 1, 2**32 - 1), (0, 2**32 - 1, 2**32 - 1)])
def test_a_header_that_promises_too_much_reserves_no_memory(put, zipped, sizes):
    content = bytes([0, 0, 0x0E, 3]) + struct.pack(">3I", *sizes) + bytes(8 if sizes[0] else 0)
    with pytest.raises(DataFileError):
        read_idx(put(gzip.compress(content) if zipped else content))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "it is empty"),
        (b"\0\0\x08", "starts with the bytes 00 00 08"),
        (b"\0\0\x0a\x01", "dtype code of 0x08, 0x09.*starts with the bytes 00 00 0a 01"),
        (b"\0\0\x08\x41" + bytes(400), "at most 64 dimensions"),
        (b"<!DOCTYPE html>", "web page"),
        (b"PK\x03\x04", "zip archive"),
        (b"\0\0\x08\x03\0\0", r"sizes of 3 dimensions \(12 bytes\).*after 2 of them"),
        (b"\0\0\x0b\x01\0\0\0\x03abcde", r"int16 of shape \(3,\), so 6 bytes.*ends after 5"),
        (b"\x1f\x8b\x08", "gzip file, but it is damaged or cut short"),
        (b"\x1f\x8bnonsense", "gzip file, but it is damaged"),
    ],
)
def test_what_the_message_says(put, content, message):
    with pytest.raises(DataFileError, match=message) as caught:
        read_idx(put(content))
    assert "some-idx3-ubyte" in str(caught.value)


def test_a_label_file_given_as_images_and_another_dtype(put, idx_bytes):
    labels = idx_bytes(np.arange(5, dtype=np.uint8))
    with pytest.raises(
        DataFileError,
        match=r"expected 3 dimensions, as an image file does, but it holds 1, shape "
        r"\(5,\), as a label file does; is it under the wrong name",
    ):
        read_idx(put(labels), ndim=3)
    images = idx_bytes(np.zeros((2, 3, 3), np.float32))
    with pytest.raises(DataFileError, match="expected 1 dimension, as a label file does, but it holds 3"):
        read_idx(put(images), ndim=1)
    with pytest.raises(DataFileError, match="expected uint8 values, but it holds float32"):
        read_idx(put(images), ndim=3, dtype=np.uint8)


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(DataFileError, match="cannot be read: Is a directory"):
        read_idx(tmp_path)
    with pytest.raises(DataFileError, match="cannot be read: No such file"):
        read_idx(os.fspath(tmp_path / "absent"))

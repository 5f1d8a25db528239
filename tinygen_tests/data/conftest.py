"""IDX files for tests, written from the format's description and independently of the reader."""

import struct

import numpy as np
import pytest

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


@pytest.fixture(scope="session")
def idx_bytes():
    """A function: array -> the bytes of the IDX file that holds it."""

    def write(array: np.ndarray) -> bytes:
        header = bytes([0, 0, CODES[array.dtype.name], array.ndim])
        sizes = b"".join(struct.pack(">I", n) for n in array.shape)
        return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()

    return write

"""IDX, the file format of MNIST: a header that states dtype and shape, then the numbers, big endian.

    byte 0, 1   0, 0
    byte 2      the dtype code, see DTYPES
    byte 3      d, the number of dimensions
    then        d unsigned 32-bit sizes, the slowest axis first
    then        the values, row by row

There is no checksum in it: a changed value looks like any other. In a gzip a changed byte is found (CRC-32, and the
length); in a plain file only one that makes the header and the length contradict each other. :func:`content_md5` lets
whoever knows what should be in a file find the rest.

Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits ("The IDX file format").
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tinygen.data.errors import DataFileError

DTYPES: dict[int, np.dtype] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
GZIP_MAGIC = b"\x1f\x8b"
MAX_DIMENSIONS = 64  # NumPy's limit
CHUNK = 1 << 20


def read_idx(
    path: str | os.PathLike[str], *, dtype: np.dtype | type | None = None, ndim: int | None = None
) -> np.ndarray:
    """Read one IDX file, plain or gzip (told apart by the first two bytes, not by the name).

    Args:
        path: the file.
        dtype: what the caller needs; a file that holds anything else is refused. None takes what comes.
        ndim: how many dimensions the caller needs; likewise.

    Returns:
        An array of the shape the header states, in the machine's own byte order: uint8, int8, int16, int32,
        float32 or float64.

    Raises:
        DataFileError: the file cannot be opened, is no IDX file, is a damaged gzip, is shorter or longer than
            its header says, or does not hold the dtype or number of dimensions asked for. No other exception
            leaves this function, whatever the bytes are.
    """
    path = Path(path)
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            if not zipped:
                return _read(raw, path, dtype, ndim)
            with gzip.GzipFile(fileobj=raw) as stream:
                return _read(stream, path, dtype, ndim)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error, struct.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataFileError(
                f"{path}: cannot be read: {error.strerror}; check the path and the permissions"
            ) from error
        raise DataFileError(
            f"{path}: expected a whole gzip file, but it is damaged or cut short ({error}); download it again"
        ) from error


def content_md5(array: np.ndarray) -> str:
    """The MD5 of the plain IDX file that holds ``array``: what ``md5sum`` says of it, and of a gzip once unpacked.

    Args:
        array: as :func:`read_idx` gives it, of one of the six dtypes.
    """
    code = next(code for code, dtype in DTYPES.items() if dtype == array.dtype.newbyteorder(">"))
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    md5 = hashlib.md5(header, usedforsecurity=False)
    md5.update(np.ascontiguousarray(array, DTYPES[code]).data)
    return md5.hexdigest()


def _read(stream: BinaryIO, path: Path, dtype: np.dtype | type | None, ndim: int | None) -> np.ndarray:
    magic = _take(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or magic[3] > MAX_DIMENSIONS:
        raise DataFileError(
            f"{path}: expected an IDX file (two zero bytes, a dtype code of "
            f"{', '.join(f'0x{code:02X}' for code in DTYPES)}, and at most {MAX_DIMENSIONS} dimensions), "
            f"but it starts with {_first_bytes(magic)}; {_hint(magic)}"
        )
    stored, d = DTYPES[magic[2]], magic[3]
    sizes = _take(stream, 4 * d)
    if len(sizes) < 4 * d:
        raise DataFileError(
            f"{path}: expected the sizes of {d} dimensions ({4 * d} bytes) after the magic number, "
            f"but the file ends after {len(sizes)} of them; it is cut short: download it again"
        )
    shape = struct.unpack(f">{d}I", sizes)
    _check_request(path, stored, shape, dtype, ndim)

    expected = math.prod(shape) * stored.itemsize
    body = _take(stream, expected + 1)  # one byte more than wanted shows a file that goes on
    if len(body) != expected:
        state = (
            "has more than that: it is not what its header says"
            if len(body) > expected
            else f"ends after {len(body):,}: it is cut short"
        )
        raise DataFileError(
            f"{path}: its header says {stored.name} of shape {shape}, so {expected:,} bytes of values "
            f"were expected, but the file {state}; download it again"
        )
    try:
        return np.frombuffer(body, stored).reshape(shape).astype(stored.newbyteorder("="))
    except (ValueError, OverflowError) as error:
        # Sizes such as (0, 2³²−1, 2³²−1) need no bytes and are still too large for NumPy.
        raise DataFileError(
            f"{path}: its header says shape {shape}, which NumPy cannot hold ({error}); download it again"
        ) from error


def _take(stream: BinaryIO, n: int) -> bytes:
    """At most n bytes, in chunks: a damaged header that promises 2⁶⁰ bytes reserves no memory for them."""
    parts, left = [], n
    while left > 0 and (part := stream.read(min(left, CHUNK))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _check_request(
    path: Path, stored: np.dtype, shape: tuple[int, ...], dtype: np.dtype | type | None, ndim: int | None
) -> None:
    kinds = {1: "as a label file does", 3: "as an image file does"}
    if ndim is not None and len(shape) != ndim:
        raise DataFileError(
            f"{path}: expected {ndim} dimension{'s' * (ndim != 1)}, {kinds.get(ndim, 'as asked for')}, "
            f"but it holds {len(shape)}, shape {shape}"
            f"{', ' + kinds[len(shape)] if len(shape) in kinds else ''}; is it under the wrong name?"
        )
    if dtype is not None and stored.newbyteorder("=") != np.dtype(dtype):
        raise DataFileError(
            f"{path}: expected {np.dtype(dtype).name} values, but it holds {stored.name}; is it another data set?"
        )


def _first_bytes(start: bytes) -> str:
    return f"the bytes {start.hex(' ')}" if start else "nothing: it is empty"


def _hint(start: bytes) -> str:
    if start.lstrip()[:1] == b"<":
        return "that is a web page, probably an error page saved by a browser: download the file itself"
    if start[:2] == b"PK":
        return "that is a zip archive: unpack it first"
    return "download it again"

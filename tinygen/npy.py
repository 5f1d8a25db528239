"""The .npy format, read without Python's compiler.

numpy.load hands a member's header, the text of a dict, to ``ast.literal_eval``. In CPython 3.11 two threads in the
compiler at once can end in ``SystemError: AST constructor recursion depth mismatch``
(https://github.com/python/cpython/issues/106905), and trainings in several threads do read at the same time. The
header's form is fixed, so one regular expression reads it, and nothing in a file is ever evaluated.
"""

from __future__ import annotations

import math
import re
from typing import IO

import numpy as np

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    r"\{'descr': '([<>|][biufcSUMm]\d+(?:\[\w+\])?)', 'fortran_order': (False|True), "
    r"'shape': \((|\d+,|\d+(?:, \d+)+)\), \} *\n"
)
_CHUNK = 1 << 20


def read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """The array of a .npy file of version 1.0, as ``numpy.lib.format.write_array`` writes it in C order.

    ::

        93 'NUMPY' 01 00 | length of the header, 2 bytes, little endian | header | the array's bytes

    Nothing is allocated before the header agrees with the file's size.

    Args:
        file: at its beginning.
        size: how long the file is, in bytes.

    Raises:
        ValueError: it is no .npy file of version 1.0, its header is damaged, its array is in Fortran order, of
            Python objects or of records, or the size is not that of the array.

    Source: NumPy Enhancement Proposal 1, *A Simple File Format for NumPy Arrays*.
    """
    start = file.read(len(_MAGIC) + 2)
    if len(start) != len(_MAGIC) + 2 or not start.startswith(_MAGIC):
        raise ValueError(f"expected a .npy file of version 1.0, got one that begins with {start!r}")
    raw = file.read(int.from_bytes(start[-2:], "little"))
    match = _HEADER.fullmatch(raw.decode("latin1"))
    if match is None:
        raise ValueError(f"expected the header of a .npy file, got {raw[:100]!r}")
    descr, fortran, lengths = match.groups()
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a dtype in the header, got {descr!r} ({error})") from error
    if fortran == "True":
        raise ValueError("expected an array in C order, got one in Fortran order")
    shape = tuple(map(int, lengths.rstrip(",").split(", "))) if lengths else ()
    left = size - len(start) - len(raw)
    if left != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"expected the {math.prod(shape) * dtype.itemsize} bytes of {dtype}{shape}, got {left} bytes")
    array = np.empty(shape, dtype)
    if left:
        body, at = array.reshape(-1).view(np.uint8), 0
        while chunk := file.read(_CHUNK):
            body[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            at += len(chunk)
        if at != left:
            raise ValueError(f"expected {left} bytes of data, got {at}")
    return array

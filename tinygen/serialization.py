"""save and load: nested values with arrays in them, as one .npz file that is whole, checked and never
pickled.

The file is a zip archive, so ``numpy.load`` and ``unzip`` open it too::

    metadata.json        what is stored and how it is nested; every array's member, shape and dtype
    model/0.weight.npy   one .npy member per array, in logical (C) order, uncompressed
    …
    (zip comment)        sha256:<64 hex digits> over every byte of the file before the digits: the seal

The seal covers headers as well as data, so one flipped bit anywhere is found before anything is parsed; and
the file holds neither a clock nor a path, so equal contents give equal bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tinygen.backend import (
    CPU,
    DeviceError,
    array_module,
    device,
    device_of,
    is_array,
    module_for,
    move,
    to_numpy,
)
from tinygen.files import whole_file
from tinygen.npy import read_npy
from tinygen.tensor import Tensor

FORMAT = "tinygen"
VERSION = 1
_METADATA = "metadata.json"
_SEAL = b"sha256:"
_HEX_DIGITS = 64
_SCALAR_KEYS = (str, int, float, type(None))
_DEEPEST = 200  # far below Python's own recursion limit, for writing, json and reading alike
_EXACT_IN_JSON = 2**53  # beyond it other JSON readers round integers
_CHUNK = 1 << 20


class CheckpointError(ValueError):
    """A file is not what it should be: damaged, cut short, from a newer format, or of another model.

    The message names the file, says what is wrong with it and what to do.
    """


class DamagedError(CheckpointError):
    """A file is cut short, has changed since it was written, or never was tinygen's.

    Args:
        what: the file and what is wrong with it; kept as an attribute.
        advice: what to do.
    """

    def __init__(self, what: str, advice: str = "use a backup or save it again") -> None:
        super().__init__(f"{what}; {advice}")
        self.what = what


# ------------------------------------------------------------------------------------------ public face


def save(obj: Any, f: str | os.PathLike[str]) -> None:
    """Write ``obj`` to the file ``f``: nested dicts, lists and tuples of tensors, arrays and plain values.

    Plain values are numbers (integers of any size, nan and ±inf), strings, bools and None. Everything comes
    back from :func:`load` bit for bit: dtype, byte order, memory order, NaN payloads, −0.0, empty and 0-d
    arrays; tensors as tensors (a Parameter as a plain Tensor), NumPy scalars as NumPy scalars. Subclasses of
    dict, list, tuple, str, int and float come back as the base type.

    The file is written whole or not at all: to a temporary neighbour, synced, then renamed over ``f``; when
    writing fails, what stood there before still stands there.

    Args:
        obj: what to write; for a model or an optimizer, its ``state_dict()``.
        f: the path; ``.npz`` by custom.

    Raises:
        TypeError: something in obj is of another type (object arrays included: they would need pickle), or f
            is not a path.
        ValueError: obj contains itself or is nested deeper than 200 levels.
        OSError: the file cannot be written (folder missing or read-only, disk full).

    Source: ``torch.save``; the .npy and .npz formats are NumPy's (NEP 1).
    """
    write_file(f, "object", obj)


def load(f: str | os.PathLike[str], map_location: str | None = None) -> Any:
    """Read what :func:`save` wrote; every byte is checked before anything is believed.

    Args:
        f: the path.
        map_location: the device for every tensor and array, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; None puts
            each where it was when it was saved.

    Raises:
        CheckpointError: the file is truncated, damaged, not from :func:`save` (these are DamagedError, one kind of
            it), or in a newer format.
        FileNotFoundError, OSError: it cannot be read.
        DeviceError: a GPU is needed and cannot be used (``map_location="cpu"`` needs none).
        TypeError, ValueError: f is not a path, or map_location not a device.

    Source: ``torch.load``.
    """
    return read_file(f, map_location)[1]


# ------------------------------------------------------------------------------------- the file's shell


def write_file(
    f: str | os.PathLike[str], kind: str, content: Any, previous: str | os.PathLike[str] | None = None
) -> None:
    """Write ``content`` as a sealed file of one kind; :func:`save` and the training checkpoints share it.

    What stood there before is kept as ``previous``, where that is a name (see :func:`tinygen.files.whole_file`).

    Raises: as :func:`save`.
    """
    path = _as_path(f, "save")
    writer = _Writer()
    tree = writer.encode(content, (), 0)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "tinygen": _own_version(),
        "numpy": np.__version__,
        "python": sys.version.partition(" ")[0],
        "content": tree,
    }
    text = json.dumps(metadata, allow_nan=False).encode()
    with whole_file(path, previous) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.comment = _SEAL + b"0" * _HEX_DIGITS
            with archive.open(_member(_METADATA, len(text)), "w") as member:
                member.write(text)
            for name, array in writer.members.items():
                host = np.asarray(to_numpy(array), order="C")
                # The size tells zipfile when a member needs the 64-bit form; 4 KiB is room for the header.
                with archive.open(_member(f"{name}.npy", host.nbytes + 4096), "w") as member:
                    np.lib.format.write_array(member, host, version=(1, 0), allow_pickle=False)
        file.seek(-_HEX_DIGITS, os.SEEK_END)
        digest = _digest(file, file.tell())
        file.seek(-_HEX_DIGITS, os.SEEK_END)
        file.write(digest)


def read_file(f: str | os.PathLike[str], map_location: str | None = None) -> tuple[str, Any]:
    """Read and check a sealed file: its kind and its content.

    Raises: as :func:`load`.
    """
    path = _as_path(f, "load")
    target = None if map_location is None else device(map_location)
    if target is not None:
        module_for(target)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, and load needs a file", str(path))
    with open(path, "rb") as file:
        _check_seal(file, path)
        try:
            with zipfile.ZipFile(file) as archive:
                metadata = _read_metadata(archive, path)
                reader = _Reader(archive, target)
                content = reader.decode(metadata["content"])
                reader.finish()
                return str(metadata["kind"]), content
        except (CheckpointError, DeviceError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # the disk's trouble; EINVAL is zipfile's, sent to a negative offset
            # Sealed, yet not what write_file writes: edited by hand or by another program. Whatever a
            # malformed zip, JSON or .npy raises (zipfile alone has six types) means the same to the caller.
            raise DamagedError(
                f"{path} does not hold what tinygen writes ({error}): it was changed after it was saved"
            ) from error


def _check_seal(file: BinaryIO, path: Path) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        what = "is empty" if size == 0 else "is not an .npz file written by tinygen.save"
        raise DamagedError(f"{path} {what}")
    end = size - _HEX_DIGITS
    file.seek(max(end - len(_SEAL), 0))
    if file.read(len(_SEAL)) != _SEAL:
        raise DamagedError(
            f"{path} does not end in tinygen's seal: it was cut short or damaged, or it is a plain .npz",
            "use a backup or save it again; a plain .npz is read by numpy.load",
        )
    if file.read(_HEX_DIGITS) != _digest(file, end):
        raise DamagedError(f"{path} is damaged: its contents do not match their SHA-256 seal")


def _digest(file: BinaryIO, end: int) -> bytes:
    """SHA-256 of the file's first ``end`` bytes, as hex digits."""
    sha = hashlib.sha256()
    file.seek(0)
    while end > 0:
        chunk = file.read(min(end, _CHUNK))
        if not chunk:
            break
        sha.update(chunk)
        end -= len(chunk)
    return sha.hexdigest().encode()


def _read_metadata(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    metadata = json.loads(archive.read(_METADATA))
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError("metadata.json is not tinygen's")
    version = metadata["version"]
    if type(version) is not int:
        raise ValueError(f"the format version is {version!r}")
    if version > VERSION:
        raise CheckpointError(
            f"{path} has format version {version} (written by tinygen {metadata.get('tinygen')}), and this "
            f"tinygen, {_own_version()}, reads versions up to {VERSION}; update tinygen"
        )
    return metadata


def _member(name: str, size: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # dated 1980: equal contents give equal bytes
    info.external_attr = 0o644 << 16
    info.file_size = size
    return info


def _as_path(f: Any, caller: str) -> Path:
    if not isinstance(f, (str, os.PathLike)):
        raise TypeError(f"{caller}: f must be a path (str or os.PathLike), got {type(f).__name__}")
    return Path(f)


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # here, because it is slow to import

    try:
        return version("tinygen")
    except PackageNotFoundError:
        return "unknown"


# ------------------------------------------------------------------------------- values ⇄ JSON and arrays
#
# JSON's own types stand for themselves; anything else is an object whose first key starts with "$":
#   {"$tuple": […]}  {"$dict": [[key, value], …]} where a key is no string  {"$int": "0x…"}  {"$float":
# "7ff8…"}   {"$complex": […]}  {"$tensor" | "$array" | "$scalar": member, "shape": […], "dtype": "<f4", …}


class _Writer:
    """Turns a value into JSON, and collects the arrays met on the way."""

    def __init__(self) -> None:
        self.members: dict[str, Any] = {}
        self._taken: set[str] = set()

    def encode(self, value: Any, where: tuple[Any, ...], depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError(
                f"save: the value contains itself or is nested deeper than {_DEEPEST} levels, at "
                f"{_place(where[:4])}…"
            )
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, np.generic):
            return self._array("$scalar", np.asarray(value), where)
        if isinstance(value, Tensor):
            node = self._array("$tensor", value.data, where)
            if value.requires_grad:
                node["requires_grad"] = True
            return node
        if is_array(value):
            return self._array("$array", value, where)
        if isinstance(value, str):
            return str(value)
        if isinstance(value, int):
            return int(value) if abs(value) < _EXACT_IN_JSON else {"$int": hex(value)}
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
        if isinstance(value, complex):
            return {"$complex": [self.encode(part, where, depth + 1) for part in (value.real, value.imag)]}
        if isinstance(value, tuple):
            return {"$tuple": [self.encode(v, (*where, i), depth + 1) for i, v in enumerate(value)]}
        if isinstance(value, list):
            return [self.encode(v, (*where, i), depth + 1) for i, v in enumerate(value)]
        if isinstance(value, dict):
            return self._dict(value, where, depth)
        advice = "convert it to an array, a number or a string"
        if hasattr(value, "state_dict"):
            advice = "save its state_dict()"
        raise TypeError(
            f"save: {_place(where)} is a {type(value).__module__}.{type(value).__qualname__}; a file holds "
            f"dicts, lists, tuples, tensors, arrays, numbers, strings, bools and None: {advice}"
        )

    def _dict(self, value: dict, where: tuple[Any, ...], depth: int) -> Any:
        for key in value:
            if not isinstance(key, _SCALAR_KEYS) or isinstance(key, np.generic):
                raise TypeError(
                    f"save: {_place(where)} has the key {key!r}; keys must be strings, numbers, bools or None"
                )
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {str(key): self.encode(v, (*where, key), depth + 1) for key, v in value.items()}
        return {"$dict": [[self.encode(key, where, depth + 1), self.encode(v, (*where, key), depth + 1)]
                          for key, v in value.items()]}

    def _array(self, tag: str, array: Any, where: tuple[Any, ...]) -> dict[str, Any]:
        dtype = array.dtype
        if isinstance(array, np.ndarray) and type(array) not in (np.ndarray, np.memmap):
            raise TypeError(
                f"save: {_place(where)} is a {type(array).__name__}, of which a file would keep only the "
                "plain array; pass numpy.asarray(it), and a mask as an array of its own"
            )
        if dtype.kind not in "biufcSUMm" or np.dtype(dtype.str) != dtype:
            raise TypeError(
                f"save: {_place(where)} is an array of dtype {dtype}; a file holds arrays of numbers, bools, "
                "dates and fixed-length strings, not of objects (they would need pickle) or records"
            )
        name = self._name(where)
        self.members[name] = array
        node: dict[str, Any] = {tag: name, "shape": list(array.shape), "dtype": dtype.str}
        if (place := device_of(array)) != CPU:
            node["device"] = str(place)
        if order := _memory_order(array):
            node["order"] = order
        return node

    def _name(self, where: tuple[Any, ...]) -> str:
        """A readable, unique member name from the keys that lead to the array, safe on any file system."""
        parts = [re.sub(r"[^A-Za-z0-9_.\-]", "_", str(key))[:80].strip(".") or "_" for key in where]
        stem = "/".join(parts[-8:]) or "value"
        name, n = stem, 1
        while name.lower() in self._taken:  # some file systems do not tell a from A
            n += 1
            name = f"{stem}~{n}"
        self._taken.add(name.lower())
        return name


class _Reader:
    """Turns JSON back into the value, and reads and checks each array on the way."""

    def __init__(self, archive: zipfile.ZipFile, target: device | None) -> None:
        self.archive = archive
        self.target = target
        self.unread = set(archive.namelist()) - {_METADATA}

    def finish(self) -> None:
        if self.unread:
            raise ValueError(f"the metadata does not mention the member {min(self.unread)}")

    def decode(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.decode(v) for v in node]
        if not isinstance(node, dict):
            return node
        tag = next(iter(node), "")
        if not tag.startswith("$"):
            return {key: self.decode(v) for key, v in node.items()}
        body = node[tag]
        if tag == "$tuple":
            return tuple(self.decode(v) for v in body)
        if tag == "$dict":
            return {self.decode(key): self.decode(v) for key, v in body}
        if tag == "$int":
            return int(body, 16)
        if tag == "$float":
            return struct.unpack(">d", bytes.fromhex(body))[0]
        if tag == "$complex":
            real, imag = (self.decode(v) for v in body)
            return complex(real, imag)
        if tag in ("$tensor", "$array", "$scalar"):
            array = self._array(node, body)
            if tag == "$scalar":
                return array[()]
            array = self._place(array, node)
            return Tensor(array, bool(node.get("requires_grad", False))) if tag == "$tensor" else array
        raise ValueError(f"the metadata holds a {tag}, which this version does not know")

    def _array(self, node: dict[str, Any], name: str) -> np.ndarray:
        shape, dtype = tuple(node["shape"]), np.dtype(node["dtype"])
        member = f"{name}.npy"
        if member not in self.unread:
            raise ValueError(f"the array {member} is missing")
        self.unread.remove(member)
        with self.archive.open(member) as file:
            array = read_npy(file, self.archive.getinfo(member).file_size)
        if (array.shape, array.dtype) != (shape, dtype):
            raise ValueError(f"{member} holds {array.dtype}{array.shape} where the metadata say {dtype}{shape}")
        return array

    def _place(self, array: Any, node: dict[str, Any]) -> Any:
        """On its device, in its memory order."""
        target = self.target or device(node.get("device", "cpu"))
        try:
            array = move(array, target)
        except MemoryError:
            raise
        except Exception as error:  # CuPy's own types, which exist only where it can be imported
            raise DeviceError(f'{error}; tinygen.load(..., map_location="cpu") needs no GPU') from error
        if order := node.get("order"):
            xp = array_module(array)
            array = xp.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order).tolist())
        return array


def _memory_order(array: Any) -> list[int] | None:
    """The axes from the slowest to the fastest in memory, or None where that is their logical order.

    Kept because results depend on it: sums and matrix products of an array in another memory order round
    differently, and a resumed run must repeat the uninterrupted one to the bit (channels-last weights!).
    """
    if array.ndim < 2 or array.flags.c_contiguous:
        return None
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    return order if order != list(range(array.ndim)) else None


def _place(where: tuple[Any, ...]) -> str:
    return "the value" + "".join(f"[{key!r}]" for key in where)

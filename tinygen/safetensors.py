"""save_file and load_file: a state_dict as a safetensors file, the format in which PyTorch models are exchanged.

    tg.safetensors.save_file(model.state_dict(), "model.safetensors")
    torch_model.load_state_dict(safetensors.torch.load_file("model.safetensors"))      # and the other way round

Needs the package safetensors (the extra of that name). The file is a header in JSON and then the arrays' bytes, in
C order and little endian. Such a file has no checksum; :func:`save_file` puts one into its metadata, where others
overlook it, and :func:`load_file` checks it where it finds one. For a run's checkpoints use ``tg.save``, which also
holds optimizers and generators.

Source: the safetensors format, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tinygen.backend import device as as_device
from tinygen.backend import is_array, module_for, move, to_numpy
from tinygen.files import whole_file
from tinygen.serialization import CheckpointError, DamagedError
from tinygen.tensor import Tensor

_CHECKSUM = "tinygen.sha256"
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "C64": "<c8", "BF16": "<u2",
}  # fmt: skip


def save_file(
    tensors: Mapping[str, Any], filename: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors to a safetensors file, whole or not at all.

    Whatever their memory order, the arrays are written in C order, as the format asks. (safetensors 0.8.0 writes the
    memory of an array as it lies, so that a transposed or strided one comes back as other numbers; here it is given
    contiguous copies, and what it made is read back and compared before the file appears.)

    Args:
        tensors: name → Tensor or array of numbers or bools, as ``state_dict()`` gives them; no nesting.
        filename: the path, ``.safetensors`` by custom.
        metadata: text to keep in the header, name → string.

    Raises:
        TypeError: tensors is not a mapping of strings to tensors, or metadata not of strings to strings; an array is
            of a dtype that the format lacks (complex128, dates, strings, objects).
        CheckpointError: the package gave back other numbers than it was given; nothing is written.
        OSError: the file cannot be written.
        ModuleNotFoundError: safetensors is not installed.

    Source: ``safetensors.torch.save_file``, of which this is the same face.
    """
    library = _library()
    arrays = {name: _plain(name, value) for name, value in _items(tensors)}
    about = {"format": "pt", **_text(metadata or {})}
    about[_CHECKSUM] = _checksum(arrays)
    data = library.numpy.save(arrays, metadata=about)
    found, _ = _parse(library, data, filename)
    wrong = [name for name, array in arrays.items() if not _same(found.get(name), array)]
    if wrong or len(found) != len(arrays):
        raise CheckpointError(
            f"save_file: safetensors {library.__version__} gives back other numbers than it was given, for "
            f"{', '.join(wrong) or 'too many tensors'}; nothing was written. Install another version of it"
        )
    with whole_file(filename) as file:
        file.write(data)


def load_file(filename: str | os.PathLike[str], device: str = "cpu") -> dict[str, Tensor]:
    """Read a safetensors file: name → Tensor, in the file's dtypes; bfloat16, which NumPy lacks, as float32, exactly.

    Args:
        filename: the path.
        device: where the tensors go, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises:
        DamagedError: the file is cut short, is no safetensors file, or does not match the checksum that
            :func:`save_file` puts into it. In files of other programs, which have none, a changed number is not found.
        CheckpointError: a tensor is of a dtype that NumPy lacks (the message names all of them).
        FileNotFoundError, OSError: it cannot be read.
        DeviceError: the device cannot be used.
        ModuleNotFoundError: safetensors is not installed.

    Source: ``safetensors.torch.load_file``, of which this is the same face.
    """
    library, path = _library(), Path(filename)
    target = as_device(device)
    module_for(target)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, and load_file needs a file", str(path))
    arrays, about = _parse(library, path.read_bytes(), path)
    if _CHECKSUM in about and about[_CHECKSUM] != _checksum(arrays):
        raise DamagedError(f"{path} is damaged: its tensors do not match their SHA-256 checksum")
    return {name: Tensor(move(array, target)) for name, array in arrays.items()}


# --------------------------------------------------------------------------------------------- writing


def _items(tensors: Any) -> list[tuple[str, Any]]:
    if not isinstance(tensors, Mapping):
        raise TypeError(f"save_file: tensors must be a state_dict, name → Tensor, got {type(tensors).__name__}")
    for name in tensors:
        if not isinstance(name, str) or name == "__metadata__":
            raise TypeError(f"save_file: a tensor's name must be a string other than '__metadata__', got {name!r}")
    return sorted(tensors.items())


def _plain(name: str, value: Any) -> np.ndarray:
    """The numbers as a C-contiguous, little-endian array on the CPU."""
    array = value.data if isinstance(value, Tensor) else value
    if not is_array(array) and not isinstance(array, np.generic):
        raise TypeError(
            f"save_file: {name} is a {type(value).__name__}; a safetensors file holds tensors only, by name (an "
            "optimizer's or a run's state goes into a file of tinygen.save)"
        )
    host = np.asarray(to_numpy(array))
    dtype = host.dtype.newbyteorder("<")
    if dtype.str not in _DTYPES.values():
        raise TypeError(f"save_file: {name} has dtype {host.dtype}, which a safetensors file cannot hold")
    return np.array(host, dtype, order="C")  # always a copy: ascontiguousarray would give a 0-d array an axis


def _text(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, Mapping) or not all(isinstance(x, str) for pair in metadata.items() for x in pair):
        raise TypeError("save_file: metadata must map strings to strings; turn numbers into text")
    return dict(metadata)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over all names, dtypes, shapes and bytes."""
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def _same(a: np.ndarray | None, b: np.ndarray) -> bool:
    return a is not None and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# --------------------------------------------------------------------------------------------- reading


def _parse(library: ModuleType, data: bytes, path: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata in a file's bytes."""
    try:
        found = library.deserialize(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = header.get("__metadata__") or {}
    except Exception as error:  # the package's own type, and whatever its parts in Rust raise
        what = "is empty" if not data else f"is no whole safetensors file ({error})"
        raise DamagedError(f"{path} {what}") from error
    found.sort(key=lambda pair: pair[0])
    foreign = [f"{name} ({tensor['dtype']})" for name, tensor in found if tensor["dtype"] not in _DTYPES]
    if foreign:
        raise CheckpointError(
            f"{path} holds tensors of dtypes that NumPy lacks: {', '.join(foreign)}; convert them where they were "
            "made (in PyTorch: tensor.float())"
        )
    arrays = {}
    for name, tensor in found:
        array = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        if tensor["dtype"] == "BF16":  # the upper half of a float32
            array = (array.astype("<u4") << 16).view("<f4")
        arrays[name] = array.astype(array.dtype.newbyteorder("="))  # a copy that may be written to
    return arrays, about


def _library() -> ModuleType:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "safetensors files need the package safetensors: python -m pip install safetensors", name=error.name
        ) from error
    return safetensors

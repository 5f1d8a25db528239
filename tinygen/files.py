"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write (and re-read) that takes its place at ``path`` only once it is complete and on disk.

    It is a temporary neighbour until the block ends; then it is synced and renamed over ``path``. If anything
    fails, it is removed and what was at ``path`` stays.

    Raises:
        OSError: the folder does not exist or cannot be written, or the disk is full.
    """
    path = Path(os.path.realpath(path))  # a symbolic link keeps pointing at the file it names
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, and a file name is needed", str(path))
    temporary = path.with_name(temporary_name(path.name, os.urandom(4).hex()))
    try:
        # 0o666 less the umask, the permissions of any other new file; tempfile would make it private.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(temporary, flags, 0o666)
    except OSError as error:  # of the file that was asked for, not of its neighbour
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from None
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


def temporary_name(name: str, unique: str) -> str:
    """The name of a temporary neighbour of the file ``name``; ``unique="*"`` gives the pattern of all."""
    return f".{name}.{unique}.tmp"


def _sync_folder(folder: Path) -> None:
    """Ask for the rename itself to survive a power cut; systems that cannot open a folder need no asking."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)

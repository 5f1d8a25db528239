"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@contextmanager
def whole_file(
    path: str | os.PathLike[str], previous: str | os.PathLike[str] | None = None
) -> Iterator[BinaryIO]:
    """A file to write (and re-read) that takes its place at ``path`` only once it is complete and on disk.

    It is a temporary neighbour until the block ends; then it is synced and renamed over ``path``. If anything
    fails, it is removed and what was at ``path`` stays.

    Args:
        path: the file.
        previous: a name in the same folder under which what was at ``path`` is kept, replacing what was there.
            There is no instant at which neither holds a whole file.

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
        if previous is not None:
            keep_as(path, path.with_name(Path(previous).name))
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def keep_as(path: Path, other: Path) -> None:
    """Let ``other``, in the same folder, be a second name of the file at ``path``, in place of what it was before.

    Where the file system has no second names, the file is renamed. Nothing happens where there is no file.

    Raises:
        OSError: the folder cannot be written.
    """
    if not path.exists():
        return
    link = other.with_name(temporary_name(other.name, os.urandom(4).hex()))
    try:
        os.link(path, link)
    except OSError:
        os.replace(path, other)
        return
    os.replace(link, other)
    link.unlink(missing_ok=True)  # where both named one file already, POSIX's rename leaves both names


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder, and those above it, where there is none, so that a power cut does not take it away again.

    Raises:
        OSError: it cannot be made, or is a file.
    """
    folder = Path(folder)
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:
        sync_folder(path.parent)


def temporary_name(name: str, unique: str) -> str:
    """The name of a temporary neighbour of the file ``name``; ``unique`` is eight hexadecimal digits."""
    return f".{name}.{unique}.tmp"


def remove_temporaries(folder: str | os.PathLike[str]) -> list[str]:
    """Remove what writers that were killed have left in a folder; their names.

    Only for a folder in which nobody else is writing at this moment.

    Raises:
        OSError: the folder cannot be read or written.
    """
    found = sorted(path for path in Path(folder).iterdir() if _TEMPORARY.fullmatch(path.name))
    for path in found:
        path.unlink(missing_ok=True)
    return [path.name for path in found]


def sync_folder(folder: Path) -> None:
    """Ask for renames in a folder to survive a power cut; systems that cannot open a folder need no asking."""
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

"""FolderLock: one run at a time writes in a folder, and a run that died holds nobody up.

The lock is the operating system's own (``flock``) on a small file: it ends with the process, however that ends, so
there are no stale locks to clear away. The file says who holds it, for the message that others get.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

LOCK_NAME = ".lock"
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}

# A process has its locks as it has its open files. Here, so that a notebook's cell that is run again gets the folder
# from the run that it made before; guarded, for runs in several threads.
_mine: weakref.WeakValueDictionary[str, FolderLock] = weakref.WeakValueDictionary()
_guard = threading.Lock()


class FolderInUseError(RuntimeError):
    """Another run is using the folder; the message says which process, and what to do."""


class FolderLockWarning(RuntimeWarning):
    """The folder's file system has no locks; the message says what may go unnoticed."""


class FolderLock:
    """The right to write in a folder; held from the making of this object until :meth:`release`.

    It is also released when the object is collected and when the process ends, in whatever way. Within one process
    a second lock takes the folder over from one that is not ``busy``.

    Args:
        folder: an existing folder.

    Attributes:
        busy: whether the folder may not be taken over within this process just now.

    Raises:
        FolderInUseError: another run has it.
        OSError: the folder does not exist or cannot be written.

    On a file system without locks (some network shares) the file's contents stand in for the lock: a holder on this
    machine that is dead is replaced, one on another machine is believed to live, and a warning says so.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LOCK_NAME
        self.busy = False
        key = os.path.realpath(self.folder)
        with _guard:
            mine = _mine.get(key)
            if mine is not None and mine.held:
                if mine.busy:
                    raise FolderInUseError(_in_use(self.folder, "by another run of this process"))
                mine.release()
            descriptor = self._acquire()
            self._finalizer = weakref.finalize(self, _release, descriptor, str(self.path), os.getpid())
            _mine[key] = self

    @property
    def held(self) -> bool:
        """Whether the folder is still this lock's."""
        return self._finalizer.alive

    def release(self) -> None:
        """Let others have the folder; releasing twice does nothing."""
        self.busy = False
        self._finalizer()

    def _acquire(self) -> int:
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise OSError(error.errno, f"cannot write there: {error.strerror}", str(self.folder)) from None
            try:
                locked = _lock(descriptor)
                if not locked:
                    self._trust_the_contents(descriptor)
                # Its last holder may have removed the file between our opening and our locking it.
                if _same_file(descriptor, self.path):
                    _write_holder(descriptor)
                    return descriptor
            except BaseException as error:
                os.close(descriptor)
                if isinstance(error, _HeldElsewhere):
                    raise FolderInUseError(_in_use(self.folder, _by(_read_holder(self.path)))) from None
                if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
                    error.filename = str(self.path)
                raise
            os.close(descriptor)

    def _trust_the_contents(self, descriptor: int) -> None:
        holder = _parse_holder(os.pread(descriptor, 4096, 0)) if hasattr(os, "pread") else None
        if holder is not None and _may_live(holder):
            elsewhere = holder.get("host") != socket.gethostname()
            advice = (
                f". This file system has no locks, so whether that run still goes on cannot be told from here: if it "
                f"does not, remove {self.path}"
            )
            raise FolderInUseError(_in_use(self.folder, _by(holder)) + (advice if elsewhere else ""))
        warnings.warn(
            f"{self.folder} is on a file system without locks: a run on another machine that uses this folder at the "
            "same time might not be noticed",
            FolderLockWarning,
            stacklevel=5,
        )


class _HeldElsewhere(Exception):
    """The operating system says that the file is locked."""


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _lock(descriptor: int) -> bool:
        """Lock one byte far behind the contents, which others may go on reading."""
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise _HeldElsewhere from error
        return True
else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        """Lock the file: True; False where the file system knows no locks."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise _HeldElsewhere from error
            if error.errno in _NO_LOCKS:
                return False
            raise
        return True


def _release(descriptor: int, path: str, pid: int) -> None:
    try:
        # A forked child has a copy of the descriptor; the lock and its file stay the parent's. A folder that is gone
        # or read-only by now keeps no lock either: that ends with the descriptor.
        if os.getpid() == pid:
            with suppress(OSError):
                os.unlink(path)
    finally:
        with suppress(OSError):
            os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "process began": _began(os.getpid()),
    }
    text = (json.dumps(holder) + "\n").encode()
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, text)


def _read_holder(path: Path) -> dict[str, Any] | None:
    try:
        return _parse_holder(path.read_bytes()[:4096])
    except OSError:
        return None


def _parse_holder(text: bytes) -> dict[str, Any] | None:
    try:
        holder = json.loads(text)
    except ValueError:
        return None
    return holder if isinstance(holder, dict) and type(holder.get("pid")) is int else None


def _may_live(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote this may still be there; what cannot be known from here may be."""
    pid = holder["pid"]
    if holder.get("host") != socket.gethostname() or sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another user's
    return holder.get("process began") == _began(pid)  # not another process that got its number


def _began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks since the machine started; None where that is not told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def _by(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "by another run"
    host = holder.get("host")
    where = "this machine" if host == socket.gethostname() else str(host)
    return f"by another run: process {holder['pid']} on {where}, since {holder.get('since')}"


def _in_use(folder: Path, by: str) -> str:
    return f"{folder} is in use {by}; wait for it, stop it, or choose another folder"

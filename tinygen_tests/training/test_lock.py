"""FolderLock: held by one, gone with its process, and honest where the file system has no locks."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tinygen.training import FolderInUseError, FolderLock
from tinygen.training import lock as lock_module

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.cpu_only("about files"),
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks and signals"),
]
HOLD = """
import sys, time
from tinygen.training import FolderLock
lock = FolderLock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def elsewhere(folder):
    """Another process that holds the folder's lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_held_released_and_taken_again(tmp_path):
    lock = FolderLock(tmp_path)
    assert lock.held and json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    lock.release()
    lock.release()
    assert not lock.held and os.listdir(tmp_path) == []
    second = FolderLock(tmp_path)
    del second  # collected
    assert os.listdir(tmp_path) == []


def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path):
    holder = elsewhere(tmp_path)
    try:
        with pytest.raises(FolderInUseError) as caught:
            FolderLock(tmp_path)
        for word in (str(tmp_path), f"process {holder.pid} on this machine, since 20", "another folder"):
            assert word in str(caught.value)
    finally:
        holder.kill()
        holder.communicate()
    assert (tmp_path / ".lock").exists(), "SIGKILL leaves the file"
    assert FolderLock(tmp_path).held


def test_within_a_process_only_a_busy_lock_stands_firm(tmp_path):
    first = FolderLock(tmp_path)
    second = FolderLock(tmp_path)
    assert second.held and not first.held
    second.busy = True
    with pytest.raises(FolderInUseError, match="in use by another run of this process"):
        FolderLock(tmp_path)
    link = tmp_path.with_name(tmp_path.name + "-link")
    link.symlink_to(tmp_path)
    with pytest.raises(FolderInUseError):  # the same folder by another name
        FolderLock(link)


def test_of_many_threads_one_gets_the_folder(tmp_path):
    got, refused = [], []
    start = threading.Barrier(8)

    def work():
        start.wait()
        try:
            lock = FolderLock(tmp_path)
            lock.busy = True
            got.append(lock)
        except FolderInUseError:
            refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    # between its making and "busy" a lock may be taken over; of those, one is left
    assert len(got) + len(refused) == 8 and sum(lock.held for lock in got) == 1


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="cannot write there") as caught:
        FolderLock(tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock_module.os, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        FolderLock(tmp_path)
    assert caught.value.filename == str(tmp_path / ".lock")
    monkeypatch.undo()
    assert FolderLock(tmp_path).held


def test_a_lock_file_removed_while_we_waited_is_made_anew(tmp_path, monkeypatch):
    """A run that ends removes the file: whoever had opened it before holds a lock on nothing."""
    real, times = lock_module._lock, []

    def lock(descriptor):
        if not times:
            os.unlink(tmp_path / ".lock")
        times.append(1)
        return real(descriptor)

    monkeypatch.setattr(lock_module, "_lock", lock)
    held = FolderLock(tmp_path)
    assert len(times) == 2 and (tmp_path / ".lock").exists()
    held.release()


def test_a_forked_child_does_not_release_its_parents_lock(tmp_path):
    script = """
import os, sys
from tinygen.training import FolderLock
lock = FolderLock(sys.argv[1])
if (child := os.fork()) == 0:
    lock.release()
    sys.exit()
os.waitpid(child, 0)
print(os.path.exists(lock.path), lock.held, flush=True)
sys.stdin.readline()
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "True True\n"
    with pytest.raises(FolderInUseError):
        FolderLock(tmp_path)
    process.communicate("\n")
    assert FolderLock(tmp_path).held


# ------------------------------------------------------------------------- file systems without locks


@pytest.fixture
def lockless(monkeypatch):
    """Network shares answer so."""
    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock_module.fcntl, "flock", flock)


def write(folder, **holder):
    began = lock_module._began(holder["pid"])
    (folder / ".lock").write_text(
        json.dumps({"host": socket.gethostname(), "since": "then", "process began": began} | holder)
    )


def test_without_locks_a_warning_says_so(tmp_path, lockless):
    with pytest.warns(RuntimeWarning, match="without locks"):
        lock = FolderLock(tmp_path)
    lock.release()
    assert os.listdir(tmp_path) == []


def test_without_locks_a_living_process_is_believed_and_a_dead_one_replaced(tmp_path, lockless):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    write(tmp_path, pid=process.pid)
    with pytest.raises(FolderInUseError, match=f"process {process.pid} on this machine, since then"):
        FolderLock(tmp_path)
    process.communicate()
    with pytest.warns(RuntimeWarning, match="without locks"):
        assert FolderLock(tmp_path).held


def test_without_locks_a_process_that_got_a_dead_ones_number_is_not_taken_for_it(tmp_path, lockless):
    write(tmp_path, **{"pid": os.getppid(), "process began": "1"})
    with pytest.warns(RuntimeWarning, match="without locks"):
        assert FolderLock(tmp_path).held


def test_without_locks_another_machine_is_believed_and_the_way_out_is_said(tmp_path, lockless):
    write(tmp_path, pid=1, host="elsewhere")
    with pytest.raises(FolderInUseError) as caught:
        FolderLock(tmp_path)
    for word in ("process 1 on elsewhere", "has no locks", "cannot be told from here", f"remove {tmp_path / '.lock'}"):
        assert word in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff\0"])
def test_without_locks_a_file_that_names_nobody_holds_nobody_up(tmp_path, lockless, text):
    (tmp_path / ".lock").write_bytes(text)
    with pytest.warns(RuntimeWarning, match="without locks"):
        assert FolderLock(tmp_path).held


def test_other_troubles_are_not_taken_for_missing_locks(tmp_path, monkeypatch):
    def flock(descriptor, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(lock_module.fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"):
        FolderLock(tmp_path)



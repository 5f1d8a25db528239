"""Data parallelism: ``mpirun -n 2 python -m demos ddpm`` trains one model in two processes, through mpi4py.

The arithmetic is in :mod:`tinygen.ranks`. Here is the rest: finding out that mpirun started us, and a :class:`Run` in
which all ranks begin with what rank 0 has, rank 0 alone writes, all stop at the same step, and none is left behind::

    ranks = join()                                   # None where mpirun did not start this process
    run = make_run(ranks, folder, steps, objects)    # a Run, or a ParallelRun
    for step in run: ...
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
import weakref
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tinygen.backend import to_numpy
from tinygen.data.loader import DataLoader
from tinygen.nn.module import Module
from tinygen.nn.normalization import InstanceNorm2d
from tinygen.optim.optimizer import Optimizer
from tinygen.random import Generator, default_generator
from tinygen.ranks import Ranks, together
from tinygen.training.checkpoint import Stateful, load_checkpoint, save_checkpoint
from tinygen.training.loop import Run

# How the launchers tell a process its place: Open MPI; MPICH, Intel MPI and srun --mpi=pmi2; MVAPICH.
_PLACES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)
_LOCAL = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK")


class ParallelError(RuntimeError):
    """Processes that were started together cannot train together; the message says what to do."""


def launched() -> tuple[int, int]:
    """(rank, size) as mpirun told this process; (0, 1) where nobody did."""
    for rank, size in _PLACES:
        if rank in os.environ and size in os.environ:
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def local_rank() -> int:
    """Which of the processes on this machine this is; for choosing a GPU."""
    return next((int(os.environ[name]) for name in _LOCAL if name in os.environ), 0)


def join() -> Ranks | None:
    """The processes that mpirun started with this one, or None where it runs alone.

    From here on an uncaught exception in one process ends all of them, and so does the end of one in mid-loop.

    Raises:
        ParallelError: mpirun started several processes, and mpi4py is not installed, or belongs to another MPI.
    """
    _, expected = launched()
    if expected == 1:
        return None
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ParallelError(_no_mpi(expected, error)) from error
    comm = MPI.COMM_WORLD
    if comm.size != expected:
        raise ParallelError(
            f"mpirun started {expected} processes, and mpi4py in each of them sees {comm.size}: it uses another MPI "
            f"library than this mpirun's, {MPI.Get_library_version().split(chr(10))[0].strip(chr(0))}; start with that "
            "one's mpirun, or install mpi4py for this one: python -m pip install --no-binary=mpi4py mpi4py"
        )
    global _joined
    if _joined is None:
        _joined = Ranks(comm.rank, comm.size, MPILink(MPI, comm))
        _end_together(_joined)
    return _joined


# Seconds in which mpirun passes on what a process wrote: once told to abort, it throws away what it has not read.
_FORWARDED = 0.5

_joined: Ranks | None = None  # what MPI_COMM_WORLD is: the process's, once and for all


def _no_mpi(expected: int, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "mpi4py":
        why = 'mpi4py, through which they would talk, is not installed: python -m pip install -e ".[mpi]"'
    else:
        why = f"mpi4py cannot be used: {error}"
    return f"mpirun started {expected} processes, and {why}. Without mpirun one process trains alone"


def _end_together(ranks: Ranks) -> None:
    """Let no process wait for one that is gone."""
    before = sys.excepthook

    def hook(kind: Any, error: Any, where: Any) -> None:
        before(kind, error, where)
        sys.stderr.flush()
        ranks.link.abort(1)

    def at_exit() -> None:
        if together.get() is ranks:
            ranks.link.abort(1)  # the loop was left in the middle: by sys.exit, or by an error that somebody caught
        ranks.link.wait()

    sys.excepthook = hook
    atexit.register(at_exit)


class MPILink:
    """A :class:`tinygen.ranks.Link` over an MPI communicator; arrays go as they are, nothing is pickled."""

    def __init__(self, MPI: Any, comm: Any) -> None:
        self.MPI, self.comm = MPI, comm

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Σ over the ranks."""
        return self._reduce(array, self.MPI.SUM)

    def max(self, array: np.ndarray) -> np.ndarray:
        """The largest over the ranks."""
        return self._reduce(array, self.MPI.MAX)

    def _reduce(self, array: np.ndarray, op: Any) -> np.ndarray:
        wide = array.astype(np.float32) if array.dtype == np.float16 else array  # MPI knows no half precision
        out = np.empty_like(wide)
        self.comm.Allreduce(wide, out, op=op)
        return out.astype(array.dtype, copy=False)

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Every rank's array, as bytes: no type is too strange."""
        out = np.empty((self.comm.size, *array.shape), array.dtype)
        self.comm.Allgather([array, self.MPI.BYTE], [out, self.MPI.BYTE])
        return out

    def broadcast(self, data: bytes | None) -> bytes:
        """Rank 0's bytes."""
        size = np.array(0 if data is None else len(data), np.int64)
        self.comm.Bcast(size)
        buffer = np.zeros(int(size), np.uint8) if data is None else np.frombuffer(data, np.uint8).copy()
        self.comm.Bcast([buffer, self.MPI.BYTE])
        return buffer.tobytes()

    def wait(self) -> None:
        """Return when all have called it; asleep, because MPI's own waiting keeps a core busy."""
        request = self.comm.Ibarrier()
        while not request.Test():
            time.sleep(0.02)

    def abort(self, code: int) -> None:
        """End all ranks at once."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        time.sleep(_FORWARDED)
        self.comm.Abort(code)


class ParallelRun(Run):
    """A :class:`Run` of several processes, every one of which makes it with the same arguments.

    Before the first step all take over what rank 0 has: every object's state, and after a resume the step. In the loop
    every batch of a DataLoader among ``objects`` is dealt out, and so are the draws of the generators among them and of
    the default ones; ``backward()`` averages the gradients of every parameter of the modules and optimizers among
    them. Logged numbers are averaged too. Rank 0 alone shows progress and writes log and checkpoints; the others'
    ``folder`` is a temporary one. After the loop rank 0 goes on alone: the others end there.

    A signal to any of them lets all finish the same step; rank 0 then saves, once. Every rank must run the same
    program: the same losses, the same calls of backward(), save() and log().

    Args:
        ranks: from :func:`join`.
        The others as :class:`Run`.

    Raises:
        ParallelError: a module among the objects keeps statistics that cannot be shared; (while looping) the ranks log
            different values, or their parameters are no longer the same.
        Everything that :class:`Run` raises, on rank 0.
    """

    def __init__(
        self,
        ranks: Ranks,
        folder: str | os.PathLike[str],
        steps: int,
        objects: Mapping[str, Stateful],
        **options: Any,
    ) -> None:
        self.ranks = ranks
        if ranks.rank:
            folder = tempfile.mkdtemp(prefix="tinygen-rank-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            options |= {"resume": False, "progress": False}
        modules = [thing for thing in objects.values() if isinstance(thing, Module)]
        for module in modules:
            if any(isinstance(m, InstanceNorm2d) and m.track_running_stats for m in module.modules()):
                raise ParallelError(
                    "InstanceNorm2d(track_running_stats=True) would keep other statistics in every process; train it "
                    "in one, or without running statistics"
                )
        super().__init__(folder, steps, objects, **options)
        drawing = [thing for thing in objects.values() if isinstance(thing, (DataLoader, Generator))]
        optimizers = [thing for thing in objects.values() if isinstance(thing, Optimizer)]
        ranks.include(
            [*drawing, default_generator()],
            [p for m in modules for p in m.parameters()]
            + [p for o in optimizers for group in o.param_groups for p in group["params"]],
        )
        try:
            self._take_over()
        except BaseException:
            self.close()
            raise

    def _take_over(self) -> None:
        """Bring every rank to rank 0's state, by way of a checkpoint's bytes."""
        objects = {**self.objects, "the default generator": default_generator()}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "start.npz"
            if self.ranks.rank == 0:
                save_checkpoint(path, self.step, objects, self.meta)
                self.ranks.link.broadcast(path.read_bytes())
            else:
                path.write_bytes(self.ranks.link.broadcast(None))
                self.step = load_checkpoint(path, objects, self.meta).step
        saved = self.ranks.link.max(np.array(-1 if self._saved_at is None else self._saved_at))
        self._saved_at = None if saved < 0 else int(saved)

    def __iter__(self) -> Iterator[int]:
        together.set(self.ranks)
        try:
            yield from super().__iter__()
        except SystemExit:
            together.set(None)  # all were interrupted, at the same step
            if not self.ranks.rank:
                raise
        together.set(None)
        if self.ranks.rank:
            self.close()
            raise SystemExit(0)

    def share(self, n: int) -> int:
        """How many of n examples that belong to a step are this process's to draw."""
        rows = self.ranks.rows(n)
        return len(range(n)[rows])

    def save(self) -> None:
        """As :meth:`Run.save`, on rank 0; on all of them, whether they are still the same is seen first."""
        if self._saved_at != self.step:
            self._compare()
        if not self.ranks.rank:
            super().save()
        else:
            self._write_pending()
            self._saved_at = self.step

    def _compare(self) -> None:
        seal = 0
        for thing in self.objects.values():
            if isinstance(thing, Module):
                for tensor in (*thing.parameters(), *thing.buffers()):
                    seal = zlib.crc32(np.ascontiguousarray(to_numpy(tensor.data)).tobytes(), seal)
        largest, smallest = self.ranks.link.max(np.array([seal, -seal]))
        if largest != -smallest:
            raise ParallelError(
                f"after step {self.step} the processes no longer have the same parameters or buffers: something in a "
                "step differs between them, such as a draw from a generator that is not among the objects"
            )

    def _alarmed(self) -> bool:
        return False  # one process's share may be bad alone; all look at the mean, at the same step

    def _stopping(self) -> bool:
        self._signal = int(self.ranks.link.max(np.array(self._signal)))
        return bool(self._signal)

    def _agreed(self, pending: list[tuple[int, float, dict[str, Any]]]) -> list[tuple[int, float, dict[str, Any]]]:
        """What was logged, its floating numbers averaged over the ranks."""
        pending = [
            (step, seconds, {name: v.item() if hasattr(v, "item") else v for name, v in values.items()})
            for step, seconds, values in pending
        ]
        keys = [(step, name) for step, _, values in pending for name, v in values.items() if isinstance(v, float)]
        seal = zlib.crc32(repr(keys).encode())
        largest, smallest = self.ranks.link.max(np.array([seal, -seal]))
        if largest != -smallest:
            raise ParallelError("the processes log different values; every run.log(...) must be made by all of them")
        if not keys:
            return pending
        lines = {step: values for step, _, values in pending}
        mean = self.ranks.link.sum(np.array([lines[step][name] for step, name in keys])) / self.ranks.size
        for (step, name), value in zip(keys, mean.tolist()):
            lines[step][name] = value
        return pending

    def _note(self, number: int, frame: Any) -> None:
        if self.ranks.rank:
            self._signal = number  # rank 0 says what there is to say
        else:
            super()._note(number, frame)

    def _say(self, text: str) -> None:
        if not self.ranks.rank:
            super()._say(text)


def make_run(ranks: Ranks | None, *args: Any, **options: Any) -> Run:
    """A :class:`Run` for one process, a :class:`ParallelRun` for several."""
    return Run(*args, **options) if ranks is None else ParallelRun(ranks, *args, **options)


def fail(code: int, text: str) -> None:
    """Print an error that ends the program, and end every process that has joined with ``code``; alone, only print it.

    An error that all have is printed once: rank 0 ends the others before they speak.
    """
    ranks = _joined
    if ranks is not None and ranks.rank:
        time.sleep(1.0 + _FORWARDED)
        text = f"(in process {ranks.rank}) {text}"
    print(f"error: {text}", file=sys.stderr, flush=True)
    if ranks is not None:
        ranks.link.abort(code)

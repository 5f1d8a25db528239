"""Run: a training loop that survives. It counts steps, logs, shows progress, saves, stops tidily and resumes.

The loop itself stays in the demo, where a reader sees every line of it::

    run = Run("runs/autoencoder", steps=3000, objects={"model": model, "optimizer": adam, "loader": loader})
    batches = loader.forever()            # after Run: a resumed loader stands where it stopped
    for step in run:
        x, y = next(batches)
        loss = F.mse_loss(model(x), x)
        adam.zero_grad()
        loss.backward()
        adam.step()
        run.log(loss=loss)
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import anomaly
from tinygen.backend import CPU, array_module, device_of, is_array
from tinygen.files import keep_as, make_folder, remove_temporaries
from tinygen.serialization import CheckpointError
from tinygen.tensor import Tensor
from tinygen.training.checkpoint import (
    CheckpointWarning,
    Stateful,
    check_objects,
    load_newest,
    previous_path,
    save_checkpoint,
)
from tinygen.training.lock import FolderInUseError, FolderLock
from tinygen.training.log import JsonlLog
from tinygen.training.progress import Progress
from tinygen.training.skipping import Skipper

# SIGHUP, which Windows lacks: the terminal was closed.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_HINT = (
    "A smaller learning rate or nn.utils.clip_grad_norm_ often helps, and tg.detect_anomaly() names the operation that "
    "makes the first nan"
)


class NonFiniteError(ArithmeticError):
    """A loss, or a number about to be saved, became nan or infinite; the message says where and when."""


class Run:
    """The steps of one training run, in a folder of its own: ``for step in run`` counts 1, 2, …, ``steps``.

    The folder gets ``checkpoint.npz`` (every ``checkpoint_every`` steps, at the end, and when interrupted), the
    one before it as ``checkpoint.previous.npz``, and ``log.jsonl`` (one line for each logged step). A run without
    ``resume`` in a folder where another run was keeps that one's files as ``checkpoint.old.npz`` and
    ``log.old.jsonl``. The folder is locked while the Run exists, until :meth:`close` or an error in the loop.

    With ``resume``, the objects get back the states they had, the step count goes on, and the log is cut to
    the checkpoint's step: on the same machine and thread count the resumed run ends in the same bits as one
    that was never interrupted, provided that everything that changes from step to step is in ``objects``.

    Ctrl-C and SIGTERM finish the step, save, say how to go on and raise SystemExit (130 or 143); a second
    Ctrl-C stops at once. This holds in the main thread, while the loop runs; handlers are put back after it.

    Args:
        folder: made where it does not exist.
        steps: the number of the last step, ≥ 1.
        objects: name → model, optimizer, scheduler, EMA, loader, generator: anything with ``state_dict()``
            and ``load_state_dict()``.
        checkpoint_every: steps between checkpoints, ≥ 1.
        resume: go on from the folder's checkpoint.
        meta: the configuration that a resume must find unchanged (plain values, nested).
        log_every: logged values are brought from the device, checked and written every so many steps, ≥ 1; no
            step's values are lost or averaged.
        progress: show a progress bar on stderr.
        how_to_resume: what to tell an interrupted user to type.
        detect_anomaly: the loop's body runs under :class:`tinygen.detect_anomaly`: the first operation that makes nan
            or infinity is named; a step takes longer.
        skip_non_finite: 0, or how many steps in a row may be skipped because a gradient is nan or infinite: no
            parameter, optimizer's average or buffer changes then, and the step's log line has ``skipped``, how many
            there have been. For this the optimizers and modules must be among ``objects``.

    Attributes:
        step: steps finished. skipped: how many were skipped. folder, checkpoint_path, log_path: where things are.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong type.
        CheckpointError: there is nothing to resume from, or it does not fit (see :func:`load_checkpoint`);
            the objects and the folder are as they were.
        FolderInUseError: another run is using the folder.
        LogError: the log that a resume goes on with is damaged.
        OSError: the folder cannot be written.
        NonFiniteError (while looping): a logged value whose name contains "loss" is not finite, or a state
            that was to be saved holds nan, or too many steps in a row were skipped; the last good checkpoint is kept.
        AnomalyError (while looping): with detect_anomaly.
        SystemExit (while looping): interrupted, after saving.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        steps: int,
        objects: Mapping[str, Stateful],
        *,
        checkpoint_every: int = 500,
        resume: bool = False,
        meta: Mapping[str, Any] | None = None,
        log_every: int = 10,
        progress: bool = True,
        how_to_resume: str | None = None,
        detect_anomaly: bool = False,
        skip_non_finite: int = 0,
    ) -> None:
        counts = {"steps": steps, "checkpoint_every": checkpoint_every, "log_every": log_every}
        for name, value in {**counts, "skip_non_finite": skip_non_finite}.items():
            least = int(name in counts)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"Run: {name} must be a whole number ≥ {least}, got {value!r}")
        check_objects(objects, "Run")
        self.folder = Path(folder)
        self.checkpoint_path = self.folder / "checkpoint.npz"
        self.log_path = self.folder / "log.jsonl"
        self.steps, self.checkpoint_every, self.log_every = int(steps), int(checkpoint_every), int(log_every)
        self.objects, self.meta = dict(objects), dict(meta or {})
        self.step = 0
        self._saved_at: int | None = None
        self._progress = progress
        self._how_to_resume = how_to_resume or "make the same Run with resume=True"
        self._signal = 0
        self._looping = False
        self._now: dict[str, Any] = {}  # values logged in this step
        self._pending: list[tuple[int, float, dict[str, Any]]] = []  # steps before, not written yet
        self._watched = detect_anomaly
        self._skipper = Skipper(self.objects, int(skip_non_finite)) if skip_non_finite else None
        self._lock = self._lock_folder(resume)
        try:
            lines = None
            if resume:
                lines = self._resume()
            else:
                self._start()
            self._log = JsonlLog(self.log_path, resume_step=self.step if resume else None)
        except BaseException:
            self._lock.release()
            raise
        if lines is not None and self._log.lines < lines:
            warnings.warn(
                f"{self.log_path} has {self._log.lines:,} of the {lines:,} lines that it had at step {self.step}; it "
                "was cut or damaged since, and its curves have a gap",
                CheckpointWarning,
                stacklevel=2,
            )
        self._clock = time.monotonic() - self._log.time

    # -- before the first step

    def _lock_folder(self, resume: bool) -> FolderLock:
        if not resume:
            make_folder(self.folder)
        elif not self.checkpoint_path.exists() and not previous_path(self.checkpoint_path).exists():
            raise CheckpointError(
                f"{self.checkpoint_path} does not exist, so there is nothing to resume; start without resume"
            )
        return FolderLock(self.folder)

    def _start(self) -> None:
        """Keep what a run before has reached, so that it can be killed at any point of this and nothing is lost."""
        remove_temporaries(self.folder)
        checkpoint, log, previous = self.checkpoint_path, self.log_path, previous_path(self.checkpoint_path)
        if (newest := checkpoint if checkpoint.exists() else previous).exists():
            if log.exists():
                keep_as(log, log.with_suffix(".old.jsonl"))
            keep_as(newest, checkpoint.with_suffix(".old.npz"))
        for path in (previous, checkpoint, log):
            path.unlink(missing_ok=True)

    def _resume(self) -> int | None:
        """Load; how many lines the log had then."""
        checkpoint = load_newest(self.checkpoint_path, self.objects, self.meta, most_steps=self.steps)
        remove_temporaries(self.folder)
        self.step = self._saved_at = checkpoint.step
        if self._skipper is not None:
            self._skipper.total = checkpoint.notes.get("skipped", 0)
        return checkpoint.notes.get("log lines")

    def close(self) -> None:
        """Let other runs have the folder; closing twice does nothing."""
        self._log.close()
        self._lock.release()

    # -- the loop

    def __iter__(self) -> Iterator[int]:
        if self._looping or self._log.closed:
            raise RuntimeError("a Run is looped over once; make a new one, with resume=True to go on")
        if not self._lock.held:
            raise FolderInUseError(f"{self.folder} went over to a Run that was made after this one; loop over that")
        self._looping = self._lock.busy = True
        watched = anomaly.detect_anomaly() if self._watched else nullcontext()
        with self._signals_noted(), self._tidy_end() as bar, watched:
            for step in range(self.step + 1, self.steps + 1):
                if self._skipper is not None:
                    self._skipper.begin()
                yield step
                self.step = step
                if self._skipper is not None and self._skipper.end():
                    self._skip()
                if self._now:
                    self._pending.append((step, time.monotonic() - self._clock, self._now))
                    self._now = {}
                if step % self.log_every == 0 or step == self.steps or self._alarmed():
                    self._write_pending(bar)
                bar.update(step)
                if step % self.checkpoint_every == 0:
                    self.save()
                if self._stopping():
                    self.save()
                    break
            else:
                self.save()
        if self._signal:
            self._say(
                f"interrupted after step {self.step} of {self.steps}, which {self.checkpoint_path} holds\n"
                f"to go on: {self._how_to_resume}"
            )
            raise SystemExit(128 + self._signal)

    def share(self, n: int) -> int:
        """How many of n examples of a step are this process's to draw: all, unless several train together."""
        return n

    @property
    def skipped(self) -> int:
        """How many steps were skipped, those before a resume included."""
        return 0 if self._skipper is None else self._skipper.total

    def _skip(self) -> None:
        """The step in hand was skipped: say so in its log line, and give up after too many in a row."""
        assert self._skipper is not None
        self._now["skipped"] = self._skipper.total
        if self._skipper.in_a_row > self._skipper.most:
            self._pending.append((self.step, time.monotonic() - self._clock, self._now))
            self._now = {}
            raise NonFiniteError(
                f"a gradient was nan or infinite in {self._skipper.in_a_row} steps in a row, the last of them "
                f"{self.step}, and training stopped; {self._last_good()}. {_HINT}"
            )

    def log(self, **values: Any) -> None:
        """Note values of the current step, such as ``run.log(loss=loss, lr=0.001)``.

        Numbers, tensors or arrays of one element (values on a GPU are fetched only every ``log_every``
        steps), or strings. Several calls in one step make one line.

        Raises:
            RuntimeError: called outside the loop.
            TypeError, ValueError: a value is none of these, or has more than one element.
        """
        if not self._looping:
            raise RuntimeError("run.log(...) belongs inside `for step in run:`")
        self._now.update({name: _hold(name, value) for name, value in values.items()})

    def save(self) -> None:
        """Save a checkpoint of the steps finished, unless that is there already; the loop does it by itself.

        Raises:
            NonFiniteError: a loss was not finite, or a state holds nan: the checkpoint before stays.
            OSError: the file cannot be written: the checkpoint before stays.
        """
        self._write_pending()
        if self._saved_at == self.step:
            return
        self._check_states()
        # The log first: a checkpoint must never know of steps that the log has lost.
        self._log.sync()
        notes = {"log lines": self._log.lines}
        if self._skipper is not None:
            notes["skipped"] = self._skipper.total
        save_checkpoint(self.checkpoint_path, self.step, self.objects, self.meta, notes=notes)
        self._saved_at = self.step

    # -- what a step leaves behind

    def _write_pending(self, bar: Progress | None = None, check: bool = True) -> None:
        pending, self._pending = self._pending, []
        if check:
            pending = self._agreed(pending)
        for step, seconds, values in pending:
            values = {name: v.item() if is_array(v) else v for name, v in values.items()}
            self._log.write(step, time=round(seconds, 4), **values)
            if bar is not None:
                bar.show(values)
            for name, value in values.items():
                if check and _is_bad_loss(name, value) and "skipped" not in values:
                    raise NonFiniteError(
                        f"{name} is {value} at step {step}, and training stopped; {self._last_good()}. {_HINT}"
                    )

    def _alarmed(self) -> bool:
        """Whether a loss of the last step is known not to be finite; one on a GPU is not waited for."""
        return bool(self._pending) and any(_is_bad_loss(name, v) for name, v in self._pending[-1][2].items())

    def _stopping(self) -> bool:
        """Whether a signal asked to stop after this step."""
        return bool(self._signal)

    def _agreed(self, pending: list[tuple[int, float, dict[str, Any]]]) -> list[tuple[int, float, dict[str, Any]]]:
        """What is to be written of what was logged."""
        return pending

    def _check_states(self) -> None:
        """Refuse to replace a good checkpoint by a broken one: the loss of the last step was still finite."""
        for name, thing in self.objects.items():
            for key, array in _float_arrays(thing.state_dict(), name):
                if bool(array_module(array).isnan(array).any()):
                    raise NonFiniteError(f"{key} holds nan after step {self.step}; {self._last_good()}")
            if callable(parameters := getattr(thing, "parameters", None)):
                for parameter in parameters():
                    array = parameter.data if isinstance(parameter, Tensor) else parameter
                    if not bool(array_module(array).isfinite(array).all()):
                        raise NonFiniteError(
                            f"a parameter of {name}, shape {tuple(array.shape)}, is infinite after step "
                            f"{self.step}; {self._last_good()}"
                        )

    def _last_good(self) -> str:
        if self._saved_at is None:
            return "there is no checkpoint yet"
        return f"{self.checkpoint_path} holds step {self._saved_at}, the last good one"

    @contextmanager
    def _tidy_end(self) -> Iterator[Progress]:
        bar = Progress(self.step, self.steps, self._progress)
        ended = False
        try:
            yield bar
            ended = not self._signal
        finally:
            # Also when the step in hand raised: the steps before it belong in the log.
            bar.close()
            self._looping = self._lock.busy = False
            try:
                self._write_pending(check=False)
            finally:
                self._log.close()
                if not ended:  # otherwise pictures follow, which belong in the folder too
                    self._lock.release()

    @contextmanager
    def _signals_noted(self) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a note that the loop reads between two steps."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if handler is not signal.SIG_IGN:  # nohup and shell scripts ignore them on purpose
                    before[number] = signal.SIG_DFL if handler is None else handler
                    signal.signal(number, self._note)
        try:
            yield
        finally:
            for noted, handler in before.items():
                signal.signal(noted, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number
        # Not print: a signal may come in the middle of another print. A closed terminal takes no words.
        with suppress(OSError):
            os.write(2, b"\nfinishing this step, then saving (Ctrl-C again stops at once)\n")

    def _say(self, text: str) -> None:
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def _is_bad_loss(name: str, value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value) and "loss" in name.lower()


def _hold(name: str, value: Any) -> Any:
    """The value without its graph, on its device, safe from later writes in place."""
    array = value.data if isinstance(value, Tensor) else value
    if is_array(array):
        if array.size != 1:
            raise ValueError(f"run.log: {name} has shape {tuple(array.shape)}; log one number: its mean?")
        return array.item() if device_of(array) == CPU else array.copy()
    if isinstance(array, np.generic):
        return array.item()
    if isinstance(array, (bool, int, float, str)):
        return array
    raise TypeError(
        f"run.log: {name} is a {type(value).__name__}; log numbers, tensors of one element or strings"
    )


def _float_arrays(state: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield from _float_arrays(value, f"{where}.{key}")
    elif isinstance(state, (list, tuple)):
        for i, value in enumerate(state):
            yield from _float_arrays(value, f"{where}[{i}]")
    else:
        array = state.data if isinstance(state, Tensor) else state
        if is_array(array) and array.dtype.kind in "fc":
            yield where, array

"""save_checkpoint and load_checkpoint: everything a run needs to go on, in the format of tinygen.save.

A checkpoint is the value

    {"step": k, "meta": {…}, "notes": {…}, "kinds": {"model": "Autoencoder", …},
     "configurations": {"model": {"layers": "Autoencoder(\n  (encoder): …", "settings": {…}}, …},
     "objects": {"model": state_dict, …}}

in one file, so ``tg.load(path)["objects"]["model"]`` is the model's state_dict. Loading is all or nothing:
the whole file is compared with the objects first, every difference is listed at once, and nothing is touched
unless everything fits. The checkpoint before the newest is kept beside it, as ``NAME.previous.npz``.
"""

from __future__ import annotations

import errno
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from tinygen.backend import is_array
from tinygen.nn.module import Module
from tinygen.serialization import CheckpointError, DamagedError, read_file, write_file
from tinygen.tensor import Tensor


class CheckpointWarning(UserWarning):
    """A run goes on, but not quite from where it was; the message says from where and why."""


class Stateful(Protocol):
    """Anything that can be checkpointed: a model, optimizer, scheduler, EMA, loader or generator."""

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on later, as nested dicts and lists of arrays and plain values."""
        ...

    def load_state_dict(self, state_dict: Any) -> Any:
        """Go on from there."""
        ...


class Checkpoint(NamedTuple):
    """What a checkpoint says beside the objects' states: ``step`` (steps finished), ``meta`` and ``notes``."""

    step: int
    meta: dict[str, Any]
    notes: dict[str, Any]


def previous_path(path: str | os.PathLike[str]) -> Path:
    """Where the checkpoint before the one at ``path`` is kept: ``checkpoint.previous.npz``."""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(
    path: str | os.PathLike[str],
    step: int,
    objects: Mapping[str, Stateful],
    meta: Mapping[str, Any] | None = None,
    *,
    notes: Mapping[str, Any] | None = None,
    keep_previous: bool = True,
) -> None:
    """Write the states of ``objects`` after ``step`` finished steps; whole or not at all.

    Args:
        path: the file; one that exists is replaced at the last moment.
        step: finished steps, ≥ 0.
        objects: name → anything with ``state_dict()`` and ``load_state_dict()``.
        meta: the configuration that a later load must find again (model sizes, data, seed, …): plain values,
            nested as :func:`tinygen.save` takes them.
        notes: plain values that a later load gives back and does not compare.
        keep_previous: keep the file that is replaced, as :func:`previous_path` names it.

    Raises:
        ValueError: step is negative.
        TypeError: an object has no state_dict, or something in a state cannot be saved.
        OSError: the file cannot be written; what was there before is as it was.
    """
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 0:
        raise ValueError(f"save_checkpoint: step must be a whole number ≥ 0, got {step!r}")
    check_objects(objects, "save_checkpoint")
    content = {
        "step": int(step),
        "meta": dict(meta or {}),
        "notes": dict(notes or {}),
        "kinds": {name: type(thing).__name__ for name, thing in objects.items()},
        "configurations": {name: _configuration(thing) for name, thing in objects.items() if isinstance(thing, Module)},
        "objects": {name: thing.state_dict() for name, thing in objects.items()},
    }
    write_file(path, "checkpoint", content, previous_path(path) if keep_previous else None)


def load_checkpoint(
    path: str | os.PathLike[str],
    objects: Mapping[str, Stateful],
    meta: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
    most_steps: int | None = None,
) -> Checkpoint:
    """Put the states in the file back into ``objects``, if and only if everything fits.

    Compared are the objects' names and classes, the layers of models as their repr shows them, the names, shapes
    and dtypes in all states, and ``meta``.
    What an object has not made yet (an optimizer's averages before its first step: an empty dict or None
    inside its state) is left to its own ``load_state_dict``; should that refuse, all objects get back what
    they had.

    Args:
        path: a file of :func:`save_checkpoint`.
        objects: name → object, made with the configuration of the run that wrote the file.
        meta: what the file's meta must equal; None accepts any.
        partial: load only the objects named here and leave the others in the file (a model to draw samples
            from, without its optimizer). False requires the same names on both sides.
        most_steps: refuse a checkpoint that has more finished steps than this.

    Returns: ``Checkpoint(step, meta, notes)``.

    Raises:
        CheckpointError: the file is damaged (then it is a DamagedError), is no checkpoint, is in a newer format, or
            does not fit; every difference is listed, and no object has changed.
        OSError: it cannot be read.
        TypeError: an object has no load_state_dict.
    """
    check_objects(objects, "load_checkpoint")
    # To the CPU: load_state_dict copies to where each object lives, and a checkpoint from a GPU opens
    # anywhere.
    try:
        kind, content = read_file(path, map_location="cpu")
    except DamagedError as error:
        if (previous := previous_path(path)).exists():
            raise DamagedError(error.what, f"{previous.name} beside it holds the checkpoint before it") from error
        raise
    if kind != "checkpoint":
        raise CheckpointError(f"{path} holds no training checkpoint; tinygen.load reads it")
    saved, kinds = content["objects"], content["kinds"]

    before = {name: thing.state_dict() for name, thing in objects.items()}
    problems = []
    for name, thing in objects.items():
        if name not in saved:
            problems.append(f"{name}: not in the file, which holds {', '.join(saved) or 'no objects'}")
        elif kinds.get(name) != type(thing).__name__:
            problems.append(f"{name}: the file has a {kinds.get(name)}, here it is a {type(thing).__name__}")
        else:
            differences = list(_state_differences(saved[name], before[name], name))
            file = content.get("configurations", {}).get(name)
            if not differences and file and isinstance(thing, Module):
                # The numbers fit, and it may still be another model: one with other activations.
                differences = list(_layer_differences(file["layers"], _configuration(thing)["layers"], name))
            problems.extend(differences)
    if not partial:
        problems.extend(f"{name}: only in the file" for name in saved if name not in objects)
    if meta is not None:
        problems.extend(_value_differences(content["meta"], dict(meta), "configuration"))
    if most_steps is not None and content["step"] > most_steps:
        problems.append(f"steps: the file is at step {content['step']}, past the {most_steps} asked for")
    if problems:
        raise _does_not_fit(path, problems)

    before = {name: _copy(state) for name, state in before.items()}
    for name, thing in objects.items():
        try:
            thing.load_state_dict(saved[name])
        except Exception as error:
            for touched, state in before.items():
                objects[touched].load_state_dict(state)
                if touched == name:
                    break
            raise _does_not_fit(path, [f"{name}: {error}"]) from error
    return Checkpoint(content["step"], content["meta"], content.get("notes", {}))


def load_newest(
    path: str | os.PathLike[str],
    objects: Mapping[str, Stateful],
    meta: Mapping[str, Any] | None = None,
    *,
    most_steps: int | None = None,
) -> Checkpoint:
    """:func:`load_checkpoint`; where the file is damaged or missing, from the one before it, with a warning.

    A damaged file is not deleted: it gets the name ``NAME.damaged.npz``, so that the next save does not keep *it* as
    the previous one. A file that is whole but does not fit is an error, and the previous one is not asked.

    Raises:
        CheckpointError, OSError, TypeError: as :func:`load_checkpoint`; if both files are damaged, the message names
            both.

    Warns:
        CheckpointWarning: it is the previous checkpoint that was loaded.
    """
    path, previous = Path(path), previous_path(path)
    try:
        return load_checkpoint(path, objects, meta, most_steps=most_steps)
    except FileNotFoundError:
        trouble = DamagedError(f"{path} is missing")
    except DamagedError as error:
        trouble = error
    except OSError as error:
        if error.errno != errno.EIO:  # a disk that cannot read its own sectors
            raise
        trouble = DamagedError(f"{path} cannot be read: {error.strerror}")
    if not previous.exists():
        raise trouble
    try:
        checkpoint = load_checkpoint(previous, objects, meta, most_steps=most_steps)
    except DamagedError as error:
        raise DamagedError(f"{trouble.what}, and so is the one before it: {error.what}") from trouble
    kept = ""
    if path.exists():
        damaged = path.with_name(f"{path.stem}.damaged{path.suffix}")
        os.replace(path, damaged)
        kept = f"; the damaged file is now {damaged.name}"
    warnings.warn(
        f"{trouble.what}. Going on from the checkpoint before it, {previous.name}, at step {checkpoint.step}{kept}",
        CheckpointWarning,
        stacklevel=2,
    )
    return checkpoint


# ------------------------------------------------------------------------------------------ comparison


def _does_not_fit(path: Any, problems: list[str]) -> CheckpointError:
    lines = "".join(f"\n  {line}" for line in problems)
    return CheckpointError(
        f"{path} does not fit this run, and nothing was loaded from it:{lines}\n"
        "Use the settings of the run that wrote it, or start a new run in another folder."
    )


def _configuration(model: Module) -> dict[str, Any]:
    """What a model is, beside its numbers: its layers as printed, and the plain settings of parts that print none."""
    settings = {}
    for name, part in model.named_modules():
        if not part.extra_repr():
            own = {key: value for key, value in vars(part).items() if not key.startswith("_") and _plain(value)}
            own.pop("training", None)
            if own:
                settings[name] = own
    # A class without a repr of its own prints its address, which is another one in every process.
    return {"layers": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model)), "settings": settings}


def _plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) <= 16 and all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _layer_differences(file: str, here: str, where: str) -> Iterator[str]:
    """Where two models' printed forms differ, line by line."""
    theirs, ours = file.splitlines(), here.splitlines()
    if len(theirs) != len(ours):
        yield f"{where}: the file's model prints {len(theirs)} lines of layers, this one {len(ours)}"
        return
    for a, b in zip(theirs, ours):
        if a != b:
            yield f"{where}: the file has {a.strip()}, here it is {b.strip()}"


def _state_differences(file: Any, here: Any, where: str, inner: bool = False) -> Iterator[str]:
    """Names, shapes and dtypes that differ between two states; plain values may differ, they are state."""
    if inner and (_unmade(file) or _unmade(here)):
        return
    if isinstance(file, dict) and isinstance(here, dict):
        for key in here:
            if key not in file and not isinstance(key, int):
                yield f"{where}: {key} is missing from the file"
        for key in file:
            # Optimizers number their parameters, and make the entry of each at its first gradient.
            if key not in here and not isinstance(key, int):
                yield f"{where}: {key} is only in the file"
            elif key in here:
                yield from _state_differences(file[key], here[key], f"{where}: {key}" if not inner
                                              else f"{where}.{key}", True)
    elif isinstance(file, (list, tuple)) and isinstance(here, (list, tuple)):
        if len(file) != len(here):
            yield f"{where} has {len(file)} entries in the file, {len(here)} here"
        for i, (a, b) in enumerate(zip(file, here)):
            yield from _state_differences(a, b, f"{where}[{i}]", True)
    elif _is_leaf_array(file) and _is_leaf_array(here):
        if tuple(file.shape) != tuple(here.shape):
            yield f"{where} has shape {tuple(file.shape)} in the file, {tuple(here.shape)} here"
        if file.dtype != here.dtype:
            yield f"{where} is {file.dtype} in the file, {here.dtype} here"
    elif _sort(file) != _sort(here):
        yield f"{where} is {_sort(file)} in the file, {_sort(here)} here"


def _value_differences(file: Any, here: Any, where: str) -> Iterator[str]:
    """Where two configurations differ at all."""
    if isinstance(file, dict) and isinstance(here, dict):
        for key in {**here, **file}:
            if key not in file:
                yield f"{where}: {key} is {here[key]!r} here, absent from the file"
            elif key not in here:
                yield f"{where}: {key} is {file[key]!r} in the file, absent here"
            else:
                yield from _value_differences(file[key], here[key], f"{where}: {key}")
    elif not _same(file, here):
        yield f"{where} is {file!r} in the file, {here!r} here"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b))  # (8, 8) and [8, 8] mean the same
    if _is_leaf_array(a) or _is_leaf_array(b):
        x, y = (np.asarray(v.data if isinstance(v, Tensor) else v) for v in (a, b))
        return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
    if isinstance(a, dict) and isinstance(b, dict):
        return not any(_value_differences(a, b, ""))
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both_nan or (isinstance(a, bool) == isinstance(b, bool) and a == b)


def _unmade(state: Any) -> bool:
    return state is None or (isinstance(state, (dict, list, tuple)) and not state)


def _is_leaf_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.generic)) or is_array(value)


def _sort(value: Any) -> str:
    """The sort of thing a value is; the types that stand in for one another count as one."""
    if isinstance(value, (bool, int, float, complex)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, dict):
        return "a dict"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "an array" if _is_leaf_array(value) else f"a {type(value).__name__}"


def _copy(state: Any) -> Any:
    """The state with arrays of its own, so that it does not change with the object."""
    if isinstance(state, Tensor):
        return Tensor(state.data.copy())
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_copy(value) for value in state)
    return state.copy() if is_array(state) else state


def check_objects(objects: Mapping[str, Any], caller: str) -> None:
    """Raise TypeError unless every object can be checkpointed."""
    for name, thing in objects.items():
        if not isinstance(name, str):
            raise TypeError(f"{caller}: the names of objects must be strings, got {name!r}")
        for method in ("state_dict", "load_state_dict"):
            if not callable(getattr(thing, method, None)):
                raise TypeError(f"{caller}: {name!r} is a {type(thing).__name__}, which has no {method}()")

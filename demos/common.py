"""What every demo shares: the same options, data, a run in a folder, and errors in one plain line.

A demo reads::

    args = common.options("autoencoder", steps=3000, batch_size=128)
    train, test = common.load_data(args)
    ...
    run = common.run(args, {"model": model, "optimizer": adam, "loader": loader, "rng": rng})
    for step in run:
        ...
"""

from __future__ import annotations

import argparse
import atexit
import errno
import functools
import json
import os
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

import tinygen as tg
from tinygen import data, training
from tinygen.backend import DeviceError, module_for
from tinygen.files import whole_file
from tinygen.training import parallel
from tinygen.viz.canvas import NotFiniteError

WRONG = 2  # the exit code of whatever the user can put right, as argparse has it


class UserError(Exception):
    """Something that whoever typed the command can put right; the message says how. Shown without a traceback."""


# --------------------------------------------------------------------------------------------- options


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line that begins with ``error:``."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if parallel.launched()[0] == 0:  # of several processes, which all read the same words, one speaks
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        """Print the message and exit with code 2."""
        hint = " (--help lists the options)" if "unrecognized" in message else ""
        self.exit(WRONG, f"error: {message}{hint}\n")


def options(
    name: str,
    *,
    steps: int,
    batch_size: int,
    quick_steps: int = 20,
    checkpoint_every: int = 500,
    seed: int = 0,
    add: Callable[[argparse.ArgumentParser], Any] | None = None,
    argv: list[str] | None = None,
) -> argparse.Namespace:
    """Read the options that all demos take; in a notebook they stand in the environment, as ``DEMO_OPTIONS``.

    There the pictures that a cell leaves in --out are shown beneath it.

    Args:
        name: the demo's name; its folder is ``runs/NAME`` unless --out says otherwise.
        steps, batch_size, checkpoint_every, seed: the defaults.
        quick_steps: the steps of --quick, which must be a run of seconds.
        add: is given the parser, to add options of this demo alone.
        argv: the words to read; None takes the command line, or in a notebook $DEMO_OPTIONS.

    Returns: a namespace with data, data_dir, device, steps, batch_size, seed, out (a Path), resume,
        checkpoint_every, quick, detect_anomaly, skip_non_finite, name, and ranks (see tinygen.training.parallel).

    Ends in SystemExit with code 2 and one line on stderr where a value is wrong or the device is not there.

    Raises:
        FolderInUseError: another run is using --out.
        OSError: --out cannot be written.
    """
    parser = Parser(
        prog=f"python -m demos {name}",
        description=" ".join(_lesson().split()),
        allow_abbrev=False,
    )
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits",
                        help="8×8 digits that come with tinygen (default), or MNIST")
    parser.add_argument("--data-dir", type=Path, metavar="DIR",
                        help="the folder of MNIST's IDX files; without it they are fetched once and kept")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default cpu)")
    parser.add_argument("--steps", type=_whole(1), metavar="N",
                        help=f"training steps (default {steps}; {quick_steps} with --quick)")
    parser.add_argument("--batch-size", type=_whole(1), metavar="N", default=batch_size,
                        help=f"examples in a step (default {batch_size})")
    parser.add_argument("--seed", type=_whole(0), metavar="N", default=seed,
                        help=f"of every random number (default {seed})")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("runs") / name,
                        help=f"where pictures, log and checkpoint go (default {Path('runs') / name})")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--checkpoint-every", type=_whole(1), metavar="N", default=checkpoint_every,
                        help=f"steps between checkpoints (default {checkpoint_every})")
    parser.add_argument("--quick", action="store_true", help="a run of seconds, to see that all works")
    parser.add_argument("--detect-anomaly", action="store_true",
                        help="stop at the first operation that makes nan or infinity, and name it (slow)")
    parser.add_argument("--skip-non-finite", type=_whole(0), metavar="N", default=0,
                        help="skip up to N steps in a row whose gradient is nan or infinite (default 0)")
    if add is not None:
        add(parser)
    notebook = argv is None and _in_notebook()
    if argv is None:
        argv = shlex.split(os.environ.get("DEMO_OPTIONS", "")) if notebook else sys.argv[1:]
    args = parser.parse_args(argv)
    args.name = name
    again = shlex.join([*(word for word in argv if word != "--resume"), "--resume"])
    args.how_to_resume = (
        f"%env DEMO_OPTIONS={again}, and run all cells" if notebook else f"python -m demos {name} {again}"
    )
    if args.steps is None:
        args.steps = quick_steps if args.quick else steps
    if args.data_dir is not None and args.data != "mnist":
        parser.error("argument --data-dir: goes with --data mnist; the digits come with tinygen")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"argument --out: {args.out} is a file; a folder is needed")
    try:
        module_for(args.device)
    except DeviceError as error:
        parser.error(f"argument --device: {error}")
    if not _in_notebook():
        sys.excepthook = _excepthook
    _join(args, parser)
    if args.out.is_dir() and (args.ranks is None or args.ranks.rank == 0):
        # Now, and not only when the Run is made: some demos draw pictures before they train.
        training.FolderLock(args.out).release()
    ShownPictures.of(args.out)
    return args


def _join(args: argparse.Namespace, parser: Parser) -> None:
    """Under mpirun: train together with the other processes, and leave talking and writing to the first."""
    try:
        ranks = args.ranks = parallel.join()
    except parallel.ParallelError as error:
        parser.error(str(error))
    if ranks is None:
        return
    if args.batch_size % ranks.size:
        below = args.batch_size - args.batch_size % ranks.size
        fits = f"{below} or {below + ranks.size}" if below else ranks.size
        parser.error(
            f"argument --batch-size: {args.batch_size} cannot be shared equally by {ranks.size} processes; take {fits}"
        )
    args.how_to_resume = f"mpirun -n {ranks.size} {args.how_to_resume}"
    if args.device == "cuda":
        gpus = module_for("cuda").cuda
        gpus.Device(parallel.local_rank() % gpus.runtime.getDeviceCount()).use()
    if ranks.rank:
        sys.stdout = open(os.devnull, "w")
        args.out = Path(tempfile.mkdtemp(prefix="tinygen-rank-"))
        atexit.register(shutil.rmtree, args.out, ignore_errors=True)


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, not {text!r}")
        return value

    return read


def _in_notebook() -> bool:
    """A notebook's __main__ is no file, and sys.argv are its kernel's words, not the reader's."""
    return getattr(sys.modules["__main__"], "__file__", None) is None


def _lesson() -> str:
    """The docstring of the demo; a notebook's __main__ has one of its kernel's, which says nothing of it."""
    return "" if _in_notebook() else sys.modules["__main__"].__doc__ or ""


class ShownPictures:
    """In a notebook: what a cell has drawn into a folder is shown beneath that cell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known = self.found()

    def found(self) -> dict[Path, int]:
        """The folder's pictures, and when each was written; the oldest first."""
        files = (path for path in self.folder.glob("*") if path.suffix in {".png", ".gif"})
        return dict(sorted(((path, path.stat().st_mtime_ns) for path in files), key=lambda pair: pair[1]))

    def show(self, result: Any = None) -> None:
        """Show those that were written since the last time; called when a cell has ended."""
        from IPython.display import Image, display

        before, self.known = self.known, self.found()
        for path, written in self.known.items():
            if before.get(path) != written:
                print(path)
                display(Image(filename=os.fspath(path)))

    @staticmethod
    def of(folder: Path) -> None:
        """Begin to show what is drawn into a folder; outside a notebook this does nothing."""
        shell = IPython.get_ipython() if (IPython := sys.modules.get("IPython")) else None
        if shell is None or not hasattr(shell, "kernel"):
            return
        for shown in [f for f in shell.events.callbacks["post_run_cell"] if isinstance(_owner(f), ShownPictures)]:
            shell.events.unregister("post_run_cell", shown)  # the cell of the options was run again
        shell.events.register("post_run_cell", ShownPictures(folder).show)


def _owner(function: Any) -> Any:
    return getattr(function, "__self__", None)


# ------------------------------------------------------------------------------------------------ data


def load_data(args: argparse.Namespace) -> tuple[data.Dataset, data.Dataset]:
    """The data to train on and the data held out, as --data and --data-dir say.

    A folder that holds only MNIST's test files gives a fixed 8,000 / 2,000 split of these, and the header says so.

    Raises:
        UserError: the files are missing, damaged or cannot be fetched; --batch-size exceeds what there is.
    """
    try:
        train, test = _read(args)
    except (data.DataFileError, ModuleNotFoundError) as error:
        text = str(error).replace("pass download=True to fetch it", "leave out --data-dir to have it fetched")
        raise UserError(f"--data {args.data}: {text}") from error
    if args.batch_size > len(train):
        raise UserError(f"--batch-size {args.batch_size}: there are only {len(train):,} examples to train on")
    args.about_data = f"{train.name}: {len(train):,} examples to train on, {len(test):,} held out"
    return train, test


def _read(args: argparse.Namespace) -> tuple[data.Dataset, data.Dataset]:
    if args.data == "digits":
        return data.digits("train"), data.digits("test")
    folder = args.data_dir
    if folder is None:
        return data.mnist(None, "train", download=True), data.mnist(None, "test", download=True)
    if not folder.is_dir():
        raise UserError(f"--data-dir {folder}: there is no such folder")
    only_test_files = any(folder.glob("t10k-*")) and not any(folder.glob("train-*"))
    train, test = ("t10k-train", "t10k-test") if only_test_files else ("train", "test")
    return data.mnist(folder, train), data.mnist(folder, test)


def images(dataset: data.Dataset, args: argparse.Namespace) -> tg.Tensor:
    """All images of a data set as one tensor (N, C, H, W) on the run's device."""
    return tg.tensor(dataset.images, device=args.device)


# ------------------------------------------------------------------------------------------------- run


def run(
    args: argparse.Namespace,
    objects: Mapping[str, training.Stateful],
    config: Mapping[str, Any] | None = None,
    log_every: int = 10,
) -> training.Run:
    """Print what is about to happen and make the :class:`tinygen.training.Run` that the options ask for.

    Args:
        args: from :func:`options`.
        objects: what the checkpoint holds, by name: models, optimizers, schedulers, loader, generator.
        config: further settings that a resumed run must share, beside the demo's name, --data, --batch-size and
            --seed.

    Raises:
        CheckpointError: --resume, and there is no checkpoint or it does not fit.
        OSError: --out cannot be written.
    """
    meta = {"demo": args.name, "data": args.data, "batch size": args.batch_size, "seed": args.seed}
    loop = parallel.make_run(
        args.ranks, args.out, args.steps, objects, checkpoint_every=args.checkpoint_every, resume=args.resume,
        meta=meta | dict(config or {}), log_every=log_every, how_to_resume=args.how_to_resume,
        detect_anomaly=args.detect_anomaly, skip_non_finite=args.skip_non_finite,
    )
    print(header(args, objects, loop.step), flush=True)
    return loop


def header(args: argparse.Namespace, objects: Mapping[str, Any], done: int = 0) -> str:
    """The lines above the progress bar: data, device, parameter counts, steps, folder."""
    doc = " ".join(_lesson().partition("\n\n")[0].split())
    rows = [("data", getattr(args, "about_data", None) or args.data), ("device", args.device)]
    for name, thing in objects.items():
        if callable(parameters := getattr(thing, "parameters", None)):
            count = sum(int(np.prod(p.shape)) for p in parameters())
            rows.append((name, f"{count:,} parameters"))
    resumed = f", going on after step {done}" if done else ""
    rows += [("steps", f"{args.steps:,} of batch size {args.batch_size}, seed {args.seed}{resumed}"),
             ("out", os.fspath(args.out))]
    if (ranks := getattr(args, "ranks", None)) is not None:
        rows.append(("processes", f"{ranks.size}, each with {args.batch_size // ranks.size} examples of a batch"))
    width = max(len(name) for name, _ in rows)
    return "\n".join([doc or args.name, *(f"  {name:<{width}}  {text}" for name, text in rows)])


def report(args: argparse.Namespace, results: Mapping[str, float]) -> None:
    """Print the figures of a run as a table, keep them in ``results.json``, and say which files there are.

    Raises:
        OSError: the file cannot be written.
    """
    path = args.out / "results.json"
    with whole_file(path) as file:
        file.write((json.dumps(dict(results), indent=2, ensure_ascii=False) + "\n").encode())
    width = max(map(len, results), default=0)
    print("\n".join(f"  {name:<{width}}  {value:.4g}" for name, value in results.items()))
    made = sorted(p.name for p in args.out.iterdir() if p.suffix in {".png", ".gif", ".json", ".jsonl", ".npz"})
    print(f"in {args.out}: {', '.join(made)}", flush=True)


# ---------------------------------------------------------------------------------------------- errors


_ADVICE = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "; make room, then --resume goes on from the last checkpoint, if there is one",
    ),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "; another folder can be chosen with --out"),
}


def explain(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the line for an error that is nobody's bug; None for one that deserves its traceback."""
    match error:
        case UserError() | training.CheckpointError() | training.LogError() | data.DataFileError() | DeviceError():
            return WRONG, str(error)
        case training.FolderInUseError():
            return WRONG, f"{error} with --out"
        case training.NonFiniteError():
            return 1, f"{error}: add --resume --detect-anomaly; --skip-non-finite N passes over N such steps in a row"
        case tg.AnomalyError():
            return 1, str(error)
        case NotFiniteError():
            return 1, f"{error}. What made the first of them is shown with --detect-anomaly"
        case parallel.ParallelError():
            return WRONG, str(error)
        case ModuleNotFoundError() if (error.name or "").partition(".")[0] not in ("tinygen", "demos"):
            return WRONG, f'{error.name} is not installed; python -m pip install -e ".[demos]" installs it'
        case OSError():
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            return WRONG, text + _ADVICE.get(error.errno or 0, "")
        case MemoryError():
            return WRONG, "out of memory; a smaller --batch-size needs less"
        case KeyboardInterrupt():
            return 130, "interrupted at once; --resume goes on from the last checkpoint, if there is one"
    return None


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn an error that :func:`explain` knows into one line on stderr, ``error: …``, and SystemExit.

    A run's own warnings become such lines as well, ``warning: …``.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_plain_warning, warnings.showwarning)
            yield
    except (Exception, KeyboardInterrupt) as error:
        if (known := explain(error)) is None:
            raise
        code, text = known
        parallel.fail(code, text)
        raise SystemExit(code) from None


def _plain_warning(before: Callable[..., Any], message: Warning | str, *details: Any, **more: Any) -> None:
    """A run's warnings are for whoever typed the command; where in the source they were made is not."""
    if isinstance(message, (training.CheckpointWarning, training.FolderLockWarning)):
        print(f"warning: {message}", file=sys.stderr, flush=True)
    else:
        before(message, *details, **more)


def _excepthook(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """The same for a demo that was started as a script, whose errors nobody catches."""
    with plain_errors():
        if explain(error) is not None:
            raise error
        sys.__excepthook__(kind, error, where)

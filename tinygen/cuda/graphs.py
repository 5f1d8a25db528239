"""A training step recorded once as a CUDA graph, and replayed: one launch instead of hundreds.

A small network's step is some hundred kernels of a few microseconds each, and what it takes is the time to launch
them from Python. A CUDA graph is the list of these launches with all their arguments, which the driver starts as one.

    @tg.capture
    def step(x):
        terms = model.training_step(x)
        adam.zero_grad()
        terms["loss"].backward()
        adam.step()
        return terms

    for x in loader:
        terms = step(x)          # the same program on the CPU, where it is called as it is

What that asks of a step: it is replayed with the very addresses and Python numbers of its recording, so

- its first few calls run as usual (they are steps like any other), and then its tensors live in a pool of memory of its
  own, which nobody else is given memory from;
- tensors that it is called with are copied to where the recorded ones lay; their shapes and dtypes must stay;
- what it returns is copied out, because the next replay overwrites it;
- it may not ask for numbers on the host (``.item()``, ``if loss > 1:``), nor copy any to the device;
- numbers that the host counts from step to step (Adam's t, the learning rate, an average's decay) are written to the
  device before each replay. The optimizers of :mod:`tinygen.optim` and :class:`tinygen.optim.EMA` see to that
  themselves; a scheduler's ``step()`` belongs outside the recorded function.

Random numbers go on from replay to replay: the generator's state is on the device, and the recorded kernels move it.

Source: the CUDA programming guide, "CUDA Graphs"; ``torch.cuda.graph``.
"""

from __future__ import annotations

import functools
import gc
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import device_memory
from tinygen.backend import CaptureError, array_module, device_of, get_default_device, is_array, module_for
from tinygen.backend import capture as under_way
from tinygen.kernels.gpu import blas
from tinygen.kernels.gpu.launch import function, usable
from tinygen.tensor import Tensor, wrap

_NUMBERS = 8  # that a place on the device holds

_STORE = r"""
extern "C" __global__ void store(double* to, double a, double b, double c, double d, double e, double f, double g,
                                 double h) {
    double numbers[8] = {a, b, c, d, e, f, g, h};
    if (threadIdx.x < 8) to[threadIdx.x] = numbers[threadIdx.x];
}
"""


class Recorder:
    """What a recording under way offers to those whose numbers live on the host; and what replays need of it.

    Attributes:
        gradients: the ids of the arrays that ``backward`` left in ``.grad`` during the recording. (None of them is the
            id of an array that is older, for that one has it.)
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.gradients: set[int] = set()
        self._live: list[tuple[Any, Callable[[], tuple[float, ...]]]] = []
        self._before: list[Callable[[], None]] = []
        self._kept: dict[tuple[int, str], tuple[Any, Tensor]] = {}

    def keeps(self, owner: Any, name: str) -> None:
        """Say that the step is about to replace the tensor ``owner.name``, whose memory the next replay reads.

        At the end of the step the last replacement is copied to that memory, and the tensor is itself again.
        """
        self._kept.setdefault((id(owner), name), (owner, getattr(owner, name)))

    def settle(self) -> None:
        """Do what :meth:`keeps` has promised: the last thing that is recorded."""
        for (_, name), (owner, first) in self._kept.items():
            first.data[...] = getattr(owner, name).data
        self.restore()

    def restore(self) -> None:
        """Put the tensors back that were replaced."""
        for (_, name), (owner, first) in self._kept.items():
            setattr(owner, name, first)
        self._kept.clear()

    def live(self, advance: Callable[[], tuple[float, ...]]) -> Any:
        """A place on the device, 8 float64, that holds what ``advance()`` returns, called before each replay.

        The first replay is that of the recording itself, so a step count is to be advanced by ``advance`` alone.
        """
        place = self.xp.empty(_NUMBERS, "float64")
        self._live.append((place, advance))
        return place

    def before_replay(self, f: Callable[[], None]) -> None:
        """Call f() before each replay."""
        self._before.append(f)

    def check_gradient(self, array: Any) -> None:
        """Refuse to add to a gradient that is older than the recording.

        Raises:
            CaptureError: it is.
        """
        if id(array) not in self.gradients:
            raise CaptureError(
                "tg.capture: backward() adds to a gradient from before the step, and a replay would add to that same "
                "one again; call optimizer.zero_grad() inside the step, before backward()"
            )

    def advance(self) -> None:
        """Bring the device up to date: every live place, in the order in which they were asked for."""
        for f in self._before:
            f()
        for place, following in self._live:
            numbers = [float(v) for v in following()]
            kernel = function(self.xp, "capture", _STORE, place.dtype, "store")
            kernel((1,), (32,), (place, *numbers, *[0.0] * (_NUMBERS - len(numbers))))


class _Output:
    """Where in the packed results a tensor of the step's result stands."""

    def __init__(self, pack: str, begin: int, shape: tuple[int, ...]) -> None:
        self.pack, self.begin, self.shape = pack, begin, shape


class Captured:
    """A step that is recorded at its first call after the warm-up, and replayed from then on.

    Args:
        step: the function; its tensor arguments (also within tuples, lists and dicts) may differ from call to call in
            their numbers alone, its other arguments not at all.
        warmup: how many calls run as usual first; 1 at the least. They compile kernels and make the optimizer's state.

    Attributes:
        replays: how many calls were replays; 0 on the CPU.

    Raises:
        TypeError, ValueError: step cannot be called, or warmup is no positive integer.
    """

    def __init__(self, step: Callable[..., Any], warmup: int = 3) -> None:
        if not callable(step):
            raise TypeError(f"tg.capture: expected a function, got {type(step).__name__}")
        if not isinstance(warmup, int) or warmup < 1:
            raise ValueError(f"tg.capture: warmup must be a positive integer, got {warmup!r}")
        functools.update_wrapper(self, step, updated=())
        self._step, self._warmup = step, warmup
        self._calls, self.replays = 0, 0
        self._xp: Any = None
        self._stream: Any = None
        self._graph: Any = None
        self._statics: Any = None
        self._result: Any = None
        self._packs: Any = None
        self._recorder: Any = None
        self._frame: Any = None
        self._pool: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The step's result; from a recording, tensors that do not require grad.

        Raises:
            CaptureError: the step cannot be recorded, or a recorded one is called with other shapes, dtypes, devices
                or Python values.
        """
        if under_way.get() is not None:  # a captured step inside another is part of that one
            return self._step(*args, **kwargs)
        tensors = list(_tensors((args, kwargs)))
        if self._xp is None:
            self._xp = _library(tensors)
        if self._xp is np:
            return self._step(*args, **kwargs)
        if self._graph is not None:
            return self._replay(tensors, _frame((args, kwargs)))
        self._calls += 1
        if self._calls <= self._warmup:
            self._make_place()
            with self._place():
                return self._step(*args, **kwargs)
        self._record(args, kwargs, tensors)
        return self._launch()

    @property
    def memory(self) -> int:
        """Bytes of the pool that the recorded step works in; 0 before the first call and on the CPU."""
        return 0 if self._stream is None else int(self._pool.total_bytes())

    @property
    def captured(self) -> bool:
        """Whether the step has been recorded."""
        return self._graph is not None

    def reset(self) -> None:
        """Forget the recording: the next calls warm up and record anew, for another batch size for example."""
        stream = self._stream
        self._graph = self._statics = self._result = self._packs = self._recorder = None
        self._stream = self._pool = None
        self._calls = 0
        if stream is not None:
            blas.forget(self._xp, stream.ptr)

    def __repr__(self) -> str:
        state = f"{self.replays} replays" if self.captured else "not recorded yet"
        return f"<captured step {getattr(self, '__name__', self._step)!r}: {state}>"

    # -- the place: a stream and a pool of memory of its own

    def _make_place(self) -> None:
        if self._stream is not None:
            return
        xp = self._xp
        if not usable(xp, xp.empty(0, "float32")):
            raise CaptureError(
                "tg.capture needs tinygen's own GPU kernels, and they are switched off (TINYGEN_GPU_KERNELS=0, or "
                "set_enabled(False)) or cannot be compiled here"
            )
        self._stream = xp.cuda.Stream(non_blocking=True)
        self._pool = xp.cuda.MemoryPool()
        self._allocator = device_memory.Watched(xp, self._pool.malloc, self._pool.used_bytes)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Work goes into the stream, after what the current one has to do, and that goes on after it."""
        xp, stream = self._xp, self._stream
        before = xp.cuda.get_current_stream()
        stream.wait_event(before.record())
        try:
            with stream, xp.cuda.using_allocator(self._allocator):
                blas.prepare(xp)
                yield
        finally:
            before.wait_event(stream.record())

    # -- recording

    def _record(self, args: tuple, kwargs: dict, tensors: list[Tensor]) -> None:
        xp, stream = self._xp, self._stream
        recorder = Recorder(xp)
        self._frame = _frame((args, kwargs))
        gc.collect()  # what dies during the recording is not to be freed by the collector just then
        with self._place():
            statics = [wrap(t.data.copy()) for t in tensors]
            supply = iter(statics)
            args, kwargs = _mapped((args, kwargs), lambda _: next(supply))
        with self._place():
            token = under_way.set(recorder)
            stream.begin_capture()
            try:
                result = self._step(*args, **kwargs)
                packs, shape = _packed(xp, result)
                recorder.settle()
            except BaseException as error:
                try:
                    stream.end_capture()
                except Exception:  # the capture was already spoilt by what went wrong
                    pass
                # (The recorder is thrown away, and with it what was to be done before replays.)
                recorder.restore()
                self._calls = 0
                explained = _explained(error)
                if explained is None:
                    raise
                raise explained from error
            finally:
                under_way.reset(token)
            try:
                graph = stream.end_capture()
            except Exception as error:
                raise CaptureError(f"tg.capture: the recording of the step could not be ended: {error}") from error
        self._graph, self._statics, self._result, self._packs = graph, statics, shape, packs
        self._recorder = recorder
        xp.get_default_memory_pool().free_all_blocks()

    # -- replaying

    def _replay(self, tensors: list[Tensor], frame: Any) -> Any:
        if len(tensors) != len(self._statics) or frame != self._frame:
            raise CaptureError(
                f"tg.capture: the step was recorded with the arguments {_told(self._frame)}, and is now called with "
                f"{_told(frame)}; only tensors may differ from call to call (reset() records anew)"
            )
        for i, (static, given) in enumerate(zip(self._statics, tensors, strict=True)):
            if given.shape != static.shape or given.dtype != static.dtype or given.device != static.device:
                raise CaptureError(
                    f"tg.capture: tensor {i} of the step was recorded as {static.dtype} {static.shape} on "
                    f"{static.device}, and is now {given.dtype} {given.shape} on {given.device}; a recorded step keeps "
                    "its shapes: use DataLoader(…, drop_last=True), or reset() to record anew"
                )
        for static, given in zip(self._statics, tensors, strict=True):
            static.data[...] = given.data
        return self._launch()

    def _launch(self) -> Any:
        self._recorder.advance()
        self._graph.launch()
        self.replays += 1
        copies = {dtype: pack.copy() for dtype, pack in self._packs.items()}
        return _unpacked(self._result, copies)


def capture(step: Callable[..., Any] | None = None, *, warmup: int = 3) -> Any:
    """Record a training step as a CUDA graph, and replay it: the same step, launched as one. A decorator, or a call.

    On the CPU the step is called as it is, so that a program is the same on both.

    Args:
        step: the function; see the top of :mod:`tinygen.cuda.graphs` for what it may do.
        warmup: how many calls run as usual before the recording.

    Returns:
        A :class:`Captured`, called as step is. ``reset()`` records anew.

    Raises:
        TypeError, ValueError: step is no function, or warmup no positive integer.
        CaptureError (by the step): it cannot be recorded, or is called with other shapes.

    Source: ``torch.cuda.graph``, ``torch.cuda.make_graphed_callables``.
    """
    if step is None:
        return functools.partial(Captured, warmup=warmup)
    return Captured(step, warmup)


# ------------------------------------------------------------------------- arguments and results, taken apart


def _library(tensors: list[Tensor]) -> Any:
    """Where the step is at home: with its tensors, or without any on the default device."""
    for t in tensors:
        if device_of(t.data).type == "cuda":
            return array_module(t.data)
    return np if tensors else module_for(get_default_device())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)


def _mapped(value: Any, f: Callable[[Tensor], Any]) -> Any:
    """The same with f of each tensor in its place."""
    if isinstance(value, Tensor):
        return f(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(part, f) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(part, f) for part in value)
    if isinstance(value, dict):
        return {key: _mapped(part, f) for key, part in value.items()}
    return value


def _frame(arguments: Any) -> Any:
    """The arguments with a mark for each tensor: what must not change from call to call."""
    _refuse_arrays(arguments)
    return _mapped(arguments, lambda _: _TENSOR)


def _refuse_arrays(value: Any) -> None:
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        _refuse_arrays(part)
    if is_array(value):
        raise CaptureError("tg.capture: the step is called with a raw array; pass a Tensor")
    if isinstance(value, Tensor) and value.requires_grad:
        raise CaptureError(
            "tg.capture: the step is called with a tensor that requires grad, whose gradient a replay could not hand "
            "back; let the step use it without being passed it, as it uses a model's parameters"
        )


class _Mark:
    def __repr__(self) -> str:
        return "<tensor>"


_TENSOR = _Mark()


def _told(frame: Any) -> str:
    args, kwargs = frame
    return "(" + ", ".join([repr(a) for a in args] + [f"{k}={v!r}" for k, v in kwargs.items()]) + ")"


def _packed(xp: Any, result: Any) -> tuple[dict[str, Any], Any]:
    """The result's tensors, joined in one array for each dtype, and the result with the places of each in its stead."""
    parts: dict[str, list[Any]] = {}
    sizes: dict[str, int] = {}

    def place(t: Tensor) -> _Output:
        if type(t.data) is not xp.ndarray:
            raise CaptureError("tg.capture: the step returns a tensor on the CPU, which no replay would compute anew")
        pack = t.data.dtype.str
        begin = sizes.get(pack, 0)
        parts.setdefault(pack, []).append(t.data.reshape(-1))
        sizes[pack] = begin + t.data.size
        return _Output(pack, begin, t.data.shape)

    _check_result(result)
    shape = _mapped(result, place)
    packs = {}
    for pack, arrays in parts.items():  # concatenate would copy addresses from the host, of more than 8 arrays
        packs[pack] = joined = xp.empty(sizes[pack], arrays[0].dtype)
        begin = 0
        for a in arrays:
            joined[begin : begin + a.size] = a
            begin += a.size
    return packs, shape


def _check_result(value: Any) -> None:
    """Refuse numbers: a replay would return those of the recording."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            _check_result(part)
    elif is_array(value) or (isinstance(value, (int, float, np.generic)) and not isinstance(value, bool)):
        raise CaptureError(
            f"tg.capture: the step returns {value!r}, a {type(value).__name__}, which every replay would return "
            "unchanged; return tensors"
        )


def _unpacked(shape: Any, packs: dict[str, Any]) -> Any:
    if isinstance(shape, _Output):
        size = int(np.prod(shape.shape, dtype=np.int64))
        return wrap(packs[shape.pack][shape.begin : shape.begin + size].reshape(shape.shape))
    if isinstance(shape, tuple) and hasattr(shape, "_fields"):
        return type(shape)(*(_unpacked(part, packs) for part in shape))
    if isinstance(shape, (list, tuple)):
        return type(shape)(_unpacked(part, packs) for part in shape)
    if isinstance(shape, dict):
        return {key: _unpacked(part, packs) for key, part in shape.items()}
    return shape


# ------------------------------------------------------------------------------------------ explanations

_TINYGEN = str(Path(__file__).parents[1]) + os.sep
_HINTS = ("captur", "Captur", "cuBLAS API", "cuSOLVER API", "cuRAND API", "cuSPARSE API", "cudaErrorStream")


def _explained(error: BaseException) -> CaptureError | None:
    """What a step did that cannot be recorded, and where; None where it failed for another reason."""
    if isinstance(error, CaptureError) or not isinstance(error, (RuntimeError, NotImplementedError)):
        return None
    text = str(error)
    if not any(hint in text for hint in _HINTS):
        return None
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_TINYGEN) and "cupy" not in f.filename] or list(frames)
    where = f"{own[-1].filename}:{own[-1].lineno}, in {own[-1].name}" if own else "an unknown place"
    if "H2D" in text:
        what = "it copies numbers from the host to the device; make that tensor before the step, or pass it to the step"
    elif "API during stream capture" in text:
        what = "it calls a library that cannot be recorded; do that outside the step"
    else:
        what = "it asks for numbers on the host (item(), float(), if x > 0, a boolean mask); return tensors instead"
    return CaptureError(f"tg.capture: the step cannot be recorded: {what}. At {where}. ({text})")

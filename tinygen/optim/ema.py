"""EMA: the running average of a model's weights, which draws better samples than the weights of any one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from tinygen.backend import CaptureError, array_module, capture, device_of, move
from tinygen.kernels.gpu import parameters
from tinygen.nn.module import Module
from tinygen.optim.blocks import in_place
from tinygen.tensor import Tensor, next_number, wrap


class EMA:
    """The exponential moving average s of parameters w: s ← d s + (1 − d) w at every ``update()``.

    After n updates s holds the weights of about the last 1/(1 − d) steps, and dⁿ of those that it began with: 0.9999
    still holds 37 % of the initial weights after 10,000 steps. With ``warmup`` the decay grows with the number n of
    updates before this one, so that early averages forget the start::

        dₙ = min(d, (1 + n)/(10 + n))

    Buffers (running means) are copied as they are. Call ``update()`` after every ``optimizer.step()``.

    Args:
        model_or_params: a Module, or an iterable of Tensors.
        decay: d in [0, 1).
        warmup: let the decay grow.

    Attributes:
        updates: n, how many there have been.

    Raises:
        ValueError: decay is out of range, or there are no parameters.
        TypeError: model_or_params is neither.

    Source: Polyak & Juditsky 1992; the warm-up is that of ``tf.train.ExponentialMovingAverage``; Ho et al. 2020,
    appendix B, for diffusion models.
    """

    def __init__(self, model_or_params: Module | Iterable[Tensor], decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay must be 0 ≤ d < 1, got {decay}")
        if not isinstance(model_or_params, Module):
            model_or_params = list(model_or_params)
        self.decay, self.warmup, self.updates = float(decay), bool(warmup), 0
        self._source = model_or_params
        self._kept: dict[str, Any] | None = None  # the model's own numbers, while `apply` has put the averages there
        tensors = self._named()
        if not tensors:
            raise ValueError("EMA: there are no parameters to average")
        self._shadow = {name: tensor.data.copy(order="K") for name, tensor in tensors.items()}

    def _named(self, target: Any = None) -> dict[str, Tensor]:
        """Parameters and buffers by name, as they are now: a module may replace a buffer."""
        source = self._source if target is None else target
        if isinstance(source, Module):
            return {**dict(source.named_parameters()), **dict(source.named_buffers())}
        named = {str(i): tensor for i, tensor in enumerate(source)}
        for name, tensor in named.items():
            if not isinstance(tensor, Tensor):
                raise TypeError(f"EMA: expected a Module or Tensors, got {type(tensor).__name__} at place {name}")
        return named

    def _averaged(self) -> set[str]:
        """The names that are averaged; all others are copied."""
        if isinstance(self._source, Module):
            return {name for name, _ in self._source.named_parameters()}
        return set(self._shadow)

    def update(self) -> None:
        """Take in the parameters as they are now.

        Raises:
            RuntimeError: called inside ``apply()``, where the averages stand in the model.
        """
        if self._kept is not None:
            raise RuntimeError("EMA.update: the averages stand in the model now; leave `with ema.apply():` first")
        averaged = self._averaged()
        jobs: list[tuple[Any, Any]] = []
        for name, tensor in self._named().items():
            if name in averaged and tensor.dtype.kind == "f":
                jobs.append((self._shadow[name], tensor.data))
            else:
                self._shadow[name][...] = tensor.data
        self._average(jobs)

    def _average(self, jobs: list[tuple[Any, Any]]) -> None:
        """s ← dₙ s + (1 − dₙ) w for every pair (s, w), and n goes on; on a GPU in one launch for all."""
        together: dict[Any, list[list[Any]]] = {}
        others: list[tuple[Any, Any]] = []
        for s, w in jobs:
            xp = array_module(s)
            if parameters.fits(xp, (s, w)):
                together.setdefault((xp, s.dtype.char, device_of(s)), []).append([s, w])
            else:
                others.append((s, w))
        recorder = capture.get()
        if recorder is not None:
            if others or len(together) != 1:
                raise CaptureError("tg.capture: EMA.update can be captured for parameters of one dtype on one GPU")
            ((xp, *_), rows) = next(iter(together.items()))
            parameters.update(xp, "average", rows, (), live=recorder.live(lambda: (self._next_decay(),)))
            return
        d = self._next_decay()
        for (xp, *_), rows in together.items():
            parameters.update(xp, "average", rows, (d,))
        average = partial(_average, d)
        in_place([(average, [s, w]) for s, w in others])

    def _next_decay(self) -> float:
        """dₙ of this update; the number of updates goes on."""
        n = self.updates
        self.updates = n + 1
        return min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay

    def copy_to(self, target: Module | Iterable[Tensor] | None = None) -> None:
        """Write the averages into a model of the same kind (or as many tensors); into its own where omitted.

        Raises:
            ValueError: names or shapes differ; nothing was written.
        """
        named = self._named(target if target is None or isinstance(target, Module) else list(target))
        _check_fits("EMA.copy_to", named, self._shadow)
        _write(named, self._shadow)

    @contextmanager
    def apply(self) -> Iterator[None]:
        """``with ema.apply():`` the model has the averages; after it, also after an error, its own numbers again.

        Raises:
            RuntimeError: inside another ``apply()``.
        """
        if self._kept is not None:
            raise RuntimeError("EMA.apply: the averages stand in the model already")
        self._kept = {name: tensor.data.copy(order="K") for name, tensor in self._named().items()}
        _write(self._named(), self._shadow)
        try:
            yield
        finally:
            kept, self._kept = self._kept, None
            _write(self._named(), kept)

    def state_dict(self) -> dict[str, Any]:
        """The averages by name, the decay, and how many updates there were. The averages share their numbers."""
        shadow = {name: wrap(array) for name, array in self._shadow.items()}
        return {"decay": self.decay, "warmup": self.warmup, "updates": self.updates, "shadow": shadow}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: the state is of another model; nothing was changed.
        """
        if not isinstance(state_dict, Mapping) or set(state_dict) != {"decay", "warmup", "updates", "shadow"}:
            raise ValueError("EMA.load_state_dict: expected a dict with decay, warmup, updates and shadow")
        saved = {
            name: value.data if isinstance(value, Tensor) else value for name, value in state_dict["shadow"].items()
        }
        _check_fits("EMA.load_state_dict", saved, self._shadow)
        for name, array in saved.items():
            self._shadow[name][...] = move(array, device_of(self._shadow[name]))
        self.decay, self.warmup = float(state_dict["decay"]), bool(state_dict["warmup"])
        self.updates = int(state_dict["updates"])


def average_at_once(pairs: list[tuple[Any, Any]], d: Any) -> None:
    """s ← d s + (1 − d) w in place for every pair of arrays (s, w), with d an array of one number beside them.

    On a GPU one launch for all. d stays on the device: nobody waits for it, and a captured step computes it anew.
    """
    others = []
    rows: dict[str, list[tuple[Any, Any]]] = {}
    for s, w in pairs:
        if parameters.fits(array_module(s), (s, w)):
            rows.setdefault(s.dtype.char, []).append((s, w))
        else:
            others.append((s, w))
    for part in rows.values():
        xp = array_module(part[0][0])
        live = xp.zeros(8, "float64")
        live[:1] = d
        parameters.update(xp, "average", part, (), live=live)
    for s, w in others:
        s += (1 - d).astype(w.dtype) * (w - s)


def _average(d: float, s: Any, w: Any, part: Any, _: Any) -> None:
    """s ← d s + (1 − d) w."""
    array_module(s).multiply(w, 1 - d, out=part)
    s *= d
    s += part


def _check_fits(who: str, given: Mapping[str, Any], shadow: Mapping[str, Any]) -> None:
    """Raise ValueError, with every difference, unless names, shapes and dtypes agree."""
    problems = [f"missing: {name}" for name in shadow if name not in given]
    problems += [f"unexpected: {name}" for name in given if name not in shadow]
    for name, s in shadow.items():
        if name in given and (tuple(given[name].shape) != s.shape or given[name].dtype != s.dtype):
            x = given[name]
            problems.append(f"{name}: expected {s.dtype} {s.shape}, got {x.dtype} {tuple(x.shape)}")
    if problems:
        raise ValueError(f"{who}: it does not fit the averages, and nothing was written:\n  " + "\n  ".join(problems))


def _write(named: Mapping[str, Tensor], arrays: Mapping[str, Any]) -> None:
    for name, tensor in named.items():
        tensor.data[...] = move(arrays[name], device_of(tensor.data))
        tensor._written = next_number()

"""Optimizer: parameters in groups, each parameter's running averages, and a step that writes in place.

A subclass says in ``_update`` how an array of parameters moves; that method is the formula. Everything else (groups,
checks, saving and loading) is here. ``_update`` works number by number and knows nothing but arrays, so that it may be
handed a parameter, a part of one that fits into the processor's cache, or many of them joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from tinygen.backend import CaptureError, array_module, capture, device_of, move
from tinygen.kernels.gpu import parameters
from tinygen.optim.blocks import Job, in_place
from tinygen.recording import enable_grad
from tinygen.tensor import Tensor, next_number, wrap

Group = dict[str, Any]


class Optimizer:
    """What all optimizers share. Not to be used itself.

    Args:
        params: Tensors that require grad, or dicts ``{"params": …, "lr": …}``: groups with settings of their own.
        defaults: the settings of groups that do not have their own.

    Attributes:
        param_groups: a list of dicts: ``"params"`` and the settings, which may be changed between steps.
        state: parameter → its averages, empty before its first step.
        guard: None, or a function of the optimizer that every step asks before anything moves. A parameter whose
            gradient it sets to None stays where it is.

    Raises:
        TypeError: params is not an iterable of Tensors or dicts, or a setting is unknown.
        ValueError: params is empty, names a parameter twice, or holds something that cannot be learned.

    Source: ``torch.optim.Optimizer``.
    """

    def __init__(self, params: Iterable[Any], defaults: Group) -> None:
        who = type(self).__name__
        if isinstance(params, Tensor) or hasattr(params, "parameters") or not isinstance(params, Iterable):
            hint = "model.parameters()" if hasattr(params, "parameters") else "an iterable, such as [tensor]"
            raise TypeError(f"{who}: params must be Tensors or dicts of them, got {type(params).__name__}; pass {hint}")
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.guard: Callable[[Optimizer], None] | None = None
        groups = list(params)
        if not groups:
            raise ValueError(f"{who}: there are no parameters to optimize")
        if not any(isinstance(group, dict) for group in groups):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    # -- what a subclass defines

    _optional: tuple[str, ...] = ()  # what PyTorch's state_dict of a parameter may lack

    def _check(self, group: Group) -> None:
        """Raise ValueError where a setting is out of range."""

    def _averages(self, group: Group) -> tuple[str, ...]:
        """The names of a parameter's averages, PyTorch's names."""
        return ()

    _kernel = ""  # the name of the same formula in kernels/gpu/parameters.py, if it has one
    _slots: tuple[str, ...] = ()  # the averages in the order in which that takes them

    def _numbers(self, group: Group, t: int) -> tuple[float, ...]:
        """The kernel's numbers in step t, in its order."""
        raise NotImplementedError(f"{type(self).__name__} does not define _numbers")

    def _update(self, w: Any, g: Any, own: dict[str, Any], d: Any, e: Any, t: int, group: Group) -> None:
        """Move the array w, whose gradient is g, in place, number by number: the formula.

        Args:
            w: a parameter, or a part of one. g: its gradient, which is never written.
            own: its averages by name, written in place.
            d, e: work space like w.
            t: 1 in the first step since the averages were made, 2 in the second, …
            group: the settings.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define _update")

    # -- parameters

    def add_param_group(self, param_group: Group) -> None:
        """Optimize more parameters, with settings of their own where the dict has any.

        Raises:
            TypeError, ValueError: as for the optimizer itself; nothing was added then.
        """
        who = type(self).__name__
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise TypeError(f'{who}: a parameter group is a dict {{"params": …}}, got {param_group!r}')
        params = param_group["params"]
        if isinstance(params, (set, frozenset)):
            raise TypeError(f"{who}: parameters must come in an order, not in a set: it differs from run to run")
        params = [params] if isinstance(params, Tensor) else list(params)
        for key in param_group:
            if key not in self.defaults and key not in ("params", "initial_lr"):
                raise TypeError(f"{who}: unknown setting {key!r}; there are {', '.join(self.defaults)}")
        if not params:
            raise ValueError(f"{who}: a parameter group is empty")
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for i, p in enumerate(params):
            if not isinstance(p, Tensor):
                raise TypeError(f"{who}: params[{i}] is a {type(p).__name__}, expected a Tensor")
            if p._node is not None:
                raise ValueError(
                    f"{who}: params[{i}], of shape {p.shape}, was computed by {p._node!r}; only leaves can be "
                    "optimized: make one with nn.Parameter(x) or x.detach().requires_grad_()"
                )
            if p.dtype.kind != "f":
                raise ValueError(f"{who}: params[{i}] holds {p.dtype}; only floating numbers can be optimized")
            if not getattr(p.data.flags, "writeable", True):
                raise ValueError(f"{who}: params[{i}], of shape {p.shape}, is read-only memory; optimize a copy of it")
            if id(p) in known:
                raise ValueError(
                    f"{who}: params[{i}], of shape {p.shape}, is there twice; every step would move it twice"
                )
            known.add(id(p))
        group = {"params": params, **{key: param_group.get(key, value) for key, value in self.defaults.items()}}
        if "initial_lr" in param_group:
            group["initial_lr"] = param_group["initial_lr"]
        self._check(group)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients: None, or zeros where ``set_to_none`` is False."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    g = p.grad.data
                    p.grad = None if set_to_none else wrap(array_module(g).zeros_like(g))

    # -- the step

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient by one step, in place.

        Args:
            closure: computes the loss anew, with its gradients, before the step.

        Returns: what closure returned, or None.

        Raises:
            RuntimeError: a gradient's shape, dtype or device is not its parameter's; no parameter has moved then.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if self.guard is not None:
            self.guard(self)
        ready = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p, _ in ready:
            w, g = p.data, p.grad.data
            if g.shape != w.shape or g.dtype != w.dtype or device_of(g) != device_of(w):
                raise RuntimeError(
                    f"{type(self).__name__}.step: a parameter is {w.dtype} {w.shape} on {device_of(w)}, its gradient "
                    f"{g.dtype} {g.shape} on {device_of(g)}"
                )
        updates: dict[Any, Callable[..., None]] = {}
        in_place([self._job(p, group, updates) for p, group in self._at_once(ready)])
        _note_written([p for p, _ in ready])
        return loss

    def _own(self, p: Tensor, group: Group) -> dict[str, Any]:
        """A parameter's averages, made at its first step."""
        w, names = p.data, self._averages(group)
        own = self.state.setdefault(p, {})
        missing = [name for name in names if name not in own]
        if missing:
            if len(missing) == len(names):
                own["step"] = 0
            for name in missing:
                own[name] = array_module(w).zeros_like(w)
        return own

    def _at_once(self, ready: list[tuple[Tensor, Group]]) -> list[tuple[Tensor, Group]]:
        """Move what a GPU's kernel moves in one launch (kernels/gpu/parameters.py); returns the others.

        Parameters whose numbers agree (group, step, dtype, device) go together. In a step that is being captured the
        numbers go to the device before each replay.
        """
        recorder, others = capture.get(), []
        together: dict[Any, list[tuple[Tensor, Group, list[Any]]]] = {}
        for p, group in ready:
            w = p.data
            row = None
            if self._kernel and type(w) is not np.ndarray:
                own, g = self._own(p, group), p.grad.data  # type: ignore[union-attr]
                xp = array_module(w)
                row = [w, g if g.flags.c_contiguous else xp.ascontiguousarray(g), *(own.get(a) for a in self._slots)]
            if row is None or not parameters.fits(xp, row):
                others.append((p, group))
            else:
                key = xp, id(group), own.get("step", 0), w.dtype.char, device_of(w)
                together.setdefault(key, []).append((p, group, row))
        for (xp, *_), members in together.items():
            group = members[0][1]
            states = [self.state[p] for p, _, _ in members]
            following = partial(self._following, states, group)
            rows = [row for _, _, row in members]
            if recorder is None:
                parameters.update(xp, self._kernel, rows, following())
            else:
                parameters.update(xp, self._kernel, rows, (), live=recorder.live(following))
        if recorder is not None:
            if others:
                p = others[0][0]
                raise CaptureError(
                    f"tg.capture: {type(self).__name__}.step has no kernel for a {p.dtype} parameter of shape "
                    f"{p.shape} on {p.device}, without which its numbers cannot be brought up to date between replays"
                )
            recorder.before_replay(partial(_note_written, [p for p, _ in ready]))
        return others

    def _following(self, states: list[dict[str, Any]], group: Group) -> tuple[float, ...]:
        """The numbers of the next step of parameters that are at the same one; their count goes on."""
        t = states[0].get("step", 0) + 1
        for own in states:
            own["step"] = t
        return self._numbers(group, t)

    def _job(self, p: Tensor, group: Group, updates: dict[Any, Callable[..., None]]) -> Job:
        """A parameter's update, and the arrays that it is about; one update for all that agree in group and step."""
        own = self._own(p, group)
        t = own["step"] = own.get("step", 0) + 1
        names = self._averages(group)
        update = updates.get((id(group), t))
        if update is None:

            def update(w: Any, g: Any, *rest: Any) -> None:
                *averages, d, e = rest
                self._update(w, g, dict(zip(names, averages)), d, e, t, group)

            updates[id(group), t] = update
        return update, [p.data, p.grad.data, *[own[name] for name in names]]  # type: ignore[union-attr]

    # -- saving and loading

    def state_dict(self) -> dict[str, Any]:
        """The settings and averages, the parameters standing there as numbers 0, 1, … in the order of the groups.

        The averages share their numbers with the optimizer, as in PyTorch: save or copy them before the next step.
        """
        places: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                places[id(p)] = len(places)
            settings = {key: value for key, value in group.items() if key != "params"}
            groups.append({**settings, "params": [places[id(p)] for p in group["params"]]})
        state = {}
        for p, own in self.state.items():
            state[places[id(p)]] = {
                key: value if isinstance(value, (int, float, type(None))) else wrap(value) for key, value in own.items()
            }
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state: settings and averages, copied. PyTorch's own state_dicts are taken too.

        Raises:
            ValueError: the state is of other groups, parameters or settings; every difference is listed, and
                nothing has changed.
        """
        who = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            raise ValueError(f"{who}: expected a dict with 'state' and 'param_groups'")
        saved_groups, saved_state = state_dict["param_groups"], state_dict["state"]
        problems: list[str] = []
        if len(saved_groups) != len(self.param_groups):
            problems.append(f"there are {len(self.param_groups)} parameter groups, the state has {len(saved_groups)}")
        new_groups: list[Group] = []
        params: dict[int, Tensor] = {}
        for i, (group, saved) in enumerate(zip(self.param_groups, saved_groups)):
            if len(saved["params"]) != len(group["params"]):
                problems.append(f"group {i} has {len(group['params'])} parameters, the state {len(saved['params'])}")
            params.update(zip(saved["params"], group["params"]))
            new_groups.append(self._settings(i, group, saved, problems))
        new_state: dict[Tensor, dict[str, Any]] = {}
        for place, saved in saved_state.items():
            place = int(place)  # JSON makes strings of numbers that are keys
            if place in params:
                group = next(group for group in new_groups if any(p is params[place] for p in group["params"]))
                new_state[params[place]] = self._loaded(place, params[place].data, group, saved, problems)
            elif not problems:
                problems.append(f"there is no parameter {place}")
        if problems:
            lines = "".join(f"\n  {line}" for line in problems)
            raise ValueError(f"{who}: the state does not fit, and nothing was loaded:{lines}")
        for group, settings in zip(self.param_groups, new_groups):
            group.clear()
            group.update(settings)
        self.state = new_state

    def _settings(self, i: int, group: Group, saved: Mapping[str, Any], problems: list[str]) -> Group:
        settings = {"params": group["params"]}
        for key in self.defaults:
            if key not in saved:
                problems.append(f"group {i}: the setting {key!r} is missing from the state")
            else:
                value = saved[key]
                settings[key] = tuple(value) if isinstance(value, list) else value
        for key, value in saved.items():
            # PyTorch's further settings (foreach, fused, …) are no loss where they are switched off.
            if key == "initial_lr":
                settings[key] = value
            elif key not in self.defaults and key not in ("params", "param_names") and value not in (None, False):
                problems.append(f"group {i}: the state has the setting {key}={value!r}, which is not supported here")
        if not problems:
            try:
                self._check(settings)
            except (TypeError, ValueError) as error:
                problems.append(f"group {i}: {error}")
        return settings

    def _loaded(
        self, place: int, w: Any, group: Group, saved: Mapping[str, Any], problems: list[str]
    ) -> dict[str, Any]:
        """One parameter's averages, in arrays of their own with the parameter's memory order."""
        names = self._averages(group)
        own: dict[str, Any] = {}
        if any(saved.get(key) is not None for key in ("step", *names)):
            own["step"] = int(saved.get("step", 1))  # first, as after a step: a file's bytes do not depend on a resume
        for key in saved:
            if key not in ("step", *names) and saved[key] is not None:
                problems.append(f"parameter {place}: the state has {key!r}, which these settings do not use")
        for key in ("step", *names):
            if saved.get(key) is None and key not in self._optional:
                problems.append(f"parameter {place}: {key!r} is missing from the state")
        for key in names:
            value = saved.get(key)
            if value is None:
                continue
            array = value.data if isinstance(value, Tensor) else value
            array = array if hasattr(array, "strides") else np.asarray(array)
            if tuple(array.shape) != w.shape or array.dtype != w.dtype:
                problems.append(
                    f"parameter {place}: expected {key!r} as {w.dtype} {w.shape}, got {array.dtype} "
                    f"{tuple(array.shape)}"
                )
            else:
                own[key] = array_module(w).empty_like(w)
                own[key][...] = move(array, device_of(w))
        return own

    def __repr__(self) -> str:
        lines = []
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"


def _note_written(params: list[Tensor]) -> None:
    for p in params:
        p._written = next_number()


def check_range(who: str, group: Group, **limits: float) -> None:
    """Raise ValueError unless 0 ≤ setting < limit (∞ excluded, nan refused) for every setting named."""
    for name, limit in limits.items():
        value = group[name]
        if isinstance(value, Tensor) or not isinstance(value, (int, float, np.number)):
            raise TypeError(f"{who}: {name} must be a number, got {type(value).__name__}")
        if not 0 <= value < limit:
            bound = f" < {limit:g}" if limit != float("inf") else ""
            raise ValueError(f"{who}: {name} must be 0 ≤ {name}{bound}, got {value}")

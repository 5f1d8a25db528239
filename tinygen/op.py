"""How an op and its derivative are declared.

An op is a function of raw arrays, and one vjp (vector-Jacobian product) for each argument that has a
derivative. With L the scalar that is differentiated at last, y = f(a, b) and g = ∂L/∂y, the vjp of ``a``
returns ∂L/∂a. It is written in ops on Tensors, so it can be differentiated again::

    @op
    def mul(a, b):
        return a * b

    @mul.vjp("a")
    def _(g, b):
        return g * b

    @mul.vjp("b")
    def _(g, a):
        return g * a

A vjp's parameters name what it needs, and just that is kept until the backward sweep: ``g`` first, then any of

- the op's arguments by their names (Tensors where Tensors were passed);
- ``NAME_shape`` for the shape of argument NAME, which does not keep its numbers;
- ``aux`` for what the forward returned beside its result, where it is declared with ``@op(aux=True)``;
- any one other name for the result y itself.

The full form ``(g, y, a, b)``, with every argument in order, is always right too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from tinygen import anomaly
from tinygen.anomaly import watching
from tinygen.backend import DeviceError, array_module, device_of, is_array
from tinygen.promotion import promote
from tinygen.recording import recording
from tinygen.tensor import Tensor, recorded, wrap

_array_types: set[type] = set()
registry: dict[str, Op] = {}


class Plan:
    """What to keep and which rules to run, for one combination of arguments that require grad.

    Attributes:
        rules, positions: the rules of these arguments, and which they are.
        arguments: which arguments are kept.
        others: what else is kept, by pick.
    """

    __slots__ = ("rules", "positions", "arguments", "others")

    def __init__(self, rules: tuple, positions: tuple[int, ...], kept: Iterable[int], arity: int) -> None:
        self.rules = rules
        self.positions = positions
        self.arguments = tuple(sorted(pick for pick in kept if pick < arity))
        self.others = tuple(sorted(pick for pick in kept if pick >= arity))


class Op:
    """The declaration behind an op function: its forward, its vjps, and its plans.

    Attributes:
        name: the forward's name.
        forward: the function of raw arrays.
        arguments: its parameters' names, in order.
        rules: position of an argument → (vjp, picks); a pick is the position of an argument, ``n`` for the
            result, ``n + 1`` for aux, and ``n + 2 + i`` for the shape of argument i.
        broadcast: whether gradients are summed back to the shape, and cast to the dtype, of their argument.
        sequence: the position of the argument that is a sequence of tensors, or None.
    """

    def __init__(self, forward: Callable, broadcast: bool, aux: bool, sequence: str | None) -> None:
        code = getattr(forward, "__code__", None)
        if code is None:
            raise TypeError(f"op: expected a Python function of raw arrays, got {forward!r}")
        if code.co_kwonlyargcount or code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
            raise TypeError(f"op: {forward.__name__} may have neither *args, **kwargs nor keyword-only arguments")
        if broadcast and sequence is not None:
            raise TypeError(f"op: {forward.__name__} cannot have both broadcast=True and a sequence of tensors")
        self.name = forward.__name__.lstrip("_")
        self.module = forward.__module__
        self.forward = forward
        self.arguments = code.co_varnames[: code.co_argcount]
        defaults = forward.__defaults__ or ()
        self.required = len(self.arguments) - len(defaults)
        self.defaults = dict(zip(self.arguments[self.required :], defaults, strict=True))
        self.rules: dict[int, tuple[Callable, tuple[int, ...]]] = {}
        self.plans: dict[int, Plan] = {}
        self.broadcast = broadcast
        self.aux = aux
        self.sequence: int | None = None
        if sequence is not None:
            if sequence not in self.arguments:
                raise TypeError(f"op: {forward.__name__} has no argument {sequence!r}")
            self.sequence = self.arguments.index(sequence)

    def __repr__(self) -> str:
        return f"<op {self.name}({', '.join(self.arguments)})>"

    # -- declaring

    def vjp(self, *names: str) -> Callable[[Callable], Callable]:
        """Declare the vjp of the named arguments (see the top of this file for its parameters).

        Raises:
            TypeError: the op has no such argument, or the vjp's parameters cannot be matched.
        """
        for name in names:
            if name not in self.arguments:
                raise TypeError(f"{self.name}.vjp({name!r}): {self.name} has the arguments {', '.join(self.arguments)}")
            if self.sequence not in (None, self.arguments.index(name)):
                raise TypeError(
                    f"{self.name}.vjp({name!r}): an op of a sequence of tensors is differentiated in "
                    f"{self.arguments[self.sequence]!r} alone"
                )

        def declare(rule: Callable) -> Callable:
            for name in names:
                self.rules[self.arguments.index(name)] = (rule, self.picks(rule))
            self.plans.clear()
            return rule

        return declare

    def picks(self, rule: Callable) -> tuple[int, ...]:
        """What a vjp's parameters after g stand for, as positions among the saved values."""
        code = rule.__code__
        if rule.__defaults__:
            # A default would look like one more name, and silently receive the result.
            raise TypeError(f"a vjp of {self.name} takes no defaults; read the value from an enclosing scope")
        wanted = list(code.co_varnames[1 : code.co_argcount])
        if self.sequence is not None:
            if wanted[:1] != ["i"]:
                raise TypeError(f"a vjp of {self.name} takes g, then i: which tensor of the sequence is meant")
            wanted.pop(0)
        n = len(self.arguments)
        found: list[int | None] = []
        for name in wanted:
            if name in self.arguments:
                found.append(self.arguments.index(name))
            elif name == "aux" and self.aux:
                found.append(n + 1)
            elif name.endswith("_shape") and name[:-6] in self.arguments:
                found.append(n + 2 + self.arguments.index(name[:-6]))
            else:
                found.append(None)
        if found.count(None) == 1:
            found[found.index(None)] = n
        if None in found:
            if len(wanted) != n + 1:
                raise TypeError(
                    f"a vjp of {self.name} takes g, then any of {', '.join(self.arguments)}, NAME_shape"
                    f"{', aux' if self.aux else ''} and one more name for the result; "
                    f"got ({', '.join(code.co_varnames[: code.co_argcount])})"
                )
            found = [n, *range(n)]
        return tuple(pick for pick in found if pick is not None)

    # -- calling

    def bind(self, args: Sequence, kwargs: dict[str, Any]) -> list:
        """The arguments in order, defaults filled in.

        Raises:
            TypeError: one is unknown, missing, or given twice.
        """
        if len(args) > len(self.arguments):
            raise TypeError(
                f"{self.name}() takes {len(self.arguments)} arguments ({', '.join(self.arguments)}), got {len(args)}"
            )
        bound = list(args)
        for name in self.arguments[len(args) :]:
            if name in kwargs:
                bound.append(kwargs.pop(name))
            elif name in self.defaults:
                bound.append(self.defaults[name])
            else:
                raise TypeError(f"{self.name}() misses the argument {name!r}")
        for name in kwargs:
            problem = "twice" if name in self.arguments else f"unknown; it takes {', '.join(self.arguments)}"
            raise TypeError(f"{self.name}(): argument {name!r} is {'given ' * (problem == 'twice')}{problem}")
        return bound

    def fail(self, error: Exception, raw: Iterable) -> NoReturn:
        """Raise the library's error, explained."""
        explained = self.explain(error, raw)
        try:
            if explained is error:
                raise error
            raise explained from error
        finally:
            del explained, error  # this frame is in their traceback: a cycle that would keep the arrays alive

    def explain(self, error: Exception, raw: Iterable) -> Exception:
        """The library's error again, with what was called and every argument's dtype, shape and device."""
        parts, places = [], set()
        for name, value in zip(self.arguments, raw, strict=True):
            values = value if isinstance(value, (list, tuple)) else [value]
            if values and all(is_array(v) for v in values):
                places |= {device_of(v) for v in values}
                parts.append(f"{name}: " + ", ".join(f"{v.dtype} {v.shape} on {device_of(v)}" for v in values))
            else:
                parts.append(f"{name}={value!r}")
        call = f"{self.name}({', '.join(parts)})"
        # (An index may live on the host: CuPy copies it. What is wrong with one is then told as it is.)
        if len(places) > 1 and not isinstance(error, IndexError):
            return DeviceError(
                f"{call}: the arguments live on different devices, {' and '.join(sorted(places))}; "
                "move one with x.to(device)"
            )
        if isinstance(error, DeviceError):
            return error
        if not places and isinstance(error, (TypeError, AttributeError)):
            return TypeError(f"{call}: expected a Tensor; make one with tg.tensor(...)")
        text = str(error)
        if text.startswith(f"{self.name}: ") or text.startswith(f"{self.name}("):
            return error
        kind = next((k for k in (IndexError, TypeError, ValueError) if isinstance(error, k)), None)
        if kind is None:
            return error
        return kind(f"{call}: {text}")

    def refuse(self, name: str) -> NoReturn:
        """Raise TypeError for an argument that requires grad and has no vjp."""
        raise TypeError(
            f"{self.name}() has no derivative with respect to {name!r}, which requires grad; "
            f"pass {name}.detach() if none is wanted"
        )

    def plan(self, tracked: int) -> Plan:
        """The plan for the arguments whose bits are set in ``tracked``.

        Raises:
            TypeError: one of them has no vjp, so that its gradient would be lost in silence.
        """
        rules, positions = [], []
        kept: set[int] = set()
        for position, name in enumerate(self.arguments):
            if tracked >> position & 1:
                if position not in self.rules:
                    self.refuse(name)
                rules.append(self.rules[position])
                positions.append(position)
                kept.update(self.rules[position][1])
        plan = self.plans[tracked] = Plan(tuple(rules), tuple(positions), kept, len(self.arguments))
        return plan

    def record(self, args: Sequence, out: Any, aux: Any, tracked: int) -> Tensor:
        """The result as a Tensor that knows how it was made."""
        if out.dtype.kind not in "fc":
            return wrap(out)  # integers have no derivative
        plan = self.plans.get(tracked) or self.plan(tracked)
        saved = {}
        for pick in plan.arguments:
            saved[pick] = args[pick]
        if plan.others:
            n = len(self.arguments)
            for pick in plan.others:
                saved[pick] = out if pick == n else aux if pick == n + 1 else _shape(args[pick - n - 2])
        edges = []
        for position in plan.positions:
            argument = args[position]
            edges.append(argument._node or argument)
        return recorded(self, plan.rules, edges, saved, out)

    def record_sequence(self, args: Sequence, out: Any, aux: Any) -> Tensor:
        """The same for an op of a sequence of tensors: one edge for each of them that requires grad."""
        assert self.sequence is not None
        if out.dtype.kind not in "fc":
            return wrap(out)
        rule, picks = self.rules[self.sequence]
        for position, argument in enumerate(args):
            if isinstance(argument, Tensor) and argument._tracked:
                self.refuse(self.arguments[position])
        tensors = args[self.sequence]
        n = len(self.arguments)
        saved: dict[int, Any] = {}
        for pick in picks:
            if pick >= n + 2:
                value = args[pick - n - 2]
                many = isinstance(value, (list, tuple))
                saved[pick] = [_shape(v) for v in value] if many else _shape(value)
            else:
                saved[pick] = args[pick] if pick < n else (out if pick == n else aux)
        rules, edges = [], []
        for i, tensor in enumerate(tensors):
            if isinstance(tensor, Tensor) and tensor._tracked:
                rules.append((functools.partial(_at, rule, i), picks))
                edges.append(tensor._node or tensor)
        return recorded(self, tuple(rules), edges, saved, out)

    def watched(self, args: Sequence, raw: Sequence, out: Any, aux: Any, tracked: int) -> Tensor:
        """The same under detect_anomaly: the result is looked at, and a recorded step knows the line that made it."""
        anomaly.check_result(self, raw, out)
        if not (tracked and self.rules and recording.get()):
            return wrap(out)
        result = self.record(args, out, aux, tracked) if self.sequence is None else self.record_sequence(args, out, aux)
        anomaly.remember(result._node)
        return result


def _at(rule: Callable, i: int, g: Tensor, *values: Any) -> Tensor:
    return rule(g, i, *values)


def _shape(value: Any) -> tuple[int, ...]:
    return getattr(value, "shape", ())


def op(
    forward: Callable | None = None,
    *,
    broadcast: bool = False,
    aux: bool = False,
    sequence: str | None = None,
) -> Any:
    """Make an op of a function on raw arrays; declare its vjps with ``@NAME.vjp("argument")``.

    An op without any vjp is not differentiable: its results never require grad.

    Args:
        forward: a function of raw arrays and Python values that returns an array. It never writes to its
            arguments and never looks at array contents on the host.
        broadcast: the last two arguments are brought to a common dtype as PyTorch does, they broadcast, and
            the sweep sums their gradients back to their shapes.
        aux: forward returns ``(result, aux)``; aux holds constants for the vjps: masks, indices, or
            statistics that save an op of the same family a pass over the data.
        sequence: the name of the argument that is a sequence of tensors. Its vjp takes
            ``g, i, …`` and returns the gradient of the i-th.

    Returns:
        The op: a function of Tensors (raw arrays and Python numbers count as constants).

    Raises (by the op):
        ValueError, TypeError, IndexError: the array library's own error, with each argument's dtype and shape.
        DeviceError: the arguments live on different devices.
    """
    if forward is None:
        return functools.partial(op, broadcast=broadcast, aux=aux, sequence=sequence)

    declared = Op(forward, broadcast, aux, sequence)
    arity = len(declared.arguments)
    rules = declared.rules

    def apply(*args: Any, **kwargs: Any) -> Tensor:
        if kwargs or len(args) != arity:
            args = declared.bind(args, kwargs)  # type: ignore[assignment]
        raw = []
        tracked = 0
        bit = 1
        for argument in args:
            if isinstance(argument, Tensor):
                raw.append(argument.data)
                if argument._tracked:
                    tracked |= bit
            else:
                raw.append(argument)
            bit += bit
        result_aux = None
        try:
            if broadcast:
                promote(raw)
            out = forward(*raw)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            declared.fail(error, raw)
        if aux:
            out, result_aux = out
        if type(out) not in _array_types:
            out = _as_array(out, raw)
        if watching:
            return declared.watched(args, raw, out, result_aux, tracked)
        if tracked and rules and recording.get():
            return declared.record(args, out, result_aux, tracked)
        return wrap(out)

    def unary(*args: Any, **kwargs: Any) -> Tensor:
        """The same for the usual case, one Tensor, in half the time."""
        if len(args) == 1 and isinstance(args[0], Tensor) and not kwargs and not watching:
            (argument,) = args
            data = argument.data
            try:
                out = forward(data)
            except (ValueError, TypeError, IndexError, AttributeError) as error:
                declared.fail(error, (data,))
            if type(out) not in _array_types:
                out = _as_array(out, (data,))
            if argument._tracked and rules and recording.get():
                return declared.record(args, out, None, 1)
            return wrap(out)
        return apply(*args, **kwargs)

    def binary(*args: Any, **kwargs: Any) -> Tensor:
        """The same for the usual cases, two Tensors of one dtype, or one and a number, in half the time."""
        if len(args) == 2 and isinstance(args[0], Tensor) and not kwargs and not watching:
            first, second = args
            a = first.data
            tracked: int = first._tracked
            if isinstance(second, Tensor):
                b = second.data
                usual = a.dtype is b.dtype
                tracked += 2 * second._tracked
            else:
                b = second
                usual = (type(b) is float or type(b) is int) and a.dtype.kind == "f"
            if usual:
                try:
                    out = forward(a, b)
                except (ValueError, TypeError, IndexError, AttributeError) as error:
                    declared.fail(error, (a, b))
                if type(out) not in _array_types:
                    out = _as_array(out, (a, b))
                if tracked and rules and recording.get():
                    return declared.record(args, out, None, tracked)
                return wrap(out)
        return apply(*args, **kwargs)

    def apply_sequence(*args: Any, **kwargs: Any) -> Tensor:
        bound = declared.bind(args, kwargs)
        position = declared.sequence
        assert position is not None
        tensors = bound[position] = list(bound[position])
        raw = [a.data if isinstance(a, Tensor) else a for a in bound]
        raw[position] = [t.data if isinstance(t, Tensor) else t for t in tensors]
        result_aux = None
        try:
            out = forward(*raw)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            declared.fail(error, raw)
        if aux:
            out, result_aux = out
        if type(out) not in _array_types:
            out = _as_array(out, raw)
        tracked = any(isinstance(t, Tensor) and t._tracked for t in (*tensors, *bound))
        if watching:
            return declared.watched(bound, raw, out, result_aux, tracked)
        if rules and tracked and recording.get():
            return declared.record_sequence(bound, out, result_aux)
        return wrap(out)

    way: Callable[..., Tensor] = apply
    if sequence is not None:
        way = apply_sequence
    elif not aux and arity == 1:
        way = unary
    elif not aux and arity == 2 and broadcast:
        way = binary
    public: Any = functools.wraps(forward)(way)
    public.op = declared
    public.vjp = declared.vjp
    registry[f"{declared.module}.{declared.name}"] = declared
    return public


def _as_array(out: Any, raw: Sequence) -> Any:
    """NumPy gives a scalar object where a 0-d array is meant; make it an array again."""
    if isinstance(out, np.generic):
        return np.asarray(out)
    if not is_array(out):
        sample = next((v for v in raw if is_array(v)), None)
        if sample is None and isinstance(raw[0], list):
            sample = next((v for v in raw[0] if is_array(v)), None)
        if sample is None:
            raise TypeError("expected at least one Tensor among the arguments; make one with tg.tensor(...)")
        out = array_module(sample).asarray(out)
    if is_array(out):
        _array_types.add(type(out))
    return out

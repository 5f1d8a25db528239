"""Declared cases: with which arguments an op is to be checked, and what is known about it.

    declare(my_op, Case(real(2, 3), real(3)), Case(positive(4), axis=0), constants="axis")

:mod:`tinygen.testing.opcheck` makes checks of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tinygen.backend import get_default_device, move
from tinygen.tensor import Tensor
from tinygen.testing.evaluation import array_of
from tinygen.testing.layouts import laid_out
from tinygen.testing.values import Values


class Case:
    """One call of an op: what its arguments are drawn from, or are.

    Args:
        args, kwargs: as the op takes them: :class:`Values` (``real(2, 3)``, ``integers(4)``, …), which are drawn;
            arrays and Tensors; :class:`derived` ones; and anything else, which is passed on. In an argument that is a
            sequence of tensors, and in nested tuples and lists, the same.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        parts = [_brief(a) for a in self.args] + [f"{k}={_brief(v)}" for k, v in self.kwargs.items()]
        return f"Case({', '.join(parts)})"


def _brief(value: Any) -> str:
    if isinstance(value, Values):
        return f"{value.kind} {value.shape}"
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return f"{value.dtype} {value.shape}"
    if type(value) in (list, tuple):
        return f"[{', '.join(_brief(v) for v in value)}]"
    return repr(value)


class derived:
    """An argument that others determine, such as a value that a forward computed on its way: a shortcut.

    Args:
        f: a function of raw arrays whose parameters name other arguments of the op.
    """

    def __init__(self, f: Callable) -> None:
        self.f = f
        self.needs = tuple(inspect.signature(f).parameters)

    def __repr__(self) -> str:
        return f"derived from {', '.join(self.needs)}"


@dataclass(frozen=True, eq=False)
class Declaration:
    """What is known about an op, and the calls to check it with: what :func:`declare` makes.

    Attributes:
        op: the function of Tensors.
        cases, constants, linear, differentiable, analytic, value, dtypes, same_dtype, slack: as :func:`declare` says.
    """

    op: Callable
    cases: tuple[Case, ...]
    constants: tuple[str, ...] = ()
    linear: tuple[str, ...] = ()
    differentiable: bool = True
    analytic: bool | None = None
    value: Callable | None = None
    dtypes: tuple[str, ...] = ("float64", "float32", "float16")
    same_dtype: bool = True
    slack: float = 1.0
    seed: int = 0

    def __repr__(self) -> str:
        return f"<cases of {self.name}>"

    @property
    def registered(self) -> Any:
        """The :class:`tinygen.op.Op` behind the function, or None for a plain function of Tensors."""
        return getattr(self.op, "op", None)

    @property
    def name(self) -> str:
        """The op's name, in a library with its module's."""
        op = self.registered
        return op.name if op is not None else getattr(self.op, "__name__", repr(self.op))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of its arguments."""
        op = self.registered
        return op.arguments if op is not None else tuple(inspect.signature(self.op).parameters)

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """The cases, drawn."""
        return tuple(Call(self, case, k) for k, case in enumerate(self.cases))

    @cached_property
    def derived(self) -> frozenset[str]:
        """The arguments that every case derives from others."""
        named = [{a for a, value in call.bound.items() if isinstance(value, derived)} for call in self.calls]
        return frozenset(set.intersection(*named)) if named else frozenset()

    @cached_property
    def wanted(self) -> tuple[str, ...]:
        """The arguments that must have a derivative: of a plain function, those that hold floating numbers."""
        if not self.differentiable:
            return ()
        left = (a for a in self.arguments if a not in self.constants and a not in self.derived)
        if self.registered is None:
            left = (a for a in left if any(call.slots_of(a) for call in self.calls))
        return tuple(left)

    def problems(self) -> list[str]:
        """What is missing: cases, vjps, definitions; each names the op and the argument."""
        op, found = self.registered, []
        unknown = [a for a in (*self.constants, *self.linear) if a not in self.arguments]
        found += [f"{self.name} has no argument {a!r}; it takes {', '.join(self.arguments)}" for a in unknown]
        if not self.cases:
            found.append(f"{self.name} has no cases; declare some with Case(...)")
        if not self.differentiable:
            if op is not None and op.rules:
                named = ", ".join(repr(op.arguments[i]) for i in sorted(op.rules))
                found.append(f"{self.name} is declared not differentiable, but has a vjp of {named}")
            if self.value is None:
                found.append(f"{self.name} is not differentiable, so its values need a definition: value=...")
            return found
        for argument in self.wanted:
            ruled = op is None or op.arguments.index(argument) in op.rules
            floating = any(call.slots_of(argument) for call in self.calls)
            if not ruled:
                found.append(
                    f"{self.name} has no vjp of its argument {argument!r}; write one, or declare constants={argument!r}"
                )
            elif not floating and self.cases:
                found.append(f"no case of {self.name} passes floating numbers as {argument!r}")
        for argument in self.constants:
            if op is not None and argument in op.arguments and op.arguments.index(argument) in op.rules:
                found.append(f"{self.name} has a vjp of {argument!r}, which is declared constant")
        return found


def declare(
    op: Callable,
    *cases: Case,
    constants: str | Sequence[str] = (),
    linear: str | Sequence[str] = (),
    differentiable: bool = True,
    analytic: bool | None = None,
    value: Callable | None = None,
    dtypes: Sequence[str] = ("float64", "float32", "float16"),
    same_dtype: bool = True,
    slack: float = 1.0,
    seed: int = 0,
) -> Declaration:
    """Say with which arguments an op is to be checked, and what is known about it.

    Args:
        op: made by ``@tg.op``; or any function of Tensors that returns one.
        cases: calls of it. Among them each differentiable argument holds floating numbers.
        constants: arguments without a derivative (shapes, axes, masks; also numbers on which the result does not depend
            almost everywhere). One name, several in a string with spaces, or a sequence. All others must have a vjp.
        linear: arguments in which the op is linear up to a constant, with the others held fixed.
        differentiable: False for an op that has no derivative at all; then ``value`` is needed.
        analytic: True where the complex step must work; see :func:`check_grad`.
        value: the definition: a function of the same arguments as NumPy arrays, whose values the op's are.
        dtypes: in which it computes.
        same_dtype: whether floating inputs of one dtype give a result of that dtype.
        slack: a factor on the tolerances of float32 and float16, for ops that amplify rounding.
        seed: of what is drawn.
    """
    return Declaration(
        op,
        cases,
        _names(constants),
        _names(linear),
        differentiable,
        analytic,
        value,
        tuple(dtypes),
        same_dtype,
        slack,
        seed,
    )


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(given.split()) if isinstance(given, str) else tuple(given)


# ------------------------------------------------------------------------------------------------- a call


@dataclass(frozen=True)
class Slot:
    """One array among the arguments of a call.

    Attributes:
        argument: the name of the argument that holds it; item: its place there, for a sequence of tensors.
        array: float64 where it is floating.
        values: what it was drawn from, or None.
    """

    argument: str
    item: int | None
    array: np.ndarray
    values: Values | None

    @property
    def name(self) -> str:
        return self.argument if self.item is None else f"{self.argument}[{self.item}]"

    @property
    def floating(self) -> bool:
        return self.array.dtype.kind == "f"


class Call:
    """A case, drawn: the op as a function of its array arguments, with all others held fixed."""

    def __init__(self, declaration: Declaration, case: Case, number: int) -> None:
        self.declaration = declaration
        self.case = case
        self.number = number
        self.rng = np.random.default_rng([declaration.seed, number])
        op = declaration.registered
        if op is not None:
            self.bound = dict(zip(op.arguments, op.bind(case.args, dict(case.kwargs)), strict=True))
            sequence = None if op.sequence is None else op.arguments[op.sequence]
        else:
            given = inspect.signature(declaration.op).bind(*case.args, **case.kwargs)
            self.bound, sequence = dict(given.arguments), None
        self.references: dict[tuple, dict[str, np.ndarray]] = {}  # what checks of several layouts compare with
        self._cotangents: dict[tuple, np.ndarray] = {}
        self.slots: list[Slot] = []
        for argument, value in self.bound.items():
            if argument == sequence or (op is None and type(value) is list):
                self.slots += [self._slot(argument, k, v) for k, v in enumerate(value)]
            elif isinstance(value, (Values, Tensor, np.ndarray, np.generic)):
                self.slots.append(self._slot(argument, None, value))
        self.fixed = {a: self._drawn(v) for a, v in self.bound.items() if a not in {s.argument for s in self.slots}}

    def _slot(self, argument: str, item: int | None, value: Any) -> Slot:
        drawn = isinstance(value, Values)
        array = value.draw(self.rng) if drawn else array_of(value)
        array = array.astype("float64") if array.dtype.kind == "f" else array
        return Slot(argument, item, array, value if drawn else None)

    def _drawn(self, value: Any) -> Any:
        """Nested values drawn, Tensors as arrays."""
        if isinstance(value, Values):
            return value.draw(self.rng)
        if isinstance(value, Tensor):
            return array_of(value)
        if type(value) in (list, tuple):
            return type(value)(self._drawn(v) for v in value)
        return value

    def slots_of(self, argument: str) -> list[Slot]:
        """The floating slots of an argument."""
        return [slot for slot in self.slots if slot.argument == argument and slot.floating]

    @property
    def active(self) -> list[int]:
        """The places of the floating slots of differentiable arguments."""
        wanted = self.declaration.wanted
        return [k for k, slot in enumerate(self.slots) if slot.floating and slot.argument in wanted]

    def has_equal_shapes(self) -> bool:
        """Whether two differentiable slots have one shape, so that one tensor can be passed as both."""
        shapes = [self.slots[k].array.shape for k in self.active]
        return len(set(shapes)) < len(shapes)

    def arrays(self, repeat: bool = False) -> list[np.ndarray]:
        """The slots' arrays; with ``repeat``, one axis of each repeats its first entry, as broadcasting does."""
        return [laid_out(slot.array, "broadcast").copy() if repeat else slot.array.copy() for slot in self.slots]

    def __call__(self, *tensors: Any) -> Tensor:
        """The op of these tensors, one for each slot."""
        arguments = {a: placed(v) for a, v in self.fixed.items() if not isinstance(v, derived)}
        for slot, tensor in zip(self.slots, tensors, strict=True):
            if slot.item is None:
                arguments[slot.argument] = tensor
            else:
                arguments.setdefault(slot.argument, []).append(tensor)
        for a, v in self.fixed.items():
            if isinstance(v, derived):
                given = (arguments[need] for need in v.needs)
                made = v.f(*(x.data if isinstance(x, Tensor) else x for x in given))
                arguments[a] = np.asarray(made) if isinstance(made, np.generic) else made
        return self.declaration.op(**arguments)

    def cotangent(self, shape: tuple[int, ...], seed: int) -> np.ndarray:
        """Random non-uniform numbers, the same ones for the same seed. Not to be written to."""
        if (shape, seed) not in self._cotangents:
            rng = np.random.default_rng([self.declaration.seed, self.number, seed])
            self._cotangents[shape, seed] = np.asarray(rng.standard_normal(shape))
        return self._cotangents[shape, seed]


def placed(value: Any) -> Any:
    """A value with its arrays moved to the default device, also in tuples and lists."""
    if isinstance(value, np.ndarray):
        return move(value, get_default_device())
    if type(value) in (list, tuple):
        return type(value)(placed(v) for v in value)
    return value

"""Everything that follows from an op's declared cases, checked.

    check_op(my_op, Case(real(2, 3), real(3)), Case(positive(4), axis=0), constants="axis")

Every differentiable argument is checked in every dtype, in every layout in memory, to the first and second order:

    float64, contiguous     against numbers that know nothing of the vjp (check_grad)
    everything else         against float64, contiguous: a gradient depends on the numbers alone

and what else was declared: values by a definition, linear arguments by the adjoint identity, kinks by their one-sided
derivatives, constants by having no influence, one tensor passed twice by the sum of both gradients. An argument that is
neither constant nor has a vjp is an error that names it. All run on the default device: under
``with strict_cupy(default=True):`` on the stand-in for a GPU, where no op may look at array contents on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygen.autograd import grad
from tinygen.backend import get_default_device, move
from tinygen.recording import no_grad
from tinygen.tensor import Tensor, wrap
from tinygen.testing.cases import Call, Case, Declaration, declare, derived, placed
from tinygen.testing.evaluation import GradientError, array_of, run_at
from tinygen.testing.gradcheck import check_adjoint, check_grad, gradient_of
from tinygen.testing.layouts import LAYOUTS, laid_out
from tinygen.testing.manners import check_repeated, close
from tinygen.testing.strict.syncs import count_syncs

# How far numbers of a dtype may be from those of float64, relative to the largest of them.
TOLERANCE = {"float64": 1e-9, "float32": 2e-4, "float16": 4e-2}

_SECOND = "the second derivative, of {} and then {}"


def check_op(op: Callable, *cases: Case, **known: Any) -> None:
    """Check an op in every way that this file knows of; return nothing where all is well.

    Args:
        op, cases, known: as :func:`declare` takes them.

    Raises:
        GradientError: an argument has no vjp, or a check failed; the message names the op, the argument, dtype, layout,
            order and case.
    """
    declaration = declare(op, *cases, **known)
    problems = declaration.problems()
    if problems:
        raise GradientError("; ".join(problems))
    for check in checks(declaration):
        check()


def checks(declaration: Declaration) -> list[Check]:
    """Everything there is to check of an op, one by one. Each is called, and raises GradientError where it fails."""
    of, found = declaration, []
    every = list(_grid(of))
    if of.value is not None:
        grid = [("float64", "contiguous")] if of.differentiable else every
        found += [Check(of, "value", "", dtype, layout) for dtype, layout in grid]
    for argument in of.wanted:
        slots = [slot for call in of.calls for slot in call.slots_of(argument)]
        if slots:  # else it is one of the declaration's problems
            found += [Check(of, "vjp", argument, dtype, layout, order) for dtype, layout in every for order in (1, 2)]
        if any(slot.values is not None and slot.values.kinks for slot in slots):
            found.append(Check(of, "kinks", argument))
    found += [Check(of, "adjoint", argument) for argument in of.linear]
    for argument in of.constants:
        if of.differentiable and any(call.slots_of(argument) for call in of.calls):
            found.append(Check(of, "constant", argument))
    if any(call.has_equal_shapes() for call in of.calls):
        found.append(Check(of, "repeated"))
    return found


def _grid(of: Declaration) -> Iterator[tuple[str, str]]:
    """Every dtype with every layout that one of the arrays can have."""
    most = max((slot.array.ndim for call in of.calls for slot in call.slots), default=0)
    axes = {"contiguous": 0, "gaps": 1, "reversed": 1, "broadcast": 1, "transposed": 2, "channels last": 3}
    return ((dtype, layout) for dtype in of.dtypes for layout in LAYOUTS if axes[layout] <= most)


@dataclass(frozen=True, eq=False)
class Check:
    """One thing to check of an op, over all of its cases. Call it: GradientError where it fails.

    Attributes:
        of: the declaration.
        what: ``"vjp"``, ``"value"``, ``"kinks"``, ``"adjoint"``, ``"constant"`` or ``"repeated"``.
        argument: the argument that is differentiated.
        dtype, layout, order: of a vjp: in which dtype and layout, 1 or 2; of a value the first two.
    """

    of: Declaration
    what: str
    argument: str = ""
    dtype: str = "float64"
    layout: str = "contiguous"
    order: int = 0

    def __str__(self) -> str:
        parts = [self.of.name, self.what]
        if self.argument:
            parts.append(self.argument)
        if self.what in ("vjp", "value"):
            parts += [self.dtype, self.layout]
        if self.order:
            parts.append(f"order {self.order}")
        return ", ".join(parts)

    def __call__(self) -> None:
        for call in self.of.calls:
            try:
                getattr(self, f"_{self.what}")(call)
            except Exception as error:
                text = f"{self}, case {call.number + 1} of {len(self.of.calls)}, {call.case}: {error}"
                if isinstance(error, GradientError):
                    raise GradientError(text) from error
                raise GradientError(f"{text} ({type(error).__name__})") from error

    # -- values

    def _value(self, call: Call) -> None:
        arrays = [_rounded(a, self.dtype) for a in call.arrays(self.layout == "broadcast")]
        expected = np.asarray(self._defined(call, arrays))
        with no_grad(), _unseen():
            y = call(*(self._tensor(a) for a in arrays))
        found = array_of(y)
        if found.shape != expected.shape:
            raise GradientError(f"the value has shape {found.shape}, by its definition {expected.shape}")
        if found.dtype.kind != expected.dtype.kind:
            raise GradientError(f"the value is {found.dtype}, by its definition {expected.dtype}")
        if not close(found, expected, max(TOLERANCE[self.dtype] * self.of.slack, 1e-10)):
            raise GradientError(f"the value is {found.tolist()}, by its definition {expected.tolist()}")

    def _defined(self, call: Call, arrays: Sequence[np.ndarray]) -> Any:
        """The definition of the case, on NumPy."""
        given: dict[str, Any] = {a: v for a, v in call.fixed.items() if not isinstance(v, derived)}
        for slot, array in zip(call.slots, arrays, strict=True):
            if slot.item is None:
                given[slot.argument] = array
            else:
                given.setdefault(slot.argument, []).append(array)
        assert self.of.value is not None
        return self.of.value(*(given[a] for a in self.of.arguments if a in given))

    # -- derivatives

    def _vjp(self, call: Call) -> None:
        if not call.slots_of(self.argument):
            return
        if (self.dtype, self.layout) == ("float64", "contiguous"):
            self._against_numbers(call)
        else:
            self._against_float64(call)

    def _against_numbers(self, call: Call) -> None:
        """check_grad: of the op as a function of the argument; of its gradient as a function of everything."""
        f: Any = call
        if not self.of.same_dtype:  # check_grad has it so

            def f(*tensors: Tensor) -> Tensor:
                return call(*tensors).to(next(t.dtype for t in tensors if t.dtype.kind in "fc"))

        inputs = call.arrays()
        wanted = active = [k for k in call.active if call.slots[k].argument == self.argument]
        names = [slot.name for slot in call.slots]
        if self.order == 2:
            with no_grad():
                g = call.cotangent(call(*(self._tensor(a) for a in inputs)).shape, 1)
            f, active = gradient_of(f, len(inputs), wanted), [*call.active, len(inputs)]
            inputs, names = [*inputs, g], [*names, "cotangent"]
        fixed = {k: placed(a) for k, a in enumerate(inputs) if k not in active}

        def of_the_active(*tensors: Tensor) -> Tensor:
            given: dict[int, Tensor] = dict(zip(active, tensors, strict=True))
            given |= {k: wrap(_beside(a, tensors[0].data)) for k, a in fixed.items()}
            return f(*(given[k] for k in range(len(inputs))))

        named = [names[k] for k in active]
        check_grad(of_the_active, *(inputs[k] for k in active), order=1, analytic=self.of.analytic, names=named)

    def _against_float64(self, call: Call) -> None:
        """The same numbers in float64 and contiguous give the same value and derivatives."""
        repeat = self.layout == "broadcast"
        arrays = [_rounded(a, self.dtype) for a in call.arrays(repeat)]
        found = self._derivatives(call, arrays, self.dtype, repeat)
        key = (self.argument, self.order, self.dtype, repeat, get_default_device())
        expected = call.references.get(key)
        if expected is None:
            plain = replace(self, dtype="float64", layout="contiguous")
            exact = [_rounded(a, "float64") for a in arrays]
            expected = call.references[key] = plain._derivatives(call, exact, self.dtype, repeat)
        rtol = max(TOLERANCE[self.dtype] * self.of.slack, 1e-9)
        for what, a in expected.items():
            b = found[what]
            of_the_result = what in ("the value", _SECOND.format(self.argument, "the cotangent"))
            floating = a.dtype.kind == "f" and (self.of.same_dtype or not of_the_result)
            if floating and b.dtype != self.dtype:
                raise GradientError(f"{what} is {b.dtype}, expected {self.dtype}")
            if b.shape != a.shape:
                raise GradientError(f"{what} has shape {b.shape}, expected {a.shape}")
            if not close(b.astype(a.dtype), a, rtol, least=0.1):  # numbers that cancel to 0 leave their rounding
                gap = np.abs(b.astype(a.dtype) - a) if a.dtype.kind == "f" else a != b
                place = np.unravel_index(int(np.argmax(np.where(gap == gap, gap, np.inf))), a.shape)
                raise GradientError(
                    f"{what} at element {tuple(int(n) for n in place)} is {b[place]:.8g}; from the same numbers in "
                    f"float64, contiguous, it is {a[place]:.8g}"
                )

    def _derivatives(
        self, call: Call, arrays: Sequence[np.ndarray], rounded: str, repeat: bool
    ) -> dict[str, np.ndarray]:
        """The value y, the gradients of ⟨g, y⟩ in the argument, and of ⟨v, those⟩ in everything, g too.

        What is not differentiable, or does not depend on an argument, is left out.
        """

        def cotangent(of: Tensor, seed: int) -> Tensor:
            numbers = _rounded(call.cotangent(of.shape, seed), rounded).astype(of.dtype)
            return self._tensor(laid_out(numbers, "broadcast").copy() if repeat else numbers)

        tensors = [self._tensor(a) for a in arrays]
        for k in call.active:
            tensors[k].requires_grad = self.order == 2 or call.slots[k].argument == self.argument
        wanted = {call.slots[k].name: tensors[k] for k in call.active if call.slots[k].argument == self.argument}
        with _unseen():
            y = call(*tensors)
            found: dict[str, Tensor | None] = {"the value": y}
            if y.requires_grad:
                g = cotangent(y, 1).requires_grad_()
                first = grad([y], list(wanted.values()), [g], create_graph=self.order == 2, allow_unused=True)
                found |= {f"the gradient of {name}": d for name, d in zip(wanted, first, strict=True)}
                second = [d for d in first if d is not None and d.requires_grad]
                if self.order == 2 and second:
                    everything = {call.slots[k].name: tensors[k] for k in call.active} | {"the cotangent": g}
                    v = [cotangent(d, 2 + k) for k, d in enumerate(second)]
                    again = grad(second, list(everything.values()), v, allow_unused=True)
                    found |= {_SECOND.format(self.argument, name): d for name, d in zip(everything, again, strict=True)}
        for slot, tensor, array in zip(call.slots, tensors, arrays, strict=True):
            if not np.array_equal(array_of(tensor), array, equal_nan=slot.floating):
                raise GradientError(f"the op, or one of its vjps, wrote to {slot.name}")
        return {what: array_of(d) for what, d in found.items() if d is not None}

    def _tensor(self, array: np.ndarray) -> Tensor:
        """On the default device, in this check's layout."""
        return wrap(laid_out(move(array, get_default_device()), self.layout))

    # -- what else was declared

    def _adjoint(self, call: Call) -> None:
        """A x = f(x) − f(0) and its vjp are adjoint, whatever x the vjp was taken at; A is linear."""
        arrays = call.arrays()
        for k in [k for k, slot in enumerate(call.slots) if slot.argument == self.argument and slot.floating]:

            def f(x: Tensor, k: int = k) -> Tensor:
                given = [wrap(_beside(placed(a), x.data)) for a in arrays]
                given[k] = x
                return call(*given)

            def A(x: Tensor, f: Any = f) -> Tensor:
                return f(x) - f(x * 0)

            x = wrap(placed(arrays[k])).requires_grad_()
            y = f(x)
            u, w, g = call.cotangent(x.shape, 3), call.cotangent(x.shape, 4), call.cotangent(y.shape, 1)

            def At(g: Tensor, y: Tensor = y, x: Tensor = x) -> Tensor:
                (found,) = grad([y], [x], [g], retain_graph=True)
                assert found is not None
                return found

            check_adjoint(A, At, u, g)
            with no_grad():
                Au, Aw, both = (array_of(A(wrap(placed(z)))) for z in (u, w, np.asarray(2 * u - 3 * w)))
            if not close(both, 2 * Au - 3 * Aw, 1e-9):
                raise GradientError(f"it is declared linear in {call.slots[k].name}, but is not")

    def _kinks(self, call: Call) -> None:
        """At a kink the vjp is a subgradient: it lies between the one-sided derivatives, and is finite."""
        h = 1e-4
        for k, slot in enumerate(call.slots):
            if slot.argument != self.argument or slot.values is None:
                continue
            for kink in slot.values.kinks:
                arrays = call.arrays()
                arrays[k] = np.full_like(slot.array, kink)
                tensors = [wrap(placed(a)) for a in arrays]
                tensors[k].requires_grad = True
                y = call(*tensors)
                g = call.cotangent(y.shape, 1)
                (d,) = grad([y], [tensors[k]], [wrap(placed(g))])
                assert d is not None
                says = array_of(d).reshape(-1)

                def along(n: int, t: float, k: int = k, arrays: list = arrays, g: np.ndarray = g) -> float:
                    moved = [a.copy() for a in arrays]
                    moved[k].reshape(-1)[n] += t
                    with no_grad():
                        return float((g * array_of(call(*(wrap(placed(a)) for a in moved)))).sum())

                for n in range(slot.array.size):
                    here = along(n, 0.0)
                    sides = [(4 * along(n, s * h) - along(n, 2 * s * h) - 3 * here) / (2 * s * h) for s in (1, -1)]
                    if not min(sides) - 1e-5 <= says[n] <= max(sides) + 1e-5:
                        raise GradientError(
                            f"at the kink {slot.name} = {kink}, the vjp says {says[n]:.8g}, the one-sided derivatives "
                            f"are {sides[1]:.8g} and {sides[0]:.8g}; it must lie between them"
                        )

    def _constant(self, call: Call) -> None:
        """A floating argument without a derivative has no influence nearby."""
        for k, slot in enumerate(call.slots):
            if slot.argument != self.argument or not slot.floating:
                continue
            values = []
            for h in (-1e-4, 0.0, 1e-4):
                arrays = call.arrays()
                arrays[k] = np.asarray(arrays[k] + h * call.cotangent(slot.array.shape, 5))
                with no_grad():
                    values.append(array_of(call(*(wrap(placed(a)) for a in arrays))))
            if any(not close(v, values[1], 1e-9) for v in values):
                raise GradientError(f"{slot.name} is declared constant, but the result depends on it")

    def _repeated(self, call: Call) -> None:
        """One tensor passed as two arguments gets both gradients."""
        if not call.has_equal_shapes():
            return
        arrays = call.arrays()
        with no_grad():
            shape = call(*(wrap(placed(a)) for a in arrays)).shape
        names = [f"argument {slot.name}" for slot in call.slots]
        check_repeated(
            run_at(get_default_device(), call), arrays, call.active, call.cotangent(shape, 1), names.__getitem__
        )


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    return array.astype(dtype) if array.dtype.kind == "f" else array


def _beside(array: Any, other: Any) -> Any:
    """A floating array in the dtype, and with it the precision, of the one beside it; complex beside a complex one."""
    return array.astype(other.dtype) if array.dtype.kind == "f" else array


@contextmanager
def _unseen() -> Iterator[None]:
    """No contents of a GPU's array are looked at by the host; but a mask's, whose number of places is a length."""
    with count_syncs() as syncs:
        yield
    seen = [place for what, place in syncs.events if what != "mask"]
    if seen:
        raise GradientError(f"array contents were looked at by the host: {'; '.join(seen)}")

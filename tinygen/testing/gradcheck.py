"""Is ∂f/∂x what the vjp says? Two answers that do not know of each other, compared.

For inputs x, a random direction u and a random cotangent g, the number ⟨g, J u⟩ with J = ∂f/∂x is computed

- by reverse mode, as ⟨Jᵀg, u⟩;
- by the complex step, ⟨g, Im f(x + ih·u)⟩ / h with h = 10⁻³⁰: no subtraction, so no cancellation, and exact to
  rounding, where f is analytic;
- by Richardson differences, with D(h) = ⟨g, f(x + hu) − f(x − hu)⟩ / 2h = ⟨g, Ju⟩ + c₁h² + c₂h⁴ + …, from which a
  table of (4ᵏD(h/2) − D(h))/(4ᵏ − 1) removes one power of h² after the other.

The complex step is the reference where it agrees with the differences (f is analytic), the differences elsewhere.
Unit vectors for u find the element that is wrong; random ones check a large input in a few evaluations.

Source: Squire & Trapp, *Using complex variables to estimate derivatives of real functions* (1998); Richardson 1911;
Ridders, *Accurate computation of F'(x) and F'(x)F''(x)* (1982).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygen.autograd import grad
from tinygen.backend import get_default_device
from tinygen.random import Generator
from tinygen.tensor import Tensor, no_grad, wrap

_TINY = 1e-30  # the complex step: its square vanishes beside 1 in float64
_STEPS = 5  # rows of Richardson's table
_ELEMENTWISE = 40  # inputs up to this size are checked element by element


class GradientError(AssertionError):
    """A gradient is wrong: which argument, which element, the two values, and what the difference looks like."""


def check_grad(
    f: Callable[..., Tensor],
    *inputs: Any,
    order: int = 2,
    rtol: float = 1e-6,
    atol: float = 1e-7,
    step: float = 1e-2,
    seed: int = 0,
) -> None:
    """Check the gradients of f at the inputs, up to the given order; return nothing where all is well.

    Order 1 compares ∂⟨g, f(x)⟩/∂x with numerical derivatives, for a random g. Order 2 checks in the same way the
    function x, g ↦ ∂⟨g, f(x)⟩/∂x, whose derivatives are ⟨g, f⟩'s Hessian and, in g, the Jacobian.

    Also checked: that gradients have their input's shape and dtype and share no memory, with inputs, with one
    another or with those of an earlier sweep; that value and gradients are the same again when computed again, for
    non-contiguous inputs, and for float32 (to float32's precision); that neither f nor a vjp writes to an input or
    to the gradient that it was given.

    Args:
        f: a function of tensors that returns one tensor.
        inputs: Tensors or arrays. Floating ones are differentiated, in float64; others are passed on. f is run
            where the first Tensor lives; on the default device, where there is none.
        order: 1 or 2 (or more, as far as you have time).
        rtol, atol: |analytic − numeric| ≤ atol + rtol·scale, where scale is the largest derivative seen.
        step: the first step of the differences, in units of the input's own size. Where they do not converge
            (a kink or a pole is within reach) smaller ones are tried.
        seed: of the cotangents and directions.

    Raises:
        GradientError: a check failed.
        ValueError: there is no floating input, or order < 1.
    """
    if order < 1:
        raise ValueError(f"check_grad: expected order ≥ 1, got {order}")
    arrays = [np.array(x.detach().numpy() if isinstance(x, Tensor) else x) for x in inputs]
    active = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    if not active:
        raise ValueError("check_grad: none of the inputs is floating")
    rng = Generator(seed)
    exact = [a.astype(np.float64) if i in active else a for i, a in enumerate(arrays)]
    f = _at(_place(inputs), f)
    _check_manners(f, arrays, exact, active, rng)
    _check_order(f, exact, active, order, rng, rtol, atol, step, "")


def _place(inputs: Sequence) -> str:
    return next((x.device for x in inputs if isinstance(x, Tensor)), get_default_device())


def _at(place: str, f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """f run on another device, between two moves, which are differentiable too; the numbers stay with NumPy."""
    if place == "cpu":
        return f

    def moved(*tensors: Tensor) -> Tensor:
        y = f(*(t.to(device=place) for t in tensors))
        return y.to(device="cpu") if isinstance(y, Tensor) else y

    return moved


def _check_order(
    f: Callable[..., Tensor],
    arrays: list[np.ndarray],
    active: list[int],
    order: int,
    rng: Generator,
    rtol: float,
    atol: float,
    step: float,
    where: str,
) -> None:
    y = _value(f, arrays)
    g = rng.standard_normal(y.shape, np.float64)
    _compare(f, arrays, active, g, rng, rtol, atol, step, where)
    if order > 1:
        n = len(arrays)

        def gradient(*tensors: Tensor) -> Tensor:
            """All gradients of ⟨g, f(x)⟩ in one vector, as a function of x and g."""
            xs = [tensors[i] for i in active]
            y = f(*tensors[:n])
            found: Sequence[Tensor | None] = [None] * len(xs)
            if y.requires_grad:
                found = grad([y], xs, [tensors[n]], create_graph=True, allow_unused=True)
            parts = [(x * 0 if d is None else d).reshape(-1) for x, d in zip(xs, found, strict=True)]
            total = parts[0]
            for part in parts[1:]:
                total = _joined(total, part)
            return total

        _check_order(gradient, [*arrays, g], [*active, n], order - 1, rng, rtol, atol, step, where + "∂")


def _joined(a: Tensor, b: Tensor) -> Tensor:
    from_first = np.concatenate([np.arange(a.shape[0]), np.full(b.shape[0], -1)])
    first = Tensor(from_first >= 0)
    at_a = Tensor(np.where(from_first >= 0, from_first, 0))
    at_b = Tensor(np.where(from_first >= 0, 0, np.arange(from_first.size) - a.shape[0]))
    if a.shape[0] == 0 or b.shape[0] == 0:
        return b if a.shape[0] == 0 else a
    return a[at_a].where(first, b[at_b])


def _value(f: Callable[..., Tensor], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """f of constants: numbers alone, no graph (inner gradients record for themselves)."""
    y = f(*[_leaf(a) for a in arrays])
    if not isinstance(y, Tensor):
        raise TypeError(f"check_grad: f returned {type(y).__name__}, expected a Tensor")
    return np.array(y.data)


def _leaf(a: np.ndarray) -> Tensor:
    x = wrap(a)
    return x.requires_grad_() if a.dtype.kind in "fc" else x


def _analytic(
    f: Callable[..., Tensor], arrays: Sequence[np.ndarray], active: Sequence[int], g: np.ndarray
) -> list[Tensor]:
    tensors = [_leaf(a) if i in active else wrap(a) for i, a in enumerate(arrays)]
    y = f(*tensors)
    wanted = [tensors[i] for i in active]
    if not y.requires_grad:
        return [wrap(np.zeros_like(x.data)) for x in wanted]
    seed = g.astype(y.dtype)
    found = grad(y, wanted, wrap(seed), allow_unused=True)
    if not np.array_equal(seed, g.astype(y.dtype)):
        raise GradientError("a vjp wrote to the gradient that it was given")
    return [wrap(np.zeros_like(x.data)) if d is None else d for x, d in zip(wanted, found, strict=True)]


def _compare(
    f: Callable[..., Tensor],
    arrays: list[np.ndarray],
    active: Sequence[int],
    g: np.ndarray,
    rng: Generator,
    rtol: float,
    atol: float,
    step: float,
    where: str,
) -> None:
    """Reverse mode against numbers, along unit vectors or random directions of every active input."""
    for i, d in zip(active, _analytic(f, arrays, active, g), strict=True):
        claimed = np.asarray(d.data, dtype=np.float64)
        x = arrays[i]
        if x.size == 0:
            continue
        small = x.size <= _ELEMENTWISE
        directions: list[np.ndarray] = (
            [np.eye(1, x.size, k).reshape(x.shape) for k in range(x.size)]
            if small
            else [rng.standard_normal(x.shape, np.float64) for _ in range(6)]
        )
        says = np.array([float((claimed * u).sum()) for u in directions])
        pairs = [_numeric(f, arrays, i, u, g, step) for u in directions]
        number, noise = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
        scale = np.abs(number).max()
        # Neither an infinite number nor one that is all noise may make room for a wrong gradient.
        if not (np.isfinite(scale) and (10 * noise <= 1e-3 * scale + 1e-5).all()):
            raise GradientError(
                f"{where or ''}gradient of argument {i}, of shape {x.shape}, cannot be judged: the numerical "
                f"derivatives are {number} ± {noise}. f jumps, bends or is not finite near this point; choose another"
            )
        allowed = atol + rtol * scale + 10 * noise
        wrong = ~(np.abs(says - number) <= allowed)
        if wrong.any():
            k = int(np.argmax(np.where(np.isnan(says - number), np.inf, np.abs(says - number) - allowed)))
            place = f"element {tuple(int(n) for n in np.unravel_index(k, x.shape))}" if small else f"direction {k}"
            raise GradientError(
                f"{where or ''}gradient of argument {i}, of shape {x.shape}, at {place}: the vjp says {says[k]:.12g}, "
                f"the numbers {number[k]:.12g} (allowed difference {allowed[k]:.1e}; {int(wrong.sum())} of "
                f"{len(says)} are wrong). {_hint(claimed, says, number, small, x.shape)}"
            )


def _hint(claimed: np.ndarray, says: np.ndarray, number: np.ndarray, small: bool, shape: tuple[int, ...]) -> str:
    """What the difference looks like."""
    if not np.isfinite(says).all():
        return "The vjp gives a number that is not finite: look for 0·∞, 0/0 or √0."
    if np.allclose(says, -number, rtol=1e-5):
        return "Every sign is wrong."
    if not says.any():
        return "The vjp gives zeros: is the gradient cut off somewhere, or the cotangent ignored?"
    ratio = number[says != 0] / says[says != 0]
    if ratio.size > 1 and np.allclose(ratio, ratio[0], rtol=1e-5):
        return f"A factor of {ratio[0]:.6g} is missing."
    if small and len(shape) == 2 and shape[0] == shape[1] and np.allclose(number.reshape(shape).T, claimed, rtol=1e-5):
        return "It is transposed."
    return ""


def _numeric(
    f: Callable[..., Tensor], arrays: list[np.ndarray], i: int, u: np.ndarray, g: np.ndarray, step: float
) -> tuple[float, float]:
    """⟨g, J u⟩ by numbers, and how uncertain it is."""

    def along(h: float) -> float:
        moved = [*arrays]
        moved[i] = np.asarray(arrays[i] + h * u)
        return float((g * _value(f, moved)).sum())

    h = step * max(1.0, float(np.abs(arrays[i]).max())) / max(1.0, np.abs(u).max())
    difference, error = _richardson(along, h)
    for _ in range(4):
        if error <= 1e-6 * abs(difference) + 1e-9:
            break
        h /= 10
        again, smaller = _richardson(along, h)
        if smaller < error:
            difference, error = again, smaller
    exact = _complex_step(f, arrays, i, u, g)
    if exact is not None and abs(exact - difference) <= 1e-5 * max(abs(exact), abs(difference)) + 10 * error + 1e-7:
        return exact, 1e-13 * abs(exact)
    return difference, error


def _richardson(along: Callable[[float], float], h: float) -> tuple[float, float]:
    """The derivative of ``along`` at 0 and an estimate of its error, from Ridders' table."""
    table: list[list[float]] = []
    best, error = np.nan, np.inf
    for row in range(_STEPS):
        table.append([(along(h) - along(-h)) / (2 * h)])
        for k in range(1, row + 1):
            table[row].append((4**k * table[row][k - 1] - table[row - 1][k - 1]) / (4**k - 1))
            change = max(abs(table[row][k] - table[row][k - 1]), abs(table[row][k] - table[row - 1][k - 1]))
            if change < error:
                best, error = table[row][k], change
        h /= 2
    return best, float(error)


def _complex_step(
    f: Callable[..., Tensor], arrays: list[np.ndarray], i: int, u: np.ndarray, g: np.ndarray
) -> float | None:
    """⟨g, Im f(x + ih·u)⟩ / h, or None where f does not take complex numbers."""
    moved: list[Any] = [a.astype(np.complex128) if a.dtype.kind == "f" else a for a in arrays]
    moved[i] = np.asarray(moved[i] + 1j * _TINY * u)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)  # an imaginary part was dropped
            y = _value(f, moved)
    except Exception:  # f is anybody's, and need not take complex numbers; the differences remain
        return None
    return float((g * y.imag).sum() / _TINY) if y.dtype.kind == "c" else None


def _check_manners(
    f: Callable[..., Tensor],
    arrays: list[np.ndarray],
    exact: list[np.ndarray],
    active: Sequence[int],
    rng: Generator,
) -> None:
    """Shapes, dtypes, memory: what a gradient must be whatever its value."""
    before = [a.copy() for a in exact]
    y = _value(f, exact)
    if y.dtype.kind == "f" and y.dtype != np.float64:
        raise GradientError(f"f of float64 inputs is {y.dtype}: somewhere float64 is lost")
    g = rng.standard_normal(y.shape, np.float64)
    reference = _analytic(f, exact, active, g)
    kept = [d.data.copy() for d in reference]
    again = _same(f, exact, active, y, g, reference, 1e-9, "the second time")
    for i, d, e, was in zip(active, reference, again, kept, strict=True):
        if np.may_share_memory(d.data, e.data) or not np.array_equal(d.data, was, equal_nan=True):
            raise GradientError(f"the gradient of argument {i} shares memory with that of a later sweep")
    for i, (a, b) in enumerate(zip(exact, before, strict=True)):
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            raise GradientError(f"f, or one of its vjps, wrote to its argument {i}")
    for k, (i, d) in enumerate(zip(active, reference, strict=True)):
        if d.shape != exact[i].shape or d.dtype != exact[i].dtype:
            raise GradientError(
                f"the gradient of argument {i} has shape {d.shape} and dtype {d.dtype}, the argument "
                f"{exact[i].shape} and {exact[i].dtype}"
            )
        others = [*exact, *(e.data for e in reference[:k])]
        if any(np.may_share_memory(d.data, other) for other in others):
            raise GradientError(f"the gradient of argument {i} shares memory with an input or another gradient")
    strided = [_strided(a) if i in active else a for i, a in enumerate(exact)]
    _same(f, strided, active, y, _strided(g), reference, 1e-9, "for non-contiguous inputs")
    single = [a.astype(np.float32) if i in active else a for i, a in enumerate(exact)]
    low = _value(f, single)
    if y.dtype == np.float64 and low.dtype != np.float32:
        raise GradientError(f"f of float32 inputs is {low.dtype}: somewhere float32 is lost")
    _same(f, single, active, y, g.astype(np.float32), reference, 1e-2, "for float32 inputs", np.float32)


def _strided(a: np.ndarray) -> np.ndarray:
    """The same numbers with gaps between them in memory, axes in another order."""
    wide = np.full((*reversed([2 * n for n in a.shape]),), np.nan)
    gaps: tuple[Any, ...] = (..., *(slice(None, None, 2) for _ in a.shape))
    view = wide.T[gaps]
    view[...] = a
    return view


def _same(
    f: Callable[..., Tensor],
    arrays: list[np.ndarray],
    active: Sequence[int],
    y: np.ndarray,
    g: np.ndarray,
    reference: Sequence[Tensor],
    rtol: float,
    when: str,
    dtype: Any = np.float64,
) -> list[Tensor]:
    """The gradients again; value and gradients must be those already known."""
    value = _value(f, arrays)
    if value.shape != y.shape or not _close(value, y, rtol):
        raise GradientError(f"the value is another one {when}")
    again = _analytic(f, arrays, active, g)
    for i, d, e in zip(active, again, reference, strict=True):
        if d.dtype != dtype:
            raise GradientError(f"the gradient of argument {i} is {d.dtype} {when}, expected {np.dtype(dtype)}")
        if not _close(d.data, e.data, rtol):
            worst = float(np.abs(d.data - e.data).max())
            raise GradientError(f"the gradient of argument {i} is another one {when}: it differs by {worst:.3g}")
    return again


def _close(a: np.ndarray, b: np.ndarray, rtol: float) -> bool:
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    return np.allclose(a, b, rtol=rtol, atol=rtol * scale + 1e-12, equal_nan=True)


def check_adjoint(
    A: Callable[[Tensor], Tensor],
    At: Callable[[Tensor], Tensor],
    x: Any,
    y: Any,
    rtol: float = 1e-10,
) -> None:
    """Check ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ for two linear functions of a tensor.

    Args:
        A: a linear function from x's shape to y's.
        At: the function that is claimed to be its adjoint.
        x, y: any values of those shapes, in float64. A and At are run where the first Tensor of the two lives; on
            the default device, where there is none.

    Raises:
        GradientError: the two numbers differ by more than rtol times the sum of their terms' sizes, or a shape is
            not what it should be.
    """
    u, v = (np.asarray(t.detach().numpy() if isinstance(t, Tensor) else t, dtype=np.float64) for t in (x, y))
    place = _place((x, y))
    with no_grad():
        Ax, Aty = _at(place, A)(wrap(u)), _at(place, At)(wrap(v))
    if Ax.shape != v.shape or Aty.shape != u.shape:
        raise GradientError(f"A x has shape {Ax.shape} and y {v.shape}; Aᵀ y has {Aty.shape} and x {u.shape}")
    left, right = float((Ax.data * v).sum()), float((u * Aty.data).sum())
    scale = float(np.abs(Ax.data * v).sum() + np.abs(u * Aty.data).sum())
    if not abs(left - right) <= rtol * scale:
        raise GradientError(f"⟨A x, y⟩ = {left:.12g}, but ⟨x, Aᵀ y⟩ = {right:.12g}")

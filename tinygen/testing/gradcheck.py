"""Is ∂f/∂x what the vjp says? Two answers that do not know of each other, compared.

For inputs x, a direction u and a random cotangent g, the number ⟨g, J u⟩ with J = ∂f/∂x is computed by reverse mode,
as ⟨Jᵀg, u⟩, and from values of f alone (:mod:`tinygen.testing.numeric`). Unit vectors for u find the element that is
wrong; random ones check a large input in a few evaluations, and where one fails, halving the input finds the element.

The second order is the first order of another function: of x, g ↦ ∂⟨g, f(x)⟩/∂x, itself computed by reverse mode. Its
derivatives are the Hessian of ⟨g, f⟩ and, in g, the Jacobian. A Hessian is symmetric, which is checked by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygen.autograd import grad
from tinygen.ops.shape import cat
from tinygen.random import Generator
from tinygen.recording import no_grad
from tinygen.tensor import Tensor, wrap
from tinygen.testing.evaluation import Function, GradientError, array_of, gradients, place_of, run_at, value
from tinygen.testing.hints import hint
from tinygen.testing.manners import check_manners
from tinygen.testing.numeric import Derivative, Derivatives

_ELEMENTWISE = 40  # inputs up to this size are checked element by element
_DIRECTIONS = 6  # along which larger ones are


class _Limits(NamedTuple):
    """How exactly, and how, the numbers are computed: check_grad's arguments of these names."""

    rtol: float
    atol: float
    step: float
    analytic: bool | None


def check_grad(
    f: Callable[..., Tensor],
    *inputs: Any,
    order: int = 2,
    rtol: float = 1e-6,
    atol: float = 1e-7,
    step: float = 1e-2,
    seed: int = 0,
    analytic: bool | None = None,
    names: Sequence[str] = (),
) -> None:
    """Check the gradients of f at the inputs, up to the given order; return nothing where all is well.

    Order 1 compares ∂⟨g, f(x)⟩/∂x with numerical derivatives, for a random g. Order 2 checks in the same way the
    function x, g ↦ ∂⟨g, f(x)⟩/∂x, whose derivatives are ⟨g, f⟩'s Hessian and, in g, the Jacobian; and that the Hessian
    is symmetric.

    Also checked: that gradients have their input's shape and dtype and share no memory, with inputs, with one
    another or with those of an earlier sweep; that value and gradients are the same again when computed again, for
    non-contiguous inputs, and for float32 (to float32's precision); that one tensor passed twice, f(x, x), gets the
    sum of both gradients; that neither f nor a vjp writes to an input or to the gradient that it was given.

    Args:
        f: a function of tensors that returns one tensor.
        inputs: Tensors or arrays. Floating ones are differentiated, in float64; others are passed on. f is run
            where the first Tensor lives; on the default device, where there is none.
        order: 1 or 2 (or more, as far as you have time).
        rtol, atol: |analytic − numeric| ≤ atol + rtol·scale, where scale is the largest derivative seen.
        step: the first step of the differences, in units of the input's own size. Where they do not converge
            (a kink or a pole is within reach) smaller ones are tried.
        seed: of the cotangents and directions.
        analytic: True where the complex step, exact to rounding, must work; False where it must not be tried; it is
            used where it works where omitted.
        names: what messages call the inputs; "argument 0", … where omitted.

    Raises:
        GradientError: a check failed. The message names the worst element, both values, the step of the numerical
            derivative, and what the difference looks like. A ∂ before "gradient" means the second order.
        ValueError: there is no floating input, or order < 1.
    """
    if order < 1:
        raise ValueError(f"check_grad: expected order ≥ 1, got {order}")
    arrays = [array_of(x) for x in inputs]
    active = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    if not active:
        raise ValueError("check_grad: none of the inputs is floating")
    rng = Generator(seed)
    exact = [a.astype(np.float64) if i in active else a for i, a in enumerate(arrays)]
    called = [f"argument {names[i] if i < len(names) else i}" for i in range(len(arrays))]
    f = run_at(place_of(inputs), f)
    g = rng.standard_normal(value(f, exact).shape, np.float64)
    check_manners(f, exact, active, g, called.__getitem__)
    _check_order(f, exact, active, order, rng, _Limits(rtol, atol, step, analytic), called, 1)


def _check_order(
    f: Function,
    arrays: list[np.ndarray],
    active: list[int],
    orders: int,
    rng: Generator,
    limits: _Limits,
    called: list[str],
    order: int,
) -> None:
    g = rng.standard_normal(value(f, arrays).shape, np.float64)
    _compare(f, arrays, active, g, rng, limits, called, order)
    if order < orders:
        gradient = gradient_of(f, len(arrays), active)
        _check_order(
            gradient, [*arrays, g], [*active, len(arrays)], orders, rng, limits, [*called, "the cotangent"], order + 1
        )
        if order == 1:
            check_symmetry(gradient, arrays, active, g, rng)


def gradient_of(f: Function, n: int, wanted: Sequence[int]) -> Function:
    """x₁, …, xₙ, g ↦ the wanted gradients of ⟨g, f(x)⟩, in one vector."""

    def gradient(*tensors: Tensor) -> Tensor:
        xs = [tensors[i] for i in wanted]
        y = f(*tensors[:n])
        found: Sequence[Tensor | None] = [None] * len(xs)
        if y.requires_grad:
            found = grad([y], xs, [tensors[n]], create_graph=True, allow_unused=True)
        parts = [(x * 0 if d is None else d).reshape(-1) for x, d in zip(xs, found, strict=True)]
        return cat(parts) if len(parts) > 1 else parts[0]

    return gradient


def check_symmetry(
    gradient: Function, arrays: Sequence[np.ndarray], active: Sequence[int], g: np.ndarray, rng: Generator
) -> None:
    """Check ⟨v, H u⟩ = ⟨u, H v⟩ for the Hessian H of ⟨g, f⟩ in all active inputs together.

    Raises:
        GradientError: they differ.
    """
    n = value(gradient, [*arrays, g]).shape
    u, v = rng.standard_normal(n, np.float64), rng.standard_normal(n, np.float64)
    Hu, Hv = (np.concatenate([d.reshape(-1) for d in gradients(gradient, [*arrays, g], active, w)]) for w in (u, v))
    left, right, scale = float(v @ Hu), float(u @ Hv), float(np.abs(v) @ np.abs(Hu) + np.abs(u) @ np.abs(Hv))
    if abs(left - right) > 1e-9 * scale:
        raise GradientError(
            f"the Hessian H is not symmetric: ⟨v, H u⟩ = {left:.10g}, but ⟨u, H v⟩ = {right:.10g}; some vjp of a vjp "
            "is wrong"
        )


def _compare(
    f: Function,
    arrays: list[np.ndarray],
    active: Sequence[int],
    g: np.ndarray,
    rng: Generator,
    limits: _Limits,
    called: Sequence[str],
    order: int,
) -> None:
    """Reverse mode against numbers, along unit vectors or random directions of every active input."""
    for i, claimed in zip(active, gradients(f, arrays, active, g), strict=True):
        x = arrays[i]
        if x.size == 0:
            continue
        small = x.size <= _ELEMENTWISE
        directions: list[np.ndarray] = (
            [_unit(x.shape, k) for k in range(x.size)]
            if small
            else [rng.standard_normal(x.shape, np.float64) for _ in range(_DIRECTIONS)]
        )
        numbers = Derivatives(f, arrays, i, g, limits.step, limits.analytic, rng.standard_normal(x.shape, np.float64))
        says = np.array([float((claimed * u).sum()) for u in directions])
        found = [numbers.along(u) for u in directions]
        number, noise = np.array([d.value for d in found]), np.array([d.noise for d in found])
        scale = np.abs(number).max()
        what = f"{'∂' * (order - 1)}gradient of {called[i]}, of shape {x.shape},"
        # Neither an infinite number nor one that is all noise may make room for a wrong gradient.
        if not (np.isfinite(scale) and (10 * noise <= 1e-3 * scale + 1e-5).all()):
            raise GradientError(
                f"{what} cannot be judged: the numerical derivatives are {number} ± {noise}. "
                "f jumps, bends or is not finite near this point; choose another"
            )
        allowed = limits.atol + limits.rtol * scale + 10 * noise
        wrong = ~(np.abs(says - number) <= allowed)
        if not wrong.any():
            continue
        k = int(np.argmax(np.where(np.isnan(says - number), np.inf, np.abs(says - number) - allowed)))
        element = k if small else _worst_element(claimed, directions[k], numbers.along)
        here = found[k] if small else numbers.along(_unit(x.shape, element))
        place = f"element {tuple(int(n) for n in np.unravel_index(element, x.shape))}"
        place = place if small else f"direction {k}, {place}"
        share = f"{int(wrong.sum())} of {len(says)} {'elements' if small else 'directions'}"
        looks = hint(claimed, says, number, small, g.shape, lambda i=i: _unsummed(f, arrays, i, g, limits))  # type: ignore[misc]
        raise GradientError(
            f"{what} at {place}: the vjp says {claimed.reshape(-1)[element]:.10g}, the numbers "
            f"{here.value:.10g} ({here.step}; allowed difference {allowed[k]:.1e}; {share} are wrong)."
            f"{' ' if looks else ''}{looks}"
        )


def _unit(shape: tuple[int, ...], k: int) -> np.ndarray:
    return np.eye(1, int(np.prod(shape)), k).reshape(shape)


def _worst_element(claimed: np.ndarray, u: np.ndarray, number_along: Callable[[np.ndarray], Derivative]) -> int:
    """An element at which the two differ, found by halving: of two halves of u the one with the larger difference."""
    low, high = 0, u.size
    while high - low > 1:
        middle = (low + high) // 2
        gaps = []
        for start, stop in ((low, middle), (middle, high)):
            places = np.arange(u.size).reshape(u.shape)
            half = np.where((places >= start) & (places < stop), u, 0.0)
            gaps.append(abs(float((claimed * half).sum()) - number_along(half).value))
        low, high = (low, middle) if not gaps[1] > gaps[0] else (middle, high)
    return low


def _unsummed(f: Function, arrays: Sequence[np.ndarray], i: int, g: np.ndarray, limits: _Limits) -> np.ndarray | None:
    """∂⟨g, f⟩/∂x by numbers for an argument x that has been broadcast to g's shape, element by element."""
    if not arrays[i].size < g.size <= _ELEMENTWISE:
        return None
    whole = [np.array(np.broadcast_to(a, g.shape)) if k == i else a for k, a in enumerate(arrays)]
    try:
        numbers = Derivatives(f, whole, i, g, limits.step, None, np.ones(g.shape))
        every = [numbers.along(_unit(g.shape, k)).value for k in range(g.size)]
    except Exception:  # f need not take an argument of this shape; then there is no hint
        return None
    return np.array(every).reshape(g.shape)


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
    u, v = (array_of(t).astype(np.float64) for t in (x, y))
    place = place_of((x, y))
    with no_grad():
        Ax, Aty = run_at(place, A)(wrap(u)), run_at(place, At)(wrap(v))
    if Ax.shape != v.shape or Aty.shape != u.shape:
        raise GradientError(f"A x has shape {Ax.shape} and y {v.shape}; Aᵀ y has {Aty.shape} and x {u.shape}")
    left, right = float((Ax.data * v).sum()), float((u * Aty.data).sum())
    scale = float(np.abs(Ax.data * v).sum() + np.abs(u * Aty.data).sum())
    if not abs(left - right) <= rtol * scale:
        raise GradientError(f"⟨A x, y⟩ = {left:.12g}, but ⟨x, Aᵀ y⟩ = {right:.12g}")

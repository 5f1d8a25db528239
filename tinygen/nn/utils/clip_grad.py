"""Gradient clipping: a bound on what one bad batch can do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tinygen.arguments import refuse
from tinygen.backend import array_module, device_of, move
from tinygen.creation import zeros
from tinygen.kernels.gpu import parameters as at_once
from tinygen.tensor import Tensor, wrap


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[tuple[Tensor, Any]]:
    """The parameters that have a gradient, with its array."""
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [(q, q.grad.data) for q in listed if q.grad is not None]


def _norm(g: Any, p: float) -> Any:
    """‖g‖_p of an array, as an array of one number; float16 is summed in float32."""
    xp = array_module(g)
    g = g.reshape(-1)
    if g.dtype.itemsize == 2:
        g = g.astype("float32")
    if g.size == 0:
        return xp.zeros(1, g.dtype)
    if p == 2:
        return xp.sqrt(xp.asarray(xp.dot(g, g)).reshape(1))
    if math.isinf(p):
        return xp.abs(g).max(keepdims=True) if p > 0 else xp.abs(g).min(keepdims=True)
    if p == 0:
        return (g != 0).sum(keepdims=True).astype(g.dtype)
    return (xp.abs(g) ** p).sum(keepdims=True) ** (1 / p)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients by the one factor that brings their joint norm down to ``max_norm``, where it is larger.

        ‖g‖ = (Σ_i ‖gᵢ‖ᵖ)^(1/p),    gᵢ ← gᵢ · min(1, max_norm/(‖g‖ + 10⁻⁶))

    Every ``grad`` becomes a new tensor: whoever kept the old one still has it as it was.

    Args:
        parameters: one or several; those without a gradient are skipped.
        max_norm: the bound.
        norm_type: p; ``math.inf`` for the largest absolute value.
        error_if_nonfinite: raise where ‖g‖ is NaN or infinite (which needs its value: on a GPU, a wait).
        foreach: refused.

    Returns: ‖g‖ before clipping, a tensor of one number.

    Raises:
        RuntimeError: ‖g‖ is not finite and error_if_nonfinite; no gradient has changed.
        NotImplementedError: foreach.

    Source: Pascanu, Mikolov & Bengio 2013, Algorithm 1; ``torch.nn.utils.clip_grad_norm_``.
    """
    refuse("clip_grad_norm_", foreach=(foreach or None, None))
    ready = _gradients(parameters)
    if not ready:
        return zeros(())
    p = float(norm_type)
    xp, place = array_module(ready[0][1]), device_of(ready[0][1])
    arrays = [g for _, g in ready]
    here = len({device_of(g) for g in arrays}) == 1
    if p == 2 and here and not error_if_nonfinite and at_once.fits(xp, arrays):  # a GPU's kernels, two launches
        total = at_once.norm(xp, arrays)
        factor = _factor(xp, max_norm, total)
        for (q, _), scaled in zip(ready, at_once.scaled(xp, arrays, factor), strict=True):
            q.grad = wrap(scaled)
        return wrap(total.reshape(()))
    total = _norm(xp.concatenate([move(_norm(g, p), place) for _, g in ready]), p)
    if error_if_nonfinite and not bool(xp.isfinite(total).all()):
        raise RuntimeError(
            f"clip_grad_norm_: the gradients' norm of order {p:g} is {total.item()}, and no gradient was changed"
        )
    factor = _factor(xp, max_norm, total)
    for q, g in ready:
        q.grad = wrap((g * move(factor, device_of(g)).astype(g.dtype)).reshape(g.shape))
    return wrap(total.reshape(()))


def _factor(xp: Any, max_norm: float, total: Any) -> Any:
    """min(1, max_norm/(‖g‖ + 10⁻⁶))."""
    return xp.minimum(float(max_norm) / (total + 1e-6), 1.0)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """gᵢ ← min(max(gᵢ, −c), c) for every number of every gradient, c = ``clip_value``.

    Every ``grad`` becomes a new tensor.

    Raises:
        NotImplementedError: foreach.

    Source: ``torch.nn.utils.clip_grad_value_``.
    """
    refuse("clip_grad_value_", foreach=(foreach or None, None))
    c = float(clip_value)
    for q, g in _gradients(parameters):
        xp = array_module(g)
        q.grad = wrap(xp.asarray(xp.clip(g, -c, c)))

"""RMSprop: every step divided by the size that the parameter's gradients lately had."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tinygen.arguments import refuse
from tinygen.backend import array_module
from tinygen.optim.optimizer import Group, Optimizer, check_range
from tinygen.optim.sgd import with_decay


class RMSprop(Optimizer):
    """Gradient descent in units of the gradient's running root mean square.

    ::

        g ← g + λ w
        v ← α v + (1 − α) g²                          E[g²]
        a ← α a + (1 − α) g                           E[g], where centered; then v − a², the variance, replaces v below
        w ← w − γ g/(√v + ε)                          or with momentum:  b ← μ b + g/(√v + ε),  w ← w − γ b

    Args:
        params: the parameters, or groups of them.
        lr: γ ≥ 0.
        alpha: α, 0 ≤ α < 1: how long the averages remember.
        eps: ε ≥ 0, outside the root.
        weight_decay: λ ≥ 0.
        momentum: μ ≥ 0.
        centered: divide by the standard deviation instead.
        maximize: climb instead: g ← −g first.
        capturable, foreach, differentiable: refused.

    Raises:
        TypeError, ValueError: as :class:`Optimizer`, or a setting is out of range.
        NotImplementedError: a refused argument is asked for.

    Source: Tieleman & Hinton, *Neural networks for machine learning*, lecture 6.5 (2012); centered: Graves,
    *Generating sequences with recurrent neural networks* (2013), eq. 40; ``torch.optim.RMSprop``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        refuse(
            "RMSprop",
            capturable=(capturable, False),
            foreach=(foreach or None, None),
            differentiable=(differentiable, False),
        )
        settings = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, settings)

    def _check(self, group: Group) -> None:
        limits = dict.fromkeys(("lr", "eps", "weight_decay", "momentum"), math.inf)
        check_range("RMSprop", group, alpha=1, **limits)

    def _averages(self, group: Group) -> tuple[str, ...]:
        names = ["square_avg"]
        if group["momentum"]:
            names.append("momentum_buffer")
        if group["centered"]:
            names.append("grad_avg")
        return tuple(names)

    _kernel = "rmsprop"
    _slots = ("square_avg", "grad_avg", "momentum_buffer")

    def _numbers(self, group: Group, t: int) -> tuple[float, ...]:
        α, ε, γ = float(group["alpha"]), float(group["eps"]), float(group["lr"])
        sign = -1.0 if group["maximize"] else 1.0
        return α, ε, γ, float(group["weight_decay"]), sign, float(group["momentum"])

    def _update(self, w: Any, g: Any, own: dict[str, Any], d: Any, e: Any, t: int, group: Group) -> None:
        xp = array_module(w)
        γ, α, ε = float(group["lr"]), float(group["alpha"]), float(group["eps"])
        μ = float(group["momentum"])
        g = with_decay(w, g, float(group["weight_decay"]), group["maximize"], e)
        v = own["square_avg"]
        # v ← α v + (1 − α) g²
        xp.multiply(g, g, out=d)
        d *= 1 - α
        v *= α
        v += d
        if group["centered"]:
            a = own["grad_avg"]
            # a ← α a + (1 − α) g
            xp.multiply(g, 1 - α, out=d)
            a *= α
            a += d
            # d = √(v − a²)
            xp.multiply(a, a, out=d)
            xp.subtract(v, d, out=d)
            xp.sqrt(d, out=d)
        else:
            xp.sqrt(v, out=d)
        # d = g/(√v + ε)
        d += ε
        xp.divide(g, d, out=d)
        if μ:
            b = own["momentum_buffer"]
            # b ← μ b + g/(√v + ε)
            b *= μ
            b += d
            xp.multiply(b, γ, out=d)
        else:
            d *= γ
        # w ← w − γ g/(√v + ε)
        w -= d

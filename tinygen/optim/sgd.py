"""SGD: a step against the gradient, with or without momentum."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tinygen.arguments import refuse
from tinygen.backend import array_module
from tinygen.optim.optimizer import Group, Optimizer, check_range


class SGD(Optimizer):
    """Stochastic gradient descent.

    With g the gradient, μ the momentum, τ the dampening, λ the weight decay and γ the learning rate::

        g ← g + λ w
        b ← μ b + (1 − τ) g          (b = g in the first step)
        w ← w − γ b                  or with Nesterov's momentum:  w ← w − γ (g + μ b)

    Without momentum b = g. PyTorch's form: γ stands outside b, so a change of γ acts at once.

    Args:
        params: the parameters, or groups of them.
        lr: γ ≥ 0.
        momentum: μ ≥ 0.
        dampening: τ.
        weight_decay: λ ≥ 0.
        nesterov: look ahead; needs momentum > 0 and dampening = 0.
        maximize: climb instead: g ← −g first.
        foreach, differentiable, fused: refused.

    Raises:
        TypeError, ValueError: as :class:`Optimizer`, or a setting is out of range.
        NotImplementedError: a refused argument is asked for.

    Source: Polyak 1964; Nesterov 1983; Sutskever et al., *On the importance of initialization and momentum in deep
    learning* (2013); ``torch.optim.SGD``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refuse(
            "SGD", foreach=(foreach or None, None), differentiable=(differentiable, False), fused=(fused or None, None)
        )
        settings = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, settings)

    def _check(self, group: Group) -> None:
        check_range("SGD", group, lr=math.inf, momentum=math.inf, weight_decay=math.inf)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("SGD: nesterov=True needs momentum > 0 and dampening = 0")

    def _averages(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    _optional = ("step", "momentum_buffer")

    _kernel = "sgd"
    _slots = ("momentum_buffer",)

    def _numbers(self, group: Group, t: int) -> tuple[float, ...]:
        share = 1.0 - float(group["dampening"]) if t > 1 else 1.0
        sign = -1.0 if group["maximize"] else 1.0
        γ, μ, λ = float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])
        return γ, μ, share, λ, sign, float(group["nesterov"])

    def _update(self, w: Any, g: Any, own: dict[str, Any], d: Any, e: Any, t: int, group: Group) -> None:
        xp = array_module(w)
        γ, μ, τ = float(group["lr"]), float(group["momentum"]), float(group["dampening"])
        g = with_decay(w, g, float(group["weight_decay"]), group["maximize"], e)
        if μ:
            b = own["momentum_buffer"]
            # b ← μ b + (1 − τ) g;  b = g in the first step
            xp.multiply(g, 1 - τ if t > 1 else 1.0, out=d)
            b *= μ
            b += d
            if group["nesterov"]:
                # g ← g + μ b
                xp.multiply(b, μ, out=d)
                d += g
                g = d
            else:
                g = b
        # w ← w − γ g
        xp.multiply(g, γ, out=d)
        w -= d


def with_decay(w: Any, g: Any, λ: float, maximize: bool, out: Any) -> Any:
    """±g + λ w: g itself where there is nothing to add, else in ``out``, for no gradient is ever written."""
    xp = array_module(w)
    if λ:
        xp.multiply(w, λ, out=out)
        return xp.subtract(out, g, out=out) if maximize else xp.add(out, g, out=out)
    return xp.negative(g, out=out) if maximize else g

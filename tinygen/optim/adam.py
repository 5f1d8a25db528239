"""Adam: momentum divided by RMSprop's root mean square, both corrected for their start at 0. AdamW beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tinygen.arguments import refuse
from tinygen.backend import array_module
from tinygen.optim.optimizer import Group, Optimizer, check_range
from tinygen.optim.sgd import with_decay


class Adam(Optimizer):
    """Adaptive moment estimation, Algorithm 1 of Kingma & Ba.

    With g the gradient in step t = 1, 2, … (the paper's symbols, and after the bar those of our source lectures)::

        m ← β₁ m + (1 − β₁) g                 │  s' = β₁ s + (1 − β₁) g      momentum: the mean of g
        v ← β₂ v + (1 − β₂) g²                │  r' = β₂ r + (1 − β₂) g²     RMSprop: the mean of g²
        m̂ = m/(1 − β₁ᵗ)                       │  s~ = s'/(1 − β₁ᵗ)           corrected for the start at 0:
        v̂ = v/(1 − β₂ᵗ)                       │  r~ = r'/(1 − β₂ᵗ)           E[m] = (1 − β₁ᵗ) E[g]
        w ← w − α m̂/(√v̂ + ε)                  │  w ← w − α s~/(√r~ + ε)

    The lectures write √(r~ + ε), with ε inside the root. We follow the paper, as PyTorch does: ε is outside.

    The step is computed as w ← w − αₜ m/(√v + ε̂) with αₜ = α √(1 − β₂ᵗ)/(1 − β₁ᵗ) and ε̂ = ε √(1 − β₂ᵗ), the same
    numbers in fewer passes over memory (the paper's remark at the end of section 2).

    Args:
        params: the parameters, or groups of them.
        lr: α ≥ 0, about the length of a parameter's step.
        betas: (β₁, β₂), both in [0, 1).
        eps: ε ≥ 0.
        weight_decay: λ ≥ 0; g ← g + λ w first, so that the decay is divided by √v̂ too (see :class:`AdamW`).
        amsgrad: divide by the largest v so far (Reddi et al. 2018, Algorithm 2; PyTorch's form, bias-corrected).
        maximize: climb instead: g ← −g first.
        decoupled_weight_decay: decay as :class:`AdamW` does.
        foreach, capturable, differentiable, fused: refused.

    Raises:
        TypeError, ValueError: as :class:`Optimizer`, or a setting is out of range.
        NotImplementedError: a refused argument is asked for.

    Source: Kingma & Ba, *Adam: a method for stochastic optimization* (2014), Algorithm 1; ``torch.optim.Adam``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        refuse(
            type(self).__name__,
            foreach=(foreach or None, None),
            capturable=(capturable, False),
            differentiable=(differentiable, False),
            fused=(fused or None, None),
        )
        settings = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, settings)

    def _check(self, group: Group) -> None:
        who = type(self).__name__
        check_range(who, group, lr=math.inf, eps=math.inf, weight_decay=math.inf)
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"{who}: betas must be two numbers (β₁, β₂), got {betas!r}")
        check_range(who, {"betas[0]": betas[0], "betas[1]": betas[1]}, **{"betas[0]": 1, "betas[1]": 1})

    def _averages(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else ("exp_avg", "exp_avg_sq")

    _kernel = "adam"
    _slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def _numbers(self, group: Group, t: int) -> tuple[float, ...]:
        α, ε, λ = float(group["lr"]), float(group["eps"]), float(group["weight_decay"])
        β1, β2 = (float(β) for β in group["betas"])
        decoupled, root = group["decoupled_weight_decay"], math.sqrt(1 - β2**t)
        decay, λ = (1 - α * λ, 0.0) if decoupled else (1.0, λ)
        return β1, β2, α * root / (1 - β1**t), ε * root, λ, decay, -1.0 if group["maximize"] else 1.0

    def _update(self, w: Any, g: Any, own: dict[str, Any], d: Any, e: Any, t: int, group: Group) -> None:
        xp = array_module(w)
        α, ε, λ = float(group["lr"]), float(group["eps"]), float(group["weight_decay"])
        β1, β2 = (float(β) for β in group["betas"])
        if group["decoupled_weight_decay"]:
            # w ← (1 − αλ) w
            if λ:
                w *= 1 - α * λ
            λ = 0.0
        g = with_decay(w, g, λ, group["maximize"], e)
        m, v = own["exp_avg"], own["exp_avg_sq"]
        # m ← β₁ m + (1 − β₁) g
        xp.multiply(g, 1 - β1, out=d)
        m *= β1
        m += d
        # v ← β₂ v + (1 − β₂) g²
        xp.multiply(g, g, out=d)
        d *= 1 - β2
        v *= β2
        v += d
        if group["amsgrad"]:
            v = xp.maximum(own["max_exp_avg_sq"], v, out=own["max_exp_avg_sq"])
        # w ← w − αₜ m/(√v + ε̂)
        root = math.sqrt(1 - β2**t)
        xp.sqrt(v, out=d)
        d += ε * root
        xp.divide(m, d, out=d)
        d *= α * root / (1 - β1**t)
        w -= d


class AdamW(Adam):
    """Adam with weight decay beside the step instead of in the gradient::

        w ← (1 − αλ) w,  then Adam's step with the plain gradient

    so that every weight decays at the same rate, whatever the size of its gradients.

    Args:
        weight_decay: λ ≥ 0.
        The others as :class:`Adam`.

    Raises: as :class:`Adam`.

    Source: Loshchilov & Hutter, *Decoupled weight decay regularization* (2017), Algorithm 2; ``torch.optim.AdamW``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

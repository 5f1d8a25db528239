"""Sums over the processes that train together (:mod:`tinygen.ranks`)."""

from __future__ import annotations

from typing import Any

from tinygen.op import op
from tinygen.tensor import Tensor


@op
def all_sum(input: Any, ranks: Any) -> Any:
    """y = Σ_r x_r, over the ranks r, the same on every rank.

    Shapes: (*) → (*), the same on every rank.

    What is differentiated at last is Λ = Σ_s L_s, a sum over the ranks, and every L_s may depend on y. With
    G_s = ∂L_s/∂y, which rank s knows:

        dΛ = Σ_s ⟨G_s, dy⟩ = Σ_s ⟨G_s, Σ_r dx_r⟩ = Σ_r ⟨Σ_s G_s, dx_r⟩,    so    ∂Λ/∂x_r = Σ_s G_s

    the same sum of what the ranks have: the operation is its own adjoint.

    Args:
        ranks: a :class:`tinygen.ranks.Ranks`. All of them must call it.

    Source: ``torch.distributed.nn.functional.all_reduce``, which has the same adjoint.
    """
    return ranks.sum(input)


@all_sum.vjp("input")
def _(g: Tensor, ranks: Any) -> Tensor:
    return all_sum(g, ranks)

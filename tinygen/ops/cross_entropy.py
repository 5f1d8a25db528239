"""Losses over C classes: how improbable the true class was.

Class scores are the second axis of the input, (N, C) or (N, C, d₁, …), or its only one, (C). A target is the index
of the class, in the input's shape without C; for :func:`cross_entropy` also one probability for each class, in the
input's shape. Source: ``torch.nn.functional.NAME``. PyTorch's deprecated ``size_average`` and ``reduce`` are not here;
what follows their place is given by name.
"""

from __future__ import annotations

from typing import Any

from tinygen.ops.elementwise import where
from tinygen.ops.embedding import check_range
from tinygen.ops.indexing import gather, getitem
from tinygen.ops.losses import reduced
from tinygen.ops.softmax import log_softmax
from tinygen.tensor import Tensor


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """l = −w_t·x_t: the negative log-likelihood of class t, given the classes' log-probabilities x.

    ∂l/∂x_c = −w_t where c = t, else 0. Targets equal to ignore_index have l = 0 and weight 0.

    Shapes: input (C), (N, C) or (N, C, d₁, …); target (), (N) or (N, d₁, …), integers in [0, C); weight (C)
    → () or, for reduction="none", the target's shape.

    Args:
        reduction: "mean" divides Σ l by Σ w_t, not by the number of targets; NaN where all are ignored.

    Raises:
        ValueError: a shape does not fit, or the reduction is unknown.
        TypeError: the input is not floating, or the target not integer.
        IndexError: (on the CPU) a target is neither in [0, C) nor ignore_index.
    """
    return _class_loss(input, target, weight, ignore_index, reduction, 0.0, "nll_loss")


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """l = −Σ_c w_c q_c ln softmax(x)_c: the cross entropy between the target's q and the logits' softmax.

    For a class index t, q is 1 at t; smoothing by ε mixes in a uniform share: q_c = (1 − ε)[c = t] + ε/C. With
    p = softmax(x), W = Σ_c w_c q_c and ∂ ln p_c/∂x_k = [c = k] − p_k,

        ∂l/∂x_k = W·p_k − w_k q_k,    which for w = 1 is p − q.

    Shapes: input (C), (N, C) or (N, C, d₁, …); target the same without C, integers in [0, C), or the input's shape,
    probabilities; weight (C) → () or, for reduction="none", the target's shape without C.

    Args:
        ignore_index: targets equal to it have l = 0 and weight 0; for class indices only.
        reduction: "mean" divides Σ l by Σ w_t for class indices (NaN where all are ignored), and by the number of
            targets for probabilities.
        label_smoothing: ε in [0, 1].

    Raises:
        ValueError: a shape does not fit, ε is out of range, ignore_index meets probabilities, or the reduction is
            unknown.
        TypeError: the input is not floating, or the target neither integer indices nor floating probabilities.
        IndexError: (on the CPU) a target is neither in [0, C) nor ignore_index.

    Source: Szegedy et al., *Rethinking the Inception architecture* (2016), §7, for the smoothing.
    """
    who = "cross_entropy"
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{who}: expected label_smoothing in [0, 1], got {label_smoothing}")
    dim = _class_axis(input, who)
    if target.shape != input.shape:
        return _class_loss(log_softmax(input, dim), target, weight, ignore_index, reduction, label_smoothing, who)
    if target.dtype.kind != "f":
        raise TypeError(
            f"{who}: a target of the input's shape {input.shape} holds probabilities, which are floating; got "
            f"{target.dtype} (class indices have the shape {_without(input.shape, dim)})"
        )
    if ignore_index >= 0:
        raise ValueError(f"{who}: ignore_index={ignore_index} is for class indices, but the target is probabilities")
    ε, C = label_smoothing, input.shape[dim]
    q = target * (1 - ε) + ε / C if ε else target
    if weight is not None:
        q = q * _along_classes(weight, C, input.ndim, dim, who)
    loss = -(q * log_softmax(input, dim)).sum(dim)
    return reduced(loss, reduction, who)


def _class_loss(
    x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, ε: float, who: str
) -> Tensor:
    """l = −(1 − ε)·w_t·x_t − (ε/C)·Σ_c w_c x_c for log-probabilities x and class indices t, reduced."""
    dim = _class_axis(x, who)
    C = x.shape[dim]
    if target.shape != _without(x.shape, dim):
        raise ValueError(
            f"{who}: expected a target of shape {_without(x.shape, dim)} for input {x.shape} (classes on axis {dim}), "
            f"got {target.shape}"
        )
    if target.dtype.kind not in "iu":
        raise TypeError(f"{who}: expected integer class indices as target, got {target.dtype}")
    ignored = target == ignore_index
    t = where(ignored, 0, target)
    check_range(t, C, f"{who}: target", f" and not ignore_index={ignore_index}")
    w: Any = (~ignored).to(x.dtype)
    likelihood = gather(x, dim, t.unsqueeze(dim)).squeeze(dim)
    if weight is not None:
        _along_classes(weight, C, x.ndim, dim, who)
        w = w * getitem(weight, t)
    loss = where(ignored, 0.0, -likelihood) * w
    if ε:
        each = x if weight is None else x * _along_classes(weight, C, x.ndim, dim, who)
        loss = (1 - ε) * loss - ε / C * where(ignored, 0.0, each.sum(dim))
    if reduction == "mean":
        return loss.sum() / w.sum()
    return reduced(loss, reduction, who)


def _class_axis(x: Tensor, who: str) -> int:
    if not isinstance(x, Tensor) or x.dtype.kind not in "fc" or x.ndim == 0:
        given = f"{x.dtype} {x.shape}" if isinstance(x, Tensor) else type(x).__name__
        kind = ValueError if isinstance(x, Tensor) and x.ndim == 0 else TypeError
        raise kind(f"{who}: expected input to be a floating tensor (C), (N, C) or (N, C, d₁, …), got {given}")
    return min(x.ndim - 1, 1)


def _without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return shape[:dim] + shape[dim + 1 :]


def _along_classes(weight: Tensor, C: int, ndim: int, dim: int, who: str) -> Tensor:
    """w as a tensor that broadcasts along the class axis of the input."""
    if weight.shape != (C,):
        raise ValueError(f"{who}: expected weight of shape ({C},), one for each class, got {weight.shape}")
    return weight.reshape([C if d == dim else 1 for d in range(ndim)])

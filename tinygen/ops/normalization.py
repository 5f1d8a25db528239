"""Normalisation: x̂ = (x − μ)/√(σ² + ε), with μ and σ² the mean and variance of the group that a number is in.

What differs is the group:

    batch_norm      one channel, over the batch and all positions
    layer_norm      one example, over its last axes
    instance_norm   one channel of one example, over all positions
    group_norm      several channels of one example, over all positions

The ops that they are made of and their derivatives, for any group, are in :mod:`tinygen.ops.standardization`.

Source: ``torch.nn.functional.NAME``; Ioffe & Szegedy, *Batch normalization* (2015); Ba, Kiros & Hinton, *Layer
normalization* (2016); Ulyanov et al., *Instance normalization* (2016); Wu & He, *Group normalization* (2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygen.ops.elementwise import clamp, rsqrt
from tinygen.ops.layer_normalization import fused, suits
from tinygen.ops.reduction import norm
from tinygen.ops.standardization import Group, per_channel, standardize
from tinygen.tensor import Tensor

# ------------------------------------------------------------------------------------- checks of arguments


def _check(who: str, input: Tensor, least: int, form: str, shape: tuple[int, ...], **others: Tensor | None) -> None:
    """Check the input's axes and dtype, and that the others have the given shape.

    Raises:
        ValueError, TypeError: they do not.
    """
    if input.ndim < least:
        raise ValueError(f"{who}: expected input {form}, got shape {input.shape}")
    if input.dtype.kind not in "fc":
        raise TypeError(f"{who}: expected a floating input, got {input.dtype}")
    for name, x in others.items():
        if x is None:
            continue
        if x.shape != shape:
            raise ValueError(f"{who}: expected {name} of shape {shape} for input {input.shape}, got {x.shape}")
        if x.dtype != input.dtype and not name.startswith("running"):
            raise TypeError(f"{who}: input is {input.dtype} and {name} {x.dtype}; convert one with .to(dtype)")


def _check_more_than_one(who: str, input: Tensor, n: int, what: str) -> None:
    if n == 1:
        raise ValueError(
            f"{who}: expected more than one number per {what}, got input {input.shape}: the variance of one number "
            "is 0, whatever the number"
        )


def _update(running: Tensor, new: Any, momentum: float) -> None:
    """running ← (1 − m)·running + m·new."""
    running.copy_((1 - momentum) * running.data + momentum * new)


def _with_given(
    input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """γ·(x − μ)/√(σ² + ε) + β with μ and σ² constants, so that ∂L/∂x = g·γ/√(σ² + ε). All but x are (C)."""
    scale = rsqrt(var.detach().to(input.dtype) + eps)
    if weight is not None:
        scale = scale * weight
    y = (input - per_channel(mean.detach().to(input.dtype), input.ndim)) * per_channel(scale, input.ndim)
    return y if bias is None else y + per_channel(bias, input.ndim)


# ------------------------------------------------------------------------------------ the four, by group


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """y = γ·(x − μ)/√(σ² + ε) + β, one μ and σ² for each channel.

    When training, μ and σ² (the mean square deviation) are those of the batch over all positions, and

        running ← (1 − m)·running + m·(μ, or n/(n − 1)·σ²),      n = the number of numbers per channel,

    is written into the running statistics. Otherwise those are μ and σ², as constants. The gradient is derived at the
    top of :mod:`tinygen.ops.standardization`.

    Shapes: input (N, C) or (N, C, …); all others (C) → as input, in the same order of axes in memory.

    Args:
        running_mean, running_var: not differentiated; both may be None when training.
        weight, bias: γ and β; 1 and 0 where None.
        momentum: m, the share of the new batch.

    Raises:
        ValueError: a shape does not fit; running statistics are missing; or a channel has one number to train on.
        TypeError: the dtypes differ.

    Source: ``torch.nn.functional.batch_norm``; Ioffe & Szegedy (2015), algorithm 1.
    """
    who = "batch_norm"
    C = input.shape[1] if input.ndim > 1 else 0
    running = {"running_mean": running_mean, "running_var": running_var}
    _check(who, input, 2, "(N, C) or (N, C, …)", (C,), weight=weight, bias=bias, **running)
    if (running_mean is None) != (running_var is None) or (running_mean is None and not training):
        raise ValueError(
            f"{who}: expected running_mean and running_var" + (", or neither" if training else " when not training")
        )
    if not training:
        assert running_mean is not None and running_var is not None
        return _with_given(input, running_mean, running_var, weight, bias, eps)
    n = input.data.size // max(C, 1)
    _check_more_than_one(who, input, n, "channel when training")
    group = Group(tuple(d for d in range(input.ndim) if d != 1))
    y, statistics = standardize(input, weight, bias, group, eps)
    if running_mean is not None and running_var is not None and n:
        _update(running_mean, statistics.mean.reshape(C), momentum)
        _update(running_var, statistics.var.reshape(C) * (n / (n - 1)), momentum)
    return y


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """y = γ·(x − μ)/√(σ² + ε) + β, with μ and σ² those of the last axes, one for each index of the others.

    Shapes: input (…, *normalized_shape); weight, bias: normalized_shape → as input.

    Raises:
        ValueError: normalized_shape is empty or not the end of the input's shape, or weight or bias has another.
        TypeError: the dtypes differ, or normalized_shape is not a tuple or list.

    Source: ``torch.nn.functional.layer_norm``; Ba, Kiros & Hinton (2016), eq. 3 and 4.
    """
    who = "layer_norm"
    if not isinstance(normalized_shape, (tuple, list)):
        raise TypeError(f"{who}: expected normalized_shape as a tuple, such as ({normalized_shape!r},)")
    shape = tuple(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ValueError(f"{who}: normalized_shape {shape} is not the end of the input's shape {input.shape}")
    _check(who, input, 1, "(…, *normalized_shape)", shape, weight=weight, bias=bias)
    group = Group(tuple(range(input.ndim - len(shape), input.ndim)))
    if suits(input, group):
        return fused(input, weight, bias, group, eps)
    y = standardize(input, None, None, group, eps)[0]
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """y = γ·(x − μ)/√(σ² + ε) + β, with μ and σ² those of C/num_groups channels of one example, over all positions.

    Shapes: input (N, C, …); weight, bias (C) → as input, in the same order of axes in memory.

    Raises:
        ValueError: num_groups does not divide C, a shape does not fit, or there is one number in all per group.
        TypeError: the dtypes differ.

    Source: ``torch.nn.functional.group_norm``; Wu & He (2018), eq. 1 to 7.
    """
    who = "group_norm"
    C = input.shape[1] if input.ndim > 1 else 0
    _check(who, input, 2, "(N, C, …)", (C,), weight=weight, bias=bias)
    if not isinstance(num_groups, int) or num_groups < 1 or C % num_groups:
        raise ValueError(
            f"{who}: num_groups={num_groups!r} must be positive and divide the {C} channels of {input.shape}"
        )
    _check_more_than_one(who, input, input.data.size // num_groups, "group")
    group = Group(tuple(range(1, input.ndim)), num_groups)
    return standardize(input, weight, bias, group, eps)[0]


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """y = γ·(x − μ)/√(σ² + ε) + β, one μ and σ² for each channel of each example, over all positions.

    The running statistics follow the batch's mean of μ and of n/(n − 1)·σ², n the number of positions; without
    use_input_stats they are μ and σ², as constants.

    Shapes: input (N, C, …) with at least one axis of positions; all others (C) → as input, in the same order of axes in
    memory.

    Raises:
        ValueError: a shape does not fit; running statistics are missing; or there is one position.
        TypeError: the dtypes differ.

    Source: ``torch.nn.functional.instance_norm``; Ulyanov et al. (2016), eq. 1.
    """
    who = "instance_norm"
    C = input.shape[1] if input.ndim > 1 else 0
    running = {"running_mean": running_mean, "running_var": running_var}
    _check(who, input, 3, "(N, C, …) with positions", (C,), weight=weight, bias=bias, **running)
    if (running_mean is None) != (running_var is None) or (running_mean is None and not use_input_stats):
        raise ValueError(
            f"{who}: expected running_mean and running_var"
            + (", or neither" if use_input_stats else " when not use_input_stats")
        )
    if not use_input_stats:
        assert running_mean is not None and running_var is not None
        return _with_given(input, running_mean, running_var, weight, bias, eps)
    n = math.prod(input.shape[2:])
    _check_more_than_one(who, input, n, "channel of an example")
    y, statistics = standardize(input, weight, bias, Group(tuple(range(2, input.ndim))), eps)
    if running_mean is not None and running_var is not None and input.data.size:
        _update(running_mean, statistics.mean.mean(axis=0).reshape(C), momentum)
        _update(running_var, statistics.var.mean(axis=0).reshape(C) * (n / (n - 1)), momentum)
    return y


def normalize(input: Tensor, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12) -> Tensor:
    """y = x / max(‖x‖_p, ε) over an axis: vectors of length 1; vectors shorter than ε keep their direction, 0 stays 0.

    Shapes: (*) → (*).

    Raises:
        IndexError: dim is out of range.

    Source: ``torch.nn.functional.normalize``.
    """
    return input / clamp(norm(input, p, dim, keepdim=True), min=eps)

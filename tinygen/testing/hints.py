"""What a wrong gradient looks like: the mistake that would produce just this difference."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np


def hint(
    claimed: np.ndarray,
    says: np.ndarray,
    number: np.ndarray,
    small: bool,
    result_shape: tuple[int, ...],
    unsummed: Callable[[], np.ndarray | None],
) -> str:
    """A sentence, or nothing.

    Args:
        claimed: the vjp's gradient.
        says, number: ⟨claimed, u⟩ and ⟨g, J u⟩ for each direction u; one for each element where ``small``.
        result_shape: of f's result.
        unsummed: gives the numbers' gradient with respect to the argument broadcast to the result's shape, before the
            sum over its repetitions; None where that makes no sense.
    """
    if not np.isfinite(says).all():
        return "The vjp gives a number that is not finite: look for 0·∞, 0/0 or √0."
    if np.allclose(says, -number, rtol=1e-5):
        return "Every sign is wrong."
    if not says.any():
        return "The vjp gives zeros: is the gradient cut off somewhere, or the cotangent ignored?"
    shape = claimed.shape
    repeated = _repeated(shape, result_shape)
    times = math.prod(result_shape[d] for d in repeated)
    ratio = number[says != 0] / says[says != 0]
    if ratio.size > 1 and np.allclose(ratio, ratio[0], rtol=1e-5) and (says != 0).sum() == (number != 0).sum():
        if times > 1 and math.isclose(ratio[0], times, rel_tol=1e-5):
            return (
                f"A factor of {times} is missing, and the argument is repeated {times} times in the result: its "
                "gradient is the sum over the repetitions, not the mean."
            )
        return f"A factor of {ratio[0]:.6g} is missing."
    if small and len(shape) == 2 and shape[0] == shape[1] and np.allclose(number.reshape(shape).T, claimed, rtol=1e-5):
        return "It is transposed."
    if small and times > 1 and _is_one_of_the_summands(claimed, unsummed(), repeated):
        return (
            f"The sum over the repetitions is missing (unbroadcast): the argument of shape {shape} is repeated "
            f"{times} times in the result of shape {result_shape}, and the vjp gives one summand of {times}."
        )
    return ""


def _repeated(shape: tuple[int, ...], result: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of the result along which an argument of that shape is repeated, if it broadcasts to it."""
    lead = len(result) - len(shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(shape, result[lead:], strict=True)):
        return ()
    return tuple(d for d, m in enumerate(result) if m > 1 and (d < lead or shape[d - lead] == 1))


def _is_one_of_the_summands(claimed: np.ndarray, whole: np.ndarray | None, repeated: tuple[int, ...]) -> bool:
    if whole is None:
        return False
    for place in product(*(range(whole.shape[d]) for d in repeated)):
        index: list = [slice(None)] * whole.ndim
        for d, k in zip(repeated, place, strict=True):
            index[d] = k
        if np.allclose(whole[tuple(index)].reshape(claimed.shape), claimed, rtol=1e-5):
            return True
    return False

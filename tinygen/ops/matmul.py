"""Matrix products, and sums of products in general (einsum).

All are bilinear: with one operand held fixed, y = A x is linear in the other, and its vjp is Aᵀ, again a
product of the same family.

Shapes: (…, n, k), (…, k, m) → (…, n, m), or as the letters of einsum say.

Source: ``torch.NAME``; Giles, *Collected matrix derivative results* (2008), §2.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygen.backend import array_module, is_array
from tinygen.kernels import blas, memory  # noqa: F401 - memory acts when it is imported
from tinygen.kernels.gpu import blas as gpu
from tinygen.op import op
from tinygen.ops.elementwise import mul
from tinygen.ops.indexing import getitem
from tinygen.ops.shape import matrix_transpose, moveaxis, squeeze, unsqueeze
from tinygen.promotion import result_type
from tinygen.tensor import Tensor, wrap

_SMALL = 1 << 12  # numbers in two matrices whose product takes longer to ask for than to do


def matrix_product(a: Any, b: Any) -> Any:
    """A B of raw arrays: the library's product; on the CPU with threads of our own, on a GPU by cuBLAS itself."""
    if type(a) is np.ndarray is type(b) and a.size + b.size <= _SMALL and a.ndim == b.ndim == 2:
        return a.dot(b)  # the same product; NumPy's matmul thinks for half a microsecond longer
    xp = array_module(a)
    if xp is array_module(b) is np:
        return blas.product(a, b)
    made = gpu.product(xp, a, b)
    return xp.matmul(a, b) if made is None else made


@op(broadcast=True)
def _matmul(input, other):
    """C = A B over the last two axes, leading axes broadcast. See matmul.

    dL = tr(Gᵀ dC) = tr(Gᵀ dA B) + tr(Gᵀ A dB), so ∂L/∂A = G Bᵀ and ∂L/∂B = Aᵀ G.
    """
    return matrix_product(input, other)


@_matmul.vjp("input")
def _(g, other):
    return _matmul(g, matrix_transpose(other))


@_matmul.vjp("other")
def _(g, input):
    return _matmul(matrix_transpose(input), g)


def _tensor(value: Any, who: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if not is_array(value):
        raise TypeError(f"{who}: expected a Tensor, got {type(value).__name__}; make one with tg.tensor(...)")
    return wrap(value)


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """C = A B, over the last two axes; leading axes broadcast.

    Shapes: (…, n, k), (…, k, m) → (…, n, m). A vector (k) on the left is a row, on the right a column, and its axis
    vanishes from the result: (k), (k) → ().

    With L a scalar and G = ∂L/∂C:  dL = tr(Gᵀ dC) = tr(Gᵀ dA B) + tr(Gᵀ A dB),
    so  ∂L/∂A = G Bᵀ  and  ∂L/∂B = Aᵀ G.

    Raises:
        TypeError: an operand is no tensor.
        ValueError: an operand is 0-d, the inner lengths differ, or the leading axes do not broadcast.
    """
    a, b = _tensor(input, "matmul"), _tensor(other, "matmul")
    n, m = a.data.shape, b.data.shape
    if len(n) == len(m) == 2 and n[1] == m[0]:
        return _matmul(a, b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: expected at least one axis each, got shapes {a.shape} and {b.shape}")
    row, column = a.ndim == 1, b.ndim == 1
    if row:
        a = unsqueeze(a, 0)
    if column:
        b = unsqueeze(b, 1)
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"matmul: shapes {input.shape} and {other.shape}: the last axis of the first ({a.shape[-1]}) must be "
            f"as long as {'the' if column else 'the second to last'} axis of the second ({b.shape[-2]})"
        )
    c = _matmul(a, b)
    if column:
        c = squeeze(c, -1)
    return squeeze(c, -1 if column else -2) if row else c


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """C_ij = a_i b_j.    ∂L/∂a = G b,  ∂L/∂b = Gᵀ a.

    Shapes: (n), (m) → (n, m).

    Raises:
        TypeError: an operand is no tensor.
        ValueError: an operand is not a vector.
    """
    input, vec2 = _tensor(input, "outer"), _tensor(vec2, "outer")
    if input.ndim != 1 or vec2.ndim != 1:
        raise ValueError(f"outer: expected two vectors, got shapes {input.shape} and {vec2.shape}")
    return mul(unsqueeze(input, 1), unsqueeze(vec2, 0))


# ----------------------------------------------------------------------------------------------- einsum


@op(sequence="operands")
def _einsum(operands, inputs, output):
    """y[output] = Σ Π operands, over the letters that are not in the output. See einsum.

    Each operand is linear in y, so its gradient is the sum of products of g with the other operands:
    ∂L/∂xᵢ[inputsᵢ] = Σ g[output] Π_{j≠i} xⱼ[inputsⱼ].
    """
    xp = array_module(operands[0])
    return xp.einsum(f"{','.join(inputs)}->{output}", *operands, optimize=len(operands) > 1)


@_einsum.vjp("operands")
def _(g, i, operands, inputs, output):
    others = [x for j, x in enumerate(operands) if j != i]
    letters = [s for j, s in enumerate(inputs) if j != i]
    return _einsum([g, *others], [output, *letters], inputs[i])


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Sum of products over named axes: ``einsum("ij,jk->ik", a, b)`` is the matrix product.

    y[output letters] = Σ over all other letters of Π_i operand_i[its letters]. A letter that one operand has twice
    reads its diagonal; ``...`` stands for leading axes that broadcast; without ``->`` the output has, in
    alphabetical order, the letters that occur once.

    Each operand's gradient is the einsum of g with the other operands, onto its own letters.

    Raises:
        TypeError: an operand is no tensor.
        ValueError: the equation is malformed, or does not fit the operands' shapes.
    """
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    tensors = [_tensor(x, "einsum") for x in operands]
    if tensors:
        dtype = result_type(*(x.data for x in tensors))
        tensors = [x if x.dtype == dtype else x.to(dtype) for x in tensors]
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(tensors):
        raise ValueError(f"einsum: {equation!r} names {len(inputs)} operands, got {len(tensors)}")
    inputs, tensors, lead = _without_ellipsis(equation, inputs, tensors)
    if not arrow:
        joined = "".join(inputs)
        output = "..." * bool(lead) + "".join(sorted(c for c in set(joined) - set(lead) if joined.count(c) == 1))
    output = output.replace("...", lead)
    if len(set(output)) < len(output) or not set(output) <= set("".join(inputs)):
        raise ValueError(f"einsum: {equation!r}: each output letter must occur once there, and in an operand")
    lengths: dict[str, int] = {}
    for letters, x in zip(inputs, tensors, strict=True):
        for c, n in zip(letters, x.shape, strict=True):
            if lengths.setdefault(c, n) == 1:
                lengths[c] = n
            elif n not in (1, lengths[c]):
                raise ValueError(f"einsum: {equation!r}: the letter {c!r} has the lengths {lengths[c]} and {n}")
    for k, (letters, x) in enumerate(zip(inputs, tensors, strict=True)):
        inputs[k], tensors[k] = _only_shared(*_diagonals(letters, x), lengths, output, inputs, k)
    return _einsum(tensors, inputs, output)


_SPARE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _without_ellipsis(equation: str, inputs: list[str], tensors: list[Tensor]) -> tuple[list[str], list[Tensor], str]:
    """The operands' letters with spare ones in place of ``...``, and those spare letters."""
    spare = [c for c in _SPARE if c not in equation]
    extra = []
    for letters, x in zip(inputs, tensors, strict=True):
        named = len(letters.replace("...", ""))
        dots = letters.count("...")
        if (
            (named and not letters.replace("...", "").isalpha())
            or dots > 1
            or (x.ndim < named if dots else x.ndim != named)
        ):
            raise ValueError(f"einsum: {equation!r}: {letters!r} does not fit an operand of shape {x.shape}")
        extra.append(x.ndim - named)
    most = max(extra, default=0)
    lead = "".join(spare[:most])
    return [s.replace("...", lead[most - n :]) for s, n in zip(inputs, extra, strict=True)], tensors, lead


def _diagonals(letters: str, x: Tensor) -> tuple[str, Tensor]:
    """x with the diagonal read off wherever a letter stands twice."""
    for c in dict.fromkeys(letters):
        while letters.count(c) > 1:
            i, j = letters.index(c), letters.rindex(c)
            if x.shape[i] != x.shape[j]:
                raise ValueError(f"einsum: the letter {c!r} stands for axes of lengths {x.shape[i]} and {x.shape[j]}")
            x = moveaxis(moveaxis(x, j, 0), i + 1, 0)  # both axes in front
            at = wrap(array_module(x.data).arange(x.shape[0]))
            x = getitem(x, (at, at))
            letters = c + letters[:i] + letters[i + 1 : j] + letters[j + 1 :]
    return letters, x


def _only_shared(
    letters: str, x: Tensor, lengths: dict[str, int], output: str, inputs: list[str], k: int
) -> tuple[str, Tensor]:
    """x summed over the letters that only it has, and its broadcast axes of length 1 dropped.

    What remains occurs elsewhere too, at full length, so the gradient's einsum can produce it.
    """
    elsewhere = set(output).union(*(s for j, s in enumerate(inputs) if j != k))
    alone = [d for d, c in enumerate(letters) if c not in elsewhere]
    if alone:
        x = x.sum(tuple(alone))
        letters = "".join(c for c in letters if c in elsewhere)
    for d, c in enumerate(letters):
        if x.shape[d] != lengths[c]:
            shape = [lengths[e] if f == d else n for f, (e, n) in enumerate(zip(letters, x.shape, strict=True))]
            x = x.broadcast_to(shape)
    return letters, x

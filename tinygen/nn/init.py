"""Numbers to start from: how weights are drawn so that signals neither die out nor explode.

Let y = W x with n_in inputs and n_out outputs, weights independent of mean 0. Then Var y = n_in·Var W·E[x²], and
backwards Var ∂L/∂x = n_out·Var W·Var ∂L/∂y. Weights of variance gain²/n keep the size of the one (``fan_in``) or of
the other (``fan_out``); the gain makes up for what the nonlinearity takes away. A uniform distribution on [−b, b] has
the variance b²/3.

Every function writes into the tensor it is given, returns it, and takes ``rng=`` (PyTorch calls it ``generator``);
none is recorded. Source: ``torch.nn.init``.
"""

from __future__ import annotations

import math
from typing import Any

from tinygen.backend import array_module
from tinygen.random import Generator, rand, randn
from tinygen.recording import no_grad
from tinygen.tensor import Tensor


def _write(tensor: Tensor, values: Any) -> Tensor:
    with no_grad():
        return tensor.copy_(values)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, rng: Generator | None = None) -> Tensor:
    """w ~ U[a, b)."""
    u = rand(tensor.shape, rng=rng, dtype=tensor.dtype, device=tensor.device).data
    return _write(tensor, u * float(b - a) + float(a))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, rng: Generator | None = None) -> Tensor:
    """w ~ N(mean, std²).

    Raises:
        ValueError: std is negative.
    """
    if std < 0:
        raise ValueError(f"normal_: expected std ≥ 0, got {std}")
    ε = randn(tensor.shape, rng=rng, dtype=tensor.dtype, device=tensor.device).data
    return _write(tensor, ε * float(std) + float(mean))


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    rng: Generator | None = None,
) -> Tensor:
    """w ~ N(mean, std²) on the condition that a ≤ w ≤ b: what falls outside is drawn again.

    Raises:
        ValueError: a ≥ b, std ≤ 0, or less than 1 % of the normal distribution lies between a and b.
    """
    if not a < b or std <= 0:
        raise ValueError(f"trunc_normal_: expected a < b and std > 0, got a={a}, b={b}, std={std}")
    Φ = lambda w: 0.5 * (1 + math.erf((w - mean) / (std * math.sqrt(2))))
    if Φ(b) - Φ(a) < 0.01:
        raise ValueError(
            f"trunc_normal_: hardly anything of N({mean}, {std}²) lies between a={a} and b={b}; note that a and b "
            "are values, not multiples of std"
        )
    xp = array_module(tensor.data)
    w = randn(tensor.shape, rng=rng, dtype=tensor.dtype, device=tensor.device).data * float(std) + float(mean)
    w = w.reshape(-1)
    while True:
        outside = xp.flatnonzero((w < a) | (w > b))
        if outside.size == 0:
            return _write(tensor, w.reshape(tensor.shape))
        ε = randn(outside.size, rng=rng, dtype=tensor.dtype, device=tensor.device).data
        w[outside] = ε * float(std) + float(mean)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """w = val."""
    return _write(tensor, val)


def ones_(tensor: Tensor) -> Tensor:
    """w = 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """w = 0."""
    return constant_(tensor, 0.0)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """gain = 1/√E[f(x)²], x ~ N(0, 1), or a custom: what makes up for how much a nonlinearity f shrinks a signal.

    ===============  ================
    linear, conv…    1
    sigmoid          1 (custom)
    tanh             5/3 (custom)
    relu             √2
    leaky_relu       √(2/(1 + a²)), a = ``param``, 0.01 where omitted
    selu             3/4 (custom)
    ===============  ================

    Raises:
        ValueError: the nonlinearity is none of these.

    Source: He et al. 2015, eq. 10 and 15.
    """
    if nonlinearity in ("linear", "sigmoid") or nonlinearity.startswith("conv"):
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        a = 0.01 if param is None else float(param)
        return math.sqrt(2.0 / (1 + a**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(
        f"calculate_gain: expected linear, conv…, sigmoid, tanh, relu, leaky_relu or selu, got {nonlinearity!r}"
    )


def fans(tensor: Tensor) -> tuple[int, int]:
    """n_in = shape[1]·Π shape[2:], n_out = shape[0]·Π shape[2:]: how many one output sees, and one input reaches.

    Shapes: (n_out, n_in, *), where * is a filter's window: both count its positions.

    Raises:
        ValueError: the tensor has fewer axes than two.
    """
    if tensor.ndim < 2:
        raise ValueError(f"a fan-in and fan-out need at least two axes (out, in, …), got shape {tensor.shape}")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, rng: Generator | None = None) -> Tensor:
    """w ~ U[−b, b], b = gain·√(6/(n_in + n_out)).

    Raises:
        ValueError: the tensor has fewer axes than two.

    Source: Glorot & Bengio 2010, eq. 16.
    """
    n_in, n_out = fans(tensor)
    b = gain * math.sqrt(6.0 / (n_in + n_out))
    return uniform_(tensor, -b, b, rng)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, rng: Generator | None = None) -> Tensor:
    """w ~ N(0, σ²), σ = gain·√(2/(n_in + n_out)).

    Raises:
        ValueError: the tensor has fewer axes than two.

    Source: Glorot & Bengio 2010, eq. 12.
    """
    n_in, n_out = fans(tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / (n_in + n_out)), rng)


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'mode must be "fan_in" or "fan_out", got {mode!r}')
    return fans(tensor)[mode == "fan_out"]


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    rng: Generator | None = None,
) -> Tensor:
    """w ~ U[−b, b], b = gain·√(3/n), with n the fan that ``mode`` names.

    Args:
        a: the slope of the leaky ReLU, for its gain.

    Raises:
        ValueError: the tensor has fewer axes than two, or mode or nonlinearity is unknown.

    Source: He et al. 2015, eq. 10 and 14.
    """
    b = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / max(1, _fan(tensor, mode)))
    return uniform_(tensor, -b, b, rng)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    rng: Generator | None = None,
) -> Tensor:
    """w ~ N(0, σ²), σ = gain/√n, with n the fan that ``mode`` names. Otherwise as :func:`kaiming_uniform_`."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(max(1, _fan(tensor, mode))), rng)


def orthogonal_(tensor: Tensor, gain: float = 1, rng: Generator | None = None) -> Tensor:
    """W = gain·Q: rows (or columns, where they are fewer) orthogonal and of length ``gain``, uniformly drawn.

    Q R = A is the QR decomposition of a matrix of normal numbers; with the signs of R's diagonal moved to Q, Q is
    uniform over all orthogonal matrices (Mezzadri 2007). Axes after the first count as columns.

    Raises:
        ValueError: the tensor has fewer axes than two.

    Source: Saxe, McClelland & Ganguli 2013.
    """
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: expected at least two axes, got shape {tensor.shape}")
    xp = array_module(tensor.data)
    rows = tensor.shape[0]
    columns = math.prod(tensor.shape[1:])
    if rows * columns == 0:
        return tensor
    dtype = tensor.dtype if tensor.dtype.itemsize > 2 else "float32"
    tall = max(rows, columns), min(rows, columns)
    Q, R = xp.linalg.qr(randn(tall, rng=rng, dtype=dtype, device=tensor.device).data)
    diagonal = R.diagonal()
    Q = Q * xp.where(diagonal < 0, -1, 1).astype(dtype)
    return _write(tensor, (Q if rows >= columns else Q.T).reshape(tensor.shape) * float(gain))

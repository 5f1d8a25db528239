"""Distributions: what can be drawn from, asked for its density, and differentiated through.

The names are those of ``torch.distributions``: ``sample``, ``rsample``, ``log_prob``, ``entropy``, ``mean``,
``variance`` and :func:`kl_divergence`. How to differentiate an expectation in the parameters φ of the distribution
itself is the question behind the variational autoencoder, and there are two answers here, side by side:

    pathwise         ∇E_q[f(z)] = E_ε[∇f(z(φ, ε))],          z = μ + σε, ε ~ N(0, 1)    reparameterised: small variance
    score function   ∇E_q[f(z)] = E_q[f(z) ∇ln q(z)],        since ∇q = q ∇ln q         any f, also with steps

Both have the same mean, here for E_N(μ,σ²)[z²] = μ² + σ²: ∇_μ = 2μ and ∇_σ = 2σ. The first needs ∇f and a z that
depends smoothly on φ; the second needs neither, and pays with a variance that grows with f itself.

Source: Kingma & Welling, *Auto-Encoding Variational Bayes* (2013), §2.4; Williams, *Simple Statistical
Gradient-Following Algorithms* (1992), for the score function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tinygen.backend import array_module, get_default_device, get_default_dtype
from tinygen.creation import as_tensor, full
from tinygen.ops.comparison import lt
from tinygen.ops.elementwise import clamp, expm1, log, log1p, sigmoid, sqrt, square, where
from tinygen.ops.embedding import check_range
from tinygen.ops.indexing import gather
from tinygen.ops.losses import binary_cross_entropy_with_logits
from tinygen.ops.reduction import logsumexp
from tinygen.ops.shape import broadcast_to
from tinygen.ops.softmax import softmax
from tinygen.random import Generator, rand, randn
from tinygen.recording import no_grad
from tinygen.tensor import Tensor

LN_2PI = math.log(2 * math.pi)


class Distribution:
    """A batch of independent distributions of one family, one for each element of ``batch_shape``.

    Attributes:
        batch_shape: the shape of one draw, and of what ``log_prob`` gives.
        has_rsample: whether :meth:`rsample` can be differentiated.

    Source: ``torch.distributions.Distribution``.
    """

    has_rsample = False
    batch_shape: tuple[int, ...]

    def sample(self, sample_shape: Sequence[int] = (), rng: Generator | None = None) -> Tensor:
        """Draws of shape (*sample_shape, *batch_shape), through which no gradient goes."""
        raise NotImplementedError

    def rsample(self, sample_shape: Sequence[int] = (), rng: Generator | None = None) -> Tensor:
        """Draws z(φ, ε) that are differentiable in the parameters φ. Shape (*sample_shape, *batch_shape).

        Raises:
            NotImplementedError: the draws are discrete; :func:`score_function_expectation` needs no such derivative.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no rsample: its draws are discrete, a step of which there is no derivative; "
            "score_function_expectation differentiates expectations all the same"
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """ln p(value), elementwise: a value that broadcasts with batch_shape → their common shape."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """H = −E[ln p] in nats, of shape batch_shape."""
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        """E[z], of shape batch_shape."""
        raise NotImplementedError

    @property
    def variance(self) -> Tensor:
        """E[(z − E z)²], of shape batch_shape."""
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """√variance."""
        return sqrt(self.variance)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={self.batch_shape})"


# ----------------------------------------------------------------------------------------------- Normal


class Normal(Distribution):
    """N(μ, σ²): p(z) = exp(−½ ((z − μ)/σ)²) / (σ√(2π)).

    Shapes: loc and scale broadcast to batch_shape.

    Args:
        loc: μ, a Tensor or a number.
        scale: the standard deviation σ > 0, not the variance: from log σ² it is exp(½ log σ²).

    Raises:
        ValueError: (on the CPU) a σ is not positive, or the shapes do not broadcast.

    Source: ``torch.distributions.Normal``.
    """

    has_rsample = True

    def __init__(self, loc: Any, scale: Any) -> None:
        self.loc, self.scale = _alike(loc, scale)
        if self.scale.device == "cpu" and bool((self.scale.data <= 0).any()):
            raise ValueError(
                f"Normal: expected a standard deviation scale > 0, got {float(self.scale.data.min()):.6g}; "
                "from a log-variance it is exp(log_var / 2)"
            )
        self.batch_shape = _together("Normal", loc=self.loc, scale=self.scale)

    @property
    def mean(self) -> Tensor:
        """E[z] = μ."""
        return broadcast_to(self.loc, self.batch_shape)

    @property
    def stddev(self) -> Tensor:
        """σ."""
        return broadcast_to(self.scale, self.batch_shape)

    @property
    def variance(self) -> Tensor:
        """E[(z − μ)²] = σ²."""
        return square(self.stddev)

    def rsample(self, sample_shape: Sequence[int] = (), rng: Generator | None = None) -> Tensor:
        """z = μ + σε, ε ~ N(0, 1), so that ∂z/∂μ = 1 and ∂z/∂σ = ε. Shape (*sample_shape, *batch_shape).

        Source: Kingma & Welling (2013), §2.4.
        """
        shape = (*sample_shape, *self.batch_shape)
        return self.loc + self.scale * randn(shape, rng=rng, dtype=self.loc.dtype, device=self.loc.device)

    @no_grad()
    def sample(self, sample_shape: Sequence[int] = (), rng: Generator | None = None) -> Tensor:
        """z ~ N(μ, σ²), without a gradient. Shape (*sample_shape, *batch_shape)."""
        return self.rsample(sample_shape, rng)

    def log_prob(self, value: Tensor) -> Tensor:
        """ln p(z) = −½ ((z − μ)/σ)² − ln σ − ½ ln 2π, elementwise."""
        return -0.5 * square((value - self.loc) / self.scale) - log(self.scale) - 0.5 * LN_2PI

    def entropy(self) -> Tensor:
        """H = ½ + ½ ln 2π + ln σ nats."""
        return broadcast_to(log(self.scale) + (0.5 + 0.5 * LN_2PI), self.batch_shape)


# -------------------------------------------------------------------------------------------- Bernoulli


class Bernoulli(Distribution):
    """P(x = 1) = p = σ(a), P(x = 0) = 1 − p.

    Args:
        probs: p in [0, 1], a Tensor or a number.
        logits: a = ln(p/(1 − p)). One of the two is given; logits neither overflow nor lose small probabilities.

    Raises:
        ValueError: both or neither are given, or (on the CPU) a p is outside [0, 1].

    Source: ``torch.distributions.Bernoulli``.
    """

    def __init__(self, probs: Any = None, logits: Any = None) -> None:
        _one_of("Bernoulli", probs, logits)
        if logits is not None:
            (self.logits,) = _alike(logits)
            self._probs = None
        else:
            (p,) = _alike(probs)
            _in_unit_interval("Bernoulli", p)
            # As PyTorch does, kept off 0 and 1 by one rounding error, so that the logits stay finite.
            ε = float(array_module(p.data).finfo(p.dtype).eps)
            inside = clamp(p, ε, 1 - ε)
            self.logits, self._probs = log(inside) - log1p(-inside), p
        self.batch_shape = self.logits.shape

    @property
    def probs(self) -> Tensor:
        """p = σ(a)."""
        return sigmoid(self.logits) if self._probs is None else self._probs

    @property
    def mean(self) -> Tensor:
        """E[x] = p."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """p(1 − p)."""
        return self.probs * (1 - self.probs)

    @no_grad()
    def sample(self, sample_shape: Sequence[int] = (), rng: Generator | None = None) -> Tensor:
        """x = 1 where u < p, u ~ U[0, 1), else 0; in p's dtype. Shape (*sample_shape, *batch_shape)."""
        p = self.probs
        u = rand((*sample_shape, *self.batch_shape), rng=rng, dtype=p.dtype, device=p.device)
        return lt(u, p).to(p.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """x ln p + (1 − x) ln(1 − p) = a·x − ln(1 + eᵃ), elementwise.

        For x in {0, 1} it is a log-probability. A grey x in [0, 1] is accepted (PyTorch refuses it unless told
        otherwise) and gives the negative cross-entropy, which is what image models maximise; it is then no normalised
        log-density.
        """
        a, x = self.logits, value
        shape = _together("Bernoulli.log_prob", value=x, logits=a)
        return -binary_cross_entropy_with_logits(broadcast_to(a, shape), broadcast_to(x, shape), reduction="none")

    def entropy(self) -> Tensor:
        """H = −p ln p − (1 − p) ln(1 − p) nats."""
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")


# ------------------------------------------------------------------------------------------ Categorical


class Categorical(Distribution):
    """P(x = c) = p_c for the classes c = 0 … C − 1, on the last axis of the parameters.

    Args:
        probs: (*batch_shape, C) non-negative weights, normalised to p = w / Σw.
        logits: (*batch_shape, C) any numbers a, p = softmax(a). One of the two is given.

    Raises:
        ValueError: both or neither are given, there is no axis of classes, or (on the CPU) a weight is negative or
            all weights are 0.

    Source: ``torch.distributions.Categorical``.
    """

    def __init__(self, probs: Any = None, logits: Any = None) -> None:
        _one_of("Categorical", probs, logits)
        (given,) = _alike(probs if logits is None else logits)
        if given.ndim < 1:
            raise ValueError("Categorical: expected (*batch_shape, C), the classes on the last axis, got a number")
        if logits is not None:
            self.logits, self._probs = given - logsumexp(given, -1, keepdim=True), None
        else:
            w = given.data
            if given.device == "cpu" and bool((w < 0).any() or (w.sum(-1) == 0).any()):
                raise ValueError("Categorical: expected probs ≥ 0 with at least one above 0 in each distribution")
            self._probs = given / given.sum(-1, keepdim=True)
            ε = float(array_module(w).finfo(given.dtype).eps)
            self.logits = log(clamp(self._probs, ε, 1 - ε))  # as PyTorch does
        self.batch_shape = given.shape[:-1]

    @property
    def probs(self) -> Tensor:
        """p, (*batch_shape, C)."""
        return softmax(self.logits, -1) if self._probs is None else self._probs

    @property
    def mean(self) -> Tensor:
        """NaN: class numbers are names, and names have no mean. (So in PyTorch.)"""
        return full(self.batch_shape, math.nan, dtype=self.logits.dtype, device=self.logits.device)

    @property
    def variance(self) -> Tensor:
        """NaN, as the mean."""
        return self.mean

    @no_grad()
    def sample(self, sample_shape: Sequence[int] = (), rng: Generator | None = None) -> Tensor:
        """x = how many of the sums p₀ + … + p_c a u ~ U[0, 1) reaches; int64 (*sample_shape, *batch_shape)."""
        p = self.probs
        u = rand((*sample_shape, *self.batch_shape), rng=rng, dtype=p.dtype, device=p.device)
        sums = p.cumsum(-1)
        # The last sum may round to less than 1; divided by itself it is 1, which no u reaches.
        return (sums / sums[..., -1:] <= u.unsqueeze(-1)).to("int64").sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """ln p_x for whole numbers x in [0, C).

        Shapes: value broadcasts with batch_shape → their common shape.

        Raises:
            IndexError: (on the CPU) a class is outside [0, C).
            TypeError: the value is not an integer tensor.
        """
        C = self.logits.shape[-1]
        if not isinstance(value, Tensor) or value.dtype.kind not in "iu":
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"Categorical.log_prob: expected an integer tensor of classes, got {kind}")
        check_range(value, C, "Categorical.log_prob: class")
        shape = tuple(array_module(value.data).broadcast_shapes(value.shape, self.batch_shape))
        x, logits = broadcast_to(value, shape), broadcast_to(self.logits, (*shape, C))
        return gather(logits, -1, x.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """H = −Σ_c p_c ln p_c nats, between 0 and ln C."""
        least = float(array_module(self.logits.data).finfo(self.logits.dtype).min)  # 0·ln 0 = 0, not 0·(−∞)
        return -(self.probs * clamp(self.logits, least)).sum(-1)


# -------------------------------------------------------------------------------------------- divergence


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p ‖ q) = E_p[ln p − ln q] ≥ 0 in nats, elementwise; 0 where p = q.

        Normal        ln(σ_q/σ_p) + (σ_p² + (μ_p − μ_q)²)/(2σ_q²) − ½;   for q = N(0, 1): ½(μ² + σ² − 1 − ln σ²)
        Bernoulli     p ln(p/q) + (1 − p) ln((1 − p)/(1 − q))
        Categorical   Σ_c p_c (ln p_c − ln q_c)

    Shapes: two of one family that broadcast → (*batch_shape).

    Raises:
        NotImplementedError: the two are of different families.

    Source: ``torch.distributions.kl_divergence``; Kingma & Welling (2013), appendix B.
    """
    match p, q:
        case Normal(), Normal():
            ratio = square(p.scale / q.scale)
            return 0.5 * (ratio + square((p.loc - q.loc) / q.scale) - 1 - log(ratio))
        case Bernoulli(), Bernoulli():
            return p.log_prob(p.probs) - q.log_prob(p.probs)
        case Categorical(), Categorical():
            return where(p.probs == 0, 0.0, p.probs * (p.logits - q.logits)).sum(-1)
    raise NotImplementedError(
        f"kl_divergence: no formula for {type(p).__name__} and {type(q).__name__}; "
        "(p.log_prob(z) - q.log_prob(z)).mean(0) with z = p.sample((n,)) estimates it"
    )


# ------------------------------------------------------------------- expectations that can be differentiated


def pathwise_expectation(
    f: Callable[[Tensor], Tensor], q: Distribution, n: int = 1, rng: Generator | None = None
) -> Tensor:
    """E_q[f(z)] ≈ (1/n) Σ f(z_i), z_i = μ + σε_i, whose gradient goes through the draws to μ and σ.

    Args:
        f: Tensors (n, *batch_shape) → values (n, *rest).
        q: a distribution with ``rsample``.
        n: how many draws, ≥ 1.

    Returns:
        Shape (*rest).

    Raises:
        NotImplementedError: q is discrete.
        ValueError: n < 1.

    Source: Kingma & Welling (2013), eq. 5.
    """
    return f(q.rsample((_positive(n),), rng)).mean(0)


def score_function_expectation(
    f: Callable[[Tensor], Tensor],
    q: Distribution,
    n: int = 1,
    rng: Generator | None = None,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    """E_q[f(z)] ≈ (1/n) Σ f(z_i), whose gradient is (1/n) Σ (f(z_i) − b) ∇ln q(z_i) (+ ∇f, where f has parameters).

    The value is the plain average; to its graph (f − b)(q/q̂ − 1) is added, where q̂ is q as a constant: zero in value,
    ∇(q/q̂) = ∇ln q in derivative, and ∇²(q/q̂) = ∇²q/q in the second, so that higher derivatives are estimated too.
    Since E_q[∇ln q] = ∇∫q = 0, a constant b changes the variance and not the mean: b ≈ E[f] is a good one.

    Args:
        f: Tensors (n, *batch_shape) → values (n, *rest), where *rest begins batch_shape: what f has summed over its
            last axes, ln q is summed over too.
        q: any distribution.
        n: how many draws, ≥ 1.
        baseline: b, a number or a Tensor that broadcasts with *rest, which must not depend on the draws.

    Returns:
        Shape (*rest).

    Raises:
        ValueError: n < 1.

    Source: Williams (1992); Mnih & Gregor, *Neural Variational Inference and Learning* (2014), §2.2–2.3; Foerster et
    al., *DiCE: The Infinitely Differentiable Monte Carlo Estimator* (2018), for the form of the added term.
    """
    z = q.sample((_positive(n),), rng)
    value = f(z)
    log_q = q.log_prob(z)
    if log_q.ndim > value.ndim:
        log_q = log_q.flatten(value.ndim).sum(-1)
    return (value + (value - baseline) * expm1(log_q - log_q.detach())).mean(0)


# ---------------------------------------------------------------------------------------------- arguments


def _positive(n: int) -> int:
    if n < 1:
        raise ValueError(f"expected n ≥ 1 draws, got {n}")
    return n


def _alike(*values: Any) -> list[Tensor]:
    """Each as a floating Tensor; numbers take the dtype and device of the tensors among them."""
    known = next((v for v in values if isinstance(v, Tensor)), None)
    dtype = get_default_dtype() if known is None else known.dtype
    place = get_default_device() if known is None else known.device
    return [v if isinstance(v, Tensor) else as_tensor(v, dtype=dtype, device=place) for v in values]


def _together(who: str, **tensors: Tensor) -> tuple[int, ...]:
    """The shape that they broadcast to.

    Raises:
        ValueError: there is none.
    """
    shapes = [t.shape for t in tensors.values()]
    try:
        return tuple(array_module(next(iter(tensors.values())).data).broadcast_shapes(*shapes))
    except ValueError:
        found = " and ".join(f"{name} {shape}" for name, shape in zip(tensors, shapes, strict=True))
        raise ValueError(f"{who}: {found} do not broadcast together") from None


def _one_of(who: str, probs: Any, logits: Any) -> None:
    if (probs is None) == (logits is None):
        raise ValueError(f"{who}: expected either probs or logits, got {'neither' if probs is None else 'both'}")


def _in_unit_interval(who: str, p: Tensor) -> None:
    if p.device == "cpu" and p.data.size and not bool((p.data >= 0).all() and (p.data <= 1).all()):
        low, high = float(p.data.min()), float(p.data.max())
        raise ValueError(f"{who}: expected probs in [0, 1], got numbers from {low:.6g} to {high:.6g}")

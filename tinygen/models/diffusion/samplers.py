"""Samplers: how to go from x_t, and what a network says of it, to the step before.

    x_T ~ N(0, I)  →  x_{τ_{S−1}}  →  …  →  x_{τ_1}  →  x_0,        S ≤ T steps τ_1 < … < τ_S = T, and 0 after the last.

A sampler knows a schedule and nothing of networks or images: ``step(model_output, t, x_t)`` gives the previous sample,
and ``chain(predict, x_T)`` walks all the way. Each step first says what the clean image would be (x̂₀, clamped to where
images can be), takes the noise that this leaves (ε̂, derived anew *after* the clamping), and goes back from t to p, the
step before it *in the chain*, with P = ᾱ_p in place of ᾱ_{t−1}. No noise is added when p = 0: that is the image.

Source: Ho, Jain & Abbeel (2020), algorithm 2; Song, Meng & Ermon, *Denoising Diffusion Implicit Models* (2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from tinygen.models.diffusion.schedule import NoiseSchedule, spaced
from tinygen.models.diffusion.targets import check_target, to_epsilon, to_x0
from tinygen.ops.elementwise import clamp
from tinygen.random import Generator, randn_like
from tinygen.tensor import Tensor

Predict = Callable[[Tensor, int], Tensor]


class Sampler:
    """x_p = μ(x̂₀, ε̂, x_t) + σz: what samplers share, the chain of steps and the image behind a network's output.

    Shapes: :meth:`step` takes (N, …) to (N, …).

    Args:
        schedule: the one that the network was trained with.
        steps: how many steps to take, spread evenly, or the steps themselves, rising; all T where omitted.
        target: what the network says: ``"epsilon"``, ``"x0"`` or ``"v"``.
        clip: (low, high), to which x̂₀ is clamped; None for data without bounds.

    Attributes:
        steps: the steps of the chain, falling: τ_S, …, τ_1.

    Raises:
        ValueError: the steps do not rise within 1 … T, the target is not one, or cannot give x₀ at T; low ≥ high.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        steps: int | Sequence[int] | None = None,
        target: str = "epsilon",
        clip: tuple[float, float] | None = (-1.0, 1.0),
    ) -> None:
        check_target(target, schedule)
        if clip is not None and not clip[0] < clip[1]:
            raise ValueError(f"clip: expected (low, high) with low < high or None, got {clip}")
        self.schedule, self.target, self.clip = schedule, target, clip
        self.steps = spaced(schedule.T, schedule.T if steps is None else steps)[::-1]
        self._before = dict(zip(self.steps, [*self.steps[1:], 0], strict=True))

    def previous(self, t: int) -> int:
        """p, the step of the chain that comes after t on the way to the image: 0 after the last.

        Raises:
            ValueError: t is not in the chain.
        """
        if t not in self._before:
            raise ValueError(f"step {t} is not in this sampler's chain {_shown(self.steps)}")
        return self._before[t]

    def denoised(self, model_output: Tensor, t: int, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """(x̂₀, ε̂): the clean image that the output means, clamped, and the noise that then makes x_t of it."""
        x0 = to_x0(self.schedule, self.target, model_output, t, x_t)
        if self.clip is not None:
            x0 = clamp(x0, *self.clip)
        elif self.target == "epsilon":
            return x0, model_output
        return x0, to_epsilon(self.schedule, x0, t, x_t)

    def mean_and_deviation(self, x0: Tensor, epsilon: Tensor, t: int, x_t: Tensor) -> tuple[Tensor, float]:
        """μ and σ of the Gaussian that the sample before x_t is drawn from; each sampler has its own.

        Raises:
            NotImplementedError: the sampler has none.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it steps")

    def step(self, model_output: Tensor, t: int, x_t: Tensor, rng: Generator | None = None) -> Tensor:
        """x_p = μ + σz, z ~ N(0, I): the previous sample.

        Shapes: model_output and x_t (N, …) → (N, …).

        Args:
            model_output: what the network says of x_t.
            t: a step of the chain.
            rng: draws z; not asked where σ = 0, as at the last step.

        Raises:
            ValueError: t is not in the chain, or the two shapes differ.
        """
        μ, σ, _ = self.distribution(model_output, t, x_t)
        return μ if σ == 0 else μ + σ * randn_like(x_t, rng=rng)

    def distribution(self, model_output: Tensor, t: int, x_t: Tensor) -> tuple[Tensor, float, Tensor]:
        """(μ, σ, x̂₀): the Gaussian that the previous sample is drawn from, and the clean image behind it.

        Raises:
            ValueError: as :meth:`step`.
        """
        if model_output.shape != x_t.shape:
            raise ValueError(f"step: the model's output {model_output.shape} and x_t {x_t.shape} differ in shape")
        self.previous(t)
        x0, epsilon = self.denoised(model_output, t, x_t)
        return *self.mean_and_deviation(x0, epsilon, t, x_t), x0

    def chain(
        self, predict: Predict, x: Tensor, rng: Generator | None = None, start: int | None = None
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Walk from x = x_start to the image; after each step give (p, x_p, x̂₀), the last with p = 0.

        Args:
            predict: predict(x_t, t) is the network's output for the whole batch at the step t.
            x: (N, …), noise at ``start``.
            rng: draws the noise of all steps.
            start: a step of the chain to begin at; T where omitted.

        Raises:
            ValueError: start is not in the chain.
        """
        t = self.steps[0] if start is None else start
        while t > 0:
            p = self.previous(t)
            μ, σ, x0 = self.distribution(predict(x, t), t, x)
            x = μ if σ == 0 else μ + σ * randn_like(x, rng=rng)
            yield p, x, x0
            t = p

    def _ahead(self, t: int) -> tuple[float, float]:
        """A = ᾱ_t and P = ᾱ_p."""
        A = self.schedule.alpha_bar
        return float(A[t]), float(A[self.previous(t)])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.steps)} of {self.schedule.T} steps, target={self.target!r})"


class DDPMSampler(Sampler):
    """Ancestral sampling: x_p ~ N(c₁·x̂₀ + c₂·x_t, σ²I), the posterior q(x_p | x_t, x₀) with x̂₀ in the place of x₀.

    With α = A/P and β = 1 − α, A = ᾱ_t and P = ᾱ_p of the chain (in the full chain these are α_t and β_t):

        c₁ = √P·β/(1 − A),   c₂ = √α·(1 − P)/(1 − A),   σ² = β̃ = β·(1 − P)/(1 − A),  or σ² = β.

    Without clamping the mean is (x_t − β·ε̂/√(1 − A))/√α, as algorithm 2 has it.

    Args:
        schedule, steps, target, clip: as in :class:`Sampler`.
        variance: ``"small"`` for β̃, right where the data are one point, or ``"large"`` for β, right for N(0, I).

    Raises:
        ValueError: as :class:`Sampler`, or the variance is neither.

    Source: Ho et al. (2020), eq. 6, 7, 11 and section 3.2; for strided chains Nichol & Dhariwal (2021), eq. 19.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        steps: int | Sequence[int] | None = None,
        target: str = "epsilon",
        clip: tuple[float, float] | None = (-1.0, 1.0),
        variance: str = "small",
    ) -> None:
        super().__init__(schedule, steps, target, clip)
        if variance not in ("small", "large"):
            raise ValueError(f'variance: expected "small" or "large", got {variance!r}')
        self.variance = variance

    def mean_and_deviation(self, x0: Tensor, epsilon: Tensor, t: int, x_t: Tensor) -> tuple[Tensor, float]:
        """μ = c₁·x̂₀ + c₂·x_t, and σ = √β̃ or √β; σ = 0 at the last step."""
        A, P = self._ahead(t)
        if P == 1:  # c₁ = 1 and c₂ = 0
            return x0, 0.0
        α = A / P
        β = 1 - α
        c1, c2 = math.sqrt(P) * β / (1 - A), math.sqrt(α) * (1 - P) / (1 - A)
        σ2 = β * (1 - P) / (1 - A) if self.variance == "small" else β
        return c1 * x0 + c2 * x_t, math.sqrt(σ2)


class DDIMSampler(Sampler):
    """x_p = √P·x̂₀ + √(1 − P − σ²)·ε̂ + σz,   σ² = η²·(1 − P)/(1 − A)·(1 − A/P).

    Any σ² ≤ 1 − P leaves x_p with the variance 1 − P of the noise that belongs there, so η is free. η = 0: nothing is
    random but x_T, each x_T has its one image, few steps are enough. η = 1: the posterior of ancestral sampling.

    Args:
        schedule, steps, target, clip: as in :class:`Sampler`.
        eta: η in [0, 1].

    Raises:
        ValueError: as :class:`Sampler`, or η is out of range.

    Source: Song, Meng & Ermon (2021), eq. 12 and 16.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        steps: int | Sequence[int] | None = 50,
        target: str = "epsilon",
        clip: tuple[float, float] | None = (-1.0, 1.0),
        eta: float = 0.0,
    ) -> None:
        super().__init__(schedule, steps, target, clip)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta: expected 0 ≤ η ≤ 1, got {eta}")
        self.eta = float(eta)

    def mean_and_deviation(self, x0: Tensor, epsilon: Tensor, t: int, x_t: Tensor) -> tuple[Tensor, float]:
        """μ = √P·x̂₀ + √(1 − P − σ²)·ε̂, and σ; μ = x̂₀ and σ = 0 at the last step."""
        A, P = self._ahead(t)
        σ2 = self.eta**2 * (1 - P) / (1 - A) * (1 - A / P)
        return math.sqrt(P) * x0 + math.sqrt(max(1 - P - σ2, 0.0)) * epsilon, math.sqrt(σ2)


def _shown(steps: list[int]) -> str:
    return str(steps) if len(steps) <= 8 else f"[{', '.join(map(str, steps[:4]))}, …, {steps[-1]}]"

"""What a trained diffusion does to images that there are: noise them, go between them, fill holes in them.

Each begins from an image x_t with noise of step t, made from real images, and denoises it from that same t.

Source: Ho, Jain & Abbeel (2020), section 4.3 (interpolation); Lugmayr et al., *RePaint* (2022) (holes).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tinygen.creation import linspace
from tinygen.models.diffusion.ddpm import DDPM
from tinygen.models.diffusion.samplers import Sampler
from tinygen.models.diffusion.schedule import NoiseSchedule, spaced
from tinygen.models.diffusion.targets import add_noise
from tinygen.ops.elementwise import where
from tinygen.random import Generator, randn, randn_like
from tinygen.recording import no_grad
from tinygen.tensor import Tensor


def noising_chain(
    schedule: NoiseSchedule, x0: Tensor, steps: int | Sequence[int] | None = None, rng: Generator | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Walk from the image to noise: (0, x₀), then x_t = √(1 − β)·x_p + √β·ε step by step, β = 1 − ᾱ_t/ᾱ_p.

    Shapes: x₀ (N, …), inside units.

    Args:
        steps: how many, or which, as in :meth:`NoiseSchedule.respace`; all T where omitted.

    Raises:
        ValueError: the steps do not fit the schedule.

    Source: Ho et al. (2020), eq. 2.
    """
    x, p = x0, 0
    yield p, x
    for t in spaced(schedule.T, schedule.T if steps is None else steps):
        β = 1 - float(schedule.alpha_bar[t] / schedule.alpha_bar[p])
        x, p = math.sqrt(1 - β) * x + math.sqrt(β) * randn_like(x, rng=rng), t
        yield p, x


@no_grad()
def interpolate(
    model: DDPM,
    a: Tensor,
    b: Tensor,
    t: int,
    n: int = 9,
    y: Tensor | int | None = None,
    guidance: float = 0.0,
    sampler: Sampler | None = None,
    rng: Generator | None = None,
) -> Tensor:
    """n images between a and b: both noised to step t, mixed there, and denoised *from that same t*.

        x_t(λ) = √ᾱ_t·((1 − λ)·a + λ·b) + √(1 − ᾱ_t)·ε,     λ = 0, 1/(n−1), …, 1

    with one and the same ε for all, so that every mixture has exactly the noise of step t (two different noises would
    average out to less) and only λ differs along the row. Large t: freer, t = 0: the two images faded into each other.

    Args:
        a, b: two images, (C, H, W), in the model's value_range.
        t: a step of the sampler's chain, or 0.
        n: how many, ≥ 2.
        y, guidance, sampler, rng: as in :meth:`DDPM.sample`. The noise of all steps is the same for all n, too.

    Returns:
        (n, C, H, W).

    Raises:
        ValueError: n < 2, t is neither 0 nor a step of the sampler's chain, or the shapes do not fit.

    Source: Ho et al. (2020), section 4.3, figure 8.
    """
    if n < 2:
        raise ValueError(f"interpolate: expected n ≥ 2 images, got {n}")
    sampler = model.sampler() if sampler is None else sampler
    if t > 0:
        sampler.previous(t)
    ends = model.encode(a.unsqueeze(0)), model.encode(b.unsqueeze(0))
    λ = linspace(0, 1, n, dtype=a.dtype, device=a.device).reshape(-1, *[1] * a.ndim)
    ε = randn_like(ends[0], rng=rng)
    x = add_noise(model.schedule, (1 - λ) * ends[0] + λ * ends[1], t, ε)
    y = model.labels(n, y, x.device)
    while t > 0:
        p = sampler.previous(t)
        μ, σ, _ = sampler.distribution(model.predict(x, t, y, guidance), t, x)
        x = μ if σ == 0 else μ + σ * randn_like(ends[0], rng=rng)
        t = p
    return model.decode(x)


@no_grad()
def inpaint(
    model: DDPM,
    x: Tensor,
    known: Tensor,
    y: Tensor | int | None = None,
    guidance: float = 0.0,
    sampler: Sampler | None = None,
    resample: int = 5,
    rng: Generator | None = None,
) -> Tensor:
    """Images whose unknown pixels are drawn so that they go with the known ones.

    At every step the unknown pixels come from the sampler, the known ones from the image itself, noised to that step:

        x_p = known ⊙ (√ᾱ_p·x₀ + √(1 − ᾱ_p)·ε) + (1 − known) ⊙ step(x_t)

    The two parts were made without regard to each other, so the step is made ``resample`` times, each time after going
    one step back into the noise, x_t = √(1 − β)·x_p + √β·ε with β = 1 − ᾱ_t/ᾱ_p: the network sees them together and
    lets them agree. At p = 0 the known pixels are the image's own, exactly.

    Args:
        x: images (N, *shape) in the model's value_range; what stands in unknown pixels does not matter.
        known: booleans that broadcast to x: True where the pixel is kept.
        y, guidance, sampler, rng: as in :meth:`DDPM.sample`.
        resample: how often each step is made, ≥ 1; 1 is plain replacement.

    Returns:
        (N, *shape).

    Raises:
        ValueError: resample < 1, known is not boolean, or the shapes do not fit.

    Source: Lugmayr et al. (2022), algorithm 1 (with jumps of one step); Song et al. (2021) for plain replacement.
    """
    if resample < 1:
        raise ValueError(f"inpaint: expected resample ≥ 1, got {resample}")
    if known.dtype.kind != "b":
        raise ValueError(f"inpaint: expected known as booleans, True where a pixel is kept, got {known.dtype}")
    sampler = model.sampler() if sampler is None else sampler
    x0 = model.encode(x)
    y = model.labels(x.shape[0], y, x.device)
    x_t = randn(*x0.shape, rng=rng, dtype=x0.dtype, device=x0.device)
    for t in sampler.steps:
        p = sampler.previous(t)
        for turn in range(resample):
            drawn = sampler.step(model.predict(x_t, t, y, guidance), t, x_t, rng=rng)
            kept = x0 if p == 0 else add_noise(model.schedule, x0, p, randn_like(x0, rng=rng))
            x_p = where(known, kept, drawn)
            if turn + 1 < resample and p > 0:
                β = 1 - float(model.schedule.alpha_bar[t] / model.schedule.alpha_bar[p])
                x_t = math.sqrt(1 - β) * x_p + math.sqrt(β) * randn_like(x0, rng=rng)
            else:
                x_t = x_p
                break
    return where(known, x, model.decode(x_t))

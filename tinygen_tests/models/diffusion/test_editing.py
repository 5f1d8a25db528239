"""Noising chains, interpolation and inpainting: which noise is where, and that both ends of a step agree on t."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.diffusion import DDPM, DDIMSampler, DDPMSampler, NoiseSchedule, inpaint, interpolate, noising_chain
from tinygen_tests.draws import stream
from tinygen_tests.judge import host

S = NoiseSchedule.cosine(30)


class Spy(tg.nn.Module):
    """Says x̂₀ = 0, and keeps what it saw as (t, x_t)."""

    num_classes = 4

    def __init__(self, answer=0.0):
        super().__init__()
        self.unused = tg.nn.Parameter(tg.zeros(1))
        self.answer, self.seen, self.classes = answer, [], []

    def forward(self, x, t, y=None):
        self.seen.append((round(float(t[0].item()) * 30 / 1000), host(x)))
        self.classes.append(None if y is None else host(y).tolist())
        return 0 * x + self.answer


def spied(shape=(1, 40, 40), answer=0.0):
    return DDPM(Spy(answer), shape, S, target="x0")


# ------------------------------------------------------------------------------------- the noising chain


@pytest.mark.parametrize("steps", [None, 6, [1, 4, 30]])
def test_the_noising_chain_has_the_marginals_of_noising_at_once(steps):
    x0 = tg.full((1, 200, 200), 0.8, dtype=tg.float64)
    walked = list(noising_chain(S, x0, steps, rng=stream(0)))
    times = [t for t, _ in walked]
    assert times == [0, *range(1, 31)] if steps is None else times == [0, *(steps if isinstance(steps, list) else
                                                                             [5, 10, 15, 20, 25, 30])]  # fmt: skip
    assert (host(walked[0][1]) == 0.8).all()
    for t, x in walked[1:]:
        assert host(x).mean() == pytest.approx(0.8 * S.signal[t], abs=0.02)
        assert host(x).std() == pytest.approx(S.noise[t], rel=0.02)


def test_it_is_one_path_each_step_adding_to_the_last():
    x0 = tg.zeros(1, 100, 100)
    walked = dict(noising_chain(S, x0, rng=stream(0)))
    near = np.corrcoef(host(walked[10]).ravel(), host(walked[11]).ravel())[0, 1]
    assert near == pytest.approx(np.sqrt(S.alpha[11]) * S.noise[10] / S.noise[11], abs=0.02)


# ---------------------------------------------------------------------------------------- interpolation


@pytest.mark.parametrize("t", [1, 12, 30])
def test_what_is_noised_to_t_is_denoised_from_t(t):
    model = spied()
    interpolate(model, tg.full((1, 40, 40), 0.5), tg.full((1, 40, 40), 0.5), t, n=3, rng=stream(0))
    times = [at for at, _ in model.network.seen]
    assert times == list(range(t, 0, -1)), "denoised from another step than the noise was made for"
    assert model.network.seen[0][1].std() == pytest.approx(S.noise[t], rel=0.06)


def test_every_mixture_has_the_whole_noise_and_the_same():
    """Proves: editing.interpolate."""
    model = spied()
    a, b = tg.zeros(1, 40, 40), tg.ones(1, 40, 40)
    interpolate(model, a, b, 15, n=5, rng=stream(0))
    x = model.network.seen[0][1]
    ε = (x - np.array([-1, -0.5, 0, 0.5, 1]).reshape(-1, 1, 1, 1) * S.signal[15]) / S.noise[15]
    assert ε.std(axis=(1, 2, 3)) == pytest.approx(np.ones(5), rel=0.06), "mixed noises average out"
    np.testing.assert_allclose(ε, np.broadcast_to(ε[:1], ε.shape), atol=1e-5)


def test_between_the_same_image_nothing_changes_along_the_row():
    model = spied((1, 4, 4), answer=0.3)
    a = tg.rand(1, 4, 4, rng=stream(0))
    row = host(interpolate(model, a, a, 20, n=4, sampler=model.sampler(DDPMSampler, 6), rng=stream(1)))
    assert row.shape == (4, 1, 4, 4)
    np.testing.assert_allclose(row, np.broadcast_to(row[:1], row.shape), atol=1e-6)
    for t, x in model.network.seen:  # the same noise in every step, too
        np.testing.assert_allclose(x, np.broadcast_to(x[:1], x.shape), atol=1e-5, err_msg=f"t = {t}")


def test_at_t_0_two_images_fade_into_each_other():
    model = spied((1, 2, 2))
    a, b = tg.zeros(1, 2, 2), tg.full((1, 2, 2), 0.6)
    np.testing.assert_allclose(host(interpolate(model, a, b, 0, n=3))[:, 0, 0, 0], [0, 0.3, 0.6], atol=1e-6)
    assert model.network.seen == []


def test_interpolation_takes_its_steps_from_the_sampler_and_its_class_from_y():
    model = spied((1, 2, 2))
    a = tg.zeros(1, 2, 2)
    interpolate(model, a, a, 20, n=2, y=3, sampler=model.sampler(DDIMSampler, 3), rng=stream(0))
    assert [t for t, _ in model.network.seen] == [20, 10] and model.network.classes == [[3, 3]] * 2
    with pytest.raises(ValueError, match="step 19 is not in this sampler's chain"):
        interpolate(model, a, a, 19, sampler=model.sampler(DDIMSampler, 3))
    with pytest.raises(ValueError, match="n ≥ 2 images, got 1"):
        interpolate(model, a, a, 20, n=1)
    with pytest.raises(ValueError, match=r"\(N, 1, 2, 2\)"):
        interpolate(model, tg.zeros(1, 3, 3), a, 20)


# -------------------------------------------------------------------------------------------- inpainting


def half(shape):
    known = np.zeros(shape, bool)
    known[..., : shape[-1] // 2] = True
    return known


@pytest.mark.parametrize("resample", [1, 3])
def test_known_pixels_come_back_exactly_and_the_others_from_the_model(resample):
    model = spied((1, 6, 6), answer=0.5)  # x̂₀ = 0.5 inside is 0.75 outside
    x = tg.rand(3, 1, 6, 6, rng=stream(0)) * 1e-8  # which is lost on the way to [−1, 1] and back
    known = half((1, 6, 6))
    out = host(inpaint(model, x, tg.tensor(known), resample=resample, rng=stream(1)))
    kept = np.broadcast_to(known, out.shape)
    assert (out[kept] == host(x)[kept]).all()
    np.testing.assert_allclose(out[~kept], 0.75, atol=1e-6)


def test_what_stands_in_a_hole_does_not_matter_not_even_nan():
    model = spied((1, 4, 4))
    known = tg.tensor(half((1, 4, 4)))
    x = host(tg.rand(2, 1, 4, 4, rng=stream(0))).copy()
    a = host(inpaint(model, tg.tensor(x), known, rng=stream(1)))
    x[..., 2:] = np.nan
    b = host(inpaint(model, tg.tensor(x), known, rng=stream(1)))
    assert (a == b).all() and np.isfinite(b).all()


def test_the_network_sees_known_pixels_with_the_noise_of_its_own_step():
    model = spied()
    x = tg.full((4, 1, 40, 40), 1.0)  # 1 inside, where the network says 0
    known = half((1, 40, 40))
    inpaint(model, x, tg.tensor(known), sampler=model.sampler(DDPMSampler, 10), resample=2, rng=stream(0))
    times = [t for t, _ in model.network.seen]
    assert times == [t for t in range(30, 3, -3) for _ in range(2)] + [3], "each step twice, the last once"
    kept = np.broadcast_to(known, x.shape)
    for k, (t, x_t) in enumerate(model.network.seen[1:], start=1):
        assert x_t[kept].mean() == pytest.approx(S.signal[t], abs=0.05), (k, t)
        assert x_t[kept].std() == pytest.approx(S.noise[t], rel=0.06), (k, t)


def test_each_step_joins_the_images_noised_pixels_with_the_samplers_others():
    """DDIM draws no noise of its own, so that both parts of x_p follow from x_t and one ε.

    Proves: inpaint.
    """
    model = spied((1, 6, 6), answer=0.25).to(tg.float64)
    x, known = tg.rand(3, 1, 6, 6, rng=stream(0), dtype=tg.float64), half((1, 6, 6))
    inpaint(model, x, tg.tensor(known), sampler=model.sampler(DDIMSampler, 5), resample=1, rng=stream(1))
    rng, image = stream(1), 2 * host(x) - 1
    expected = host(tg.randn(3, 1, 6, 6, rng=rng, dtype=tg.float64))
    steps = [t for t, _ in model.network.seen]
    assert steps == [30, 24, 18, 12, 6]
    for (t, x_t), p in zip(model.network.seen, [*steps[1:], 0], strict=True):
        np.testing.assert_allclose(x_t, expected, rtol=1e-9, atol=1e-12)
        A, P = S.alpha_bar[t], S.alpha_bar[p]
        drawn = np.sqrt(P) * 0.25 + np.sqrt(1 - P) * (x_t - np.sqrt(A) * 0.25) / np.sqrt(1 - A)
        ε = host(tg.randn(3, 1, 6, 6, rng=rng, dtype=tg.float64))
        expected = np.where(known, np.sqrt(P) * image + np.sqrt(1 - P) * ε, drawn)


def test_going_back_one_step_keeps_the_marginal_of_that_step():
    """With a network that always says 0, unknown pixels at t must have the variance 1 − ᾱ_t in every turn."""
    model = spied()
    inpaint(model, tg.full((4, 1, 40, 40), 0.5), tg.tensor(half((1, 40, 40))), resample=4, rng=stream(0))
    hole = ~np.broadcast_to(half((1, 40, 40)), (4, 1, 40, 40))
    for t, x_t in model.network.seen:
        assert x_t[hole].std() == pytest.approx(S.noise[t], rel=0.06), t


def test_inpainting_knows_classes_repeats_with_its_seed_and_says_what_is_wrong():
    model = spied((1, 4, 4), answer=0.2)
    x, known = tg.rand(2, 1, 4, 4, rng=stream(0)), tg.tensor(half((1, 4, 4)))
    draw = lambda: host(inpaint(model, x, known, y=2, resample=1, rng=stream(3)))
    assert (draw() == draw()).all() and model.network.classes[0] == [2, 2]
    with pytest.raises(ValueError, match="resample ≥ 1, got 0"):
        inpaint(model, x, known, resample=0)
    with pytest.raises(ValueError, match="known as booleans, True where a pixel is kept, got float32"):
        inpaint(model, x, known.to(tg.float32))
    with pytest.raises(ValueError, match=r"\(N, 1, 4, 4\), got \(2, 1, 3, 3\)"):
        inpaint(model, tg.zeros(2, 1, 3, 3), known)

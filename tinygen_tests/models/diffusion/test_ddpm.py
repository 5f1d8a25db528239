"""DDPM: what a training step draws, whose weights sample, guidance, seeds, states, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.models.diffusion import (
    DDPM,
    LOSSES,
    TARGETS,
    DDIMSampler,
    DDPMSampler,
    MLPDenoiser,
    NoiseSchedule,
    UNet,
    add_noise,
    guided,
    loss_weights,
    target_of,
)
from tinygen_tests.draws import stream
from tinygen_tests.judge import host

S = NoiseSchedule.cosine(20)


class Told(tg.nn.Module):
    """A network that writes down what it is told, and answers w·x plus its class."""

    def __init__(self, num_classes=None, w=0.0):
        super().__init__()
        self.num_classes = num_classes
        self.w = tg.nn.Parameter(tg.tensor(float(w)))
        self.asked = []

    def forward(self, x, t, y=None):
        self.asked.append((host(x), host(t), None if y is None else host(y)))
        k = 0.0 if self.num_classes is None else self.num_classes
        y = k if y is None else y.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return self.w * x + y


def told(model):
    """What the model's networks were told: the learned one's list is shared by the averaged one."""
    return [*model.network.asked, *model.average.asked]


def small(**options):
    return DDPM(UNet(1, widths=(4, 8), num_classes=3, rng=stream(0)), (1, 8, 8), S, **options)


# -------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_its_formula(target, loss):
    model = DDPM(Told(w=0.25), (2, 3), S, target=target, loss=loss, gamma=2.0).to(tg.float64)
    x, ε = tg.rand(4, 2, 3, rng=stream(1), dtype=tg.float64), tg.randn(4, 2, 3, rng=stream(2), dtype=tg.float64)
    t = tg.tensor([1, 5, 19, 20])
    terms = model.loss(x, t, ε)
    x0 = 2 * x - 1
    wanted = host(target_of(S, target, x0, t, ε))
    output = 0.25 * host(add_noise(S, x0, t, ε))
    each = ((output - wanted) ** 2).mean((1, 2))
    w = loss_weights(S, loss, target, 2.0)[host(t)]
    assert terms["loss"].item() == pytest.approx((w * each).mean(), rel=1e-9)
    assert terms["mse"].item() == pytest.approx(each.mean(), rel=1e-9) and not terms["mse"].requires_grad
    assert np.allclose(model.network.asked[0][1], host(t) * 50), "the network is told t on a scale of 0 to 1000"


def test_every_step_from_1_to_T_is_trained_equally_often_and_none_else():
    """Proves: DDPM.training_step."""
    model = DDPM(Told(), (1,), S)
    for k in range(100):
        model.training_step(tg.rand(16, 1, rng=stream(k)), rng=stream(1000 + k))
    t = np.concatenate([np.rint(told / 50) for _, told, _ in model.network.asked])
    seen, count = np.unique(t, return_counts=True)
    assert seen.tolist() == list(range(1, 21)), "t = T never trained, or t = 0"
    assert count.min() > 60 and count.max() < 100  # 80 each
    batch = np.sort(np.rint(model.network.asked[0][1] / 50))
    assert np.diff(batch).max() <= 2, "the times of a batch are spread evenly"


def test_the_noise_is_standard_normal_and_new_for_every_example():
    model = DDPM(Told(), (50, 50), S, target="epsilon")
    model.training_step(tg.full((8, 50, 50), 0.5), rng=stream(0))  # grey: x0 = 0
    x, t, _ = model.network.asked[0]
    ε = x / S.noise[np.rint(t / 50).astype(int)].reshape(-1, 1, 1)
    assert ε.mean() == pytest.approx(0, abs=0.03) and ε.std() == pytest.approx(1, abs=0.03)
    assert np.abs(np.corrcoef(ε.reshape(8, -1)) - np.eye(8)).max() < 0.1


@pytest.mark.parametrize("drop", [0.0, 0.25, 1.0])
def test_the_class_is_hidden_as_often_as_asked(drop):
    model = DDPM(Told(num_classes=3), (1,), S, drop_class=drop)
    y = tg.tensor(np.arange(4000) % 3)
    model.training_step(tg.zeros(4000, 1), y, rng=stream(0))
    seen = model.network.asked[0][2]
    assert (seen == 3).mean() == pytest.approx(drop, abs=0.03)
    assert (seen[seen != 3] == host(y)[seen != 3]).all()


def test_the_gradient_reaches_every_weight_and_a_step_repeats_with_its_seed():
    x, y = tg.rand(6, 1, 8, 8, rng=stream(1)), tg.tensor([0, 1, 2, 0, 1, 2])
    a, b = small(), small()
    losses = []
    for model, seed in ((a, 3), (b, 3), (a, 4)):
        model.zero_grad()
        terms = model.training_step(x, y, rng=stream(seed))
        terms["loss"].backward()
        losses.append(terms["loss"].item())
        assert set(terms) == {"loss", "mse"} and terms["loss"].dtype == tg.float32
    assert losses[0] == losses[1] != losses[2]
    assert all(p.grad is not None for p in a.parameters())


def test_data_are_diffused_in_minus_one_to_one_and_come_back():
    x = tg.rand(4, 1, 2, 2, rng=stream(0))
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        model = DDPM(Told(), (1, 2, 2), S, value_range=(low, high))
        inside = host(model.encode(x * (high - low) + low))
        np.testing.assert_allclose(inside, 2 * host(x) - 1, atol=1e-6)
        np.testing.assert_allclose(host(model.decode(model.encode(x))), np.clip(host(x), low, high), atol=1e-5)
        assert float(model.decode(tg.full((1, 1, 2, 2), 3.0)).max().item()) == high
    free = DDPM(Told(), (1, 2, 2), S, value_range=None)
    assert host(free.decode(free.encode(5 * x))).tolist() == host(5 * x).tolist()


# ------------------------------------------------------------------------------------ the average


def test_the_average_is_the_optimisers_own_with_its_warm_up():
    model = small(decay=0.9)
    ema = tg.optim.EMA(model.network, decay=0.9, warmup=True)
    for k in range(30):
        for i, p in enumerate(model.network.parameters()):
            tg.nn.init.normal_(p, rng=stream(100 * k + i))
        model.update_average()
        ema.update()
    for name, s in ema.state_dict()["shadow"].items():
        np.testing.assert_allclose(host(dict(model.average.named_buffers())[name]), host(s), rtol=1e-5, atol=1e-6)
    assert model.updates.item() == 30


def test_the_average_of_a_constant_is_one_minus_the_product_of_the_decays():
    """Proves: DDPM.update_average."""
    model = DDPM(Told(w=0.0), (1,), S, decay=0.5)
    tg.nn.init.ones_(model.network.w)
    product = 1.0
    for n in range(12):
        model.update_average()
        product *= min(0.5, (1 + n) / (10 + n))
        assert model.average.w.item() == pytest.approx(1 - product, rel=1e-5)


def test_early_in_training_the_average_is_not_the_noise_it_began_with():
    """Without the warm-up a decay of 0.9999 would still hold 99 % of the first weights after 100 steps."""
    model = DDPM(Told(w=0.0), (1,), S, decay=0.9999)
    tg.nn.init.ones_(model.network.w)
    for _ in range(100):
        model.update_average()
    assert model.average.w.item() > 0.99


def test_the_average_samples_once_there_is_one_and_training_leaves_it_alone():
    model = DDPM(Told(w=0.2), (2,), S, target="x0", value_range=None)
    draw = lambda: host(model.sample(3, sampler=model.sampler(DDIMSampler, 1), rng=stream(0)))
    x_T = host(tg.randn(3, 2, rng=stream(0)))
    tg.nn.init.constant_(model.network.w, 0.5)
    np.testing.assert_allclose(draw(), 0.5 * x_T, rtol=1e-5, err_msg="no average yet: the learned weights draw")
    model.update_average()  # d₀ = 1/10
    np.testing.assert_allclose(draw(), (0.1 * 0.2 + 0.9 * 0.5) * x_T, rtol=1e-5)
    tg.nn.init.constant_(model.network.w, 7.0)
    np.testing.assert_allclose(draw(), (0.1 * 0.2 + 0.9 * 0.5) * x_T, rtol=1e-5)
    assert [name for name, _ in model.named_parameters()] == ["network.w"], "the average is nobody's to learn"


def test_the_state_has_network_average_and_count_and_brings_the_same_samples_back():
    model = small()
    for k, p in enumerate(model.network.parameters()):
        tg.nn.init.normal_(p, std=0.2, rng=stream(k))
    for _ in range(5):
        model.update_average()
    fresh = small()
    fresh.load_state_dict({name: host(value) for name, value in model.state_dict().items()})
    a, b = (host(m.sample(3, y=1, rng=stream(5))) for m in (model, fresh))
    assert (a == b).all() and fresh.updates.item() == 5
    fresh.update_average()
    model.update_average()
    for (n, a), (m, b) in zip(model.state_dict().items(), fresh.state_dict().items(), strict=True):
        assert n == m and (host(a) == host(b)).all()


def test_float64_all_through():
    model = small().to(tg.float64)
    model.training_step(tg.rand(2, 1, 8, 8, dtype=tg.float64, rng=stream(0)), rng=stream(0))["loss"].backward()
    model.update_average()
    assert {p.grad.dtype for p in model.parameters()} == {np.dtype("float64")}
    assert model.sample(2, rng=stream(0)).dtype == tg.float64 == next(model.average.buffers()).dtype
    assert model.updates.dtype == tg.int64


# ------------------------------------------------------------------------------------------- guidance


def test_guidance_is_its_formula_and_none_at_zero():
    c, u = tg.randn(3, 2, rng=stream(0)), tg.randn(3, 2, rng=stream(1))
    assert (host(guided(c, u, 0.0)) == host(c)).all()
    np.testing.assert_allclose(host(guided(c, u, 2.5)), 3.5 * host(c) - 2.5 * host(u), rtol=1e-5)


def test_predict_guides_away_from_the_null_class():
    model = DDPM(Told(num_classes=3, w=1.0), (2,), S)  # answers x + class
    x, y = tg.randn(4, 2, rng=stream(0)), tg.tensor([0, 1, 2, 1])
    for t in (7, tg.tensor([1, 2, 3, 4])):
        plain, none = host(model.predict(x, t, y)), host(model.predict(x, t))
        np.testing.assert_allclose(plain, host(x) + host(y)[:, None], rtol=1e-6)
        np.testing.assert_allclose(none, host(x) + 3, rtol=1e-6)
        strong = host(model.predict(x, t, y, guidance=1.5))
        np.testing.assert_allclose(strong, 2.5 * plain - 1.5 * none, rtol=1e-4, atol=1e-5)
    _, times, classes = told(model)[-1]
    assert times.tolist() == [50, 100, 150, 200] * 2 and classes.tolist() == [0, 1, 2, 1, 3, 3, 3, 3]


@pytest.mark.parametrize("target", TARGETS)
def test_guiding_any_target_guides_the_noise(target):
    """(1 + w)·o_c − w·o_u of x0 or v means the same noise as of ε, since each is linear in it."""
    from tinygen.models.diffusion import to_epsilon, to_x0

    x_t, c, u = (tg.randn(3, 2, rng=stream(k), dtype=tg.float64) for k in range(3))
    noise = lambda o: to_epsilon(S, to_x0(S, target, o, 9, x_t), 9, x_t)
    np.testing.assert_allclose(
        host(noise(guided(c, u, 1.7))), host(guided(noise(c), noise(u), 1.7)), rtol=1e-8, atol=1e-10
    )


# --------------------------------------------------------------------------------------------- drawing


def test_samples_have_the_shape_range_and_seed_that_were_asked_for():
    model = small(target="v")
    for k, p in enumerate(model.network.parameters()):
        tg.nn.init.normal_(p, std=0.3, rng=stream(k))
    for sampler in (None, model.sampler(DDIMSampler, 4), model.sampler(DDPMSampler, 5, variance="large")):
        a, b, c = (model.sample(5, y=2, guidance=0.5, sampler=sampler, rng=stream(k)) for k in (1, 1, 2))
        assert a.shape == (5, 1, 8, 8) and a.dtype == tg.float32 and not a.requires_grad
        assert float(a.min().item()) >= 0 and float(a.max().item()) <= 1
        assert (host(a) == host(b)).all() and (host(a) != host(c)).any()


def test_the_chain_walks_all_steps_and_sample_is_its_end():
    model = small()
    x_T = tg.randn(3, 1, 8, 8, rng=stream(0))
    walked = list(model.chain(3, sampler=model.sampler(steps=4), rng=stream(1), x_T=x_T))
    assert [t for t, _, _ in walked] == [15, 10, 5, 0]
    seen = []
    end = model.sample(3, sampler=model.sampler(steps=4), rng=stream(1), x_T=x_T, on_step=lambda t, x: seen.append(t))
    assert seen == [15, 10, 5, 0]
    np.testing.assert_array_equal(host(end), host(model.decode(walked[-1][1])))
    assert (host(walked[-1][1]) == host(walked[-1][2])).all(), "the last step gives x̂₀ itself, without noise"


def test_each_step_of_the_chain_is_its_formula():
    """x̂₀ = ¼x_t, and DDIM's x_p = √P·x̂₀ + √(1 − P)·ε̂ with the ε̂ that makes x_t of it.

    Proves: DDPM.chain.
    """
    model = DDPM(Told(w=0.25), (2, 3), S, target="x0", value_range=None).to(tg.float64)
    x = host(tg.randn(4, 2, 3, rng=stream(0), dtype=tg.float64))
    t = S.T
    for p, x_p, x0 in model.chain(4, sampler=model.sampler(DDIMSampler, 4), rng=stream(1), x_T=tg.tensor(x)):
        A, P = S.alpha_bar[t], S.alpha_bar[p]
        ε = (x - np.sqrt(A) * 0.25 * x) / np.sqrt(1 - A)
        np.testing.assert_allclose(host(x0), 0.25 * x, rtol=1e-10)
        np.testing.assert_allclose(host(x_p), np.sqrt(P) * 0.25 * x + np.sqrt(1 - P) * ε, rtol=1e-9, atol=1e-12)
        t, x = p, host(x_p)
    assert t == 0


def test_the_network_is_told_each_step_once_down_to_the_first():
    model = DDPM(Told(), (1,), S)
    model.sample(2, rng=stream(0))
    assert [t[0] for _, t, _ in told(model)] == [50.0 * t for t in range(20, 0, -1)]


def test_an_integer_class_is_everybodys():
    model = DDPM(Told(num_classes=3), (1,), S)
    model.sample(2, y=1, sampler=model.sampler(steps=1))
    assert told(model)[-1][2].tolist() == [1, 1]


def test_dropout_rests_while_drawing_and_wakes_after():
    net = UNet(1, widths=(4,), attention=(False,), dropout=0.5, rng=stream(0))
    for k, p in enumerate(net.parameters()):
        tg.nn.init.normal_(p, std=0.3, rng=stream(k))
    model = DDPM(net, (1, 4, 4), S)
    x = tg.randn(2, 1, 4, 4, rng=stream(0))
    assert (host(model.predict(x, 5)) == host(model.predict(x, 5))).all()
    assert model.training and net.training
    t = tg.tensor([250.0, 250.0])
    assert (host(net(x, t)) != host(net(x, t))).any()


# ------------------------------------------------------------------------------------- scores, learning


class TwoPoints(tg.nn.Module):
    """E[x₀ | x_t] where x₀ = ±1, equally likely: tanh(√ᾱ·x/(1 − ᾱ))."""

    def __init__(self):
        super().__init__()
        self.unused = tg.nn.Parameter(tg.zeros(1))

    def forward(self, x, t, y=None):
        k = (t * (S.T / 1000)).round().to("int64")
        return tg.tanh(S.at("signal", k, x) / S.at("noise", k, x) ** 2 * x)


@pytest.mark.parametrize("t", [3, 10, 18])
def test_the_score_is_the_slope_of_the_log_density(t):
    """And Tweedie's formula leads from it back to E[x₀ | x_t]."""
    model = DDPM(TwoPoints(), (1,), S, target="x0", value_range=None).to(tg.float64)
    x = tg.linspace(-2, 2, 9, dtype=tg.float64).reshape(-1, 1)
    a, A = S.signal[t], S.alpha_bar[t]
    log_q = lambda x: np.logaddexp(-((x - a) ** 2) / (2 * (1 - A)), -((x + a) ** 2) / (2 * (1 - A)))
    h = 1e-5
    slope = (log_q(host(x) + h) - log_q(host(x) - h)) / (2 * h)
    score = host(model.score(x, t))
    np.testing.assert_allclose(score, slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose((host(x) + (1 - A) * score) / a, np.tanh(a * host(x) / (1 - A)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(host(model.x0_hat(x, t)), np.tanh(a * host(x) / (1 - A)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("target", TARGETS)
def test_it_learns_where_points_are(target):
    """Three points, given a little width: what is drawn lies there, and at each of them."""
    rng = stream(0)
    places = tg.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, -1.0]])
    model = DDPM(MLPDenoiser(2, 32, 2, rng=rng), (2,), NoiseSchedule.cosine(40), target=target, value_range=None,
                 decay=0.98)  # fmt: skip
    adam = tg.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        x = places[tg.randint(0, 3, (128,), rng=rng)] + 0.05 * tg.randn(128, 2, rng=rng)
        terms = model.training_step(x, rng=rng)
        adam.zero_grad()
        terms["loss"].backward()
        adam.step()
        model.update_average()
    away = np.linalg.norm(host(model.sample(400, rng=rng))[:, None] - host(places), axis=2)
    assert (away.min(1) < 0.4).mean() > 0.8
    assert (np.bincount(away.argmin(1), minlength=3) > 60).all()


# --------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("make, message", [
    (lambda: DDPM(Told(), (1,), S, target="noise"), "expected one of epsilon, x0, v, got 'noise'"),
    (lambda: DDPM(Told(), (1,), S, loss="l1"), "expected one of simple, vlb, min_snr, got 'l1'"),
    (lambda: DDPM(Told(), (1,), S, gamma=-1.0, loss="min_snr"), "γ > 0"),
    (lambda: DDPM(Told(), (1,), S.zero_terminal_snr()), "cannot give x₀"),
    (lambda: DDPM(Told(), (1,), S, drop_class=1.5), "0 ≤ drop_class ≤ 1"),
    (lambda: DDPM(Told(), (1,), S, decay=1.0), "decay < 1"),
    (lambda: DDPM(Told(), (1,), S, value_range=(1.0, 0.0)), "low < high"),
    (lambda: DDPM(Told(), (1, 2), S).training_step(tg.zeros(4, 2, 1)), r"shape \(N, 1, 2\), got \(4, 2, 1\)"),
    (lambda: DDPM(Told(), (1,), S).training_step(tg.zeros(2, 1), tg.tensor([0, 1])), "made without classes"),
    (lambda: DDPM(Told(), (1,), S).sample(0), "n ≥ 1, got 0"),
    (lambda: DDPM(Told(), (1,), S).sample(2, y=1), "made without classes"),
    (lambda: DDPM(Told(3), (1,), S).sample(2, y=4), r"2 classes in 0 … 2 \(3 for none\)"),
    (lambda: DDPM(Told(3), (1,), S).sample(2, y=-1), "classes in 0 … 2"),
    (lambda: DDPM(Told(3), (1,), S).sample(2, y=tg.tensor([1])), "expected 2 classes"),
    (lambda: DDPM(Told(3), (1,), S).sample(2, guidance=1.0), "needs a class y"),
    (lambda: DDPM(Told(3), (1,), S).sample(2, y=1, guidance=-1.0), "w ≥ 0"),
    (lambda: DDPM(Told(), (1,), S).sample(2, sampler=DDPMSampler(S, target="v")), "does not fit the model's"),
    (lambda: DDPM(Told(), (1,), S).sample(2, sampler=DDPMSampler(NoiseSchedule.cosine(9))), "does not fit"),
    (lambda: DDPM(Told(), (1,), S).sample(2, x_T=tg.zeros(3, 1)), r"x_T of shape \(2, 1\), got \(3, 1\)"),
])
def test_errors_name_what_came(make, message):
    with pytest.raises(ValueError, match=message):
        make()

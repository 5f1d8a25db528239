"""Captured steps: what a replay computes is what the step computes, and what cannot be captured says so.

The stand-in writes down the calls of a capture and calls them again, Python numbers as they were and arrays as they are
(tinygen/testing/strict/tape.py): what a CUDA graph does.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn, optim
from tinygen.kernels.gpu.launch import set_enabled
from tinygen.models import gan as gans
from tinygen.testing.strict.kernels import COMPILER
from tinygen_tests.judge import host

pytestmark = [
    pytest.mark.cpu_only("brings the stand-in itself"),
    pytest.mark.skipif(COMPILER is None, reason="the stand-in runs CUDA kernels by a C++ compiler, and finds none"),
]

SHAPE = (1, 8, 8)


def images(step, n=4):
    return tg.tensor(np.random.default_rng(step).random((n, *SHAPE), dtype=np.float32), device="cuda")


def autoencoder(rng, draws):
    model = tg.models.StackedAutoencoder(SHAPE, (16, 4), noise=("gaussian", 0.1), rng=rng).to("cuda")
    return model, trained(model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9), draws)


def vae(rng, draws):
    model = tg.models.ConvVAE(SHAPE, (4, 8), latent=3, hidden=8, rng=rng).to("cuda")
    return model, trained(model, optim.Adam(model.parameters(), lr=1e-2, amsgrad=True), draws)


def vqvae(rng, draws):
    model = tg.models.VectorQuantizer(6, 4, decay=0.9, rng=rng).to("cuda")

    def step(x):
        z = x.reshape(-1, 4)
        found = model(z)
        model.update(z, found.codes, rng=draws)
        return {"kept": found.commitment.mean()}

    return model, step


def gan(rng, draws):
    generator = gans.ConvGenerator(SHAPE, 5, (4, 8), rng=rng)
    discriminator = gans.ConvDiscriminator(SHAPE, (4, 8), spectral=True, rng=rng)
    model = tg.models.GAN(generator, discriminator, r1=0.1).to("cuda")
    options = {"lr": 1e-2, "betas": (0.5, 0.999)}
    adams = [optim.Adam(net.parameters(), **options) for net in (model.discriminator, model.generator)]
    ema = optim.EMA(model.generator)

    def step(x):
        terms = model.training_step(x, optimizer_d=adams[0], optimizer_g=adams[1], rng=draws)
        ema.update()
        return terms

    return nn.ModuleList([model, _Averages(ema)]), step


def wgan(rng, draws):
    generator = gans.DenseGenerator(SHAPE, 5, (8,), rng=rng)
    model = tg.models.GAN(generator, gans.DenseDiscriminator(SHAPE, (8,), rng=rng), "wasserstein", 2, clip=0.05)
    model = model.to("cuda")
    both = [optim.RMSprop(net.parameters(), lr=1e-3, centered=True, momentum=0.1)
            for net in (model.discriminator, model.generator)]  # fmt: skip
    return model, lambda x: model.training_step(x, optimizer_d=both[0], optimizer_g=both[1], rng=draws)


def ddpm(rng, draws):
    network = tg.models.UNet(1, (8, 8), groups=4, heads=2, num_classes=3, rng=rng)
    model = tg.models.DDPM(network, SHAPE, loss="min_snr").to("cuda")
    adam = optim.AdamW(model.network.parameters(), lr=1e-2)
    y = tg.tensor([0, 1, 2, 1], device="cuda")

    def step(x):
        terms = model.training_step(x, y, rng=draws)
        adam.zero_grad()
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        adam.step()
        model.update_average()
        return terms

    return model, step


def trained(model, optimizer, draws):
    def step(x):
        terms = model.training_step(x, rng=draws)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        return terms

    return step


class _Averages(nn.Module):
    """An EMA's averages under the name of a module's state."""

    def __init__(self, ema):
        super().__init__()
        self.ema = ema

    def state_dict(self, *args, **kwargs):
        return self.ema.state_dict()["shadow"]


FAMILIES = {f.__name__: f for f in (autoencoder, vae, vqvae, gan, wgan, ddpm)}


def train(make, captured, steps=6):
    model, step = make(tg.Generator(0), tg.Generator(1, device="cuda"))
    step = tg.capture(step, warmup=2) if captured else step
    logged = [step(images(i)) for i in range(steps)]  # looked at in the end: no replay may overwrite them
    if captured:
        assert step.captured and step.replays == steps - 2 and step.memory == 0
    numbers = [{name: host(value).copy() for name, value in terms.items()} for terms in logged]
    return numbers, {name: host(t).copy() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_captured_step_trains_as_the_plain_one_and_nobody_waits(name):
    with tg.testing.strict_cupy():
        tg.manual_seed(0)
        with tg.testing.count_syncs() as syncs:
            make = FAMILIES[name]
            model, step = make(tg.Generator(0), tg.Generator(1, device="cuda"))
            x = images(0)
            before = syncs.count
            step(x)
            assert syncs.count == before, syncs
        tg.manual_seed(0)
        logged, state = train(make, False)
        tg.manual_seed(0)
        replayed, restored = train(make, True)
        for i, (a, b) in enumerate(zip(logged, replayed, strict=True)):
            for key in a:
                np.testing.assert_array_equal(a[key], b[key], err_msg=f"step {i}, {key}")
        for key in state:
            np.testing.assert_array_equal(restored[key], state[key], err_msg=key)
        assert any(np.ptp(s) > 0 for s in state.values() if s.size > 1)


def net_and_adam():
    net = nn.Linear(3, 2, device="cuda", rng=tg.Generator(0, device="cuda"))
    return net, optim.Adam(net.parameters(), lr=0.1)


def run(step, calls=3, x=None):
    with tg.testing.strict_cupy():
        net, adam = net_and_adam()
        captured = tg.capture(lambda x: step(net, adam, x), warmup=1)
        for _ in range(calls):
            captured(tg.ones(2, 3, device="cuda") if x is None else x())
        return captured


def plain(net, adam, x):
    loss = (net(x) ** 2).sum()
    adam.zero_grad()
    loss.backward()
    adam.step()
    return loss


def looks(net, adam, x):
    loss = plain(net, adam, x)
    return loss if loss.item() > 0 else -loss


def copies(net, adam, x):
    return plain(net, adam, x * tg.tensor([1.0, 2.0, 3.0], device="cuda"))


def masks(net, adam, x):
    return plain(net, adam, x[x > 0].reshape(2, 3))


def adds_up(net, adam, x):
    loss = (net(x) ** 2).sum()
    loss.backward()
    return loss


def number(net, adam, x):
    plain(net, adam, x)
    return 1.5


def schedule(net, adam, x):
    optim.lr_scheduler.StepLR(adam, 1).step()
    return plain(net, adam, x)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (looks, r"asks for numbers on the host .* At .*test_graphs\.py:\d+, in looks"),
        (masks, r"asks for numbers on the host .* in masks"),
        (copies, r"copies numbers from the host .* in copies"),
        (adds_up, r"adds to a gradient from before the step.*zero_grad\(\)"),
        (number, r"returns 1\.5, a float"),
        (schedule, r"StepLR\.step\(\) inside the captured step"),
    ],
)
def test_what_cannot_be_captured_says_why_and_where(step, says):
    with pytest.raises(tg.cuda.CaptureError, match=says):
        run(step)


def test_after_a_refusal_the_stream_and_the_model_are_as_before():
    with tg.testing.strict_cupy() as cp:
        net, adam = net_and_adam()
        step = tg.capture(lambda x: looks(net, adam, x), warmup=1)
        step(tg.ones(2, 3, device="cuda"))
        before = {name: host(t).copy() for name, t in net.state_dict().items()}
        with pytest.raises(tg.cuda.CaptureError):
            step(tg.ones(2, 3, device="cuda"))
        assert not cp.cuda.runtime.streamIsCapturing(0) and cp.cuda.get_current_stream().ptr == 0
        for name, t in net.state_dict().items():
            np.testing.assert_array_equal(host(t), before[name])
        assert adam.state_dict()["state"][0]["step"] == 1
        plain(net, adam, tg.ones(2, 3, device="cuda"))


def test_an_ordinary_error_stays_what_it_is():
    def wrong(net, adam, x):
        if tg.backend.capture.get() is not None:
            raise KeyError("mine")
        return plain(net, adam, x)

    with pytest.raises(KeyError, match="mine"):
        run(wrong)


def test_other_shapes_dtypes_arguments_and_devices_are_refused_by_name():
    with tg.testing.strict_cupy():
        net, adam = net_and_adam()
        step = tg.capture(lambda x, scale=1.0: plain(net, adam, x * scale), warmup=1)
        for _ in range(2):
            step(tg.ones(2, 3, device="cuda"))
        for x, says in [
            (tg.ones(1, 3, device="cuda"), r"float32 \(2, 3\) on cuda:0, and is now float32 \(1, 3\).*drop_last=True"),
            (tg.ones(2, 3, device="cuda", dtype="float64"), "is now float64"),
            (tg.ones(2, 3), "is now float32 .* on cpu"),
        ]:
            with pytest.raises(tg.cuda.CaptureError, match=says):
                step(x)
        with pytest.raises(tg.cuda.CaptureError, match=r"<tensor>\), and is now called with \(<tensor>, scale=2.0\)"):
            step(tg.ones(2, 3, device="cuda"), scale=2.0)
        with pytest.raises(tg.cuda.CaptureError, match="requires grad"):
            step(tg.ones(2, 3, device="cuda", requires_grad=True))
        replays = step.replays
        step.reset()
        for _ in range(3):
            step(tg.ones(1, 3, device="cuda"))  # recorded anew
        assert step.replays == replays + 2 and "replays" in repr(step)


def test_a_rate_that_a_schedule_changes_reaches_the_replays():
    with tg.testing.strict_cupy():
        found = []
        for captured in (False, True):
            net, adam = net_and_adam()
            decay = optim.lr_scheduler.StepLR(adam, 1, 0.5)
            step = partial(plain, net, adam)
            step = tg.capture(step, warmup=1) if captured else step
            for _ in range(5):
                step(tg.ones(2, 3, device="cuda"))
                decay.step()
            found.append(host(net.weight))
        np.testing.assert_array_equal(*found)


def test_a_shared_buffer_is_not_moved_in_silence():
    with tg.testing.strict_cupy():
        norm = nn.BatchNorm1d(3, device="cuda")
        held = norm.running_mean.data
        step = tg.capture(lambda x: {"y": norm(x)}, warmup=1)
        with pytest.raises(tg.cuda.CaptureError, match="shares its memory"):
            for _ in range(3):
                step(tg.randn(4, 3, device="cuda"))
                held = norm.running_mean.data
        assert held is norm.running_mean.data


def test_on_the_cpu_the_step_is_called_as_it_is():
    calls = []

    @tg.capture
    def step(x, what=None):
        """Its docstring."""
        calls.append(what)
        return x.sum().item()

    assert [step(tg.ones(2), what=i) for i in range(5)] == [2.0] * 5
    assert calls == [0, 1, 2, 3, 4] and step.replays == 0 and not step.captured
    assert step.__doc__ == "Its docstring." and step.__name__ == "step"


def test_wrong_arguments():
    with pytest.raises(TypeError, match="expected a function"):
        tg.capture(3)
    with pytest.raises(ValueError, match="warmup must be a positive integer"):
        tg.capture(lambda: 0, warmup=0)


def test_without_kernels_a_capture_says_so():
    with tg.testing.strict_cupy():
        net, adam = net_and_adam()
        before = set_enabled(False)
        try:
            with pytest.raises(tg.cuda.CaptureError, match="TINYGEN_GPU_KERNELS"):
                tg.capture(lambda x: plain(net, adam, x))(tg.ones(2, 3, device="cuda"))
        finally:
            set_enabled(before)

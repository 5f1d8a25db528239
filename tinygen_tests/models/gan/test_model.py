"""The game: what each step changes and what it leaves alone, whole runs beside PyTorch, and sampling."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn
from tinygen.data.toy import ring
from tinygen.models import GAN, ConvDiscriminator, ConvGenerator, DenseDiscriminator, DenseGenerator
from tinygen.models.gan import LOSSES, Hinge, mode_coverage
from tinygen_tests.draws import stream
from tinygen_tests.judge import host, same, torch
from tinygen_tests.nn.beside_torch import to_theirs

SHAPE = (1, 8, 8)


def conv_gan(loss="non-saturating", classes=None, seed=0, **options) -> GAN:
    rng = stream(seed)
    G = ConvGenerator(SHAPE, 5, (4, 6), classes=classes, std=0.2, rng=rng)
    D = ConvDiscriminator(SHAPE, (4, 6), classes=classes, std=0.2, rng=rng)
    return GAN(G, D, loss, **options)


def optimizers(gan, lr=2e-4, betas=(0.5, 0.999)):
    return (tg.optim.Adam(net.parameters(), lr=lr, betas=betas) for net in (gan.discriminator, gan.generator))


def images(n: int, seed: int = 0) -> tg.Tensor:
    return tg.rand(n, *SHAPE, rng=stream(seed))


def state(module) -> dict[str, np.ndarray]:
    return {name: host(p).copy() for name, p in module.named_parameters()}


def changed(before, module) -> set[str]:
    return {name for name, p in module.named_parameters() if (host(p) != before[name]).any()}


# ----------------------------------------------------------------------- who is touched by which step


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("classes", [None, 4])
def test_the_critic_step_reaches_the_discriminator_alone(loss, classes):
    gan = conv_gan(loss, classes, gradient_penalty=10.0 if loss == "wasserstein" else 0.0)
    y = None if classes is None else tg.tensor([0, 1, 2, 3, 1, 0])
    gan.critic_step(images(6), y, rng=stream(1))["loss"].backward()
    assert all(p.grad is None for p in gan.generator.parameters()), "the fakes of a D step must be detached"
    for name, p in gan.discriminator.named_parameters():
        if loss in ("wasserstein", "hinge") and name == "last.bias":
            continue  # raises both means alike (hinge: while all outputs lie within the margins)
        assert p.grad is not None and host(p.grad).any(), name


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("classes", [None, 4])
def test_the_generator_step_leaves_no_gradient_in_the_discriminator(loss, classes):
    gan = conv_gan(loss, classes)
    terms = gan.generator_step(6, rng=stream(1))
    assert all(p.requires_grad for p in gan.discriminator.parameters()), "D learns again after the step"
    terms["loss"].backward()
    assert all(p.grad is None for p in gan.discriminator.parameters())
    for name, p in gan.generator.named_parameters():
        assert p.grad is not None and host(p.grad).any(), name


def test_gradients_of_the_discriminator_survive_a_generator_step_unchanged():
    gan = conv_gan()
    gan.critic_step(images(4), rng=stream(1))["loss"].backward()
    before = [host(p.grad).copy() for p in gan.discriminator.parameters()]
    gan.generator_step(4, rng=stream(2))["loss"].backward()
    for p, g in zip(gan.discriminator.parameters(), before, strict=True):
        np.testing.assert_array_equal(host(p.grad), g)


def test_what_was_frozen_before_stays_frozen():
    gan = conv_gan()
    frozen = next(gan.discriminator.parameters())
    frozen.requires_grad = False
    gan.generator_step(4, rng=stream(0))
    assert not frozen.requires_grad
    with pytest.raises(ValueError):
        gan.generator_step(4, y=tg.tensor([1, 2, 3, 4]))
    assert sum(p.requires_grad for p in gan.discriminator.parameters()) == len(list(gan.discriminator.parameters())) - 1


def test_an_alternation_changes_each_network_once_by_its_own_optimizer():
    gan = conv_gan()
    sgd_d, sgd_g = (tg.optim.SGD(net.parameters(), lr=0.1) for net in (gan.discriminator, gan.generator))
    d, g = state(gan.discriminator), state(gan.generator)
    twin = conv_gan()
    terms = gan.training_step(images(6), None, sgd_d, sgd_g, rng=stream(1))
    assert changed(d, gan.discriminator) == set(d) and changed(g, gan.generator) == set(g)
    assert set(terms) == {"loss_d", "loss_g", "d_real", "d_fake"}
    assert not any(value.requires_grad or value.shape for value in terms.values())
    # the same by hand, D's weights moved by their own gradient alone
    rng = stream(1)
    twin.critic_step(images(6), None, rng)["loss"].backward()
    for (name, p), q in zip(gan.discriminator.named_parameters(), twin.discriminator.parameters(), strict=True):
        np.testing.assert_allclose(host(p), d[name] - 0.1 * host(q.grad), rtol=1e-5, atol=1e-7, err_msg=name)


def test_k_critic_steps_see_each_its_own_part_of_the_batch():
    gan = conv_gan(critic_steps=3)
    seen = []
    step = gan.critic_step
    gan.critic_step = lambda x, y, rng: (seen.append((host(x).copy(), host(y).copy())), step(x, None, rng))[1]
    asked = []
    generate = gan.generator_step
    gan.generator_step = lambda n, y, rng: (asked.append((n, host(y).copy())), generate(n, None, rng))[1]
    x, y = images(6), tg.tensor([0, 1, 2, 3, 4, 5])
    gan.training_step(x, y, *optimizers(gan), rng=stream(1))
    np.testing.assert_array_equal(np.concatenate([s[0] for s in seen]), host(x))
    np.testing.assert_array_equal(np.concatenate([s[1] for s in seen]), host(y))
    assert [len(s[0]) for s in seen] == [2, 2, 2]
    assert asked[0][0] == 2 and list(asked[0][1]) == [4, 5]


def test_a_batch_that_cannot_be_split_is_refused():
    gan = conv_gan(critic_steps=5)
    with pytest.raises(ValueError, match="a batch of 64 cannot be split among 5 critic steps"):
        gan.training_step(images(64), None, *optimizers(gan))
    with pytest.raises(TypeError, match="expected optimizer_d and optimizer_g"):
        gan.training_step(images(5))


def test_clipping_holds_after_every_critic_step():
    gan = conv_gan("wasserstein", clip=0.01, critic_steps=2)
    gan.training_step(images(8), None, *optimizers(gan, lr=0.1), rng=stream(0))
    assert max(np.abs(host(p)).max() for p in gan.discriminator.parameters()) <= 0.01
    assert max(np.abs(host(p)).max() for p in gan.generator.parameters()) > 0.01


def test_what_is_logged_is_what_it_says():
    gan = conv_gan("non-saturating", gradient_penalty=10.0, r1=2.0)
    gan.generator.eval()  # fakes are then the same for the same noise, one by one or together
    x = images(6)
    terms = gan.critic_step(x, rng=stream(1))
    with tg.no_grad():
        a_real = host(gan.discriminator(2 * x - 1))
        a_fake = host(gan.discriminator(gan.generator(tg.randn(6, 5, rng=stream(1)))))
    σ = lambda a: 1 / (1 + np.exp(-a))
    assert host(terms["d_real"]) == pytest.approx(σ(a_real).mean(), rel=1e-5)
    assert host(terms["d_fake"]) == pytest.approx(σ(a_fake).mean(), rel=1e-5)
    assert host(terms["loss_d"]) == pytest.approx(-np.log(σ(a_real)).mean() - np.log(1 - σ(a_fake)).mean(), rel=1e-5)
    assert host(terms["loss"].detach()) == pytest.approx(host(terms["loss_d"]) + host(terms["penalty"]), rel=1e-5)
    alone = conv_gan("non-saturating", r1=2.0).critic_step(x, rng=stream(1))
    g = tg.models.gan.input_gradient(gan.discriminator, 2 * x - 1)
    assert host(alone["penalty"]) == pytest.approx((host(g) ** 2).sum((1, 2, 3)).mean(), rel=1e-4), "γ/2 · E‖∇D‖²"


def test_images_are_the_generators_of_normal_noise():
    """Proves: GAN.generate."""
    gan = conv_gan(classes=3)
    z, y = tg.randn(5, 5, rng=stream(3)), tg.tensor([0, 1, 2, 2, 1])
    x = gan.generate(5, y, rng=stream(3))
    np.testing.assert_array_equal(host(x), host(gan.generator(z, y)))
    assert x.requires_grad and abs(host(x)).max() <= 1


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-3.0, 5.0)])
def test_noise_is_decoded_by_the_resting_generator_into_the_datas_range(low, high):
    """low + (G(z) + 1)(high − low)/2 with the running statistics, whatever the size of the pieces.

    Proves: GAN.decode.
    """
    gan = conv_gan(data_range=(low, high))
    for k in range(3):
        gan.generate(8, rng=stream(k))  # so that the running statistics are not those of the batch
    z = tg.randn(7, 5, rng=stream(9))
    gan.generator.eval()
    expected = low + (host(gan.generator(z).detach()) + 1) * (high - low) / 2
    gan.generator.train()
    for batch_size in (500, 3):
        found = gan.decode(z, batch_size=batch_size)
        np.testing.assert_allclose(host(found), expected, rtol=1e-4, atol=1e-5)
    assert gan.generator.training and not found.requires_grad


# ---------------------------------------------------------------------------------- PyTorch plays the same game


def theirs_of(gan: GAN, lib):
    """The networks of ``conv_gan`` written in PyTorch, with the names of ours."""
    nn = lib.nn

    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator, self.discriminator = nn.Module(), nn.Module()
            self.generator.first = nn.Linear(5, 24)
            self.generator.rest = nn.Sequential(
                nn.Unflatten(1, (6, 2, 2)),
                nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 4, 4, 2, 1, bias=False),
                nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1), nn.Tanh(),
            )  # fmt: skip
            self.discriminator.features = nn.Sequential(
                nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 6, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(),
            )  # fmt: skip
            self.discriminator.last = nn.Linear(24, 1)

        def G(self, z):
            return self.generator.rest(self.generator.first(z))

        def D(self, x):
            return self.discriminator.last(self.discriminator.features(x)).squeeze(1)

    theirs = Theirs().double()
    theirs.load_state_dict(to_theirs(gan.state_dict()))
    return theirs


@pytest.mark.parametrize("kind", ["non-saturating", "wgan-gp", "r1", "wgan"])
def test_twenty_five_alternations_are_pytorchs(kind):
    """The same noise, the same ε, the same batches in float64: losses equal, and at the end every number.

    Proves: GAN.
    """
    options = {
        "non-saturating": {},
        "r1": {"r1": 3.0},
        "wgan-gp": {"loss": "wasserstein", "gradient_penalty": 10.0, "critic_steps": 2},
        "wgan": {"loss": "wasserstein", "clip": 0.1, "critic_steps": 2},
    }[kind]
    betas = (0.5, 0.9) if kind == "wgan-gp" else (0.5, 0.999)
    gan = conv_gan(**options).to(tg.float64)
    theirs = theirs_of(gan, torch)
    adam_d, adam_g = optimizers(gan, 1e-3, betas)
    their_d, their_g = (
        torch.optim.Adam(net.parameters(), lr=1e-3, betas=betas) for net in (theirs.discriminator, theirs.generator)
    )
    F, k, m = torch.nn.functional, gan.critic_steps, 6
    rng, again = stream(7), stream(7)
    noise = lambda *shape: torch.from_numpy(host(tg.randn(*shape, rng=again, dtype=tg.float64)).copy())

    for step in range(25):
        x = tg.rand(k * m, *SHAPE, rng=stream(100 + step), dtype=tg.float64)
        terms = gan.training_step(x, None, adam_d, adam_g, rng=rng)

        for i in range(k):
            real = torch.from_numpy(host(x)[i * m : (i + 1) * m].copy()) * 2 - 1
            fake = theirs.G(noise(m, 5)).detach()
            a, b = theirs.D(real), theirs.D(fake)
            if "wgan" in kind:
                adversarial = b.mean() - a.mean()
            else:
                adversarial = F.binary_cross_entropy_with_logits(a, torch.ones_like(a))
                adversarial = adversarial + F.binary_cross_entropy_with_logits(b, torch.zeros_like(b))
            loss_d = adversarial
            if kind == "wgan-gp":
                ε = torch.from_numpy(host(tg.rand(m, 1, 1, 1, rng=again, dtype=tg.float64)).copy())
                between = (ε * real + (1 - ε) * fake).requires_grad_()
                (g,) = torch.autograd.grad(theirs.D(between).sum(), between, create_graph=True)
                loss_d = loss_d + 10 * ((g.flatten(1).norm(dim=1) - 1) ** 2).mean()
            if kind == "r1":
                real.requires_grad_()
                (g,) = torch.autograd.grad(theirs.D(real).sum(), real, create_graph=True)
                loss_d = loss_d + 1.5 * (g**2).sum((1, 2, 3)).mean()
            their_d.zero_grad()
            loss_d.backward()
            their_d.step()
            if kind == "wgan":
                with torch.no_grad():
                    for p in theirs.discriminator.parameters():
                        p.clamp_(-0.1, 0.1)
        b = theirs.D(theirs.G(noise(m, 5)))
        loss_g = -b.mean() if "wgan" in kind else F.binary_cross_entropy_with_logits(b, torch.ones_like(b))
        their_g.zero_grad()
        loss_g.backward()
        their_g.step()

        same(terms["loss_d"], adversarial, 1e-7, f"L_D of step {step}")
        same(terms["loss_g"], loss_g, 1e-7, f"L_G of step {step}")
        if "penalty" in terms:
            same(terms["penalty"], loss_d - adversarial, 1e-7, f"penalty of step {step}")
    for (name, p), q in zip(gan.state_dict().items(), theirs.state_dict().values(), strict=True):
        same(p, q, 1e-6, name)


# -------------------------------------------------------------------------------- it learns what it is for


@pytest.mark.parametrize("loss", ["non-saturating", "hinge", "least-squares"])
def test_a_small_ring_is_learned(loss):
    """Four wide Gaussians: five hundred steps bring the points near and miss no mode."""
    density = ring(4, radius=1.0, std=0.2)
    rng = tg.Generator(0)  # densities draw on the host
    G = DenseGenerator((2,), 4, (32, 32), bounded=False, rng=stream(0))
    gan = GAN(G, DenseDiscriminator((2,), (32, 32), rng=stream(1)), loss, r1=0.5, data_range=None)
    adam_d, adam_g = optimizers(gan, 5e-3, (0.5, 0.99))
    before = mode_coverage(gan.sample(400, rng=stream(9)), density.modes, 0.2)
    noise = stream(1)
    for _ in range(500):
        x = tg.tensor(density.sample(64, rng))
        gan.training_step(x, None, adam_d, adam_g, rng=noise)
    after = mode_coverage(gan.sample(400, rng=stream(9)), density.modes, 0.2, least=20)
    assert after.covered == 4 and after.high_quality > max(0.75, before.high_quality + 0.2)


def test_the_whole_state_is_saved_and_goes_on_in_the_same_bits():
    gan = conv_gan(classes=3, r1=1.0)
    adam_d, adam_g = optimizers(gan)
    rng = stream(3)
    y = tg.tensor([0, 1, 2, 0, 1, 2])
    for step in range(3):
        gan.training_step(images(6, step), y, adam_d, adam_g, rng)
    saved = {name: tensor.clone() for name, tensor in gan.state_dict().items()}
    moments = [{k: v for k, v in adam.state_dict().items()} for adam in (adam_d, adam_g)]
    twin = conv_gan(classes=3, seed=5, r1=1.0)
    twin.load_state_dict(saved)
    twin_d, twin_g = optimizers(twin)
    for adam, moment in zip((twin_d, twin_g), moments):
        adam.load_state_dict(moment)
    twin_rng = stream(0)
    twin_rng.load_state_dict(rng.state_dict())
    a = gan.training_step(images(6, 9), y, adam_d, adam_g, rng)
    b = twin.training_step(images(6, 9), y, twin_d, twin_g, twin_rng)
    assert {k: v.item() for k, v in a.items()} == {k: v.item() for k, v in b.items()}
    np.testing.assert_array_equal(host(gan.sample(4, rng=stream(1))), host(twin.sample(4, rng=stream(1))))


# ------------------------------------------------------------------------------------------------ sampling


@pytest.mark.parametrize("classes", [None, 3])
def test_samples_are_images_in_0_1_and_the_same_for_the_same_seed_and_any_batch_size(classes):
    gan = conv_gan(classes=classes)
    gan.training_step(images(6), None if classes is None else tg.tensor([0, 1, 2] * 2), *optimizers(gan), rng=stream(1))
    x = gan.sample(7, rng=stream(2))
    assert x.shape == (7, *SHAPE) and x.dtype == tg.float32 and not x.requires_grad
    assert host(x).min() >= 0 and host(x).max() <= 1
    np.testing.assert_array_equal(host(x), host(gan.sample(7, rng=stream(2))))
    np.testing.assert_allclose(host(x), host(gan.sample(7, rng=stream(2), batch_size=3)), rtol=1e-4, atol=1e-6)
    assert gan.sample(0, rng=stream(2)).shape == (0, *SHAPE)
    assert all(part.training for part in gan.modules()), "the networks are in the mode that they were in"
    gan.generator.eval()
    gan.sample(2)
    assert not gan.generator.training


def test_sampling_changes_no_running_statistics():
    gan = conv_gan()
    before = {name: host(b).copy() for name, b in gan.named_buffers()}
    gan.sample(5, rng=stream(0))
    for name, b in gan.named_buffers():
        np.testing.assert_array_equal(host(b), before[name])


def test_a_class_can_be_asked_for():
    gan = conv_gan(classes=3)
    np.testing.assert_array_equal(host(gan.labels(4, 2)), [2, 2, 2, 2])
    given = tg.tensor([0, 1, 2, 1])
    assert gan.labels(4, given) is given
    drawn = host(gan.labels(3000, rng=stream(0)))
    assert np.bincount(drawn, minlength=3).min() > 900
    x = gan.sample(4, 2, rng=stream(0))
    np.testing.assert_array_equal(host(x), host(gan.sample(4, tg.tensor([2] * 4), rng=stream(0))))
    assert (host(x) != host(gan.sample(4, 1, rng=stream(0)))).any()
    with pytest.raises(ValueError, match="a class from 0 to 2, got 3"):
        gan.sample(4, 3)
    with pytest.raises(ValueError, match=r"expected 4 labels, a tensor of shape \(4,\), got \(2,\)"):
        gan.sample(4, tg.tensor([0, 1]))
    with pytest.raises(ValueError, match="labels were given, but the generator has no classes"):
        conv_gan().sample(4, 1)


def test_an_average_of_the_generator_can_draw():
    gan = conv_gan()
    ema = tg.optim.EMA(gan.generator, 0.9, warmup=False)
    adam_d, adam_g = optimizers(gan, lr=0.05)
    plain = host(gan.sample(3, rng=stream(0)))
    for step in range(3):
        gan.training_step(images(6, step), None, adam_d, adam_g, rng=stream(step))
        ema.update()
    now = host(gan.sample(3, rng=stream(0)))
    with ema.apply():
        averaged = host(gan.sample(3, rng=stream(0)))
    assert (averaged != now).any() and (averaged != plain).any()
    np.testing.assert_array_equal(host(gan.sample(3, rng=stream(0))), now)


def test_the_way_to_the_networks_range_and_back():
    gan = conv_gan(data_range=(-3.0, 5.0))
    x = tg.tensor([-3.0, 1.0, 5.0])
    np.testing.assert_allclose(host(gan.to_network(x)), [-1, 0, 1])
    np.testing.assert_allclose(host(gan.to_data(gan.to_network(x))), host(x))
    np.testing.assert_allclose(host(gan.to_data(tg.tensor([-2.0, 2.0]))), [-3, 5])
    free = conv_gan(data_range=None)
    assert free.to_network(x) is x and free.to_data(x) is x
    np.testing.assert_allclose(host(conv_gan().to_network(tg.tensor([0.0, 0.25, 1.0]))), [-1, -0.5, 1])


# ------------------------------------------------------------------------------------------------- errors


def test_batch_norm_in_a_critic_whose_gradient_is_penalised_is_refused():
    G = ConvGenerator(SHAPE, 5, (4, 6))
    D = ConvDiscriminator(SHAPE, (4, 6), batch_norm=True)
    GAN(G, D)
    for options in ({"gradient_penalty": 10.0}, {"r1": 1.0}):
        with pytest.raises(ValueError, match="BatchNorm in the discriminator mixes the images of a batch"):
            GAN(G, D, **options)


@pytest.mark.parametrize("options", [
    {"critic_steps": 0}, {"gradient_penalty": -1.0}, {"r1": -1.0}, {"clip": 0.0}, {"data_range": (1.0, 1.0)},
    {"loss": "vanilla"},
])
def test_settings_out_of_range(options):
    with pytest.raises(ValueError):
        conv_gan(**options)


def test_any_two_modules_can_play_and_any_loss_of_ones_own():
    class Points(nn.Module):
        latent, classes = 2, None

        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(tg.zeros(2))

        def forward(self, z, y=None):
            return z + self.shift

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 1, rng=stream(0))

        def forward(self, x, y=None):
            return self.linear(x).squeeze(1)

    class Softer(Hinge):
        def generator(self, fake):
            return -0.5 * fake.mean()

    gan = GAN(Points(), Line(), Softer(), data_range=None, r1=2.0)
    adam_d, adam_g = optimizers(gan, 0.02)
    noise = stream(1)
    for _ in range(400):
        gan.training_step(tg.randn(64, 2, rng=noise) + 1.0, None, adam_d, adam_g, rng=noise)
    np.testing.assert_allclose(host(gan.generator.shift), [1, 1], atol=0.4)
    with pytest.raises(ValueError, match="batch_size ≥ 1"):
        gan.sample(3, batch_size=0)

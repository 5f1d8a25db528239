"""Four networks, each written once for both libraries from public names alone, trained side by side.

Ours starts from PyTorch's weights, through its state_dict, and sees the same batches and the same noise; after every
one of thirty Adam steps in float64 the losses agree to 1e-7.
"""

from __future__ import annotations

import numpy as np

import tinygen as tg
from tinygen_tests.judge import same, torch

STEPS = 30


def batch(*shape, seed, low=None):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) if low is None else rng.uniform(low, 1, shape)


def twins(make):
    """The same module in both libraries, with PyTorch's numbers."""
    torch.manual_seed(0)
    theirs = make(torch).double()
    ours = make(tg).double()
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    return ours, theirs


def wrapper(lib):
    return tg.tensor if lib is tg else torch.from_numpy


def agree(ours, theirs, what="loss"):
    ours, theirs = np.array(ours), np.array(theirs)
    assert np.isfinite(theirs).all() and len(theirs) == STEPS
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-7, err_msg=what)


def agree_in_every_number(ours, theirs):
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values()):
        if name.endswith("in_proj_bias"):
            # A bias of the keys adds the same to all scores of a query: its gradient is rounding noise around 0,
            # which Adam turns into steps. Softmax does not see them.
            E = a.shape[0] // 3
            a, b = a.reshape(3, E)[[0, 2]], b.reshape(3, E)[[0, 2]]
        same(a, b, 1e-6, name)


def train(lib, model, loss_of, lr, **settings):
    wrap = wrapper(lib)
    optimizer = lib.optim.Adam(model.parameters(), lr=lr, **settings)
    losses = []
    for step in range(STEPS):
        loss = loss_of(model, step, wrap)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# ------------------------------------------------------------------------------------------ autoencoder


def autoencoder(lib):
    nn = lib.nn
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 3), nn.Tanh(),
        nn.Linear(3, 24), nn.LeakyReLU(0.1), nn.Linear(24, 64), nn.Sigmoid(),
        nn.Unflatten(1, (1, 8, 8)),
    )  # fmt: skip


def test_autoencoder():
    def loss_of(lib):
        F = lib.nn.functional

        def loss(model, step, wrap):
            x = wrap(batch(12, 1, 8, 8, seed=step, low=0))
            return F.binary_cross_entropy(model(x), x)

        return loss

    ours, theirs = twins(autoencoder)
    a = train(tg, ours, loss_of(tg), 3e-3)
    b = train(torch, theirs, loss_of(torch), 3e-3)
    agree(a, b)
    assert b[-1] < b[0]
    agree_in_every_number(ours, theirs)


# ----------------------------------------------------------------------------------- convolutional VAE


def vae(lib):
    nn = lib.nn

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ELU(),
                nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.MaxPool2d(2),
            )  # fmt: skip
            self.mean = nn.Linear(8, 2)
            self.log_variance = nn.Linear(8, 2)
            self.decoder = nn.Sequential(
                nn.Linear(2, 8 * 2 * 2), nn.Softplus(), nn.Unflatten(1, (8, 2, 2)),
                nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), nn.InstanceNorm2d(4, affine=True), nn.ReLU(),
                nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1),
            )  # fmt: skip

        def forward(self, x, ε):
            h = self.encoder(x).flatten(1)
            μ, λ = self.mean(h), self.log_variance(h)
            return self.decoder(μ + lib.exp(0.5 * λ) * ε), μ, λ

    return VAE()


def test_convolutional_vae():
    def loss_of(lib):
        F = lib.nn.functional

        def loss(model, step, wrap):
            x, ε = wrap(batch(6, 1, 8, 8, seed=step, low=0)), wrap(batch(6, 2, seed=100 + step))
            logits, μ, λ = model(x, ε)
            reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            return (reconstruction + 0.5 * (μ**2 + lib.exp(λ) - 1 - λ).sum()) / 6

        return loss

    ours, theirs = twins(vae)
    a = train(tg, ours, loss_of(tg), 1e-3)
    b = train(torch, theirs, loss_of(torch), 1e-3)
    agree(a, b)
    assert b[-1] < b[0]
    agree_in_every_number(ours, theirs)
    ours.eval()
    theirs.eval()
    x, ε = batch(3, 1, 8, 8, seed=1, low=0), batch(3, 2, seed=2)
    same(ours(tg.tensor(x), tg.tensor(ε))[0], theirs(torch.from_numpy(x), torch.from_numpy(ε))[0], 1e-6)


# ---------------------------------------------------------------------------------------------- DCGAN


def generator(lib):
    nn = lib.nn
    return nn.Sequential(
        nn.ConvTranspose2d(5, 8, 2, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def discriminator(lib):
    nn = lib.nn
    return nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
        nn.Conv2d(4, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
        nn.utils.spectral_norm(nn.Conv2d(8, 1, 2, 1, 0)), nn.Flatten(0),
    )  # fmt: skip


def test_dcgan():
    def run(lib, G, D):
        F, wrap = lib.nn.functional, wrapper(lib)
        for module in G.modules():
            if isinstance(module, lib.nn.ConvTranspose2d):
                lib.nn.init.constant_(module.weight, 0.02)
                with lib.no_grad():
                    module.weight.copy_(wrap(0.2 * batch(*module.weight.shape, seed=9)))
        d_step = lib.optim.Adam(D.parameters(), lr=1e-3, betas=(0.5, 0.999))
        g_step = lib.optim.Adam(G.parameters(), lr=1e-3, betas=(0.5, 0.999))
        one, zero = wrap(np.ones(4)), wrap(np.zeros(4))
        losses = []
        for step in range(STEPS):
            real, z = wrap(batch(4, 1, 8, 8, seed=step, low=-1)), wrap(batch(4, 5, 1, 1, seed=100 + step))
            fake = G(z)
            d_loss = F.binary_cross_entropy_with_logits(D(real), one)
            d_loss = d_loss + F.binary_cross_entropy_with_logits(D(fake.detach()), zero)
            d_step.zero_grad()
            d_loss.backward()
            lib.nn.utils.clip_grad_norm_(D.parameters(), 0.5)
            d_step.step()
            g_loss = F.binary_cross_entropy_with_logits(D(fake), one)
            g_step.zero_grad()
            g_loss.backward()
            g_step.step()
            losses.append([d_loss.item(), g_loss.item()])
        return losses

    ours_g, theirs_g = twins(generator)
    ours_d, theirs_d = twins(discriminator)
    agree(run(tg, ours_g, ours_d), run(torch, theirs_g, theirs_d))
    agree_in_every_number(ours_g, theirs_g)
    agree_in_every_number(ours_d, theirs_d)


# ---------------------------------------------------------------------------------------------- U-Net


def unet(lib):
    nn = lib.nn
    F = nn.functional

    class Block(nn.Module):
        def __init__(self, n, m, t):
            super().__init__()
            self.norm1, self.conv1 = nn.GroupNorm(2, n), nn.Conv2d(n, m, 3, padding=1)
            self.time = nn.Linear(t, m)
            self.norm2, self.conv2 = nn.GroupNorm(2, m), nn.Conv2d(m, m, 3, padding=1)
            self.skip = nn.Conv2d(n, m, 1) if n != m else nn.Identity()

        def forward(self, x, t):
            h = self.conv1(F.silu(self.norm1(x))) + self.time(t)[:, :, None, None]
            return self.skip(x) + self.conv2(F.silu(self.norm2(h)))

    class Attention(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.norm = nn.GroupNorm(1, n)
            self.attention = nn.MultiheadAttention(n, 2, batch_first=True)

        def forward(self, x):
            N, C, H, W = x.shape
            h = self.norm(x).reshape(N, C, H * W).transpose(1, 2)
            h, _ = self.attention(h, h, h, need_weights=False)
            return x + h.transpose(1, 2).reshape(N, C, H, W)

    class UNet(nn.Module):
        def __init__(self, n=4, t=6):
            super().__init__()
            self.time = nn.Sequential(nn.Embedding(10, t), nn.Linear(t, t), nn.SiLU(), nn.LayerNorm(t))
            self.first = nn.Conv2d(2, n, 3, padding=1)
            self.down = nn.ModuleList([Block(n, n, t), Block(n, 2 * n, t)])
            self.shrink = nn.ModuleList([nn.Conv2d(n, n, 3, stride=2, padding=1), nn.AvgPool2d(2)])
            self.middle = nn.ModuleDict({"in": Block(2 * n, 2 * n, t), "see": Attention(2 * n)})
            self.up = nn.ModuleList([Block(4 * n, n, t), Block(2 * n, n, t)])
            self.grow = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(n, n, 3, padding="same"))
            self.shuffle = nn.Sequential(nn.Conv2d(2 * n, 8 * n, 1), nn.PixelShuffle(2))
            self.last = nn.Sequential(nn.GroupNorm(2, n), nn.SiLU(), nn.Conv2d(n, 2, 3, padding=1))

        def forward(self, x, t):
            t = self.time(t)
            h, skips = self.first(x), []
            for block, shrink in zip(self.down, self.shrink):
                h = block(h, t)
                skips.append(h)
                h = shrink(h)
            h = self.middle["see"](self.middle["in"](h, t))
            h = self.up[0](lib.cat([self.shuffle(h), skips.pop()], 1), t)
            h = self.up[1](lib.cat([self.grow(h), skips.pop()], 1), t)
            return self.last(h)

    return UNet()


def test_unet():
    def loss_of(lib):
        F = lib.nn.functional

        def loss(model, step, wrap):
            x, ε = wrap(batch(3, 2, 8, 8, seed=step)), wrap(batch(3, 2, 8, 8, seed=100 + step))
            t = wrap(np.random.default_rng(step).integers(0, 10, 3))
            a = 1 - t.reshape(3, 1, 1, 1) / 10
            return F.mse_loss(model(a**0.5 * x + (1 - a) ** 0.5 * ε, t), ε)

        return loss

    ours, theirs = twins(unet)
    a = train(tg, ours, loss_of(tg), 2e-3, weight_decay=1e-3)
    b = train(torch, theirs, loss_of(torch), 2e-3, weight_decay=1e-3)
    agree(a, b)
    assert b[-1] < b[0]
    agree_in_every_number(ours, theirs)
    assert repr(ours) == repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear")


# ------------------------------------------------------------------------- a critic with a gradient penalty


def critic(lib):
    nn = lib.nn
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.InstanceNorm2d(4, affine=True), nn.LeakyReLU(0.2),
        nn.Conv2d(4, 6, 3, 1, 1), nn.GroupNorm(2, 6), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 8), nn.LayerNorm(8), nn.Softplus(), nn.Linear(8, 1),
    )  # fmt: skip


def test_gradient_penalty():
    """(‖∇D(x)‖ − 1)² is differentiated through every layer a second time."""

    def loss_of(lib):
        grad = tg.grad if lib is tg else torch.autograd.grad

        def loss(model, step, wrap):
            real, fake = wrap(batch(4, 1, 8, 8, seed=step, low=0)), wrap(batch(4, 1, 8, 8, seed=100 + step))
            between = (0.3 * real + 0.7 * fake).requires_grad_()
            (g,) = grad(model(between).sum(), [between], create_graph=True)
            penalty = ((g.flatten(1).norm(dim=1) - 1) ** 2).mean()
            return model(fake).mean() - model(real).mean() + 10 * penalty

        return loss

    ours, theirs = twins(critic)
    a = train(tg, ours, loss_of(tg), 1e-3, betas=(0.5, 0.9))
    b = train(torch, theirs, loss_of(torch), 1e-3, betas=(0.5, 0.9))
    agree(a, b)
    assert b[-1] < b[0]
    agree_in_every_number(ours, theirs)

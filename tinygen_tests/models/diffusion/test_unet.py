"""The U-Net: any size of image, its formula against PyTorch while it trains, and what its parts promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen as tg
import tinygen.nn.functional as F
from tinygen.models.diffusion import NoiseSchedule, UNet, time_features
from tinygen.models.diffusion.unet import SelfAttention
from tinygen_tests.draws import stream
from tinygen_tests.judge import host, placed, torch


def shaken(net, seed=0):
    """The network with no weight at 0, so that every part matters."""
    for k, p in enumerate(net.parameters()):
        tg.nn.init.normal_(p, std=0.3, rng=stream(seed + k))
    return net


# --------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (7, 7), (9, 12), (1, 1), (5, 2)])
@pytest.mark.parametrize("settings", [
    {"widths": (4, 8)}, {"widths": (4,), "attention": (False,)}, {"widths": (4, 4, 8), "blocks": 2, "heads": 2},
    {"widths": (4, 8), "patch": 2, "attention": (True, True)},
], ids=str)  # fmt: skip
def test_any_size_and_number_of_channels_comes_back_in_its_own_shape(channels, size, settings):
    net = shaken(UNet(channels, **settings, num_classes=3, rng=stream(0)))
    x = tg.randn(2, channels, *size, rng=stream(1))
    y = net(x, tg.tensor([10.0, 900.0]), tg.tensor([0, 3]))
    assert y.shape == x.shape and y.dtype == tg.float32
    y.square().mean().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and np.isfinite(host(p.grad)).all(), name


def test_every_parameter_matters():
    net = shaken(UNet(1, widths=(4, 8), num_classes=2, rng=stream(0))).to(tg.float64)
    x = tg.randn(3, 1, 8, 8, rng=stream(1), dtype=tg.float64)
    (net(x, tg.tensor([1.0, 300.0, 900.0], dtype=tg.float64), tg.tensor([0, 1, 2])) ** 2).mean().backward()
    for name, p in net.named_parameters():
        assert np.abs(host(p.grad)).max() > 1e-9, f"{name} has no part in the output"


def test_skips_carry_every_pixel_to_the_output():
    """What happens at one pixel is seen at that pixel of the output, whatever the halving does to it."""
    net = shaken(UNet(1, widths=(4, 8), attention=(False, False), rng=stream(0))).to(tg.float64)
    x = tg.randn(1, 1, 16, 16, rng=stream(1), dtype=tg.float64)
    t = tg.tensor([5.0], dtype=tg.float64)
    before = host(net(x, t))
    moved = tg.tensor(host(x).copy())
    moved[0, 0, 3, 12] = 9.0
    assert abs(host(net(moved, t)) - before)[0, 0, 3, 12] > 1e-3


# ----------------------------------------------------------------------------- the beginning, the time


def test_it_begins_as_zero():
    net = UNet(2, widths=(4, 8), rng=stream(0))
    assert (host(net(tg.randn(2, 2, 8, 8, rng=stream(1)), tg.tensor([1.0, 999.0]))) == 0).all()


def test_time_features_are_waves_of_falling_frequency():
    t = tg.tensor([0.0, 1.0, 437.0], dtype=tg.float64)
    got = host(time_features(t, 8))
    for k in range(4):
        ω = 10_000 ** (-k / 4)
        np.testing.assert_allclose(got[:, k], np.cos(ω * host(t)), rtol=1e-12)
        np.testing.assert_allclose(got[:, 4 + k], np.sin(ω * host(t)), rtol=1e-12, atol=1e-12)
    assert time_features(tg.tensor([1.0]), 4).dtype == tg.float32
    with pytest.raises(ValueError, match="even dim ≥ 2, got 5"):
        time_features(t, 5)


def test_neighbouring_times_can_be_told_apart_at_any_number_of_steps():
    """On the scale of 0 to 1000 the waves tell steps apart; on 0 to 1, which others feed, hardly at all."""
    for T in (50, 200, 1000):
        times = NoiseSchedule.cosine(T).times[1:]
        far = host(time_features(tg.tensor(times), 64))
        near = host(time_features(tg.tensor(times / 1000), 64))
        apart = np.linalg.norm(np.diff(far, axis=0), axis=1).min()
        assert apart > 0.5 and apart > 20 * np.linalg.norm(np.diff(near, axis=0), axis=1).min()


def test_the_time_and_the_class_reach_the_output_and_no_class_is_the_null_class():
    net = shaken(UNet(1, widths=(4, 8), num_classes=3, rng=stream(0)))
    x = tg.randn(1, 1, 8, 8, rng=stream(1))
    at = lambda t, y: host(net(x, tg.tensor([t]), None if y is None else tg.tensor([y])))
    assert np.abs(at(10.0, 1) - at(500.0, 1)).max() > 1e-3
    assert np.abs(at(10.0, 1) - at(10.0, 2)).max() > 1e-3
    np.testing.assert_allclose(at(10.0, None), at(10.0, 3), rtol=1e-6)


@pytest.mark.parametrize("width", [2, 4, 6, 8, 16, 32, 33])
def test_normalisation_never_takes_the_time_away_again(width):
    """In a group of one channel what is added to the channel would be subtracted with its mean."""
    net = shaken(UNet(1, widths=(width,), attention=(False,), groups=32, rng=stream(0)))
    x = tg.randn(1, 1, 8, 8, rng=stream(1))
    near, far = (host(net(x, tg.tensor([t]))) for t in (10.0, 500.0))
    assert np.abs(near - far).max() > 1e-3
    for module in net.modules():
        if isinstance(module, tg.nn.GroupNorm):
            assert module.num_channels // module.num_groups >= min(4, width)


def test_attention_is_softmax_of_scaled_products_over_all_pixels():
    block = shaken(SelfAttention(6, heads=2, groups=3, rng=stream(0))).to(tg.float64)
    x = tg.randn(2, 6, 2, 3, rng=stream(1), dtype=tg.float64)
    tokens = host(block.norm(x)).reshape(2, 6, 6).transpose(0, 2, 1)
    W, b = host(block.qkv.weight), host(block.qkv.bias)
    q, k, v = np.split(tokens @ W.T + b, 3, axis=-1)
    heads = []
    for h in (slice(0, 3), slice(3, 6)):
        scores = np.einsum("nic,njc->nij", q[..., h], k[..., h]) / math.sqrt(3)
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        heads.append(weights @ v[..., h])
    found = np.concatenate(heads, -1) @ host(block.out.weight).T + host(block.out.bias)
    np.testing.assert_allclose(host(block(x)), host(x) + found.transpose(0, 2, 1).reshape(2, 6, 2, 3), rtol=1e-9)


# ------------------------------------------------------------------------------------ PyTorch as judge


def twin_of(net, heads):
    """The same network in PyTorch, from its own description, with the same weights by name."""
    nn, f = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, ours):
            super().__init__()
            c, out = ours.conv1.in_channels, ours.conv1.out_channels
            self.norm1, self.conv1 = nn.GroupNorm(ours.norm1.num_groups, c), nn.Conv2d(c, out, 3, padding=1)
            self.tell = nn.Linear(ours.tell.in_features, out)
            self.norm2, self.conv2 = nn.GroupNorm(ours.norm2.num_groups, out), nn.Conv2d(out, out, 3, padding=1)
            self.skip = nn.Identity() if c == out else nn.Conv2d(c, out, 1)

        def forward(self, x, e):
            h = self.conv1(f.silu(self.norm1(x))) + self.tell(e)[:, :, None, None]
            return self.skip(x) + self.conv2(f.silu(self.norm2(h)))

    class Attention(nn.Module):
        def __init__(self, ours):
            super().__init__()
            c = ours.norm.num_channels
            self.norm, self.qkv, self.out = nn.GroupNorm(ours.norm.num_groups, c), nn.Linear(c, 3 * c), nn.Linear(c, c)

        def forward(self, x):
            n, c, h, w = x.shape
            q, k, v = self.qkv(self.norm(x).flatten(2).transpose(1, 2)).chunk(3, -1)
            split = lambda z: z.reshape(n, h * w, heads, c // heads).transpose(1, 2)
            found = f.scaled_dot_product_attention(split(q), split(k), split(v)).transpose(1, 2).reshape(n, h * w, c)
            return x + self.out(found).transpose(1, 2).reshape(n, c, h, w)

    class Stage(nn.Module):
        def __init__(self, ours):
            super().__init__()
            self.blocks = nn.ModuleList([Block(b) for b in ours.blocks])
            self.attention = nn.ModuleList(
                [Attention(a) if isinstance(a, SelfAttention) else nn.Identity() for a in ours.attention]
            )

    class Condition(nn.Module):
        def __init__(self, dim, classes):
            super().__init__()
            self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, dim)
            self.classes = nn.Embedding(classes + 1, dim)
            self.dim = dim

        def forward(self, t, y):
            ω = torch.exp(-math.log(10_000) * torch.arange(self.dim // 2, dtype=t.dtype) / (self.dim // 2))
            features = torch.cat([torch.cos(t[:, None] * ω), torch.sin(t[:, None] * ω)], 1)
            return self.second(f.silu(self.first(features))) + self.classes(y)

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            w, pixels = net.widths, net.channels * net.patch**2
            self.condition = Condition(4 * w[0], net.num_classes)
            self.enter = nn.Conv2d(pixels, w[0], 3, padding=1)
            self.down, self.up = (nn.ModuleList([Stage(s) for s in side]) for side in (net.down, net.up))
            self.shrink = nn.ModuleList([nn.Conv2d(a, a, 3, stride=2, padding=1) for a in w[:-1]])
            back = list(zip(w[:0:-1], w[-2::-1], strict=True))
            self.grow = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in back])
            self.middle = Stage(net.middle)
            self.norm = nn.GroupNorm(net.norm.num_groups, w[0])
            self.leave = nn.Conv2d(w[0], pixels, 3, padding=1)

        def forward(self, x, t, y):
            e = f.silu(self.condition(t, y))
            H, W = x.shape[2:]
            p = net.patch
            x = self.enter(f.pixel_unshuffle(f.pad(x, (0, -W % p, 0, -H % p)), p))
            skips, sizes = [], []
            for k, stage in enumerate(self.down):
                for block, attend in zip(stage.blocks, stage.attention, strict=True):
                    x = attend(block(x, e))
                    skips.append(x)
                if k < len(self.shrink):
                    sizes.append(x.shape[2:])
                    x = self.shrink[k](x)
            x = self.middle.attention[0](self.middle.blocks[0](x, e))
            for k, stage in enumerate(self.up):
                if k:
                    h, w = sizes.pop()
                    x = self.grow[k - 1](f.interpolate(x, scale_factor=2)[:, :, :h, :w])
                for block, attend in zip(stage.blocks, stage.attention, strict=True):
                    x = attend(block(torch.cat([x, skips.pop()], 1), e))
            return f.pixel_shuffle(self.leave(f.silu(self.norm(x))), p)[:, :, :H, :W]

    twin = Twin().double()
    twin.load_state_dict({name: torch.tensor(host(p)) for name, p in net.state_dict().items()})
    return twin


@pytest.mark.parametrize("settings, size", [
    ({"channels": 1, "widths": (8, 12), "num_classes": 4, "heads": 2}, (8, 8)),
    ({"channels": 3, "widths": (4, 6), "blocks": 2, "attention": (True, False), "num_classes": 4, "heads": 2}, (7, 5)),
    ({"channels": 1, "widths": (4, 8, 8), "patch": 2, "num_classes": 4, "heads": 4}, (9, 14)),
], ids=["8x8", "odd", "patches"])  # fmt: skip
def test_it_trains_as_its_pytorch_twin(settings, size):
    """25 steps of Adam on the diffusion's loss, the same weights and noise: every loss is the same."""
    S = NoiseSchedule.cosine(50)
    net = UNet(**settings, rng=stream(0)).to(tg.float64)
    twin = twin_of(net, settings["heads"])
    ours = tg.optim.Adam(net.parameters(), lr=3e-3)
    theirs = torch.optim.Adam(twin.parameters(), lr=3e-3)
    draw = np.random.default_rng(0)
    x0 = draw.uniform(-1, 1, (6, settings["channels"], *size))
    losses = []
    for _ in range(25):
        t, y, ε = draw.integers(1, 51, 6), draw.integers(0, 5, 6), draw.standard_normal(x0.shape)
        a, s = (v[t].reshape(-1, 1, 1, 1) for v in (S.signal, S.noise))
        x_t, v = a * x0 + s * ε, a * ε - s * x0
        loss = F.mse_loss(net(*map(lambda z: tg.tensor(placed(z)), (x_t, S.times[t], y))), tg.tensor(placed(v)))
        judged = torch.nn.functional.mse_loss(twin(*map(torch.tensor, (x_t, S.times[t], y))), torch.tensor(v))
        for each in (ours, theirs):
            each.zero_grad()
        loss.backward()
        judged.backward()
        ours.step()
        theirs.step()
        losses.append((loss.item(), judged.item()))
    got, expected = np.array(losses).T
    np.testing.assert_allclose(got, expected, rtol=1e-7)
    assert len(set(got)) == 25 and got[-5:].mean() < got[:5].mean(), "nothing was learned; the comparison is idle"


# --------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("make, message", [
    (lambda: UNet(1, widths=()), "positive channels, widths, blocks and patch"),
    (lambda: UNet(1, widths=(4, 0)), r"widths=\(4, 0\)"),
    (lambda: UNet(1, blocks=0), "blocks=0"),
    (lambda: UNet(0), "channels=0"),
    (lambda: UNet(1, patch=0), "patch=0"),
    (lambda: UNet(1, widths=(4, 8), attention=(True,)), "attention for each of 2 widths"),
    (lambda: UNet(1, widths=(6,), heads=4), "heads=4 must divide the 6 channels"),
    (lambda: UNet(2, widths=(4,))(tg.zeros(1, 1, 8, 8), tg.zeros(1)), r"\(N, 2, H, W\), got \(1, 1, 8, 8\)"),
    (lambda: UNet(1, widths=(4,))(tg.zeros(1, 1, 8, 8), tg.zeros(1), tg.tensor([1])), "made without classes"),
])
def test_errors_name_what_came(make, message):
    with pytest.raises(ValueError, match=message):
        make()

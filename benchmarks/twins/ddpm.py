"""DDPM: a two-level U-Net of width 32, T = 200, linear schedule, ε predicted, EMA; ancestral sampling.

Ho et al., *Denoising Diffusion Probabilistic Models* (2020), algorithms 1 and 2, with the β of T = 1000 times 5; x0
clamped while sampling, and weights averaged with decay 0.995, as lucidrains/denoising-diffusion-pytorch has it.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SECONDS = 139.0
BATCH_SIZE = 64
WIDTH, T, DECAY = 32, 200, 0.995


class Block(nn.Module):
    """Residual block: GroupNorm, SiLU, conv, + time, GroupNorm, SiLU, conv, + input."""

    def __init__(self, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(time, out))
        self.second = nn.Sequential(nn.GroupNorm(8, out), nn.SiLU(), nn.Conv2d(out, out, 3, padding=1))
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(N, channels, H, W), (N, time) → (N, out, H, W)."""
        return self.skip(x) + self.second(self.first(x) + self.time(t)[:, :, None, None])


class UNet(nn.Module):
    """ε̂(x_t, t): full size at width 32, half size at width 64, and back with a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        time = 4 * WIDTH
        self.time = nn.Sequential(nn.Linear(WIDTH, time), nn.SiLU(), nn.Linear(time, time))
        self.enter = nn.Conv2d(channels, WIDTH, 3, padding=1)
        self.high = Block(WIDTH, WIDTH, time)
        self.down = nn.Conv2d(WIDTH, WIDTH, 3, 2, 1)
        self.low, self.middle = Block(WIDTH, 2 * WIDTH, time), Block(2 * WIDTH, 2 * WIDTH, time)
        self.up = nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1)
        self.back = Block(2 * WIDTH, WIDTH, time)
        self.leave = nn.Sequential(nn.GroupNorm(8, WIDTH), nn.SiLU(), nn.Conv2d(WIDTH, channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(N, C, H, W), t (N,) in 1 … T → (N, C, H, W)."""
        ω = torch.exp(-math.log(10_000) * torch.arange(WIDTH // 2) / (WIDTH // 2))
        angle = (t * 1000 / T)[:, None] * ω
        e = self.time(torch.cat([angle.sin(), angle.cos()], dim=1))
        high = self.high(self.enter(x), e)
        low = self.middle(self.low(self.down(high), e), e)
        return self.leave(self.back(torch.cat([self.up(low), high], dim=1), e))


class Twin:
    """Minimises ‖ε − ε̂‖²; draws with the averaged weights; images in [−1, 1] inside."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self.image_shape = image_shape
        self.net = UNet(image_shape[0])
        self.averaged = copy.deepcopy(self.net)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.β = torch.linspace(1e-4, 0.02, T) * 1000 / T
        self.α_bar = torch.cumprod(1 - self.β, 0)
        self.steps = 0

    def step(self, x: Tensor) -> dict[str, Any]:
        """One step on a batch (N, C, H, W) in [0, 1]."""
        t = torch.randint(1, T + 1, (len(x),))
        ε = torch.randn_like(x)
        A = self.α_bar[t - 1][:, None, None, None]
        loss = F.mse_loss(self.net(A.sqrt() * (2 * x - 1) + (1 - A).sqrt() * ε, t), ε)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.steps += 1
        d = min(DECAY, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for mean, now in zip(self.averaged.parameters(), self.net.parameters()):
                mean.lerp_(now, 1 - d)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def draw(self, n: int) -> Tensor:
        """n images (n, C, H, W) in [0, 1], by T ancestral steps."""
        x = torch.randn(n, *self.image_shape)
        for t in range(T, 0, -1):
            A, β = self.α_bar[t - 1], self.β[t - 1]
            P = self.α_bar[t - 2] if t > 1 else torch.tensor(1.0)
            ε = self.averaged(x, torch.full((n,), t))
            x0 = ((x - (1 - A).sqrt() * ε) / A.sqrt()).clamp(-1, 1)
            mean = P.sqrt() * β / (1 - A) * x0 + (1 - β).sqrt() * (1 - P) / (1 - A) * x
            x = mean + ((1 - P) / (1 - A) * β).sqrt() * torch.randn_like(x) if t > 1 else mean
        return (x.clamp(-1, 1) + 1) / 2

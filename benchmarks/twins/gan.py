"""GAN: a small DCGAN, non-saturating, Adam 2e-4 (0.5, 0.999), weights from N(0, 0.02), batch 64, as its paper has it.

Radford et al., *Unsupervised Representation Learning with Deep Convolutional GANs* (2015), §4: two stages instead of
four, for the images are small; the side must divide by 4.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SECONDS = 120.0
BATCH_SIZE = 64
LATENT, WIDTH = 64, 64


def _init(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
        nn.init.zeros_(module.bias)


class Twin:
    """One step of the discriminator, one of the generator; images in [−1, 1] inside."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        channels, height, width = image_shape
        h, w = height // 4, width // 4
        self.generator = nn.Sequential(
            nn.Linear(LATENT, 2 * WIDTH * h * w), nn.Unflatten(1, (2 * WIDTH, h, w)),
            nn.BatchNorm2d(2 * WIDTH), nn.ReLU(),
            nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(),
            nn.ConvTranspose2d(WIDTH, channels, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip
        self.discriminator = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * WIDTH), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(2 * WIDTH * h * w, 1),
        )  # fmt: skip
        self.generator.apply(_init)
        self.discriminator.apply(_init)
        self.adam_g = torch.optim.Adam(self.generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def step(self, x: Tensor) -> dict[str, Any]:
        """One step of each player on a batch (N, C, H, W) in [0, 1]."""
        one, zero = torch.ones(len(x), 1), torch.zeros(len(x), 1)
        fake = self.generator(torch.randn(len(x), LATENT))
        loss_d = F.binary_cross_entropy_with_logits(self.discriminator(2 * x - 1), one)
        loss_d = loss_d + F.binary_cross_entropy_with_logits(self.discriminator(fake.detach()), zero)
        self.adam_d.zero_grad()
        loss_d.backward()
        self.adam_d.step()
        loss_g = F.binary_cross_entropy_with_logits(self.discriminator(fake), one)
        self.adam_g.zero_grad()
        loss_g.backward()
        self.adam_g.step()
        return {"loss_d": loss_d.detach(), "loss_g": loss_g.detach()}

    @torch.no_grad()
    def draw(self, n: int) -> Tensor:
        """n images (n, C, H, W) in [0, 1], with BatchNorm's running statistics."""
        self.generator.eval()
        images = (self.generator(torch.randn(n, LATENT)) + 1) / 2
        self.generator.train()
        return images

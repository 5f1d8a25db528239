"""VAE: one hidden layer of 400, a code of 20, Bernoulli decoder; Adam 1e-3, batch 128, as pytorch/examples has it."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SECONDS = 60.0
BATCH_SIZE = 128
HIDDEN, LATENT = 400, 20


class Twin:
    """Minimises cross-entropy + KL, summed over pixels and averaged over images; draws the decoder's means."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self.image_shape = image_shape
        d = math.prod(image_shape)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(d, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, d))
        self.adam = torch.optim.Adam([*self.encoder.parameters(), *self.decoder.parameters()], lr=1e-3)

    def step(self, x: Tensor) -> dict[str, Any]:
        """One step on a batch (N, C, H, W) in [0, 1]."""
        μ, log_var = self.encoder(x).chunk(2, dim=1)
        z = μ + torch.exp(log_var / 2) * torch.randn_like(μ)
        cross_entropy = F.binary_cross_entropy_with_logits(self.decoder(z), x.flatten(1), reduction="sum")
        kl = -0.5 * (1 + log_var - μ**2 - log_var.exp()).sum()
        loss = (cross_entropy + kl) / len(x)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return {"loss": loss.detach()}

    @torch.no_grad()
    def draw(self, n: int) -> Tensor:
        """n images (n, C, H, W) in [0, 1]."""
        return torch.sigmoid(self.decoder(torch.randn(n, LATENT))).reshape(n, *self.image_shape)

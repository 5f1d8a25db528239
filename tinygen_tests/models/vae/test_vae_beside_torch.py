"""The VAE trained beside PyTorch's, step by step: same weights, same batches, same noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tinygen as tg
from tinygen.models import ConvVAE, DenseVAE, VampPrior
from tinygen_tests.draws import stream
from tinygen_tests.judge import host, torch

SHAPE = (1, 8, 8)
KINDS = {
    "dense": lambda shape, **options: DenseVAE(shape, widths=(12, 9), latent=5, **options),
    "conv": lambda shape, **options: ConvVAE(shape, widths=(4, 6), latent=5, hidden=7, **options),
}


def torch_twin(lib, kind, classes):
    """The networks of KINDS written with PyTorch alone, with the names of ours."""
    L, K = 5, classes or 0
    n = lib.nn

    class Net(n.Module):
        def __init__(self, down, layers):
            super().__init__()
            if down is not None:
                self.down = down
            self.layers = layers

        def forward(self, h, y):
            if hasattr(self, "down"):
                h = self.down(h)
            h = h.flatten(1) if h.ndim > 2 else h
            return self.layers(h if y is None else lib.cat([h, y], 1))

    class Both(n.Module):
        def __init__(self):
            super().__init__()
            if kind == "dense":
                self.encoder = Net(None, n.Sequential(n.Linear(64 + K, 12), n.SiLU(), n.Linear(12, 9), n.SiLU(),
                                                      n.Linear(9, 2 * L)))
                self.decoder = Net(None, n.Sequential(n.Linear(L + K, 9), n.SiLU(), n.Linear(9, 12), n.SiLU(),
                                                      n.Linear(12, 64)))
            else:
                down = n.Sequential(n.Conv2d(1, 4, 3, stride=2, padding=1), n.SiLU(),
                                    n.Conv2d(4, 6, 3, stride=2, padding=1), n.SiLU(), n.Flatten())
                self.encoder = Net(down, n.Sequential(n.Linear(24 + K, 7), n.SiLU(), n.Linear(7, 2 * L)))
                up = [n.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), n.SiLU(),
                      n.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1)]
                self.decoder = Net(None, n.Sequential(n.Linear(L + K, 7), n.SiLU(), n.Linear(7, 24), n.SiLU(),
                                                      n.Unflatten(1, (6, 2, 2)), *up))

    return Both().double()


RUNS = {
    "Bernoulli": {},
    "beta": {"beta": 0.3},
    "Gaussian, learned": {"likelihood": "gaussian"},
    "importance weighted": {"k": 5},
    "conditional": {"classes": 10},
    "VampPrior": {"vamp": 4},
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_is_pytorchs_step_by_step(kind, name):
    """Same weights, batches and noise; after each of 15 Adam steps in float64 loss and parts agree to 1e-6.

    Proves: DenseVAE, ConvVAE.
    """
    options = dict(RUNS[name])
    K, vamp = options.get("classes"), options.pop("vamp", 0)
    data = tg.data.digits("train")
    if vamp:
        start = data.images[:vamp].astype(np.float64)
        options["prior"] = VampPrior(tg.tensor(start))
    torch.manual_seed(0)
    theirs = torch_twin(torch, kind, K)
    ours = KINDS[kind](SHAPE, **options).double()
    state = {name: value for name, value in ours.state_dict().items()}
    state.update({name: value.numpy() for name, value in theirs.state_dict().items()})
    assert set(state) == set(ours.state_dict())
    ours.load_state_dict(state)
    extra = []
    if name == "Gaussian, learned":
        log_sigma = torch.tensor(math.log(0.3), dtype=torch.float64, requires_grad=True)
        state["p_x.log_sigma"] = np.array(math.log(0.3))
        ours.load_state_dict(state)
        extra = [log_sigma]
    if vamp:
        u = np.clip(start, 0.01, 0.99)
        pixels = torch.tensor(np.log(u) - np.log(1 - u), requires_grad=True)
        weights = torch.zeros(vamp, dtype=torch.float64, requires_grad=True)
        extra = [pixels, weights]
    D, L, k, β = torch.distributions, 5, options.get("k", 1), options.get("beta", 1.0)
    adams = tg.optim.Adam(ours.parameters(), lr=3e-3), torch.optim.Adam([*theirs.parameters(), *extra], lr=3e-3)

    for step in range(15):
        at = np.random.default_rng(step).integers(0, len(data), 8)
        x, y = data.images[at].astype(np.float64), data.labels[at]
        terms = ours.training_step(tg.tensor(x), tg.tensor(y) if K else None, stream(step))
        adams[0].zero_grad()
        terms["loss"].backward()
        adams[0].step()

        ε = torch.from_numpy(host(tg.randn(k, 8, L, rng=stream(step), dtype=tg.float64)))
        X = torch.from_numpy(x)
        Y = torch.nn.functional.one_hot(torch.from_numpy(y), K).double() if K else None
        μ, log_var = theirs.encoder(X, Y).chunk(2, 1)
        q = D.Normal(μ, (log_var / 2).exp())
        z = μ + (log_var / 2).exp() * ε
        a = torch.stack([theirs.decoder(z_i, Y).reshape(8, *SHAPE) for z_i in z])
        if name == "Gaussian, learned":
            log_px = D.Normal(a.sigmoid(), log_sigma.exp()).log_prob(X).flatten(2).sum(2)
        else:
            bce = torch.nn.functional.binary_cross_entropy_with_logits(a, X.expand_as(a), reduction="none")
            log_px = -bce.flatten(2).sum(2)
        if vamp:
            m, v = theirs.encoder(pixels.sigmoid(), None).chunk(2, 1)
            parts = D.Independent(D.Normal(m, (v / 2).exp()), 1)
            p_z = D.MixtureSameFamily(D.Categorical(logits=weights), parts)
            kl = (q.log_prob(z).sum(2) - p_z.log_prob(z)).mean()
        else:
            kl = D.kl_divergence(q, D.Normal(0.0, 1.0)).sum(1).mean()
        if k > 1:
            log_w = log_px + D.Normal(0.0, 1.0).log_prob(z).sum(2) - q.log_prob(z).sum(2)
            loss = -(log_w.logsumexp(0) - math.log(k)).mean()
        else:
            loss = -log_px.mean() + β * kl
        adams[1].zero_grad()
        loss.backward()
        adams[1].step()
        found = [terms[part].item() for part in ("loss", "reconstruction", "kl")]
        np.testing.assert_allclose(found, [loss.item(), -log_px.mean().item(), kl.item()], rtol=1e-6, atol=1e-6)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(host(ours.state_dict()[key]), value.numpy(), rtol=1e-6, atol=1e-6, err_msg=key)

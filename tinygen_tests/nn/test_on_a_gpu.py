"""Layers, optimizers and tools where a GPU's array library computes: the strict stand-in for CuPy, in every run.

The same steps are taken on the CPU and on "cuda"; the numbers agree.
"""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn, optim
from tinygen_tests.judge import host

pytestmark = pytest.mark.cpu_only("brings the stand-in itself")

OPTIMIZERS = {
    "sgd": lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda ps: optim.RMSprop(ps, lr=0.01, momentum=0.5, centered=True, weight_decay=0.1),
    "adam": lambda ps: optim.Adam(ps, lr=0.01, amsgrad=True, weight_decay=0.1, maximize=True),
    "adamw": lambda ps: optim.AdamW(ps, lr=0.01),
}


def network():
    rng = tg.Generator(0)
    return nn.Sequential(
        nn.utils.spectral_norm(nn.Conv2d(2, 4, 3, padding=1, rng=rng), rng=rng),
        nn.BatchNorm2d(4, momentum=None),
        nn.SiLU(),
        nn.Dropout(0.0),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(4, 4, 2, 2, rng=rng),
        nn.GroupNorm(2, 4),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(2),
        nn.MultiheadAttention(4, 2, bias=False, batch_first=True, rng=rng),  # a bias of keys has no gradient
    ).double()


def forward(net, x):
    *layers, attention = net
    for layer in layers:
        x = layer(x)
    mask = tg.Tensor(x.data[:, :, 0] > 1e9)
    return attention(x, x, x, key_padding_mask=mask)[0]


def train(net, make, device, steps=4):
    optimizer = make(net.parameters())
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    ema = optim.EMA(net)
    for step in range(steps):
        x = tg.tensor(np.random.default_rng(step).standard_normal((3, 2, 4, 4)), device=device)
        loss = (forward(net, x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5, norm_type=2 + step % 2)
        nn.utils.clip_grad_value_(net.parameters(), 0.2)
        optimizer.step()
        schedule.step()
        ema.update()
    with ema.apply():
        averaged = {name: host(t).copy() for name, t in net.state_dict().items()}
    return optimizer, ema, averaged


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training(name):
    with tg.testing.strict_cupy():
        here, there = network(), network()
        parameters = list(there.parameters())
        assert there.to("cuda") is there and all(p is q for p, q in zip(parameters, there.parameters()))
        assert {t.device for t in there.state_dict().values()} == {"cuda:0"}
        a, _, expected = train(here, OPTIMIZERS[name], "cpu")
        b, ema, found = train(there, OPTIMIZERS[name], "cuda")
        for key in expected:
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-9, atol=1e-12, err_msg=key)

        # States move between devices through state_dict.
        back = network()
        back.load_state_dict(there.state_dict())
        for key, t in back.state_dict().items():
            assert t.device == "cpu"
            np.testing.assert_allclose(t.data, host(here.state_dict()[key]), rtol=1e-9, atol=1e-12, err_msg=key)
        there.load_state_dict(here.state_dict())
        resumed = OPTIMIZERS[name](back.parameters())
        resumed.load_state_dict(b.state_dict())
        b.load_state_dict(a.state_dict())
        moved = optim.EMA(back)
        moved.load_state_dict(ema.state_dict())
        moved.copy_to(there)
        vector = nn.utils.parameters_to_vector(there.parameters())
        nn.utils.vector_to_parameters(vector, there.parameters())
        assert there.to("cpu")[6].weight.device == "cpu"


def test_layers_are_made_there():
    with tg.testing.strict_cupy():
        rng = tg.Generator(0, device="cuda")
        for layer in (
            nn.Linear(2, 3, device="cuda", rng=rng),
            nn.Conv2d(2, 3, 3, device="cuda"),
            nn.Embedding(4, 3, 0, device="cuda", rng=rng),
            nn.BatchNorm1d(3, device="cuda"),
            nn.InstanceNorm2d(3, affine=True, track_running_stats=True, device="cuda"),
            nn.LayerNorm(3, device="cuda"),
            nn.MultiheadAttention(4, 2, device="cuda", rng=rng),
        ):
            assert {t.device for t in layer.state_dict().values()} == {"cuda:0"}, layer
        w = nn.Parameter(tg.zeros(4, 6, device="cuda"))
        for fill in (
            nn.init.uniform_, nn.init.normal_, nn.init.trunc_normal_, nn.init.xavier_uniform_, nn.init.xavier_normal_,
            nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.orthogonal_,
        ):  # fmt: skip
            assert host(fill(w, rng=rng)).any() and w.device == "cuda:0"
        with pytest.raises(tg.DeviceError):
            nn.Linear(2, 3)(tg.ones(1, 2, device="cuda"))


def test_a_step_looks_at_no_numbers():
    """The host waits for the GPU only where it must."""
    with tg.testing.strict_cupy():
        net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).to("cuda")
        optimizer, ema = optim.Adam(net.parameters()), optim.EMA(net)
        x = tg.ones(4, 2, device="cuda")
        with tg.testing.count_syncs() as syncs:
            loss = net(x).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            ema.update()
        assert syncs.count == 0, syncs

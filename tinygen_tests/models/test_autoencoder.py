"""The autoencoders: shapes, losses against their formulas, and that they learn what they are for."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.models import (
    ConvAutoencoder,
    DenseAutoencoder,
    StackedAutoencoder,
    corrupt,
    pretrain_greedily,
)
from tinygen_tests.draws import stream
from tinygen_tests.judge import same, torch
from tinygen_tests.nn.beside_torch import to_theirs

KINDS = {
    "dense": lambda shape, **options: DenseAutoencoder(shape, latent=5, **options),
    "stacked": lambda shape, **options: StackedAutoencoder(shape, widths=(12, 7, 5), **options),
    "conv": lambda shape, **options: ConvAutoencoder(shape, widths=(4, 6), latent=5, **options),
}


def images(n: int, shape: tuple[int, ...], seed: int = 0) -> tg.Tensor:
    return tg.rand(n, *shape, rng=stream(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 9, 7), (2, 5, 12)])
def test_every_size_comes_back_in_its_own_shape(kind, shape):
    model = KINDS[kind](shape, rng=stream(0))
    x = images(3, shape)
    assert model.encode(x).shape == (3, 5)
    y = model(x)
    assert y.shape == x.shape
    assert y.dtype == tg.float32
    assert ((y > 0) & (y < 1)).all()


@pytest.mark.parametrize("kind", ["dense", "stacked"])
def test_dense_layers_are_their_formula(kind):
    """ReLU between the layers, none at the code and none before the sigmoid.

    Proves: StackedAutoencoder, DenseAutoencoder.
    """
    model = KINDS[kind]((1, 4, 6), rng=stream(1)).double()
    x = images(3, (1, 4, 6)).double()
    weights = [p.detach().numpy() for p in model.parameters()]
    depth = len(weights) // 4
    h = x.numpy().reshape(3, 24)
    for k in range(2 * depth):
        h = h @ weights[2 * k].T + weights[2 * k + 1]
        if k == depth - 1:
            np.testing.assert_allclose(model.encode(x).detach().numpy(), h, rtol=1e-10)
        elif k < 2 * depth - 1:
            h = np.maximum(h, 0)
    np.testing.assert_allclose(model(x).detach().numpy().reshape(3, 24), 1 / (1 + np.exp(-h)), rtol=1e-10)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (5, 12)])
def test_convolutions_are_their_formula(size):
    """Proves: ConvAutoencoder."""
    model = KINDS["conv"]((2, *size), rng=stream(1)).double()
    x = images(3, (2, *size)).double()
    f, (H, W) = torch.nn.functional, size
    (h, w), (i, j) = ((H + 1) // 2, (W + 1) // 2), ((H + 3) // 4, (W + 3) // 4)
    w1, b1, w2, b2, V, c = to_theirs(dict(model.encoder.named_parameters())).values()
    y = f.relu(f.conv2d(torch.tensor(x.numpy()), w1, b1, 2, 1))
    z = f.linear(f.relu(f.conv2d(y, w2, b2, 2, 1)).flatten(1), V, c)
    same(model.encode(x), z)
    V, c, w2, b2, w1, b1 = to_theirs(dict(model.decoder.named_parameters())).values()
    y = f.relu(f.linear(z, V, c)).reshape(3, 6, i, j)
    y = f.relu(f.conv_transpose2d(y, w2, b2, 2, 1, (1 - h % 2, 1 - w % 2)))
    same(model(x), f.conv_transpose2d(y, w1, b1, 2, 1, (1 - H % 2, 1 - W % 2)).sigmoid())


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_cross_entropy_of_its_formula(kind):
    model = KINDS[kind]((1, 8, 8), rng=stream(1)).to(tg.float64)
    x = images(4, (1, 8, 8)).to(tg.float64)
    y = model(x).detach().numpy()
    t = x.numpy()
    expected = -(t * np.log(y) + (1 - t) * np.log(1 - y)).reshape(4, -1).sum(1)
    assert model.loss(x).item() == pytest.approx(expected.mean(), rel=1e-10)
    weight = tg.tensor([1.0, 0.0, 1.0, 1.0], dtype=tg.float64)
    assert model.loss(x, weight=weight).item() == pytest.approx(expected[[0, 2, 3]].mean(), rel=1e-10)
    none = tg.zeros(4, dtype=tg.float64)
    assert model.loss(x, weight=none).item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_of_zero_leaves_an_image_out_of_every_gradient(kind):
    model = KINDS[kind]((1, 8, 8), rng=stream(1)).to(tg.float64)
    x = images(3, (1, 8, 8)).to(tg.float64)
    model.loss(x, weight=tg.tensor([1.0, 0.0, 1.0], dtype=tg.float64)).backward()
    weighted = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    model.loss(x[[0, 2]]).backward()
    for a, p in zip(weighted, model.parameters(), strict=True):
        np.testing.assert_allclose(a, p.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_to_rebuild(kind):
    rng = stream(1)
    x = tg.tensor(tg.data.digits("train").images[:64])
    model = KINDS[kind]((1, 8, 8), rng=rng)
    adam = tg.optim.Adam(model.parameters(), lr=5e-3)
    first = model.loss(x).item()
    for _ in range(300):
        adam.zero_grad()
        model.training_step(x)["loss"].backward()
        adam.step()
    last = model.loss(x).item()
    mean_image = x.mean(0, keepdim=True).clamp(1e-3, 1 - 1e-3)
    best_without_a_code = tg.nn.functional.binary_cross_entropy(mean_image.broadcast_to(x.shape), x, reduction="sum")
    assert last < first
    assert last < best_without_a_code.item() / 64 - 1, "the code says nothing about the image"


def test_a_denoising_step_sees_a_spoiled_image_and_wants_the_clean_one():
    model = DenseAutoencoder((1, 8, 8), latent=5, noise=("masking", 1.0), rng=stream(0))
    x = images(4, (1, 8, 8))
    black = tg.zeros_like(x)
    assert model.training_step(x, rng=stream(3))["loss"].item() == pytest.approx(model.loss(x, seen=black).item())
    assert model.training_step(x, rng=stream(3))["loss"].item() != pytest.approx(model.loss(x).item())


def test_reconstruction_error_is_one_number_an_image_and_records_nothing():
    model = ConvAutoencoder((1, 8, 8), widths=(4,), latent=3, rng=stream(0))
    x = images(4, (1, 8, 8))
    error = model.reconstruction_error(x)
    assert error.shape == (4,)
    assert not error.requires_grad
    expected = ((model(x).detach().numpy() - x.numpy()) ** 2).reshape(4, -1).mean(1)
    np.testing.assert_allclose(error.numpy(), expected, rtol=1e-5)


def test_codes_get_the_gaussian_of_their_mean_and_covariance():
    model = DenseAutoencoder((1, 4, 4), latent=3, rng=stream(0)).to(tg.float64)
    x = images(200, (1, 4, 4)).to(tg.float64)
    model.fit_codes(x)
    z = model.encode(x).detach().numpy()
    scale = model.code_scale.numpy()
    np.testing.assert_allclose(model.code_mean.numpy(), z.mean(0), rtol=1e-10)
    np.testing.assert_allclose(scale @ scale.T, np.cov(z.T, bias=True) + 1e-6 * np.eye(3), rtol=1e-9)
    drawn = model.sample(50, rng=stream(1))
    assert drawn.shape == (50, 1, 4, 4)
    assert (drawn.numpy() == model.sample(50, rng=stream(1)).numpy()).all()
    fresh = DenseAutoencoder((1, 4, 4), latent=3, rng=stream(5)).to(tg.float64)
    fresh.load_state_dict(model.state_dict())
    assert (drawn.numpy() == fresh.sample(50, rng=stream(1)).numpy()).all(), "the Gaussian is not saved"


def test_a_path_begins_and_ends_at_the_two_reconstructions():
    model = DenseAutoencoder((1, 4, 4), latent=3, rng=stream(0))
    a, b = images(2, (1, 4, 4))
    frames, distances = model.path(a, b, steps=6)
    assert frames.shape == (6, 1, 4, 4)
    assert distances.shape == (5,)
    ends = model(tg.stack([a, b])).detach().numpy()
    np.testing.assert_allclose(frames.numpy()[[0, -1]], ends, rtol=1e-5)
    steps = np.diff(frames.numpy().reshape(6, -1), axis=0)
    np.testing.assert_allclose(distances.numpy(), np.linalg.norm(steps, axis=1), rtol=1e-4)


def test_each_stage_trains_its_own_layer_alone():
    model = StackedAutoencoder((1, 4, 4), widths=(9, 6, 3), rng=stream(0))
    x = images(5, (1, 4, 4))
    assert model.depth == 3
    for k in (1, 2, 3):
        model.zero_grad()
        model.stage_loss(x, k).backward()
        own = {id(p) for p in model.stage_parameters(k)}
        assert len(own) == 4
        for p in model.parameters():
            assert (p.grad is not None) == (id(p) in own)
    np.testing.assert_allclose(model.codes(x, 3).detach().numpy(), model.encode(x).detach().numpy())
    # The layers of a stage are each other's mirror image: together they keep the width they were handed.
    for k, width in enumerate((16, 9, 6), start=1):
        down, _, up, _ = model.stage_parameters(k)
        assert down.shape[1] == up.shape[0] == width


def stages(model):
    """For each k the layer and its mirror image, in PyTorch, with the model's own numbers."""
    for k in range(1, model.depth + 1):
        yield [torch.tensor(p.detach().numpy(), requires_grad=True) for p in model.stage_parameters(k)]


def stage_by_hand(h, k, depth, W, b, V, c):
    """The loss of stage k and h_k, for h = h_{k−1}."""
    f = torch.nn.functional
    code = f.linear(h, W, b) if k == depth else f.linear(h, W, b).relu()
    rebuilt = f.linear(code, V, c)
    if k == 1:
        return f.binary_cross_entropy(rebuilt.sigmoid(), h, reduction="sum") / len(h), code
    return (h - rebuilt.relu()).square().sum() / len(h), code


def test_the_loss_of_a_stage_is_its_formula():
    """Proves: StackedAutoencoder.stage_loss."""
    model = StackedAutoencoder((1, 4, 4), widths=(9, 6, 3), rng=stream(0)).double()
    x = images(5, (1, 4, 4)).double()
    h = torch.tensor(x.numpy()).flatten(1)
    for k, parameters in enumerate(stages(model), start=1):
        expected, code = stage_by_hand(h, k, 3, *parameters)
        expected.backward()
        model.zero_grad()
        found = model.stage_loss(x, k)
        found.backward()
        same(found, expected)
        for p, q in zip(model.stage_parameters(k), parameters, strict=True):
            same(p.grad, q.grad)
        h = code.detach()


def test_greedy_pretraining_is_pytorchs_stage_by_stage():
    """Six steps of PyTorch's Adam for every stage, on what the stages below have become.

    Proves: pretrain_greedily.
    """
    model = StackedAutoencoder((1, 4, 4), widths=(9, 6, 3), rng=stream(0)).double()
    theirs = list(stages(model))
    batches = [images(5, (1, 4, 4), seed).double() for seed in range(18)]
    last = pretrain_greedily(model, iter(batches), steps=6, lr=0.01)
    for k, parameters in enumerate(theirs, start=1):
        adam = torch.optim.Adam(parameters, lr=0.01)
        for x in batches[6 * (k - 1) : 6 * k]:
            h = torch.tensor(x.numpy()).flatten(1)
            for below in range(1, k):
                h = stage_by_hand(h, below, 3, *theirs[below - 1])[1].detach()
            loss, _ = stage_by_hand(h, k, 3, *parameters)
            adam.zero_grad()
            loss.backward()
            adam.step()
        assert last[k - 1] == pytest.approx(loss.item(), rel=1e-7)
        for p, q in zip(model.stage_parameters(k), parameters, strict=True):
            same(p, q, 1e-7)


def test_greedy_pretraining_lowers_every_stage_and_helps_the_whole():
    x = tg.tensor(tg.data.digits("train").images[:128])
    model = StackedAutoencoder((1, 8, 8), widths=(32, 16, 4), rng=stream(0))
    before = [model.stage_loss(x, k).item() for k in (1, 2, 3)]
    whole = model.loss(x).item()
    seen = []
    last = pretrain_greedily(model, iter(lambda: x, None), steps=60, lr=5e-3, report=lambda *at: seen.append(at[:2]))
    assert seen == [(k, s) for k in (1, 2, 3) for s in range(1, 61)]
    assert last[0] < before[0]
    assert model.stage_loss(x, 2).item() <= last[1] * 1.5
    assert model.loss(x).item() < whole


@pytest.mark.parametrize("kind", ["gaussian", "masking", "salt_and_pepper"])
def test_corruption(kind):
    x = tg.full((100, 1, 10, 10), 0.5)
    y = corrupt(x, kind, 0.25, rng=stream(0))
    assert y.shape == x.shape and y.dtype == x.dtype
    assert (x == 0.5).all(), "the image itself was changed"
    assert ((y >= 0) & (y <= 1)).all()
    values = y.numpy()
    a, u = np.random.default_rng(0).uniform(size=x.shape).astype("float32"), tg.rand_like(x, rng=stream(0)).numpy()
    found = corrupt(tg.tensor(a), kind, 0.25, rng=stream(0)).numpy()
    if kind == "gaussian":
        noise = tg.randn_like(x, rng=stream(0)).numpy()
        np.testing.assert_allclose(found, np.clip(a + 0.25 * noise, 0, 1), atol=1e-6)
    else:
        np.testing.assert_array_equal(found[u >= 0.25], a[u >= 0.25])
        assert set(np.unique(found[u < 0.25])) == ({0.0} if kind == "masking" else {0.0, 1.0})
    if kind == "gaussian":
        # clipped at two standard deviations on either side
        assert values.std() == pytest.approx(0.25, rel=0.07)
    else:
        assert (values != 0.5).mean() == pytest.approx(0.25, abs=0.02)
        assert (values == 1).mean() == pytest.approx(0.125 if kind == "salt_and_pepper" else 0, abs=0.02)
    assert (corrupt(x, kind, 0.0, rng=stream(0)) == x).all()
    assert (corrupt(x, kind, 0.25, rng=stream(0)) == y).all()


def test_errors_name_what_came():
    model = ConvAutoencoder((1, 8, 8), widths=(4,), latent=3)
    with pytest.raises(ValueError, match=r"expected images of shape \(N, 1, 8, 8\), got \(2, 1, 28, 28\)"):
        model(tg.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match=r"expected codes of shape \(N, 3\), got \(2, 4\)"):
        model.decode(tg.zeros(2, 4))
    with pytest.raises(ValueError, match="cannot be halved 4 times"):
        ConvAutoencoder((1, 8, 8), widths=(4, 4, 4, 4))
    with pytest.raises(ValueError, match="expected positive widths"):
        StackedAutoencoder((1, 8, 8), widths=())
    with pytest.raises(ValueError, match="y was given"):
        model.training_step(tg.zeros(2, 1, 8, 8), tg.zeros(2, dtype=tg.int64))
    with pytest.raises(ValueError, match="steps ≥ 2"):
        model.path(tg.zeros(1, 8, 8), tg.zeros(1, 8, 8), steps=1)
    with pytest.raises(ValueError, match="at least two images"):
        model.fit_codes(tg.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="'rain'"):
        corrupt(tg.zeros(1), "rain")
    with pytest.raises(ValueError, match="out of range"):
        corrupt(tg.zeros(1), "masking", 1.5)

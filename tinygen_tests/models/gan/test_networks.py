"""Generators and discriminators: their formulas, every size, labels that matter, weights that start as they should."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn
from tinygen.models.gan import (
    ConvDiscriminator,
    ConvGenerator,
    DenseDiscriminator,
    DenseGenerator,
    init_normal,
)
from tinygen_tests.draws import numbers, stream
from tinygen_tests.judge import host, same, torch
from tinygen_tests.nn.beside_torch import to_theirs

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 9, 7), (2, 5, 12), (1, 13, 32)]
PAIRS = {
    "dense": (
        lambda shape, **o: DenseGenerator(shape, 6, (16, 12), **o),
        lambda shape, **o: DenseDiscriminator(shape, (16, 12), **o),
    ),
    "conv": (
        lambda shape, **o: ConvGenerator(shape, 6, (4, 6), **o),
        lambda shape, **o: ConvDiscriminator(shape, (4, 6), **o),
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [None, 3])
def test_every_size_comes_out_in_its_own_shape(kind, shape, classes):
    make_g, make_d = PAIRS[kind]
    G, D = make_g(shape, classes=classes, rng=stream(0)), make_d(shape, classes=classes, rng=stream(1))
    y = None if classes is None else tg.tensor([0, 2, 1, 1])
    x = G(tg.randn(4, 6, rng=stream(2)), y)
    assert x.shape == (4, *shape) and x.dtype == tg.float32
    assert host(abs(x)).max() <= 1
    a = D(x, y)
    assert a.shape == (4,) and a.dtype == tg.float32
    a.sum().backward()
    for network in (G, D):
        for name, p in network.named_parameters():
            assert p.grad is not None and np.isfinite(host(p.grad)).all(), name


@pytest.mark.parametrize("times", [1, 3])
def test_any_number_of_halvings(times):
    widths = (5, 4, 3)[:times]
    G, D = ConvGenerator((1, 11, 8), 2, widths), ConvDiscriminator((1, 11, 8), widths)
    x = G(tg.randn(2, 2))
    assert x.shape == (2, 1, 11, 8) and D(x).shape == (2,)


def test_conv_windows_are_4_for_even_sizes_and_3_for_odd():
    D = ConvDiscriminator((1, 28, 7), (2, 2, 2))
    kernels = [part.kernel_size for part in D.modules() if isinstance(part, nn.Conv2d)]
    assert kernels == [(4, 3), (4, 4), (3, 4)]  # 28→14→7→4 and 7→4→2→1
    G = ConvGenerator((1, 28, 7), 2, (2, 2, 2))
    assert [p.kernel_size for p in G.modules() if isinstance(p, nn.ConvTranspose2d)] == kernels[::-1]


@pytest.mark.parametrize("kind", PAIRS)
def test_a_label_changes_what_comes_out_and_labels_go_with_their_own_image(kind):
    make_g, make_d = PAIRS[kind]
    G = make_g((1, 8, 8), classes=3, std=0.5, rng=stream(0)).eval()
    D = make_d((1, 8, 8), classes=3, std=0.5, rng=stream(1)).eval()
    z = tg.broadcast_to(tg.randn(1, 6, rng=stream(2)), (3, 6))
    y = tg.tensor([0, 1, 2])
    x = host(G(z, y))
    assert np.abs(x[0] - x[1]).max() > 1e-3 and np.abs(x[1] - x[2]).max() > 1e-3
    back = tg.tensor([2, 1, 0])
    np.testing.assert_allclose(host(G(z, back)), x[::-1], rtol=1e-4, atol=1e-5)
    same = tg.broadcast_to(tg.rand(1, 1, 8, 8, rng=stream(3)), (3, 1, 8, 8))
    a = host(D(same, y))
    assert len(np.unique(a)) == 3
    np.testing.assert_allclose(host(D(same, back)), a[::-1], rtol=1e-4)


@pytest.mark.parametrize("classes", [None, 3])
def test_dense_networks_are_their_formulas(classes):
    """Proves: DenseGenerator, DenseDiscriminator."""
    G = DenseGenerator((2, 3), 4, (7, 5), classes, rng=stream(0)).double()
    D = DenseDiscriminator((2, 3), (7, 5), classes, rng=stream(1)).double()
    z, x, y = numbers(0, (6, 4)), numbers(1, (6, 2, 3)), np.array([0, 2, 1, 1, 0, 2])
    labels = () if classes is None else (tg.tensor(y),)

    weights = {name: host(p) for name, p in G.named_parameters()}
    E = weights.pop("label.weight", np.zeros((3, 7)))
    W1, b1, W2, b2, W, b = weights.values()
    h = np.maximum(np.maximum(z @ W1.T + b1 + E[y], 0) @ W2.T + b2, 0)
    np.testing.assert_allclose(host(G(tg.tensor(z), *labels)).reshape(6, 6), np.tanh(h @ W.T + b), rtol=1e-10)

    weights = {name: host(p) for name, p in D.named_parameters()}
    V = weights.pop("label.weight", np.zeros((3, 5)))
    W1, b1, W2, b2, w, b = weights.values()
    leaky = lambda a: np.where(a > 0, a, 0.2 * a)
    h = leaky(leaky(x.reshape(6, 6) @ W1.T + b1) @ W2.T + b2)
    np.testing.assert_allclose(host(D(tg.tensor(x), *labels)), (h * (w + V[y])).sum(1) + b, rtol=1e-10)


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_convolutional_networks_are_their_formulas(classes, batch_norm):
    """Windows of 4 for even sides and of 3 for odd ones; BatchNorm with the statistics of the batch.

    Proves: ConvGenerator, ConvDiscriminator.
    """
    options = {"classes": classes, "batch_norm": batch_norm, "std": 0.5}
    G = ConvGenerator((2, 9, 12), 4, (3, 5), rng=stream(0), **options).double()  # 9 → 5 → 3 and 12 → 6 → 3
    D = ConvDiscriminator((2, 9, 12), (3, 5), rng=stream(1), **options).double()
    z, x, y = numbers(0, (4, 4)), numbers(1, (4, 2, 9, 12)), np.array([0, 2, 1, 1])
    labels, f = () if classes is None else (tg.tensor(y),), torch.nn.functional
    linear = lambda h, part: f.linear(h, p[f"{part}.weight"], p[f"{part}.bias"])

    def normed(h, part):
        if not batch_norm:
            return h
        return f.batch_norm(h, None, None, p[f"{part}.weight"], p[f"{part}.bias"], training=True)

    p = to_theirs(dict(G.named_parameters()))
    h = linear(torch.from_numpy(z), "first") + (0 if classes is None else p["label.weight"][y])
    first, second = (3, 6) if batch_norm else (2, 4)  # the places of the transposed convolutions
    h = f.relu(normed(h.reshape(4, 5, 3, 3), "rest.1"))
    h = f.conv_transpose2d(h, p[f"rest.{first}.weight"], p.get(f"rest.{first}.bias"), 2, 1)
    h = f.relu(normed(h, f"rest.{first + 1}"))
    h = f.conv_transpose2d(h, p[f"rest.{second}.weight"], p[f"rest.{second}.bias"], 2, 1)
    same(G(tg.tensor(z), *labels), h.tanh())

    p = to_theirs(dict(D.named_parameters()))
    h = f.leaky_relu(f.conv2d(torch.from_numpy(x), p["features.0.weight"], p["features.0.bias"], 2, 1), 0.2)
    h = f.conv2d(h, p["features.2.weight"], p.get("features.2.bias"), 2, 1)
    h = f.leaky_relu(normed(h, "features.3"), 0.2).flatten(1)
    a = linear(h, "last")[:, 0] + (0 if classes is None else (p["label.weight"][y] * h).sum(1))
    same(D(tg.tensor(x), *labels), a)


def test_the_label_of_a_discriminator_enters_by_projection():
    """a(x, y) = ⟨w + V[y], φ(x)⟩ + b."""
    D = DenseDiscriminator((2,), (5,), classes=3, rng=stream(0)).to(tg.float64)
    x, y = tg.randn(4, 2, rng=stream(1), dtype=tg.float64), tg.tensor([2, 0, 1, 2])
    φ = host(D.features(x).detach())
    w, b, V = host(D.last.weight)[0], host(D.last.bias), host(D.label.weight)
    np.testing.assert_allclose(host(D(x, y)), (φ * (w + V[host(y)])).sum(1) + b, rtol=1e-10)


def test_the_label_of_a_generator_is_a_one_hot_vector_beside_the_noise():
    """W [z; one_hot(y)] = W_z z + E[y]."""
    G = DenseGenerator((2,), 3, (5,), classes=4, rng=stream(0)).to(tg.float64)
    z, y = tg.randn(6, 3, rng=stream(1), dtype=tg.float64), tg.tensor([0, 1, 2, 3, 0, 2])
    both = np.concatenate([host(z), np.eye(4)[host(y)]], 1)
    W = np.concatenate([host(G.first.weight), host(G.label.weight).T], 1)
    h = both @ W.T + host(G.first.bias)
    np.testing.assert_allclose(host(G(z, y)), host(G.rest(tg.tensor(h))), rtol=1e-10)


def test_points_of_the_plane_are_not_bounded():
    G = DenseGenerator((2,), 2, (4,), bounded=False, rng=stream(0))
    assert np.abs(host(G(100 * tg.randn(50, 2, rng=stream(1))))).max() > 1
    assert G(tg.zeros(3, 2)).shape == (3, 2)


def test_weights_start_normal_with_002_and_batch_norm_around_1():
    G = ConvGenerator((1, 32, 32), 100, (64, 128), classes=10, rng=stream(0))
    for part in G.modules():
        if isinstance(part, (nn.Linear, nn.ConvTranspose2d, nn.Embedding)):
            w = host(part.weight)
            assert w.std() == pytest.approx(0.02, rel=0.1) and abs(w.mean()) < 0.002
        if isinstance(part, nn.BatchNorm2d):
            w = host(part.weight)
            assert w.std() == pytest.approx(0.02, rel=0.3) and w.mean() == pytest.approx(1, abs=0.01)
        if getattr(part, "bias", None) is not None:
            assert not host(part.bias).any()
    again = ConvGenerator((1, 32, 32), 100, (64, 128), classes=10, rng=stream(0))
    for p, q in zip(G.parameters(), again.parameters(), strict=True):
        np.testing.assert_array_equal(host(p), host(q))
    own = nn.Linear(50, 50)
    assert init_normal(own, 0.5, stream(1)) is own and host(own.weight).std() == pytest.approx(0.5, rel=0.1)


def test_batch_norm_keeps_pytorchs_epsilon():
    """``BatchNorm2d(n, 0.8)``, the slip of many copies of DCGAN, sets ε by position: ours nowhere do."""
    norms = [
        part
        for network in (ConvGenerator((1, 16, 16), 4, (3, 4)), ConvDiscriminator((1, 16, 16), (3, 4), batch_norm=True))
        for part in network.modules()
        if isinstance(part, nn.BatchNorm2d)
    ]
    assert len(norms) == 3
    for norm in norms:
        assert norm.eps == 1e-5 and norm.momentum == 0.1
    slip = nn.BatchNorm2d(4, 0.8)
    assert slip.eps == 0.8 and slip.momentum == 0.1, "what the slip does"


def test_batch_norm_stands_where_dcgan_has_it():
    D = ConvDiscriminator((1, 16, 16), (3, 4, 5), batch_norm=True)
    names = [type(part).__name__ for part in D.features]
    assert names == ["Conv2d", "LeakyReLU"] + ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 2 + ["Flatten"]
    assert [p.bias is None for p in D.features if isinstance(p, nn.Conv2d)] == [False, True, True]
    without = [type(part).__name__ for part in ConvDiscriminator((1, 16, 16), (3, 4)).features]
    assert "BatchNorm2d" not in without, "the default suits a gradient penalty"
    G = [type(part).__name__ for part in ConvGenerator((1, 16, 16), 4, (3, 4)).rest]
    assert G == ["Unflatten"] + ["BatchNorm2d", "ReLU", "ConvTranspose2d"] * 2 + ["Tanh"]
    bare = ConvGenerator((1, 16, 16), 4, (3, 4), batch_norm=False)
    assert all(p.bias is not None for p in bare.rest if isinstance(p, nn.ConvTranspose2d))


@pytest.mark.parametrize("kind", PAIRS)
def test_spectral_normalisation_of_every_layer(kind):
    D = PAIRS[kind][1]((1, 8, 8), classes=3, spectral=True, rng=stream(0))
    x, y = tg.rand(5, 1, 8, 8, rng=stream(1)), tg.tensor([0, 1, 2, 1, 0])
    for _ in range(200):
        D(x, y)
    D.eval()
    layers = [p for p in D.modules() if isinstance(p, (nn.Linear, nn.Conv2d, nn.Embedding))]
    assert len(layers) == 4
    for layer in layers:
        w = host(layer.weight)
        assert np.linalg.norm(w.reshape(len(w), -1), 2) == pytest.approx(1, abs=1e-3)
    a, b = host(D(x, y)), host(D(x + 1e-2, y))
    if kind == "dense":  # every layer has slope 1 at most: 1 for ⟨w, φ⟩ and 1 for ⟨V[y], φ⟩
        assert np.abs(a - b).max() <= 2 * 1e-2 * 8 + 1e-6


def test_errors_name_what_came():
    with pytest.raises(ValueError, match="8×8 cannot be halved 4 times"):
        ConvGenerator((1, 8, 8), 4, (2, 2, 2, 2))
    with pytest.raises(ValueError, match=r"expected an image shape \(C, H, W\), got \(8, 8\)"):
        ConvDiscriminator((8, 8))
    with pytest.raises(ValueError, match="DenseGenerator: expected positive widths, got"):
        DenseGenerator((2,), 4, ())
    with pytest.raises(ValueError, match="latent ≥ 1, got 0"):
        DenseGenerator((2,), 0)
    with pytest.raises(ValueError, match="positive lengths, got"):
        DenseDiscriminator((0,))
    with pytest.raises(ValueError, match="classes ≥ 1"):
        DenseDiscriminator((2,), classes=0)
    G, D = ConvGenerator((1, 8, 8), 4, (2,)), ConvDiscriminator((1, 8, 8), (2,), classes=3)
    with pytest.raises(ValueError, match=r"noise of shape \(N, 4\), got \(2, 5\)"):
        G(tg.zeros(2, 5))
    with pytest.raises(ValueError, match="no labels: it has no classes, got labels"):
        G(tg.zeros(2, 4), tg.tensor([0, 1]))
    with pytest.raises(ValueError, match="labels 0 … 2, got none"):
        D(tg.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"images of shape \(N, 1, 8, 8\), got \(2, 1, 9, 8\)"):
        D(tg.zeros(2, 1, 9, 8), tg.tensor([0, 1]))
